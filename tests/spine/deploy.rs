//! Deployment of a signed push.

use crate::manifest::{APP, APP_2, deployment, idle, pod, service};
use crate::support::{Site, eventually};

#[test]
fn pods_of_a_signed_push_are_reached_from_pods_the_host_and_other_machines() {
    let mut site = Site::started("");
    site.deploy(&[
        ("web.yaml", &pod("web", APP)),
        ("service.yaml", &service("web")),
        ("client.yaml", &pod("client", &idle())),
    ]);

    let answer = site.ask("/").unwrap();
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "app 1 web"),
        "the answer to another machine at the node port"
    );
    assert_eq!(
        site.host.http_get(&site.node_url("/")).unwrap().body,
        "app 1 web",
        "the answer to the host itself at the node port"
    );

    let address = site.get("pod", "web")["status"]["podIP"]
        .as_str()
        .unwrap()
        .to_owned();
    let cluster_ip = site.get("service", "web")["spec"]["clusterIP"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        site.host
            .http_get(&format!("http://{cluster_ip}/"))
            .unwrap()
            .body,
        "app 1 web",
        "the answer to the host at the ClusterIP"
    );
    let dashed = address.replace('.', "-");
    for url in [
        format!("http://{address}:8080/"),
        format!("http://{cluster_ip}/"),
        "http://web/".to_owned(),
        "http://web.default/".to_owned(),
        "http://web.default.svc.cluster.local/".to_owned(),
        format!("http://{dashed}.default.pod.cluster.local:8080/"),
    ] {
        // In the pod web the name web resolves to the pod itself, by /etc/hosts, not to the
        // Service.
        let own_name = url == "http://web/";
        for from in ["client", "web"]
            .into_iter()
            .filter(|from| !own_name || *from != "web")
        {
            let fetched = site.fetch_from(from, &url);
            assert_eq!(
                (fetched.stdout.as_str(), fetched.code),
                ("app 1 web", 0),
                "{from} requests {url}: {fetched:?}"
            );
        }
    }
    let unknown = site.fetch_from("client", "http://absent.default.svc.cluster.local./");
    assert!(
        unknown.stderr.contains("Could not resolve host"),
        "{unknown:?}"
    );
    assert_eq!(site.exec("client", "app", &["hostname"]).ok(), "client");
}

#[test]
fn a_changed_pod_is_replaced_and_the_others_keep_their_containers() {
    let mut site = Site::started("");
    site.deploy(&[
        ("web.yaml", &pod("web", APP)),
        ("service.yaml", &service("web")),
        ("other.yaml", &deployment("other", 2, APP)),
    ]);
    let (web, other) = (site.running_of("web"), site.running_of("other"));
    assert_eq!(
        (web.len(), other.len()),
        (2, 4),
        "each pod has a container and a sandbox"
    );

    site.deploy(&[("web.yaml", &pod("web", APP_2))]);
    site.wait_answer("/", "app 2 web");
    assert_eq!(
        site.running_of("other"),
        other,
        "a container that the commit did not change was touched"
    );
    let replaced = site.running_of("web");
    assert!(
        replaced
            .iter()
            .all(|new| web.iter().all(|old| old.id != new.id)),
        "{web:?} {replaced:?}"
    );

    site.deploy(&[("more.yaml", &pod("more", &idle()))]);
    assert_eq!(
        site.running_of("web"),
        replaced,
        "a container that the commit did not change was touched"
    );
    assert_eq!(
        site.running_of("other"),
        other,
        "a container that the commit did not change was touched"
    );

    site.repo.commit_removing(&["more.yaml"], "remove one");
    eventually(crate::support::SOON, "the removed pod is gone", || {
        site.running_of("more").is_empty()
    });
    assert_eq!(
        site.running_of("web"),
        replaced,
        "a container that the commit did not change was touched"
    );
}
