//! The structure of the code: which packages and modules may use which others, the dependencies of
//! the core, the required packages, and whether the documents about them are true.

#[path = "house/circles.rs"]
mod circles;
#[path = "house/names.rs"]
mod names;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The dependencies between the packages of the workspace. No others are allowed.
const EDGES: [(&str, &str); 5] = [
    ("netfilter", "reconciler"),
    ("runtime", "reconciler"),
    ("windlass", "netfilter"),
    ("windlass", "reconciler"),
    ("windlass", "runtime"),
];

/// The dependencies of the core: parsing, hashing, types. None of them opens a file or a socket.
const CORE: [&str; 10] = [
    "ipnet",
    "jiff",
    "k8s-openapi",
    "ring",
    "saphyr-parser",
    "serde",
    "serde_json",
    "serde_yaml",
    "strsim",
    "thiserror",
];

/// Packages that Windlass is required to be built with.
const REQUIRED: [&str; 9] = [
    "bollard",
    "git2",
    "notify",
    "prometheus",
    "reqwest",
    "ring",
    "serde_yaml",
    "tokio",
    "tracing-subscriber",
];

/// Packages and their source directories.
const SOURCES: [(&str, &str); 4] = [
    ("windlass", "src"),
    ("reconciler", "reconciler/src"),
    ("runtime", "runtime/src"),
    ("netfilter", "netfilter/src"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files below a directory, as paths from the repository's root, without those of `.git` and
/// `target`.
fn files(directory: &str) -> Vec<String> {
    let mut files = Vec::new();
    let mut pending = vec![PathBuf::from(directory)];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(root().join(&directory)).expect("a readable directory") {
            let entry = entry.expect("an entry");
            let path = directory.join(entry.file_name());
            let kind = entry.file_type().expect("a file type");
            if entry.file_name() == "target" || entry.file_name() == ".git" {
                continue;
            }
            if kind.is_dir() {
                pending.push(path);
            } else if kind.is_file() {
                files.push(
                    path.to_str()
                        .expect("a UTF-8 path")
                        .trim_start_matches("./")
                        .to_owned(),
                );
            }
        }
    }
    files.sort();
    files
}

fn rust_files(directory: &str) -> impl Iterator<Item = String> {
    files(directory)
        .into_iter()
        .filter(|path| path.ends_with(".rs"))
}

/// The direct dependencies of each package: name and kind, which is `None` for a normal dependency.
fn dependencies() -> BTreeMap<String, BTreeSet<(String, Option<String>)>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version=1",
            "--no-deps",
            "--offline",
            "--manifest-path",
        ])
        .arg(root().join("Cargo.toml"))
        .output()
        .expect("cargo metadata runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    list(&metadata["packages"])
        .iter()
        .map(|package| {
            let direct = list(&package["dependencies"]);
            let direct = direct.iter().filter_map(|dependency| {
                Some((text(&dependency["name"])?, text(&dependency["kind"])))
            });
            (
                text(&package["name"]).expect("a package's name"),
                direct.collect(),
            )
        })
        .collect()
}

#[test]
fn packages_depend_on_each_other_only_as_allowed() {
    let dependencies = dependencies();
    let members: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(
        members,
        BTreeSet::from(["netfilter", "reconciler", "runtime", "windlass"])
    );
    let edges: BTreeSet<(&str, &str)> = dependencies
        .iter()
        .flat_map(|(package, direct)| {
            direct
                .iter()
                .map(move |(name, _)| (package.as_str(), name.as_str()))
        })
        .filter(|(_, name)| members.contains(name))
        .collect();
    assert_eq!(edges, BTreeSet::from(EDGES));
}

#[test]
fn the_core_depends_only_on_pure_packages() {
    let dependencies = dependencies();
    let mut core = BTreeSet::new();
    for (name, kind) in &dependencies["reconciler"] {
        match kind.as_deref() {
            None => assert!(core.insert(name.as_str()), "{name} is a dependency twice"),
            Some("dev") => {}
            Some(kind) => panic!("the core has a {kind} dependency: {name}"),
        }
    }
    assert_eq!(core, BTreeSet::from(CORE));
}

#[test]
fn required_packages_are_direct_dependencies_and_are_used() {
    let dependencies = dependencies();
    for package in REQUIRED {
        let path = format!("{}::", package.replace('-', "_"));
        let users: Vec<&str> = SOURCES
            .iter()
            .filter(|(member, _)| dependencies[*member].contains(&(package.to_owned(), None)))
            .filter(|(_, directory)| {
                rust_files(directory).any(|file| names_path(&read(&file), &path))
            })
            .map(|(member, _)| *member)
            .collect();
        assert!(
            !users.is_empty(),
            "no package depends on {package} and uses it"
        );
    }
}

/// Whether code outside of comments contains a path that begins with `path`.
fn names_path(text: &str, path: &str) -> bool {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.match_indices(path).map(move |(at, _)| &line[..at]))
        .any(|before| {
            !before.ends_with(|last: char| last.is_alphanumeric() || last == '_' || last == ':')
        })
}

