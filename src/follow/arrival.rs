//! The download of one fetch: in quarantine until its head is judged, then in the mirror or
//! deleted.

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

/// The mirror would exceed its size limit.
#[derive(Debug, Error)]
#[error(
    "the local repository would have {bytes} bytes with this commit, and source.max-mirror-bytes allows {limit}; raise \
     it, or take large files out of the history"
)]
pub(super) struct NoRoom {
    bytes: u64,
    limit: u64,
}

/// Whether the mirror keeps the head of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadIs {
    Accepted,
    /// Refused, or not judged yet.
    Refused,
}

/// Packing a mirror of several gigabytes takes less.
const COMPACTION_DEADLINE: Duration = Duration::from_secs(900);

/// A fetch that has ended. When the value is dropped, only an accepted download remains.
pub(super) struct Arrival {
    quarantine: Arc<Quarantine>,
    fetched: Fetched,
    request: FetchRequest,
    mirror_bytes: u64,
}

impl Arrival {
    /// Fetches into a new quarantine, and checks the headers of all downloaded objects before their
    /// content is read.
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
            // The fetch detects the damage of the mirror, and repairs it.
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

    /// The head of the branch at the remote.
    pub(super) fn head(&self) -> &CommitId {
        &self.fetched.head
    }

    /// The damage of the mirror, if the whole history was downloaded for it.
    pub(super) fn damage(&self) -> Option<&str> {
        self.fetched.repaired.as_deref()
    }

    /// The repository in which the head is judged.
    pub(super) fn repository(&self) -> Result<Repository, MirrorError> {
        self.quarantine.open(self.fetched.brought)
    }

    /// Moves the download into the mirror: its head is trusted.
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
        accepted.context("move the download into the mirror")
    }

    /// Moves nothing into the mirror but the repair of a damaged one: the head is refused.
    pub(super) fn refuse(&self) -> Result<()> {
        if self.is_whole() {
            self.quarantine
                .repair(&self.request.keep)
                .context("replace the damaged mirror")?;
        }
        Ok(())
    }

    /// Whether the download replaces a damaged mirror.
    pub(super) fn is_whole(&self) -> bool {
        self.fetched.brought == Brought::Whole
    }

    /// Whether the mirror has so many packs that reading slows down.
    pub(super) fn is_scattered(&self) -> bool {
        self.quarantine.is_scattered()
    }

    /// Makes one pack of the objects that accepted commits reach.
    pub(super) async fn compact(&self, child: &ChildProgram, head: HeadIs) -> Result<()> {
        let mut request = self.request.clone();
        if head == HeadIs::Accepted {
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
        // No remote takes part: the time depends only on reading and packing local objects.
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

/// Runs blocking work on a thread for it. A panic of the work is resumed here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
