//! Follows the repository: fetches, verifies and reads the head of the branch, and reports the
//! result. A nudge or the poll causes the next fetch.

mod judge;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use parking_lot::Mutex;
use reconciler::{commit::Commit, foreign::ForeignText, manifest::ReadAs, name::CommitId};
use tokio::sync::{Notify, mpsc};

use self::judge::JudgedHead;
pub(crate) use self::judge::{Judge, read_signers};
use crate::{
    refused::{RefusedHead, RefusedHeads},
    source::{
        child::ChildProgram,
        download::{Download, HeadIs, NoRoom},
        fetch::{Credentials, FetchError, FetchRequest},
        mirror::Check,
        verify::VerifiedCommit,
    },
    trust::TrustStore,
    view::{FetchStart, RefusedCommit},
};

/// The longest delay before a failed fetch is repeated: a host that relies on webhooks polls
/// seldom, and the webhook that led to this fetch is not sent again.
const TROUBLE: Duration = Duration::from_secs(15);
/// The size limit of a remote's message.
const TROUBLE_BYTES: usize = 2048;

/// The class of a head that the mirror has no room for.
const MIRROR_FULL: &str = "mirror-full";
/// The class of a head about which nothing is known.
pub(crate) const COULD_NOT_JUDGE: &str = "could-not-judge";

/// The result of one fetch and judgement.
#[derive(Debug)]
pub(crate) enum SourceUpdate {
    /// The head is verified, readable and good.
    Good {
        /// The content of the head.
        commit: Arc<Commit>,
        /// The proof that the head may run here.
        verified: VerifiedCommit,
        /// When the fetch began.
        asked: FetchStart,
        /// The time from the start of the fetch to this result.
        elapsed: Duration,
    },
    /// The head is the same as before.
    Same {
        /// When the fetch began.
        asked: FetchStart,
    },
    /// The repository has no commit, and never had one that this host has verified.
    Empty {
        /// When the fetch began.
        asked: FetchStart,
    },
    /// The head must not run.
    Refused {
        /// The commit, with all reasons of the refusal.
        refusal: RefusedCommit,
        /// The first line of the commit's message.
        subject: String,
        /// When the fetch began.
        asked: FetchStart,
        /// Why the head is not trusted, as a word for metrics; `None` if its manifests are the
        /// reason, and not its signatures, its history or its size.
        untrusted: Option<String>,
    },
    /// The remote did not answer, or its answer could not be judged: nothing is known about the
    /// head.
    Trouble {
        /// The kind of failure, as a word for metrics.
        class: &'static str,
        /// The failure as a sentence.
        error: String,
    },
}

/// How long a mirror that was found whole after an error is not doubted again.
const DOUBT: Duration = Duration::from_secs(3600);

/// The task that follows one branch of one repository.
pub(crate) struct Follower {
    /// How to fetch; `download`, `keep`, `refused`, `check` and `credentials` are filled in for each
    /// fetch.
    pub(crate) request: FetchRequest,
    /// The size limit of the mirror, in bytes.
    pub(crate) mirror_bytes: u64,
    /// The heads that were refused recently.
    pub(crate) refused: RefusedHeads,
    /// Reads the credentials again for each fetch, so that a token can be replaced under a running
    /// daemon.
    pub(crate) credentials: Box<dyn Fn() -> Result<Option<Credentials>> + Send + Sync>,
    /// The daemon's own binary, which runs the fetch.
    pub(crate) child: ChildProgram,
    pub(crate) judge: Judge,
    /// The trust directory with the pointers.
    pub(crate) trust: Arc<Mutex<TrustStore>>,
    /// The interval of fetches without a nudge.
    pub(crate) poll: Duration,
    /// Notified by webhooks, the watch on a local repository and `windlass sync`.
    pub(crate) nudge: Arc<Notify>,
    /// The channel for the result of each fetch.
    pub(crate) updates: mpsc::Sender<SourceUpdate>,
    /// When the mirror was last checked after an error that it may have caused.
    pub(crate) doubted: Option<Instant>,
}

/// A head that needs no further judgement.
struct Settled {
    head: CommitId,
    /// For a refused head, the digest of what refused it: with other keys, for example, the head
    /// may be trusted.
    refused_by: Option<Option<String>>,
}

impl Settled {
    fn holds(&self, judged_by: Option<&str>) -> bool {
        self.refused_by
            .as_ref()
            .is_none_or(|refused_by| refused_by.as_deref() == judged_by)
    }
}

