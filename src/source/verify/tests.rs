#![expect(clippy::unwrap_used, reason = "a test")]

use std::process::Command;

use super::super::testing::{KeyPairs, Work};
use super::*;

const NOW: &str = "2026-06-02T00:00:00Z";

fn policy<'a>(mode: Mode, signers: &'a AllowedSigners) -> Policy<'a> {
    Policy {
        mode,
        signers,
        anchor: None,
        allow_rewrite: false,
        now: NOW.parse().unwrap(),
    }
}

fn accepted(id: &CommitId) -> VerifiedCommit {
    VerifiedCommit {
        id: id.clone(),
        grounds: Grounds::ModeOff,
    }
}

fn refused(verdict: HeadVerdict) -> Vec<(String, &'static str)> {
    match verdict {
        HeadVerdict::Trusted(commit) => panic!("trusted {commit:?}"),
        HeadVerdict::Untrusted(refusals) => refusals
            .listed
            .into_iter()
            .map(|refusal| (refusal.subject.into(), refusal.why.label()))
            .collect(),
    }
}

fn head_of(verdict: HeadVerdict) -> VerifiedCommit {
    match verdict {
        HeadVerdict::Trusted(accepted) => accepted.head,
        HeadVerdict::Untrusted(refusals) => panic!("refused: {refusals}"),
    }
}

fn signer(verdict: &HeadVerdict) -> &str {
    match verdict {
        HeadVerdict::Trusted(accepted) => accepted
            .head
            .signer()
            .map_or("nobody", |signer| signer.principal.as_str()),
        HeadVerdict::Untrusted(refusals) => panic!("refused: {refusals}"),
    }
}

#[test]
fn a_mode_is_named_as_in_the_configuration() {
    for mode in [Mode::Mainline, Mode::All, Mode::Head, Mode::Off] {
        assert_eq!(serde_json::to_value(mode).unwrap(), mode.as_str());
    }
}

#[test]
fn every_key_type_that_git_verifies_is_trusted() {
    let keys = KeyPairs::new();
    let work = Work::new();
    for (name, kind, bits) in [
        ("ed", "ed25519", "256"),
        ("p256", "ecdsa", "256"),
        ("p384", "ecdsa", "384"),
        ("rsa", "rsa", "3072"),
    ] {
        let key = keys.generate(name, kind, bits);
        let commit = work.commit("signed", Some(&key));
        let allowed = keys.path("allowed");
        std::fs::write(&allowed, keys.line(name, "namespaces=\"git\"")).unwrap();
        work.git(&[
            "-c",
            &format!("gpg.ssh.allowedSignersFile={}", allowed.display()),
            "verify-commit",
            commit.as_str(),
        ]);
        let signers = AllowedSigners::parse(&std::fs::read_to_string(&allowed).unwrap()).unwrap();
        let verdict = verify(&work.repo(), &policy(Mode::All, &signers), None, &commit).unwrap();
        assert_eq!(signer(&verdict), format!("{name}@example.com"));
    }
}

/// This verifier's result equals that of `git verify-commit`, over a table of allowed signers.
#[test]
fn git_verify_commit_agrees() {
    let keys = KeyPairs::new();
    let key = keys.generate("dev", "ed25519", "256");
    keys.generate("other", "ed25519", "256");
    let work = Work::new();
    let commit = work.commit("signed", Some(&key));
    let allowed = keys.path("allowed");
    for (text, expected) in [
        (keys.line("dev", ""), true),
        (keys.line("other", ""), false),
        (keys.line("dev", "namespaces=\"file\""), false),
        (keys.line("dev", "namespaces=\"file,g?t\""), true),
        (keys.line("dev", "namespaces=\"*,!git\""), false),
        (
            keys.line("dev", "valid-after=\"20260601\",valid-before=\"20270101\""),
            true,
        ),
        (keys.line("dev", "valid-after=\"20260602\""), false),
        (keys.line("dev", "valid-before=\"20260601\""), false),
        (
            keys.line("dev", "valid-before=\"20260601\"")
                + &keys.line("dev", "valid-after=\"20260601\""),
            true,
        ),
        (keys.line("dev", "cert-authority"), false),
        (
            format!(
                "\"a@example.com,*@example.com\" {}",
                &keys.line("dev", "")[16..]
            ),
            true,
        ),
        (format!("!dev@example.com,{}", keys.line("dev", "")), false),
    ] {
        std::fs::write(&allowed, &text).unwrap();
        let git = Command::new("git")
            .current_dir(work.path())
            .args([
                "-c",
                &format!("gpg.ssh.allowedSignersFile={}", allowed.display()),
            ])
            .args(["verify-commit", commit.as_str()])
            .env("TZ", "UTC")
            .output()
            .unwrap();
        assert_eq!(
            git.status.success(),
            expected,
            "git on {text}: {}",
            String::from_utf8_lossy(&git.stderr)
        );
        let signers = AllowedSigners::parse(&text).unwrap();
        let verdict = verify(&work.repo(), &policy(Mode::Head, &signers), None, &commit).unwrap();
        assert_eq!(
            matches!(verdict, HeadVerdict::Trusted(_)),
            expected,
            "windlass on {text}"
        );
    }
}

