//! The commands of `windlass cluster`, as a person types them.

use clap::Parser;

use super::*;
use crate::cli::{Cli, CliCommand, cluster};

/// Runs a command for the host with this disk; returns its output, or why it failed.
async fn windlass(disk: &Disk, words: &[&str]) -> Result<String, String> {
    let data = disk
        .directory
        .path()
        .parent()
        .unwrap()
        .display()
        .to_string();
    let line = ["windlass", "cluster"]
        .iter()
        .chain(words)
        .copied()
        .chain(["--data-dir", data.as_str()]);
    let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
    let CliCommand::Cluster(args) = &cli.command else {
        panic!("{words:?}")
    };
    let mut out = Vec::new();
    let done = cluster::run(args, None, &mut out).await;
    done.map(|_| String::from_utf8(out).unwrap())
        .map_err(|error| format!("{error:#}"))
}

#[tokio::test]
async fn a_cluster_is_made_by_commands() {
    let (one, two) = (disk(), disk());
    let output = windlass(&one, &["init", "--node", "n1"]).await.unwrap();
    assert!(
        output.starts_with("created cluster windlass-")
            && output.contains("; its certificate authority is on n1\n"),
        "{output}"
    );
    let error = windlass(&one, &["init", "--node", "n1"]).await.unwrap_err();
    assert!(error.contains("exists already"), "{error}");
    let n1 = serve(&one, "n1").await;
    let address = n1.address.to_string();

    let token = windlass(
        &one,
        &[
            "token",
            "--node",
            "n2",
            "--ttl",
            "10m",
            "--address",
            &address,
        ],
    )
    .await
    .unwrap();
    assert_eq!(token.lines().count(), 1);
    let error = windlass(&two, &["join", "--node", "n3", token.trim()])
        .await
        .unwrap_err();
    assert_eq!(error, "the join token is for the node n2 only");
    let output = windlass(&two, &["join", "--node", "n2", token.trim()])
        .await
        .unwrap();
    assert!(
        output.starts_with("n2 belongs to cluster windlass-")
            && output.contains("its authority is on n1"),
        "{output}"
    );

    let output = windlass(&two, &["ping", "n1", &address]).await.unwrap();
    let wanted = format!(
        "n1 is alive: windlass {}, clocks 0 s apart\n",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(output, wanted);
    let output = windlass(&two, &["rotate"]).await.unwrap();
    assert!(
        output.starts_with("renewed the certificate of n2: valid until "),
        "{output}"
    );
    let output = windlass(&one, &["rotate"]).await.unwrap();
    assert!(
        output.starts_with("renewed the certificate of n1: valid until "),
        "{output}"
    );

    let into = tempfile::tempdir().unwrap();
    let directory = into.path().display().to_string();
    let certificate = [
        "certificate",
        "--name",
        "etcd-1",
        "--address",
        "192.0.2.1",
        "--directory",
        &directory,
    ];
    assert!(
        windlass(&one, &certificate)
            .await
            .unwrap()
            .starts_with("wrote etcd-1.pem, etcd-1-key.pem and ca.pem")
    );
    for only_there in [&certificate[..], &["token"]] {
        let error = windlass(&two, only_there).await.unwrap_err();
        assert_eq!(
            error,
            "the cluster's certificate authority is on n1: run this command on that host"
        );
    }
}

#[tokio::test]
async fn a_command_on_a_host_without_a_cluster_names_the_next_step() {
    let none = disk();
    for words in [&["token"][..], &["rotate"], &["ping", "n1", "127.0.0.1:1"]] {
        let error = windlass(&none, words).await.unwrap_err();
        assert!(
            error.starts_with("there is no certificate in ")
                && error.contains("`windlass cluster init`"),
            "{error}"
        );
    }
    let error = windlass(&none, &["join", "--node", "n1", "hello"])
        .await
        .unwrap_err();
    assert!(error.starts_with("this is no join token"), "{error}");
    let error = windlass(&none, &["init", "--node", "root"])
        .await
        .unwrap_err();
    assert!(error.starts_with("a node cannot be called root"), "{error}");
    let error = windlass(&none, &["token", "--replace"]).await.unwrap_err();
    assert!(error.contains("--node"), "{error}");
    assert!(!none.directory.path().exists());
}
