//! What must never be, looked for on all hosts while something else happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Cluster, ClusterHost, text};

/// The time from one cycle to the next.
const PACE: Duration = Duration::from_millis(250);

/// Does something, and looks all the while that no pod runs twice, and no two pods of the DaemonSet
/// `agent` on one host. Hosts whose engine will hang are left out by their names.
#[track_caller]
pub(crate) fn never_doubled<T>(cluster: &Cluster, without: &[&str], act: impl FnOnce() -> T) -> T {
    let offences: Mutex<BTreeSet<String>> = Mutex::default();
    let looks: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let end = AtomicBool::new(false);
    let done = thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                let hosts = cluster
                    .hosts
                    .iter()
                    .filter(|host| !without.contains(&host.name.as_str()));
                let found = look(hosts, &mut looks.lock().unwrap());
                offences.lock().unwrap().extend(found);
                thread::sleep(PACE);
            }
        });
        // Also when it panics: the scope waits for its threads.
        let _end = End(&end);
        act()
    });
    let offences = offences.into_inner().unwrap();
    assert!(offences.is_empty(), "{offences:#?}");
    // An engine that did not answer has shown nothing.
    let looks = looks.into_inner().unwrap();
    let unseen = |host: &&ClusterHost| looks.get(&host.name).is_none_or(|count| *count == 0);
    let unseen = cluster
        .hosts
        .iter()
        .filter(|host| !without.contains(&host.name.as_str()))
        .find(unseen);
    assert!(
        unseen.is_none(),
        "nobody has seen what {:?} runs",
        unseen.map(|host| &host.name)
    );
    done
}

/// What runs, as pod and container, sandboxes too; nothing where the engine does not answer.
pub(crate) fn running(host: &ClusterHost) -> Vec<(String, String)> {
    see(host).unwrap_or_default()
}

fn see(host: &ClusterHost) -> Option<Vec<(String, String)>> {
    let listed = host.host.ask_engine("/containers/json")?;
    let label = |one: &Value, name: &str| text(&one["Labels"][format!("io.windlass.{name}")]);
    let containers = listed.as_array()?.iter();
    let seen = containers
        .filter(|one| !label(one, "pod.name").is_empty())
        .map(|one| {
            let pod = format!("{}/{}", label(one, "pod.namespace"), label(one, "pod.name"));
            let container = label(one, "role") + &label(one, "container");
            (pod, container)
        });
    Some(seen.collect())
}

fn look<'a>(
    hosts: impl Iterator<Item = &'a ClusterHost>,
    looks: &mut BTreeMap<String, usize>,
) -> BTreeSet<String> {
    let mut offences = BTreeSet::new();
    let mut seen: BTreeMap<(String, String), String> = BTreeMap::new();
    for host in hosts {
        let Some(running) = see(host) else { continue };
        *looks.entry(host.name.clone()).or_default() += 1;
        let agents: BTreeSet<&String> = running
            .iter()
            .filter(|(pod, container)| {
                pod.starts_with("default/agent-") && container.ends_with("app")
            })
            .map(|(pod, _)| pod)
            .collect();
        if agents.len() > 1 {
            offences.insert(format!(
                "the DaemonSet runs twice on {}: {agents:?}",
                host.name
            ));
        }
        for one in running {
            if let Some(other) = seen.get(&one) {
                offences.insert(format!("{one:?} runs on {other} and on {}", host.name));
            }
            seen.insert(one, host.name.clone());
        }
    }
    offences
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
