#![expect(clippy::unwrap_used, reason = "a test")]

mod accepted;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use reconciler::desired::CheckSettings;
use tempfile::TempDir;

use super::*;
use crate::commit_cache::Reader;
use crate::source::mirror::Mirror;
use crate::source::snapshot::{SnapshotLimits, SourcePath};
use crate::source::testing::{HttpsServer, KeyPairs, Work, request, run, this_binary};
use crate::source::verify::Mode;

const MIB: usize = 1024 * 1024;

/// A repository behind https, and a host that follows it.
struct Bed {
    keys: KeyPairs,
    work: Work,
    root: TempDir,
    server: HttpsServer,
    data: TempDir,
    is_local: bool,
}

/// A running follower.
struct Following {
    nudge: Arc<Notify>,
    found: mpsc::Receiver<SourceUpdate>,
    task: tokio::task::JoinHandle<()>,
}

impl Bed {
    fn new() -> Self {
        let (keys, work, root) = (KeyPairs::new(), Work::new(), tempfile::tempdir().unwrap());
        keys.generate("dev", "ed25519", "256");
        work.git(&[
            "init",
            "-q",
            "--bare",
            root.path().join("deploy.git").to_str().unwrap(),
        ]);
        let server = HttpsServer::start(root.path(), None);
        let bed = Self {
            keys,
            work,
            root,
            server,
            data: tempfile::tempdir().unwrap(),
            is_local: false,
        };
        fs::write(bed.signers(), bed.keys.line("dev", "")).unwrap();
        bed
    }

    fn signers(&self) -> PathBuf {
        self.data.path().join("allowed_signers")
    }

    fn mirror(&self) -> PathBuf {
        self.data.path().join("mirror.git")
    }

    /// Commits one file and force-pushes the commit.
    fn push(&self, content: impl AsRef<[u8]>, signed: bool) -> CommitId {
        self.work.write("content.bin", content);
        let manifest = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
        self.work.write("shop.yaml", manifest);
        let key = self.keys.path("dev");
        let id = self.work.commit("a push", signed.then_some(key.as_path()));
        self.publish();
        id
    }

    fn publish(&self) {
        let bare = self.root.path().join("deploy.git");
        self.work
            .git(&["push", "-qf", bare.to_str().unwrap(), "main"]);
    }

    fn take_back(&self, id: &CommitId) {
        self.work.git(&["reset", "-q", "--hard", id.as_str()]);
    }

    fn follow(&self) -> Following {
        let trust = self.data.path().join("trust");
        let (sender, found) = mpsc::channel(1);
        let nudge = Arc::new(Notify::new());
        let url = if self.is_local {
            self.root.path().join("deploy.git").display().to_string()
        } else {
            self.server.url("deploy.git")
        };
        let mut request = request(url, &self.mirror());
        request.ca_file = Some(self.server.ca_file());
        let reader = Reader {
            mirror: Mirror::new(self.mirror()),
            paths: vec![SourcePath::root()],
            limits: SnapshotLimits::default(),
            check: CheckSettings::default(),
        };
        let judge = Judge {
            mode: Mode::Mainline,
            allowed_signers: Some(self.signers()),
            anchor: None,
            allow_rewrite: false,
            reader,
        };
        let follower = Follower {
            request,
            mirror_bytes: 40 * MIB as u64,
            trust: Arc::new(Mutex::new(TrustStore::open(&trust).unwrap())),
            refused: RefusedHeads::open(&trust),
            credentials: Box::new(|| Ok(None)),
            child: this_binary(),
            judge,
            poll: Duration::from_secs(3600),
            nudge: Arc::clone(&nudge),
            updates: sender,
            doubted: None,
        };
        Following {
            nudge,
            found,
            task: tokio::spawn(follower.run()),
        }
    }

    /// All files of the mirror with their sizes, without the directory's own times.
    fn mirror_files(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut waiting = vec![self.mirror()];
        while let Some(directory) = waiting.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                let size = entry.metadata().unwrap();
                if size.is_dir() {
                    waiting.push(entry.path())
                } else {
                    found.push((entry.path(), size.len()))
                }
            }
        }
        found.sort();
        found
    }

    fn has_leftovers(&self) -> bool {
        fs::read_dir(self.data.path()).unwrap().any(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.contains("quarantine") || name.ends_with(".new") || name.ends_with(".old")
        })
    }
}

impl Following {
    async fn next(&mut self) -> SourceUpdate {
        tokio::time::timeout(Duration::from_secs(120), self.found.recv())
            .await
            .unwrap()
            .unwrap()
    }

    async fn fetch_again(&mut self) -> SourceUpdate {
        self.nudge.notify_one();
        self.next().await
    }

    async fn refusal(&mut self) -> (RefusedCommit, String, Option<String>) {
        match self.fetch_again().await {
            SourceUpdate::Refused {
                refusal,
                subject,
                untrusted,
                ..
            } => (refusal, subject, untrusted),
            other => panic!("{other:?}"),
        }
    }

