//! Firewalls of other programs that may drop pod traffic.

use std::fmt;

use ipnet::Ipv4Net;
use reconciler::network::HostNetwork;

use crate::{error::NetworkError, program, table::TABLE};

/// A table of another program that filters forwarded or incoming packets. An accept in another
/// table does not override its drop, and Windlass does not change tables of other programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// Family and name of the table, such as `inet firewalld`.
    pub table: String,
    /// The command that lets pod traffic through, for an administrator.
    pub remedy: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the firewall in table {} may drop pod traffic; allow it with: {}",
            self.table, self.remedy
        )
    }
}

/// Lists the obstacles. With `tunnels`, incoming VXLAN packets are considered too.
pub(super) async fn find(host: &HostNetwork, tunnels: bool) -> Result<Vec<Obstacle>, NetworkError> {
    let chains = program::run("nft", &["list", "chains"], "").await?;
    let vxlan_port = if tunnels { Some(host.vxlan.port) } else { None };
    Ok(read(&chains, &host.pod_range.trunc(), vxlan_port))
}

/// Parses `nft list chains`. `ip filter` is the table of iptables, which gets accept rules.
fn read(chains: &str, pods: &Ipv4Net, vxlan_port: Option<u16>) -> Vec<Obstacle> {
    let mut obstacles: Vec<Obstacle> = Vec::new();
    let (mut table, mut chain) = ("", "");
    for line in chains.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {");
        } else if let Some(name) = line.strip_prefix("chain ") {
            chain = name.trim_end_matches(" {");
        } else if filters_ip(table) && may_drop(table, line) {
            let remedy = if is_firewalld(table) {
                firewalld_remedy(pods, vxlan_port)
            } else {
                nft_remedy(table, chain, line, pods, vxlan_port)
            };
            obstacles.push(Obstacle {
                table: table.to_owned(),
                remedy,
            });
        }
    }
    // firewalld has several chains, which all have one remedy.
    obstacles.dedup_by(|a, b| a == b);
    obstacles
}

fn is_firewalld(table: &str) -> bool {
    table.ends_with("firewalld")
}

/// Whether a line declares a base chain that packets from or to pods pass, and that may drop them.
fn may_drop(table: &str, line: &str) -> bool {
    let is_passed = line.contains("hook forward") || line.contains("hook input");
    // The chains of firewalld accept by policy and reject by their last rule.
    is_passed && (line.contains("policy drop") || is_firewalld(table))
}

fn firewalld_remedy(pods: &Ipv4Net, vxlan_port: Option<u16>) -> String {
    let open_port = match vxlan_port {
        Some(port) => format!("firewall-cmd --permanent --add-port={port}/udp && "),
        None => String::new(),
    };
    format!(
        "{open_port}firewall-cmd --permanent --zone=trusted --add-source={pods} && firewall-cmd --reload"
    )
}

/// The commands for a table that an administrator wrote.
fn nft_remedy(
    table: &str,
    chain: &str,
    declaration: &str,
    pods: &Ipv4Net,
    vxlan_port: Option<u16>,
) -> String {
    let accept = |what: String| format!("nft insert rule {table} {chain} {what} accept");
    let mut commands = vec![
        accept(format!("ip saddr {pods}")),
        accept(format!("ip daddr {pods}")),
    ];
    // VXLAN packets end on the host itself. Those that are not from peers have been dropped by our
    // table before they reach this chain.
    if let Some(port) = vxlan_port
        && declaration.contains("hook input")
    {
        commands.push(accept(format!("udp dport {port}")));
    }
    commands.join("; ")
}

fn filters_ip(table: &str) -> bool {
    let family = table.split(' ').next();
    matches!(family, Some("ip" | "inet")) && table != "ip filter" && table != format!("ip {TABLE}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_tables_that_drop_are_named_with_a_remedy() {
        let chains = "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n\
                      table inet filter {\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n\
                      \tchain output {\n\t\ttype filter hook output priority filter; policy drop;\n\t}\n}\n\
                      table inet firewalld {\n\tchain filter_FORWARD {\n\t\ttype filter hook forward priority filter + 10; policy accept;\n\t}\n}\n\
                      table ip6 filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n";
        let obstacles = read(
            chains,
            &Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 1, 0, 0), 16),
            Some(8487),
        );
        let tables: Vec<&str> = obstacles
            .iter()
            .map(|obstacle| obstacle.table.as_str())
            .collect();
        assert_eq!(tables, ["inet filter", "inet firewalld"]);
        assert_eq!(
            obstacles[0].remedy,
            "nft insert rule inet filter forward ip saddr 10.1.0.0/16 accept; nft insert rule inet filter forward ip daddr 10.1.0.0/16 accept"
        );
        assert!(
            obstacles[1]
                .remedy
                .starts_with("firewall-cmd --permanent --add-port=8487/udp && ")
        );
    }
}
