//! The download of one fetch: in quarantine until its head is judged, then in the mirror or
//! deleted.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use git2::Repository;
use reconciler::name::CommitId;
use thiserror::Error;

use super::child::{ChildAnswer, ChildProgram, ChildRequest, ChildTask};
use super::fetch::{
    Brought, FetchError, FetchLimits, FetchRequest, Fetched, RemoteHead, RemoteTask, RemoteUrl,
    chain, refused_by_headers,
};
use super::mirror::{self, Check, Mirror, MirrorError};
use super::quarantine::Quarantine;

/// The mirror would exceed its size limit.
#[derive(Debug, Error)]
#[error(
    "the local repository would have {bytes} bytes with this commit, and source.max-mirror-bytes allows {limit}; raise \
     it, or take large files out of the history"
)]
pub(crate) struct NoRoom {
    bytes: u64,
    limit: u64,
}

/// Whether the mirror keeps the head of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadIs {
    Accepted,
    /// Refused, or not judged yet.
    Refused,
}

/// Reading or packing a mirror of several gigabytes takes less.
const MAINTENANCE_DEADLINE: Duration = Duration::from_secs(900);

/// A fetch that has ended. When the value is dropped, only an accepted download remains.
pub(crate) struct Download {
    quarantine: Arc<Quarantine>,
    fetched: Fetched,
    request: FetchRequest,
    mirror_bytes: u64,
}

impl Download {
    /// Checks the mirror, fetches into a new quarantine, and checks the headers of all downloaded
    /// objects before their content is read.
    pub(crate) async fn fetch(
        child: &ChildProgram,
        request: FetchRequest,
        mirror_bytes: u64,
    ) -> Result<Self, FetchError> {
        request.url.parse::<RemoteUrl>()?;
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

        let fetched = fetch(&quarantine, child, &request).await?;
        Ok(Self {
            quarantine,
            fetched,
            request,
            mirror_bytes,
        })
    }

    /// The head of the branch at the remote.
    pub(crate) fn head(&self) -> &CommitId {
        &self.fetched.head
    }

    #[cfg(test)]
    pub(crate) fn fetched(&self) -> &Fetched {
        &self.fetched
    }

    /// The damage of the mirror, if the whole history was downloaded for it.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.fetched.repaired.as_deref()
    }

    /// The repository in which the head is judged.
    pub(crate) fn repository(&self) -> Result<Repository, MirrorError> {
        self.quarantine.open(self.fetched.brought)
    }

    /// Moves the download into the mirror: its head is trusted.
    pub(crate) fn accept(&self) -> Result<()> {
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
    pub(crate) fn refuse(&self) -> Result<()> {
        if self.is_whole() {
            self.quarantine
                .repair(&self.request.keep)
                .context("replace the damaged mirror")?;
        }
        Ok(())
    }

    /// Whether the download replaces a damaged mirror.
    pub(crate) fn is_whole(&self) -> bool {
        self.fetched.brought == Brought::Whole
    }

    /// Whether the mirror has so many packs that reading slows down.
    pub(crate) fn is_scattered(&self) -> bool {
        self.quarantine.is_scattered()
    }

    /// Makes one pack of the objects that accepted commits reach.
    pub(crate) async fn compact(&self, child: &ChildProgram, head: HeadIs) -> Result<()> {
        let mut request = self.request.clone();
        if head == HeadIs::Accepted {
            request.keep.insert(self.fetched.head.clone());
        }
        compact(&self.quarantine, child, &request, self.mirror_bytes).await
    }
}

/// Downloads what the mirror lacks, or everything if the mirror is damaged.
async fn fetch(
    quarantine: &Arc<Quarantine>,
    child: &ChildProgram,
    request: &FetchRequest,
) -> Result<Fetched, FetchError> {
    let damage = match find_damage(quarantine, child, request, request.check).await? {
        Some(damage) => damage,
        None => match fetch_addition(quarantine, child, request).await {
            // An unclear error is the mirror's if the mirror cannot be read any more.
            Err(error) if request.check_after_error && error.may_be_the_mirrors() => {
                match find_damage(quarantine, child, request, Check::Thorough).await? {
                    Some(damage) => damage,
                    None => return Err(error),
                }
            }
            result => return result,
        },
    };
    fetch_whole(quarantine, child, request, damage).await
}