impl Follower {
    /// Follows the branch until the receiver of the results is dropped.
    pub(crate) async fn run(mut self) {
        let mut settled: Option<Settled> = None;
        loop {
            let judged_by = self.judged_by();
            let holds = |settled: &&Settled| {
                settled.holds(judged_by.as_deref()) && !self.is_taken_by_the_leader(settled)
            };
            let known = settled.as_ref().filter(holds);
            let update = self
                .fetch_and_judge(known.map(|one| &one.head), judged_by.as_deref())
                .await;

            match &update {
                SourceUpdate::Good { commit, .. } => {
                    settled = Some(Settled {
                        head: commit.id.clone(),
                        refused_by: None,
                    })
                }
                SourceUpdate::Refused {
                    refusal, untrusted, ..
                } => {
                    // A trusted head with invalid manifests is still the commit that history goes
                    // forward from.
                    let refused_by = if untrusted.is_some() {
                        judged_by
                    } else {
                        self.judged_by()
                    };
                    settled = Some(Settled {
                        head: refusal.commit.clone(),
                        refused_by: Some(refused_by),
                    });
                }
                SourceUpdate::Same { .. } => {}
                SourceUpdate::Empty { .. } | SourceUpdate::Trouble { .. } => settled = None,
            }
            let has_failed = matches!(update, SourceUpdate::Trouble { .. });
            if self.updates.send(update).await.is_err() {
                return;
            }

            let wait = jittered(if has_failed {
                self.poll.min(TROUBLE)
            } else {
                self.poll
            });
            // The poll and a nudge have the same effect: the next fetch.
            let _ = tokio::time::timeout(wait, self.nudge.notified()).await;
        }
    }

    /// Whether a head that this host has refused is in use by now: a leader of an older version may
    /// lack the rule that refuses the head here, and a commit in use is read as an accepted one.
    fn is_taken_by_the_leader(&self, settled: &Settled) -> bool {
        settled.refused_by.is_some() && self.trust.lock().read_as(&settled.head) == ReadAs::Accepted
    }

    /// One fetch with its judgement. `settled` is the head that needs no further judgement;
    /// `judged_by` is the digest of what would judge another head.
    async fn fetch_and_judge(
        &mut self,
        settled: Option<&CommitId>,
        judged_by: Option<&str>,
    ) -> SourceUpdate {
        let (asked, began) = (FetchStart::now(), Instant::now());
        let request = match self.next_request(judged_by) {
            Ok(request) => request,
            Err(error) => return trouble("credentials", &format!("{error:#}")),
        };
        let doubts = request.check_after_error;
        let download = match Download::fetch(&self.child, request, self.mirror_bytes).await {
            Ok(download) => Arc::new(download),
            Err(FetchError::PackRefused {
                head: Some(head),
                what,
                ..
            }) => {
                let class = "pack-refused".to_owned();
                let refusal = RefusedCommit {
                    commit: head,
                    summary: what.clone(),
                    problems: vec![what],
                    class: class.clone(),
                    signer: String::new(),
                };
                return self.refuse(refusal, String::new(), class, judged_by, asked);
            }
            // A repository that has lost its commits is not the one that this host follows.
            Err(error) if error.has_no_commit() && self.verified().is_none() => {
                return SourceUpdate::Empty { asked };
            }
            Err(error) => {
                if doubts && error.may_be_the_mirrors() {
                    self.doubted = Some(Instant::now());
                }
                return trouble(error.label(), &error.to_string());
            }
        };
        self.request.check = Check::Quick;
        if let Some(damage) = download.damage() {
            tracing::warn!(%damage, "the local repository was damaged and has been cloned again");
        }
        if let Some(known) = self.earlier_judgement(&download, settled, judged_by, asked) {
            return known;
        }

        let update = match self.judge(&download).await {
            Ok(JudgedHead::Good { commit, verified }) => SourceUpdate::Good {
                commit,
                verified,
                asked,
                elapsed: began.elapsed(),
            },
            Ok(JudgedHead::Refused {
                refusal,
                subject,
                untrusted: Some(class),
            }) => self.refuse(refusal, subject, class.to_owned(), judged_by, asked),
            Ok(JudgedHead::Refused {
                refusal,
                subject,
                untrusted: None,
            }) => SourceUpdate::Refused {
                refusal,
                subject,
                asked,
                untrusted: None,
            },
            Ok(JudgedHead::Unreadable(error)) | Err(error) => could_not_judge(&error),
        };
        if matches!(update, SourceUpdate::Trouble { .. }) {
            // A failed read may be caused by damage, which a thorough check detects and repairs.
            self.request.check = Check::Thorough;
        }
        update
    }

    /// The request of the next fetch, with the present credentials and pointers.
    fn next_request(&self, judged_by: Option<&str>) -> Result<FetchRequest> {
        let (download, refused) = match judged_by {
            Some(judged_by) => (true, self.refused.by(judged_by)),
            // Without the keys no head can be judged, so none is downloaded either.
            None => (false, Default::default()),
        };
        Ok(FetchRequest {
            download,
            keep: self.trust.lock().pointers().commits(),
            refused,
            credentials: (self.credentials)()?,
            check_after_error: self.doubted.is_none_or(|at| at.elapsed() >= DOUBT),
            ..self.request.clone()
        })
    }

