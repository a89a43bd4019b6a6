//! Did-you-mean: the nearest of the words that would have been right.

/// ` (did you mean "replicas"?)`, or nothing where no word is near.
pub(crate) fn did_you_mean<'a>(wrong: &str, right: impl Iterator<Item = &'a str>) -> String {
    nearest(wrong, right).map_or_else(String::new, |word| format!(" (did you mean {word:?}?)"))
}

/// The word with the fewest edits to it, if those are few for its length, or else one that begins
/// alike; the first by name among equals.
pub(crate) fn nearest<'a>(wrong: &str, right: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody mistypes so long a word, and the distance costs the product of the lengths.
    if wrong.len() > 64 {
        return None;
    }
    let folded = wrong.to_ascii_lowercase();
    let words = right
        .filter(|word| word.len() <= 64)
        .map(|word| (word.to_ascii_lowercase(), word));
    words
        .filter_map(|(lower, word)| {
            let edits = strsim::osa_distance(&folded, &lower);
            let near = edits <= (wrong.len().min(word.len()) + 1) / 3;
            let begins_alike = wrong.len().min(word.len()) > 2
                && (lower.starts_with(folded.as_str()) || folded.starts_with(lower.as_str()));
            (near || begins_alike).then_some((!near, edits, word))
        })
        .min()
        .map(|(.., word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_far_ones_are_not() {
        let fields = ["replicas", "selector", "template", "paused"];
        assert_eq!(nearest("replicsa", fields.into_iter()), Some("replicas"));
        assert_eq!(nearest("Selector", fields.into_iter()), Some("selector"));
        assert_eq!(nearest("select", fields.into_iter()), Some("selector"));
        assert_eq!(nearest("volumes", fields.into_iter()), None);
        assert_eq!(
            did_you_mean("pausd", fields.into_iter()),
            " (did you mean \"paused\"?)"
        );
    }
}
