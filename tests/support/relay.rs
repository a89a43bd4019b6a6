//! Delay on the way to a server, where the kernel has no netem.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::guard::enter_netns;
use super::{Machine, run};

/// The port that the relay listens at.
const PORT: u16 = 3379;

/// What comes to a port of a machine from the network goes through here, and each way takes longer.
///
/// Latency and not less throughput: every chunk is handed on so long after it came.
#[derive(Debug)]
pub(crate) struct Relay {
    delay: Arc<AtomicU64>,
    port: u16,
}

impl Relay {
    /// Listens on a machine for what is to reach a port of it, and takes nothing over yet.
    pub(crate) fn start(machine: &Machine, port: u16) -> Relay {
        let delay = Arc::new(AtomicU64::new(0));
        let (namespace, upstream) = (
            machine.namespace().to_owned(),
            SocketAddr::from((machine.address, port)),
        );
        let (ready, listening) = mpsc::channel();
        let own = Arc::clone(&delay);
        thread::spawn(move || {
            enter_netns(&namespace);
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
            ready.send(()).unwrap();
            for client in listener.incoming().flatten() {
                // A server that is gone refuses; the client sees its connection end.
                let Ok(server) = TcpStream::connect(upstream) else {
                    continue;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    hand_on(
                        from.try_clone().unwrap(),
                        to.try_clone().unwrap(),
                        Arc::clone(&own),
                    );
                }
            }
        });
        listening.recv().unwrap();
        Relay { delay, port }
    }

    /// Makes each way take so much longer from now on; zero sends clients straight to the server
    /// again.
    ///
    /// Connections that are not relayed are reset, so that every client is slow at once.
    #[track_caller]
    pub(crate) fn set(&self, machine: &Machine, delay: Duration) {
        self.delay
            .store(u64::try_from(delay.as_millis()).unwrap(), Ordering::Relaxed);
        // Adding it first makes the table there to be deleted.
        let mut script = "add table ip relay\ndelete table ip relay\n".to_owned();
        if !delay.is_zero() {
            script += &format!(
                "add table ip relay
                add chain ip relay prerouting {{ type nat hook prerouting priority -100; }}
                add rule ip relay prerouting iifname eth0 tcp dport {port} redirect to :{PORT}
                add chain ip relay input {{ type filter hook input priority 0; }}
                add rule ip relay input iifname eth0 tcp dport {port} reject with tcp reset\n",
                port = self.port
            );
        }
        run(machine.command().args(["nft", &script])).ok();
    }
}

/// Copies one direction of a connection, each chunk as long after it came as the delay is then.
fn hand_on(mut from: TcpStream, mut to: TcpStream, delay: Arc<AtomicU64>) {
    let (sender, chunks) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let due = Instant::now() + Duration::from_millis(delay.load(Ordering::Relaxed));
            if sender.send((due, buffer[..count].to_vec())).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (due, chunk) in chunks {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&chunk).is_err() {
                break;
            }
        }
        // The other side learns of the end; what is gone already need not.
        drop(to.shutdown(Shutdown::Both));
    });
}
