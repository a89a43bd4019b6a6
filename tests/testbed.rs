//! Tests of the test bed itself, which all other whole-system tests use.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

#[path = "testbed/cluster.rs"]
mod cluster;
#[path = "testbed/cuts.rs"]
mod cuts;
#[path = "testbed/etcd.rs"]
mod etcd;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use support::{Daemon, GitRepo, Host, HostOptions, Network, Registry, SOON, eventually};

/// Starts the test application; returns the address of its container.
fn start_app(host: &Host, name: &str) -> String {
    host.load_image("windlass-test/app:1");
    host.docker(&[
        "run",
        "-d",
        "--name",
        name,
        "-p",
        "18080:8080",
        "windlass-test/app:1",
    ]);
    let address = host.docker(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", name]);
    let url = format!("http://{address}:8080/");
    eventually(SOON, "the application answers its own host", || {
        host.http_get(&url).is_some()
    });
    address
}

#[test]
fn an_engine_runs_containers_and_stops_them_at_once() {
    let host = Host::shared();
    let address = start_app(host, "one");

    let answer = host.http_get(&format!("http://{address}:8080/")).unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body.starts_with("app 1 "), "{answer:?}");

    let start = std::time::Instant::now();
    host.docker(&["stop", "-t", "30", "one"]);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "the application ignores TERM"
    );
    host.docker(&["rm", "one"]);
}

#[test]
fn a_host_has_links_rules_and_files_of_its_own() {
    let host = Host::shared();

    let links = host.exec(&["ip", "-o", "link"]).ok();
    let own = links.lines().filter(|line| line.contains(" eth0@")).count();
    assert_eq!(own, 1, "{links}");
    let rules = host.exec(&["iptables", "-S"]).ok();
    assert!(
        rules.contains("-P INPUT DROP") && rules.contains("-P FORWARD DROP"),
        "{rules}"
    );

    host.exec(&["touch", "/var/lib/of-the-host", "/run/of-the-host"])
        .ok();
    assert!(host.path("/var/lib/of-the-host").exists());
    assert!(host.path("/var/run/of-the-host").exists());
    assert!(!PathBuf::from("/var/lib/of-the-host").exists());
    assert!(!PathBuf::from("/run/of-the-host").exists());
}

#[test]
fn hosts_reach_each_other_and_no_other_network() {
    let network = Network::start();
    let [one, two] = [(), ()].map(|()| Host::start_on(&network, HostOptions::default()));
    start_app(&one, "app");

    two.exec(&[
        "busybox",
        "ping",
        "-c",
        "1",
        "-W",
        "2",
        &one.address.to_string(),
    ])
    .ok();
    let url = format!("http://{}:18080/", one.address);
    assert_eq!(two.http_get(&url).unwrap().status, 200);
    assert_eq!(
        two.http_get("http://192.0.2.1/"),
        None,
        "an address outside of the network answers"
    );

    one.unplug();
    assert_eq!(two.http_get(&url), None, "an unplugged host answers");
    one.replug();
    eventually(
        SOON,
        "the host answers again after it was replugged",
        || two.http_get(&url).is_some(),
    );
}

#[test]
fn an_engine_can_be_killed_and_restarted_and_its_host_rebooted() {
    let host = Host::start_on(
        &Network::start(),
        HostOptions {
            dockerd: vec!["--live-restore".into()],
            ..HostOptions::default()
        },
    );
    start_app(&host, "app");
    let started = host.inspect("app")["State"]["StartedAt"].clone();

    host.kill_docker();
    assert!(!host.try_docker(&["version"]).success());
    host.start_docker();
    assert_eq!(
        host.inspect("app")["State"]["StartedAt"],
        started,
        "the container was restarted in spite of live-restore"
    );

    host.restart_docker();
    host.exec(&["nft", "add table ip left-over"]).ok();
    host.reboot();
    assert_eq!(host.inspect("app")["State"]["Running"], false);
    assert!(
        !host
            .exec(&["nft", "list tables"])
            .ok()
            .contains("left-over")
    );
    host.docker(&["start", "app"]);
}

#[test]
fn a_registry_serves_names_with_its_address_and_plain_names() {
    let network = Network::start();
    let host = Host::start_on(&network, HostOptions::default());
    let registry = Registry::start(&network);
    host.load_image("windlass-test/app:1");
    let digest = registry.push(&host, "windlass-test/app:1", "library/plain");
    assert!(digest.starts_with("sha256:"), "{digest}");
    host.docker(&["rmi", "windlass-test/app:1"]);

    host.docker(&["pull", "-q", "plain"]);
    host.docker(&[
        "pull",
        "-q",
        &format!("{}/library/plain@{digest}", registry.address()),
    ]);
    let absent = format!("{}/library/absent:1", registry.address());
    let missing = host.try_docker(&["pull", &absent]);
    assert!(
        missing.stderr.contains("manifest unknown") || missing.stderr.contains("not found"),
        "{missing:?}"
    );

    registry.stop();
    let unreachable = host.try_docker(&["pull", &absent]);
    assert!(
        unreachable.stderr.contains("connection refused"),
        "{unreachable:?}"
    );
    registry.resume();
}