#[test]
fn ring_is_the_one_crypto_provider() {
    let lock: toml::Table = read("Cargo.lock").parse().expect("Cargo.lock is TOML");
    let packages = lock["package"].as_array().expect("packages");
    let names: BTreeSet<&str> = packages
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    assert!(names.contains("ring"));
    for other in ["aws-lc-rs", "aws-lc-sys", "openssl", "native-tls"] {
        assert!(
            !names.contains(other),
            "{other} is in Cargo.lock: `cargo tree -i {other}` lists the crates that depend on it"
        );
    }
}

fn is_test_module(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.ends_with("/fuzz.rs") || path.contains("/tests/")
}

/// The first paragraph of a file's documentation.
fn first_sentence(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    let paragraph: Vec<&str> = lines
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    paragraph.join(" ")
}

#[test]
fn every_source_file_begins_with_its_documentation() {
    for (_, directory) in SOURCES {
        for file in rust_files(directory).filter(|file| !is_test_module(file)) {
            assert!(
                !first_sentence(&read(&file)).is_empty(),
                "{file} does not begin with //!"
            );
        }
    }
}

#[test]
fn every_setting_is_described() {
    let document = read("docs/configuration.md");
    let described: BTreeSet<&str> = document.split('`').collect();
    let configuration =
        ["", "/cluster", "/docker"].map(|part| read(&format!("src/config{part}.rs")));
    let fields: BTreeSet<String> = configuration
        .iter()
        .flat_map(|file| file.lines())
        .filter_map(|line| line.trim().strip_prefix("pub(crate) ")?.split_once(": "))
        .filter(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .map(|(name, _)| name.replace('_', "-"))
        .collect();
    assert!(
        fields.contains("allowed-signers"),
        "no fields were recognized in src/config.rs"
    );
    for field in fields {
        // The field `file`, the path of the configuration file, is no setting.
        let is_described = field == "file"
            || described.contains(field.as_str())
            || described.contains(format!("[{field}]").as_str());
        assert!(
            is_described,
            "docs/configuration.md does not describe {field}"
        );
    }
}

#[test]
fn every_relative_link_of_a_document_has_a_target() {
    let mut broken = Vec::new();
    for file in files(".").iter().filter(|file| file.ends_with(".md")) {
        let directory = Path::new(file).parent().unwrap_or(Path::new(""));
        for link in links(&read(file)) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() {
                PathBuf::from(file)
            } else {
                directory.join(path)
            };
            let exists = root().join(&target).exists();
            let anchored = anchor.is_empty()
                || fs::read_to_string(root().join(&target))
                    .is_ok_and(|text| anchors(&text).contains(anchor));
            if !exists || !anchored {
                broken.push(format!("{file}: {link}"));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "links without a target:\n{}",
        broken.join("\n")
    );
}

/// The directories of the repository's files. Any other path in a document is one on a host.
const DIRECTORIES: [&str; 8] = [
    "docs/",
    "netfilter/",
    "reconciler/",
    "runtime/",
    "sample-repo/",
    "scripts/",
    "src/",
    "tests/",
];

#[test]
fn every_file_that_a_document_names_exists() {
    let documents = files(".").into_iter().filter(|file| {
        // The changelog may name files that were removed later.
        file.ends_with(".md") && !file.starts_with("sample-repo/") && file != "CHANGELOG.md"
    });
    let mut missing = Vec::new();
    for document in documents {
        let text = read(&document);
        let quoted = text.split('`').skip(1).step_by(2);
        let paths = quoted.filter(|word| {
            DIRECTORIES
                .iter()
                .any(|directory| word.starts_with(directory))
        });
        for path in paths.filter(|word| !word.contains([' ', '*', '<', '{'])) {
            if !root().join(path).exists() {
                missing.push(format!("{document}: {path}"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "files that are named and do not exist:\n{}",
        missing.join("\n")
    );
}

/// The steps of CONTRIBUTING.md: a file, and the text about it.
fn steps(text: &str) -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let (number, rest) = line.split_once(". `").unwrap_or(("", ""));
        if !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()) {
            let (path, description) = rest.split_once('`').expect("a path ends");
            steps.push((path.to_owned(), description.to_owned()));
            inside = true;
        } else if line.starts_with("   ") && inside {
            let (_, description) = steps.last_mut().expect("a step has begun");
            description.push(' ');
            description.push_str(line.trim());
        } else {
            inside = false;
        }
    }
    steps
}

/// Whether a text contains these words, and not only as a part of longer ones: `Command` is not in
/// `CliCommand`, but `outages/` is in `outages/NODE`.
fn contains_words(text: &str, words: &str) -> bool {
    let is_in_word = |c: char| c.is_alphanumeric() || c == '_';
    let continues = |inner: Option<char>, outer: Option<char>| {
        inner.is_some_and(is_in_word) && outer.is_some_and(is_in_word)
    };
    text.match_indices(words).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + words.len()..].chars().next();
        !continues(words.chars().next(), before) && !continues(words.chars().next_back(), after)
    })
}

