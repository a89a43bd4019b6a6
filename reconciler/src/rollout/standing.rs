//! Where a commit stands in the rollout: it is the target, or something keeps the leader from taking
//! it.

use std::fmt;

use super::head::over_budget;
use crate::{
    commit::Commit,
    name::CommitId,
    settings::RolloutSettings,
    state::{CommitReason, FailureReason, Phase, Rollout, Stored},
};

/// Where a commit stands in the rollout.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// The commit is the target, in this phase.
    Target(Phase),
    /// The commit deletes more than the budget allows.
    Held(CommitReason),
    /// The commit failed before and is not tried again.
    Failed(Stored<FailureReason>),
    /// No new commit is taken.
    Suspended,
    /// A manual rollback has left the commit.
    LeftByRollback,
    /// The commit that runs cannot be read, so the deletions of the commit are unknown.
    Uncompared(CommitId),
}

/// Where a commit stands. `before` is the commit that the controllers follow, if it can be read.
/// Empty for a commit that is neither the target nor the head: only a rollback can go there.
pub fn standings(
    settings: &RolloutSettings,
    rollout: &Rollout,
    before: Option<&Commit>,
    commit: &Commit,
    is_head: bool,
) -> Vec<Standing> {
    if rollout.target.as_ref() == Some(&commit.id) {
        return vec![Standing::Target(rollout.phase.clone())];
    }
    let failed = rollout.bad.get(&commit.id).cloned().map(Standing::Failed);
    let mut standings: Vec<Standing> = failed.into_iter().collect();
    if !is_head {
        return standings;
    }
    match (&rollout.driving, before) {
        (_, Some(before)) => {
            standings.extend(over_budget(settings, before, commit).map(Standing::Held));
        }
        (Some(driving), None) => standings.push(Standing::Uncompared(driving.clone())),
        (None, None) => {}
    }
    if rollout.suspended {
        standings.push(Standing::Suspended);
    }
    if rollout.pinned_against.as_ref() == Some(&commit.id) {
        standings.push(Standing::LeftByRollback);
    }
    standings
}

impl Standing {
    /// The standing as one word for people.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Target(phase) => phase.as_str(),
            Self::Held(_) => "Held",
            Self::Failed(_) => "Failed",
            Self::Suspended => "Suspended",
            Self::LeftByRollback => "RolledBack",
            Self::Uncompared(_) => "Waiting",
        }
    }

    /// Whether the commit is not rolled out as long as it stands so.
    pub fn keeps_back(&self) -> bool {
        !matches!(self, Self::Target(_))
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(phase) => f.write_str(&phase.message()),
            Self::Held(reason) => reason.fmt(f),
            Self::Failed(reason) => {
                write!(f, "{reason}; `windlass retry` tries the push a new commit")
            }
            Self::Suspended => {
                f.write_str("no new commit is rolled out: `windlass resume` ends that")
            }
            Self::LeftByRollback => f.write_str(
                "a manual rollback has left this commit: `windlass resume` or a newer commit ends that",
            ),
            Self::Uncompared(commit) => write!(
                f,
                "commit {} runs and cannot be read, so what a new commit deletes is not known: see \
                 `windlass status`",
                commit.short()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{desired, ids::commit_id};

    fn pods(names: &[&str]) -> String {
        let pod = |name| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, \
                 image: 'app:1'}}]}}\n---\n"
            )
        };
        names.iter().map(pod).collect()
    }

    fn printed(rollout: &Rollout, before: Option<&Commit>, commit: &Commit) -> String {
        let settings = RolloutSettings::default();
        let standings = standings(&settings, rollout, before, commit, true);
        let lines = standings
            .iter()
            .map(|standing| format!("{}: {standing}", standing.as_str()));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn everything_that_keeps_a_head_back_is_named() {
        let before = desired::tests::commit("c1", &pods(&["a", "b", "c", "d"]));
        let head = desired::tests::commit("c2", &pods(&["a"]));
        let mut rollout = Rollout {
            driving: Some(before.id.clone()),
            target: Some(before.id.clone()),
            suspended: true,
            pinned_against: Some(head.id.clone()),
            ..Rollout::default()
        };
        rollout
            .bad
            .insert(head.id.clone(), FailureReason::Asked.into());
        insta::assert_snapshot!(printed(&rollout, Some(&before), &head), @r"
        Failed: asked for by `windlass rollback`; `windlass retry` tries the push a new commit
        Held: it would delete 3 of 4 workloads (Pod/default/b, Pod/default/c, Pod/default/d), the budget is 1: if that is meant, push a new commit with the trailer `Windlass-Allow-Deletions: yes`
        Suspended: no new commit is rolled out: `windlass resume` ends that
        RolledBack: a manual rollback has left this commit: `windlass resume` or a newer commit ends that
        ");
        insta::assert_snapshot!(printed(&rollout, None, &head), @r"
        Failed: asked for by `windlass rollback`; `windlass retry` tries the push a new commit
        Waiting: commit c1c1c1c1c1 runs and cannot be read, so what a new commit deletes is not known: see `windlass status`
        Suspended: no new commit is rolled out: `windlass resume` ends that
        RolledBack: a manual rollback has left this commit: `windlass resume` or a newer commit ends that
        ");

        rollout.target = Some(head.id.clone());
        rollout.phase = Phase::preparing();
        insta::assert_snapshot!(printed(&rollout, Some(&before), &head), @"Preparing: looking at its images");
    }

    #[test]
    fn a_head_within_the_budget_and_an_earlier_commit_are_not_kept_back() {
        let before = desired::tests::commit("c1", &pods(&["a", "b", "c", "d"]));
        let head = desired::tests::commit("c2", &pods(&["a", "b", "c"]));
        let settings = RolloutSettings::default();
        let rollout = Rollout {
            driving: Some(commit_id("c1")),
            ..Rollout::default()
        };
        assert_eq!(printed(&rollout, Some(&before), &head), "");
        let few = desired::tests::commit("c0", &pods(&["a"]));
        assert_eq!(
            standings(&settings, &rollout, Some(&before), &few, false),
            Vec::new()
        );
    }
}
