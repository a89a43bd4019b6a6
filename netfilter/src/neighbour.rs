//! Permanent entries of a device: the MAC of an address (neighbour table), and the host behind a
//! MAC (VXLAN forwarding database). With both set, the device neither sends ARP requests nor
//! learns.

use std::{collections::BTreeSet, net::Ipv4Addr};

use crate::{
    device,
    error::NetworkError,
    netlink::{Answer, Message, REPLACE, Socket, address, attribute, number},
};

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;
/// The entry is in the device's own forwarding database, and not in that of a bridge above it
/// (`NTF_SELF`).
const NTF_SELF: u8 = 0x02;
/// Length of `struct ndmsg`.
const HEADER: usize = 12;

/// An Ethernet address, in the order of its bytes on the wire.
pub(crate) type Mac = [u8; 6];

/// A permanent entry of a device, in one of its two tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entry {
    /// The address on the link has this MAC.
    Neighbour { address: Ipv4Addr, mac: Mac },
    /// Frames to this MAC are sent to this host.
    Forwarding { mac: Mac, host: Ipv4Addr },
}

impl Entry {
    fn message(&self, kind: u16, flags: u16, device: u32) -> Message {
        let (family, own, destination, mac) = match self {
            Self::Neighbour { address, mac } => (AF_INET, 0, address, mac),
            Self::Forwarding { mac, host } => (AF_BRIDGE, NTF_SELF, host, mac),
        };
        let mut header = [0; HEADER];
        header[0] = family;
        header[4..8].copy_from_slice(&device.to_ne_bytes());
        header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        header[10] = own;
        Message::new(kind, flags, &header)
            .attribute(NDA_DST, &destination.octets())
            .attribute(NDA_LLADDR, mac)
    }

    /// Adds the entry to a device, or replaces the one with the same key.
    pub(crate) fn put(&self, device: u32) -> Message {
        self.message(RTM_NEWNEIGH, REPLACE, device)
    }

    /// Removes the entry from a device.
    pub(crate) fn delete(&self, device: u32) -> Message {
        self.message(RTM_DELNEIGH, 0, device)
    }
}

/// All permanent neighbour and forwarding entries of a device.
pub(crate) fn permanent(socket: &Socket, device: u32) -> Result<BTreeSet<Entry>, NetworkError> {
    let mut neighbours = [0; HEADER];
    neighbours[0] = AF_INET;
    // The forwarding database is requested with the header of a link, which restricts the dump to
    // one device.
    let mut forwarding = device::header(device, 0, 0);
    forwarding[0] = AF_BRIDGE;

    let mut answers = socket
        .dump(|| Message::new(RTM_GETNEIGH, 0, &neighbours))
        .map_err(|source| NetworkError::List {
            what: "neighbours",
            source,
        })?;
    let database = socket
        .dump(|| Message::new(RTM_GETNEIGH, 0, &forwarding))
        .map_err(|source| NetworkError::List {
            what: "forwarding entries",
            source,
        })?;
    answers.extend(database);

    Ok(answers
        .iter()
        .filter_map(|answer| read(answer, device))
        .collect())
}

/// Parses an entry; `None` for one of another device, since the dump of neighbours has those of all
/// devices, and for one that is not permanent.
fn read(answer: &Answer, device: u32) -> Option<Entry> {
    let header: [u8; HEADER] = *answer.body.first_chunk()?;
    let state = u16::from_ne_bytes([header[8], header[9]]);
    if number(&header[4..])? != device || state & NUD_PERMANENT == 0 {
        return None;
    }

    let rest = &answer.body[HEADER..];
    let destination = attribute(rest, NDA_DST).and_then(address)?;
    let mac: Mac = *attribute(rest, NDA_LLADDR)?.first_chunk()?;
    match header[0] {
        AF_INET => Some(Entry::Neighbour {
            address: destination,
            mac,
        }),
        AF_BRIDGE => Some(Entry::Forwarding {
            mac,
            host: destination,
        }),
        _ => None,
    }
}
