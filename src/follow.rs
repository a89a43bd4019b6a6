//! Following the repository: fetch, verify, read, and say what was found. A nudge or the poll makes it look again.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use reconciler::{commit::Commit, foreign::ForeignText, name::CommitId};
use tokio::sync::{Notify, mpsc};

use crate::{
    library::{Reader, Reading},
    source::{
        allowed_signers::AllowedSigners,
        child::{ChildProgram, fetch_in_child},
        fetch::{Credentials, FetchRequest},
        mirror::Check,
        verify::{CouldNotCheck, Mode, Policy, Verdict, VerifiedCommit, verify},
    },
    trust::TrustStore,
    view::Refusal,
};

/// A look that came to nothing is repeated after so long at most: whoever relies on webhooks polls seldom, and the hook
/// that led to this look does not come again.
const TROUBLE: Duration = Duration::from_secs(15);
/// What is kept of a remote's words.
const TROUBLE_BYTES: usize = 2048;

/// What looking at the repository came to.
#[derive(Debug)]
pub(crate) enum Found {
    /// The head is verified, readable and good.
    Good {
        /// Its content.
        commit: Arc<Commit>,
        /// The proof that it may be run.
        verified: VerifiedCommit,
        /// When the repository was asked.
        asked: Timestamp,
        /// From then to knowing this.
        took: Duration,
    },
    /// The head is what it was.
    Same {
        /// When the repository was asked.
        asked: Timestamp,
    },
    /// The head must not be run.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The first line of its message.
        subject: String,
        /// When the repository was asked.
        asked: Timestamp,
        /// Why it is not trusted, in a word, where its signatures or its history are the reason.
        untrusted: Option<&'static str>,
    },
    /// The remote could not be asked, or its answer could not be judged: nothing is known.
    Trouble {
        /// In a word.
        class: &'static str,
        /// In a sentence.
        error: String,
    },
}

/// How the head is judged.
#[derive(Clone, Debug)]
pub(crate) struct Judge {
    /// Which commits need a signature.
    pub(crate) mode: Mode,
    /// The file of those who are believed; read anew for every judgement, so that a key can be withdrawn.
    pub(crate) allowed_signers: Option<PathBuf>,
    /// The commit every head must descend from.
    pub(crate) anchor: Option<CommitId>,
    /// Whether history may be rewritten.
    pub(crate) allow_rewrite: bool,
    /// How a commit is read once it is believed.
    pub(crate) reader: Reader,
}

/// The task that follows one branch of one repository.
pub(crate) struct Follower {
    /// How to fetch; `keep`, `check` and `credentials` are filled in for each fetch.
    pub(crate) request: FetchRequest,
    /// Reads the credentials anew, so that a token can be rotated under a running daemon.
    pub(crate) credentials: Box<dyn Fn() -> Result<Option<Credentials>> + Send + Sync>,
    /// Our own binary.
    pub(crate) child: ChildProgram,
    /// How to judge.
    pub(crate) judge: Judge,
    /// The pointers.
    pub(crate) trust: Arc<Mutex<TrustStore>>,
    /// How often to look without being told to.
    pub(crate) poll: Duration,
    /// Webhooks, the watch on a local repository and `windlass sync`.
    pub(crate) nudge: Arc<Notify>,
    /// Where it is said.
    pub(crate) found: mpsc::Sender<Found>,
}

/// A head that needs no further judgement.
struct Settled {
    head: CommitId,
    /// For a refused one, which signers refused it: with others it may be trusted.
    refused_by: Option<Option<SystemTime>>,
}

impl Settled {
    fn holds(&self, signers: Option<SystemTime>) -> bool {
        self.refused_by.is_none_or(|judged_by| judged_by == signers)
    }
}

impl Follower {
    /// Follows until nobody listens any more.
    pub(crate) async fn run(mut self) {
        let mut settled: Option<Settled> = None;
        loop {
            let signers = self.judge.signers_stamp();
            let found = self
                .look(settled.as_ref().filter(|settled| settled.holds(signers)).map(|one| &one.head))
                .await;
            match &found {
                Found::Good { commit, .. } => {
                    settled = Some(Settled { head: commit.id.clone(), refused_by: None })
                }
                Found::Refused { refusal, .. } => {
                    settled = Some(Settled { head: refusal.commit.clone(), refused_by: Some(signers) });
                }
                Found::Same { .. } => {}
                Found::Trouble { .. } => settled = None,
            }
            let troubled = matches!(found, Found::Trouble { .. });
            if self.found.send(found).await.is_err() {
                return;
            }
            let wait = jittered(if troubled { self.poll.min(TROUBLE) } else { self.poll });
            // Which of the two it was does not matter: both only say "look again".
            let _ = tokio::time::timeout(wait, self.nudge.notified()).await;
        }
    }

