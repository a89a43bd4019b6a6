//! The hands of a thief who may write all of the store, and what of it only some clusters show.

use serde_json::{Value, json};

use crate::{
    manifest::{APP, APP_2, deployment},
    support::{Cluster, SOON},
};

/// Writes the store as its leader and all hosts would.
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

    /// The thief leads from now on: the oldest key of the election is his, and all others stand
    /// behind it.
    pub(crate) fn leads(&self) {
        let election = self.key("election/");
        let held = self.cluster.etcd.keys(&election);
        self.cluster.etcd.put(&format!("{election}thief"), "thief");
        for one in held {
            self.cluster.etcd.etcdctl(&["del", &one]).ok();
        }
    }

    /// The thief leads no more.
    pub(crate) fn goes(&self) {
        self.cluster.etcd.delete(&self.key("election/thief"));
    }

    /// A record of the leader's as it stands in the store.
    pub(crate) fn record(&self, uid: &str) -> Value {
        serde_json::from_str(&self.get(&format!("decided/pods/{uid}")).unwrap()).unwrap()
    }

    /// Writes a record like another one for a node, under its own uid.
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

    /// What a node says of a pod.
    pub(crate) fn status(&self, node: &str, uid: &str) -> Option<String> {
        self.get(&format!("nodes/{node}/pods/{uid}"))
    }

    /// Waits until a node says that it does not begin a pod, and why.
    #[track_caller]
    pub(crate) fn refused(&self, node: &str, uid: &str, words: &str) {
        self.cluster
            .wait_for(SOON, &format!("{node} refuses {uid}: {words}"), || {
                let said = self.status(node, uid)?;
                (said.contains("AssignmentRefused") && said.contains(words)).then_some(())
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

/// What the rules of placement are shown with: workloads that are on one node each, or on two.
pub(crate) fn placed() -> Vec<(&'static str, String)> {
    let port = APP.replace(
        "readinessProbe",
        "ports: [{containerPort: 8080, hostPort: 8181}], readinessProbe",
    );
    let port = deployment("port", 1, &port);
    let apart = "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: \
                 {matchLabels: {app: apart}}, topologyKey: kubernetes.io/hostname}]}}";
    let apart =
        deployment("apart", 2, APP).replace("    spec:\n", &format!("    spec:\n      {apart}\n"));
    // More than half of what any machine has.
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

/// A Service without a port of the hosts.
pub(crate) const INNER: &str = "apiVersion: v1
kind: Service
metadata: {name: inner}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

/// Hosts hold what pods say of each other, ask for and take, whatever the store says.
pub(crate) fn misplaces(thief: &Thief<'_>) {
    let cluster = thief.cluster;
    for (owner, words) in [
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
        // Also one that is said to be older than what runs.
        for (uid, serial) in [
            (format!("forged-{owner}"), None),
            (format!("forged-first-{owner}"), Some(0)),
        ] {
            thief.assign(&like, &uid, node, |pod| {
                if let Some(serial) = serial {
                    pod["serial"] = serial.into();
                }
            });
            thief.refused(node, &uid, words);
        }
    }
}

/// The owner `old` in three commits, of which the newest is to come: gives the records of its pod
/// in the first two.
pub(crate) fn older(thief: &Thief<'_>) -> [Value; 2] {
    let cluster = thief.cluster;
    let again = |env: &str| {
        APP_2.replace(
            "readinessProbe",
            &format!("env: [{{name: IS, value: {env}}}], readinessProbe"),
        )
    };
    ["ancient", "older"].map(|env| {
        cluster.deploy(&[("old.yaml", &deployment("old", 1, &again(env)))]);
        let pods = cluster.eventually_running("old", 1);
        thief.record(pods[0]["metadata"]["uid"].as_str().unwrap())
    })
}

/// Among the verified commits within `history` a thief may choose, and not beyond it.
pub(crate) fn goes_back(thief: &Thief<'_>, [ancient, older]: &[Value; 2], node: &str) {
    let host = thief.cluster.host(node);
    let named = |text: &str| format!("old-forged-{text}");
    let forge = |like: &Value, text: &str| {
        thief.assign(like, &format!("forged-{text}"), node, |pod| {
            pod["key"] = format!("default/{}", named(text)).into();
        });
    };
    forge(ancient, "ancient");
    forge(older, "older");
    let running = thief
        .cluster
        .wait_for(SOON, "a pod of an earlier commit runs", || {
            host.running(&named("older")).into_iter().next()
        });
    let image = host
        .host
        .docker(&["inspect", "-f", "{{.Config.Image}}", &running.id]);
    let image = host
        .host
        .docker(&["image", "inspect", "-f", "{{.RepoTags}}", image.trim()]);
    assert!(image.contains("windlass-test/app:2"), "{image}");
    let said = thief.status(node, "forged-ancient").unwrap();
    assert!(
        said.contains("this host runs only what it finds in its own verified clone"),
        "{said}"
    );
    assert!(
        host.containers()
            .iter()
            .all(|one| one.pod != named("ancient")),
        "{:?}",
        host.containers()
    );
}

/// Addresses of Services are believed within their range; nothing else is led away, and no port is
/// opened.
pub(crate) fn leads_astray(thief: &Thief<'_>, address: &str) {
    let cluster = thief.cluster;
    let allocation = |name: &str| format!("decided/services/default/{name}");
    let rewrite = |name: &str, from: &str, to: &str| {
        let before = thief.get(&allocation(name)).unwrap();
        let after = before.replace(from, to);
        assert_ne!(before, after, "{from} is not in {before}");
        thief.put(&allocation(name), &after);
    };
    let leads = |what: &str, condition: &dyn Fn(&str) -> bool| {
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
    leads("another address of the range is believed", &|rules| {
        rules.contains(&format!("{other} ")) && !rules.contains(&format!("{address} "))
    });
    rewrite("web", other, "203.0.113.80");
    leads("one beyond it is not", &|rules| {
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

/// Under a forged adoption a pod's record may name another node: that one does not begin what the
/// first one runs.
pub(crate) fn adopts(thief: &Thief<'_>, uid: &str, from: &str, to: &str) {
    let mut record = thief.record(uid);
    record["pod"]["place"] = json!({"Node": to});
    thief.put(&format!("decided/pods/{uid}"), &record.to_string());
    // Last, as who adopts does it: all hosts take up the same.
    let mut identity: Value = serde_json::from_str(&thief.get("cluster").unwrap()).unwrap();
    identity["incarnation"] = (identity["incarnation"].as_u64().unwrap() + 1).into();
    thief.put("cluster", &identity.to_string());
    thief.refused(to, uid, &format!("node {from} says that it runs there"));
    let said = thief.status(from, uid).unwrap();
    assert!(
        said.contains(&format!("it runs here, and its record names {to}")),
        "{said}"
    );
}
