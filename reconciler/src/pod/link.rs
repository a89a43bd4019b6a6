//! The veth pair of a pod: name and MAC address are derived from the pod's uid.

use std::net::Ipv4Addr;

use crate::{
    digest,
    name::{LinkName, PodUid},
    network::PodLink,
};

/// The veth pair of a pod; name and MAC address are derived from its uid.
pub fn link_of(uid: &PodUid, address: Ipv4Addr, mtu: u32) -> PodLink {
    let hash = digest::sha256_hex(format!("pod link\n{uid}").as_bytes());
    let byte = |at: usize| u8::from_str_radix(&hash[at..at + 2], 16).unwrap_or(0);
    // First octet 0x02: locally administered, not multicast (IEEE 802).
    let host_mac = [0x02, byte(20), byte(22), byte(24), byte(26), byte(28)];
    PodLink {
        name: link_name(uid),
        address,
        host_mac,
        mtu,
    }
}

/// The name of a pod's link: at most 15 characters, the kernel's limit (`IFNAMSIZ`).
pub fn link_name(uid: &PodUid) -> LinkName {
    let hash = digest::sha256_hex(format!("pod link\n{uid}").as_bytes());
    LinkName::with_digits(&hash[..11])
}
