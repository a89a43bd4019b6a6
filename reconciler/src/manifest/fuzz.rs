//! Reads manifests of arbitrary bytes: the number of problems is bounded, each has a valid
//! position, and repeated reading gives the same objects.

use proptest::prelude::*;

use super::*;
use crate::{foreign::is_unprintable, fuzz::Fuzz};

const WORDS: [&str; 46] = [
    "---\n",
    "...\n",
    "\n",
    "\n  ",
    "\r\n",
    "\t",
    "- ",
    ": ",
    "? ",
    "&a ",
    "*a",
    "<<: *a",
    "!!binary ",
    "!x ",
    "!!str ",
    "|\n",
    ">-\n",
    "\"",
    "'",
    "\\u0000",
    "\\ud800",
    "{",
    "}",
    "[",
    "]",
    "#",
    "%YAML 1.1\n",
    "\u{feff}",
    "\u{2028}",
    "\u{85}",
    "~",
    "yes",
    "0644",
    "-0",
    "1e999",
    ".nan",
    "99999999999999999999",
    "100m",
    "9223372036854775807Ei",
    "apiVersion: ",
    "kind: List\nitems:\n- ",
    "$(A)",
    "{{ .x }}",
    "spec:\n  ",
    "null",
    "metadata: {name: a}\n",
];

fn read(path: &str, content: &[u8]) -> (Objects, Vec<Problem>) {
    parse(&[SourceFile { path, content }], &limits(), ReadAs::NewHead)
}

fn limits() -> Limits {
    Limits {
        problems: 20,
        documents: 50,
        nodes: 2000,
        ..Limits::default()
    }
}

#[test]
fn any_manifest_has_bounded_problems_that_name_their_place() {
    Fuzz::new("src/manifest/corpus", &WORDS).run(|bytes| {
        let (objects, problems) = read("a.yaml", bytes);
        // YAML 1.1 has more line breaks than editors show.
        let text = String::from_utf8_lossy(bytes);
        let breaks = text.matches(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']);
        // A premature end of the file is reported on the line after the last one.
        let lines = breaks.count() + 2;
        // One more problem gives the number of the others.
        prop_assert!(
            problems.len() <= limits().problems + 2,
            "{}",
            problems.len()
        );
        for problem in &problems {
            prop_assert!(problem.message.len() <= MESSAGE_BYTES);
            prop_assert!(!problem.to_string().contains(is_unprintable), "{problem}");
            prop_assert_eq!(problem.file.as_str(), "a.yaml");
            prop_assert!(problem.line as usize <= lines, "{problem} of {lines} lines");
        }
        let again = read("a.yaml", bytes);
        prop_assert_eq!(format!("{again:?}"), format!("{:?}", (&objects, &problems)));

        // An earlier version may have accepted the commit, and must have read the same objects.
        let files = [SourceFile {
            path: "a.yaml",
            content: bytes,
        }];
        let (accepted, milder) = parse(&files, &limits(), ReadAs::Accepted);
        let errors = |problems: &[Problem]| {
            let errors = problems
                .iter()
                .filter(|problem| problem.severity == Severity::Error);
            errors.count()
        };
        prop_assert!(errors(&milder) <= errors(&problems));
        if errors(&problems) == 0 {
            prop_assert_eq!(format!("{accepted:?}"), format!("{objects:?}"));
        }
        values_are_read_again(bytes)?;
        Ok(errors(&problems) == 0)
    });
}

/// YAML values are the same when they are read again as JSON, and as YAML.
fn values_are_read_again(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Ok(());
    };
    let text = yaml::without_boms("a.yaml", text);
    let (documents, _) = yaml::read("a.yaml", &text, &limits());
    for yaml::Document { value, line, .. } in documents {
        if let Some(line) = line {
            let lines = text.lines().count();
            prop_assert!(
                line >= 1 && line as usize <= lines,
                "line {line} of {lines}"
            );
        }
        let json = value.to_string();
        for path in ["a.json", "a.yaml"] {
            // serde_yaml refuses such characters, and parses numbers with a decimal point by its
            // own rules.
            if path == "a.yaml" && (json.contains(is_unprintable) || value_has_fraction(&value)) {
                continue;
            }
            let (again, unreadable) = yaml::read(path, &json, &Limits::default());
            let again = again.into_iter().next().map(|document| document.value);
            prop_assert_eq!(
                &again,
                &Some(value.clone()),
                "{} {} {:?}",
                path,
                json,
                unreadable
            );
        }
    }
    Ok(())
}

fn value_has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(value_has_fraction),
        Value::Object(fields) => fields.values().any(value_has_fraction),
        _ => false,
    }
}
