#![expect(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::symlink;

use super::super::allowed_signers::AllowedSigners;
use super::super::testing::Work;
use super::super::verify::{HeadVerdict, Mode, Policy, verify};
use super::*;

fn take(work: &Work, paths: &[&str], limits: &SnapshotLimits) -> Result<Snapshot, SnapshotError> {
    let nobody = AllowedSigners::default();
    let policy = Policy {
        mode: Mode::Off,
        signers: &nobody,
        anchor: None,
        allow_rewrite: false,
        now: jiff::Timestamp::UNIX_EPOCH,
    };
    let HeadVerdict::Trusted(accepted) = verify(&work.repo(), &policy, None, &work.head()).unwrap()
    else {
        panic!("refused")
    };
    let paths: Vec<SourcePath> = paths.iter().map(|path| path.parse().unwrap()).collect();
    Snapshot::read(
        &work.repo(),
        &Readable::Eligible(&accepted.head),
        &paths,
        limits,
    )
}

fn names(work: &Work, paths: &[&str]) -> Vec<String> {
    let snapshot = take(work, paths, &SnapshotLimits::default()).unwrap();
    snapshot
        .files()
        .iter()
        .map(|file| file.path.clone())
        .collect()
}

fn problems(work: &Work, paths: &[&str], limits: &SnapshotLimits) -> String {
    match take(work, paths, limits) {
        Err(SnapshotError::Refused(problems)) => problems.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn manifests_are_taken_in_order_and_dot_names_and_other_files_are_passed_over() {
    let work = Work::new();
    for path in [
        "web/b.yml",
        "web/a.yaml",
        "db.json",
        "README.md",
        ".github/workflows/ci.yml",
        ".yamllint.yaml",
    ] {
        work.write(path, path);
    }
    work.commit("manifests\n\nWindlass-Allow-Deletions: yes", None);
    assert_eq!(names(&work, &[]), ["db.json", "web/a.yaml", "web/b.yml"]);
    assert_eq!(
        names(&work, &["web", "./web/a.yaml", "db.json"]),
        ["db.json", "web/a.yaml", "web/b.yml"]
    );
    assert_eq!(
        names(&work, &[".github/workflows"]),
        [".github/workflows/ci.yml"]
    );
    let snapshot = take(&work, &["db.json"], &SnapshotLimits::default()).unwrap();
    assert_eq!(snapshot.files()[0].bytes, b"db.json");
    assert!(snapshot.info().allow_deletions && snapshot.info().subject.as_str() == "manifests");
}

#[test]
fn what_cannot_be_taken_is_refused_all_at_once_with_what_to_do() {
    let work = Work::new();
    work.write("ok.yaml", "ok");
    work.write("empty/README.md", "nothing");
    work.write(
        "lfs.yaml",
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    );
    work.write("large.yaml", vec![b'#'; 2000]);
    symlink("ok.yaml", work.path().join("link.yaml")).unwrap();
    let submodule = work.commit("for a submodule", None);
    work.git(&[
        "update-index",
        "--add",
        "--cacheinfo",
        &format!("160000,{submodule},vendor"),
    ]);
    work.git(&["commit", "-q", "-m", "everything wrong"]);
    let limits = SnapshotLimits {
        file_bytes: 1000,
        ..SnapshotLimits::default()
    };
    let text = problems(
        &work,
        &[".", "empty", "gone/deeper", "empty/README.md", "ok.yaml/x"],
        &limits,
    );
    insta::assert_snapshot!(text, @r#"
    large.yaml: the file has 2000 bytes, and a manifest may have 1000; split it, or move it elsewhere
    lfs.yaml: this is a Git LFS pointer, not a manifest; commit the file itself (`git lfs untrack`)
    link.yaml: symbolic links are not followed; commit the file itself, or move the link elsewhere
    vendor: submodules are not fetched; commit the files themselves, or move the submodule elsewhere
    empty: no *.yaml, *.yml or *.json file (in lower case) is here, and an empty path does not mean "delete everything"; keep at least one manifest, such as a Namespace
    gone/deeper: this configured path is not in the commit; put it back, or change the configuration first
    empty/README.md: this configured path is a file that ends in none of .yaml, .yml and .json (in lower case); rename it, or configure another path
    ok.yaml/x: this configured path is not in the commit; put it back, or change the configuration first
    "#);
}

#[test]
fn every_limit_is_kept() {
    let work = Work::new();
    work.write("a/b/c/deep.yaml", "12345");
    work.write("z.yaml", "12345");
    work.commit("two", None);
    let limits = SnapshotLimits::default();
    for (limits, expected) in [
        (
            SnapshotLimits { files: 1, ..limits },
            "more than 1 manifests",
        ),
        (
            SnapshotLimits {
                total_bytes: 9,
                ..limits
            },
            "more than 9 bytes together",
        ),
        (
            SnapshotLimits { depth: 3, ..limits },
            "a/b/c: directories are nested more than 3 deep",
        ),
        (
            SnapshotLimits {
                entries: 3,
                ..limits
            },
            "more than 3 files and directories",
        ),
    ] {
        let text = problems(&work, &[], &limits);
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_repository_without_manifests_is_not_an_empty_listing() {
    let work = Work::new();
    work.write("README.md", "hello");
    work.commit("no manifests", None);
    assert!(
        problems(&work, &[], &SnapshotLimits::default())
            .starts_with(".: no *.yaml, *.yml or *.json file (in lower case)")
    );
}

#[test]
fn a_damaged_blob_is_not_read_and_not_held_against_the_commit() {
    let work = Work::new();
    work.write("a.yaml", "honest");
    work.write("b.yaml", "tampered");
    work.commit("two", None);
    let object = |content: &str| {
        let id = work.git(&["rev-parse", &format!("HEAD:{content}")]);
        work.path()
            .join(".git/objects")
            .join(&id[..2])
            .join(&id[2..])
    };
    std::fs::remove_file(object("a.yaml")).unwrap();
    std::fs::copy(object("b.yaml"), object("a.yaml")).unwrap();
    let answer = take(&work, &[], &SnapshotLimits::default());
    assert!(
        matches!(&answer, Err(SnapshotError::Read { path, .. }) if path == "a.yaml"),
        "{answer:?}"
    );
}