    /// One look. `settled` is the head that was found good last time.
    async fn look(&mut self, settled: Option<&CommitId>) -> Found {
        let (asked, began) = (Timestamp::now(), std::time::Instant::now());
        let keep = lock(&self.trust).pointers().commits();
        let credentials = match (self.credentials)() {
            Ok(credentials) => credentials,
            Err(error) => return trouble("credentials", &format!("{error:#}")),
        };
        let request = FetchRequest { keep, credentials, ..self.request.clone() };
        let fetched = match fetch_in_child(&self.child, &request).await {
            Ok(fetched) => fetched,
            Err(error) => return trouble(error.label(), &error.to_string()),
        };
        self.request.check = Check::Quick;
        if let Some(damage) = &fetched.repaired {
            tracing::warn!(%damage, "the local repository was damaged and has been cloned again");
        }
        if settled == Some(&fetched.head) {
            return Found::Same { asked };
        }
        let (judge, trust, head) = (self.judge.clone(), Arc::clone(&self.trust), fetched.head);
        let judged = tokio::task::spawn_blocking(move || judge.judge(&trust, &head)).await;
        let found = match judged {
            Ok(Ok(Judged::Good { commit, verified })) => {
                Found::Good { commit, verified, asked, took: began.elapsed() }
            }
            Ok(Ok(Judged::Refused { refusal, subject, untrusted })) => {
                Found::Refused { refusal, subject, asked, untrusted }
            }
            Ok(Ok(Judged::Unreadable(why))) => could_not_judge(&why),
            Ok(Err(error)) => could_not_judge(&format!("{error:#}")),
            Err(error) => could_not_judge(&format!("judging the head ended early: {error}")),
        };
        if matches!(found, Found::Trouble { .. }) {
            // What could not be read may be damage, which a thorough check finds and repairs.
            self.request.check = Check::Thorough;
        }
        found
    }
}

/// The judgement of one head.
enum Judged {
    Good { commit: Arc<Commit>, verified: VerifiedCommit },
    Refused { refusal: Refusal, subject: String, untrusted: Option<&'static str> },
    Unreadable(String),
}

impl Judge {
    /// When the file of the signers was last changed.
    fn signers_stamp(&self) -> Option<SystemTime> {
        std::fs::metadata(self.allowed_signers.as_ref()?).and_then(|found| found.modified()).ok()
    }

    fn judge(&self, trust: &Mutex<TrustStore>, head: &CommitId) -> Result<Judged> {
        let signers = read_signers(self.allowed_signers.as_deref())?;
        let before = lock(trust).pointers().verified.clone();
        let policy = Policy {
            mode: self.mode,
            signers: &signers,
            anchor: self.anchor.as_ref(),
            allow_rewrite: self.allow_rewrite,
            now: Timestamp::now(),
        };
        let verdict = {
            let repo = self.reader.mirror.open()?;
            verify(&repo, &policy, before.as_ref(), head).map_err(|error: CouldNotCheck| error)?
        };
        let verified = match verdict {
            Verdict::Trusted(verified) => verified,
            Verdict::Untrusted(refusals) => {
                let subject =
                    refusals.listed.first().map(|one| one.subject.clone()).unwrap_or_default().into();
                let problems: Vec<String> = refusals.listed.iter().map(ToString::to_string).collect();
                let summary = refusals.to_string();
                let refusal = Refusal { commit: head.clone(), summary, problems };
                let untrusted = Some(refusals.listed.first().map_or("untrusted", |one| one.why.label()));
                return Ok(Judged::Refused { refusal, subject, untrusted });
            }
        };
        if before.as_ref() != Some(&verified) {
            let mut trust = lock(trust);
            let mut pointers = trust.pointers().clone();
            pointers.verified = Some(verified.clone());
            trust.set_pointers(pointers).context("remember the verified commit")?;
        }
        Ok(match self.reader.read(&verified) {
            Reading::Good(commit) => Judged::Good { commit, verified },
            Reading::Bad { subject, problems } => {
                let summary = match problems.as_slice() {
                    [one] => one.clone(),
                    all => format!(
                        "{} problems, the first: {}",
                        all.len(),
                        all.first().map_or("", String::as_str)
                    ),
                };
                let refusal = Refusal { commit: head.clone(), summary, problems };
                Judged::Refused { refusal, subject, untrusted: None }
            }
            Reading::Unreadable(why) => Judged::Unreadable(why),
        })
    }
}

/// The keys that are believed.
pub(crate) fn read_signers(path: Option<&Path>) -> Result<AllowedSigners> {
    let Some(path) = path else { return Ok(AllowedSigners::default()) };
    let text =
        std::fs::read_to_string(path).with_context(|| format!("read allowed signers {}", path.display()))?;
    AllowedSigners::parse(&text).with_context(|| path.display().to_string())
}

/// The guarded value; a thread that panicked while holding it left it whole, since every change of it is one call.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The word for a head of which nothing is known.
pub(crate) const COULD_NOT_JUDGE: &str = "could-not-judge";

/// Nothing is known about the head.
fn could_not_judge(error: &str) -> Found {
    trouble(COULD_NOT_JUDGE, error)
}

/// Most of the words are the remote's or libgit2's.
fn trouble(class: &'static str, error: &str) -> Found {
    Found::Trouble { class, error: ForeignText::bounded(error, TROUBLE_BYTES).into() }
}

/// A tenth more or less, so that five hundred hosts do not ask in one moment.
fn jittered(poll: Duration) -> Duration {
    let nanos = u32::try_from(Timestamp::now().subsec_nanosecond()).unwrap_or(0);
    poll.mul_f64(0.9 + 0.2 * f64::from(nanos % 1_000_000) / 1_000_000.0)
}
