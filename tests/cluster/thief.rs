//! An attacker who may write all of the store, and checks that need workloads of certain kinds.

use serde_json::{Value, json};

use crate::{
    manifest::{APP, APP_2, deployment},
    support::{Cluster, SOON},
};

/// Writes the store's keys as the leader and all hosts would.
pub(crate) struct Thief<'a> {
    pub(crate) cluster: &'a Cluster,
}

impl Thief<'_> {
    pub(crate) fn key(&self, rest: &str) -> String {
        format!("{}/{rest}", self.cluster.etcd.prefix())
    }

    pub(crate) fn get(&self, rest: &str) -> Option<String> {
        self.cluster.etcd.get(&self.key(rest))
    }

    pub(crate) fn put(&self, rest: &str, value: &str) {
        self.cluster.etcd.put(&self.key(rest), value);
    }

    /// Makes the attacker the leader: its key becomes the oldest of the election, because the keys
    /// of all hosts are deleted and written anew.
    pub(crate) fn take_leadership(&self) {
        let election = self.key("election/");
        let held = self.cluster.etcd.keys(&election);
        self.cluster.etcd.put(&format!("{election}thief"), "thief");
        for key in held {
            self.cluster.etcd.etcdctl(&["del", &key]).ok();
        }
    }

    /// Deletes the attacker's key of the election, so that a host becomes the leader.
    pub(crate) fn give_up_leadership(&self) {
        self.cluster.etcd.delete(&self.key("election/thief"));
    }

    /// The leader's record of a pod.
    pub(crate) fn record(&self, uid: &str) -> Value {
        serde_json::from_str(&self.get(&format!("decided/pods/{uid}")).unwrap()).unwrap()
    }

    /// Writes a copy of a pod's record with another uid and node, and with a change.
    pub(crate) fn assign(
        &self,
        like: &Value,
        uid: &str,
        node: &str,
        change: impl FnOnce(&mut Value),
    ) {
        let mut forged = like.clone();
        let pod = &mut forged["pod"];
        pod["uid"] = uid.into();
        pod["place"] = json!({"Node": node});
        pod["serial"] = (1_000_000 + u64::try_from(uid.len()).unwrap()).into();
        change(pod);
        self.put(&format!("decided/pods/{uid}"), &forged.to_string());
    }

    /// The status that a node publishes of a pod.
    pub(crate) fn status(&self, node: &str, uid: &str) -> Option<String> {
        self.get(&format!("nodes/{node}/pods/{uid}"))
    }

    /// Waits until a node publishes that it refuses a pod, for a reason that contains `reason`.
    #[track_caller]
    pub(crate) fn wait_refused(&self, node: &str, uid: &str, reason: &str) {
        self.cluster
            .wait_for(SOON, &format!("{node} refuses {uid}: {reason}"), || {
                let status = self.status(node, uid)?;
                (status.contains("AssignmentRefused") && status.contains(reason)).then_some(())
            });
    }

    /// The rules of a host's nftables.
    pub(crate) fn rules(&self, node: &str) -> String {
        self.cluster
            .host(node)
            .host
            .exec(&["nft", "list", "ruleset"])
            .ok()
    }
}

/// Workloads for [`assert_placement_is_checked`]: one with a host port, one with anti-affinity, and
/// one whose requests fill most of a node.
pub(crate) fn placement_workloads() -> Vec<(&'static str, String)> {
    let port = APP.replace(
        "readinessProbe",
        "ports: [{containerPort: 8080, hostPort: 8181}], readinessProbe",
    );
    let port = deployment("port", 1, &port);
    let apart = "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: \
                 {matchLabels: {app: apart}}, topologyKey: kubernetes.io/hostname}]}}";
    let apart =
        deployment("apart", 2, APP).replace("    spec:\n", &format!("    spec:\n      {apart}\n"));
    // A request of three quarters of a node's cpu does not fit twice.
    let processors = std::thread::available_parallelism().unwrap().get();
    let request = format!(
        "resources: {{requests: {{cpu: {}m}}}}, readinessProbe",
        processors * 750
    );
    let large = deployment("large", 1, &APP.replace("readinessProbe", &request));
    vec![
        ("port.yaml", port),
        ("apart.yaml", apart),
        ("large.yaml", large),
    ]
}

/// A Service without a node port.
pub(crate) const INNER: &str = "apiVersion: v1
kind: Service
metadata: {name: inner}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

/// Checks that a node refuses a forged pod for host ports, anti-affinity and requests, whatever the
/// store's records contain.
pub(crate) fn assert_placement_is_checked(thief: &Thief<'_>) {
    let cluster = thief.cluster;
    for (owner, reason) in [
        ("port", "has host port 8181"),
        ("apart", "podAntiAffinity forbids"),
        ("large", "too little cpu left"),
    ] {
        let pod = cluster.ready(owner).remove(0);
        let (like, node) = (
            pod["metadata"]["uid"].as_str().unwrap(),
            pod["spec"]["nodeName"].as_str().unwrap(),
        );
        let like = thief.record(like);
        // A forged pod with a serial number before that of the running pod is refused too.
        for (uid, serial) in [
            (format!("forged-{owner}"), None),
            (format!("forged-first-{owner}"), Some(0)),
        ] {
            thief.assign(&like, &uid, node, |pod| {
                if let Some(serial) = serial {
                    pod["serial"] = serial.into();
                }
            });
            thief.wait_refused(node, &uid, reason);
        }
    }
}

