//! The daemon's files: a full disk, lost files, files of a newer version, damaged files, and two
//! daemons with the same files.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::sample::application;
use crate::support::{Container, DATA_DIR, Daemon, MAY_DELETE, SOON, Site, eventually, is};

const STATE_FILES: [&str; 6] = [
    "cluster.json",
    "instance.json",
    "node.json",
    "trust/pointers.json",
    "trust/images.json",
    "trust/accepted.json",
];

/// A site with the sample running, and the sample's commit.
fn running() -> (Site, String) {
    let mut site = Site::new("");
    let commit = site.push(
        &[("web.yaml", &application("web", "web", "one"))],
        "the first",
    );
    site.launch(&[]);
    site.wait_settled(&commit);
    (site, commit)
}

#[test]
fn a_full_disk_delays_a_rollout_and_stops_no_pod() {
    let mut site = Site::new("");
    let mount = format!("mkdir -p {DATA_DIR} && mount -t tmpfs -o size=24m tmpfs {DATA_DIR}");
    site.host.exec(&["sh", "-c", &mount]).ok();
    let first = site.push(
        &[("web.yaml", &application("web", "one", "one"))],
        "the first",
    );
    site.launch(&[]);
    site.wait_settled(&first);
    let before = site.containers();

    let fill = format!(
        "dd if=/dev/zero of={DATA_DIR}/ballast bs=4k 2>/dev/null; df --output=avail {DATA_DIR} | tail -1"
    );
    assert_eq!(site.host.exec(&["sh", "-c", &fill]).ok().trim(), "0");
    let documents = STATE_FILES.map(|name| site.state_file(name).json());
    let second = site.push(
        &[("web.yaml", &application("web", "two", "two"))],
        "the second",
    );
    site.wait_status("the full disk is published", |status| {
        let published = format!("{} {}", status["troubles"], status["source"]["error"]);
        published.contains("No space left on device")
    });
    assert_eq!(site.containers(), before, "a container was touched");
    site.wait_answer_inside("/", "one");
    for (name, document) in STATE_FILES.iter().zip(documents) {
        assert_eq!(site.state_file(name).json(), document, "{name}");
    }
    // A container that is killed is restarted in spite of the full disk.
    let app = site.only_container("app");
    site.host.docker(&["kill", &app.id]);
    eventually(SOON, "the container runs again", || {
        site.containers()
            .iter()
            .any(|container| container.attempt == app.attempt + 1 && container.is_running())
    });
    site.wait_answer_inside("/", "one");
    let before = site.containers();

    // A daemon that starts with a full disk reads the last written state.
    site.take_daemon().kill9();
    site.launch(&[]);
    site.wait_status("the first commit is healthy with a ready pod", |status| {
        is(&status["healthy"]["id"], &first) && status["ready_pods"] == 1
    });
    assert_eq!(site.containers(), before, "a container was touched");
    site.wait_answer_inside("/", "one");

    site.host.exec(&["rm", &format!("{DATA_DIR}/ballast")]).ok();
    site.wait_settled(&second);
    site.wait_answer_inside("/", "two");
    site.assert_exactly(1, 2);
    site.assert_state_files();
}

