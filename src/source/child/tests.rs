#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Instant;

use tempfile::TempDir;

use super::super::fetch::{Credentials, FetchLimits, FetchRequest, SecretText};
use super::super::testing::{
    AS_CHILD, Bomb, HttpsServer, SshServer, Work, bring_in, request, run, this_binary,
};
use super::*;

/// The child process of the other tests; without the environment variable it does nothing.
#[test]
fn child_entry() {
    if std::env::var_os(AS_CHILD).is_some() {
        child_main();
        std::process::exit(0);
    }
}

/// A directory that every user may pass through, as the data directory is.
fn passable() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).unwrap();
    directory
}

#[tokio::test]
async fn a_child_fetches_what_another_user_owns_and_passes_errors_on() {
    let (work, data) = (Work::new(), passable());
    let head = work.commit("one", None);
    run("chown", &["-R", "12345", work.path().to_str().unwrap()]);
    let request = request(
        work.path().to_str().unwrap(),
        &data.path().join("mirror.git"),
    );
    let started = Instant::now();
    assert_eq!(bring_in(&this_binary(), &request).await.unwrap().head, head);
    eprintln!("a fetch in a child took {:?}", started.elapsed());
    let request = FetchRequest {
        branch: "other".to_owned(),
        ..request
    };
    assert_eq!(
        bring_in(&this_binary(), &request)
            .await
            .unwrap_err()
            .label(),
        "no-such-branch"
    );
}

