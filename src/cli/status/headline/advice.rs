//! What to do about a commit that does not run.

use reconciler::{fault::FaultKind, name::CommitId};

use crate::http::report::CrashingContainer;
use crate::view::{FailedPull, INVALID_MANIFESTS, RefusedCommit, SourceStatus};

/// What corrects a refused commit: a sentence, and commands that follow it.
pub(super) fn refused(refusal: &RefusedCommit, source: &SourceStatus) -> Vec<String> {
    let first = match refusal.class.as_str() {
        "unsigned" => "sign it in place; it was never accepted, so it may be replaced:",
        "unknown-key" | "key-not-allowed" => {
            "sign with a listed key, or add the key to the allowed signers of the hosts:"
        }
        "unsupported-format" | "bad-signature" | "several-signatures" => {
            "sign it again with an SSH key (git config gpg.format ssh):"
        }
        "rewritten" => return rewritten(source),
        INVALID_MANIFESTS => {
            return vec![
                "correct the manifests, `windlass check` them, push a new commit".to_owned(),
            ];
        }
        _ => return Vec::new(),
    };

    let mut advice = Vec::new();
    // In these modes every new commit of the branch is judged. Without a verified commit only the
    // head is, unless there is an anchor.
    if matches!(source.verification.as_str(), "mainline" | "all") && source.verified.is_some() {
        advice.push("a signed commit on top of it does not help".to_owned());
    }
    advice.push(first.to_owned());
    advice.push(sign(refusal, source));
    advice.push("git push --force-with-lease".to_owned());
    advice
}

/// What corrects a head that does not descend from the verified commit.
fn rewritten(source: &SourceStatus) -> Vec<String> {
    let Some(verified) = &source.verified else {
        return Vec::new();
    };
    vec![
        "put its content into a new commit on top of the last verified one:".to_owned(),
        format!("git reset --soft {} && git commit -S", verified.short()),
        "git push --force-with-lease".to_owned(),
        "`allow-rewrite` of [trust] in the configuration accepts a rewritten branch".to_owned(),
    ]
}

/// What takes a commit back that deletes too much, and what approves it.
pub(super) fn held() -> Vec<String> {
    [
        "take it back:",
        "git revert -S --no-edit HEAD && git push",
        "or approve it by a new commit; it is accepted already, so do not amend it:",
        "git commit -S --allow-empty -m OK -m 'Windlass-Allow-Deletions: yes'",
        "git push",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The command that signs all commits that the refusal names.
fn sign(refusal: &RefusedCommit, source: &SourceStatus) -> String {
    let amend = "git commit --amend --no-edit -S";
    let is_only_head = match refusal.problems.as_slice() {
        [only] => only.contains(refusal.commit.short()),
        _ => false,
    };
    match &source.verified {
        Some(verified) if !is_only_head => {
            format!("git rebase --exec '{amend}' {}", verified.short())
        }
        _ => amend.to_owned(),
    }
}

/// What corrects a commit that has failed.
pub(super) fn failed(commit: &CommitId) -> Vec<String> {
    vec![
        "correct it and push a new commit, or try the same commit again:".to_owned(),
        format!("windlass retry {}", commit.short()),
    ]
}

/// What shows why a container exits again and again.
pub(super) fn crashing(container: Option<&CrashingContainer>) -> Vec<String> {
    let Some(CrashingContainer {
        namespace,
        pod,
        container,
    }) = container
    else {
        return Vec::new();
    };
    let namespace = match namespace.as_str() {
        "default" => String::new(),
        other => format!(" -n {other}"),
    };
    vec![format!(
        "windlass logs{namespace} {pod} -c {container} --previous"
    )]
}

/// What ends the waiting for images.
pub(super) fn waiting(pulls: &[FailedPull]) -> Vec<String> {
    let has = |kind| pulls.iter().any(|pull| pull.fault == kind);
    let mut advice = Vec::new();
    if has(FaultKind::RegistryDenied) {
        advice.push(
            "correct `[[docker.registries]]` in the configuration, and restart the daemon"
                .to_owned(),
        );
    }
    if has(FaultKind::RegistryUnreachable) {
        advice.push(
            "check the image's name, the network and the registry; the rollout goes on by itself \
             when the registry answers, and a newer commit ends the waiting"
                .to_owned(),
        );
    }
    advice
}
