//! Connections between the hosts of a cluster, which commands on two hosts make, with a daemon on
//! each.

mod support;

use support::{Daemon, GitRepo, Host, HostOptions, Network, Outcome, SOON, eventually};

const SETTINGS: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: b}\n";

/// Starts a daemon and waits until it listens for other hosts. The host's firewall drops incoming
/// connections, so the port is opened as an administrator would do it.
fn start(host: &Host, repository: &GitRepo, node: &str) -> Daemon {
    host.exec(&[
        "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "9465", "-j", "ACCEPT",
    ])
    .ok();
    let mut daemon = Daemon::follow(host, repository, &["--node", node]);
    daemon.wait_for_log(SOON, "listening for other hosts");
    daemon
}

fn ping(from: &Host, node: &str, to: &Host) -> Outcome {
    from.windlass(&["cluster", "ping", node, &format!("{}:9465", to.address)])
}

/// The error message of a command that must fail.
fn error_of(outcome: Outcome) -> String {
    assert!(!outcome.success(), "{outcome:?}");
    outcome.stderr
}

/// Joins as n2 with a token that `cluster join` reads from standard input.
fn join_by_stdin(host: &Host, token: &str) -> Outcome {
    let line = format!(
        "echo {} | {} cluster join --node n2 -",
        token.trim(),
        env!("CARGO_BIN_EXE_windlass")
    );
    host.exec(&["sh", "-c", &line])
}

#[test]
fn two_hosts_become_a_cluster_and_reach_each_other() {
    let network = Network::start();
    let [one, two] = [(), ()].map(|()| Host::start_on(&network, HostOptions::default()));
    let repository = GitRepo::new();
    repository.commit_signed(&[("settings.yaml", SETTINGS)], "the first");

    one.windlass(&["cluster", "init", "--node", "n1"]).ok();
    let first = start(&one, &repository, "n1");
    // The address in the token is the host's own.
    let token = one.windlass(&["cluster", "token", "--node", "n2"]).ok();
    let joined = join_by_stdin(&two, &token);
    assert_eq!(
        joined.stderr, "",
        "a token from standard input is not warned about"
    );
    joined.ok();
    let again =
        error_of(two.windlass(&["cluster", "join", "--node", "n2", "--replace", token.trim()]));
    assert!(again.contains("the join token was used at "), "{again}");
    assert!(
        again.contains("can read the join token on the command line"),
        "{again}"
    );
    let mut second = start(&two, &repository, "n2");

    for (from, node, to) in [(&one, "n2", &two), (&two, "n1", &one)] {
        let printed = ping(from, node, to).ok();
        assert!(
            printed.starts_with(&format!("{node} is alive: windlass ")),
            "{printed}"
        );
    }
    // The running daemon uses a new certificate without a restart, and the other host trusts it.
    let before = two
        .exec(&["sha256sum", "/var/lib/windlass/peer/node.pem"])
        .ok();
    two.windlass(&["cluster", "rotate"]).ok();
    assert_ne!(
        two.exec(&["sha256sum", "/var/lib/windlass/peer/node.pem"])
            .ok(),
        before
    );
    ping(&one, "n2", &two).ok();
    assert!(second.is_running());

    // No second certificate is made for the name of another host.
    let other = one.windlass(&["cluster", "token"]).ok();
    let taken =
        error_of(two.windlass(&["cluster", "join", "--node", "n1", "--replace", other.trim()]));
    assert!(
        taken.contains("a valid certificate for n1 was made at "),
        "{taken}"
    );
    assert!(second.stop().success());

    // The error of a ping distinguishes a stopped daemon from a host that does not answer.
    let gone = error_of(ping(&one, "n2", &two));
    assert!(
        gone.contains(&format!(
            "n2 at {}:9465 does not answer: Connection refused",
            two.address
        )),
        "{gone}"
    );
    let second = start(&two, &repository, "n2");
    ping(&one, "n2", &two).ok();
    two.unplug();
    let cut = error_of(ping(&one, "n2", &two));
    assert!(
        cut.contains(&format!("n2 at {}:9465 does not answer", two.address)),
        "{cut}"
    );
    two.replug();
    eventually(SOON, "the replugged host answers", || {
        ping(&one, "n2", &two).success()
    });
    assert!(first.stop().success());
    assert!(second.stop().success());
}
