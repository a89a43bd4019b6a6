//! Suggestions for mistyped words: the nearest valid word.

/// ` (did you mean "replicas"?)`, or an empty text if no valid word is similar.
pub(crate) fn did_you_mean<'a>(wrong: &str, right: impl Iterator<Item = &'a str>) -> String {
    nearest(wrong, right).map_or_else(String::new, |word| format!(" (did you mean {word:?}?)"))
}

/// The word with the smallest edit distance, if that is small for its length, or else a word with
/// the same beginning; the first by name among equals.
pub(crate) fn nearest<'a>(wrong: &str, right: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Long words are skipped: the cost of the distance is the product of both lengths.
    if wrong.len() > 64 {
        return None;
    }
    let folded = wrong.to_ascii_lowercase();
    let rank = |word: &'a str| {
        let lower = word.to_ascii_lowercase();
        let shorter = wrong.len().min(word.len());
        let edits = strsim::osa_distance(&folded, &lower);
        // A third of the letters of a word may be wrong.
        let is_near = edits <= (shorter + 1) / 3;
        let begins_alike = shorter > 2
            && (lower.starts_with(folded.as_str()) || folded.starts_with(lower.as_str()));
        if is_near || begins_alike {
            Some((!is_near, edits, word))
        } else {
            None
        }
    };
    right
        .filter(|word| word.len() <= 64)
        .filter_map(rank)
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

    #[test]
    fn a_third_of_the_letters_may_be_wrong_or_the_rest_be_missing() {
        for (wrong, right, is_similar) in [
            ("ab", "ax", true),
            ("ab", "xy", false),
            ("abcd", "abxd", true),
            ("abcd", "axyd", false),
            ("abcde", "axyde", true),
            ("abcde", "axyze", false),
            ("abc", "abcdefgh", true),
            ("abcdefgh", "abc", true),
            ("ab", "abcdefgh", false),
            ("abcdefgh", "ab", false),
        ] {
            let found = nearest(wrong, [right].into_iter()).is_some();
            assert_eq!(found, is_similar, "{wrong} and {right}");
        }
        let words = ["abcde", "zbcdeyxh"];
        assert_eq!(nearest("abcdefgh", words.into_iter()), Some("zbcdeyxh"));
    }

    #[test]
    fn words_of_more_than_64_letters_are_skipped() {
        for (wrong, right, is_compared) in [(64, 64, true), (65, 64, false), (64, 65, false)] {
            let (wrong, right) = ("a".repeat(wrong), "a".repeat(right));
            let found = nearest(&wrong, [right.as_str()].into_iter()).is_some();
            assert_eq!(found, is_compared, "{} and {}", wrong.len(), right.len());
        }
    }
}
