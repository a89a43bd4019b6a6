//! Whether the engine answers at all. One that hangs keeps its connections and sends no events, so
//! somebody must ask.

use std::{sync::Arc, time::Duration};

use crate::{docker::CallError, observer::Observer};

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(3);
/// How long it may take, also on a host that is busy.
const LIMIT: Duration = Duration::from_secs(4);

/// Asks for as long as the daemon runs.
pub(crate) async fn follow(observer: Arc<Observer>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let asked = observer
            .engine
            .call_within(LIMIT, |docker| async move { docker.ping().await })
            .await;
        // One that cannot be reached or refuses says so wherever it is asked for something.
        observer.hangs(matches!(asked, Err(CallError::TimedOut(_))));
    }
}
