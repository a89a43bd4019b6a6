//! Lists of signers of any bytes: each line is judged on its own, and no bad line is skipped.

#![expect(clippy::unwrap_used, reason = "a test")]

use proptest::prelude::*;
use reconciler::foreign::is_unprintable;

use super::*;
use crate::fuzz::Fuzz;

const WORDS: [&str; 20] = [
    "dev@example.com ",
    "cert-authority",
    "namespaces=\"git\"",
    "namespaces=\"file\"",
    "valid-after=\"20240101\"",
    "valid-before=\"20240101000000Z\"",
    "valid-before=\"99991231\"",
    "ssh-ed25519 ",
    "ecdsa-sha2-nistp256 ",
    "ssh-rsa ",
    "sk-ssh-ed25519@openssh.com ",
    "ssh-ed25519-cert-v01@openssh.com ",
    "AAAAC3NzaC1lZDI1NTE5AAAAI",
    ",",
    "!",
    "*",
    "\"",
    "\\\"",
    "#",
    "\n",
];

#[test]
fn any_list_is_judged_line_by_line() {
    let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
    Fuzz::new("src/source/allowed_signers/corpus", &WORDS).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let bad = |line: &str| AllowedSigners::parse(line).is_err();
        let lines = text.lines().enumerate().filter(|(_, line)| bad(line));
        let expected: Vec<usize> = lines.map(|(index, _)| index + 1).collect();
        match AllowedSigners::parse(&text) {
            Ok(signers) => {
                prop_assert_eq!(expected, Vec::<usize>::new());
                for key in signers.keys.values() {
                    vouches(key, &text, now)?;
                }
                Ok(signers.len() > 0)
            }
            Err(error) => {
                let message = error.to_string();
                let AllowedSignersError::BadLines(problems) = error else {
                    return Err(TestCaseError::fail(message));
                };
                let found: Vec<usize> = problems.iter().map(|problem| problem.line).collect();
                prop_assert_eq!(found, expected);
                prop_assert!(message.len() < 8 * 1024, "{} bytes", message.len());
                prop_assert!(!message.contains(is_unprintable), "{message:?}");
                Ok(false)
            }
        }
    });
}

/// The principal of a key is in the file, and a key is valid at both moments or at none.
fn vouches(key: &AllowedKey, text: &str, now: Timestamp) -> Result<(), TestCaseError> {
    let early = Timestamp::MIN;
    match key.allows(NAMESPACE, now, now) {
        Ok(signer) => {
            prop_assert!(!signer.principal.is_empty() && text.contains(&signer.principal));
            prop_assert!(!signer.principal.starts_with('!'));
            prop_assert_eq!(&signer.fingerprint, &key.fingerprint);
        }
        Err(NotAllowed::Namespace { allowed }) => {
            prop_assert!(!pattern::list_matches(&allowed, NAMESPACE));
        }
        Err(_) => {}
    }
    if key.allows(NAMESPACE, early, now).is_ok() {
        let neither = key.allows(NAMESPACE, early, early);
        prop_assert!(neither.is_ok() || key.lines.len() > 1, "{neither:?}");
    }
    Ok(())
}

/// Matches a pattern by its definition, with all ways to read each star.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|taken| matches(rest, &text[taken..])),
        Some((first, rest)) => text
            .split_first()
            .is_some_and(|(byte, text)| (*first == b'?' || first == byte) && matches(rest, text)),
    }
}

proptest! {
    #[test]
    fn patterns_match_by_their_definition(list in "[ab*?!,]{0,12}", text in "[ab,]{0,8}") {
        let patterns: Vec<&str> = list.split(',').collect();
        let holds = |pattern: &str| matches(pattern.as_bytes(), text.as_bytes());
        let negated = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(holds);
        let plain = patterns.iter().filter(|pattern| !pattern.starts_with('!'));
        let expected = !negated && plain.copied().any(holds);
        prop_assert_eq!(pattern::list_matches(&list, &text), expected);
    }
}
