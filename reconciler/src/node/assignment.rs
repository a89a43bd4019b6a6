//! Which assignments and stop records this host refuses. The host derives from its own verified
//! clone which pods may run here, and starts and stops nothing beyond that. A refusal never stops a
//! running pod.

mod placement;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use self::placement::Placement;
use super::NodeInput;
use crate::{
    commit::{Commit, locate},
    name::{PodUid, WorkloadKey, WorkloadKind},
    object::{Control, DaemonSetUpdate, DeploymentStrategy, Workload},
    plan::LaneKey,
    state::{NodeReport, Phase, PodRecord, Refused, Rollout, StopReason, UnfitReason},
};

/// The refusals of this host; `has_containers` holds for the pods of which something is on the
/// host.
pub(super) fn refusals<'a>(
    input: &NodeInput<'a>,
    mine: &[&'a PodRecord],
    has_containers: impl Fn(&PodUid) -> bool,
) -> BTreeMap<PodUid, Refused> {
    // Of a pod that was started here something is or was on this host.
    let begun = |uid: &PodUid| {
        has_containers(uid)
            || input
                .memory
                .pods
                .get(uid)
                .is_some_and(|memory| memory.started.is_some())
    };
    let mut fresh: Vec<&PodRecord> = mine
        .iter()
        .copied()
        .filter(|record| record.stop.is_none() && !begun(&record.uid))
        .collect();
    // Whoever writes the store chooses the serials, so a serial must not displace a running pod:
    // serials order only pods that are new on this host, among themselves.
    fresh.sort_by_key(|record| (record.serial, &record.uid));

    let mut refused = BTreeMap::new();
    if !fresh.is_empty() {
        starts(input, mine, &fresh, &mut refused, begun);
    }
    stops(input, mine, has_containers, &mut refused);
    refused
}

fn starts<'a>(
    input: &NodeInput<'a>,
    mine: &[&'a PodRecord],
    fresh: &[&'a PodRecord],
    refused: &mut BTreeMap<PodUid, Refused>,
    begun: impl Fn(&PodUid) -> bool,
) {
    let owners: BTreeSet<&WorkloadKey> = fresh.iter().map(|record| &record.owner).collect();
    let surplus: BTreeMap<&PodUid, Refused> = owners
        .into_iter()
        .flat_map(|owner| surplus(input, owner, &begun))
        .collect();
    let placement = Placement::new(input, fresh);
    let stays = mine
        .iter()
        .copied()
        .filter(|record| record.stop.is_none() && begun(&record.uid));
    let mut rules = placement.rules(stays);

    for record in fresh {
        let why = match locate(input.commits, record) {
            None if input.barred.contains(&record.commit) => Some(Refused::Unfit(
                UnfitReason::Ineligible(record.commit.clone()).into(),
            )),
            None if input.commits.contains_key(&record.commit) => Some(Refused::Unresolved),
            // This host has not fetched the commit yet: the pod waits.
            None => None,
            Some((_, workload)) => elsewhere(input, record)
                .or_else(|| surplus.get(&record.uid).cloned())
                .or_else(|| rules.refuse(record, workload)),
        };
        match why {
            Some(why) => drop(refused.insert(record.uid.clone(), why)),
            None => rules.begin(record),
        }
    }
}

/// Whether another host has the pod: after the leader assigned it to a second node, or assigned one
/// uid twice.
fn elsewhere(input: &NodeInput<'_>, record: &PodRecord) -> Option<Refused> {
    let others = input.reports.iter().filter(|(node, _)| *node != input.node);
    let has = |report: &NodeReport| report.pods.contains_key(&record.uid);
    let node = others
        .into_iter()
        .find(|(_, report)| has(report))
        .map(|(node, _)| node.clone())?;
    Some(Refused::Elsewhere { node })
}

/// The pods of an owner that are not started here, because they exceed the number that any commit
/// in use explains. Pods on unreachable nodes do not count, since they may have been replaced.
/// Running pods count whether they have a record or not.
fn surplus<'a>(
    input: &NodeInput<'a>,
    owner: &WorkloadKey,
    begun: impl Fn(&PodUid) -> bool,
) -> Vec<(&'a PodUid, Refused)> {
    let known = input
        .commits
        .values()
        .filter_map(|commit| commit.objects.workloads.get(owner));
    let Some(most) = known.map(most_pods).max() else {
        return Vec::new();
    };
    let counts = |record: &&PodRecord| {
        record.owner == *owner
            && record.stop.is_none()
            && record.place.node().is_some_and(|node| {
                node == input.node
                    || owner.kind != WorkloadKind::DaemonSet
                        && !input.state.outages.contains_key(node)
            })
    };
    let active: Vec<&PodRecord> = input.state.pods.values().filter(counts).collect();

    // Where only one pod may exist, a stopping pod counts until it is gone.
    let one_only = matches!(owner.kind, WorkloadKind::Pod | WorkloadKind::DaemonSet);
    let is_besides = |uid: &PodUid| {
        let record = input.state.pods.get(uid);
        record.is_none_or(|record| one_only && record.stop.is_some())
    };
    let owned = input.observed.containers.values().map(|one| &one.identity);
    let owned = owned.filter(|identity| identity.owner == *owner && is_besides(&identity.uid));
    let besides: BTreeSet<&PodUid> = owned.map(|identity| &identity.uid).collect();

    let pods = active.len() + besides.len();
    let beyond = pods.saturating_sub(most);
    let fresh =
        |record: &&PodRecord| record.place.node() == Some(input.node) && !begun(&record.uid);
    let mut fresh: Vec<&PodRecord> = active.into_iter().filter(fresh).collect();
    fresh.sort_by_key(|record| std::cmp::Reverse((record.serial, &record.uid)));
    let newest = fresh.into_iter().take(beyond);
    newest
        .map(|record| (&record.uid, Refused::Surplus { pods, most }))
        .collect()
}

