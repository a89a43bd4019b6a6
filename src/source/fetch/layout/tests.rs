#![expect(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::symlink;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::source::testing::{Work, bring, request};

fn fifo(path: &Path) {
    let _ = fs::remove_file(path);
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
}

fn link(path: &Path) {
    let _ = fs::remove_file(path);
    symlink("/etc/passwd", path).unwrap();
}

/// What the owner of a repository on this host can do to a host that follows it, with words of the
/// answer.
type Trap = (&'static [&'static str], fn(&Path));

#[test]
fn a_repository_whose_files_are_traps_is_refused_with_the_file_and_the_way_out() {
    let attacks: &[Trap] = &[
        (&[".git is a device, a socket or a FIFO"], |path| {
            fs::rename(path.join(".git"), path.join("moved")).unwrap();
            fifo(&path.join(".git"));
        }),
        (
            &[".git is a symbolic link", "clone the repository anew"],
            |path| {
                fs::rename(path.join(".git"), path.join("moved")).unwrap();
                symlink("moved", path.join(".git")).unwrap();
            },
        ),
        (&[".git has over 8192 bytes"], |path| {
            fs::rename(path.join(".git"), path.join("moved")).unwrap();
            let link = format!("gitdir: {}", "x".repeat(10_000));
            fs::write(path.join(".git"), link).unwrap();
        }),
        (
            &["refs/heads/main is a device, a socket or a FIFO"],
            |path| {
                fifo(&path.join(".git/refs/heads/main"));
            },
        ),
        (&["refs/heads/main is a symbolic link"], |path| {
            link(&path.join(".git/refs/heads/main"));
        }),
        (&["refs/heads is a symbolic link"], |path| {
            let heads = path.join(".git/refs/heads");
            fs::rename(&heads, path.join("moved")).unwrap();
            symlink(path.join("moved"), &heads).unwrap();
        }),
        (&["HEAD is a device, a socket or a FIFO"], |path| {
            fifo(&path.join(".git/HEAD"));
        }),
        (&["packed-refs is a device, a socket or a FIFO"], |path| {
            fifo(&path.join(".git/packed-refs"));
        }),
        (
            &["config refers to another configuration file", "[include]"],
            |path| {
                let config = path.join(".git/config");
                let text = fs::read_to_string(&config).unwrap();
                fs::write(
                    &config,
                    format!("{text}[core] [IncludeIf \"gitdir:/\"]\npath = /etc/x\n"),
                )
                .unwrap();
            },
        ),
        (&["config has over 1048576 bytes"], |path| {
            let text = "#".repeat(1024 * 1024 + 1);
            fs::write(path.join(".git/config"), text).unwrap();
        }),
        (
            &[
                "alternates refers to the objects of another repository",
                "git repack -a -d",
            ],
            |path| {
                fs::write(
                    path.join(".git/objects/info/alternates"),
                    "/srv/other.git/objects\n",
                )
                .unwrap();
            },
        ),
    ];
    for (words, attack) in attacks {
        let (work, data) = (Work::new(), tempfile::tempdir().unwrap());
        work.commit("one", None);
        attack(work.path());
        let mut request = request(
            work.path().to_str().unwrap(),
            &data.path().join("mirror.git"),
        );
        // Opening a FIFO waits for another process.
        request.limits.deadline = std::time::Duration::from_secs(20);
        let error = bring(&request).unwrap_err();
        assert_eq!(error.label(), "no-repository", "{error}");
        for word in *words {
            assert!(error.to_string().contains(word), "{word}: {error}");
        }
    }
}

#[test]
fn a_branch_that_is_missing_beside_a_trap_is_refused_as_well() {
    let (work, data) = (Work::new(), tempfile::tempdir().unwrap());
    work.commit("one", None);
    fifo(&work.path().join(".git/refs/heads/other"));
    let mut request = request(
        work.path().to_str().unwrap(),
        &data.path().join("mirror.git"),
    );
    request.branch = "gone".to_owned();
    request.limits.deadline = std::time::Duration::from_secs(20);
    let error = bring(&request).unwrap_err();
    assert!(
        error.to_string().contains("refs/heads/other is a"),
        "{error}"
    );
}

#[test]
fn a_linked_work_tree_and_a_bare_repository_are_followed() {
    let (work, data) = (Work::new(), tempfile::tempdir().unwrap());
    let head = work.commit("one", None);
    let (linked, bare) = (data.path().join("linked"), data.path().join("bare.git"));
    work.git(&[
        "worktree",
        "add",
        "-q",
        "-b",
        "other",
        linked.to_str().unwrap(),
    ]);
    work.git(&["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
    for (number, path) in [linked, bare].iter().enumerate() {
        let mirror = data.path().join(format!("{number}.git"));
        let fetched = bring(&request(path.to_str().unwrap(), &mirror)).unwrap();
        assert_eq!(fetched.head, head);
    }
}
