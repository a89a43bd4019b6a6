//! `windlass rollback --local`: this host alone goes back to an earlier commit, with or without the
//! store.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use reconciler::{
    commit::Commit,
    detour::Detour,
    name::CommitPrefix,
    observed::Observed,
    state::{ClusterState, NodeReport},
};

use super::{Host, removed::farewell};
use crate::{
    command::{CommandError, CommandResult},
    state_file::{self, StateFileError},
    view::{HostNote, HostTrouble, Part},
};

const SCHEMA: u32 = 1;

/// `detour.json` in the data directory; the file exists only during a detour.
#[derive(Debug)]
pub(crate) struct DetourFile {
    path: PathBuf,
    saved: Option<Detour>,
    current: Option<Detour>,
}

impl DetourFile {
    /// Reads `detour.json`; no file means no detour.
    pub(crate) fn open(data: &Path) -> Result<Self, StateFileError> {
        let path = data.join("detour.json");
        let saved: Option<Detour> = state_file::read(&path, SCHEMA)?;
        Ok(Self {
            path,
            current: saved.clone(),
            saved,
        })
    }

    /// The detour under way, if there is one.
    pub(super) fn current(&self) -> Option<&Detour> {
        self.current.as_ref()
    }

    fn save(&mut self) -> Result<(), StateFileError> {
        if self.current == self.saved {
            return Ok(());
        }
        match &self.current {
            Some(detour) => state_file::write(&self.path, SCHEMA, detour)?,
            None => state_file::remove(&self.path)?,
        }
        self.saved.clone_from(&self.current);
        Ok(())
    }
}

impl Host {
    /// The commit of the detour, if that commit could be read.
    fn detour_commit(&self) -> Option<&Commit> {
        let detour = self.detour.current()?;
        self.knowledge
            .commit_cache
            .commits()
            .get(&detour.commit)
            .map(AsRef::as_ref)
    }

    /// The state that this host acts on during a detour, or after it was removed from the cluster.
    pub(super) fn own_state(&self, now: Timestamp, observed: &Observed) -> Option<ClusterState> {
        if self
            .store
            .replicated()
            .is_some_and(|store| store.was_removed())
        {
            return Some(farewell(
                self.store.snapshot(),
                &self.fixed.facts.name,
                observed,
                now,
            ));
        }
        let detour = self.detour.current()?;
        Some(detour.state(
            self.store.snapshot(),
            &self.fixed.facts.name,
            self.detour_commit(),
        ))
    }

    /// Continues the detour after a plan, and reports its pods as the other hosts know them. True
    /// if there is more to plan.
    pub(super) fn go_on_with_detour(&mut self, report: NodeReport) -> bool {
        let Some(before) = self.detour.current.clone() else {
            self.reporter.report = report;
            return false;
        };
        let mut detour = before.clone();
        detour.advance(
            self.store.snapshot(),
            &self.fixed.facts.name,
            self.detour_commit(),
            &report.gone,
        );
        self.reporter.report = detour.report(self.store.snapshot(), report);
        self.detour.current = (!detour.is_over()).then_some(detour);
        let saved = self.detour.save();
        self.note(Part::Detour, saved.map_err(HostTrouble::failed));
        self.detour.current.as_ref() != Some(&before)
    }

    /// Goes back to an earlier commit on this host alone: writes `detour.json`.
    pub(super) fn set_out(
        &mut self,
        wanted: Option<CommitPrefix>,
        now: Timestamp,
    ) -> CommandResult {
        let rollout = self.store.snapshot().rollout.clone();
        let to = self.rollback_target(&rollout, wanted)?;
        match &mut self.detour.current {
            Some(detour) => detour.turn(to.clone(), now),
            none => *none = Some(Detour::to(to.clone(), now)),
        }
        self.detour.save().map_err(anyhow::Error::from)?;
        tracing::warn!(commit = to.short(), "this host goes back by itself");
        Ok(format!(
            "this host alone goes back to {}, whatever the cluster decides; `windlass resume --local` ends that",
            to.short()
        ))
    }

    /// Ends the detour: this host follows the cluster's decisions again.
    pub(super) fn return_from_detour(&mut self) -> CommandResult {
        let Some(detour) = &mut self.detour.current else {
            return Err(CommandError::NoDetour);
        };
        detour.ended = true;
        self.detour.save().map_err(anyhow::Error::from)?;
        Ok("this host runs what the cluster decides again".to_owned())
    }

    /// The note that `status` shows during a detour.
    pub(super) fn detour_note(&self) -> Option<HostNote> {
        let detour = self.detour.current()?;
        // A detour that has ended is only kept until its pods are gone.
        if detour.ended {
            return None;
        }
        Some(HostNote::Detour {
            commit: detour.commit.clone(),
            since: detour.since,
        })
    }
}
