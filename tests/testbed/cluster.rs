//! A cluster's hosts have everything that their daemons need: the store, the repository, the
//! registry, the images and a network between them.

use std::fs;

use crate::SOON;
use crate::support::{Behaviour, Cluster, GATEWAY, eventually};

#[test]
fn every_host_reaches_store_repository_registry_and_the_others() {
    let cluster = Cluster::builder(3)
        .images(&["windlass-test/app:1"])
        .pulled(&["busybox"])
        .over_https()
        .config("[rollout]\nsoak = '7s'")
        .config_of("n2", "[node]\nlabels = { disk = 'ssd' }")
        .without_daemons()
        .start();
    let commit = cluster.push(&[("pod.yaml", "kind: Pod\n")]);
    let server = cluster.server.as_ref().unwrap();
    // The variable has precedence over Git's configuration, and may be set on the machine already.
    let ca = format!("GIT_SSL_CAINFO={}", server.ca_file().display());
    let url = server.url("repo.git");
    let heads = |at: usize| {
        cluster.hosts[at]
            .host
            .exec(&["env", &ca, "git", "ls-remote", &url, "main"])
    };

    for (at, host) in cluster.hosts.iter().enumerate() {
        let number = at + 1;
        assert_eq!(host.name, format!("n{number}"));
        assert_eq!(
            host.host.address.octets(),
            [192, 168, 77, 10 + u8::try_from(number).unwrap()]
        );
        assert!(heads(at).ok().starts_with(&commit));
        host.host.docker(&["pull", "-q", "busybox"]);
        host.host.inspect("windlass-test/app:1");
        for other in &cluster.hosts {
            host.host
                .exec(&[
                    "busybox",
                    "ping",
                    "-c1",
                    "-W2",
                    &other.host.address.to_string(),
                ])
                .ok();
        }

        // With the files that the host's configuration names, the store accepts a write below the
        // host's own key.
        let written = host.host.dir().join("windlass.toml");
        let config: toml::Table = toml::from_str(&fs::read_to_string(written).unwrap()).unwrap();
        let store = |key: &str| config["store"][key].as_str().unwrap().to_owned();
        let own = format!("{}/nodes/{}/x", store("prefix"), host.name);
        let put = host.host.exec(&[
            "env",
            "ETCDCTL_API=3",
            "etcdctl",
            &format!(
                "--endpoints={}",
                config["store"]["endpoints"][0].as_str().unwrap()
            ),
            &format!("--cacert={}", store("ca-file")),
            &format!("--cert={}", store("certificate-file")),
            &format!("--key={}", store("key-file")),
            "put",
            &own,
            "here",
        ]);
        assert_eq!(put.ok(), "OK");
        assert_eq!(config["node"]["name"].as_str(), Some(host.name.as_str()));
        assert_eq!(config["node"].get("labels").is_some(), number == 2);
        assert_eq!(config["rollout"]["soak"].as_str(), Some("7s"));
    }

    cluster.network.cut_from(cluster.host("n1"), GATEWAY);
    let timed = |at: usize| {
        let git = ["env", &ca, "timeout", "2", "git", "ls-remote", &url, "main"];
        cluster.hosts[at].host.exec(&git).success()
    };
    assert!(
        !timed(0) && timed(1),
        "not exactly the first host is cut off from the repository"
    );
    cluster.network.heal(cluster.host("n1"));
    eventually(SOON, "the first host reaches the repository again", || {
        timed(0)
    });
    server.set(Behaviour::Refuse);
    assert!(!heads(1).success());
}

#[test]
fn containers_of_a_host_are_selected_by_the_name_of_their_pod() {
    let cluster = Cluster::builder(1)
        .images(&["windlass-test/app:1"])
        .without_daemons()
        .start();
    let host = cluster.host("n1");
    let run = |pod: &str, container: &str| {
        let labels = [
            "io.windlass.pod.namespace=default".to_owned(),
            format!("io.windlass.pod.name={pod}"),
            format!("io.windlass.container={container}"),
        ];
        let mut args = vec!["run", "-d"];
        labels
            .iter()
            .for_each(|label| args.extend(["--label", label]));
        args.push("windlass-test/app:1");
        host.host.docker(&args)
    };
    assert!(host.containers().is_empty());
    let (one, _) = (run("web-1", "app"), run("website", "app"));
    host.host.docker(&["run", "-d", "windlass-test/app:1"]);

    assert_eq!(host.containers().len(), 2);
    let running = host.running("web");
    assert_eq!(
        running
            .iter()
            .map(|container| container.id.as_str())
            .collect::<Vec<_>>(),
        [one.as_str()]
    );
    host.host.docker(&["stop", "-t", "1", &one]);
    assert!(host.running("web").is_empty());
    assert_eq!(host.containers().len(), 2);
}
