//! A host that has another address than before: its daemon starts anew, as for an upgrade, and all
//! hosts follow.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    os::unix::process::CommandExt,
    process::Command,
    time::Duration,
};

use tokio::time::sleep;

use crate::config::node_address;

/// How often it is looked at. That an address has gone the kernel tells nobody who is not asking
/// for all of them.
const PACE: Duration = Duration::from_secs(2);

/// How a daemon came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was told to.
    Told,
    /// Its host has another address.
    Moved,
}

/// Waits until this host has lost the address that its daemon was started with, and has another;
/// gives that.
///
/// As long as it has the old one, that is right, wherever a default route leads.
pub(crate) async fn moved(from: Ipv4Addr) -> Ipv4Addr {
    let mut seen = None;
    loop {
        let found = if is_gone(from) {
            node_address().ok()
        } else {
            None
        };
        match found {
            // An address that was there twice is there to stay: a link that was down for a moment
            // has its old one again.
            Some(to) if seen == Some(to) => return to,
            _ => seen = found,
        }
        sleep(PACE).await;
    }
}

/// Starts this program anew, in the same process, with the same arguments. Returns only where that
/// cannot be.
pub(crate) fn start_anew() -> io::Error {
    match std::env::current_exe() {
        Ok(program) => Command::new(program)
            .args(std::env::args_os().skip(1))
            .exec(),
        Err(error) => error,
    }
}

/// Whether an address is none of this host's. Nothing is sent.
fn is_gone(address: Ipv4Addr) -> bool {
    let bound = UdpSocket::bind((address, 0));
    bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_this_host_is_there_and_another_s_is_gone() {
        assert!(!is_gone(Ipv4Addr::LOCALHOST));
        // Kept for documentation (RFC 5737): nobody's.
        assert!(is_gone(Ipv4Addr::new(192, 0, 2, 77)));
    }
}
