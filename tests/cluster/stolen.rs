//! A thief who may write all of the store and leads: what hosts refuse, and what remains possible,
//! as docs/store.md says.

use serde_json::{Value, json};

use crate::{
    manifest::{APP, deployment},
    scene::daemon_set,
    store::{running, wait_trouble, wait_well, web},
    support::{Cluster, NODE_PORT, SOON, assert_all_answered},
    thief::{INNER, Thief, adopts, goes_back, leads_astray, misplaces, older, placed},
};

fn uid_on(pods: &[Value], node: &str) -> String {
    let pod = pods
        .iter()
        .find(|pod| pod["spec"]["nodeName"] == node)
        .unwrap();
    pod["metadata"]["uid"].as_str().unwrap().to_owned()
}

#[test]
fn a_thief_of_the_store_brings_in_nothing() {
    let cluster = Cluster::builder(3)
        .config("[rollout]\nhistory = 1\n")
        .start();
    let [n1, n2, _] = cluster.hosts.as_slice() else {
        panic!("three hosts")
    };
    let thief = Thief { cluster: &cluster };
    let old = older(&thief);
    let mut files = placed();
    files.extend([
        ("web.yaml", web()),
        ("agent.yaml", daemon_set("agent", APP)),
        ("old.yaml", deployment("old", 1, APP)),
        ("inner.yaml", INNER.to_owned()),
    ]);
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    cluster.deploy(&files);
    let (webs, agents) = (
        cluster.eventually_running("web", 3),
        cluster.eventually_running("agent", 3),
    );
    let before = running(&cluster, &["web", "agent"]);
    let address = |pods: &[Value], node: &str| {
        let pod = pods
            .iter()
            .find(|pod| pod["spec"]["nodeName"] == node)
            .unwrap();
        pod["status"]["podIP"].as_str().unwrap().to_owned()
    };

    cluster.eventually_running("apart", 2);
    for owner in ["port", "large", "old"] {
        cluster.eventually_running(owner, 1);
    }

    // A node's user writes under its own name only.
    let denied = cluster
        .etcd
        .etcdctl_as("n1", &["put", &thief.key("nodes/n2/report"), "{}"]);
    assert!(denied.stderr.contains("permission denied"), "{denied:?}");

    // Every record of every pod deleted: nothing stops, no call fails, and the leader writes them
    // again.
    let calls: Vec<_> = cluster
        .hosts
        .iter()
        .map(|host| host.poll(&host.url(NODE_PORT, "/")))
        .collect();
    let records = cluster.etcd.keys(&thief.key("decided/pods/"));
    cluster
        .etcd
        .etcdctl(&["del", "--prefix", &thief.key("decided/pods/")])
        .ok();
    cluster.wait_for(SOON, "the records come back", || {
        (cluster.etcd.keys(&thief.key("decided/pods/")) == records).then_some(())
    });
    for call in calls {
        assert_all_answered(&call.finish());
    }
    assert_eq!(running(&cluster, &["web", "agent"]), before);
    wait_well(&cluster);

    // Nor are addresses another node's because a node's user writes so: the leader writes again
    // whose they are.
    let subnet_of = |node: &str| {
        let reserved = cluster.etcd.keys(&thief.key("subnets/"));
        reserved
            .into_iter()
            .find(|key| cluster.etcd.get(key).unwrap() == format!("\"{node}\""))
            .unwrap()
    };
    let (of_n1, of_n3) = (subnet_of("n1"), subnet_of("n3"));
    let calls: Vec<_> = cluster
        .hosts
        .iter()
        .map(|host| host.poll(&host.url(NODE_PORT, "/")))
        .collect();
    cluster
        .etcd
        .etcdctl_as("n2", &["put", &of_n1, "\"n2\""])
        .ok();
    // Nor is a pod elsewhere because its record says so.
    let moved = uid_on(&webs, "n3");
    let move_pod = || {
        let mut record = thief.record(&moved);
        record["pod"]["place"] = json!({"Node": "n2"});
        cluster.etcd.put(
            &thief.key(&format!("decided/pods/{moved}")),
            &record.to_string(),
        );
    };
    let is_back = || {
        let record = cluster
            .etcd
            .get(&thief.key(&format!("decided/pods/{moved}")));
        (cluster.etcd.get(&of_n1)? == "\"n1\""
            && record.is_none_or(|text| text.contains("\"Node\":\"n3\"")))
        .then_some(())
    };
    move_pod();
    cluster.wait_for(SOON, "the leader writes again where they are", is_back);
    wait_well(&cluster);

    thief.leads();
    let (web, agent) = (
        thief.record(&uid_on(&webs, "n1")),
        thief.record(&uid_on(&agents, "n1")),
    );
    let refused = |uid: &str, words: &str| thief.refused("n2", uid, words);
    // A pod that runs is not moved, nor are a node's addresses: each host says what it does not
    // believe.
    move_pod();
    cluster.etcd.put(&of_n3, "\"n1\"");
    for host in &cluster.hosts {
        wait_trouble(
            host,
            &format!("decided/pods/{moved} of the store gives node n2 to a pod of node n3"),
        );
        wait_trouble(host, "of the store gives node n1 the addresses of node n3");
    }
    assert_eq!(
        running(&cluster, &["web", "agent"]),
        before,
        "nothing was started, nothing stopped"
    );
    for call in calls {
        assert_all_answered(&call.finish());
    }
    let reach = cluster
        .host("n1")
        .curl(&format!("http://{}:8080/", address(&webs, "n3")));
    assert!(reach.is_some(), "n1 reaches n3's pod");

    // One more than there are replicas is what a rollout would make, and the host cannot tell: it
    // can be had. No more.
    thief.assign(&web, "forged-surge", "n2", |pod| {
        let text = pod["key"].to_string().replace("web-", "web-forged-");
        pod["key"] = serde_json::from_str(&text).unwrap();
    });
    cluster.wait_for(SOON, "a pod beyond the replicas can be had", || {
        (n2.running("web").len() == 2).then_some(())
    });
    thief.assign(&web, "forged-surplus", "n2", |_| {});
    refused(
        "forged-surplus",
        "its owner was given 5 pods here, and no commit in use asks for more than 4",
    );
    thief.assign(&web, "forged-first", "n2", |pod| pod["serial"] = 0.into());
    refused(
        "forged-first",
        "its owner was given 6 pods here, and no commit in use asks for more than 4",
    );
    let unresolved = "not started: its commit does not have its owner with this template";
    thief.assign(&web, "forged-owner", "n2", |pod| {
        let text = pod["owner"].to_string().replace("web", "miner");
        pod["owner"] = serde_json::from_str(&text).unwrap();
    });
    refused("forged-owner", unresolved);
    thief.assign(&web, "forged-hash", "n2", |pod| {
        pod["template"] = "1-0123456789".into()
    });
    refused("forged-hash", unresolved);
    thief.assign(&agent, "forged-twice", "n2", |pod| {
        pod["key"] = web["pod"]["key"].clone()
    });
    refused(
        "forged-twice",
        "its owner was given 2 pods here, and no commit in use asks for more than 1",
    );
    // A commit that this host has not verified: it waits for it, and starts nothing.
    thief.assign(&web, "forged-commit", "n2", |pod| {
        pod["commit"] = "0123456789012345678901234567890123456789".into()
    });
    assert!(
        thief
            .status("n2", "forged-commit")
            .is_none_or(|said| !said.contains("Running"))
    );

    // A stop that says the owner has left the commit is checked; other reasons a host cannot check.
    let stop = |uid: &str, reason: &str| {
        let mut stopped = thief.record(uid);
        stopped["pod"]["stop"] =
            json!({"at": jiff::Timestamp::now().to_string(), "reason": reason});
        cluster.etcd.put(
            &thief.key(&format!("decided/pods/{uid}")),
            &stopped.to_string(),
        );
    };
    stop(&uid_on(&webs, "n1"), "OwnerRemoved");
    stop(&uid_on(&agents, "n1"), "ScaledDown");
    cluster.wait_for(SOON, "a pod can be stopped", || {
        n1.running("agent").is_empty().then_some(())
    });
    assert_eq!(n1.running("web").len(), 1, "its owner is in the commit");

    // Endpoints: an address that is not of the publisher's subnet is led to by nobody.
    let lead_to = |node: &str, address: &str| {
        let uid = uid_on(&webs, node);
        let mut said: Value = serde_json::from_str(&thief.status(node, &uid).unwrap()).unwrap();
        said["address"] = address.into();
        cluster.etcd.put(
            &thief.key(&format!("nodes/{node}/pods/{uid}")),
            &said.to_string(),
        );
    };
    let table = || n1.host.exec(&["nft", "list", "ruleset"]).ok();
    let pod_of_n3 = address(&webs, "n3");
    assert!(table().contains(&pod_of_n3), "{}", table());
    lead_to("n3", "203.0.113.66");
    cluster.wait_for(SOON, "n3's endpoint is gone", || {
        (!table().contains(&pod_of_n3)).then_some(())
    });
    assert!(!table().contains("203.0.113.66"), "{}", table());
    // Another address of the publisher's own subnet is believed.
    let (subnet, _) = pod_of_n3.rsplit_once('.').unwrap();
    lead_to("n3", &format!("{subnet}.66"));
    cluster.wait_for(SOON, "calls can be led astray", || {
        table().contains(&format!("{subnet}.66")).then_some(())
    });

    misplaces(&thief);
    goes_back(&thief, &old, "n3");
    let service = n1.windlass(&["get", "service", "web", "-o", "json"]).json();
    leads_astray(&thief, service["spec"]["clusterIP"].as_str().unwrap());
    adopts(&thief, &moved, "n3", "n2");

    // The thief is out: the leader puts right what was wrong, and the hosts have what the commit
    // says, no more.
    thief.goes();
    cluster.wait_for(SOON, "the subnets are whose they were", || {
        (subnet_of("n3") == of_n3).then_some(())
    });
    // One that the commit can explain may take another one's place.
    let can_stay = ["forged-surge", "forged-surplus", "forged-first"];
    cluster.wait_for(SOON, "what was forged is gone", || {
        let left = cluster.etcd.keys(&thief.key("decided/pods/forged"));
        left.iter()
            .all(|key| can_stay.iter().any(|pod| key.ends_with(pod)))
            .then_some(())
    });
    for (owner, count) in [
        ("agent", 3),
        ("web", 3),
        ("apart", 2),
        ("port", 1),
        ("large", 1),
        ("old", 1),
    ] {
        cluster.eventually_running(owner, count);
        cluster.wait_for(SOON, &format!("{count} containers of {owner}"), || {
            let all: usize = cluster
                .hosts
                .iter()
                .map(|host| host.running(owner).len())
                .sum();
            (all == count).then_some(())
        });
    }
    for host in &cluster.hosts {
        let url = host.url(NODE_PORT, "/");
        cluster.wait_for(SOON, &format!("{url} answers"), || host.curl(&url));
        assert!(!thief.rules(&host.name).contains("203.0.113.80"));
    }
}