#[test]
fn a_dropped_host_leaves_nothing() {
    let network = Network::start();
    let host = Host::start_on(&network, HostOptions::default());
    start_app(&host, "app");
    host.docker(&["pause", "app"]);
    let mut sleeper = host.command("sleep").arg("1000").spawn().unwrap();
    let dirs = [host.dir().to_owned(), network.dir().to_owned()];
    let names = dirs
        .each_ref()
        .map(|dir| dir.file_name().unwrap().to_str().unwrap().to_owned());

    drop(host);
    drop(network);

    assert!(
        sleeper.wait().unwrap().code().is_none(),
        "the sleeper was not killed"
    );
    for dir in &dirs {
        assert!(!dir.exists(), "{} was not removed", dir.display());
    }
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let namespaces = support::run(Command::new("ip").args(["netns"])).ok();
    let processes = support::run(Command::new("ps").args(["-eo", "args"])).ok();
    let groups = support::run(Command::new("find").args(["/sys/fs/cgroup", "-maxdepth", "2"])).ok();
    for name in &names {
        for (what, text) in [
            ("mount", &mounts),
            ("namespace", &namespaces),
            ("process", &processes),
            ("control group", &groups),
        ] {
            // Whole words are compared, because wlt7-10 contains wlt7-1.
            let remains = text
                .split(|c: char| !c.is_alphanumeric() && c != '-')
                .any(|word| word == name);
            assert!(!remains, "a {what} of {name} was not removed:\n{text}");
        }
    }
}

#[test]
fn git_verifies_the_signatures_that_a_repository_makes() {
    let repo = GitRepo::new();
    let signed = repo.commit_signed(&[("a/pod.yaml", "kind: Pod\n")], "add a pod");
    assert_eq!(
        support::run(Command::new("git").args([
            "-C",
            repo.path().to_str().unwrap(),
            "rev-parse",
            "main"
        ]))
        .ok(),
        signed
    );
    let allowed = format!(
        "gpg.ssh.allowedSignersFile={}",
        repo.allowed_signers().display()
    );
    let verify = |commit: &str| repo.git(&["-c", &allowed, "verify-commit", commit]);
    assert!(verify(&signed).success(), "{:?}", verify(&signed));

    let unsigned = repo.commit_unsigned(&[("a/pod.yaml", "kind: None\n")], "not signed");
    assert!(!verify(&unsigned).success());

    for kind in ["ed25519", "ecdsa", "rsa"] {
        let stranger = repo.new_signer("stranger@example.com", kind);
        let commit = repo.commit_signed_by(&stranger, &[("a/pod.yaml", kind)], "by a stranger");
        assert!(!verify(&commit).success());
        repo.trust(&stranger);
        assert!(verify(&commit).success(), "{:?}", verify(&commit));
    }

    let before = repo.head();
    let rewritten = repo.rewrite_head(&[("b.yaml", "")], "another past");
    assert!(
        !repo
            .git(&["merge-base", "--is-ancestor", &before, &rewritten])
            .success()
    );
    repo.commit_removing(&["a"], "remove a directory");
    assert!(!repo.work().join("a").exists());
}

#[test]
fn the_images_run_the_software_they_are_named_after() {
    let host = Host::shared();
    for image in ["httpd", "mysql", "wordpress"] {
        host.load_image(image);
    }
    let address_of =
        |name: &str| host.docker(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", name]);
    host.docker(&["run", "-d", "--name", "httpd", "httpd"]);
    host.docker(&[
        "run",
        "-d",
        "--name=mysql",
        "--env=MYSQL_RANDOM_ROOT_PASSWORD=yes",
        "--env=MYSQL_DATABASE=blog",
        "--env=MYSQL_USER=writer",
        "--env=MYSQL_PASSWORD=it's secret",
        "mysql",
    ]);
    host.docker(&[
        "run",
        "-d",
        "--name=wordpress",
        &format!("--env=WORDPRESS_DB_HOST={}", address_of("mysql")),
        "--env=WORDPRESS_DB_NAME=blog",
        "--env=WORDPRESS_DB_USER=writer",
        "--env=WORDPRESS_DB_PASSWORD=it's secret",
        "wordpress",
    ]);

    let answers = |name: &str, path: &str, text: &str| {
        let url = format!("http://{}{path}", address_of(name));
        eventually(
            Duration::from_secs(60),
            &format!("{url} answers with {text:?}"),
            || {
                host.http_get(&url)
                    .is_some_and(|answer| answer.status == 200 && answer.body.contains(text))
            },
        );
    };
    answers("httpd", "/", "It works!");
    answers("wordpress", "/wp-admin/install.php", "Information needed");

    host.docker(&["rm", "-fv", "httpd", "mysql", "wordpress"]);
}

#[test]
fn the_binary_under_test_runs_on_its_host() {
    let host = Host::shared();
    let mut daemon = Daemon::start(host, &["--version"], &[]);
    assert!(daemon.wait_for_end(SOON).success(), "{}", daemon.log());
}
