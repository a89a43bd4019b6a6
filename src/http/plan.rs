//! `/windlass/v1/plan`: what a commit changes in the cluster, and what this host does now.

use std::{fmt, sync::Arc};

use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
};
use futures_util::future::BoxFuture;
use reconciler::{difference::ObjectDifference, foreign::ForeignText, name::CommitId};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::task::JoinError;

use super::{HttpContext, windlass::message};
use crate::{source::eligible::Ineligible, view::LaneView};

/// `/windlass/v1/plan`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PlanReport {
    /// The commit of the plan; absent if there is no target.
    pub commit: Option<CommitId>,
    /// The first line of the commit's message; empty if it is not known.
    #[serde(default)]
    pub subject: String,
    /// The commit that runs before the planned one; absent if there is none.
    #[serde(default)]
    pub compared_with: Option<CommitId>,
    /// Where the commit stands in the rollout, and what keeps it back.
    #[serde(default)]
    pub standings: Vec<PlanStanding>,
    /// What differs between the two commits, per object and field.
    #[serde(default)]
    pub objects: Vec<ObjectDifference>,
    /// What happens to the pods of the whole cluster; absent for a refused commit.
    #[serde(default)]
    pub pods: Option<PodsPlan>,
    /// What this host does now: one lane for each pod or image.
    pub lanes: Vec<LaneView>,
}

/// Where a commit stands in the rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlanStanding {
    /// One word, such as `Refused`, `Held` or `Preparing`.
    pub state: String,
    /// The reason as a sentence; empty if there is none.
    pub reason: String,
    /// Whether the commit is not rolled out as long as it stands so.
    pub keeps_back: bool,
    /// All problems of a refused commit.
    pub problems: Vec<String>,
}

/// What happens to the pods of the cluster, if every image can be pulled, every new pod becomes
/// ready and every stop succeeds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PodsPlan {
    /// How each workload whose template differs replaces its pods, one sentence each.
    pub paces: Vec<String>,
    /// The decisions in their order, each with its steps, one phrase each. The steps of one
    /// decision begin together; the next one is made when their pods are ready or gone.
    pub rounds: Vec<Vec<String>>,
    /// How the rollout ends.
    pub end: String,
    /// Remarks, such as pods that stay on a drained node.
    pub notes: Vec<String>,
}

/// Manifests that are not pushed yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LocalManifests {
    /// Where they come from, for people.
    pub name: String,
    pub files: Vec<LocalFile>,
}

/// A manifest that is not pushed yet. Its content may have the values of Secrets, which
/// `Debug` does not print.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LocalFile {
    pub path: String,
    pub content: String,
}

impl fmt::Debug for LocalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Computes what a commit changes.
pub(crate) trait Planner: Send + Sync {
    /// The plan for a commit of the followed repository: an id, its first digits or `HEAD`; without
    /// one, for the newest commit of the branch.
    fn plan(&self, revision: Option<String>) -> BoxFuture<'_, Result<PlanReport, PlanError>>;

    /// The plan for manifests that are not pushed yet, as if they were the newest commit.
    fn plan_local(&self, manifests: LocalManifests)
    -> BoxFuture<'_, Result<PlanReport, PlanError>>;
}

/// Why there is no plan for a revision.
#[derive(Debug, Error)]
pub(crate) enum PlanError {
    #[error("another plan is being worked out: try again when it is done")]
    Busy,
    #[error(
        "{0} is no commit id: give the id of a commit, or 4 or more of its first digits, as in \
         `windlass history`"
    )]
    NoId(ForeignText),
    #[error("several objects have an id that begins with {0}: give more digits")]
    Ambiguous(String),
    #[error("{revision} names no commit of {url}: see `windlass history`")]
    NoCommit { revision: String, url: String },
    #[error("commit {} could not be judged", commit.short())]
    NotJudged {
        commit: CommitId,
        source: anyhow::Error,
    },
    #[error("commit {} may not run here", commit.short())]
    Ineligible {
        commit: CommitId,
        source: Box<Ineligible>,
    },
    /// The commit was refused for its signature, its history or its size; all reasons, one line
    /// each.
    #[error("commit {} is refused: {}", commit.short(), reasons.join("\n"))]
    Refused {
        commit: CommitId,
        reasons: Vec<String>,
    },
    #[error(transparent)]
    Unreadable(anyhow::Error),
    #[error("working out the plan ended early: {0}")]
    Ended(JoinError),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanQuery {
    /// The id of the planned commit, or its first digits; without it the answer is about the newest
    /// commit of the branch, and has the lanes of this host.
    revision: Option<String>,
}

pub(super) async fn plan(
    State(daemon): State<Arc<HttpContext>>,
    Query(query): Query<PlanQuery>,
) -> Result<Json<PlanReport>, (StatusCode, String)> {
    let is_about_now = query.revision.is_none();
    let plan = daemon.planner.plan(query.revision).await;
    if !is_about_now {
        return plan
            .map(Json)
            .map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, message(error)));
    }

    // What this host does now is answered in any case.
    let view = daemon.views.current().view;
    let plan = plan.unwrap_or_else(|error| {
        let state = match &error {
            PlanError::Refused { .. } | PlanError::Ineligible { .. } => "Refused",
            PlanError::Busy
            | PlanError::NoId(_)
            | PlanError::Ambiguous(_)
            | PlanError::NoCommit { .. }
            | PlanError::NotJudged { .. }
            | PlanError::Unreadable(_)
            | PlanError::Ended(_) => "Unknown",
        };
        let standing = PlanStanding {
            state: state.to_owned(),
            reason: message(error),
            keeps_back: state == "Refused",
            problems: Vec::new(),
        };
        PlanReport {
            commit: view.state.rollout.driving.clone(),
            standings: vec![standing],
            ..PlanReport::default()
        }
    });
    Ok(Json(PlanReport {
        lanes: view.plan.clone(),
        ..plan
    }))
}

/// Answers what manifests that are not pushed yet would change. Nothing of them is kept.
pub(super) async fn plan_local(
    State(daemon): State<Arc<HttpContext>>,
    Json(manifests): Json<LocalManifests>,
) -> Result<Json<PlanReport>, (StatusCode, String)> {
    let plan = daemon.planner.plan_local(manifests).await;
    plan.map(Json)
        .map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, message(error)))
}