#[tokio::test]
async fn https_needs_a_proven_server_and_accepted_credentials() {
    let (work, data) = (Work::new(), tempfile::tempdir().unwrap());
    work.write("a.yaml", "one");
    let head = work.commit("one", None);
    let root = tempfile::tempdir().unwrap();
    let bare = root.path().join("deploy.git");
    work.git(&["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
    // The user "git" with the password "token".
    let server = HttpsServer::start(root.path(), Some("Basic Z2l0OnRva2Vu"));
    let mirror = data.path().join("mirror.git");
    let token = |text: &str| Some(Credentials::Token(SecretText::new(text)));
    let trusting = FetchRequest {
        credentials: token("token"),
        ca_file: Some(server.ca_file()),
        ..request(server.url("deploy.git"), &mirror)
    };
    let other = HttpsServer::start(root.path(), None);
    for (request, label) in [
        (
            FetchRequest {
                ca_file: None,
                ..trusting.clone()
            },
            "certificate",
        ),
        (
            FetchRequest {
                ca_file: Some(other.ca_file()),
                ..trusting.clone()
            },
            "certificate",
        ),
        (
            FetchRequest {
                ca_file: Some("/nowhere/ca.pem".into()),
                ..trusting.clone()
            },
            "certificate",
        ),
        (
            FetchRequest {
                credentials: None,
                ..trusting.clone()
            },
            "auth-failed",
        ),
        (
            FetchRequest {
                credentials: token("wrong"),
                ..trusting.clone()
            },
            "auth-failed",
        ),
        (
            FetchRequest {
                url: server.url("gone.git"),
                ..trusting.clone()
            },
            "no-repository",
        ),
        (
            FetchRequest {
                branch: "gone".to_owned(),
                ..trusting.clone()
            },
            "no-such-branch",
        ),
        (
            FetchRequest {
                limits: FetchLimits {
                    objects: 1,
                    ..FetchLimits::default()
                },
                ..trusting.clone()
            },
            "limit",
        ),
    ] {
        let error = bring_in(&this_binary(), &request).await.unwrap_err();
        assert_eq!(error.label(), label, "{error}");
        assert!(!error.to_string().contains("token\""), "{error}");
    }
    let fetched = bring_in(&this_binary(), &trusting).await.unwrap();
    assert_eq!(fetched.head, head);
    let next = work.commit("two", None);
    work.git(&["push", "-q", bare.to_str().unwrap(), "main"]);
    let basic = Credentials::Basic {
        user: "git".to_owned(),
        password: SecretText::new("token"),
    };
    let fetched = bring_in(
        &this_binary(),
        &FetchRequest {
            credentials: Some(basic),
            ..trusting
        },
    )
    .await
    .unwrap();
    assert_eq!((fetched.head, fetched.previous), (next, Some(head)));
}

/// A user that no file of this machine belongs to, and that has no name.
const FETCH_USER: UserIds = UserIds {
    uid: 12345,
    gid: 12346,
};

/// This binary as the child, which becomes another user.
fn with_fetch_user() -> ChildProgram {
    ChildProgram {
        fetch_user: Some(FETCH_USER),
        ..this_binary()
    }
}

#[tokio::test]
async fn ssh_needs_a_known_host_and_a_key_that_may_log_in() {
    for (kind, bits) in [("ed25519", "256"), ("rsa", "3072"), ("ecdsa", "256")] {
        let (work, data) = (Work::new(), passable());
        let head = work.commit("one", None);
        let server = SshServer::start(kind, bits);
        let key = |text: String| Some(Credentials::SshKey(SecretText::new(text)));
        let trusting = FetchRequest {
            credentials: key(server.login_key()),
            known_hosts: Some(server.known_hosts()),
            ..request(server.url(work.path()), &data.path().join("mirror.git"))
        };
        let stranger = SshServer::start("ed25519", "256");
        for (request, label) in [
            (
                FetchRequest {
                    known_hosts: None,
                    ..trusting.clone()
                },
                "certificate",
            ),
            (
                FetchRequest {
                    known_hosts: Some(stranger.known_hosts()),
                    ..trusting.clone()
                },
                "certificate",
            ),
            (
                FetchRequest {
                    credentials: key(stranger.login_key()),
                    ..trusting.clone()
                },
                "auth-failed",
            ),
        ] {
            let error = bring_in(&with_fetch_user(), &request).await.unwrap_err();
            assert_eq!(error.label(), label, "{kind}: {error}");
        }
        let fetched = bring_in(&with_fetch_user(), &trusting).await.unwrap();
        assert_eq!(fetched.head, head, "{kind}");

        // The next fetch brings what is new, since the child reads the mirror's objects.
        work.write("a.yaml", "two");
        let next = work.commit("two", None);
        let fetched = bring_in(&with_fetch_user(), &trusting).await.unwrap();
        assert_eq!((fetched.head, fetched.previous), (next, Some(head)));
    }
}

#[tokio::test]
async fn a_repository_that_only_its_owner_may_read_is_fetched_by_the_owner() {
    for (user, mode) in [("0:0", 0o700), ("12345:12346", 0o700), ("12345:0", 0o750)] {
        let (work, data) = (Work::new(), passable());
        let head = work.commit("one", None);
        let path = work.path().to_str().unwrap();
        run("chown", &["-R", user, path]);
        fs::set_permissions(work.path(), Permissions::from_mode(mode)).unwrap();
        let request = request(path, &data.path().join("mirror.git"));
        let fetched = bring_in(&this_binary(), &request).await.unwrap();
        assert_eq!(fetched.head, head, "{user}");
        // The pack is root's from then on.
        let packs = fs::read_dir(data.path().join("mirror.git/objects/pack")).unwrap();
        for file in packs.map(|file| file.unwrap().metadata().unwrap()) {
            assert_eq!((file.uid(), file.mode() & 0o377), (0, 0), "{user}");
        }
    }

    // Its objects belong to another user than the directory.
    let (work, data) = (Work::new(), passable());
    work.commit("one", None);
    let objects = work.path().join(".git/objects");
    run("chown", &["-R", "12345", work.path().to_str().unwrap()]);
    run("chown", &["-R", "0", objects.to_str().unwrap()]);
    run("chmod", &["-R", "go-rwx", objects.to_str().unwrap()]);
    let request = request(
        work.path().to_str().unwrap(),
        &data.path().join("mirror.git"),
    );
    let error = bring_in(&this_binary(), &request).await.unwrap_err();
    assert_eq!(error.label(), "no-repository");
    assert!(error.to_string().contains("Permission denied"), "{error}");
}

#[tokio::test]
async fn a_data_directory_that_the_user_cannot_reach_is_an_error_that_says_so() {
    let (work, data) = (Work::new(), tempfile::tempdir().unwrap());
    fs::set_permissions(data.path(), Permissions::from_mode(0o700)).unwrap();
    work.commit("one", None);
    run("chown", &["-R", "12345", work.path().to_str().unwrap()]);
    let request = request(
        work.path().to_str().unwrap(),
        &data.path().join("mirror.git"),
    );
    let error = bring_in(&this_binary(), &request).await.unwrap_err();
    assert_eq!(error.label(), "sandbox");
    assert!(error.to_string().contains("chmod o+x"), "{error}");
}

#[tokio::test]
async fn a_mirror_is_checked_and_compacted_by_the_user_of_fetches() {
    let (work, data) = (Work::new(), passable());
    let root = tempfile::tempdir().unwrap();
    let server = HttpsServer::start(root.path(), None);
    let bare = root.path().join("deploy.git");
    let mut head = work.commit("one", None);
    work.git(&["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
    let mut request = request(server.url("deploy.git"), &data.path().join("mirror.git"));
    request.ca_file = Some(server.ca_file());
    // More packs than a mirror keeps.
    for number in 0..52 {
        work.write("a.yaml", number.to_string());
        head = work.commit(&number.to_string(), None);
        work.git(&["push", "-q", bare.to_str().unwrap(), "main"]);
        let fetched = bring_in(&with_fetch_user(), &request).await.unwrap();
        assert_eq!(fetched.head, head);
        request.keep = [head.clone()].into();
    }
    request.check = super::super::mirror::Check::Thorough;
    let fetched = bring_in(&with_fetch_user(), &request).await.unwrap();
    assert_eq!((fetched.head, fetched.repaired), (head, None));
    let packs = fs::read_dir(data.path().join("mirror.git/objects/pack")).unwrap();
    assert!(packs.count() < 20, "the mirror was not compacted");
}

#[tokio::test]
async fn a_bomb_in_a_pack_is_refused_by_its_headers_or_by_the_memory_that_its_deltas_take() {
    // Run by hand also with 1000 MiB.
    let mib = std::env::var("WINDLASS_TEST_BOMB_MIB")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(200);
    let (bomb, data) = (Bomb::new(mib * 1024 * 1024), tempfile::tempdir().unwrap());
    let server = HttpsServer::start(bomb.path(), None);
    for (branch, head) in [("large", &bomb.large), ("small", &bomb.small)] {
        for (object_bytes, objects) in [(64 * 1024 * 1024, 2_000_000), (4 * 1024 * 1024, 500_000)] {
            let mut asked = request(server.url("bomb.git"), &data.path().join("mirror.git"));
            (asked.ca_file, asked.branch) = (Some(server.ca_file()), branch.to_owned());
            asked.limits = FetchLimits {
                object_bytes,
                objects,
                ..asked.limits
            };
            // An object that is stored whole is only streamed; a delta is resolved in memory.
            let memory = asked.limits.memory_bytes();
            let expected = if branch == "small" && bomb.large_bytes > memory {
                format!(
                    "too large to be read with {} MiB of memory",
                    memory / 1024 / 1024
                )
            } else {
                format!(
                    "object {} is a commit of {} bytes",
                    bomb.large, bomb.large_bytes
                )
            };
            let error = bring_in(&this_binary(), &asked).await.unwrap_err();
            let FetchError::PackRefused {
                head: named, what, ..
            } = error
            else {
                panic!("{error}")
            };
            assert_eq!(named.as_ref(), Some(head), "{branch}: {what}");
            assert!(what.contains(&expected), "{branch}: {what}");
        }
    }
}

#[tokio::test]
async fn a_silent_server_is_given_up_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x.git", listener.local_addr().unwrap());
    let data = tempfile::tempdir().unwrap();
    let mut request = request(url, &data.path().join("mirror.git"));
    request.limits.deadline = Duration::from_millis(200);
    let error = bring_in(&this_binary(), &request).await.unwrap_err();
    assert_eq!(error.label(), "timeout");
}

#[tokio::test]
async fn a_child_that_dies_or_cannot_start_is_reported() {
    let data = tempfile::tempdir().unwrap();
    let request = request("ssh://git@127.0.0.1/x", &data.path().join("mirror.git"));
    for (program, expected) in [
        ("/nowhere/windlass", "start"),
        ("/bin/false", "without an answer"),
    ] {
        let child = ChildProgram {
            program: program.into(),
            arguments: Vec::new(),
            fetch_user: None,
        };
        let error = bring_in(&child, &request).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}
