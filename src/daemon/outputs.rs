//! Outputs of failed containers for the API: those that this host's runtime keeps, or those that
//! another host's daemon returns.

use futures_util::{FutureExt, future::BoxFuture};
use reconciler::name::NodeName;
use runtime::{LastOutput, LastOutputs, Runtime};
use tokio::sync::watch;

use super::logs::RemoteHosts;
use crate::{http::OutputSource, last_outputs::OutputQuery};

/// Looks up the outputs of this host, and requests those of other hosts.
pub(super) struct KeptOutputs {
    runtime: Runtime,
    outputs: watch::Receiver<LastOutputs>,
    remote: Option<RemoteHosts>,
}

impl KeptOutputs {
    pub(super) fn new(
        runtime: Runtime,
        outputs: watch::Receiver<LastOutputs>,
        remote: Option<RemoteHosts>,
    ) -> Self {
        Self {
            runtime,
            outputs,
            remote,
        }
    }

    async fn kept(&self) -> LastOutputs {
        self.runtime.outputs_are_read().await;
        self.outputs.borrow().clone()
    }

    async fn ask(&self, node: NodeName, query: OutputQuery) -> Vec<LastOutput> {
        let Some(remote) = &self.remote else {
            return Vec::new();
        };
        let Some(address) = (remote.address_of)(&node) else {
            return Vec::new();
        };
        // A host that does not answer is shown as such elsewhere; a host of the version before has
        // no outputs.
        let answered = remote.client.outputs(&node, address, &query).await;
        answered.unwrap_or_default()
    }
}

impl OutputSource for KeptOutputs {
    fn here(&self) -> BoxFuture<'_, LastOutputs> {
        self.kept().boxed()
    }

    fn there(&self, node: NodeName, query: OutputQuery) -> BoxFuture<'_, Vec<LastOutput>> {
        self.ask(node, query).boxed()
    }
}