/// The damage of the mirror; `None` if there is none.
async fn find_damage(
    quarantine: &Arc<Quarantine>,
    child: &ChildProgram,
    request: &FetchRequest,
    check: Check,
) -> Result<Option<String>, FetchError> {
    let (checked, keep) = (Arc::clone(quarantine), request.keep.clone());
    let quick = blocking(move || {
        checked.check_quickly(&keep)?;
        checked.wanted(&keep)
    });
    let commits = match quick.await {
        Ok(commits) => commits,
        Err(damage) => return Ok(Some(chain(&damage))),
    };
    if check == Check::Quick {
        return Ok(None);
    }

    // libgit2 reads every object, which takes long for a large mirror, and may end its process if
    // the damage is of a kind that it does not expect.
    let task = ChildTask::Check { commits };
    match run(quarantine, child, request, task, maintenance(request, 0)).await {
        Ok(ChildAnswer::Checked(damage)) => Ok(damage),
        Ok(_) => Err(other_answer()),
        Err(FetchError::Child { detail }) => Ok(Some(format!("checking it failed: {detail}"))),
        Err(error) => Err(error),
    }
}

async fn fetch_addition(
    quarantine: &Arc<Quarantine>,
    child: &ChildProgram,
    request: &FetchRequest,
) -> Result<Fetched, FetchError> {
    let known = quarantine
        .known()
        .map_err(|error| FetchError::disk(&request.mirror, &error))?;
    let previous = known.get(&mirror::tracking(&request.branch)).cloned();
    let task = RemoteTask {
        known,
        ..remote_task(request)?
    };
    let head = download(quarantine, child, request, task).await?;
    Ok(Fetched {
        head: head.id,
        previous,
        brought: if head.downloaded {
            Brought::Addition
        } else {
            Brought::Nothing
        },
        received_bytes: head.received_bytes,
        repaired: None,
    })
}

/// Downloads everything, without the objects of the damaged mirror. The download replaces the
/// mirror only if it holds everything that is still needed.
async fn fetch_whole(
    quarantine: &Arc<Quarantine>,
    child: &ChildProgram,
    request: &FetchRequest,
    damage: String,
) -> Result<Fetched, FetchError> {
    let kept = |why_kept: String| FetchError::Corrupt {
        mirror: request.mirror.display().to_string(),
        damage: damage.clone(),
        why_kept,
    };
    if !request.download {
        return Err(kept(
            "nothing is downloaded while the allowed signers cannot be read".to_owned(),
        ));
    }

    // A refused head is needed as well: the commits that are kept are part of its history.
    let task = RemoteTask {
        whole: true,
        refused: Default::default(),
        ..remote_task(request)?
    };
    let head = match download(quarantine, child, request, task).await {
        Ok(head) => head,
        Err(error @ FetchError::PackRefused { .. }) => return Err(error),
        Err(error) => return Err(kept(error.to_string())),
    };

    let (clone, keep) = (Arc::clone(quarantine), request.keep.clone());
    let checked = blocking(move || clone.check_clone(&keep)).await;
    checked.map_err(|error| {
        let url = request.url.parse::<RemoteUrl>();
        kept(format!(
            "a new clone of {} would lose what this host runs: {}",
            url.map_or_else(|_| String::new(), |url| url.to_string()),
            chain(&error)
        ))
    })?;
    Ok(Fetched {
        head: head.id,
        previous: None,
        brought: Brought::Whole,
        received_bytes: head.received_bytes,
        repaired: Some(damage),
    })
}

/// Runs a fetch in the child, takes its pack, and checks the headers of the pack's objects.
async fn download(
    quarantine: &Arc<Quarantine>,
    child: &ChildProgram,
    request: &FetchRequest,
    task: RemoteTask,
) -> Result<RemoteHead, FetchError> {
    let url: RemoteUrl = request.url.parse()?;
    let task = ChildTask::Fetch(Box::new(task));
    let answer = run(quarantine, child, request, task, request.limits.clone()).await?;
    let ChildAnswer::Fetched(head) = answer else {
        return Err(other_answer());
    };
    if head.downloaded {
        let (quarantine, limits) = (Arc::clone(quarantine), request.limits.clone());
        blocking(move || {
            quarantine.take_download(&limits)?;
            quarantine.inspect(&limits)
        })
        .await
        .map_err(|error| refused_by_headers(error, &url, &head.id))?;
    }
    Ok(head)
}