#[test]
fn an_unsigned_commit_inside_the_range_is_named_also_under_a_signed_head() {
    let keys = KeyPairs::new();
    let key = keys.generate("dev", "ed25519", "256");
    let stranger = keys.generate("stranger", "ed25519", "256");
    let signers = keys.signers(&["dev"]);
    let work = Work::new();
    let base = work.commit("base", Some(&key));
    work.commit("sneaked in", None);
    work.commit("by a stranger", Some(&stranger));
    let head = work.commit("head", Some(&key));
    let offenders = vec![
        ("by a stranger".to_owned(), "unknown-key"),
        ("sneaked in".to_owned(), "unsigned"),
    ];
    for mode in [Mode::Mainline, Mode::All] {
        let verdict = verify(
            &work.repo(),
            &policy(mode, &signers),
            Some(&accepted(&base)),
            &head,
        )
        .unwrap();
        assert_eq!(refused(verdict), offenders);
    }
    let repo = work.repo();
    let judge_head = |mode| {
        verify(
            &repo,
            &policy(mode, &signers),
            Some(&accepted(&base)),
            &head,
        )
        .unwrap()
    };
    assert_eq!(signer(&judge_head(Mode::Head)), "dev@example.com");
    assert_eq!(signer(&judge_head(Mode::Off)), "nobody");
    // The very first head is judged by its own signature, too.
    assert_eq!(
        signer(&verify(&repo, &policy(Mode::All, &signers), None, &head).unwrap()),
        "dev@example.com"
    );
}

#[test]
fn a_signed_merge_vouches_for_what_it_merges_in_mainline_only() {
    let keys = KeyPairs::new();
    let key = keys.generate("dev", "ed25519", "256");
    let signers = keys.signers(&["dev"]);
    let work = Work::new();
    let base = work.commit("base", Some(&key));
    work.git(&["checkout", "-q", "-b", "topic"]);
    work.commit("unsigned topic", None);
    work.git(&["checkout", "-q", "main"]);
    let merge = work.merge("topic", Some(&key));
    let judge_with = |mode, head| {
        verify(
            &work.repo(),
            &policy(mode, &signers),
            Some(&accepted(&base)),
            head,
        )
        .unwrap()
    };
    assert_eq!(
        signer(&judge_with(Mode::Mainline, &merge)),
        "dev@example.com"
    );
    assert_eq!(
        refused(judge_with(Mode::All, &merge)),
        [("unsigned topic".to_owned(), "unsigned")]
    );

    work.git(&["checkout", "-q", "-b", "next"]);
    work.commit("more", Some(&key));
    work.git(&["checkout", "-q", "main"]);
    let unsigned_merge = work.merge("next", None);
    assert_eq!(
        refused(judge_with(Mode::Mainline, &unsigned_merge)),
        [("merge".to_owned(), "unsigned")]
    );
}

/// Git regards a foreign line that merges `verified` as its second parent as a fast-forward; the
/// commits on that line must not count as merged.
#[test]
fn where_verified_is_not_on_the_first_parent_line_all_are_judged() {
    let keys = KeyPairs::new();
    let key = keys.generate("dev", "ed25519", "256");
    let signers = keys.signers(&["dev"]);
    let work = Work::new();
    let root = work.commit("root", Some(&key));
    let verified = work.commit("verified", Some(&key));
    work.git(&["checkout", "-q", "-b", "foreign", root.as_str()]);
    work.git(&["checkout", "-q", "-b", "deep"]);
    work.commit("unsigned deep", None);
    work.git(&["checkout", "-q", "foreign"]);
    work.merge("deep", Some(&key));
    let head = work.merge("main", Some(&key));
    let verdict = verify(
        &work.repo(),
        &policy(Mode::Mainline, &signers),
        Some(&accepted(&verified)),
        &head,
    );
    assert_eq!(
        refused(verdict.unwrap()),
        [("unsigned deep".to_owned(), "unsigned")]
    );
}

