//! The VXLAN device, which carries packets to the pods of other hosts in UDP: unicast, without
//! learning.
//!
//! The MAC of a host's device is computed from the host's address, so that every host can compute
//! the MACs of all others. The device has the network address of the host's pod subnet, which no
//! pod is assigned.

use std::{collections::BTreeSet, fs, io, net::Ipv4Addr, path::Path};

use reconciler::network::{HostNetwork, VXLAN_OVERHEAD};

use crate::{
    device::{self, Link},
    error::NetworkError,
    link::{self},
    neighbour::Mac,
    netlink::{Answer, Message, Socket, address, attribute, number},
    route::{self, Scope},
};

/// The VXLAN device. It exists as long as at least one peer is reached through it.
pub const OVERLAY_DEVICE: &str = "windlass1";

const KIND: &str = "vxlan";
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;

/// The MAC of a host's device: locally administered, and different for each address.
pub(crate) fn mac(host: Ipv4Addr) -> Mac {
    let [a, b, c, d] = host.octets();
    [0x02, 0x57, a, b, c, d]
}

/// The address of a host's device.
pub(crate) fn own_address(host: &HostNetwork) -> Ipv4Addr {
    host.pod_subnet.network()
}

/// The attributes of a device that cannot be changed: where they differ, the device is deleted and
/// created again.
#[derive(Debug, PartialEq, Eq)]
struct Tunnel {
    id: u32,
    local: Ipv4Addr,
    port: u16,
    learning: bool,
    mac: Vec<u8>,
}

impl Tunnel {
    fn of(host: &HostNetwork) -> Self {
        Self {
            id: host.vxlan.id,
            local: host.node_address,
            port: host.vxlan.port,
            learning: false,
            mac: mac(host.node_address).to_vec(),
        }
    }

    /// `None` if the device is of another kind.
    fn read(answer: &Answer) -> Option<Self> {
        let info = device::kind_data(answer, KIND)?;
        Some(Self {
            id: attribute(info, IFLA_VXLAN_ID).and_then(number)?,
            local: attribute(info, IFLA_VXLAN_LOCAL).and_then(address)?,
            port: attribute(info, IFLA_VXLAN_PORT)?
                .first_chunk()
                .map(|port| u16::from_be_bytes(*port))?,
            learning: attribute(info, IFLA_VXLAN_LEARNING)? != [0],
            mac: device::read(answer)?.mac,
        })
    }

    fn create(&self, mtu: u32) -> Message {
        device::create_with(OVERLAY_DEVICE, KIND, &self.mac, mtu, |data| {
            data.attribute(IFLA_VXLAN_ID, &self.id.to_ne_bytes())
                .attribute(IFLA_VXLAN_LOCAL, &self.local.octets())
                .attribute(IFLA_VXLAN_LEARNING, &[u8::from(self.learning)])
                .attribute(IFLA_VXLAN_PORT, &self.port.to_be_bytes())
        })
    }
}

/// Ensures that the device exists, is up, and has its MTU and its address. Returns its index, and
/// whether something was changed.
pub(crate) fn ensure(socket: &Socket, host: &HostNetwork) -> Result<(u32, bool), NetworkError> {
    let failed = |source| NetworkError::Overlay {
        id: host.vxlan.id,
        port: host.vxlan.port,
        source,
    };
    let wanted = Tunnel::of(host);
    // VXLAN packets must not be fragmented (RFC 7348): an inner packet leaves room for the headers.
    let mtu = link::uplink_mtu(socket, host.node_address)?.saturating_sub(VXLAN_OVERHEAD);
    let existing_device = existing(socket, &wanted).map_err(failed)?;
    let device = match &existing_device {
        Some(link) => link.clone(),
        None => make(socket, &wanted, mtu).map_err(failed)?,
    };

    let index = device.index;
    let mut messages = Vec::new();
    if device.mtu != Some(mtu) {
        messages.push(device::set_mtu(index, mtu));
    }

    let own = own_address(host);
    let addresses: BTreeSet<Ipv4Addr> = route::addresses(socket)?
        .into_iter()
        .filter(|(device, _)| *device == index)
        .map(|(_, address)| address)
        .collect();
    for address in &addresses {
        if *address != own {
            messages.push(route::delete_address(index, *address));
        }
    }
    if !addresses.contains(&own) {
        messages.push(route::put_address(index, own, Some(Scope::Universe)));
    }

    // A device that is up was set up by Windlass: its settings were made before its first packet.
    if !device.up {
        configure_device().map_err(failed)?;
        messages.push(device::set_up(index));
    }

    let changed = existing_device.is_none() || !messages.is_empty();
    if !messages.is_empty() {
        socket.requests(messages).map_err(failed)?;
    }
    Ok((index, changed))
}

/// The device, if it exists and is as wanted. Another device with its name is deleted.
fn existing(socket: &Socket, wanted: &Tunnel) -> io::Result<Option<Link>> {
    let Some(answer) = device::query(socket, OVERLAY_DEVICE)? else {
        return Ok(None);
    };
    if Tunnel::read(&answer).as_ref() == Some(wanted) {
        return Ok(device::read(&answer));
    }
    device::remove(socket, OVERLAY_DEVICE)?;
    Ok(None)
}

fn make(socket: &Socket, wanted: &Tunnel, mtu: u32) -> io::Result<Link> {
    socket.request(wanted.create(mtu))?;
    device::find(socket, OVERLAY_DEVICE)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// The same settings as on a pod link. The table drops packets with a wrong source even where the
/// host's own settings weaken `rp_filter`.
fn configure_device() -> io::Result<()> {
    let settings = Path::new("/proc/sys/net/ipv4/conf").join(OVERLAY_DEVICE);
    for (setting, value) in [
        ("rp_filter", "1"),
        ("accept_redirects", "0"),
        ("send_redirects", "0"),
        ("forwarding", "1"),
    ] {
        fs::write(settings.join(setting), value)?;
    }
    device::disable_ipv6(OVERLAY_DEVICE)
}

/// Removes the device with all its entries and routes. True if the device existed.
pub(crate) fn remove(socket: &Socket, host: &HostNetwork) -> Result<bool, NetworkError> {
    let failed = |source| NetworkError::Overlay {
        id: host.vxlan.id,
        port: host.vxlan.port,
        source,
    };
    let existing_device = device::find(socket, OVERLAY_DEVICE).map_err(failed)?;
    if existing_device.is_none() {
        return Ok(false);
    }
    device::remove(socket, OVERLAY_DEVICE).map_err(failed)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_unicast_and_locally_administered_and_has_the_hosts_address() {
        let bytes = mac(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(bytes, [0x02, 0x57, 192, 0, 2, 1]);
        assert_eq!(bytes[0] & 0b11, 0b10);
    }
}