/// Runs one task in a child of the right user, in an empty work directory.
async fn run(
    quarantine: &Arc<Quarantine>,
    child: &ChildProgram,
    request: &FetchRequest,
    task: ChildTask,
    limits: FetchLimits,
) -> Result<ChildAnswer, FetchError> {
    let user = child.user_for(&task)?;
    // The owner of a repository on this host is a user of another trust: its child gets no access to
    // the mirror, which may hold what was fetched from elsewhere.
    let reads_mirror = user.filter(|_| !task.is_local());
    let prepared = Arc::clone(quarantine);
    let ready = blocking(move || {
        if let Some(reader) = reads_mirror {
            prepared.share_objects(reader.gid)?;
        }
        prepared.prepare(user)
    });
    ready
        .await
        .map_err(|error| FetchError::disk(&request.mirror, &error))?;

    let child_request = ChildRequest {
        task,
        mirror: request.mirror.clone(),
        limits,
        user,
    };
    child.run(&child_request).await
}

fn other_answer() -> FetchError {
    FetchError::Child {
        detail: "it has answered another request".to_owned(),
    }
}

/// The request for the child, without the commits that the mirror has.
fn remote_task(request: &FetchRequest) -> Result<RemoteTask, FetchError> {
    Ok(RemoteTask {
        url: request.url.clone(),
        branch: request.branch.clone(),
        download: request.download,
        credentials: request.credentials.clone(),
        authorities: authorities(request)?,
        known_hosts: known_hosts(request)?,
        refused: request.refused.clone(),
        known: Default::default(),
        whole: false,
    })
}

/// The configured certificate authorities. git2 would use the system's in place of a missing file.
fn authorities(request: &FetchRequest) -> Result<Option<String>, FetchError> {
    let Some(file) = &request.ca_file else {
        return Ok(None);
    };
    let wrong = |detail: String| FetchError::Certificate {
        url: request
            .url
            .parse::<RemoteUrl>()
            .map_or_else(|_| String::new(), |url| url.to_string()),
        detail: format!("CA file {}: {detail}", file.display()),
    };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(wrong("it holds no PEM certificate".to_owned()));
    }
    Ok(Some(text))
}

fn known_hosts(request: &FetchRequest) -> Result<Option<String>, FetchError> {
    let Some(file) = &request.known_hosts else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(file).map_err(|error| FetchError::Child {
        detail: format!("prepare: {}: {error}", file.display()),
    })?;
    Ok(Some(text))
}

/// The limits of a task in which no remote takes part: its time depends only on local objects.
fn maintenance(request: &FetchRequest, mirror_bytes: u64) -> FetchLimits {
    FetchLimits {
        deadline: request.limits.deadline.max(MAINTENANCE_DEADLINE),
        received_bytes: mirror_bytes.max(request.limits.received_bytes),
        ..request.limits.clone()
    }
}

/// Replaces the mirror by one pack of what accepted commits reach.
async fn compact(
    quarantine: &Arc<Quarantine>,
    child: &ChildProgram,
    request: &FetchRequest,
    mirror_bytes: u64,
) -> Result<()> {
    let (asked, keep) = (Arc::clone(quarantine), request.keep.clone());
    let tips = blocking(move || asked.tips(&keep)).await?;
    let limits = maintenance(request, mirror_bytes);
    let is_empty = tips.is_empty();
    if !is_empty {
        run(
            quarantine,
            child,
            request,
            ChildTask::Compact { tips },
            limits.clone(),
        )
        .await
        .context("compact the mirror")?;
    }

    let (quarantine, keep) = (Arc::clone(quarantine), request.keep.clone());
    let done = tokio::task::spawn_blocking(move || -> Result<()> {
        if !is_empty {
            quarantine.take_compacted(&limits)?;
            quarantine.inspect_compacted(&limits)?;
        }
        Ok(quarantine.accept_compacted(&keep)?)
    })
    .await;
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
