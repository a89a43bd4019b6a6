#![expect(clippy::unwrap_used, reason = "a test")]

use super::*;
use crate::table::tests::host;

/// The rules of a Docker engine (as iptables 1.8.9 saves them).
const DOCKER: &str = "\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j DOCKER
-A DOCKER-USER -j RETURN
COMMIT
";

fn commands(saved: &str) -> String {
    let saved = Saved::read(saved);
    change(&saved.ours, &saved.wanted(&host(), None))
}

fn commands_for_peers(saved: &str, peers: &[&str]) -> String {
    let saved = Saved::read(saved);
    let peers = peers.iter().map(|peer| peer.parse().unwrap()).collect();
    change(&saved.ours, &saved.wanted(&host(), Some(&peers)))
}

#[test]
fn a_host_that_does_not_filter_gets_no_rules() {
    assert_eq!(commands(""), "");
    assert_eq!(commands(":INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n"), "");
}

#[test]
fn rules_are_set_in_the_chain_of_docker_for_users() {
    assert_eq!(
        commands(DOCKER),
        "-I DOCKER-USER 1 -d 10.244.0.0/16 -m comment --comment windlass -j ACCEPT\n\
         -I DOCKER-USER 1 -s 10.244.0.0/16 -m comment --comment windlass -j ACCEPT\n"
    );
}

#[test]
fn without_docker_rules_are_set_at_the_top_of_the_filtering_chains() {
    assert_eq!(
        commands(":INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n"),
        "-I FORWARD 1 -d 10.244.0.0/16 -m comment --comment windlass -j ACCEPT\n\
         -I FORWARD 1 -s 10.244.0.0/16 -m comment --comment windlass -j ACCEPT\n\
         -I INPUT 1 -s 10.244.0.0/16 -d 10.96.0.10/32 -p tcp -m tcp --dport 53 -m comment --comment windlass -j ACCEPT\n\
         -I INPUT 1 -s 10.244.0.0/16 -d 10.96.0.10/32 -p udp -m udp --dport 53 -m comment --comment windlass -j ACCEPT\n"
    );
}

#[test]
fn existing_rules_stay_and_misplaced_ones_are_moved() {
    let ours = "-A DOCKER-USER -s 10.244.0.0/16 -m comment --comment windlass -j ACCEPT\n\
                -A DOCKER-USER -d 10.244.0.0/16 -m comment --comment \"windlass\" -j ACCEPT\n";
    assert_eq!(commands(&DOCKER.replace("COMMIT\n", ours)), "");
    let misplaced = ours.replace("DOCKER-USER", "FORWARD");
    let commands = commands(&DOCKER.replace("COMMIT\n", &misplaced));
    assert_eq!(
        commands
            .lines()
            .filter(|line| line.starts_with("-D FORWARD"))
            .count(),
        2
    );
    assert_eq!(
        commands
            .lines()
            .filter(|line| line.starts_with("-I DOCKER-USER"))
            .count(),
        2
    );
}

#[test]
fn a_chain_with_rules_of_windlass_only_does_not_filter() {
    let saved = ":INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n\
                 -A FORWARD -s 10.244.0.0/16 -m comment --comment windlass -j ACCEPT\n";
    assert_eq!(
        commands(saved).lines().next().unwrap().split(' ').next(),
        Some("-D")
    );
}

#[test]
fn vxlan_packets_are_accepted_from_the_current_peers() {
    let saved = ":INPUT DROP [0:0]\n\
                 -A INPUT -s 10.244.0.0/16 -d 10.96.0.10/32 -p tcp -m tcp --dport 53 -m comment --comment windlass -j ACCEPT\n\
                 -A INPUT -s 10.244.0.0/16 -d 10.96.0.10/32 -p udp -m udp --dport 53 -m comment --comment windlass -j ACCEPT\n\
                 -A INPUT -s 192.0.2.2/32 -p udp -m udp --dport 8487 -m comment --comment windlass -j ACCEPT\n";
    assert_eq!(
        commands(saved),
        "",
        "the rules stay while the peers are unknown"
    );
    assert_eq!(commands_for_peers(saved, &["192.0.2.2"]), "");
    assert_eq!(
        commands_for_peers(saved, &["192.0.2.3"]),
        "-D INPUT -s 192.0.2.2/32 -p udp -m udp --dport 8487 -m comment --comment windlass -j ACCEPT\n\
         -I INPUT 1 -s 192.0.2.3/32 -p udp -m udp --dport 8487 -m comment --comment windlass -j ACCEPT\n"
    );
    assert_eq!(
        commands_for_peers(":INPUT ACCEPT [0:0]\n", &["192.0.2.3"]),
        ""
    );
}
