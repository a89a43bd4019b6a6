//! Whether the engine responds at all. An engine that hangs keeps its connections open and sends no
//! events, so a ping is needed.

use std::{sync::Arc, time::Duration};

use crate::{docker::CallError, observer::Observer};

/// The interval between two pings.
const EVERY: Duration = Duration::from_secs(3);
/// The deadline of a ping, long enough for a host that is busy.
const LIMIT: Duration = Duration::from_secs(4);

/// Pings as long as the daemon runs.
pub(crate) async fn follow(observer: Arc<Observer>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let asked = observer
            .engine
            .call_within(LIMIT, |docker| async move { docker.ping().await })
            .await;
        // Only a time-out counts: every other call reports an engine that refuses or is unreachable.
        observer.hangs(matches!(asked, Err(CallError::TimedOut(_))));
    }
}
