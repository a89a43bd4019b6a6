#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;

use super::mirror::Mirror;
use super::snapshot::{Readable, Snapshot, SnapshotLimits};
use super::testing::{KeyPairs, Work, bring, request};
use super::verify::{HeadVerdict, Mode, Policy, VerifiedCommit, verify};
use crate::trust::TrustStore;

/// Two pushes through all stages, with everything between the stages read back from disk.
#[test]
fn a_signed_push_becomes_a_snapshot_and_an_unsigned_one_changes_nothing() {
    let (keys, work, data) = (KeyPairs::new(), Work::new(), tempfile::tempdir().unwrap());
    let key = keys.generate("dev", "ed25519", "256");
    let signers = keys.signers(&["dev"]);
    let at = data.path().join("mirror.git");
    let cycle = || -> Result<VerifiedCommit, String> {
        let mut trust = TrustStore::open(&data.path().join("trust")).unwrap();
        let fetched = bring(&request(work.path().to_str().unwrap(), &at)).unwrap();
        let policy = Policy {
            mode: Mode::Mainline,
            signers: &signers,
            anchor: None,
            allow_rewrite: false,
            now: "2026-06-02T00:00:00Z".parse().unwrap(),
        };
        let repo = Mirror::new(&at).open().unwrap();
        let verified = trust.pointers().verified.clone();
        match verify(&repo, &policy, verified.as_ref(), &fetched.head).unwrap() {
            HeadVerdict::Trusted(accepted) => {
                trust.advance(&accepted, policy.now).unwrap();
                Mirror::new(&at).pin(&trust.pointers().commits()).unwrap();
                Ok(accepted.head)
            }
            HeadVerdict::Untrusted(refusals) => Err(refusals.to_string()),
        }
    };

    work.write("web.yaml", "kind: Pod");
    let first = work.commit("one", Some(&key));
    let commit = cycle().unwrap();
    assert_eq!(commit.signer().unwrap().principal, "dev@example.com");
    let take = |commit: &VerifiedCommit| {
        let repo = Mirror::new(&at).open().unwrap();
        Snapshot::read(
            &repo,
            &Readable::Eligible(commit),
            &[],
            &SnapshotLimits::default(),
        )
        .unwrap()
    };
    assert_eq!(take(&commit).files()[0].bytes, b"kind: Pod");

    work.write("web.yaml", "kind: Evil");
    work.commit("two", None);
    assert!(cycle().unwrap_err().contains("it is not signed"));
    let trust = TrustStore::open(&data.path().join("trust")).unwrap();
    assert_eq!(trust.pointers().commits(), BTreeSet::from([first.clone()]));
    let commit = &trust.trusted().get(&first).unwrap().commit;
    assert_eq!(take(commit).files()[0].bytes, b"kind: Pod");
}
