//! Probes: a sensor that probes containers and counts the results. The core decides what follows
//! from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use reconciler::{
    fault::FaultKind,
    foreign::ForeignText,
    name::ContainerId,
    object::{Handler, Probe},
    observed::ProbeFact,
    plan::{ProbeKind, ProbeTask},
    time::backoff,
};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    http::{self, RequestError},
    runtime::{Runtime, exec::ExecOutcome},
};

mod count;

use count::{Count, Verdict};

/// The first interval at which a container that has just started is probed in addition.
const KNOCK: Duration = Duration::from_millis(50);
/// The limit, in bytes, of a probe's message, as in Kubernetes.
const MESSAGE_BYTES: usize = 1024;

type ProbeKey = (ContainerId, ProbeKind);

/// The interface between the control loop and the probes: [`Prober`], or
/// [`crate::fake::FakeProber`].
pub trait Probes: Send + Sync {
    /// See [`Prober::set`].
    fn set(&self, wanted: &[ProbeTask]);
    /// See [`Prober::facts`].
    fn facts(&self) -> BTreeMap<(ContainerId, ProbeKind), ProbeFact>;
}

impl Probes for Prober {
    fn set(&self, wanted: &[ProbeTask]) {
        Prober::set(self, wanted);
    }

    fn facts(&self) -> BTreeMap<(ContainerId, ProbeKind), ProbeFact> {
        Prober::facts(self)
    }
}

/// Runs probes, each in a task of its own with at most one attempt under way: a probe that hangs
/// delays no other.
pub struct Prober {
    runtime: Runtime,
    running: Mutex<Running>,
    results: Arc<ProbeResults>,
}

#[derive(Default)]
struct Running {
    tasks: BTreeMap<ProbeKey, Task>,
    /// Whether `set` was called before: at the start of the daemon all probes begin at once, and
    /// their first attempts are spread.
    begun: bool,
}

struct Task {
    probe: ProbeTask,
    handle: AbortHandle,
}

struct ProbeResults {
    board: Mutex<Board>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Board {
    facts: BTreeMap<ProbeKey, ProbeFact>,
    /// The probes of the last `set`: a probe that was just ended may still return a result, which
    /// is dropped.
    wanted: BTreeSet<ProbeKey>,
}

impl Prober {
    /// A prober without probes. Commands are run through `runtime`.
    pub fn new(runtime: Runtime) -> Self {
        let found = ProbeResults {
            board: Mutex::default(),
            changed: watch::Sender::new(0),
        };
        Self {
            runtime,
            running: Mutex::default(),
            results: Arc::new(found),
        }
    }

    /// Makes exactly these probes run. A running probe that has not changed continues undisturbed;
    /// the fact of a probe that is not wanted any more is dropped. Must be called inside a tokio
    /// runtime.
    pub fn set(&self, wanted: &[ProbeTask]) {
        let mut running = self.running.lock();
        let keys: BTreeSet<ProbeKey> = wanted.iter().map(key).collect();
        running.tasks.retain(|key, task| {
            let stays = keys.contains(key);
            if !stays {
                task.handle.abort();
            }
            stays
        });
        let mut board = self.results.board();
        board.facts.retain(|key, _| keys.contains(key));
        board.wanted = keys;
        drop(board);

        let spread = !std::mem::replace(&mut running.begun, true);
        for probe in wanted {
            let key = key(probe);
            if let Some(task) = running.tasks.get(&key) {
                let is_same =
                    task.probe.probe == probe.probe && task.probe.address == probe.address;
                if is_same {
                    continue;
                }
                task.handle.abort();
            }
            let handle = self.start(probe, spread);
            running.tasks.insert(
                key,
                Task {
                    probe: probe.clone(),
                    handle,
                },
            );
        }
    }

    /// The facts by container and probe; a probe that has not reached a threshold has none.
    pub fn facts(&self) -> BTreeMap<(ContainerId, ProbeKind), ProbeFact> {
        self.results.board().facts.clone()
    }

