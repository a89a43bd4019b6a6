//! Commits that must not be trusted.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::case::Bench;
use crate::manifest::idle;
use crate::support::{GitRepo, is, run};

/// A manifest that an untrusted commit adds, and that must never run.
fn intruder() -> String {
    crate::manifest::pod("intruder", &idle())
}

#[test]
fn commits_that_are_not_trusted_are_refused_and_no_running_pod_is_touched() {
    let mut bench = Bench::start();
    let text = intruder();
    let files = [("apps/intruder.yaml", text.as_str())];

    let commit = bench
        .site
        .repo
        .commit_unsigned(&files, "without a signature");
    bench.wait_refused(
        "an unsigned commit",
        &commit,
        &["without a signature", "it is not signed"],
    );
    assert_eq!(
        bench
            .site
            .metric("windlass_signature_checks_total{outcome=\"untrusted\"}"),
        1.0
    );

    let commit = bench
        .site
        .push(&[("apps/intruder.yaml", "{}")], "signed on top");
    bench.wait_refused(
        "an unsigned commit inside the range",
        &commit,
        &["without a signature", "it is not signed"],
    );
    bench.reset_to_good("an unsigned commit");

    let stranger = bench
        .site
        .repo
        .new_signer("stranger@example.com", "ed25519");
    let commit = bench
        .site
        .repo
        .commit_signed_by(&stranger, &files, "by a stranger");
    bench.wait_refused(
        "an unknown signer",
        &commit,
        &["by a stranger", "SHA256:", "not in the allowed signers"],
    );
    bench.reset_to_good("an unknown signer");

    let allowed = fs::read_to_string(bench.site.repo.allowed_signers()).unwrap();
    let line = |options: &str| {
        format!(
            "{allowed}late@example.com {options} {}\n",
            stranger.public_key()
        )
    };
    for (what, options, words) in [
        (
            "an expired signer",
            "valid-before=\"20200101\"",
            "was valid until 2020-01-01",
        ),
        (
            "a signer who is not valid yet",
            "valid-after=\"20990101\"",
            "is valid only after 2099-01-01",
        ),
        (
            "a signer of other things",
            "namespaces=\"file\"",
            "do not hold \"git\"",
        ),
        (
            "a certificate authority",
            "cert-authority",
            "certificate authority",
        ),
    ] {
        bench.site.repo.set_allowed_signers(&line(options));
        let commit = bench.site.repo.commit_signed_by(&stranger, &files, what);
        bench.wait_refused(what, &commit, &[what, words]);
        bench.reset_to_good(what);
    }
    bench.site.repo.set_allowed_signers(&allowed);

    let commit = forged(&bench.site.repo, &files);
    bench.wait_refused(
        "a signature of another commit",
        &commit,
        &["its signature does not fit its content"],
    );
    bench.reset_to_good("a signature of another commit");

    let note = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: note}\n";
    let next = bench.site.push(&[("apps/note.yaml", note)], "a note");
    bench.wait_corrected("a note", next);
    let commit = bench.site.repo.rewrite_head(&files, "another past");
    let verified = bench.good[..7].to_owned();
    bench.wait_refused(
        "a rewritten history",
        &commit,
        &["does not descend from", &verified, "history was rewritten"],
    );
    bench.reset_to_good("a rewritten history");

    let old = bench.site.repo.git(&["rev-parse", "HEAD~1"]).ok();
    bench.site.repo.git(&["reset", "-q", "--hard", &old]).ok();
    bench.site.repo.push();
    bench.wait_refused("a branch that was moved back", &old, &["moved back"]);
    bench.reset_to_good("a branch that was moved back");
}

/// Pushes a commit with the signature of another, good commit.
fn forged(repo: &GitRepo, files: &[(&str, &str)]) -> String {
    repo.write(files);
    let signed = repo.commit(Some(&repo.signer), "what was signed");
    let text = repo.git(&["cat-file", "commit", &signed]).ok();
    let file = repo.work().with_extension("forged");
    fs::write(
        &file,
        format!("{}\n", text.replace("what was signed", "what was not")),
    )
    .unwrap();
    let forged = repo
        .git(&["hash-object", "-t", "commit", "-w", file.to_str().unwrap()])
        .ok();
    repo.git(&["reset", "-q", "--hard", &forged]).ok();
    repo.push()
}

