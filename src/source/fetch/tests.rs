#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::super::testing::{Work, bring, request};
use super::*;
use crate::ids::commit_id;

struct FetchingHost {
    directory: TempDir,
}

impl FetchingHost {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn mirror(&self) -> PathBuf {
        self.directory.path().join("data/mirror.git")
    }

    fn request(&self, work: &Work) -> FetchRequest {
        request(work.path().to_str().unwrap(), &self.mirror())
    }

    fn repo(&self) -> Repository {
        Mirror::new(self.mirror()).open().unwrap()
    }

    fn holds(&self, id: &CommitId) -> bool {
        self.repo()
            .find_commit(Oid::from_str(id.as_str()).unwrap())
            .is_ok()
    }
}

fn keep(ids: &[&CommitId]) -> BTreeSet<CommitId> {
    ids.iter().map(|id| (*id).clone()).collect()
}

fn packs(mirror: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(mirror.join("objects/pack"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "pack"));
    files
}

/// Overwrites the middle of every pack, as a failing disk would.
fn damage(mirror: &Path) {
    for pack in packs(mirror) {
        let mut bytes = fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[12..middle].fill(0x5a);
        fs::remove_file(&pack).unwrap();
        fs::write(&pack, bytes).unwrap();
    }
}

#[test]
fn a_branch_comes_with_its_history_and_nothing_else_does() {
    let (work, host) = (Work::new(), FetchingHost::new());
    work.write("a.yaml", "one");
    let first = work.commit("one", None);
    work.git(&["checkout", "-q", "-b", "other"]);
    let other = work.commit("not followed", None);
    work.git(&["tag", "-a", "-m", "tag", "v1"]);
    work.git(&["checkout", "-q", "main"]);
    let second = work.commit("two", None);

    let url = format!("file://{}", work.path().display());
    let fetched = bring(&FetchRequest {
        url,
        ..host.request(&work)
    })
    .unwrap();
    assert_eq!((&fetched.head, &fetched.previous), (&second, &None));
    assert!(fetched.received_bytes > 0 && fetched.repaired.is_none());
    assert!(host.holds(&first) && !host.holds(&other));

    let third = work.commit("three", None);
    let fetched = bring(&host.request(&work)).unwrap();
    assert_eq!(
        (fetched.head, fetched.previous),
        (third.clone(), Some(second))
    );
    let again = bring(&host.request(&work)).unwrap();
    assert_eq!((again.head, again.received_bytes), (third, 0));
    assert_eq!(packs(&host.mirror()).len(), 2);
}

#[test]
fn another_branch_or_url_takes_the_place_of_the_old_one() {
    let (work, host) = (Work::new(), FetchingHost::new());
    work.commit("one", None);
    bring(&host.request(&work)).unwrap();
    let elsewhere = Work::new();
    elsewhere.git(&["checkout", "-q", "-b", "release/1"]);
    let head = elsewhere.commit("elsewhere", None);
    let fetched = bring(&FetchRequest {
        branch: "release/1".to_owned(),
        ..host.request(&elsewhere)
    })
    .unwrap();
    assert_eq!((fetched.head, fetched.previous), (head, None));
    let repo = host.repo();
    let names: Vec<String> = repo
        .references()
        .unwrap()
        .map(|found| found.unwrap().name().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["refs/remotes/origin/release/1"]);
}

