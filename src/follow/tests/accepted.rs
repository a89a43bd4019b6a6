//! As what a head is read: as a new one, or as one that was accepted before.

use super::*;

/// A manifest that older versions accepted and this version refuses in a new head.
const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ntype: kubernetes.io/basic-auth\nstringData: {a: b}\n";

fn judge_of(mirror: &Path) -> Judge {
    Judge {
        mode: Mode::Off,
        allowed_signers: None,
        anchor: None,
        allow_rewrite: false,
        reader: Reader {
            mirror: Mirror::new(mirror),
            paths: vec![SourcePath::root()],
            limits: SnapshotLimits::default(),
            check: CheckSettings::default(),
        },
    }
}

/// Whether a daemon that starts with this trust directory takes over the head, and the messages
/// about the head.
fn judged(work: &Work, trust: &Path) -> (bool, String) {
    let mirror = trust.join("mirror.git");
    let request = request(work.path().to_str().unwrap(), &mirror);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let arrival = runtime
        .block_on(Download::fetch(&this_binary(), request, 64 * MIB as u64))
        .unwrap();
    let trust = Mutex::new(TrustStore::open(trust).unwrap());
    match judge_of(&mirror).judge(&trust, &arrival).unwrap() {
        JudgedHead::Good { commit, .. } => (
            true,
            commit
                .warnings
                .iter()
                .map(|warning| format!("{warning}\n"))
                .collect(),
        ),
        JudgedHead::Refused { refusal, .. } => (false, refusal.problems.join("\n")),
        JudgedHead::Unreadable(why) => panic!("{why}"),
    }
}

/// The trust directory of an older version, with these pointers to a commit.
fn old_directory(pointers: &[&str], commit: &CommitId) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let record = serde_json::json!({ "id": commit, "grounds": "mode-off" });
    let mut document = serde_json::json!({ "schema": 1 });
    for pointer in pointers {
        document[*pointer] = record.clone();
    }
    std::fs::write(directory.path().join("pointers.json"), document.to_string()).unwrap();
    directory
}

#[test]
fn a_head_that_an_older_version_accepted_is_taken_with_a_warning() {
    let work = Work::new();
    work.write("secret.yaml", SECRET);
    let head = work.commit("one", None);
    let old = old_directory(&["verified"], &head);
    for start in 0..3 {
        let (taken, problems) = judged(&work, old.path());
        assert!(
            taken && problems.contains("accepted before this rule"),
            "start {start}: {problems}"
        );
    }
    // The next head is a new one.
    work.write(
        "other.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: extra}\n",
    );
    work.commit("two", None);
    for start in 0..3 {
        let (taken, problems) = judged(&work, old.path());
        assert!(
            !taken && problems.contains("needs the key \"username\" or \"password\""),
            "start {start}: {problems}"
        );
    }
}

#[test]
fn a_new_head_is_refused_at_every_start_until_it_is_in_use() {
    let work = Work::new();
    work.write("secret.yaml", SECRET);
    let head = work.commit("one", None);
    let fresh = tempfile::tempdir().unwrap();
    for start in 0..3 {
        // That the history was judged good is remembered, and does not mean that the manifests were
        // accepted.
        assert!(!judged(&work, fresh.path()).0, "start {start}");
    }
    let pointers = TrustStore::open(fresh.path()).unwrap().pointers().clone();
    assert_eq!(
        pointers.verified.map(|commit| commit.id().clone()),
        Some(head.clone())
    );

    // The leader of a cluster, of an older version, accepted the head.
    let used = old_directory(&["verified", "target"], &head);
    std::fs::copy(
        fresh.path().join("accepted.json"),
        used.path().join("accepted.json"),
    )
    .unwrap();
    assert!(judged(&work, used.path()).0);
}

#[test]
fn files_that_are_not_read_for_the_case_of_their_ending_are_warned_of() {
    let work = Work::new();
    work.write(
        "apps/web.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: extra}\n",
    );
    work.write("apps/DB.YAML", SECRET);
    work.write("apps/c.Yml", SECRET);
    work.write("apps/d.JSON", SECRET);
    work.write("apps/.hidden.YAML", SECRET);
    work.write("apps/README.MD", "# Apps");
    work.commit("one", None);
    let (taken, problems) = judged(&work, tempfile::tempdir().unwrap().path());
    assert!(taken, "{problems}");
    insta::assert_snapshot!(problems, @"
    apps/DB.YAML: warning: not read, since its ending is not in lower case: rename it to end in .yaml, .yml or .json, or otherwise if it is no manifest
    apps/c.Yml: warning: not read, since its ending is not in lower case: rename it to end in .yaml, .yml or .json, or otherwise if it is no manifest
    apps/d.JSON: warning: not read, since its ending is not in lower case: rename it to end in .yaml, .yml or .json, or otherwise if it is no manifest
    ");
}
