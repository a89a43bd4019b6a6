//! Restarts the daemon of a host that has got another address, as for an upgrade; the other hosts
//! follow.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    os::unix::process::CommandExt,
    process::Command,
    time::Duration,
};

use tokio::time::sleep;

use crate::config::node_address;

/// The interval of the checks. The kernel reports a removed address only to processes that
/// subscribe to all address changes.
const PACE: Duration = Duration::from_secs(2);

/// Why a daemon has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A signal ended the daemon.
    Stopped,
    /// The host has another address.
    Moved,
}

/// Waits until this host has lost the address that its daemon was started with, and has another
/// one; returns the new address.
///
/// While the host has the old address, that one stays right, wherever a default route leads.
pub(crate) async fn moved(from: Ipv4Addr) -> Ipv4Addr {
    let mut observed = None;
    loop {
        let address = if is_gone(from) {
            node_address().ok()
        } else {
            None
        };
        match address {
            // An address observed twice is stable: after a short failure of a link the host has its
            // old address again.
            Some(to) if observed == Some(to) => return to,
            _ => observed = address,
        }
        sleep(PACE).await;
    }
}

/// Starts this program again, in the same process, with the same arguments. Returns only if that
/// fails.
pub(crate) fn start_anew() -> io::Error {
    match std::env::current_exe() {
        Ok(program) => Command::new(program)
            .args(std::env::args_os().skip(1))
            .exec(),
        Err(error) => error,
    }
}

/// Whether this host does not have an address. Sends no packet: bind(2) fails with EADDRNOTAVAIL for
/// an address of no device.
fn is_gone(address: Ipv4Addr) -> bool {
    let bound = UdpSocket::bind((address, 0));
    bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_that_the_host_does_not_have_is_gone() {
        assert!(!is_gone(Ipv4Addr::LOCALHOST));
        // Reserved for documentation (RFC 5737): no host has it.
        assert!(is_gone(Ipv4Addr::new(192, 0, 2, 77)));
    }
}
