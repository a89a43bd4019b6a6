//! The followed repository: what fetches and judges its commits, and what reports that it has
//! changed.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use reconciler::object::Sensitive;
use tokio::sync::{Notify, mpsc};

use super::{
    FETCH_CHILD,
    settings::{credentials, judge, reader},
};
use crate::{
    config::{Config, read_secret},
    follow::{Follower, Judge, SourceUpdate},
    http::webhook::{WebhookSettings, Webhooks},
    metrics::Metrics,
    refused::RefusedHeads,
    source::{
        child::ChildProgram,
        fetch::{FetchLimits, FetchRequest, RemoteUrl},
        mirror::Check,
        watch::RefWatch,
    },
    trust::TrustStore,
};

/// How many results of the follower may wait for the loop.
const UPDATES: usize = 4;

/// The repository's side of the daemon.
pub(super) struct FollowedSource {
    pub(super) url: RemoteUrl,
    pub(super) judge: Judge,
    pub(super) follower: Follower,
    /// The results of the follower.
    pub(super) updates: mpsc::Receiver<SourceUpdate>,
    /// Causes the next fetch.
    pub(super) nudge: Arc<Notify>,
    pub(super) watch: Option<RefWatch>,
}

impl FollowedSource {
    /// Prepares to follow the repository; nothing is fetched yet.
    pub(super) fn open(
        config: &Config,
        data: &Path,
        trust: &Arc<Mutex<TrustStore>>,
    ) -> Result<Self> {
        let judge = judge(config, reader(config, data)?)?;
        let nudge = Arc::new(Notify::new());
        let (sender, updates) = mpsc::channel(UPDATES);
        let follower = follower(
            config,
            data,
            judge.clone(),
            Arc::clone(trust),
            Arc::clone(&nudge),
            sender,
        )?;
        let url: RemoteUrl = config.source.url.parse()?;
        let watch = watch_local(&url, &nudge);
        Ok(Self {
            url,
            judge,
            follower,
            updates,
            nudge,
            watch,
        })
    }
}

pub(super) fn webhooks(
    config: &Config,
    metrics: &Arc<Metrics>,
    nudge: &Arc<Notify>,
) -> Result<Option<Webhooks>> {
    let secret = match &config.webhook.secret_file {
        Some(file) => Some(Sensitive::new(read_secret(file)?)),
        None => None,
    };
    let webhook = WebhookSettings {
        secret,
        branch: config.source.branch.clone(),
    };
    Ok(Webhooks::new(
        &webhook,
        Arc::clone(metrics),
        Arc::clone(nudge),
    )?)
}

fn follower(
    config: &Config,
    data: &Path,
    judge: Judge,
    trust: Arc<Mutex<TrustStore>>,
    nudge: Arc<Notify>,
    updates: mpsc::Sender<SourceUpdate>,
) -> Result<Follower> {
    let source = &config.source;
    let request = FetchRequest {
        url: source.url.clone(),
        branch: source.branch.clone(),
        mirror: data.join("mirror.git"),
        credentials: None,
        ca_file: source.ca_file.clone(),
        known_hosts: source.known_hosts_file.clone(),
        limits: FetchLimits {
            deadline: source.deadline,
            received_bytes: source.max_bytes,
            object_bytes: source.max_object_bytes,
            ..FetchLimits::default()
        },
        download: true,
        keep: BTreeSet::new(),
        refused: BTreeSet::new(),
        check: Check::Thorough,
        check_after_error: true,
    };

    let program = std::env::current_exe().context("find our own binary")?;
    let child = ChildProgram {
        program,
        arguments: vec![FETCH_CHILD.into()],
        fetch_user: source.fetch_user()?,
    };

    // Files that cannot be read are an error at the start, and not only at the first fetch.
    credentials(config)?;
    let (followed, poll) = (config.clone(), source.poll);
    let credentials = Box::new(move || credentials(&followed));
    let refused = RefusedHeads::open(&data.join("trust"));
    let mirror_bytes = source.max_mirror_bytes;
    Ok(Follower {
        request,
        mirror_bytes,
        refused,
        credentials,
        child,
        judge,
        trust,
        poll,
        nudge,
        updates,
        doubted: None,
    })
}

/// Watches a local repository, so that a push is fetched at once; without the watch the next poll
/// fetches it.
fn watch_local(url: &RemoteUrl, nudge: &Arc<Notify>) -> Option<RefWatch> {
    let RemoteUrl::Local(repository) = url else {
        return None;
    };
    match RefWatch::start(repository.clone(), Arc::clone(nudge)) {
        Ok(watch) => Some(watch),
        Err(error) => {
            tracing::warn!(
                "a push is fetched at the next poll only: {:#}",
                anyhow::Error::from(error)
            );
            None
        }
    }
}
