//! What a fetch brought: in quarantine until its head is judged, then in the mirror or deleted.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use git2::Repository;
use reconciler::name::CommitId;
use thiserror::Error;

use crate::source::{
    child::{ChildProgram, compact_in_child, fetch_in_child},
    fetch::{
        Brought, FetchError, FetchLimits, FetchRequest, Fetched, RemoteUrl, refused_by_headers,
    },
    mirror::{Mirror, MirrorError},
    quarantine::Quarantine,
};

/// The mirror would grow beyond its limit.
#[derive(Debug, Error)]
#[error(
    "the local repository would have {bytes} bytes with this commit, and source.max-mirror-bytes allows {limit}; raise \
     it, or take large files out of the history"
)]
pub(super) struct NoRoom {
    bytes: u64,
    limit: u64,
}

/// A mirror of some gigabytes is packed in less.
const COMPACTION_DEADLINE: Duration = Duration::from_secs(900);

/// One fetch that came to an end. Dropped, it leaves nothing behind but what was accepted.
pub(super) struct Arrival {
    quarantine: Arc<Quarantine>,
    fetched: Fetched,
    request: FetchRequest,
    mirror_bytes: u64,
}

impl Arrival {
    /// Fetches into a new quarantine, and reads the headers of all objects that came, before
    /// anybody reads their content.
    pub(super) async fn fetch(
        child: &ChildProgram,
        request: FetchRequest,
        mirror_bytes: u64,
    ) -> Result<Self, FetchError> {
        let url: RemoteUrl = request.url.parse()?;
        let mirror = Mirror::new(&request.mirror);
        let quarantine = blocking(move || Quarantine::begin(&mirror))
            .await
            .map_err(|error| FetchError::disk(&request.mirror, &error))?;
        let quarantine = Arc::new(quarantine);
        if quarantine.holds_refused(&request.branch, &request.keep)
            && let Err(error) = compact(&quarantine, child, &request, mirror_bytes).await
        {
            // What is damaged is found by the fetch, and repaired.
            tracing::warn!(
                "a head that was never accepted is still in the local repository: {error:#}"
            );
        }
        let fetched = fetch_in_child(child, &request).await?;
        if fetched.brought != Brought::Nothing {
            let (quarantine, limits) = (Arc::clone(&quarantine), request.limits.clone());
            blocking(move || quarantine.inspect(&limits))
                .await
                .map_err(|error| refused_by_headers(error, &url, &fetched.head))?;
        }
        Ok(Self {
            quarantine,
            fetched,
            request,
            mirror_bytes,
        })
    }

    /// The branch's head.
    pub(super) fn head(&self) -> &CommitId {
        &self.fetched.head
    }

    /// What was wrong with the mirror, where all was downloaded anew.
    pub(super) fn damage(&self) -> Option<&str> {
        self.fetched.repaired.as_deref()
    }

    /// The repository in which the head is judged.
    pub(super) fn repository(&self) -> Result<Repository, MirrorError> {
        self.quarantine.open(self.fetched.brought)
    }

    /// Takes what was downloaded into the mirror: its head is trusted.
    pub(super) fn accept(&self) -> Result<()> {
        let Fetched { brought, head, .. } = &self.fetched;
        let limit = self.mirror_bytes;
        if *brought == Brought::Addition
            && let Some(bytes) = self.quarantine.would_exceed(limit)
        {
            return Err(NoRoom { bytes, limit }.into());
        }
        let accepted =
            self.quarantine
                .accept(*brought, &self.request.branch, head, &self.request.keep);
        accepted.context("take what was fetched into the mirror")
    }

    /// Takes nothing but what repairs a damaged mirror: the head is refused.
    pub(super) fn refuse(&self) -> Result<()> {
        if self.is_whole() {
            self.quarantine
                .repair(&self.request.keep)
                .context("replace the damaged mirror")?;
        }
        Ok(())
    }

    /// Whether it is to replace a damaged mirror.
    pub(super) fn is_whole(&self) -> bool {
        self.fetched.brought == Brought::Whole
    }

    /// Whether so many packs lie in the mirror that reading slows down.
    pub(super) fn is_scattered(&self) -> bool {
        self.quarantine.is_scattered()
    }

    /// Makes one pack of what accepted commits reach; `accepted` says whether the head is one by
    /// now.
    pub(super) async fn compact(&self, child: &ChildProgram, accepted: bool) -> Result<()> {
        let mut request = self.request.clone();
        if accepted {
            request.keep.insert(self.fetched.head.clone());
        }
        compact(&self.quarantine, child, &request, self.mirror_bytes).await
    }
}

async fn compact(
    quarantine: &Arc<Quarantine>,
    child: &ChildProgram,
    request: &FetchRequest,
    mirror_bytes: u64,
) -> Result<()> {
    let size = mirror_bytes.max(request.limits.received_bytes);
    let limits = FetchLimits {
        // Nobody sends anything: it takes as long as it takes to read and pack what is here.
        deadline: request.limits.deadline.max(COMPACTION_DEADLINE),
        received_bytes: size,
        address_space_bytes: request
            .limits
            .address_space_bytes
            .saturating_add(size.saturating_mul(2)),
        ..request.limits.clone()
    };
    let request = FetchRequest {
        limits,
        ..request.clone()
    };
    compact_in_child(child, &request)
        .await
        .context("compact the mirror")?;
    let (quarantine, keep) = (Arc::clone(quarantine), request.keep);
    let done = tokio::task::spawn_blocking(move || quarantine.accept_compacted(&keep)).await;
    done.context("compacting the mirror ended early")?
        .context("put the compacted mirror in place")
}

/// Runs what blocks on a thread that may. A panic there goes on here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