#[test]
fn a_lost_state_file_stops_no_pod() {
    let mut site = Site::new("");
    // The first pod is removed, so that the other pods do not have the addresses that the first
    // pods of a new host get.
    let pod = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - name: other\n    \
             image: windlass-test/app:1\n---\n"
        )
    };
    let first = site.push(
        &[("a.yaml", &pod("first")), ("b.yaml", &pod("second"))],
        "the first",
    );
    site.launch(&[]);
    site.wait_settled(&first);
    site.repo.git(&["rm", "-q", "a.yaml"]).ok();
    let web = application("web", "web", "web");
    let mut commit = site.push(&[("web.yaml", &web)], &format!("the second{MAY_DELETE}"));
    site.wait_settled(&commit);
    for lost in STATE_FILES {
        eprintln!("lost: {lost}");
        let (before, addresses) = (site.containers(), site.addresses());
        site.take_daemon().kill9();
        site.host.exec(&["rm", &format!("{DATA_DIR}/{lost}")]).ok();
        site.launch(&[]);
        site.wait_settled(&commit);

        assert_eq!(site.containers(), before, "{lost}: a container was touched");
        assert_eq!(site.addresses(), addresses, "{lost}");
        site.assert_exactly(2, 4);
        // The pods that run are replaced and removed in later rollouts, as without the loss.
        commit = site.push(&[("web.yaml", &application("web", lost, lost))], lost);
        site.wait_settled(&commit);
        site.wait_answer_inside("/", lost);
        site.wait_answer_inside("/notes/note", lost);
        site.assert_exactly(2, 4);
        site.assert_state_files();
        let others = |containers: BTreeSet<Container>| {
            let second = containers.into_iter();
            second
                .filter(|container| container.pod == "second")
                .collect()
        };
        let (old, new): (Vec<_>, Vec<_>) = (others(before), others(site.containers()));
        assert_eq!(new, old, "{lost}");
    }
}

#[test]
fn a_state_file_of_a_newer_version_is_refused_and_not_changed() {
    let (mut site, _) = running();
    assert!(site.take_daemon().stop().success());
    let before = site.containers();
    for name in STATE_FILES
        .into_iter()
        .chain(["images.json", "network.json"])
    {
        let path = site.host.path(DATA_DIR).join(name);
        // The records of pulled images and of the host's settings exist only where they are not
        // empty.
        let old = std::fs::read_to_string(&path).unwrap_or_else(|_| "{}".to_owned());
        let mut document: Value = serde_json::from_str(&old).unwrap();
        document["schema"] = 99.into();
        let newer = serde_json::to_string(&document).unwrap();
        std::fs::write(&path, &newer).unwrap();

        site.launch(&[]);
        let mut daemon = site.take_daemon();
        assert!(!daemon.wait_for_end(SOON).success(), "{name}");
        let log = daemon.log();
        assert!(
            log.contains(name) && log.contains("schema 99"),
            "{name}: {log}"
        );
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            newer,
            "{name} was written"
        );
        assert_eq!(site.containers(), before, "{name}");
        site.wait_answer_inside("/", "web");
        if old == "{}" {
            std::fs::remove_file(&path).unwrap();
        } else {
            std::fs::write(&path, old).unwrap();
        }
    }
}

#[test]
fn a_damaged_state_file_is_reported_and_not_changed() {
    let (mut site, _) = running();
    assert!(site.take_daemon().stop().success());
    let path = site.host.path(DATA_DIR).join("cluster.json");
    let old = std::fs::read_to_string(&path).unwrap();
    let half = &old[..old.len() / 2];
    std::fs::write(&path, half).unwrap();
    site.launch(&[]);
    let mut daemon = site.take_daemon();
    assert!(!daemon.wait_for_end(SOON).success());
    assert!(
        daemon.log().contains("cluster.json is damaged"),
        "{}",
        daemon.log()
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), half);
}

#[test]
fn a_second_daemon_with_the_same_files_is_refused() {
    let (mut site, commit) = running();
    let before = site.containers();
    let config = site.host.dir().join("windlass.toml").display().to_string();
    let mut second = Daemon::start(site.host, &["run", "--config", &config], &[]);
    assert!(!second.wait_for_end(SOON).success());
    assert!(
        second.log().contains("another daemon answers at "),
        "{}",
        second.log()
    );

    // A daemon with other sockets and the same data directory is refused too.
    let arguments = [
        "run",
        "--config",
        &config,
        "--socket-dir",
        "/run/other",
        "--listen",
        "127.0.0.1:9465",
    ];
    let mut third = Daemon::start(site.host, &arguments, &[]);
    assert!(!third.wait_for_end(SOON).success());
    assert!(third.log().contains(DATA_DIR), "{}", third.log());

    assert!(site.daemon().is_running());
    site.wait_settled(&commit);
    assert_eq!(site.containers(), before);
    eventually(SOON, "the first daemon answers", || {
        site.windlass(&["status"]).success()
    });
}