    /// A counter that changes whenever a fact is added or changes its value.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.results.changed.subscribe()
    }

    fn start(&self, task: &ProbeTask, spread: bool) -> AbortHandle {
        // A probe that has changed keeps its last result until it has another one.
        let board = self.results.board();
        let last = board.facts.get(&key(task)).map(|fact| fact.ok);
        drop(board);
        let known = last.or(task.initial);
        if let Some(ok) = known {
            self.results.publish(task, ok, "");
        }

        let (runtime, found, task) = (
            self.runtime.clone(),
            Arc::clone(&self.results),
            task.clone(),
        );
        tokio::spawn(async move { run(&runtime, &found, &task, known, spread).await })
            .abort_handle()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        let running = self.running.get_mut();
        running.tasks.values().for_each(|task| task.handle.abort());
    }
}

impl ProbeResults {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock()
    }

    /// A fact with an unchanged value keeps its time; only a changed value notifies the receivers.
    fn publish(&self, task: &ProbeTask, ok: bool, message: &str) {
        let key = key(task);
        let mut board = self.board();
        if !board.wanted.contains(&key) {
            return;
        }
        match board.facts.get_mut(&key) {
            Some(fact) if fact.ok == ok => message.clone_into(&mut fact.message),
            _ => {
                let fact = ProbeFact {
                    ok,
                    since: Timestamp::now(),
                    message: message.to_owned(),
                };
                board.facts.insert(key, fact);
                drop(board);
                self.changed
                    .send_modify(|count| *count = count.wrapping_add(1));
            }
        }
    }
}

/// Probes until the result is final.
async fn run(
    runtime: &Runtime,
    found: &ProbeResults,
    task: &ProbeTask,
    known: Option<bool>,
    spread: bool,
) {
    let mut count = Count::new(task.kind, &task.probe, known);
    if count.is_final() {
        return;
    }
    let mut next = first_attempt(task, spread);
    let mut may_knock = may_knock(task, known);
    let mut knocks = 0;
    loop {
        sleep_until(next).await;
        let mut answer = attempt(runtime, task).await;
        if may_knock && matches!(answer, Answer::Bad(_)) {
            let turn = next + task.probe.period;
            if is_let_in(runtime, task, &mut knocks, turn).await {
                next = Instant::now();
                answer = Answer::Good;
            }
        }

        let verdict = match answer {
            Answer::Good => {
                may_knock = false;
                Some((count.take(true), String::new()))
            }
            Answer::Bad(message) => Some((count.take(false), message)),
            Answer::NotAsked(why) => {
                tracing::debug!(container = %task.container, kind = ?task.kind, why, "a probe could not be run");
                None
            }
        };
        match verdict {
            None | Some((Verdict::Undecided, _)) => {}
            Some((Verdict::Good, message)) => found.publish(task, true, &message),
            Some((Verdict::Bad, message)) => found.publish(task, false, &message),
        }

        if count.is_final() {
            return;
        }
        // An attempt that took longer than the period is followed by the next one at once.
        next = (next + task.probe.period).max(Instant::now());
    }
}

/// Whether additional attempts are cheap and a success would change a fact.
fn may_knock(task: &ProbeTask, known: Option<bool>) -> bool {
    let cheap = matches!(
        task.probe.handler,
        Handler::HttpGet { .. } | Handler::TcpSocket { .. }
    );
    cheap && task.kind != ProbeKind::Liveness && known != Some(true)
}

/// A container that has just started may be ready long before its next regular attempt: until then
/// it is probed at growing intervals. Only a success counts, so that no failure is reached sooner.
async fn is_let_in(runtime: &Runtime, task: &ProbeTask, knocks: &mut u32, turn: Instant) -> bool {
    let period = task.probe.period;
    loop {
        let wait = backoff(KNOCK, *knocks, period);
        if wait >= period || Instant::now() + wait >= turn {
            return false;
        }
        sleep(wait).await;
        *knocks += 1;
        if matches!(attempt(runtime, task).await, Answer::Good) {
            return true;
        }
    }
}

