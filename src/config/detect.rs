//! The facts about a host that its configuration may omit.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
};

use anyhow::{Context, Result, bail};
use reconciler::pod::files::DnsFacts;

/// The host name, in lower case: a node's name is a DNS name, in which case does not matter.
pub(super) fn host_name() -> Result<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").context("read the host's name")?;
    let name = name.trim().to_lowercase();
    if name.is_empty() || name == "(none)" {
        bail!("this host has no name: set `name` in [node] of the configuration");
    }
    Ok(name)
}

/// The address of this host on the default route. Connecting a UDP socket sends no packet: it only
/// reads the routing table.
pub(crate) fn node_address() -> Result<Ipv4Addr> {
    let chosen = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| {
            // Any address behind the default route is suitable; this one is reserved for
            // documentation (RFC 5737).
            socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9))?;
            socket.local_addr()
        })
        .context(
            "this host has no default route to tell its address by: set `address` in [node]",
        )?;
    match chosen.ip() {
        IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => Ok(address),
        other => bail!(
            "this host's address looks like {other}, which others cannot reach: set `address` in [node]"
        ),
    }
}

/// The settings of the host's own resolver.
pub(crate) fn dns_facts(cluster: Ipv4Addr, zone: &str) -> DnsFacts {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut facts = DnsFacts {
        cluster: Some(cluster),
        zone: zone.to_owned(),
        ..DnsFacts::default()
    };
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => facts.host_servers.extend(words.take(1).map(str::to_owned)),
            Some("search" | "domain") => facts.host_searches = words.map(str::to_owned).collect(),
            Some("options") => facts.host_options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    facts
}