#[test]
fn a_fetch_error_names_the_problem_of_the_remote_and_the_next_step() {
    let (empty, work, host) = (Work::new(), Work::new(), FetchingHost::new());
    work.commit("one", None);
    work.commit("two", None);
    let shallow = tempfile::tempdir().unwrap();
    let from = format!("file://{}", work.path().display());
    work.git(&[
        "clone",
        "-q",
        "--depth",
        "1",
        &from,
        shallow.path().join("x").to_str().unwrap(),
    ]);
    let ask = |url: &str, branch: &str| {
        let request = FetchRequest {
            url: url.to_owned(),
            branch: branch.to_owned(),
            ..host.request(&work)
        };
        bring(&request).unwrap_err()
    };
    let path = |work: &Work| work.path().to_str().unwrap().to_owned();
    assert_eq!(
        ask(&path(&empty), "main"),
        FetchError::Empty { url: path(&empty) }
    );
    assert_eq!(
        ask(&path(&work), "mian"),
        FetchError::NoSuchBranch {
            url: path(&work),
            branch: "mian".to_owned(),
            has: vec!["main".to_owned()],
        }
    );
    for (url, branch, label) in [
        ("/nowhere/at/all.git", "main", "no-repository"),
        (
            shallow.path().join("x").to_str().unwrap(),
            "main",
            "shallow",
        ),
        (&path(&work), "a..b", "no-such-branch"),
        ("git://git.example.com/x", "main", "bad-url"),
        ("http://127.0.0.1:1/x.git", "main", "unreachable"),
    ] {
        let error = ask(url, branch);
        assert_eq!(error.label(), label, "{error}");
        assert!(!error.may_be_the_mirrors(), "{error}");
    }
    let request = FetchRequest {
        url: "http://git.example.com/x".to_owned(),
        credentials: Some(Credentials::Token(SecretText::new("secret"))),
        ..host.request(&work)
    };
    assert_eq!(bring(&request).unwrap_err().label(), "bad-url");
}

#[test]
fn limits_stop_a_fetch_and_leave_what_was_there() {
    let (work, host) = (Work::new(), FetchingHost::new());
    let first = work.commit("one", None);
    bring(&host.request(&work)).unwrap();
    work.write(
        "big.bin",
        (0..200_000_u32)
            .flat_map(u32::to_le_bytes)
            .collect::<Vec<u8>>(),
    );
    work.commit("big", None);
    let limits = FetchLimits::default();
    for (limits, label) in [
        (
            FetchLimits {
                objects: 2,
                ..limits.clone()
            },
            "limit",
        ),
        (
            FetchLimits {
                received_bytes: 1000,
                ..limits.clone()
            },
            "limit",
        ),
        (
            FetchLimits {
                deadline: Duration::ZERO,
                ..limits
            },
            "timeout",
        ),
    ] {
        let error = bring(&FetchRequest {
            limits,
            ..host.request(&work)
        })
        .unwrap_err();
        assert_eq!(error.label(), label, "{error}");
        assert!(host.holds(&first));
    }
    assert_eq!(bring(&host.request(&work)).unwrap().head, work.head());
}

#[test]
fn a_damaged_mirror_is_cloned_again_with_the_commits_in_use() {
    let (work, host) = (Work::new(), FetchingHost::new());
    work.write("a.yaml", "one");
    let running = work.commit("running", None);
    let head = work.commit("head", None);
    bring(&host.request(&work)).unwrap();
    Mirror::new(host.mirror()).pin(&keep(&[&running])).unwrap();
    damage(&host.mirror());
    let request = FetchRequest {
        keep: keep(&[&running, &head]),
        ..host.request(&work)
    };
    let fetched = bring(&request).unwrap();
    assert!(fetched.repaired.unwrap().contains("does not hold commit"));
    assert!(host.holds(&running) && host.holds(&head));
    let pin = format!("refs/windlass/pin/{running}");
    assert!(host.repo().find_reference(&pin).is_ok());
    assert!(bring(&request).unwrap().repaired.is_none());
}

#[test]
fn a_blob_that_went_bad_is_found_by_a_thorough_check() {
    let (work, host) = (Work::new(), FetchingHost::new());
    work.write(
        "a.yaml",
        "some content that is long enough to be found in the pack",
    );
    let head = work.commit("head", None);
    bring(&host.request(&work)).unwrap();
    // Loose objects can be damaged one by one.
    let pack = packs(&host.mirror()).remove(0);
    let moved = host.directory.path().join("moved.pack");
    fs::rename(&pack, &moved).unwrap();
    fs::remove_file(pack.with_extension("idx")).unwrap();
    let mirror = host.mirror();
    let unpack = format!(
        "git -C {} unpack-objects -q < {}",
        mirror.display(),
        moved.display()
    );
    super::super::testing::run("sh", &["-c", &unpack]);
    let blob = work.git(&["rev-parse", "HEAD:a.yaml"]);
    let loose = mirror.join("objects").join(&blob[..2]).join(&blob[2..]);
    fs::remove_file(&loose).unwrap();
    fs::write(&loose, "not zlib").unwrap();

    let request = FetchRequest {
        keep: keep(&[&head]),
        ..host.request(&work)
    };
    assert!(
        bring(&request).unwrap().repaired.is_none(),
        "a quick check does not read blobs"
    );
    let thorough = FetchRequest {
        check: Check::Thorough,
        ..request
    };
    assert!(bring(&thorough).unwrap().repaired.is_some());
    assert!(bring(&thorough).unwrap().repaired.is_none());
}