    /// The judgement of a head that was judged before by the same keys, mode and limits.
    fn earlier_judgement(
        &self,
        download: &Download,
        settled: Option<&CommitId>,
        judged_by: Option<&str>,
        asked: FetchStart,
    ) -> Option<SourceUpdate> {
        // A replacement of a damaged mirror is judged in any case, and then put in place.
        if download.is_whole() {
            return None;
        }
        if settled == Some(download.head()) {
            return Some(SourceUpdate::Same { asked });
        }
        let known = self.refused.find(download.head(), judged_by?)?;
        Some(SourceUpdate::Refused {
            refusal: known.refusal.clone(),
            subject: known.subject.clone(),
            asked,
            untrusted: Some(known.class.clone()),
        })
    }

    /// Judges a head while its download is in quarantine, and moves the download into the mirror if
    /// the head is trusted.
    async fn judge(&self, download: &Arc<Download>) -> Result<JudgedHead> {
        let judge = || {
            let (judge, trust, download) = (
                self.judge.clone(),
                Arc::clone(&self.trust),
                Arc::clone(download),
            );
            async move {
                tokio::task::spawn_blocking(move || judge.judge(&trust, &download))
                    .await
                    .context("judging the head ended early")?
            }
        };
        let mut judged = judge().await;
        let no_room = |judged: &Result<JudgedHead>| match judged {
            Err(error) => error
                .downcast_ref::<NoRoom>()
                .map(|no_room| no_room.to_string()),
            Ok(_) => None,
        };

        // Without garbage the mirror may have room for the download.
        if no_room(&judged).is_some() {
            download.compact(&self.child, HeadIs::Refused).await?;
            judged = judge().await;
        }
        if let Some(summary) = no_room(&judged) {
            let problems = vec![summary.clone()];
            let refusal = RefusedCommit {
                commit: download.head().clone(),
                summary,
                problems,
                class: MIRROR_FULL.to_owned(),
                signer: String::new(),
            };
            return Ok(JudgedHead::Refused {
                refusal,
                subject: String::new(),
                untrusted: Some(MIRROR_FULL),
            });
        }

        let compaction = match &judged {
            // In a new clone the objects of a refused head lie beside those of the commits that are
            // kept.
            Ok(JudgedHead::Refused {
                untrusted: Some(_), ..
            }) if download.is_whole() => Some(HeadIs::Refused),
            Ok(JudgedHead::Refused {
                untrusted: Some(_), ..
            })
            | Err(_) => None,
            Ok(_) if download.is_scattered() => Some(HeadIs::Accepted),
            Ok(_) => None,
        };
        if let Some(head) = compaction
            && let Err(error) = download.compact(&self.child, head).await
        {
            tracing::warn!("the local repository was not compacted: {error:#}");
        }
        judged
    }

    /// Remembers a refusal, so that the head is not downloaded again before something changes.
    fn refuse(
        &mut self,
        refusal: RefusedCommit,
        subject: String,
        class: String,
        judged_by: Option<&str>,
        asked: FetchStart,
    ) -> SourceUpdate {
        // The texts are shortened as they are stored, so that the stored refusal is no new one.
        let head = RefusedHead {
            refusal,
            subject,
            class,
            judged_by: judged_by.unwrap_or_default().to_owned(),
        }
        .bounded();
        // The commits that fill the mirror may be gone at the next start.
        if head.class != MIRROR_FULL
            && judged_by.is_some()
            && let Err(error) = self.refused.add(head.clone())
        {
            tracing::warn!(
                "a refused head is fetched again: {:#}",
                anyhow::Error::from(error)
            );
        }
        SourceUpdate::Refused {
            refusal: head.refusal,
            subject: head.subject,
            asked,
            untrusted: Some(head.class),
        }
    }

    /// The newest commit that this host has verified.
    fn verified(&self) -> Option<CommitId> {
        let trust = self.trust.lock();
        trust
            .pointers()
            .verified
            .as_ref()
            .map(|one| one.id().clone())
    }

    /// A digest of all that a refusal depends on beside the head itself; `None` if the keys cannot
    /// be read.
    fn judged_by(&self) -> Option<String> {
        let verified = self.verified();
        let limits = &self.request.limits;
        let limits = [limits.object_bytes, limits.objects, self.mirror_bytes];
        self.judge.digest(verified.as_ref(), &limits)
    }
}

fn could_not_judge(error: &anyhow::Error) -> SourceUpdate {
    trouble(COULD_NOT_JUDGE, &format!("{error:#}"))
}

/// A failed fetch; most of the message is foreign text of the remote or of libgit2.
fn trouble(class: &'static str, error: &str) -> SourceUpdate {
    SourceUpdate::Trouble {
        class,
        error: ForeignText::bounded(error, TROUBLE_BYTES).into(),
    }
}

/// The interval plus or minus up to a tenth, so that five hundred hosts do not fetch at the same
/// instant.
fn jittered(poll: Duration) -> Duration {
    let nanos = u32::try_from(Timestamp::now().subsec_nanosecond()).unwrap_or(0);
    poll.mul_f64(0.9 + 0.2 * f64::from(nanos % 1_000_000) / 1_000_000.0)
}

#[cfg(test)]
mod tests;
