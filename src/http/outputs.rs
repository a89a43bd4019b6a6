//! What failed containers printed, from the hosts that ran them: looked up when somebody asks.

pub(super) mod query;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream};
use reconciler::name::NodeName;
use runtime::{LastOutput, LastOutputs};

use super::{HttpContext, views::Numbered};
use crate::{last_outputs::OutputQuery, view::View};

/// How long other hosts have to answer; the answer is given without those that do not.
const PATIENCE: Duration = Duration::from_secs(1);
/// The most hosts that are asked.
const HOSTS: usize = 64;
/// How many hosts are asked concurrently.
const ASK_CONCURRENCY: usize = 16;

/// Looks up outputs; in the daemon, those of the engine and of other hosts.
pub(crate) trait OutputSource: Send + Sync {
    /// The outputs of this host, once those are read of all containers that were observed to have
    /// failed.
    fn here(&self) -> BoxFuture<'_, LastOutputs>;

    /// The outputs of another host; none if the host does not answer.
    fn there(&self, node: NodeName, query: OutputQuery) -> BoxFuture<'_, Vec<LastOutput>>;
}

/// The outputs that a query looks for, on this host and on the others.
pub(super) async fn look_up(
    daemon: &HttpContext,
    view: &View,
    query: &OutputQuery,
) -> Vec<LastOutput> {
    if query.is_empty() {
        return Vec::new();
    }
    let asked = stream::iter(others(view, query))
        .map(|node| daemon.outputs.there(node, query.clone()))
        .buffer_unordered(ASK_CONCURRENCY)
        .take_until(tokio::time::sleep(PATIENCE))
        .collect::<Vec<_>>();
    let (here, there) = tokio::join!(daemon.outputs.here(), asked);
    let all = here.iter().cloned().chain(there.into_iter().flatten());
    query.select(all)
}

/// A view with what a query finds on other hosts too.
pub(super) async fn with_others(
    daemon: &HttpContext,
    numbered: Numbered,
    query: &OutputQuery,
) -> Numbered {
    if others(&numbered.view, query).is_empty() {
        return numbered;
    }
    let found = look_up(daemon, &numbered.view, query).await;
    let known = &numbered.view.last_outputs;
    let new = found.into_iter().filter(|output| !known.contains(output));
    let last_outputs = known.iter().cloned().chain(new).collect();
    Numbered {
        view: Arc::new(View {
            last_outputs: Arc::new(last_outputs),
            ..View::clone(&numbered.view)
        }),
        ..numbered
    }
}

/// The other hosts that may have such outputs: any for a commit, and those of the pods.
fn others(view: &View, query: &OutputQuery) -> BTreeSet<NodeName> {
    let records = view.state.pods.values();
    let of_pods = records.filter(|record| query.pods.contains(&record.uid));
    let nodes = of_pods.filter_map(|record| record.place.node());
    let any = match query.commits.is_empty() {
        true => None,
        false => Some(view.nodes.keys()),
    };
    let mut others: BTreeSet<NodeName> = nodes.chain(any.into_iter().flatten()).cloned().collect();
    others.remove(&view.node);
    others.into_iter().take(HOSTS).collect()
}