#[test]
fn only_whole_words_count_as_contained() {
    assert!(contains_words("an enum Command {", "Command"));
    assert!(contains_words("CliCommand, Command", "Command"));
    assert!(!contains_words("CliCommand Commands", "Command"));
    assert!(contains_words("decided/outages/NODE", "outages/"));
}

#[test]
fn every_name_in_a_step_of_contributing_is_in_the_file_of_the_step() {
    let steps = steps(&read("CONTRIBUTING.md"));
    assert!(
        steps.len() > 30,
        "the steps of CONTRIBUTING.md were not recognized"
    );
    let mut missing = Vec::new();
    for (path, description) in steps {
        let text = read(&path);
        for name in description.split('`').skip(1).step_by(2) {
            if !contains_words(&text, name) && !root().join(name).is_file() {
                missing.push(format!("{path} does not contain {name}"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "CONTRIBUTING.md names what its files do not contain:\n{}",
        missing.join("\n")
    );
}

#[test]
fn every_decision_has_the_same_form_and_is_listed() {
    let index = read("docs/decisions/README.md");
    for file in files("docs/decisions") {
        let name = file.trim_start_matches("docs/decisions/");
        if name == "README.md" {
            continue;
        }

        let text = read(&file);
        let number = name.split('-').next().unwrap_or_default();
        assert!(
            text.starts_with(&format!("# {number}: ")),
            "{file}: the title does not begin with the number"
        );
        assert!(
            index.contains(&format!("[{number}]({name})")),
            "docs/decisions/README.md does not list {file}"
        );

        let headings: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("## "))
            .collect();
        let form = ["## Status", "## Context", "## Decision", "## Consequences"];
        assert_eq!(headings, form, "{file}");
    }
}

/// The only files that print. They escape foreign text, so that none reaches a terminal or the log
/// unescaped.
const PRINTERS: [&str; 5] = [
    "src/cli/output.rs",
    "src/crash.rs",
    "src/log.rs",
    "src/main.rs",
    "src/source/child/process.rs",
];

#[test]
fn only_the_printing_modules_write_to_standard_output_and_error() {
    for (_, directory) in SOURCES {
        let files = rust_files(directory).filter(|file| !is_test_module(file));
        for file in files.filter(|file| !PRINTERS.contains(&file.as_str())) {
            let text = read(&file);
            let code: String = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect();
            for word in [
                "stdout()",
                "stderr()",
                "io::stdout",
                "io::stderr",
                "print!(",
                "println!(",
            ] {
                assert!(
                    !prints(&code, word),
                    "{file} prints with {word}: print to the output that is passed as an argument"
                );
            }
        }
    }
}

/// A pod or a child process may nest directories until the recursion of `remove_dir_all` ends the
/// daemon.
#[test]
fn trees_are_removed_without_recursion() {
    for (_, directory) in SOURCES {
        for file in rust_files(directory).filter(|file| !is_test_module(file)) {
            let text = read(&file);
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let calls = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .any(|line| line.contains("remove_dir_all"));
            assert!(
                !calls,
                "{file} calls remove_dir_all: call runtime::remove_tree"
            );
        }
    }
}

/// Whether code contains a word that is not a method call.
fn prints(code: &str, word: &str) -> bool {
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with('.'))
}

/// The relative targets of `[text](target)`, outside of code blocks.
fn links(text: &str) -> Vec<String> {
    let prose = outside_code(text).join("\n");
    let targets = prose
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target);
    let relative =
        targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
    relative.map(str::to_owned).collect()
}

/// The anchors of headings, as GitHub makes them: in lower case, with hyphens for spaces, and
/// without any character but letters, digits, `-` and `_`.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = outside_code(text);
    let headings = headings.iter().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .replace(' ', "-")
        })
        .map(|text| {
            text.chars()
                .filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_')
                .collect()
        })
        .collect()
}

fn outside_code(text: &str) -> Vec<&str> {
    let mut inside = false;
    let mut prose = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            prose.push(line);
        }
    }
    prose
}

#[test]
fn no_file_names_paths_or_registries_of_a_developers_machine() {
    // The words are in pieces, so that this file does not contain them. Cargo.lock is not checked,
    // because it must name the registry of each package.
    let words = [
        ["\"/wo", "rk/"],
        [" /wo", "rk/"],
        ["(/wo", "rk/"],
        ["`/wo", "rk/"],
        ["wca", "rgo"],
        ["static.cra", "tes.io"],
    ];
    for file in files(".").iter().filter(|file| *file != "Cargo.lock") {
        let Ok(text) = fs::read_to_string(root().join(file)) else {
            continue;
        };
        for word in words.map(|pieces| pieces.concat()) {
            assert!(!text.contains(&word), "{file} contains {word:?}");
        }
    }
}
