//! The nine given manifests, each in a commit.

use std::collections::BTreeSet;
use std::fs;

use crate::support::{SOON, Site, eventually, eventually_some, repository_root};

/// The unchanged text of a given manifest.
fn given(name: &str) -> String {
    fs::read_to_string(
        repository_root()
            .join("reconciler/tests/manifests")
            .join(name),
    )
    .unwrap()
}

fn site(images: &[&str]) -> Site {
    let site = Site::new("");
    images.iter().for_each(|image| site.host.load_image(image));
    site
}

/// The names of the pods that begin with `start`.
fn pods(site: &Site, start: &str) -> Vec<String> {
    let names = site
        .list("pods")
        .into_iter()
        .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned());
    names.filter(|name| name.starts_with(start)).collect()
}

#[test]
fn apache_answers_other_machines_at_its_node_port() {
    let mut site = site(&["httpd"]);
    site.deploy_only(&[("svc-httpd.yml", &given("svc-httpd.yml"))], "run httpd");
    site.wait_url(&site.url(30080, "/"), "It works!");
    assert_eq!(
        site.host
            .http_get(&site.url(30080, "/"))
            .map(|answer| answer.status),
        Some(200)
    );
    assert_eq!(
        site.host.http_get("http://127.0.0.1:30080/"),
        None,
        "a NodePort answers on loopback"
    );
}

#[test]
fn wordpress_serves_its_installation_page_from_each_of_its_manifests() {
    let mut site = site(&["mysql", "wordpress"]);
    let url = site.url(30080, "/wp-admin/install.php");
    let page = "Information needed";

    site.deploy_only(
        &[("app-wordpress.yml", &given("app-wordpress.yml"))],
        "WordPress and MySQL in one pod",
    );
    site.wait_url(&url, page);
    assert_eq!(pods(&site, "").len(), 1);

    for (file, owner) in [
        ("app-wordpress2.yml", "wordpress-reps-"),
        ("app-wordpress3.yml", "wordpress-"),
    ] {
        site.deploy_only(&[(file, &given(file))], &format!("WordPress from {file}"));
        site.wait_url(&url, page);
        // New replicas run before the old ones are gone.
        let replicas = eventually_some(
            SOON,
            &format!("{file}: exactly two replicas are listed"),
            || {
                let replicas = pods(&site, owner)
                    .into_iter()
                    .filter(|name| name != "wordpress-mysql");
                Some(replicas.collect::<Vec<String>>()).filter(|replicas| replicas.len() == 2)
            },
        );
        // Requests are spread over both replicas.
        eventually(SOON, &format!("{file}: both replicas answer"), || {
            assert_eq!(
                site.get_from_outside(&url).map(|answer| answer.status),
                Some(200),
                "{file}"
            );
            replicas.iter().all(|pod| {
                let log = site.host.windlass(&["logs", pod, "-c", "wordpress"]).ok();
                log.lines().any(|line| {
                    line.contains("GET /wp-admin/install.php") && line.contains(" 200 ")
                })
            })
        });
    }
}

#[test]
fn agents_have_the_docker_socket_and_run_their_stop_hook_when_they_are_deleted() {
    let mut site = site(&["mackerel/mackerel-agent", "windlass-test/app:1"]);
    let state = site.host.path("/var/lib/mackerel-agent");
    let retired = || {
        fs::read_to_string(state.join("retired"))
            .unwrap_or_default()
            .lines()
            .count()
    };
    let mut before = 0;
    for (file, count) in [
        ("mackerel-daemonset.yaml", 1),
        ("mackerel-pod.yaml", 1),
        ("mackerel-replicaset.yaml", 3),
    ] {
        site.deploy_only(&[(file, &given(file))], &format!("agents of {file}"));
        let agents = pods(&site, "mackerel-agent");
        assert_eq!(agents.len(), count, "{file}: {agents:?}");
        for agent in &agents {
            let run = |script: &str| {
                site.exec(agent, "mackerel-agent", &["sh", "-c", script])
                    .ok()
            };
            run("test -S /var/run/docker.sock");
            assert_eq!(
                run("cat /var/lib/mackerel-agent/id"),
                fs::read_to_string(state.join("id")).unwrap()
            );
            let log = site.host.windlass(&["logs", agent]).ok();
            assert!(
                log.contains("apikey=<your api key> opts=-role=<Service>:<Role> docker_plugin=foo"),
                "{log}"
            );
        }
        let app = "apiVersion: v1\nkind: Pod\nmetadata: {name: other}\nspec:\n  containers:\n  \
                   - {name: app, image: 'windlass-test/app:1'}\n";
        site.deploy_only(&[("other.yaml", app)], "no agents");
        eventually(SOON, &format!("the agents of {file} retire"), || {
            retired() == before + count
        });
        eventually(SOON, &format!("the agents of {file} are gone"), || {
            pods(&site, "mackerel-agent").is_empty()
        });
        before += count;
    }
    let lines = fs::read_to_string(state.join("retired")).unwrap();
    assert!(
        lines.lines().all(|line| line.ends_with("by retire -force")),
        "{lines}"
    );
}

#[test]
fn three_replicas_answer_at_an_allocated_node_port_and_are_restarted_by_their_probe() {
    let mut site = site(&["example/example:v1.0-SNAPSHOT"]);
    let files = [
        ("deployment.yaml", given("deployment.yaml")),
        ("services.yaml", given("services.yaml")),
    ];
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    site.deploy_only(&files, "run the example with its services");

    let service = site.get("service", "example-app");
    let port = u16::try_from(service["spec"]["ports"][0]["nodePort"].as_u64().unwrap()).unwrap();
    assert!((30000..=32767).contains(&port), "{service}");
    let replicas: BTreeSet<String> = pods(&site, "example-app-deployment-").into_iter().collect();
    assert_eq!(replicas.len(), 3, "{replicas:?}");
    let mut answered = BTreeSet::new();
    eventually(SOON, "all three replicas answer", || {
        let answer = site.get_from_outside(&site.url(port, "/")).unwrap();
        answered.insert(answer.body.trim_start_matches("example ").to_owned());
        answered == replicas
    });

    let replica = replicas.first().unwrap();
    let lookup = site
        .exec(
            replica,
            "example-app",
            &["nslookup", "mysql-service.default.svc.cluster.local"],
        )
        .ok();
    assert!(lookup.contains("Address: 10.0.2.2"), "{lookup}");
    let warnings = site.status()["warnings"].to_string();
    assert!(warnings.contains("an address, not a name"), "{warnings}");

    // Without this file the container's liveness probe fails.
    site.exec(replica, "example-app", &["rm", "/www/health"])
        .ok();
    eventually(SOON, "the container is restarted and ready", || {
        let status = &site.get("pod", replica)["status"]["containerStatuses"][0];
        status["restartCount"] == 1 && status["ready"] == true
    });
}