#[test]
fn a_damaged_mirror_is_kept_when_the_remote_lost_what_runs() {
    let (work, host) = (Work::new(), FetchingHost::new());
    let running = work.commit("running", None);
    bring(&host.request(&work)).unwrap();
    damage(&host.mirror());
    work.git(&["checkout", "-q", "--orphan", "fresh"]);
    work.commit("rewritten", None);
    work.git(&["branch", "-M", "main"]);
    let before = packs(&host.mirror());
    let error = bring(&FetchRequest {
        keep: keep(&[&running]),
        ..host.request(&work)
    })
    .unwrap_err();
    assert_eq!(error.label(), "corrupt");
    assert!(
        error.to_string().contains("would lose what this host runs"),
        "{error}"
    );
    assert_eq!(packs(&host.mirror()), before);
}

#[test]
fn what_a_killed_fetch_left_is_put_right() {
    let (work, host) = (Work::new(), FetchingHost::new());
    work.commit("one", None);
    bring(&host.request(&work)).unwrap();
    let mirror = host.mirror();
    let leftovers = [
        "refs/remotes/origin/main.lock",
        "objects/pack/pack_git2_a1b2c3",
        "packed-refs.lock",
    ];
    for file in leftovers {
        fs::write(mirror.join(file), "").unwrap();
    }
    // The state after a kill between the two renames of a replacement.
    let old = mirror.with_extension("git.old");
    fs::rename(&mirror, &old).unwrap();
    fs::create_dir_all(mirror.with_extension("git.new").join("half")).unwrap();
    let head = work.commit("two", None);
    assert_eq!(bring(&host.request(&work)).unwrap().head, head);
    assert!(leftovers.iter().all(|file| !mirror.join(file).exists()));
    assert!(!old.exists() && !mirror.with_extension("git.new").exists());
}

#[test]
fn many_fetches_do_not_scatter_the_mirror() {
    let (work, host) = (Work::new(), FetchingHost::new());
    let first = work.commit("first", None);
    bring(&host.request(&work)).unwrap();
    Mirror::new(host.mirror()).pin(&keep(&[&first])).unwrap();
    let mut most = 0;
    for number in 0..52 {
        work.commit(&number.to_string(), None);
        bring(&FetchRequest {
            keep: keep(&[&first]),
            ..host.request(&work)
        })
        .unwrap();
        most = most.max(packs(&host.mirror()).len());
    }
    assert!(most == 50 && packs(&host.mirror()).len() < 10, "{most}");
    assert!(host.holds(&first) && host.holds(&work.head()));
    assert!(
        host.repo()
            .find_reference(&format!("refs/windlass/pin/{first}"))
            .is_ok()
    );
}

#[test]
fn pins_are_exactly_the_requested_commits() {
    let (work, host) = (Work::new(), FetchingHost::new());
    let ids = [work.commit("one", None), work.commit("two", None)];
    bring(&host.request(&work)).unwrap();
    let mirror = Mirror::new(host.mirror());
    let pins = || -> Vec<String> {
        let repo = host.repo();
        let found = repo.references_glob("refs/windlass/pin/*").unwrap();
        found
            .map(|pin| pin.unwrap().target().unwrap().to_string())
            .collect()
    };
    mirror.pin(&keep(&[&ids[0], &ids[1]])).unwrap();
    assert_eq!(pins().len(), 2);
    mirror.pin(&keep(&[&ids[1]])).unwrap();
    assert_eq!(pins(), [ids[1].as_str()]);
    assert!(mirror.pin(&keep(&[&commit_id("f")])).unwrap());
}
