//! A client that asks again and again, and counts what it did not get.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::eventually;
use super::guard::enter_netns;
use super::site::SOON;

/// The time from one question to the next.
const PACE: Duration = Duration::from_millis(20);
/// What takes longer is not answered.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks a URL from inside a network namespace, on a new connection each time, until it is finished
/// or dropped.
#[derive(Debug)]
pub(crate) struct Poller {
    answers: Arc<Mutex<Answers>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a [`Poller`] got.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers {
    /// How often it asked.
    pub(crate) total: usize,
    /// How many of these were not answered with 200.
    pub(crate) failed: usize,
    /// The longest time without a good answer, from its question to the question that got the next
    /// one.
    pub(crate) longest_gap: Duration,
    /// The bodies of the last good answers, oldest first, at most a thousand.
    pub(crate) bodies: Vec<String>,
    /// What went wrong first, and at which question.
    pub(crate) first_failure: Option<String>,
    last_good: Option<Instant>,
}

impl Poller {
    /// Begins to ask; returns after the first good answer. The URL has an address and no name.
    #[track_caller]
    pub(crate) fn start(namespace: &str, url: &str) -> Poller {
        let target = Target::of(url);
        let (answers, end) = (
            Arc::<Mutex<Answers>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let mut poller = Poller {
            answers: Arc::clone(&answers),
            end: Arc::clone(&end),
            thread: None,
        };
        let namespace = namespace.to_owned();
        poller.thread = Some(thread::spawn(move || {
            enter_netns(&namespace);
            while !end.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let answer = target.ask();
                lock(&answers).add(asked, answer);
                thread::sleep(PACE.saturating_sub(asked.elapsed()));
            }
        }));
        eventually(SOON, &format!("{url} answers the poller"), || {
            let answers = lock(&poller.answers);
            answers.total > answers.failed
        });
        // What went wrong before it ever went well is no failure of what is there to be watched.
        let mut answers = lock(&poller.answers);
        *answers = Answers {
            total: 1,
            last_good: answers.last_good,
            ..Answers::default()
        };
        drop(answers);
        poller
    }

    /// What it got so far.
    pub(crate) fn answers(&self) -> Answers {
        lock(&self.answers).clone()
    }

    /// Ends asking, after asking once more; gives what it got.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Answers {
        let before = self.answers().total;
        eventually(SOON, "the poller goes on", || {
            self.answers().total > before + 1
        });
        self.end();
        let mut answers = self.answers();
        answers.count_open_gap();
        answers
    }

    fn end(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic was printed; whoever looks at the answers sees that they end.
            drop(thread.join());
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.end();
    }
}

impl Answers {
    fn add(&mut self, asked: Instant, answer: Result<String, String>) {
        self.total += 1;
        match answer {
            Ok(body) => {
                if let Some(last) = self.last_good {
                    self.longest_gap = self.longest_gap.max(asked - last);
                }
                self.last_good = Some(asked);
                if self.bodies.len() == 1000 {
                    self.bodies.remove(0);
                }
                self.bodies.push(body);
            }
            Err(error) => {
                self.failed += 1;
                let number = self.total;
                self.first_failure
                    .get_or_insert_with(|| format!("question {number}: {error}"));
            }
        }
    }

    /// A gap that no good answer has ended counts as far as it goes.
    fn count_open_gap(&mut self) {
        if let Some(last) = self.last_good {
            self.longest_gap = self.longest_gap.max(last.elapsed());
        }
    }
}

/// Checks that every question was answered.
#[track_caller]
pub(crate) fn assert_all_answered(answers: &Answers) {
    let Answers {
        total,
        failed,
        longest_gap,
        first_failure,
        ..
    } = answers;
    assert_eq!(
        *failed, 0,
        "{failed} of {total} were not answered, for {longest_gap:?}: {first_failure:?}"
    );
}

fn lock(answers: &Mutex<Answers>) -> std::sync::MutexGuard<'_, Answers> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where to ask, and the whole question.
#[derive(Debug)]
struct Target {
    address: SocketAddr,
    request: String,
}

impl Target {
    #[track_caller]
    fn of(url: &str) -> Target {
        let rest = url
            .strip_prefix("http://")
            .unwrap_or_else(|| panic!("{url} is not plain HTTP"));
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let with_port = if host.contains(':') {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let address = with_port
            .parse()
            .unwrap_or_else(|error| panic!("{host} is no address and port: {error}"));
        let mut request = String::new();
        write!(
            request,
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        Target { address, request }
    }

    /// The body of an answer with status 200 that came whole.
    fn ask(&self) -> Result<String, String> {
        let said = |what: &str| {
            let what = what.to_owned();
            move |error: std::io::Error| format!("{what}: {error}")
        };
        let mut stream =
            TcpStream::connect_timeout(&self.address, PATIENCE).map_err(said("connect"))?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .map_err(said("set a time-out"))?;
        stream
            .write_all(self.request.as_bytes())
            .map_err(said("ask"))?;
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .map_err(said("read the answer"))?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .ok_or_else(|| format!("no whole answer: {answer:?}"))?;
        let status = head.split_whitespace().nth(1).unwrap_or_default();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        });
        if length.is_some_and(|length| length > body.len()) {
            return Err(format!("half an answer: {answer:?}"));
        }
        if status == "200" {
            Ok(body.to_owned())
        } else {
            Err(format!("status {status}: {body}"))
        }
    }
}
