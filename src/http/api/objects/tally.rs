//! The numbers of a workload's pods, which the `status` of workloads shows.

use std::time::Duration;

use reconciler::{name::TemplateHash, object::Workload, state::PodRecord};

use super::ObjectSource;

/// The numbers of a workload's pods by their state.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) total: u32,
    pub(super) updated: u32,
    pub(super) ready: u32,
    pub(super) available: u32,
}

impl Tally {
    /// Counts pods that are not stopping.
    pub(super) fn of<'a>(
        source: &ObjectSource<'_>,
        records: impl Iterator<Item = &'a PodRecord>,
        template: &TemplateHash,
        min_ready: Duration,
    ) -> Self {
        let mut tally = Self::default();
        for record in records {
            let status = source.view.pods.get(&record.uid);
            tally.total += 1;
            tally.updated += u32::from(record.template == *template);
            tally.ready += u32::from(status.is_some_and(|status| status.ready.is_some()));
            tally.available += u32::from(status.is_some_and(|status| status.available(min_ready)));
        }
        tally
    }

    /// Counts the pods of a workload of the driving commit.
    pub(super) fn of_workload(source: &ObjectSource<'_>, workload: &Workload) -> Self {
        let pods = source.pods_of(&workload.key);
        let min_ready = workload.control.min_ready();
        Self::of(source, pods, &workload.template.hash, min_ready)
    }
}
