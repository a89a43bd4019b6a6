#![expect(clippy::unwrap_used, reason = "a test")]

use std::path::PathBuf;

use super::super::allowed_signers::AllowedSigners;
use super::super::testing::{KeyPairs, Work};
use super::super::verify::{HeadVerdict, verify};
use super::*;
use crate::ids::commit_id;

const HISTORY: usize = 10;

/// A repository, a key, and the trust state of a host.
struct Bench {
    keys: KeyPairs,
    work: Work,
    key: PathBuf,
    mode: Mode,
    anchor: Option<CommitId>,
    allow_rewrite: bool,
    signers: AllowedSigners,
}

impl Bench {
    fn new() -> Self {
        let keys = KeyPairs::new();
        let key = keys.generate("dev", "ed25519", "256");
        let signers = keys.signers(&["dev"]);
        Self {
            keys,
            work: Work::new(),
            key,
            mode: Mode::Mainline,
            anchor: None,
            allow_rewrite: false,
            signers,
        }
    }

    fn signed(&self, message: &str) -> CommitId {
        self.work.commit(message, Some(&self.key))
    }

    fn policy(&self) -> Policy<'_> {
        Policy {
            mode: self.mode,
            signers: &self.signers,
            anchor: self.anchor.as_ref(),
            allow_rewrite: self.allow_rewrite,
            now: "2026-06-02T00:00:00Z".parse().unwrap(),
        }
    }

    /// The head, as a host accepts it that has accepted `before`.
    #[track_caller]
    fn accept(&self, before: Option<&VerifiedCommit>, head: &CommitId) -> VerifiedCommit {
        match verify(&self.work.repo(), &self.policy(), before, head).unwrap() {
            HeadVerdict::Trusted(accepted) => accepted.head,
            HeadVerdict::Untrusted(refusals) => panic!("refused: {refusals}"),
        }
    }

    fn ask(&self, verified: &VerifiedCommit, id: &CommitId) -> Result<Grounds, Ineligible> {
        self.ask_knowing(None, verified, id)
    }

    fn ask_knowing(
        &self,
        known: Option<&VerifiedCommit>,
        verified: &VerifiedCommit,
        id: &CommitId,
    ) -> Result<Grounds, Ineligible> {
        let repo = self.work.repo();
        let answer = eligible(&repo, &self.policy(), known, Some(verified), HISTORY, id).unwrap();
        answer.map(|commit| commit.grounds().clone())
    }
}

#[track_caller]
fn unsigned(answer: Result<Grounds, Ineligible>) {
    let why = answer.unwrap_err().to_string();
    assert!(why.contains("it is not signed"), "{why}");
}

#[track_caller]
fn signed(answer: Result<Grounds, Ineligible>) {
    assert!(matches!(answer, Ok(Grounds::Signature(_))), "{answer:?}");
}

#[test]
fn an_unsigned_ancestor_of_an_accepted_commit_is_not_eligible_in_any_mode_that_checks() {
    let mut bench = Bench::new();
    let root = bench.signed("root");
    let unsigned_one = bench.work.commit("unsigned", None);
    let head = bench.signed("signed on top");
    for mode in [Mode::Mainline, Mode::All, Mode::Head] {
        bench.mode = mode;
        // A new host accepts the head by its own signature.
        let verified = bench.accept(None, &head);
        unsigned(bench.ask(&verified, &unsigned_one));
        signed(bench.ask(&verified, &root));
        signed(bench.ask(&verified, &head));
    }
}

#[test]
fn a_branch_that_a_merge_brought_in_is_not_eligible_where_it_later_becomes_the_first_parent_line() {
    let bench = Bench::new();
    let root = bench.signed("root");
    bench.work.git(&["checkout", "-q", "-b", "side"]);
    let side = bench.work.commit("unsigned, on the side", None);
    bench.work.git(&["checkout", "-q", "main"]);
    let merge = bench.work.merge("side", Some(&bench.key));
    let first = bench.accept(Some(&bench.accept(None, &root)), &merge);
    bench.work.git(&["checkout", "-q", "side"]);
    bench.signed("signed, on the side");
    let head = bench.work.merge("main", Some(&bench.key));
    let verified = bench.accept(Some(&first), &head);
    let line = bench
        .work
        .git(&["rev-list", "--first-parent", head.as_str()]);
    assert!(
        line.contains(side.as_str()),
        "the side lies on the first-parent line now"
    );
    unsigned(bench.ask(&verified, &side));
}

