//! A client that requests a URL repeatedly, and counts the requests without a good answer.

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

/// The time from one request to the next.
const INTERVAL: Duration = Duration::from_millis(20);
/// A request whose answer takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Requests a URL from inside a network namespace, with a new connection for each request, until
/// the poller is finished or dropped.
#[derive(Debug)]
pub(crate) struct Poller {
    answers: Arc<Mutex<Answers>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The answers that a [`Poller`] got.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers {
    /// The number of requests.
    pub(crate) total: usize,
    /// The number of requests that were not answered with 200.
    pub(crate) failed: usize,
    /// The longest time without a good answer, from the request of one good answer to the request
    /// of the next.
    pub(crate) longest_gap: Duration,
    /// The bodies of the last good answers, oldest first, at most a thousand.
    pub(crate) bodies: Vec<String>,
    /// The error of the first failed request, with the number of that request.
    pub(crate) first_failure: Option<String>,
    last_good: Option<Instant>,
}

impl Poller {
    /// Starts to send requests; returns after the first good answer. The URL's host is an address,
    /// for the poller resolves no names.
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
                let sent = Instant::now();
                let answer = target.request();
                lock(&answers).add(sent, answer);
                thread::sleep(INTERVAL.saturating_sub(sent.elapsed()));
            }
        }));
        eventually(SOON, &format!("{url} answers the poller"), || {
            let answers = lock(&poller.answers);
            answers.total > answers.failed
        });
        // Failures before the first good answer are not counted: the server may still have been
        // starting.
        let mut answers = lock(&poller.answers);
        *answers = Answers {
            total: 1,
            last_good: answers.last_good,
            ..Answers::default()
        };
        drop(answers);
        poller
    }

    /// The answers so far.
    pub(crate) fn answers(&self) -> Answers {
        lock(&self.answers).clone()
    }

    /// Ends the poller after at least one more request; returns the answers.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Answers {
        let before = self.answers().total;
        // The request that is under way began before the call; the next request begins after it.
        eventually(SOON, "the poller sends two more requests", || {
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
            // A panic of the thread has been printed already, and `finish` fails where no more
            // requests are sent.
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
    fn add(&mut self, sent: Instant, answer: Result<String, String>) {
        self.total += 1;
        match answer {
            Ok(body) => {
                if let Some(last) = self.last_good {
                    self.longest_gap = self.longest_gap.max(sent - last);
                }
                self.last_good = Some(sent);
                if self.bodies.len() == 1000 {
                    self.bodies.remove(0);
                }
                self.bodies.push(body);
            }
            Err(error) => {
                self.failed += 1;
                let number = self.total;
                self.first_failure
                    .get_or_insert_with(|| format!("request {number}: {error}"));
            }
        }
    }

    /// Counts a gap that no good answer has ended, with its length so far.
    fn count_open_gap(&mut self) {
        if let Some(last) = self.last_good {
            self.longest_gap = self.longest_gap.max(last.elapsed());
        }
    }
}

/// Checks that every request was answered with 200.
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
        "{failed} of {total} requests failed; the longest gap was {longest_gap:?}; \
         the first failure: {first_failure:?}"
    );
}

fn lock(answers: &Mutex<Answers>) -> std::sync::MutexGuard<'_, Answers> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The address of the server, and the whole request.
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

    /// Sends the request; returns the body of a complete answer with status 200.
    fn request(&self) -> Result<String, String> {
        let failed_to = |what: &str| {
            let what = what.to_owned();
            move |error: std::io::Error| format!("cannot {what}: {error}")
        };
        let mut stream =
            TcpStream::connect_timeout(&self.address, TIMEOUT).map_err(failed_to("connect"))?;
        stream
            .set_read_timeout(Some(TIMEOUT))
            .map_err(failed_to("set a time-out"))?;
        stream
            .write_all(self.request.as_bytes())
            .map_err(failed_to("send the request"))?;
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .map_err(failed_to("read the answer"))?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .ok_or_else(|| format!("an answer without a complete head: {answer:?}"))?;
        let status = head.split_whitespace().nth(1).unwrap_or_default();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        });
        if length.is_some_and(|length| length > body.len()) {
            return Err(format!("an answer without a complete body: {answer:?}"));
        }
        if status == "200" {
            Ok(body.to_owned())
        } else {
            Err(format!("status {status}: {body}"))
        }
    }
}
