//! The sample repository: every lesson is accepted, and the list of lessons is complete.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use reconciler::{
    desired::{self, CheckSettings},
    manifest::{Limits, ReadAs, Severity, SourceFile},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-repo")
}

/// The names of the entries of a directory, sorted.
fn names(directory: &Path) -> BTreeSet<String> {
    fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a UTF-8 name")
        })
        .collect()
}

fn lessons() -> BTreeSet<String> {
    names(&root())
        .into_iter()
        .filter(|name| root().join(name).is_dir())
        .collect()
}

/// The manifests of a lesson: the path in the lesson's directory, and the content.
fn manifests(lesson: &str) -> Vec<(String, Vec<u8>)> {
    let directory = root().join(lesson);
    let files = names(&directory)
        .into_iter()
        .filter(|name| name.ends_with(".yaml") || name.ends_with(".yml"));
    files
        .map(|name| {
            let content = fs::read(directory.join(&name)).expect("a readable manifest");
            (name, content)
        })
        .collect()
}

#[test]
fn every_lesson_is_accepted_with_only_the_warnings_that_it_explains() {
    let mut warnings = Vec::new();
    for lesson in lessons() {
        let manifests = manifests(&lesson);
        assert!(!manifests.is_empty(), "{lesson} contains no manifest");
        let files: Vec<SourceFile<'_>> = manifests
            .iter()
            .map(|(path, content)| SourceFile { path, content })
            .collect();
        let (objects, problems) = desired::read(
            &files,
            &Limits::default(),
            &CheckSettings::default(),
            ReadAs::NewHead,
        );
        assert!(
            !objects.workloads.is_empty(),
            "{lesson} contains no workload"
        );
        for problem in problems {
            assert_eq!(problem.severity, Severity::Warning, "{lesson}/{problem}");
            warnings.push(format!("{lesson}/{}: {}", problem.file, problem.field));
        }
    }
    assert_eq!(
        warnings,
        ["13-external-name/services.yaml: spec.externalName"]
    );
}

#[test]
fn the_list_of_lessons_is_complete() {
    let list = fs::read_to_string(root().join("README.md")).expect("the list");
    let linked: BTreeSet<String> = list
        .lines()
        .filter_map(|line| line.strip_prefix("| [")?.split_once(']'))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(linked, lessons());
    for lesson in lessons() {
        let readme =
            fs::read_to_string(root().join(&lesson).join("README.md")).expect("a lesson's README");
        for part in ["# ", "**Learn:**", "**Try"] {
            assert!(readme.contains(part), "{lesson}/README.md has no {part:?}");
        }
    }
}

#[test]
fn manifests_of_lessons_equal_the_fixtures_of_the_same_name() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("reconciler/tests/manifests");
    let fixture_names = names(&fixtures);
    let mut compared = BTreeSet::new();
    for lesson in lessons() {
        for (name, content) in manifests(&lesson) {
            if fixture_names.contains(&name) {
                let fixture = fs::read(fixtures.join(&name)).expect("a readable fixture");
                assert!(
                    content == fixture,
                    "{lesson}/{name} differs from reconciler/tests/manifests/{name}"
                );
                compared.insert(name);
            }
        }
    }
    assert_eq!(
        compared, fixture_names,
        "a fixture of the manifest reader is part of no lesson"
    );
}

#[test]
fn the_template_of_allowed_signers_contains_no_key() {
    let template =
        fs::read_to_string(root().join("allowed_signers.template")).expect("the template");
    assert!(
        template
            .lines()
            .all(|line| line.is_empty() || line.starts_with('#')),
        "a key in the template would be trusted by everyone who copies it"
    );
}
