//! Questions to a program by HTTP on its Unix socket, without a client that has to be started: most
//! looks of tests that wait are such questions.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// The JSON document at a path; nothing where no answer with 200 came in time.
pub(crate) fn get(socket: &Path, path: &str, patience: Duration) -> Option<Value> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    // By HTTP 1.0 the end of the answer is the end of the connection, and it comes in one piece.
    let request = format!("GET {path} HTTP/1.0\r\nHost: local\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;

    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?;
    if status != "200" {
        return None;
    }
    serde_json::from_str(body).ok()
}