#[test]
fn only_the_first_parent_line_within_history_counts() {
    let bench = Bench::new();
    let oldest = bench.signed("oldest");
    for number in 0..HISTORY {
        bench.signed(&number.to_string());
    }
    bench.work.git(&["checkout", "-q", "-b", "side"]);
    let merged = bench.signed("merged");
    bench.work.git(&["checkout", "-q", "main"]);
    let second = bench.work.merge("side", Some(&bench.key));
    let verified = bench.accept(None, &second);
    for id in [&oldest, &merged, &commit_id("f")] {
        let why = bench.ask(&verified, id).unwrap_err();
        assert_eq!(
            why,
            Ineligible::OffTheLine {
                verified: second.clone(),
                history: HISTORY
            }
        );
    }
    let parent = CommitId::parse(&bench.work.git(&["rev-parse", &format!("{second}^")])).unwrap();
    signed(bench.ask(&verified, &parent));
}

#[test]
fn the_anchor_is_eligible_and_nothing_before_it() {
    let mut bench = Bench::new();
    let signed_before = bench.signed("signed, before the anchor");
    let before = bench.work.commit("unsigned, before the anchor", None);
    let anchor = bench.work.commit("unsigned anchor", None);
    bench.anchor = Some(anchor.clone());
    let at_anchor = bench.accept(None, &anchor);
    assert_eq!(bench.ask(&at_anchor, &anchor), Ok(Grounds::Anchor));
    let after = bench.signed("after");
    let head = bench.signed("head");
    let verified = bench.accept(None, &head);
    assert_eq!(bench.ask(&verified, &anchor), Ok(Grounds::Anchor));
    signed(bench.ask(&verified, &after));
    for id in [&before, &signed_before] {
        let refused = Ineligible::BeforeAnchor {
            anchor: anchor.clone(),
        };
        assert_eq!(bench.ask(&verified, id), Err(refused.clone()));
        assert_eq!(bench.ask(&at_anchor, id), Err(refused.clone()));
        // Also if the anchor was set after this host had judged the commit.
        let known = VerifiedCommit::new(id.clone(), Grounds::ModeOff);
        assert_eq!(bench.ask_knowing(Some(&known), &verified, id), Err(refused));
    }
}

#[test]
fn a_key_that_was_withdrawn_takes_nothing_out_of_the_trusted_set_and_brings_nothing_in() {
    let mut bench = Bench::new();
    let old = bench.signed("by a key that goes");
    let known = bench.accept(None, &old);
    bench.keys.generate("new", "ed25519", "256");
    let head = bench
        .work
        .commit("by a new key", Some(&bench.keys.path("new")));
    bench.signers = bench.keys.signers(&["new"]);
    let verified = bench.accept(Some(&known), &head);
    signed(bench.ask_knowing(Some(&known), &verified, &old));
    let why = bench.ask(&verified, &old).unwrap_err().to_string();
    assert!(
        why.contains("is not in the allowed signers of this host"),
        "{why}"
    );
}

#[test]
fn what_was_accepted_while_nothing_was_checked_counts_only_then() {
    let mut bench = Bench::new();
    bench.mode = Mode::Off;
    let old = bench.work.commit("unsigned", None);
    let known = bench.accept(None, &old);
    let head = bench.work.commit("unsigned too", None);
    let verified = bench.accept(Some(&known), &head);
    assert_eq!(bench.ask(&verified, &old), Ok(Grounds::ModeOff));
    bench.mode = Mode::Mainline;
    for id in [&old, &head] {
        let known = VerifiedCommit::new(id.clone(), Grounds::ModeOff);
        unsigned(bench.ask_knowing(Some(&known), &verified, id));
    }
    // A signed commit on top is accepted and may run; the commits below it may not.
    let signed_head = bench.signed("signed");
    let verified = bench.accept(Some(&verified), &signed_head);
    signed(bench.ask(&verified, &signed_head));
    unsigned(bench.ask(&verified, &head));
}

#[test]
fn a_rewritten_branch_may_go_back_to_what_this_host_had_judged() {
    let mut bench = Bench::new();
    bench.allow_rewrite = true;
    let root = bench.signed("root");
    let lost = bench.signed("lost by the rewrite");
    let known = bench.accept(None, &lost);
    bench.work.git(&["reset", "-q", "--hard", root.as_str()]);
    let head = bench.signed("in its place");
    let verified = bench.accept(Some(&known), &head);
    signed(bench.ask_knowing(Some(&known), &verified, &lost));
    // A host that never judged the commit may not run it.
    let off_the_line = Ineligible::OffTheLine {
        verified: head,
        history: HISTORY,
    };
    assert_eq!(bench.ask(&verified, &lost), Err(off_the_line));
}

#[test]
fn a_host_that_has_accepted_nothing_runs_nothing() {
    let bench = Bench::new();
    let head = bench.signed("head");
    let answer = eligible(
        &bench.work.repo(),
        &bench.policy(),
        None,
        None,
        HISTORY,
        &head,
    )
    .unwrap();
    assert_eq!(answer, Err(Ineligible::NothingAccepted));
}