#[test]
fn rewritten_and_moved_back_history_is_refused_unless_allowed() {
    let keys = KeyPairs::new();
    let key = keys.generate("dev", "ed25519", "256");
    let signers = keys.signers(&["dev"]);
    let work = Work::new();
    let root = work.commit("root", Some(&key));
    let verified = accepted(&work.commit("old line", Some(&key)));
    work.git(&["reset", "-q", "--hard", root.as_str()]);
    let rewritten = work.commit("new line", Some(&key));
    let repo = work.repo();
    for head in [&rewritten, &root] {
        let strict = policy(Mode::Mainline, &signers);
        let verdict = verify(&repo, &strict, Some(&verified), head).unwrap();
        assert_eq!(refused(verdict)[0].1, "rewritten");
        let lenient = Policy {
            allow_rewrite: true,
            ..strict
        };
        assert!(matches!(
            verify(&repo, &lenient, Some(&verified), head).unwrap(),
            HeadVerdict::Trusted(_)
        ));
        // The mode `off` checks no signature and still refuses to lose history.
        let off = policy(Mode::Off, &signers);
        assert_eq!(
            refused(verify(&repo, &off, Some(&verified), head).unwrap())[0].1,
            "rewritten"
        );
    }
    let lenient = Policy {
        allow_rewrite: true,
        ..policy(Mode::Mainline, &signers)
    };
    let unsigned = work.commit("unsigned", None);
    let verdict = verify(&repo, &lenient, Some(&verified), &unsigned).unwrap();
    assert_eq!(refused(verdict), [("unsigned".to_owned(), "unsigned")]);
}

#[test]
fn an_anchor_stands_in_for_the_first_verified_commit() {
    let keys = KeyPairs::new();
    let key = keys.generate("dev", "ed25519", "256");
    let signers = keys.signers(&["dev"]);
    let work = Work::new();
    work.commit("unsigned past", None);
    let anchor = work.commit("unsigned anchor", None);
    let repo = work.repo();
    let anchored = Policy {
        anchor: Some(&anchor),
        ..policy(Mode::All, &signers)
    };
    let at_anchor = verify(&repo, &anchored, None, &anchor).unwrap();
    assert_eq!(
        head_of(at_anchor),
        VerifiedCommit {
            id: anchor.clone(),
            grounds: Grounds::Anchor
        }
    );
    let head = work.commit("signed", Some(&key));
    assert_eq!(
        signer(&verify(&repo, &anchored, None, &head).unwrap()),
        "dev@example.com"
    );
    work.commit("unsigned", None);
    let head = work.commit("signed again", Some(&key));
    assert_eq!(
        refused(verify(&repo, &anchored, None, &head).unwrap())[0].0,
        "unsigned"
    );

    work.git(&["checkout", "-q", "--orphan", "elsewhere"]);
    let elsewhere = work.commit("elsewhere", Some(&key));
    assert_eq!(
        refused(verify(&repo, &anchored, None, &elsewhere).unwrap())[0].1,
        "not-from-anchor"
    );
}

#[test]
fn an_accepted_commit_is_not_judged_again_unless_it_was_accepted_unchecked() {
    let work = Work::new();
    let nobody = AllowedSigners::default();
    let id = work.commit("unsigned", None);
    let ask = |known: &VerifiedCommit, mode| {
        verify(&work.repo(), &policy(mode, &nobody), Some(known), &id).unwrap()
    };
    let signer = Signer {
        principal: "dev@example.com".to_owned(),
        fingerprint: "SHA256:gone".to_owned(),
    };
    let signed = VerifiedCommit {
        id: id.clone(),
        grounds: Grounds::Signature(signer),
    };
    // The key is in no file any more.
    assert_eq!(head_of(ask(&signed, Mode::All)), signed);
    let unchecked = accepted(&id);
    assert_eq!(head_of(ask(&unchecked, Mode::Off)), unchecked);
    for mode in [Mode::Mainline, Mode::All, Mode::Head] {
        assert_eq!(
            refused(ask(&unchecked, mode)),
            [("unsigned".to_owned(), "unsigned")]
        );
        // A former anchor is not trusted either.
        let anchored = VerifiedCommit {
            id: id.clone(),
            grounds: Grounds::Anchor,
        };
        assert_eq!(
            refused(ask(&anchored, mode)),
            [("unsigned".to_owned(), "unsigned")]
        );
    }
}

