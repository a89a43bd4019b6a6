//! A proxy between the daemon and the engine's socket that remembers what was asked.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Longer than any request line; what is longer is none.
const LINE: usize = 8 * 1024;

/// Method and path of every request so far, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests(Arc<Mutex<Vec<String>>>);

impl Requests {
    /// Listens at a socket and passes everything on to another, until the test's process ends.
    pub(crate) fn record(listen: &Path, engine: PathBuf) -> Requests {
        // Left there by another test on this host.
        drop(std::fs::remove_file(listen));
        let listener = UnixListener::bind(listen).unwrap();
        let requests = Requests::default();
        let record = requests.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, engine) = (client.unwrap(), UnixStream::connect(&engine).unwrap());
                let (from, to) = (client.try_clone().unwrap(), engine.try_clone().unwrap());
                let record = record.clone();
                thread::spawn(move || pass(from, to, |bytes| record.take(bytes)));
                thread::spawn(move || pass(engine, client, |_| ()));
            }
        });
        requests
    }

    /// All since the `from`th.
    pub(crate) fn since(&self, from: usize) -> Vec<String> {
        self.lock()[from..].to_vec()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn take(&self, line: &[u8]) {
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

/// Passes bytes on until either end hangs up; shows every line, of which request lines are some.
fn pass(mut from: UnixStream, mut to: UnixStream, mut show: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    let mut line = Vec::new();
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        for byte in &buffer[..count] {
            match byte {
                b'\n' => show(&std::mem::take(&mut line)),
                _ if line.len() < LINE => line.push(*byte),
                _ => {}
            }
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // The other side sees the end; one that has hung up already is no error.
    drop(to.shutdown(std::net::Shutdown::Write));
}
