//! OpenSSH's pattern lists (ssh_config(5), PATTERNS): comma-separated, `*` and `?`, `!` negates.

/// Whether `text` matches a list: some pattern must match, and no negated one may.
pub(super) fn list_matches(list: &str, text: &str) -> bool {
    let mut matched = false;
    for pattern in list.split(',') {
        match pattern.strip_prefix('!') {
            Some(negated) if matches(negated, text) => return false,
            Some(_) => {}
            None => matched |= matches(pattern, text),
        }
    }
    matched
}

/// Whether one pattern matches the whole text; linear in memory, quadratic at worst.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut read) = (0, 0);
    // The positions to continue at after the last star has matched one more byte.
    let mut retry: Option<(usize, usize)> = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, read));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[read] => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((after_star, taken)) = retry else {
                    return false;
                };
                retry = Some((after_star, taken + 1));
                at = after_star;
                read = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_openssh() {
        for (list, text, expected) in [
            ("git", "git", true),
            ("git", "gits", false),
            ("*", "", true),
            ("?", "", false),
            ("*@example.com", "dev@example.com", true),
            ("d?v@*", "dev@example.com", true),
            ("a*b*c", "aXXbYYc", true),
            ("a*b*c", "aXXbYY", false),
            ("*@example.com,!dev@example.com", "dev@example.com", false),
            ("!dev@example.com", "ops@example.com", false),
            ("file,git", "git", true),
            ("", "git", false),
        ] {
            assert_eq!(list_matches(list, text), expected, "{list} on {text}");
        }
    }
}
