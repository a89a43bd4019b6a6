//! The accept rules that let pod traffic through the host's own filter.
//!
//! An accept in one table does not override a drop in another. So where the host filters with
//! iptables (which Docker does, with the policy of FORWARD set to DROP), accept rules by address
//! are set in its chains and marked with a comment: in `DOCKER-USER` where Docker provides it, else
//! at the top of FORWARD. Where iptables filters nothing, no rules are set. VXLAN packets are
//! accepted from each peer's address by a rule of its own.

use std::{collections::BTreeSet, net::Ipv4Addr};

use reconciler::network::HostNetwork;

use crate::{error::NetworkError, program, table::TABLE};

const SAVE: &str = "iptables-save";
const RESTORE: &str = "iptables-restore";
const DOCKER_CHAIN: &str = "DOCKER-USER";
/// Seconds to wait for the lock of iptables, which another program may hold.
const WAIT: &str = "--wait=10";

/// An accept rule of Windlass in a chain of iptables. Two rules are equal if they have the same
/// effect, even if iptables prints them differently.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AcceptRule {
    chain: String,
    source: Option<String>,
    destination: Option<String>,
    protocol: Option<String>,
    port: Option<String>,
}

impl AcceptRule {
    /// The rule's arguments in an iptables command.
    fn specification(&self) -> String {
        let mut text = String::new();
        for (option, value) in [
            ("-s", &self.source),
            ("-d", &self.destination),
            ("-p", &self.protocol),
        ] {
            if let Some(value) = value {
                text.push_str(&format!("{option} {value} "));
            }
        }
        if let (Some(protocol), Some(port)) = (&self.protocol, &self.port) {
            text.push_str(&format!("-m {protocol} --dport {port} "));
        }
        format!("{text}-m comment --comment {TABLE} -j ACCEPT")
    }
}

impl std::fmt::Display for AcceptRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "iptables {} {}", self.chain, self.specification())
    }
}

/// The parts of the output of `iptables-save -t filter` that decide which rules are needed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Saved {
    ours: Vec<AcceptRule>,
    forward_filters: bool,
    input_filters: bool,
    forward_jumps_to_docker_user: bool,
}

impl Saved {
    fn read(text: &str) -> Self {
        let mut saved = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                // A chain filters nothing if it accepts by policy and has only rules of Windlass.
                [":FORWARD", policy, ..] => saved.forward_filters |= *policy != "ACCEPT",
                [":INPUT", policy, ..] => saved.input_filters |= *policy != "ACCEPT",
                ["-A", chain, rest @ ..] if is_ours(rest) => {
                    saved.ours.push(read_rule(chain, rest))
                }
                ["-A", "FORWARD", rest @ ..] => {
                    saved.forward_filters = true;
                    saved.forward_jumps_to_docker_user |= *rest == ["-j", DOCKER_CHAIN];
                }
                ["-A", "INPUT", ..] => saved.input_filters = true,
                _ => {}
            }
        }
        saved
    }

    /// The rules that must exist. While the peers are unknown, the rules for peers stay as they
    /// are: a daemon that restarts interrupts no VXLAN traffic.
    fn wanted(
        &self,
        host: &HostNetwork,
        vxlan_peers: Option<&BTreeSet<Ipv4Addr>>,
    ) -> BTreeSet<AcceptRule> {
        let mut wanted = BTreeSet::new();
        if self.forward_filters {
            wanted.extend(self.forward_rules(host));
        }
        if self.input_filters {
            wanted.extend(dns_rules(host));
            wanted.extend(self.vxlan_rules(host, vxlan_peers));
        }
        wanted
    }

    /// The rules that let packets from and to pods pass through the host.
    fn forward_rules(&self, host: &HostNetwork) -> [AcceptRule; 2] {
        let chain = if self.forward_jumps_to_docker_user {
            DOCKER_CHAIN
        } else {
            "FORWARD"
        };
        let rule = AcceptRule {
            chain: chain.to_owned(),
            ..AcceptRule::default()
        };
        let pods = Some(host.pod_range.trunc().to_string());
        let from_pods = AcceptRule {
            source: pods.clone(),
            ..rule.clone()
        };
        let to_pods = AcceptRule {
            destination: pods,
            ..rule
        };
        [from_pods, to_pods]
    }

    /// The rules that accept VXLAN packets: one for each peer, or the existing ones while the peers
    /// are unknown.
    fn vxlan_rules(
        &self,
        host: &HostNetwork,
        vxlan_peers: Option<&BTreeSet<Ipv4Addr>>,
    ) -> Vec<AcceptRule> {
        let rule_from = |source: Option<String>| AcceptRule {
            chain: "INPUT".to_owned(),
            source,
            destination: None,
            protocol: Some("udp".to_owned()),
            port: Some(host.vxlan.port.to_string()),
        };
        match vxlan_peers {
            Some(peers) => {
                let sources = peers.iter().map(|peer| format!("{peer}/32"));
                sources.map(|source| rule_from(Some(source))).collect()
            }
            None => {
                let is_vxlan = |rule: &&AcceptRule| **rule == rule_from(rule.source.clone());
                self.ours.iter().filter(is_vxlan).cloned().collect()
            }
        }
    }
}

