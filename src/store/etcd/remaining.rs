//! How long the leases of others still hold.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;

use super::{Etcd, failure::Failure, link::CALL_TIMEOUT};

impl Etcd {
    /// For how long, in whole seconds, the leases of these keys still hold. A key without a lease, or of which etcd
    /// does not say it, is left out.
    pub(crate) async fn remaining(&self, keys: Vec<String>) -> BTreeMap<String, Duration> {
        let asked = keys.into_iter().map(|key| async move {
            let found = self.remaining_of(&key).await;
            let found = found.inspect_err(|failure| tracing::debug!("the lease of {key}: {failure}"));
            Some((key, found.ok()??))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    async fn remaining_of(&self, key: &str) -> Result<Option<Duration>, Failure> {
        let link = &self.inner.link;
        let connection = link.connection().await?;
        let mut client = connection.client.clone();
        let full = format!("{}{key}", self.inner.prefix);
        let get = Box::pin(async move { client.get(full, None).await });
        let lease = link.call(&connection, CALL_TIMEOUT, get).await?.kvs().first().map(|kv| kv.lease());
        let Some(lease) = lease.filter(|lease| *lease != 0) else { return Ok(None) };
        let mut client = connection.client.clone();
        let ask = Box::pin(async move { client.lease_time_to_live(lease, None).await });
        let left = link.call(&connection, CALL_TIMEOUT, ask).await?.ttl();
        Ok(Some(Duration::from_secs(u64::try_from(left).unwrap_or(0))))
    }
}
