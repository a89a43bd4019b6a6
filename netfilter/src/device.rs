//! One network device: its netlink messages (rtnetlink(7), `struct ifinfomsg`).

use std::{fs, io, path::Path};

use crate::error::NetworkError;
use crate::netlink::{Answer, Message, NEW, Socket, attribute, number};

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
pub(crate) const RTM_GETLINK: u16 = 18;
pub(crate) const IFLA_ADDRESS: u16 = 1;
pub(crate) const IFLA_IFNAME: u16 = 3;
pub(crate) const IFLA_MTU: u16 = 4;
pub(crate) const IFLA_LINK: u16 = 5;
pub(crate) const IFLA_LINKINFO: u16 = 18;
pub(crate) const IFLA_EXT_MASK: u16 = 29;
pub(crate) const IFLA_INFO_KIND: u16 = 1;
pub(crate) const IFLA_INFO_DATA: u16 = 2;
pub(crate) const IFF_UP: u32 = 1;
pub(crate) const SKIP_STATS: u32 = 1 << 3;
pub(crate) const ENODEV: i32 = 19;
pub(crate) const ESRCH: i32 = 3;

/// A network device as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) up: bool,
    /// Index of the other side of a veth pair, in that side's namespace.
    pub(crate) peer: Option<u32>,
    pub(crate) mac: Vec<u8>,
    pub(crate) mtu: Option<u32>,
}

/// The device with this name; `None` if there is none.
pub(crate) fn find(socket: &Socket, name: &str) -> io::Result<Option<Link>> {
    Ok(query(socket, name)?.as_ref().and_then(read))
}

/// The kernel's link message of one device; `None` if there is no such device.
pub(crate) fn query(socket: &Socket, name: &str) -> io::Result<Option<Answer>> {
    let message = Message::new(RTM_GETLINK, 0, &header(0, 0, 0))
        .text(IFLA_IFNAME, name)
        .attribute(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
    match socket.get(message) {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The kernel's link messages of all devices.
pub(crate) fn links(socket: &Socket) -> Result<Vec<Answer>, NetworkError> {
    socket
        .dump(|| {
            Message::new(RTM_GETLINK, 0, &header(0, 0, 0))
                .attribute(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes())
        })
        .map_err(|source| NetworkError::List {
            what: "links",
            source,
        })
}

/// The attributes of a link message that are specific to this kind; `None` if the device is of
/// another kind.
pub(crate) fn kind_data<'a>(answer: &'a Answer, kind: &str) -> Option<&'a [u8]> {
    let info = attribute(answer.body.get(16..)?, IFLA_LINKINFO)?;
    let actual_kind = attribute(info, IFLA_INFO_KIND)?;
    // The kernel ends a text in a zero byte.
    if actual_kind.strip_suffix(&[0]).unwrap_or(actual_kind) != kind.as_bytes() {
        return None;
    }
    Some(attribute(info, IFLA_INFO_DATA).unwrap_or_default())
}

/// Parses a link message; `None` if it is another message.
pub(crate) fn read(answer: &Answer) -> Option<Link> {
    let rest = answer.body.get(16..)?;
    let name = attribute(rest, IFLA_IFNAME)?;
    let text = name.strip_suffix(&[0]).unwrap_or(name);
    Some(Link {
        name: String::from_utf8_lossy(text).into_owned(),
        index: answer.body.get(4..).and_then(number)?,
        up: answer.body.get(8..).and_then(number)? & IFF_UP != 0,
        peer: attribute(rest, IFLA_LINK).and_then(number),
        mac: attribute(rest, IFLA_ADDRESS).unwrap_or_default().to_vec(),
        mtu: attribute(rest, IFLA_MTU).and_then(number),
    })
}

/// Creates a device of a kind that needs only its name.
pub(crate) fn create(name: &str, kind: &str) -> Message {
    Message::new(RTM_NEWLINK, NEW, &header(0, 0, 0))
        .text(IFLA_IFNAME, name)
        .nested(IFLA_LINKINFO, &[], |info| info.text(IFLA_INFO_KIND, kind))
}

/// Creates a device of a kind that needs further attributes.
pub(crate) fn create_with(
    name: &str,
    kind: &str,
    mac: &[u8],
    mtu: u32,
    data: impl FnOnce(Message) -> Message,
) -> Message {
    Message::new(RTM_NEWLINK, NEW, &header(0, 0, 0))
        .text(IFLA_IFNAME, name)
        .attribute(IFLA_ADDRESS, mac)
        .attribute(IFLA_MTU, &mtu.to_ne_bytes())
        .nested(IFLA_LINKINFO, &[], |info| {
            info.text(IFLA_INFO_KIND, kind)
                .nested(IFLA_INFO_DATA, &[], data)
        })
}

/// Sets the MTU, in bytes, of a device.
pub(crate) fn set_mtu(index: u32, mtu: u32) -> Message {
    Message::new(RTM_NEWLINK, 0, &header(index, 0, 0)).attribute(IFLA_MTU, &mtu.to_ne_bytes())
}

/// Sets a device up.
pub(crate) fn set_up(index: u32) -> Message {
    Message::new(RTM_NEWLINK, 0, &header(index, IFF_UP, IFF_UP))
}

/// Removes a device. A veth pair loses both sides and its route; a device that is gone is not an
/// error.
pub(crate) fn remove(socket: &Socket, name: &str) -> io::Result<()> {
    let message = Message::new(RTM_DELLINK, 0, &header(0, 0, 0)).text(IFLA_IFNAME, name);
    match socket.request(message) {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Disables IPv6 on a device; a kernel without IPv6 needs nothing.
pub(crate) fn disable_ipv6(device: &str) -> io::Result<()> {
    let setting = Path::new("/proc/sys/net/ipv6/conf")
        .join(device)
        .join("disable_ipv6");
    match fs::write(setting, "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether the kernel's error means that there is no such device or route.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENODEV | ESRCH))
}

/// The header of a link message, `struct ifinfomsg`: the device, and the values of those flags that
/// `change` names.
pub(crate) fn header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}
