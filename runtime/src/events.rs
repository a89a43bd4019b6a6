//! The engine's events. An event only marks which containers to inspect again; after a lost
//! connection everything is inspected again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bollard::{
    errors::Error,
    models::{EventMessage, EventMessageTypeEnum},
    query_parameters::EventsOptionsBuilder,
};
use futures_util::{StreamExt, future::ready, stream};
use jiff::Timestamp;
use reconciler::{name::ContainerId, time::backoff};

use crate::{labels::installation_filter, observer::Observer};

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// A connection that lasted this long was working: the next failure starts the back-off anew.
const STABLE: Duration = Duration::from_secs(10);

const CONTAINER_EVENTS: &[&str] = &[
    "create", "start", "die", "oom", "pause", "unpause", "destroy", "rename", "update",
];
const IMAGE_EVENTS: &[&str] = &["delete", "import", "load", "pull", "tag", "untag"];

/// Follows the events as long as the daemon runs.
pub(crate) async fn follow(observer: Arc<Observer>) {
    let mut failures = 0;
    loop {
        let begun = tokio::time::Instant::now();
        let ended = follow_once(&observer).await;
        if ended.was_connected {
            // The cache may be wrong from now on; the next round of inspections corrects it, or
            // reports that the engine is unreachable.
            observer.everything_dirty();
        }
        if begun.elapsed() >= STABLE {
            failures = 0;
        }

        let retry = backoff(FIRST_RETRY, failures, LAST_RETRY);
        tracing::debug!(
            why = ended.text,
            retry_ms = retry.as_millis(),
            "the engine's events ended"
        );
        observer.engine.renegotiate().await;
        tokio::time::sleep(retry).await;
        failures += 1;
    }
}

/// Why the stream of events ended.
struct Ended {
    was_connected: bool,
    text: String,
}

async fn follow_once(observer: &Observer) -> Ended {
    // The engine replays the events since this time, so that none is lost before the streams are
    // open.
    let since = Timestamp::now();
    let docker = match observer.engine.client().await {
        Ok(docker) => docker,
        Err(error) => {
            return Ended {
                was_connected: false,
                text: error.to_string(),
            };
        }
    };

    let options = |mut filters: HashMap<String, Vec<String>>, kind: &str, names: &[&str]| {
        filters.insert("type".to_owned(), vec![kind.to_owned()]);
        filters.insert(
            "event".to_owned(),
            names.iter().map(|name| (*name).to_owned()).collect(),
        );
        let since = format!("{}.{:09}", since.as_second(), since.subsec_nanosecond());
        EventsOptionsBuilder::new()
            .since(&since)
            .filters(&filters)
            .build()
    };
    // Two streams, since images have no label of an installation.
    let containers = docker
        .events(Some(options(
            installation_filter(&observer.installation),
            "container",
            CONTAINER_EVENTS,
        )))
        .boxed();
    let images = docker
        .events(Some(options(HashMap::new(), "image", IMAGE_EVENTS)))
        .boxed();
    observer.everything_dirty();

    // A stream that ends must not be taken for one without events.
    let ended = || {
        stream::once(ready(Err(Error::IOError {
            err: std::io::ErrorKind::UnexpectedEof.into(),
        })))
    };
    let mut events = stream::select(containers.chain(ended()), images.chain(ended()));
    let text = loop {
        match events.next().await {
            Some(Ok(event)) => handle(observer, &event),
            Some(Err(error)) => break error.to_string(),
            None => break "no more events".to_owned(),
        }
    };
    Ended {
        was_connected: true,
        text,
    }
}

fn handle(observer: &Observer, event: &EventMessage) {
    match event.typ {
        Some(EventMessageTypeEnum::IMAGE) => observer.images_dirty(),
        Some(EventMessageTypeEnum::CONTAINER) => {
            let Some(id) = event.actor.as_ref().and_then(|actor| actor.id.as_ref()) else {
                return;
            };
            let id = ContainerId::new(id);
            if event.action.as_deref() == Some("destroy") {
                return observer.container_gone(&id);
            }
            // An event without a time is newer than any inspection.
            let at = event
                .time_nano
                .and_then(|nanos| Timestamp::from_nanosecond(nanos.into()).ok());
            observer.container_event(&id, at.unwrap_or(Timestamp::MAX));
        }
        _ => {}
    }
}
