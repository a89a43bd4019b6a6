#![expect(clippy::unwrap_used, reason = "a test")]

use super::super::fetch::{FetchError, FetchRequest, fetch};
use super::super::testing::{Bomb, Work, accept, bring, request};
use super::*;

const MIB: u64 = 1024 * 1024;

fn refused(request: &FetchRequest) -> (Option<CommitId>, String) {
    match bring(request) {
        Err(error @ FetchError::PackRefused { .. }) => match error {
            FetchError::PackRefused { head, what, .. } => (head, what),
            _ => unreachable!(),
        },
        other => panic!("{other:?}"),
    }
}

/// The files in a directory, with their sizes.
fn listing(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let (path, metadata) = (entry.path(), entry.metadata().unwrap());
        if metadata.is_dir() {
            found.extend(listing(&path))
        } else {
            found.push((path, metadata.len()))
        }
    }
    found.sort();
    found
}

#[test]
fn objects_over_their_limits_refuse_the_fetch_and_are_named() {
    let data = tempfile::tempdir().unwrap();
    let mirror = data.path().join("mirror.git");
    let work = Work::new();
    work.write("a.yaml", "kind: Pod");
    work.commit("one", None);
    let ask = || {
        let mut request = request(work.path().to_str().unwrap(), &mirror);
        request.limits.object_bytes = 5 * MIB;
        request
    };
    bring(&ask()).unwrap();
    let before = listing(&mirror);
    let good = work.git(&["rev-parse", "HEAD"]);

    let blob = vec![7; usize::try_from(5 * MIB + 1).unwrap()];
    work.write("big.bin", &blob);
    let head = work.commit("a large file", None);
    let id = work.git(&["rev-parse", "HEAD:big.bin"]);
    let (named, what) = refused(&ask());
    assert_eq!(named, Some(head));
    let expected =
        format!("object {id} is a blob of 5242881 bytes, and a blob may have 5242880; take it out");
    assert!(
        what.starts_with(&expected) && what.ends_with("or raise source.max-object-bytes"),
        "{what}"
    );

    work.git(&["reset", "-q", "--hard", &good]);
    let message = work.path().join(".git/message");
    fs::write(&message, "m".repeat(usize::try_from(MIB).unwrap())).unwrap();
    work.git(&[
        "commit",
        "-q",
        "--allow-empty",
        "-F",
        message.to_str().unwrap(),
    ]);
    let (named, what) = refused(&ask());
    assert_eq!(named, Some(work.head()));
    assert!(
        what.contains(&format!("object {} is a commit of 10", work.head())),
        "{what}"
    );
    assert!(what.contains("a commit may have 1048576"), "{what}");

    work.git(&["reset", "-q", "--hard", &good]);
    let blob = work.git(&["rev-parse", "HEAD:a.yaml"]);
    let lines: String = (0..40_000)
        .map(|n| format!("100644 blob {blob}\t{n:0100}\n"))
        .collect();
    let entries = work.path().join(".git/entries");
    fs::write(&entries, lines).unwrap();
    let make = format!(
        "cd {} && git mktree < .git/entries | xargs git -c user.name=x -c user.email=x@x commit-tree -p {good} -m t",
        work.path().display()
    );
    let commit = super::super::testing::run("sh", &["-c", &make]);
    work.git(&["reset", "-q", "--soft", &commit]);
    let (_, what) = refused(&ask());
    assert!(
        what.contains("is a tree of ") && what.contains("a tree may have 4194304"),
        "{what}"
    );

    assert_eq!(listing(&mirror), before, "the mirror is as it was");
    assert!(!mirror.with_extension("git.quarantine").exists());
}

#[test]
fn a_commit_that_inflates_to_hundreds_of_megabytes_is_never_read_also_as_the_base_of_a_small_one() {
    let data = tempfile::tempdir().unwrap();
    let bomb = Bomb::new(64 * MIB);
    let mirror = data.path().join("mirror.git");
    for (branch, head) in [("large", &bomb.large), ("small", &bomb.small)] {
        let request = FetchRequest {
            branch: branch.to_owned(),
            ..request(bomb.repository().to_str().unwrap(), &mirror)
        };
        let (named, what) = refused(&request);
        assert_eq!(named.as_ref(), Some(head), "{branch}");
        assert!(
            what.contains(&format!("object {} is a commit of 6710", bomb.large)),
            "{branch}: {what}"
        );
    }
}