/// The rules that let pods query the cluster's DNS, which the daemon serves on the host itself.
fn dns_rules(host: &HostNetwork) -> [AcceptRule; 2] {
    ["tcp", "udp"].map(|protocol| AcceptRule {
        chain: "INPUT".to_owned(),
        source: Some(host.pod_range.trunc().to_string()),
        destination: Some(format!("{}/32", host.dns)),
        protocol: Some(protocol.to_owned()),
        port: Some("53".to_owned()),
    })
}

fn is_ours(words: &[&str]) -> bool {
    // Whether iptables-save quotes a comment of one word depends on its version.
    words
        .windows(2)
        .any(|pair| matches!(pair, ["--comment", comment] if comment.trim_matches('"') == TABLE))
}

fn read_rule(chain: &str, words: &[&str]) -> AcceptRule {
    let option = |name: &str| {
        words
            .windows(2)
            .find(|pair| pair[0] == name)
            .map(|pair| pair[1].to_owned())
    };
    AcceptRule {
        chain: chain.to_owned(),
        source: option("-s"),
        destination: option("-d"),
        protocol: option("-p"),
        port: option("--dport"),
    }
}

/// Ensures that the accept rules are in the chains where they have an effect, and in no others.
/// True if something was changed.
pub(crate) async fn ensure(
    host: &HostNetwork,
    vxlan_peers: Option<&BTreeSet<Ipv4Addr>>,
) -> Result<bool, NetworkError> {
    let saved = save().await?;
    let wanted = saved.wanted(host, vxlan_peers);
    let commands = change(&saved.ours, &wanted);
    if commands.is_empty() {
        return Ok(false);
    }
    restore(&commands).await?;
    Ok(true)
}

/// Removes all accept rules and returns them.
pub(crate) async fn remove() -> Result<Vec<AcceptRule>, NetworkError> {
    let saved = save().await?;
    let commands = change(&saved.ours, &BTreeSet::new());
    if !commands.is_empty() {
        restore(&commands).await?;
    }
    Ok(saved.ours)
}

/// The commands that change the existing rules into the wanted ones, each rule once.
fn change(present: &[AcceptRule], wanted: &BTreeSet<AcceptRule>) -> String {
    let mut text = String::new();
    let mut kept = BTreeSet::new();
    for rule in present {
        // A rule that exists twice is deleted once: iptables deletes the first that matches.
        if !wanted.contains(rule) || !kept.insert(rule) {
            text.push_str(&format!("-D {} {}\n", rule.chain, rule.specification()));
        }
    }

    // At the top of the chain: below a rule that drops, or below the RETURN that Docker may put at the
    // end of DOCKER-USER, an accept has no effect.
    for rule in wanted.iter().filter(|rule| !kept.contains(rule)) {
        text.push_str(&format!("-I {} 1 {}\n", rule.chain, rule.specification()));
    }
    text
}

/// A host without iptables has no iptables chains.
async fn save() -> Result<Saved, NetworkError> {
    match program::run(SAVE, &["-t", "filter"], "").await {
        Ok(text) => Ok(Saved::read(&text)),
        Err(error) if program::is_missing(&error) => Ok(Saved::default()),
        Err(error) => Err(error),
    }
}

/// Runs one transaction; `--noflush` keeps everything that it does not name.
async fn restore(commands: &str) -> Result<(), NetworkError> {
    let text = format!("*filter\n{commands}COMMIT\n");
    program::run(RESTORE, &["--noflush", WAIT], &text).await?;
    Ok(())
}

/// Whether this host has the legacy variant of iptables, whose changes do not change the nftables
/// generation.
pub(crate) async fn is_legacy() -> bool {
    program::run("iptables", &["--version"], "")
        .await
        .is_ok_and(|version| version.contains("legacy"))
}

#[cfg(test)]
mod tests;
