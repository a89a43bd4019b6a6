//! Image names of arbitrary bytes: an accepted name consists of its parts and nothing else.

use proptest::prelude::*;

use super::*;
use crate::fuzz::Fuzz;

const WORDS: [&str; 14] = [
    "/",
    ":",
    "@",
    "@sha256:",
    "@sha512:",
    "://",
    ".",
    "__",
    "--",
    "localhost",
    "[::1]",
    ":5000/",
    "A",
    "é",
];

#[test]
fn any_name_is_refused_or_made_of_its_parts() {
    Fuzz::new("src/image_name/corpus", &WORDS).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        prop_assert_eq!(joined(&ImageName::taken_apart(&text)), text.as_ref());
        match ImageName::parse(&text) {
            Ok(name) => {
                prop_assert_eq!(joined(&name), text.as_ref());
                prop_assert!(text.is_ascii() && text.len() < 600);
                // An engine treats each of these names as the same image.
                let bare = ImageName::parse(&name.repository);
                prop_assert_eq!(bare.map(|bare| bare.repository), Ok(name.repository));
                Ok(true)
            }
            Err(fault) => {
                prop_assert!(fault.to_string().len() < 300 + 10 * text.len());
                Ok(false)
            }
        }
    });
}

fn joined(name: &ImageName) -> String {
    let tag = name.tag.iter().map(|tag| format!(":{tag}"));
    let digest = name.digest.iter().map(|digest| format!("@{digest}"));
    let rest: String = tag.chain(digest).collect();
    format!("{}{rest}", name.repository)
}