#[test]
fn what_was_judged_on_the_way_is_the_first_parent_line_and_nothing_that_was_merged() {
    let keys = KeyPairs::new();
    let key = keys.generate("dev", "ed25519", "256");
    let signers = keys.signers(&["dev"]);
    let work = Work::new();
    let base = work.commit("base", Some(&key));
    let second = work.commit("second", Some(&key));
    work.git(&["checkout", "-q", "-b", "side"]);
    work.commit("merged, signed", Some(&key));
    work.git(&["checkout", "-q", "main"]);
    let merge = work.merge("side", Some(&key));
    for (mode, expected) in [
        (Mode::Mainline, vec![&second, &merge]),
        (Mode::All, vec![&second, &merge]),
        (Mode::Head, vec![&merge]),
    ] {
        let verdict = verify(
            &work.repo(),
            &policy(mode, &signers),
            Some(&accepted(&base)),
            &merge,
        )
        .unwrap();
        let HeadVerdict::Trusted(accepted) = verdict else {
            panic!("refused")
        };
        assert_eq!(
            accepted
                .line
                .iter()
                .map(VerifiedCommit::id)
                .collect::<Vec<_>>(),
            expected,
            "{mode:?}"
        );
    }
}

#[test]
fn a_commit_changed_after_signing_is_refused() {
    let keys = KeyPairs::new();
    let key = keys.generate("dev", "ed25519", "256");
    let signers = keys.signers(&["dev"]);
    let work = Work::new();
    let signed = work.commit("pay one", Some(&key));
    let raw = work.git(&["cat-file", "commit", signed.as_str()]);
    let rewrite = |from: &str, to: &str| {
        work.write("raw", raw.replacen(from, to, 1) + "\n");
        CommitId::parse(&work.git(&["hash-object", "-t", "commit", "-w", "--literally", "raw"]))
            .unwrap()
    };
    let header = raw.find("gpgsig").unwrap();
    let block = &raw[header..=raw.find("SIGNATURE-----\n\n").unwrap() + 14];
    let again = format!("{block}{block}");
    let pgp = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n iQ==\n -----END PGP SIGNATURE-----\n";
    for (commit, expected) in [
        (rewrite("pay one", "pay two"), "bad-signature"),
        (rewrite(block, &again), "several-signatures"),
        (
            rewrite(block, &format!("gpgsig-sha256 x\n{block}")),
            "several-signatures",
        ),
        (rewrite(block, pgp), "unsupported-format"),
        (rewrite("gpgsig ", "gpgsig-sha256 "), "unsupported-format"),
        (rewrite("committer ", "comitter "), "malformed"),
    ] {
        let verdict = verify(&work.repo(), &policy(Mode::Head, &signers), None, &commit).unwrap();
        assert_eq!(refused(verdict)[0].1, expected);
    }
}

#[test]
fn an_object_that_does_not_hash_to_its_id_could_not_be_checked() {
    let keys = KeyPairs::new();
    let key = keys.generate("dev", "ed25519", "256");
    let signers = keys.signers(&["dev"]);
    let work = Work::new();
    let honest = work.commit("honest", Some(&key));
    let other = work.commit("other", Some(&key));
    let object = |id: &CommitId| {
        let (directory, file) = id.as_str().split_at(2);
        work.path().join(".git/objects").join(directory).join(file)
    };
    std::fs::remove_file(object(&honest)).unwrap();
    std::fs::copy(object(&other), object(&honest)).unwrap();
    let answer = verify(&work.repo(), &policy(Mode::Head, &signers), None, &honest);
    assert!(
        matches!(answer, Err(CouldNotCheck::Commit(CommitError::Read { .. }))),
        "{answer:?}"
    );
}

