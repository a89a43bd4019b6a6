//! A relay that delays the traffic of a server, for kernels without netem.

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

/// Connections from the network to a port of a machine go through the relay, which delays both
/// directions.
///
/// The relay adds latency and does not reduce throughput: every chunk is sent on one delay after
/// its arrival.
#[derive(Debug)]
pub(crate) struct Relay {
    delay: Arc<AtomicU64>,
    port: u16,
}

impl Relay {
    /// Starts a relay for a port of a machine; no connection goes through it until
    /// [`Relay::set`].
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
                // Where the server refuses, the client's connection ends too.
                let Ok(server) = TcpStream::connect(upstream) else {
                    continue;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    forward(
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

    /// Sets the delay of each direction; with a delay of zero, new connections go to the server
    /// directly.
    ///
    /// Connections that do not go through the relay are reset, so that the delay applies to every
    /// client at once.
    #[track_caller]
    pub(crate) fn set(&self, machine: &Machine, delay: Duration) {
        self.delay
            .store(u64::try_from(delay.as_millis()).unwrap(), Ordering::Relaxed);
        // `delete table` fails where the table does not exist, so it is added before.
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

/// Forwards one direction of a connection, each chunk after the delay at the chunk's arrival.
fn forward(mut from: TcpStream, mut to: TcpStream, delay: Arc<AtomicU64>) {
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
        // The receiver's connection ends with the sender's; it may have ended already.
        drop(to.shutdown(Shutdown::Both));
    });
}
