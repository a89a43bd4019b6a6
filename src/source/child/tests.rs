#![expect(clippy::unwrap_used, reason = "a test")]

use std::net::TcpListener;
use std::time::Instant;

use super::super::fetch::{Credentials, FetchLimits, SecretText};
use super::super::mirror::Mirror;
use super::super::quarantine::Quarantine;
use super::super::testing::{AS_CHILD, Bomb, HttpsServer, Work, accept, request, run, this_binary};
use super::*;

/// The child process of the other tests; without the environment variable it does nothing.
#[test]
fn child_entry() {
    if std::env::var_os(AS_CHILD).is_some() {
        child_main();
        std::process::exit(0);
    }
}

/// Fetches in a child process, and moves the download into the mirror as if its head were trusted.
async fn bring(child: &ChildProgram, request: &FetchRequest) -> Result<Fetched, FetchError> {
    let quarantine = Quarantine::begin(&Mirror::new(&request.mirror)).unwrap();
    let fetched = fetch_in_child(child, request).await?;
    accept(&quarantine, request, &fetched);
    Ok(fetched)
}

#[tokio::test]
async fn a_child_fetches_what_another_user_owns_and_passes_errors_on() {
    let (work, data) = (Work::new(), tempfile::tempdir().unwrap());
    let head = work.commit("one", None);
    run("chown", &["-R", "12345", work.path().to_str().unwrap()]);
    let request = request(
        work.path().to_str().unwrap(),
        &data.path().join("mirror.git"),
    );
    let started = Instant::now();
    assert_eq!(bring(&this_binary(), &request).await.unwrap().head, head);
    eprintln!("a fetch in a child took {:?}", started.elapsed());
    let request = FetchRequest {
        branch: "other".to_owned(),
        ..request
    };
    assert_eq!(
        bring(&this_binary(), &request).await.unwrap_err().label(),
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
        let error = bring(&this_binary(), &request).await.unwrap_err();
        assert_eq!(error.label(), label, "{error}");
        assert!(!error.to_string().contains("token\""), "{error}");
    }
    let fetched = bring(&this_binary(), &trusting).await.unwrap();
    assert_eq!(fetched.head, head);
    let next = work.commit("two", None);
    work.git(&["push", "-q", bare.to_str().unwrap(), "main"]);
    let basic = Credentials::Basic {
        user: "git".to_owned(),
        password: SecretText::new("token"),
    };
    let fetched = bring(
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
            let error = bring(&this_binary(), &asked).await.unwrap_err();
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
    let error = bring(&this_binary(), &request).await.unwrap_err();
    assert_eq!(error.label(), "timeout");
}

#[tokio::test]
async fn a_child_that_dies_or_cannot_start_is_reported() {
    let data = tempfile::tempdir().unwrap();
    let request = request("/x", &data.path().join("mirror.git"));
    for (program, expected) in [
        ("/nowhere/windlass", "start"),
        ("/bin/false", "without an answer"),
    ] {
        let child = ChildProgram {
            program: program.into(),
            arguments: Vec::new(),
        };
        let error = bring(&child, &request).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}