/// The time of the first attempt: after the initial delay, counted from the container's start.
fn first_attempt(task: &ProbeTask, spread: bool) -> Instant {
    let age = Duration::try_from(Timestamp::now().duration_since(task.started)).unwrap_or_default();
    let delay = task.probe.initial_delay.saturating_sub(age);

    // A probe of a container that has just started begins at once: its result is waited for.
    let is_old = delay.is_zero() && age > task.probe.period;
    let spreading = if spread && is_old {
        let period = u64::try_from(task.probe.period.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(hash(task) % period.max(1))
    } else {
        Duration::ZERO
    };
    Instant::now() + delay + spreading
}

/// A number that differs from probe to probe.
fn hash(task: &ProbeTask) -> u64 {
    let mut hasher = DefaultHasher::new();
    key(task).hash(&mut hasher);
    hasher.finish()
}

fn key(task: &ProbeTask) -> ProbeKey {
    (task.container.clone(), task.kind)
}

/// The result of one attempt.
enum Answer {
    Good,
    /// The container failed, with this message.
    Bad(String),
    /// The engine could not run the command, which is no evidence about the container: the attempt
    /// is not counted, or an engine that fails would have every container with such a probe
    /// restarted.
    NotAsked(String),
}

impl Answer {
    /// The container failed; what it sent is in the message, which is bounded and escaped here.
    fn bad(message: &str) -> Self {
        Self::Bad(ForeignText::bounded(message, MESSAGE_BYTES).into())
    }
}

impl From<Result<(), RequestError>> for Answer {
    fn from(result: Result<(), RequestError>) -> Self {
        match result {
            Ok(()) => Self::Good,
            Err(error) => Self::bad(&error.to_string()),
        }
    }
}

async fn attempt(runtime: &Runtime, task: &ProbeTask) -> Answer {
    let Probe {
        handler, timeout, ..
    } = &task.probe;
    match handler {
        Handler::Exec { command } => match runtime.exec(&task.container, command, *timeout).await {
            Ok(outcome) => answer_of(outcome, *timeout),
            // The command cannot be run: some engines report that as an error, others as an exit
            // code.
            Err(fault) if fault.kind == FaultKind::Rejected => Answer::bad(&fault.message),
            Err(fault) => Answer::NotAsked(fault.message),
        },
        Handler::HttpGet {
            host,
            port,
            path,
            https,
            headers,
        } => {
            let status = match http::url(*https, host.as_deref(), task.address, *port, path) {
                Ok(url) => runtime.inner.http.get(url, headers, *timeout).await,
                Err(error) => Err(error),
            };
            let result = match status {
                Ok(200..=399) => Ok(()),
                Ok(status) => Err(RequestError::Status(status)),
                Err(error) => Err(error),
            };
            result.into()
        }
        Handler::TcpSocket { host, port } => {
            http::connect(host.as_deref(), task.address, *port, *timeout)
                .await
                .into()
        }
        // Only hooks have `sleep`; a probe with it reports no failure of the container.
        Handler::Sleep { .. } => Answer::Good,
    }
}

fn answer_of(outcome: ExecOutcome, limit: Duration) -> Answer {
    let seconds = limit.as_secs_f32();
    match outcome {
        ExecOutcome::Exited { code: 0, .. } => Answer::Good,
        ExecOutcome::Exited { code, output } => Answer::bad(&format!(
            "exit code {code}: {}",
            ForeignText::from_bytes(output.trim_ascii(), MESSAGE_BYTES)
        )),
        ExecOutcome::TimedOut => Answer::bad(&format!(
            "the command did not end within {seconds} s and was killed"
        )),
        ExecOutcome::Unanswered => Answer::NotAsked(format!(
            "the container engine did not run the command within {seconds} s"
        )),
    }
}
