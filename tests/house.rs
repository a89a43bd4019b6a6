//! The house as it is drawn: who may use whom, what the core is made of, which packages are fixed,
//! and that what is written about the house is true.

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

/// Workspace edges; there are no others.
const EDGES: [(&str, &str); 5] = [
    ("netfilter", "reconciler"),
    ("runtime", "reconciler"),
    ("windlass", "netfilter"),
    ("windlass", "reconciler"),
    ("windlass", "runtime"),
];

/// What the core is made of: parsing, hashing, types. Nothing that opens a file or a socket.
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

/// Packages that the project is to be built with.
const FIXED: [&str; 9] = [
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

/// All files below a directory, as paths from the repository's root, without what Git and Cargo
/// keep there.
fn files(directory: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![PathBuf::from(directory)];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(root().join(&directory)).expect("a readable directory") {
            let entry = entry.expect("an entry");
            let path = directory.join(entry.file_name());
            let kind = entry.file_type().expect("a file type");
            if entry.file_name() == "target" || entry.file_name() == ".git" {
                continue;
            }
            if kind.is_dir() {
                waiting.push(path);
            } else if kind.is_file() {
                found.push(
                    path.to_str()
                        .expect("a UTF-8 path")
                        .trim_start_matches("./")
                        .to_owned(),
                );
            }
        }
    }
    found.sort();
    found
}

fn rust_files(directory: &str) -> impl Iterator<Item = String> {
    files(directory)
        .into_iter()
        .filter(|path| path.ends_with(".rs"))
}

/// Direct dependencies by package: name and kind, `None` for a normal one.
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
            let direct = direct
                .iter()
                .filter_map(|one| Some((text(&one["name"])?, text(&one["kind"]))));
            (
                text(&package["name"]).expect("a package's name"),
                direct.collect(),
            )
        })
        .collect()
}

#[test]
fn packages_use_each_other_as_drawn() {
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
fn the_core_depends_on_what_it_may() {
    let dependencies = dependencies();
    let mut core = BTreeSet::new();
    for (name, kind) in &dependencies["reconciler"] {
        match kind.as_deref() {
            None => assert!(core.insert(name.as_str()), "{name} is there twice"),
            Some("dev") => {}
            Some(kind) => panic!("the core has a {kind} dependency: {name}"),
        }
    }
    assert_eq!(core, BTreeSet::from(CORE));
}

#[test]
fn fixed_packages_are_direct_dependencies_and_are_used() {
    let dependencies = dependencies();
    for package in FIXED {
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

/// Whether code outside of comments names a path that begins so.
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
            "{other} is in Cargo.lock: see where it comes from by cargo tree -i {other}"
        );
    }
}

fn is_test_module(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.ends_with("/fuzz.rs") || path.contains("/tests/")
}

/// What a file says of itself at its top.
fn first_sentence(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    let paragraph: Vec<&str> = lines
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    paragraph.join(" ")
}

#[test]
fn every_source_file_says_what_it_is() {
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
    let configuration = read("src/config.rs") + &read("src/config/cluster.rs");
    let fields: BTreeSet<String> = configuration
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub(crate) ")?.split_once(": "))
        .filter(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .map(|(name, _)| name.replace('_', "-"))
        .collect();
    assert!(fields.contains("allowed-signers"), "the fields are found");
    for field in fields {
        // Where the configuration was read from is no setting.
        let known = field == "file"
            || described.contains(field.as_str())
            || described.contains(format!("[{field}]").as_str());
        assert!(known, "docs/configuration.md does not describe {field}");
    }
}

#[test]
fn every_link_of_a_document_leads_somewhere() {
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
        "links that lead nowhere:\n{}",
        broken.join("\n")
    );
}

/// Where the repository's files are; what begins otherwise is a path on a host.
const ROOMS: [&str; 8] = [
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
fn every_file_that_a_document_names_is_there() {
    let documents = files(".").into_iter().filter(|file| {
        // The changelog tells history.
        file.ends_with(".md") && !file.starts_with("sample-repo/") && file != "CHANGELOG.md"
    });
    let mut missing = Vec::new();
    for document in documents {
        let text = read(&document);
        let quoted = text.split('`').skip(1).step_by(2);
        let paths = quoted.filter(|word| ROOMS.iter().any(|room| word.starts_with(room)));
        for path in paths.filter(|word| !word.contains([' ', '*', '<', '{'])) {
            if !root().join(path).exists() {
                missing.push(format!("{document}: {path}"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "files that are named and not there:\n{}",
        missing.join("\n")
    );
}

/// The steps of CONTRIBUTING.md: a file, and what is said about it.
fn steps(text: &str) -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let (number, rest) = line.split_once(". `").unwrap_or(("", ""));
        if !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()) {
            let (path, words) = rest.split_once('`').expect("a path ends");
            steps.push((path.to_owned(), words.to_owned()));
            inside = true;
        } else if line.starts_with("   ") && inside {
            let (_, words) = steps.last_mut().expect("a step has begun");
            words.push(' ');
            words.push_str(line.trim());
        } else {
            inside = false;
        }
    }
    steps
}

#[test]
fn every_step_of_contributing_names_what_its_file_holds() {
    let steps = steps(&read("CONTRIBUTING.md"));
    assert!(steps.len() > 30, "the steps are found");
    let mut untrue = Vec::new();
    for (path, words) in steps {
        let text = read(&path);
        for name in words.split('`').skip(1).step_by(2) {
            if !text.contains(name) && !root().join(name).is_file() {
                untrue.push(format!("{path} does not hold {name}"));
            }
        }
    }
    assert!(
        untrue.is_empty(),
        "CONTRIBUTING.md leads to what is not there:\n{}",
        untrue.join("\n")
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
        assert!(text.starts_with(&format!("# {number}: ")), "{file}: title");
        assert!(
            index.contains(&format!("[{number}]({name})")),
            "{file}: not listed"
        );

        let headings: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("## "))
            .collect();
        let form = ["## Status", "## Context", "## Decision", "## Consequences"];
        assert_eq!(headings, form, "{file}");
    }
}

/// Nothing foreign reaches a terminal or the log around these: they escape what they print.
const PRINTERS: [&str; 5] = [
    "src/cli/output.rs",
    "src/crash.rs",
    "src/log.rs",
    "src/main.rs",
    "src/source/child.rs",
];

#[test]
fn what_is_printed_goes_through_one_place() {
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
                    "{file} prints by {word}: use the output that it is given"
                );
            }
        }
    }
}

/// Whether code has a word that is not a method of something else.
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

/// The anchors that headings get: lower case, spaces to hyphens, nothing but letters, digits, `-`
/// and `_`.
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
fn nothing_names_the_machine_it_was_written_on() {
    // In pieces, so that this file does not hold them. Cargo.lock names where packages come from,
    // as it must.
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
            assert!(!text.contains(&word), "{file} holds {word:?}");
        }
    }
}