/// Maximum number of pods of a workload at a time; for a DaemonSet, on one node.
fn most_pods(workload: &Workload) -> usize {
    match &workload.control {
        Control::Pod => 1,
        // One more pod than `replicas` may exist while a node is drained.
        Control::Replicas { replicas, .. } => *replicas as usize + 1,
        Control::Deployment {
            replicas, strategy, ..
        } => {
            let surge = match strategy {
                DeploymentStrategy::Recreate => 0,
                DeploymentStrategy::RollingUpdate { max_surge, .. } => {
                    max_surge.round_up(*replicas)
                }
            };
            *replicas as usize + surge as usize
        }
        Control::DaemonSet { update, .. } => match update {
            DaemonSetUpdate::OnDelete => 1,
            DaemonSetUpdate::RollingUpdate { max_surge, .. } => {
                1 + usize::from(max_surge.round_up(1) > 0)
            }
        },
    }
}

/// Refuses stop records that name the owner's removal as their reason, if this host's commits still
/// contain the owner.
fn stops<'a>(
    input: &NodeInput<'a>,
    mine: &[&'a PodRecord],
    has_containers: impl Fn(&PodUid) -> bool,
    refused: &mut BTreeMap<PodUid, Refused>,
) {
    let rollout = &input.state.rollout;
    // A stop that was begun is carried out: a pod that has lost its traffic is not restored.
    let is_stopping = |uid: &PodUid| {
        let key = LaneKey::Pod(uid.clone());
        input.observed.stopping.contains(&key)
    };
    let to_stop: Vec<&PodRecord> = mine
        .iter()
        .copied()
        .filter(|record| {
            record.stop.as_ref().is_some_and(|stop| {
                stop.reason == StopReason::OwnerRemoved && is_of_now(rollout, stop.at)
            })
        })
        .filter(|record| has_containers(&record.uid) && !is_stopping(&record.uid))
        .collect();
    if to_stop.is_empty() {
        return;
    }

    let get = |id| input.readable(id).map(AsRef::as_ref);
    let pointers = [&rollout.target, &rollout.driving, &rollout.healthy];
    let stays = |owner: &WorkloadKey| {
        pointers.iter().all(|id| {
            id.as_ref()
                .and_then(get)
                .is_some_and(|commit| has(commit, owner))
        })
    };
    let driving = rollout.driving.as_ref().and_then(get);
    let before: Vec<&Commit> = rollout.before().into_iter().filter_map(get).collect();
    let explained = |owner: &WorkloadKey| {
        driving.is_some_and(|driving| driving.allow_deletions || has(driving, owner))
            || before.iter().any(|commit| has(commit, owner))
    };

    let (kept, to_stop): (Vec<&PodRecord>, Vec<&PodRecord>) =
        to_stop.into_iter().partition(|record| stays(&record.owner));
    refused.extend(
        kept.into_iter()
            .map(|record| (record.uid.clone(), Refused::OwnerStays)),
    );
    let unexplained: Vec<&PodRecord> = to_stop
        .into_iter()
        .filter(|record| !explained(&record.owner))
        .collect();
    let owners = unexplained
        .iter()
        .map(|record| &record.owner)
        .collect::<BTreeSet<_>>()
        .len();
    let of = mine
        .iter()
        .map(|record| &record.owner)
        .collect::<BTreeSet<_>>()
        .len();
    let allowed = input.settings.rollout.deletion_budget(of);
    if owners > allowed {
        let why = Refused::Budget {
            owners,
            of,
            allowed,
        };
        refused.extend(
            unexplained
                .into_iter()
                .map(|record| (record.uid.clone(), why.clone())),
        );
    }
}

