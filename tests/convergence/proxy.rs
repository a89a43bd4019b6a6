//! A proxy between the daemon and the engine's socket that records the requests.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// The longest line that is recorded; no request line is longer.
const LINE: usize = 8 * 1024;

/// Method and path of every request so far, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests(Arc<Mutex<Vec<String>>>);

impl Requests {
    /// Listens at a socket and forwards everything to the engine's, until the test's process ends.
    pub(crate) fn record(listen: &Path, engine: PathBuf) -> Requests {
        // Another test on this host may have left a socket there.
        drop(std::fs::remove_file(listen));
        let listener = UnixListener::bind(listen).unwrap();
        let requests = Requests::default();
        let record = requests.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, engine) = (client.unwrap(), UnixStream::connect(&engine).unwrap());
                let (from, to) = (client.try_clone().unwrap(), engine.try_clone().unwrap());
                let record = record.clone();
                thread::spawn(move || forward(from, to, |line| record.add(line)));
                thread::spawn(move || forward(engine, client, |_| ()));
            }
        });
        requests
    }

    /// The requests from number `from` on, counted from 0.
    pub(crate) fn since(&self, from: usize) -> Vec<String> {
        self.lock()[from..].to_vec()
    }

    /// The number of requests so far.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Records a line if it is a request line.
    fn add(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [method, path, "HTTP/1.1"] = words.as_slice() {
            self.lock().push(format!("{method} {path}"));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forwards bytes until either end closes, and calls `on_line` with every line.
fn forward(mut from: UnixStream, mut to: UnixStream, mut on_line: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    let mut line = Vec::new();
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        for byte in &buffer[..count] {
            match byte {
                b'\n' => on_line(&std::mem::take(&mut line)),
                _ if line.len() < LINE => line.push(*byte),
                _ => {}
            }
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // The receiver observes the end of the sender; the receiver may have closed already.
    drop(to.shutdown(std::net::Shutdown::Write));
}