#[test]
fn refused_pushes_of_forty_megabytes_do_not_grow_the_mirror() {
    let mut bench = Bench::start();
    let host = bench.site.host;
    let size = || {
        host.exec(&["du", "-sb", "/var/lib/windlass/mirror.git"])
            .ok()
    };
    let before = size();
    for round in 0..3 {
        let file = bench.site.repo.work().join("noise.bin");
        let noise = format!("head -c 41943040 /dev/urandom > {}", file.display());
        run(Command::new("sh").args(["-c", &noise])).ok();
        let commit = bench
            .site
            .repo
            .commit_unsigned(&[], &format!("noise {round}"));
        bench.wait_refused(
            "forty megabytes without a signature",
            &commit,
            &["it is not signed"],
        );
        assert_eq!(
            size(),
            before,
            "the mirror after {} refused pushes",
            round + 1
        );
        bench.reset_to_good("forty megabytes");
    }
}

#[test]
fn a_git_object_that_was_tampered_with_is_an_error_and_is_not_deployed() {
    let mut bench = Bench::start();
    for (what, name) in [("with other content", "one"), ("with garbage", "two")] {
        let path = format!("apps/{name}.yaml");
        let signed = crate::manifest::pod(name, &idle());
        bench.site.repo.write(&[(&path, &signed)]);
        let signer = bench.site.repo.signer.clone();
        let commit = bench.site.repo.commit(Some(&signer), what);
        // The daemon does not follow this branch, so the objects can be changed before the daemon
        // fetches them.
        bench
            .site
            .repo
            .git(&["push", "-qf", "origin", "HEAD:refs/heads/staging"])
            .ok();
        let blob = bench
            .site
            .repo
            .git(&["rev-parse", &format!("HEAD:{path}")])
            .ok();
        let object = loose(&bench, &blob);
        let original = fs::read(&object).unwrap();
        let forged = if name == "one" {
            other_content(&bench, &intruder())
        } else {
            b"no object".to_vec()
        };
        fs::remove_file(&object).unwrap();
        fs::write(&object, forged).unwrap();
        let repository = bench.site.repo.path().display().to_string();
        let update = |id: &str| {
            run(Command::new("git").args(["-C", &repository, "update-ref", "refs/heads/main", id]))
                .ok()
        };
        update(&commit);

        let status = bench.site.wait_status("the fetch fails", |status| {
            status["source"]["error"].is_string()
        });
        assert!(
            !is(&status["source"]["verified"], &commit),
            "{what}: {status:#}"
        );
        bench.assert_unchanged(what);
        let error = status["source"]["error"].as_str().unwrap();
        assert!(
            error.contains(&blob[..7]) || error.contains("failed to read loose object"),
            "{what}: {error}"
        );
        assert!(
            bench.site.running_of(name).is_empty() && bench.site.running_of("intruder").is_empty()
        );

        fs::write(&object, original).unwrap();
        let good = bench.good.clone();
        update(&good);
        bench.site.wait_status("the error is gone", |status| {
            status["source"]["error"].is_null()
        });
        bench.reset_to_good(what);
    }
}

/// The file of a loose object in the repository that the daemon follows.
fn loose(bench: &Bench, id: &str) -> PathBuf {
    let path = bench
        .site
        .repo
        .path()
        .join("objects")
        .join(&id[..2])
        .join(&id[2..]);
    assert!(path.exists(), "{id} is not loose");
    path
}

/// The bytes on disk of a loose object with other content.
fn other_content(bench: &Bench, content: &str) -> Vec<u8> {
    let file = bench.site.repo.work().with_extension("other");
    fs::write(&file, content).unwrap();
    let id = bench
        .site
        .repo
        .git(&["hash-object", "-w", file.to_str().unwrap()])
        .ok();
    fs::read(
        bench
            .site
            .repo
            .work()
            .join(".git/objects")
            .join(&id[..2])
            .join(&id[2..]),
    )
    .unwrap()
}
