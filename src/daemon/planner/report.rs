//! The plan for a commit that was read, from one view.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use reconciler::{
    cluster::ClusterInput,
    commit::{Commit, Commits},
    difference::{Unread, differences},
    forecast::{Forecast, forecast},
    foreign,
    name::{CommitId, NodeName},
    object::Objects,
    rollout::{Head, Standing, standings},
    settings::ClusterSettings,
    state::NodeReport,
};

use crate::{
    commit_cache::BadContent,
    http::plan::{PlanReport, PlanStanding, PodsPlan},
    view::View,
};

/// A commit that was refused for its content.
pub(super) struct RefusedContent {
    pub(super) id: CommitId,
    pub(super) subject: String,
    pub(super) problems: Vec<String>,
    /// What could be read of the commit.
    pub(super) content: Option<Box<BadContent>>,
}

/// The plan for a commit that may run.
pub(super) fn of_good(
    view: &View,
    commit: &Arc<Commit>,
    settings: &ClusterSettings,
    is_head: bool,
) -> PlanReport {
    let rollout = &view.state.rollout;
    let driving = rollout.driving.as_ref().and_then(|id| view.commits.get(id));
    let mut standings = standings(
        &settings.rollout,
        rollout,
        driving.map(AsRef::as_ref),
        commit,
        is_head,
    );

    let compared_with = compared_with(view, &commit.id);
    let before = content(view, compared_with.as_ref());
    if let (Some(id), None) = (&compared_with, &before)
        && !standings.contains(&Standing::Uncompared(id.clone()))
    {
        standings.push(Standing::Uncompared(id.clone()));
    }
    let objects = before.map_or_else(Vec::new, |before| {
        differences(before, &commit.objects, &Unread::default())
    });

    PlanReport {
        commit: Some(commit.id.clone()),
        subject: commit.subject.clone(),
        compared_with,
        standings: standings.iter().map(standing).collect(),
        objects,
        pods: Some(pods(&forecast_of(view, commit, settings))),
        lanes: Vec::new(),
    }
}

/// The plan for a commit that is refused for its content: what it would change, and no pods.
pub(super) fn of_refused(view: &View, refused: RefusedContent) -> PlanReport {
    let compared_with = compared_with(view, &refused.id);
    let before = content(view, compared_with.as_ref());
    let objects = match (before, &refused.content) {
        (Some(before), Some(after)) => differences(before, &after.objects, &after.unread),
        _ => Vec::new(),
    };
    let standing = PlanStanding {
        state: "Refused".to_owned(),
        reason: "it has errors, and is not rolled out".to_owned(),
        keeps_back: true,
        problems: refused.problems,
    };
    PlanReport {
        commit: Some(refused.id),
        subject: refused.subject,
        compared_with,
        standings: vec![standing],
        objects,
        pods: None,
        lanes: Vec::new(),
    }
}

/// Replaces the values of Secrets by those that run, so that nobody who may read learns by trying
/// whether a value is the one that runs.
pub(super) fn take_running_secrets(view: &View, objects: &mut Objects) {
    let Some(running) = content(view, view.state.rollout.driving.as_ref()) else {
        objects.secrets.clear();
        return;
    };
    for (key, secret) in &mut objects.secrets {
        let Some(running) = running.secrets.get(key) else {
            continue;
        };
        for (name, value) in &mut secret.data {
            if let Some(running) = running.data.get(name) {
                value.clone_from(running);
            }
        }
    }
}

/// The commit that runs before a commit: the one that the controllers follow, or, where they follow
/// this commit already, the one that they followed before it.
fn compared_with(view: &View, id: &CommitId) -> Option<CommitId> {
    let rollout = &view.state.rollout;
    if rollout.driving.as_ref() != Some(id) {
        return rollout.driving.clone();
    }
    Some(rollout.base().unwrap_or_else(|| id.clone()))
}

/// The objects of the commit that runs before; those of no commit are none.
fn content<'v>(view: &'v View, id: Option<&CommitId>) -> Option<&'v Objects> {
    static NOTHING: std::sync::LazyLock<Objects> = std::sync::LazyLock::new(Objects::default);
    match id {
        None => Some(&NOTHING),
        Some(id) => view.commits.get(id).map(|commit| &commit.objects),
    }
}

fn standing(standing: &Standing) -> PlanStanding {
    PlanStanding {
        state: standing.as_str().to_owned(),
        reason: printable(standing),
        keeps_back: standing.keeps_back(),
        problems: Vec::new(),
    }
}

fn forecast_of(view: &View, commit: &Arc<Commit>, settings: &ClusterSettings) -> Forecast {
    let is_kept = |id: &CommitId| view.ineligible.contains_key(id);
    let (kept, mut commits): (Commits, Commits) = view
        .commits
        .clone()
        .into_iter()
        .partition(|(id, _)| is_kept(id));
    commits.insert(commit.id.clone(), Arc::clone(commit));

    let input = ClusterInput {
        now: Timestamp::now(),
        settings,
        state: &view.state,
        head: &Head::Unknown,
        commits: &commits,
        kept: &kept,
        nodes: &view.nodes,
        reports: &reports(view),
    };
    forecast(&input, commit)
}

/// The reports of the nodes: each reports only its own pods, and a node without pods needs no
/// report.
fn reports(view: &View) -> BTreeMap<NodeName, NodeReport> {
    let mut reports: BTreeMap<NodeName, NodeReport> = view
        .nodes
        .keys()
        .map(|node| (node.clone(), NodeReport::default()))
        .collect();
    for (uid, status) in view.pods.iter() {
        let record = view.state.pods.get(uid);
        let node = record.and_then(|record| record.place.node());
        if let Some(report) = node.and_then(|node| reports.get_mut(node)) {
            report.pods.insert(uid.clone(), status.clone());
        }
    }
    reports
}

fn pods(forecast: &Forecast) -> PodsPlan {
    let paces = forecast.paces.iter();
    let held = forecast.held.iter().map(printable);
    PodsPlan {
        paces: paces
            .map(|(workload, pace)| format!("{workload}: {pace}"))
            .collect(),
        rounds: forecast
            .rounds
            .iter()
            .map(|steps| steps.iter().map(printable).collect())
            .collect(),
        end: printable(&forecast.end),
        notes: held.chain(forecast.notes.iter().map(printable)).collect(),
    }
}

/// A sentence that is safe to print: a name in it may come from another host or from the store.
fn printable(sentence: &impl ToString) -> String {
    foreign::escape(&sentence.to_string()).into_owned()
}
