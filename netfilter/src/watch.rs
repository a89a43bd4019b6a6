//! Reports that a link or route of Windlass may have been removed, or that another program has
//! changed nftables. The report triggers a check and carries no data.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use reconciler::name::LinkName;
use tokio::{
    io::unix::AsyncFd,
    sync::{Mutex, watch},
    task::JoinHandle,
    time,
};

use crate::{
    bridge,
    device::{self, IFF_UP, Link, RTM_DELLINK, RTM_NEWLINK},
    error::NetworkError,
    netlink::{self, Answer, Socket, attribute},
    nft::{NEW_GENERATION, Nft},
    overlay::OVERLAY_DEVICE,
    route::{IFA_LABEL, ROUTE_PROTOCOL, RTM_DELROUTE, RTM_NEWADDR, SERVICE_DEVICE},
};

/// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40;
/// `NFNLGRP_NFTABLES`, which is group 7.
const NFTABLES: u32 = 1 << 6;
/// From a change of nftables until it is looked at: a program such as Docker makes a dozen in a
/// row, and Windlass notes its own after `nft` has ended.
const SETTLE: Duration = Duration::from_secs(1);
const ENOBUFS: i32 = 105;

/// Counts the events; the tasks end when this is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) changes: watch::Receiver<u64>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Watch {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Starts the tasks that read the notifications.
pub(crate) fn start(nft: Arc<Mutex<Nft>>) -> Result<Watch, NetworkError> {
    let links = Socket::route_events(GROUPS)
        .and_then(register)
        .map_err(NetworkError::Watch)?;
    let rulesets = Socket::netfilter_events(NFTABLES)
        .and_then(register)
        .map_err(NetworkError::Watch)?;

    let (sender, changes) = watch::channel(0);
    let tasks = [
        tokio::spawn(watch_links(links, sender.clone())),
        tokio::spawn(watch_rulesets(rulesets, nft, sender)),
    ];
    Ok(Watch { changes, tasks })
}

async fn watch_links(events: AsyncFd<OwnedFd>, sender: watch::Sender<u64>) {
    while let Some(may_concern_windlass) = next(&events, may_concern_windlass).await {
        if may_concern_windlass {
            sender.send_modify(|count| *count += 1);
        }
    }
}

/// A change is reported if nftables has another generation afterwards than at the last verification.
/// A verification that repairs nothing makes no new generation, and so causes no further one.
async fn watch_rulesets(
    events: AsyncFd<OwnedFd>,
    nft: Arc<Mutex<Nft>>,
    sender: watch::Sender<u64>,
) {
    while let Some(is_changed) = next(&events, is_new_generation).await {
        if !is_changed {
            continue;
        }
        time::sleep(SETTLE).await;
        if drain(&events).is_err() {
            return;
        }
        // If the generation cannot be read, the check that follows names the error.
        if !nft.lock().await.is_undisturbed().unwrap_or(false) {
            sender.send_modify(|count| *count += 1);
        }
    }
}

#[expect(
    deprecated,
    reason = "deprecated for types that may swap their descriptor; an OwnedFd does not"
)]
fn register(events: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(events)
}

/// Waits for a datagram and returns whether it is relevant; `None` when the socket is broken.
async fn next(events: &AsyncFd<OwnedFd>, is_relevant: fn(&[u8]) -> bool) -> Option<bool> {
    loop {
        let mut ready = events.readable().await.ok()?;
        match ready.try_io(|fd| netlink::receive(fd.as_fd())) {
            Err(_would_block) => {}
            Ok(Ok(bytes)) => return Some(is_relevant(&bytes)),
            // The kernel dropped notifications (`ENOBUFS`): anything may have changed.
            Ok(Err(error)) if error.raw_os_error() == Some(ENOBUFS) => return Some(true),
            Ok(Err(error)) => {
                tracing::error!(%error, "the host's network is no longer watched");
                return None;
            }
        }
    }
}

/// Drops the datagrams that have arrived.
fn drain(events: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        match netlink::receive(events.get_ref().as_fd()) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(ENOBUFS) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Whether a transaction of nftables has ended: its last message has the new generation.
fn is_new_generation(bytes: &[u8]) -> bool {
    netlink::datagram(bytes).any(|(kind, _, _)| kind == NEW_GENERATION)
}

/// Whether a link of Windlass was removed or went down, a route of Windlass was removed, or a link
/// of another program came up or got an address: when that link went down or lost the address, the
/// kernel removed the routes through it or from it without a notification. A new link reports all
/// its flags as changed.
fn may_concern_windlass(bytes: &[u8]) -> bool {
    netlink::datagram(bytes).any(|(kind, _, body)| match kind {
        RTM_DELROUTE => body.get(5) == Some(&ROUTE_PROTOCOL),
        // A bridge of containers that gets another port connects other machines from then on.
        RTM_NEWLINK if may_be_outside_port(kind, body) => true,
        RTM_NEWLINK => {
            // `ifi_change` of `struct ifinfomsg`: the flags that have changed.
            let change = body.get(12..).and_then(netlink::number).unwrap_or(0);
            change != u32::MAX
                && change & IFF_UP != 0
                && read(kind, body).is_some_and(|link| link.up != is_our_name(&link.name))
        }
        // The label of an address is the name of its device.
        RTM_NEWADDR => body
            .get(8..)
            .and_then(|rest| attribute(rest, IFA_LABEL))
            .is_none_or(|label| {
                let name = String::from_utf8_lossy(label.strip_suffix(&[0]).unwrap_or(label));
                !is_our_name(&name)
            }),
        RTM_DELLINK => read(kind, body).is_some_and(|link| is_our_name(&link.name)),
        _ => false,
    })
}

fn read(kind: u16, body: &[u8]) -> Option<Link> {
    device::read(&answer(kind, body))
}

fn may_be_outside_port(kind: u16, body: &[u8]) -> bool {
    bridge::may_be_outside_port(&answer(kind, body))
}

fn answer(kind: u16, body: &[u8]) -> Answer {
    Answer {
        kind,
        body: body.to_vec(),
    }
}

fn is_our_name(device: &str) -> bool {
    LinkName::parse(device).is_some() || [SERVICE_DEVICE, OVERLAY_DEVICE].contains(&device)
}
