//! Pod logs for the API: the engine's logs on this host, or those that another host's daemon
//! returns.

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use reconciler::{fault::FaultKind, plan::Role};
use runtime::Runtime;

use crate::{
    http::api::{LogError, LogOptions, LogSource, LogStream, LogTarget, RemotePod},
    peer::{AddressOf, LogRequest, PeerClient},
};

/// Reads the logs of this host's containers, and requests other containers' logs from their hosts.
pub(super) struct EngineLogs {
    runtime: Runtime,
    remote: Option<RemoteHosts>,
}

/// How the daemons of other hosts are reached.
#[derive(Clone)]
pub(super) struct RemoteHosts {
    /// Uses this host's certificate.
    pub(super) client: PeerClient,
    pub(super) address_of: AddressOf,
}

impl RemoteHosts {
    async fn open(&self, pod: RemotePod, options: LogOptions) -> Result<LogStream, LogError> {
        let RemotePod {
            node,
            key,
            container,
        } = pod;
        let address = (self.address_of)(&node)
            .ok_or_else(|| LogError::Remote(format!("the address of {node} is not known here")))?;
        let LogOptions {
            follow,
            previous,
            timestamps,
            tail,
            since,
        } = options;
        let request = LogRequest {
            pod: key,
            container,
            follow,
            previous,
            timestamps,
            tail,
            since,
        };
        self.client
            .logs(&node, address, &request)
            .await
            .map_err(|error| match error.is_refusal() {
                true => LogError::Refused(error.to_string()),
                false => LogError::Remote(error.to_string()),
            })
    }
}

impl EngineLogs {
    pub(super) fn new(runtime: Runtime, remote: Option<RemoteHosts>) -> Self {
        Self { runtime, remote }
    }

    async fn ask(&self, pod: RemotePod, options: LogOptions) -> Result<LogStream, LogError> {
        match &self.remote {
            Some(remote) => remote.open(pod, options).await,
            None => Err(LogError::Refused(format!(
                "pod \"{}\" runs on {}, and this host has no certificate to ask it with: ask the daemon there, or \
                 join this host with `windlass cluster join`",
                pod.key.name, pod.node
            ))),
        }
    }

    async fn open(&self, target: LogTarget, options: LogOptions) -> Result<LogStream, LogError> {
        let found = self
            .runtime
            .observe()
            .await
            .map_err(|fault| LogError::Engine(fault.message))?;
        let wanted = if options.previous {
            target.restarts.checked_sub(1)
        } else {
            None
        };
        let id = found
            .containers
            .into_iter()
            .filter(|(_, one)| one.identity.uid == target.pod && one.name == target.container)
            .filter(|(_, one)| {
                one.role != Role::Sandbox && wanted.is_none_or(|attempt| one.attempt == attempt)
            })
            .max_by_key(|(_, one)| one.attempt)
            .map(|(id, _)| id)
            .ok_or(LogError::Gone)?;
        let LogOptions {
            follow,
            previous: _,
            timestamps,
            tail,
            since,
        } = options;
        let options = runtime::LogOptions {
            follow,
            tail,
            since,
            timestamps,
        };
        let stream = self
            .runtime
            .logs(&id, options)
            .await
            .map_err(|fault| match fault.kind {
                FaultKind::Gone => LogError::Gone,
                _ => LogError::Engine(fault.message),
            })?;
        Ok(stream
            .map(|part| part.map_err(|fault| std::io::Error::other(fault.message)))
            .boxed())
    }
}

impl LogSource for EngineLogs {
    fn logs(
        &self,
        target: LogTarget,
        options: LogOptions,
    ) -> BoxFuture<'_, Result<LogStream, LogError>> {
        self.open(target, options).boxed()
    }

    fn remote(
        &self,
        pod: RemotePod,
        options: LogOptions,
    ) -> BoxFuture<'_, Result<LogStream, LogError>> {
        self.ask(pod, options).boxed()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    use std::{net::SocketAddr, sync::Arc};

    use jiff::Timestamp;
    use reconciler::name::{NodeName, ObjectKey};

    use super::*;
    use crate::peer::{Authority, PeerDirectory};

    #[tokio::test]
    async fn a_host_that_cannot_be_asked_is_named_with_the_reason() {
        let parent = tempfile::tempdir().unwrap();
        let directory = PeerDirectory::new(parent.path().join("peer"));
        Authority::init(&directory, &NodeName::new("n1"), Timestamp::now()).unwrap();
        let client = PeerClient::new(directory.path()).unwrap().unwrap();
        let ask = async |address: Option<SocketAddr>| {
            let remote = RemoteHosts {
                client: client.clone(),
                address_of: Arc::new(move |_| address),
            };
            let key = ObjectKey::new("default", "web");
            let pod = RemotePod {
                node: NodeName::new("n2"),
                key,
                container: None,
            };
            remote
                .open(pod, LogOptions::default())
                .await
                .err()
                .unwrap()
                .to_string()
        };
        assert_eq!(
            ask(None).await,
            "cannot read the log: the address of n2 is not known here"
        );
        let closed = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let wanted =
            format!("cannot read the log: n2 at {closed} does not answer: Connection refused");
        assert_eq!(ask(Some(closed)).await, wanted);
    }
}
