//! An attacker who may write all of the store and has become the leader: what the hosts refuse, and
//! what the attacker can still do, as docs/store.md describes it.

use serde_json::{Value, json};

use crate::{
    manifest::{APP, deployment},
    scene::daemon_set,
    store::{running, wait_no_troubles, wait_trouble, web},
    support::{Cluster, NODE_PORT, SOON, assert_all_answered},
    thief::{
        INNER, Thief, assert_adoption_starts_no_pod_twice, assert_only_eligible_commits_run,
        assert_placement_is_checked, assert_service_addresses_are_checked, placement_workloads,
        records_of_earlier_commits,
    },
};

fn uid_on(pods: &[Value], node: &str) -> String {
    let pod = pods
        .iter()
        .find(|pod| pod["spec"]["nodeName"] == node)
        .unwrap();
    pod["metadata"]["uid"].as_str().unwrap().to_owned()
}

#[test]
fn an_attacker_with_the_store_starts_only_pods_that_a_commit_explains() {
    let cluster = Cluster::builder(3)
        .config("[rollout]\nhistory = 1\n")
        .start();
    let [n1, n2, _] = cluster.hosts.as_slice() else {
        panic!("three hosts")
    };
    let thief = Thief { cluster: &cluster };
    let old = records_of_earlier_commits(&thief);
    let mut files = placement_workloads();
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

    // Among the keys of nodes, a node's user writes those of its own node only.
    let denied = cluster
        .etcd
        .etcdctl_as("n1", &["put", &thief.key("nodes/n2/report"), "{}"]);
    assert!(denied.stderr.contains("permission denied"), "{denied:?}");

    // All records of pods are deleted: no pod stops, no request fails, and the leader writes the
    // records again.
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
    cluster.wait_for(SOON, "the leader has written the records again", || {
        (cluster.etcd.keys(&thief.key("decided/pods/")) == records).then_some(())
    });
    for call in calls {
        assert_all_answered(&call.finish());
    }
    assert_eq!(running(&cluster, &["web", "agent"]), before);
    wait_no_troubles(&cluster);

    // A node's user writes its own name into another node's subnet: the leader writes the owner of
    // the subnet again.
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
    // The record of a running pod gets another node: the leader corrects that too.
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
    cluster.wait_for(SOON, "the leader has corrected both records", is_back);
    wait_no_troubles(&cluster);

    thief.take_leadership();
    let (web, agent) = (
        thief.record(&uid_on(&webs, "n1")),
        thief.record(&uid_on(&agents, "n1")),
    );
    let wait_refused = |uid: &str, reason: &str| thief.wait_refused("n2", uid, reason);
    // With the attacker as the leader, no record is corrected. Each host keeps the node of a
    // running pod and the owner of a subnet, and reports both records.
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
        "a container was started or stopped"
    );
    for call in calls {
        assert_all_answered(&call.finish());
    }
    let reach = cluster
        .host("n1")
        .curl(&format!("http://{}:8080/", address(&webs, "n3")));
    assert!(reach.is_some(), "n1 does not reach n3's pod");

    // A host cannot distinguish one forged pod more than the replicas from the surge of a rollout,
    // and starts it. Any further pod is refused.
    let renamed = |pod: &Value| -> Value {
        let (prefix, _) = pod["key"].as_str().unwrap().rsplit_once('-').unwrap();
        format!("{prefix}-forged").into()
    };
    thief.assign(&web, "forged-surge", "n2", |pod| pod["key"] = renamed(pod));
    cluster.wait_for(SOON, "one pod more than the replicas runs", || {
        (n2.running("web").len() == 2).then_some(())
    });
    thief.assign(&web, "forged-surplus", "n2", |_| {});
    wait_refused(
        "forged-surplus",
        "its owner was given 5 pods here, and no commit in use asks for more than 4",
    );
    thief.assign(&web, "forged-first", "n2", |pod| pod["serial"] = 0.into());
    wait_refused(
        "forged-first",
        "its owner was given 6 pods here, and no commit in use asks for more than 4",
    );
    let unresolved = "not started: its commit does not have its owner with this template";
    thief.assign(&web, "forged-owner", "n2", |pod| {
        let text = pod["owner"].to_string().replace("web", "miner");
        pod["owner"] = serde_json::from_str(&text).unwrap();
    });
    wait_refused("forged-owner", unresolved);
    thief.assign(&web, "forged-hash", "n2", |pod| {
        pod["template"] = "1-0123456789".into()
    });
    wait_refused("forged-hash", unresolved);
    // The namespace decides which Secrets a pod gets; name and uid appear in its variables.
    for (uid, key) in [
        ("forged-space", "kube-system/web-0123456789-forged"),
        ("forged-name", "default/any-name-at-all"),
    ] {
        thief.assign(&web, uid, "n2", |pod| pod["key"] = key.into());
        wait_refused(uid, unresolved);
    }
    thief.assign(&web, "forged-$(id)", "n2", |_| {});
    wait_refused("forged-$(id)", unresolved);
    thief.assign(&agent, "forged-twice", "n2", |pod| {
        pod["key"] = renamed(pod)
    });
    wait_refused(
        "forged-twice",
        "its owner was given 2 pods here, and no commit in use asks for more than 1",
    );
    // A pod of a commit that this host has not verified is not started: the host waits for the
    // commit.
    thief.assign(&web, "forged-commit", "n2", |pod| {
        pod["commit"] = "0123456789012345678901234567890123456789".into()
    });
    assert!(
        thief
            .status("n2", "forged-commit")
            .is_none_or(|status| !status.contains("Running"))
    );

    // A host checks a stop record with the reason that the owner left the commit. It cannot check
    // other reasons.
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
    cluster.wait_for(SOON, "the pod with another reason is stopped", || {
        n1.running("agent").is_empty().then_some(())
    });
    assert_eq!(
        n1.running("web").len(),
        1,
        "a pod whose owner is in the commit was stopped"
    );

    // No host routes to an endpoint whose address is outside of its publisher's subnet.
    let forge_endpoint = |node: &str, address: &str| {
        let uid = uid_on(&webs, node);
        let mut status: Value = serde_json::from_str(&thief.status(node, &uid).unwrap()).unwrap();
        status["address"] = address.into();
        cluster.etcd.put(
            &thief.key(&format!("nodes/{node}/pods/{uid}")),
            &status.to_string(),
        );
    };
    let table = || n1.host.exec(&["nft", "list", "ruleset"]).ok();
    let pod_of_n3 = address(&webs, "n3");
    assert!(table().contains(&pod_of_n3), "{}", table());
    forge_endpoint("n3", "203.0.113.66");
    cluster.wait_for(SOON, "n1's table has no endpoint on n3", || {
        (!table().contains(&pod_of_n3)).then_some(())
    });
    assert!(!table().contains("203.0.113.66"), "{}", table());
    // Another address of the publisher's own subnet is accepted.
    let (subnet, _) = pod_of_n3.rsplit_once('.').unwrap();
    forge_endpoint("n3", &format!("{subnet}.66"));
    cluster.wait_for(SOON, "n1's table has the forged endpoint", || {
        table().contains(&format!("{subnet}.66")).then_some(())
    });

    assert_placement_is_checked(&thief);
    assert_only_eligible_commits_run(&thief, &old, "n3");
    let service = n1.windlass(&["get", "service", "web", "-o", "json"]).json();
    assert_service_addresses_are_checked(&thief, service["spec"]["clusterIP"].as_str().unwrap());
    assert_adoption_starts_no_pod_twice(&thief, &moved, "n3", "n2");

    // The attacker's election key is deleted: a host leads, corrects the records, and the hosts run
    // exactly the pods of the commit.
    thief.give_up_leadership();
    cluster.wait_for(SOON, "n3 has its subnet again", || {
        (subnet_of("n3") == of_n3).then_some(())
    });
    // A forged pod that the commit explains may stay in place of another replica.
    let can_stay = ["forged-surge", "forged-surplus", "forged-first"];
    cluster.wait_for(
        SOON,
        "the records of all other forged pods are deleted",
        || {
            let forged = cluster.etcd.keys(&thief.key("decided/pods/forged"));
            forged
                .iter()
                .all(|key| can_stay.iter().any(|pod| key.ends_with(pod)))
                .then_some(())
        },
    );
    for (owner, count) in [
        ("agent", 3),
        ("web", 3),
        ("apart", 2),
        ("port", 1),
        ("large", 1),
        ("old", 1),
    ] {
        cluster.eventually_running(owner, count);
        cluster.wait_for(SOON, &format!("{count} containers of {owner} run"), || {
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