#[test]
fn the_daemon_inspects_the_quarantine_itself_and_accepts_only_one_pack() {
    let (work, data) = (Work::new(), tempfile::tempdir().unwrap());
    let mirror = data.path().join("mirror.git");
    work.write("a.yaml", "0123456789".repeat(10));
    work.commit("one", None);
    let ask = request(work.path().to_str().unwrap(), &mirror);
    let quarantine = Quarantine::begin(&Mirror::new(&mirror)).unwrap();
    let fetched = fetch(&ask).unwrap();
    let objects = incoming(&quarantine.path);

    // A child that checks nothing.
    let mut limits = ask.limits.clone();
    limits.object_bytes = 99;
    let error = quarantine.inspect(&limits).unwrap_err();
    assert!(
        error.to_string().contains("is a blob of 100 bytes"),
        "{error}"
    );

    // A child that downloads more than was requested.
    for extra in ["pack/pack-1.pack", "12/34567890", "loose"] {
        let path = objects.join(extra);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        let error = quarantine.inspect(&ask.limits).unwrap_err();
        assert!(
            matches!(error, InspectError::Layout { .. }),
            "{extra}: {error}"
        );
        fs::remove_file(&path).unwrap();
        if extra.starts_with("12") {
            fs::remove_dir(path.parent().unwrap()).unwrap()
        }
    }
    // The child's own configuration and refs are not read.
    fs::write(
        quarantine.path.join(INCOMING).join("config"),
        "not a configuration",
    )
    .unwrap();
    fs::remove_file(quarantine.path.join(INCOMING).join("HEAD")).unwrap();
    accept(&quarantine, &ask, &fetched);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(&quarantine.path).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o700);
    drop(quarantine);
    let repo = Mirror::new(&mirror).open().unwrap();
    assert!(
        repo.find_commit(Oid::from_str(fetched.head.as_str()).unwrap())
            .is_ok()
    );
}

#[test]
fn a_kill_at_any_step_of_the_way_into_the_mirror_is_put_right_by_the_next_fetch() {
    let (work, data) = (Work::new(), tempfile::tempdir().unwrap());
    work.write("a.yaml", "one");
    work.commit("one", None);
    for step in 0..5 {
        let mirror = data.path().join(format!("{step}/mirror.git"));
        let ask = request(work.path().to_str().unwrap(), &mirror);
        let head = bring(&ask).unwrap().head;
        work.write("a.yaml", format!("step {step}"));
        let next = work.commit(&format!("step {step}"), None);

        let quarantine = Quarantine::begin(&Mirror::new(&mirror)).unwrap();
        if step > 0 {
            fetch(&ask).unwrap();
        }
        let objects = incoming(&quarantine.path);
        let packs = mirror.join("objects/pack");
        if step > 1 {
            let (pack, index) = the_pack(&objects).unwrap();
            let name = |path: &Path| packs.join(path.file_name().unwrap());
            fs::rename(&pack, name(&pack)).unwrap();
            if step > 2 {
                fs::rename(&index, name(&index)).unwrap();
            }
        }
        if step > 3 {
            mirror::follow(&Mirror::new(&mirror).open().unwrap(), "main", &next).unwrap();
        }
        // A kill runs no destructor: the files stay in the quarantine.
        let left = data.path().join(format!("{step}/left"));
        fs::rename(&quarantine.path, &left).unwrap();
        drop(quarantine);
        fs::rename(&left, mirror.with_extension("git.quarantine")).unwrap();

        let fetched = bring(&ask).unwrap();
        assert_eq!(fetched.head, next, "step {step}");
        let expected = if step > 3 { &next } else { &head };
        assert_eq!(fetched.previous.as_ref(), Some(expected), "step {step}");
        assert_eq!(fetched.brought == Brought::Nothing, step > 2, "step {step}");
        let repo = Mirror::new(&mirror).open().unwrap();
        let keep = BTreeSet::from([head.clone(), next.clone()]);
        Mirror::new(&mirror)
            .check(&repo, &keep, Check::Thorough)
            .unwrap();
        assert!(!mirror.with_extension("git.quarantine").exists());
    }
}
