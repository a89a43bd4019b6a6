//! A host that was removed from the cluster while it was unreachable: what it ran runs elsewhere by
//! now.

use jiff::Timestamp;
use reconciler::{
    name::NodeName,
    observed::Observed,
    state::{ClusterState, PodPlace, PodRecord, StopReason, StopRecord},
};

/// The state that such a host acts on: the decisions it has, and a stop record for every pod on it.
pub(super) fn farewell(
    state: &ClusterState,
    node: &NodeName,
    observed: &Observed,
    now: Timestamp,
) -> ClusterState {
    let mut own = state.clone();

    // Pods that only the engine still lists: the leader has deleted their records, or is about to.
    for container in observed.containers.values() {
        let pod = &container.identity;
        own.pods
            .entry(pod.uid.clone())
            .or_insert_with(|| PodRecord {
                uid: pod.uid.clone(),
                key: pod.pod.clone(),
                owner: pod.owner.clone(),
                place: PodPlace::Node(node.clone()),
                commit: pod.commit.clone(),
                template: pod.template.clone(),
                created: now,
                serial: 0,
                stop: None,
            });
    }

    let stop = StopRecord {
        at: now,
        reason: StopReason::NodeExcluded,
    };
    for record in own
        .pods
        .values_mut()
        .filter(|record| record.place.node() == Some(node))
    {
        record.stop.get_or_insert_with(|| stop.clone());
    }
    own
}

#[cfg(test)]
mod tests {
    use reconciler::{
        name::{ContainerId, ImageId, ObjectKey, PodUid, TemplateHash, WorkloadKey, WorkloadKind},
        observed::{ContainerState, ObservedContainer},
        plan::{PodIdentity, Role},
    };

    use super::*;
    use crate::ids::commit_id;

    fn identity(name: &str) -> PodIdentity {
        PodIdentity {
            uid: PodUid::new(format!("uid-{name}")),
            pod: ObjectKey::new("default", name),
            owner: WorkloadKey {
                kind: WorkloadKind::Pod,
                object: ObjectKey::new("default", name),
            },
            commit: commit_id("c1"),
            template: TemplateHash::new("v1:0"),
        }
    }

    fn record(name: &str, node: &str) -> PodRecord {
        let PodIdentity {
            uid,
            pod,
            owner,
            commit,
            template,
        } = identity(name);
        PodRecord {
            uid,
            key: pod,
            owner,
            place: PodPlace::Node(NodeName::new(node)),
            commit,
            template,
            created: Timestamp::UNIX_EPOCH,
            serial: 1,
            stop: None,
        }
    }

    #[test]
    fn every_pod_of_a_removed_host_must_stop_with_a_record_or_without() {
        let mut state = ClusterState::default();
        for record in [
            record("not-yet-forgotten", "gone"),
            record("made-anew", "other"),
        ] {
            state.pods.insert(record.uid.clone(), record);
        }
        let mut observed = Observed::default();
        for name in ["not-yet-forgotten", "forgotten"] {
            let container = ObservedContainer {
                identity: identity(name),
                role: Role::Main,
                name: "app".to_owned(),
                attempt: 0,
                image: ImageId::new("image"),
                state: ContainerState::Running {
                    started: Timestamp::UNIX_EPOCH,
                },
            };
            observed
                .containers
                .insert(ContainerId::new(name), container);
        }
        let own = farewell(
            &state,
            &NodeName::new("gone"),
            &observed,
            Timestamp::UNIX_EPOCH,
        );
        let stopped: Vec<(&str, bool)> = own
            .pods
            .values()
            .map(|record| (record.key.name.as_str(), record.stop.is_some()))
            .collect();
        assert_eq!(
            stopped,
            [
                ("forgotten", true),
                ("made-anew", false),
                ("not-yet-forgotten", true)
            ]
        );
    }
}