#[test]
fn offenders_are_listed_up_to_a_limit_and_then_counted() {
    let work = Work::new();
    let nobody = AllowedSigners::default();
    let base = work.commit("base", None);
    for number in 0..MAX_LISTED + 3 {
        work.commit(&format!("number {number}"), None);
    }
    let verdict = verify(
        &work.repo(),
        &policy(Mode::All, &nobody),
        Some(&accepted(&base)),
        &work.head(),
    )
    .unwrap();
    let HeadVerdict::Untrusted(refusals) = verdict else {
        panic!("trusted")
    };
    assert_eq!((refusals.listed.len(), refusals.unlisted), (MAX_LISTED, 3));
    assert!(refusals.to_string().ends_with("and 3 more commits"));
}

/// The refusals as people read them, with ids and fingerprints replaced by their kind.
#[test]
fn a_refusal_names_the_commit_the_reason_and_the_next_step() {
    let keys = KeyPairs::new();
    let work = Work::new();
    let mut messages = Vec::new();
    let mut show = |keys: &str, mode, verified: Option<&CommitId>, head: &CommitId| {
        let signers = AllowedSigners::parse(keys).unwrap();
        let verified = verified.map(accepted);
        let verdict = verify(
            &work.repo(),
            &policy(mode, &signers),
            verified.as_ref(),
            head,
        )
        .unwrap();
        let HeadVerdict::Untrusted(refusals) = verdict else {
            panic!("trusted {head}")
        };
        let words = refusals.to_string();
        let hide = |word: &str| match word {
            word if word.starts_with("SHA256:") => "KEY".to_owned(),
            word if word.len() >= 10
                && word
                    .trim_end_matches([',', ':'])
                    .bytes()
                    .all(|b| b.is_ascii_hexdigit()) =>
            {
                "ID".to_owned() + word.trim_start_matches(|c: char| c.is_ascii_hexdigit())
            }
            word => word.to_owned(),
        };
        messages.push(words.split(' ').map(hide).collect::<Vec<_>>().join(" "));
    };
    let dev = keys.generate("dev", "ed25519", "256");
    let root = work.commit("web: two replicas", None);
    show("", Mode::Mainline, None, &root);
    let signed = work.commit("web: three replicas", Some(&dev));
    show("", Mode::Mainline, None, &signed);
    show(
        &keys.line("dev", "valid-before=\"20260101\""),
        Mode::Mainline,
        None,
        &signed,
    );
    show(
        &keys.line("dev", "valid-before=\"202606011300\""),
        Mode::Mainline,
        None,
        &signed,
    );
    show(
        &keys.line("dev", "valid-after=\"20260701Z\""),
        Mode::Mainline,
        None,
        &signed,
    );
    show(
        &keys.line("dev", "namespaces=\"file\""),
        Mode::Mainline,
        None,
        &signed,
    );
    show(&keys.line("dev", ""), Mode::Mainline, Some(&signed), &root);
    let raw = work.git(&["cat-file", "commit", signed.as_str()]);
    work.write("raw", raw.replace("three", "ninety") + "\n");
    let tampered =
        CommitId::parse(&work.git(&["hash-object", "-t", "commit", "-w", "raw"])).unwrap();
    show(&keys.line("dev", ""), Mode::Mainline, None, &tampered);
    insta::assert_snapshot!(messages.join("\n"), @r#"
    commit ID "web: two replicas": it is not signed
    commit ID "web: three replicas": its key KEY is not in the allowed signers of this host
    commit ID "web: three replicas": its key KEY (dev@example.com) was valid until 2026-01-01T00:00:00Z, and was not at the commit's own time
    commit ID "web: three replicas": its key KEY (dev@example.com) was valid until 2026-06-01T13:00:00Z, and was not when this host first observed the commit
    commit ID "web: three replicas": its key KEY (dev@example.com) is valid only after 2026-07-01T00:00:00Z, and was not at the commit's own time
    commit ID "web: three replicas": its key KEY is allowed for the namespaces "file", which do not hold "git"
    commit ID "web: two replicas": it does not descend from ID, the last verified commit: history was rewritten or moved back; push a commit on top of that one, or set allow-rewrite
    commit ID "web: ninety replicas": its signature does not fit its content: the commit was changed after signing, or the key is not the one named
    "#);
}