fn has(commit: &Commit, owner: &WorkloadKey) -> bool {
    commit.objects.workloads.contains_key(owner)
}

/// Whether a stop record was decided under the present circumstances: an earlier stop record that
/// reaches the node late had reasons that may no longer hold.
fn is_of_now(rollout: &Rollout, at: Timestamp) -> bool {
    let is_after_healthy = match rollout.since {
        Some(since) if rollout.phase == Phase::Healthy => at >= since,
        _ => true,
    };
    rollout.clock.is_some_and(|clock| at >= clock) && is_after_healthy
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        name::{ObjectKey, TemplateHash},
        object::{IntOrPercent, ManifestPosition, Meta, PodSpec, PodTemplate, Selector},
    };

    fn most_of(control: Control) -> usize {
        most_pods(&Workload {
            key: WorkloadKey {
                kind: WorkloadKind::Deployment,
                object: ObjectKey::new("default", "web"),
            },
            meta: Meta::default(),
            template: PodTemplate {
                meta: Meta::default(),
                spec: PodSpec::default(),
                hash: TemplateHash::new("1-0123456789abcdef"),
            },
            control,
            position: ManifestPosition {
                file: "a.yaml".to_owned(),
                line: 1,
            },
        })
    }

    fn deployment(replicas: u32, strategy: DeploymentStrategy) -> Control {
        Control::Deployment {
            replicas,
            min_ready: Duration::ZERO,
            selector: Selector::default(),
            strategy,
            progress_deadline: None,
            paused: false,
        }
    }

    fn surging(max_surge: IntOrPercent) -> DeploymentStrategy {
        DeploymentStrategy::RollingUpdate {
            max_surge,
            max_unavailable: IntOrPercent::Int(1),
        }
    }

    fn daemon_set(update: DaemonSetUpdate) -> Control {
        Control::DaemonSet {
            min_ready: Duration::ZERO,
            selector: Selector::default(),
            update,
        }
    }

    #[test]
    fn the_most_pods_are_the_wanted_ones_and_those_of_a_surge() {
        let daemons = |max_surge| {
            daemon_set(DaemonSetUpdate::RollingUpdate {
                max_unavailable: IntOrPercent::Int(1),
                max_surge,
            })
        };
        let replicas = |replicas| Control::Replicas {
            replicas,
            min_ready: Duration::ZERO,
            selector: Selector::default(),
        };
        for (control, expected) in [
            (Control::Pod, 1),
            (replicas(0), 1),
            (replicas(3), 4),
            (deployment(3, DeploymentStrategy::Recreate), 3),
            (deployment(3, surging(IntOrPercent::Int(0))), 3),
            (deployment(3, surging(IntOrPercent::Int(2))), 5),
            (deployment(5, surging(IntOrPercent::Percent(25))), 7),
            (daemon_set(DaemonSetUpdate::OnDelete), 1),
            (daemons(IntOrPercent::Int(0)), 1),
            (daemons(IntOrPercent::Int(1)), 2),
            (daemons(IntOrPercent::Int(3)), 2),
            (daemons(IntOrPercent::Percent(10)), 2),
        ] {
            assert_eq!(most_of(control.clone()), expected, "{control:?}");
        }
    }

    #[test]
    fn a_stop_counts_from_the_time_at_which_the_circumstances_began() {
        let at = |second| Timestamp::UNIX_EPOCH + Duration::from_secs(second);
        let (healthy, soaking) = (Phase::Healthy, Phase::Soaking);
        for (phase, since, clock, stop, expected) in [
            (&soaking, Some(30), Some(20), 20, true),
            (&soaking, Some(30), Some(20), 19, false),
            (&soaking, Some(30), None, 40, false),
            (&healthy, Some(30), Some(20), 30, true),
            (&healthy, Some(30), Some(20), 29, false),
            (&healthy, Some(30), Some(40), 39, false),
            (&healthy, Some(30), None, 40, false),
            (&healthy, None, Some(20), 20, true),
        ] {
            let rollout = Rollout {
                phase: phase.clone(),
                since: since.map(at),
                clock: clock.map(at),
                ..Rollout::default()
            };
            let case = format!("{phase:?} since {since:?}, clock {clock:?}, stop at {stop}");
            assert_eq!(is_of_now(&rollout, at(stop)), expected, "{case}");
        }
    }
}
