//! One word stands for one concept: no two types of a package have the same name.

use std::collections::BTreeMap;

use super::{SOURCES, read, rust_files};

/// Names that two types of one package may share, each with the reason.
const SHARED: [(&str, &str); 0] = [];

#[test]
fn no_two_types_of_a_package_have_the_same_name() {
    for (package, directory) in SOURCES {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in rust_files(directory) {
            for (number, line) in read(&file).lines().enumerate() {
                if let Some(name) = type_name(line) {
                    let place = format!("{file}:{}", number + 1);
                    places.entry(name).or_default().push(place);
                }
            }
        }
        assert!(
            places.len() > 10,
            "the types of {package} were not recognized"
        );

        let shared = |name: &str| SHARED.iter().any(|(allowed, _)| *allowed == name);
        let duplicates: Vec<String> = places
            .iter()
            .filter(|(name, places)| places.len() > 1 && !shared(name))
            .map(|(name, places)| format!("{name}: {}", places.join(", ")))
            .collect();
        assert!(
            duplicates.is_empty(),
            "{package} has several types of one name; rename all but one:\n{}",
            duplicates.join("\n")
        );
    }
}

#[test]
fn the_names_of_types_are_recognized() {
    assert_eq!(
        type_name("pub(crate) enum Phase {").as_deref(),
        Some("Phase")
    );
    assert_eq!(type_name("struct Pair<'a, T>(T);").as_deref(), Some("Pair"));
    assert_eq!(type_name("    struct Inner;").as_deref(), Some("Inner"));
    assert_eq!(
        type_name("pub trait HostNet: Send {").as_deref(),
        Some("HostNet")
    );
    // The name of an associated type is given by its trait, and is not counted.
    assert_eq!(type_name("    type Error = FetchError;"), None);
    assert_eq!(type_name("type Rule = ();").as_deref(), Some("Rule"));
    assert_eq!(type_name("    // struct Comment"), None);
    assert_eq!(type_name("let structure = 1;"), None);
}

/// The name of the type that a line defines.
fn type_name(line: &str) -> Option<String> {
    let code = line.trim_start();
    let code = match code.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1.trim_start(),
        Some(rest) => rest.trim_start(),
        None => code,
    };
    let (keyword, rest) = code.split_once(' ')?;
    let is_associated = keyword == "type" && line.starts_with(' ');
    if !["struct", "enum", "union", "trait", "type"].contains(&keyword) || is_associated {
        return None;
    }
    let name: String = rest
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (!name.is_empty()).then_some(name)
}
