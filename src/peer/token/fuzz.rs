//! Join tokens of any bytes: an accepted token prints as a token with the same content.

use proptest::prelude::*;

use super::*;
use crate::fuzz::Fuzz;

const WORDS: [&str; 10] = [
    "\"host\":",
    "\"address\":",
    "\"ca\":",
    "\"secret\":",
    "\"n1\"",
    "\"192.0.2.1:7443\"",
    "\"[::1%eth0]:1\"",
    "wlj1.",
    ",",
    "\\u0000",
];

#[test]
fn any_content_of_a_token_is_refused_or_printed_again() {
    Fuzz::new("src/peer/token/corpus", &WORDS).run(|json| {
        judged(&format!(
            "{PREFIX}{}",
            Base64UrlUnpadded::encode_string(json)
        ))
    });
}

#[test]
fn any_text_is_refused_or_a_token_that_prints_again() {
    let mut fuzz = Fuzz::new("src/peer/token/corpus", &WORDS);
    for (_, json) in &mut fuzz.seeds {
        *json = format!("{PREFIX}{}", Base64UrlUnpadded::encode_string(json)).into_bytes();
    }
    fuzz.run(|bytes| judged(&String::from_utf8_lossy(bytes)));
}

fn judged(text: &str) -> Result<bool, TestCaseError> {
    let Ok(token) = text.parse::<JoinToken>() else {
        return Ok(false);
    };
    let printed = token.to_string();
    prop_assert_eq!(printed.parse::<JoinToken>(), Ok(token.clone()));
    prop_assert!(super::super::check_node_name(token.host.as_str()).is_ok());
    Ok(true)
}