    /// Ends the follower, and waits until it has released the mirror.
    async fn end(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Bytes that cannot be compressed.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed * 2 + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length / 8).flat_map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_pushes_leave_the_mirror_as_it_was() {
    let mut bed = Bed::new();
    let good = bed.push("one", true);
    let mut following = bed.follow();
    let found = following.next().await;
    assert!(
        matches!(&found, SourceUpdate::Good { commit, .. } if commit.id == good),
        "{found:?}"
    );
    let before = bed.mirror_files();
    for seed in 1..7 {
        if seed == 4 {
            // The same with a repository on this host.
            following.end().await;
            bed.is_local = true;
            following = bed.follow();
            following.next().await;
        }
        let head = bed.push(noise(4 * MIB, seed), false);
        let (refusal, subject, untrusted) = following.refusal().await;
        assert_eq!((&refusal.commit, subject.as_str()), (&head, "a push"));
        assert_eq!(untrusted.as_deref(), Some("unsigned"));
        assert_eq!(
            bed.mirror_files(),
            before,
            "the mirror after {seed} refused pushes"
        );
        assert!(!bed.has_leftovers());
        bed.take_back(&good);
    }
    let next = bed.push("two", true);
    let found = following.fetch_again().await;
    assert!(
        matches!(&found, SourceUpdate::Good { commit, .. } if commit.id == next),
        "{found:?}"
    );
    following.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_head_is_fetched_again_only_when_what_judges_it_changes() {
    let bed = Bed::new();
    bed.push("one", true);
    let mut following = bed.follow();
    assert!(matches!(following.next().await, SourceUpdate::Good { .. }));
    let head = bed.push("two", false);
    let refused = following.refusal().await;
    assert_eq!(refused.0.commit, head);
    let downloads = bed.server.downloads();

    assert!(matches!(
        following.fetch_again().await,
        SourceUpdate::Same { .. }
    ));
    assert_eq!(
        bed.server.downloads(),
        downloads,
        "the next poll downloads nothing"
    );

    following.end().await;
    let mut following = bed.follow();
    match following.next().await {
        SourceUpdate::Refused {
            refusal,
            subject,
            untrusted,
            ..
        } => {
            assert_eq!(
                (refusal, subject, untrusted),
                refused,
                "a restart tells the same"
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        following.fetch_again().await,
        SourceUpdate::Same { .. }
    ));
    assert_eq!(
        bed.server.downloads(),
        downloads,
        "a restart downloads nothing"
    );

    // With keys that cannot be read no head can be judged, so none is downloaded.
    fs::rename(bed.signers(), bed.data.path().join("away")).unwrap();
    let found = following.fetch_again().await;
    assert!(
        matches!(&found, SourceUpdate::Trouble { error, .. } if error.contains("allowed signers")),
        "{found:?}"
    );
    assert_eq!(bed.server.downloads(), downloads);

    fs::write(
        bed.signers(),
        format!("# changed\n{}", bed.keys.line("dev", "")),
    )
    .unwrap();
    assert_eq!(following.refusal().await.0.commit, head);
    assert!(bed.server.downloads() > downloads, "other keys judge anew");
    following.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_with_an_object_over_its_limit_is_refused_once() {
    let bed = Bed::new();
    bed.push("one", true);
    let mut following = bed.follow();
    assert!(matches!(following.next().await, SourceUpdate::Good { .. }));
    let before = bed.mirror_files();
    // Signed or not makes no difference: the size is checked before any signature is read.
    let head = bed.push(vec![0; 65 * MIB], true);
    let (refusal, _, untrusted) = following.refusal().await;
    assert_eq!(
        (refusal.commit, untrusted.as_deref()),
        (head, Some("pack-refused"))
    );
    assert!(
        refusal
            .summary
            .contains("is a blob of 68157440 bytes, and a blob may have 67108864"),
        "{}",
        refusal.summary
    );
    let downloads = bed.server.downloads();
    assert!(matches!(
        following.fetch_again().await,
        SourceUpdate::Same { .. }
    ));
    assert_eq!(
        (bed.server.downloads(), bed.mirror_files()),
        (downloads, before)
    );
    following.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_would_be_too_large_is_compacted_and_else_the_head_is_refused() {
    let bed = Bed::new();
    bed.push(noise(10 * MIB, 1), true);
    let mut following = bed.follow();
    assert!(matches!(following.next().await, SourceUpdate::Good { .. }));
    // Garbage as an older version left it in the mirror.
    let garbage = bed
        .mirror()
        .join("objects/pack/pack-0000000000000000000000000000000000000000.pack");
    fs::write(&garbage, noise(24 * MIB, 9)).unwrap();
    bed.push(noise(8 * MIB, 2), true);
    let found = following.fetch_again().await;
    assert!(matches!(found, SourceUpdate::Good { .. }), "{found:?}");
    assert!(!garbage.exists(), "it was compacted");

    for seed in 3..6 {
        bed.push(noise(8 * MIB, seed), true);
    }
    let before = bed.mirror_files();
    let (refusal, _, untrusted) = following.refusal().await;
    assert_eq!(untrusted.as_deref(), Some("mirror-full"));
    assert!(
        refusal
            .summary
            .contains("source.max-mirror-bytes allows 41943040"),
        "{}",
        refusal.summary
    );
    let sum = |files: &[(PathBuf, u64)]| files.iter().map(|(_, size)| size).sum::<u64>();
    assert!(sum(&bed.mirror_files()) <= sum(&before) + 4096);
    assert!(matches!(
        following.fetch_again().await,
        SourceUpdate::Same { .. }
    ));
    following.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_mirror_is_repaired_whether_its_head_is_known_new_or_refused() {
    let bed = Bed::new();
    let good = bed.push("one", true);
    let mut following = bed.follow();
    assert!(matches!(following.next().await, SourceUpdate::Good { .. }));
    let whole = |keep: &CommitId| {
        let mirror = bed.mirror();
        let mode = fs::metadata(&mirror).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let mirror = mirror.to_str().unwrap();
        run("git", &["-C", mirror, "fsck", "--full", "--strict"]);
        run(
            "git",
            &["-C", mirror, "rev-list", "--objects", keep.as_str()],
        );
        assert!(!bed.has_leftovers());
    };
    damage(&bed.mirror());
    assert!(matches!(
        following.fetch_again().await,
        SourceUpdate::Good { .. }
    ));
    whole(&good);

    damage(&bed.mirror());
    let next = bed.push("two", true);
    let found = following.fetch_again().await;
    assert!(
        matches!(&found, SourceUpdate::Good { commit, .. } if commit.id == next),
        "{found:?}"
    );
    whole(&next);

    let refused = bed.push(noise(MIB, 1), false);
    following.refusal().await;
    damage(&bed.mirror());
    following.refusal().await;
    whole(&next);
    let repo = Mirror::new(bed.mirror()).open().unwrap();
    let id = git2::Oid::from_str(refused.as_str()).unwrap();
    assert!(
        repo.find_commit(id).is_err(),
        "nothing of the refused head is kept"
    );
    following.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_head_that_an_older_version_left_in_the_mirror_is_not_read() {
    let bed = Bed::new();
    let good = bed.push("one", true);
    let mut following = bed.follow();
    assert!(matches!(following.next().await, SourceUpdate::Good { .. }));
    following.end().await;
    let message = bed.data.path().join("message");
    fs::write(&message, "m".repeat(2 * MIB)).unwrap();
    bed.work.git(&[
        "commit",
        "-q",
        "--allow-empty",
        "-F",
        message.to_str().unwrap(),
    ]);
    bed.publish();
    let bare = bed.root.path().join("deploy.git");
    let (mirror, bare) = (bed.mirror(), bare.to_str().unwrap());
    let mirror = mirror.to_str().unwrap();
    run(
        "git",
        &[
            "-C",
            mirror,
            "fetch",
            "-q",
            bare,
            "+main:refs/remotes/origin/main",
        ],
    );

    let mut following = bed.follow();
    match following.next().await {
        SourceUpdate::Refused { refusal, .. } => {
            assert!(
                refusal.summary.contains("and a commit may have 1048576"),
                "{}",
                refusal.summary
            );
        }
        other => panic!("{other:?}"),
    }
    let objects = run(
        "git",
        &[
            "-C",
            mirror,
            "cat-file",
            "--batch-all-objects",
            "--batch-check",
        ],
    );
    assert!(
        objects.contains(good.as_str()) && !objects.contains(bed.work.head().as_str()),
        "{objects}"
    );
    following.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_repository_is_an_answer_only_before_the_first_verified_commit() {
    for is_local in [true, false] {
        let mut bed = Bed::new();
        bed.is_local = is_local;
        let mut following = bed.follow();
        let found = following.next().await;
        assert!(matches!(found, SourceUpdate::Empty { .. }), "{found:?}");

        bed.push("one", true);
        let found = following.fetch_again().await;
        assert!(matches!(found, SourceUpdate::Good { .. }), "{found:?}");
        let bare = bed.root.path().join("deploy.git");
        bed.work.git(&[
            "-C",
            bare.to_str().unwrap(),
            "update-ref",
            "-d",
            "refs/heads/main",
        ]);
        let found = following.fetch_again().await;
        assert!(
            matches!(&found, SourceUpdate::Trouble { error, .. } if error.contains("is empty")),
            "{found:?}"
        );
        following.end().await;
    }
}

/// Overwrites the middle of every pack, as a failing disk would.
fn damage(mirror: &Path) {
    for entry in fs::read_dir(mirror.join("objects/pack")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "pack") {
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[12..middle].fill(0x5a);
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
        }
    }
}
