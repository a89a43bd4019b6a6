#![expect(clippy::unwrap_used, reason = "a test")]

use super::super::fetch::{FetchError, FetchRequest};
use super::super::testing::{Bomb, Work, bring, request};
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
fn a_kill_at_any_step_of_the_way_into_the_mirror_is_put_right_by_the_next_fetch() {
    let (work, data) = (Work::new(), tempfile::tempdir().unwrap());
    work.write("a.yaml", "one");
    work.commit("one", None);
    for step in 0..6 {
        let mirror = data.path().join(format!("{step}/mirror.git"));
        let ask = request(work.path().to_str().unwrap(), &mirror);
        let head = bring(&ask).unwrap().head;
        work.write("a.yaml", format!("step {step}"));
        let next = work.commit(&format!("step {step}"), None);

        let quarantine = Quarantine::begin(&Mirror::new(&mirror)).unwrap();
        quarantine.prepare(None).unwrap();
        if step > 0 {
            // What the child has downloaded, and the daemon has copied.
            let packs = work.path().join(".git/objects/pack");
            work.git(&["repack", "-q", "-a", "-d"]);
            for from in fs::read_dir(packs).unwrap() {
                let from = from.unwrap().path();
                if from
                    .extension()
                    .is_some_and(|end| end == "pack" || end == "idx")
                {
                    let to = quarantine.path.join(INCOMING).join("objects/pack");
                    fs::create_dir_all(&to).unwrap();
                    fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
                }
            }
        }
        if step > 1 {
            quarantine.take_download(&ask.limits).unwrap();
        }
        let packs = mirror.join("objects/pack");
        if step > 2 {
            let (pack, index) = the_pack(&quarantine.received).unwrap();
            let name = |path: &Path| packs.join(path.file_name().unwrap());
            fs::rename(&pack, name(&pack)).unwrap();
            if step > 3 {
                fs::rename(&index, name(&index)).unwrap();
            }
        }
        if step > 4 {
            mirror::follow(&Mirror::new(&mirror).open().unwrap(), "main", &next).unwrap();
        }
        // A kill runs no destructor: the files stay.
        let places = [quarantine.path.clone(), quarantine.received.clone()];
        let left = |place: &Path| place.with_extension("left");
        for place in places.iter().filter(|place| place.exists()) {
            fs::rename(place, left(place)).unwrap();
        }
        drop(quarantine);
        for place in places.iter().filter(|place| left(place).exists()) {
            fs::rename(left(place), place).unwrap();
        }

        let fetched = bring(&ask).unwrap();
        assert_eq!(fetched.head, next, "step {step}");
        let expected = if step > 4 { &next } else { &head };
        assert_eq!(fetched.previous.as_ref(), Some(expected), "step {step}");
        let repo = Mirror::new(&mirror).open().unwrap();
        let keep = BTreeSet::from([head.clone(), next.clone()]);
        Mirror::new(&mirror)
            .check(&repo, &keep, Check::Thorough)
            .unwrap();
        for place in places {
            assert!(!place.exists(), "step {step}: {}", place.display());
        }
    }
}