/// Deploys the owner `old` in two commits, before the caller deploys a third; returns the records
/// of its pod in these two.
pub(crate) fn records_of_earlier_commits(thief: &Thief<'_>) -> [Value; 2] {
    let cluster = thief.cluster;
    let container = |env: &str| {
        APP_2.replace(
            "readinessProbe",
            &format!("env: [{{name: IS, value: {env}}}], readinessProbe"),
        )
    };
    ["ancient", "older"].map(|env| {
        cluster.deploy(&[("old.yaml", &deployment("old", 1, &container(env)))]);
        let pods = cluster.eventually_running("old", 1);
        thief.record(pods[0]["metadata"]["uid"].as_str().unwrap())
    })
}

/// Checks that a host starts a forged pod of an eligible earlier commit, and none of a commit that
/// lies more than `rollout.history` commits back.
pub(crate) fn assert_only_eligible_commits_run(
    thief: &Thief<'_>,
    [ancient, older]: &[Value; 2],
    node: &str,
) {
    let host = thief.cluster.host(node);
    // A name that the owner's controller could give.
    let named = |like: &Value, text: &str| {
        let key = like["pod"]["key"].as_str().unwrap();
        let (prefix, _) = key.rsplit_once('-').unwrap();
        let (_, name) = prefix.split_once('/').unwrap();
        format!("{name}-{text}")
    };
    let forge = |like: &Value, text: &str| {
        thief.assign(like, &format!("forged-{text}"), node, |pod| {
            pod["key"] = format!("default/{}", named(like, text)).into();
        });
    };
    forge(ancient, "ancient");
    forge(older, "older");
    let running = thief
        .cluster
        .wait_for(SOON, "a pod of an earlier commit runs", || {
            host.running(&named(older, "older")).into_iter().next()
        });
    let image = host
        .host
        .docker(&["inspect", "-f", "{{.Config.Image}}", &running.id]);
    let image = host
        .host
        .docker(&["image", "inspect", "-f", "{{.RepoTags}}", image.trim()]);
    assert!(image.contains("windlass-test/app:2"), "{image}");
    let status = thief.status(node, "forged-ancient").unwrap();
    assert!(
        status.contains("this host runs only what is in its own verified clone"),
        "{status}"
    );
    assert!(
        host.containers()
            .iter()
            .all(|container| container.pod != named(ancient, "ancient")),
        "{:?}",
        host.containers()
    );
}

/// Checks that hosts accept a forged address of a Service within the Service range, and neither an
/// address outside of it nor a node port for a Service that asks for none.
pub(crate) fn assert_service_addresses_are_checked(thief: &Thief<'_>, address: &str) {
    let cluster = thief.cluster;
    let allocation = |name: &str| format!("decided/services/default/{name}");
    let rewrite = |name: &str, from: &str, to: &str| {
        let before = thief.get(&allocation(name)).unwrap();
        let after = before.replace(from, to);
        assert_ne!(before, after, "{from} is not in {before}");
        thief.put(&allocation(name), &after);
    };
    let wait_rules = |what: &str, condition: &dyn Fn(&str) -> bool| {
        for host in &cluster.hosts {
            cluster.wait_for(SOON, &format!("{}: {what}", host.name), || {
                condition(&thief.rules(&host.name)).then_some(())
            });
        }
    };
    let other = "10.96.200.7";
    rewrite(
        "inner",
        "\"node_ports\":{}",
        "\"node_ports\":{\"TCP/80\":31999}",
    );
    rewrite("web", address, other);
    wait_rules("the address within the range is accepted", &|rules| {
        rules.contains(&format!("{other} ")) && !rules.contains(&format!("{address} "))
    });
    rewrite("web", other, "203.0.113.80");
    wait_rules("the Service has no address within the range", &|rules| {
        !rules.contains(&format!("{other} "))
    });
    for host in &cluster.hosts {
        let rules = thief.rules(&host.name);
        assert!(
            !rules.contains("203.0.113.80") && !rules.contains("31999"),
            "{rules}"
        );
    }
}

/// Forges an adoption of the store in which a pod's record names another node, and checks that this
/// node does not start the pod, which its first node still runs.
pub(crate) fn assert_adoption_starts_no_pod_twice(
    thief: &Thief<'_>,
    uid: &str,
    from: &str,
    to: &str,
) {
    let mut record = thief.record(uid);
    record["pod"]["place"] = json!({"Node": to});
    thief.put(&format!("decided/pods/{uid}"), &record.to_string());
    // The incarnation is written last, as by a host that adopts the store, so that all hosts read
    // the same records.
    let mut identity: Value = serde_json::from_str(&thief.get("cluster").unwrap()).unwrap();
    identity["incarnation"] = (identity["incarnation"].as_u64().unwrap() + 1).into();
    thief.put("cluster", &identity.to_string());
    thief.wait_refused(
        to,
        uid,
        &format!("node {from} reports that the pod runs there"),
    );
    let status = thief.status(from, uid).unwrap();
    assert!(
        status.contains(&format!("it runs here, and its record names {to}")),
        "{status}"
    );
}
