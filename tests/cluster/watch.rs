//! A check, during other steps of a test, that no pod runs twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Cluster, ClusterHost, text};

/// The time from one check to the next.
const INTERVAL: Duration = Duration::from_millis(250);

/// Calls `act`, and checks until it returns that no pod runs twice, and that no host runs two pods
/// of the DaemonSet `agent`. Hosts in `without`, whose engines will hang, are not checked.
#[track_caller]
pub(crate) fn assert_no_pod_runs_twice<T>(
    cluster: &Cluster,
    without: &[&str],
    act: impl FnOnce() -> T,
) -> T {
    let violations: Mutex<BTreeSet<String>> = Mutex::default();
    let observations: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let end = AtomicBool::new(false);
    let done = thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                let hosts = cluster
                    .hosts
                    .iter()
                    .filter(|host| !without.contains(&host.name.as_str()));
                let observed = check(hosts, &mut observations.lock().unwrap());
                violations.lock().unwrap().extend(observed);
                thread::sleep(INTERVAL);
            }
        });
        // The scope waits for its threads, so the thread must end also when `act` panics.
        let _end = End(&end);
        act()
    });
    let violations = violations.into_inner().unwrap();
    assert!(violations.is_empty(), "{violations:#?}");
    // The check proves nothing about a host whose engine never answered.
    let observations = observations.into_inner().unwrap();
    let is_unobserved =
        |host: &&ClusterHost| observations.get(&host.name).is_none_or(|count| *count == 0);
    let unobserved = cluster
        .hosts
        .iter()
        .filter(|host| !without.contains(&host.name.as_str()))
        .find(is_unobserved);
    assert!(
        unobserved.is_none(),
        "the engine of {:?} never answered",
        unobserved.map(|host| &host.name)
    );
    done
}

/// The running containers with their pods, sandboxes included; none where the engine does not
/// answer.
pub(crate) fn running(host: &ClusterHost) -> Vec<(String, String)> {
    observe(host).unwrap_or_default()
}

fn observe(host: &ClusterHost) -> Option<Vec<(String, String)>> {
    let listed = host.host.ask_engine("/containers/json")?;
    let label =
        |container: &Value, name: &str| text(&container["Labels"][format!("io.windlass.{name}")]);
    let containers = listed.as_array()?.iter();
    let of_pods = containers
        .filter(|container| !label(container, "pod.name").is_empty())
        .map(|container| {
            let pod = format!(
                "{}/{}",
                label(container, "pod.namespace"),
                label(container, "pod.name")
            );
            let name = label(container, "role") + &label(container, "container");
            (pod, name)
        });
    Some(of_pods.collect())
}

fn check<'a>(
    hosts: impl Iterator<Item = &'a ClusterHost>,
    observations: &mut BTreeMap<String, usize>,
) -> BTreeSet<String> {
    let mut violations = BTreeSet::new();
    let mut host_of: BTreeMap<(String, String), String> = BTreeMap::new();
    for host in hosts {
        let Some(running) = observe(host) else {
            continue;
        };
        *observations.entry(host.name.clone()).or_default() += 1;
        let agents: BTreeSet<&String> = running
            .iter()
            .filter(|(pod, container)| {
                pod.starts_with("default/agent-") && container.ends_with("app")
            })
            .map(|(pod, _)| pod)
            .collect();
        if agents.len() > 1 {
            violations.insert(format!(
                "the DaemonSet runs twice on {}: {agents:?}",
                host.name
            ));
        }
        for container in running {
            if let Some(other) = host_of.get(&container) {
                violations.insert(format!(
                    "{container:?} runs on {other} and on {}",
                    host.name
                ));
            }
            host_of.insert(container, host.name.clone());
        }
    }
    violations
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
