//! A host that goes back alone, over several decisions of the leader.

use std::sync::Arc;

use super::*;
use crate::{
    desired,
    name::{ObjectKey, WorkloadKey, WorkloadKind},
    state::PodPlace,
};

fn commit(id: char, image: &str) -> Arc<Commit> {
    let text = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  selector: {{matchLabels: {{a: b}}}}\n  \
         template:\n    metadata: {{labels: {{a: b}}}}\n    spec: {{containers: [{{name: c, image: '{image}'}}]}}\n"
    );
    desired::tests::commit(&id.to_string(), &text)
}

fn record(commit: &Commit, node: &NodeName) -> PodRecord {
    let owner = WorkloadKey {
        kind: WorkloadKind::Deployment,
        object: ObjectKey::new("default", "web"),
    };
    PodRecord {
        uid: PodUid::new("one"),
        key: ObjectKey::new("default", "web-1"),
        template: commit.objects.workloads[&owner].template.hash.clone(),
        owner,
        place: PodPlace::Node(node.clone()),
        commit: commit.id.clone(),
        created: Timestamp::UNIX_EPOCH,
        serial: 1,
        stop: None,
    }
}

#[test]
fn a_host_that_goes_back_twice_runs_one_pod_for_each() {
    let node = NodeName::new("n1");
    let commits =
        [('a', "app:1"), ('b', "app:2"), ('c', "app:3")].map(|(id, image)| commit(id, image));
    let [oldest, old, new] = &commits;
    let pod = record(new, &node);
    let uid = pod.uid.clone();
    let mut decided = ClusterState::default();
    decided.pods.insert(uid.clone(), pod);
    let gone = |uids: &[&PodUid]| {
        uids.iter()
            .map(|uid| (*uid).clone())
            .collect::<BTreeSet<_>>()
    };
    let mut detour = Detour::to(old.id.clone(), Timestamp::UNIX_EPOCH);
    detour.advance(&decided, &node, Some(old), &gone(&[&uid]));
    let first = detour.twins[&uid].uid.clone();

    detour.turn(oldest.id.clone(), Timestamp::UNIX_EPOCH);
    detour.advance(&decided, &node, Some(oldest), &gone(&[&uid]));
    let own = detour.state(&decided, &node, Some(oldest));
    assert_eq!(
        own.pods.len(),
        2,
        "nothing new before the first twin is gone"
    );
    assert!(own.pods[&first].stop.is_some());
    detour.advance(&decided, &node, Some(oldest), &gone(&[&uid, &first]));
    let own = detour.state(&decided, &node, Some(oldest));
    let running: Vec<&PodRecord> = own
        .pods
        .values()
        .filter(|record| record.stop.is_none())
        .collect();
    assert_eq!(
        running
            .iter()
            .map(|record| &record.commit)
            .collect::<Vec<_>>(),
        [&oldest.id]
    );
    assert!(!own.pods.contains_key(&first));
}

/// A decided pod of the commit `new`, and a detour to `old` on which its twin runs.
fn went_back(old: &Commit, new: &Commit, node: &NodeName) -> (ClusterState, PodUid, Detour) {
    let pod = record(new, node);
    let uid = pod.uid.clone();
    let mut decided = ClusterState::default();
    decided.pods.insert(uid.clone(), pod);
    let mut detour = Detour::to(old.id.clone(), Timestamp::UNIX_EPOCH);
    detour.advance(&decided, node, Some(old), &BTreeSet::from([uid.clone()]));
    assert!(detour.twins.contains_key(&uid));
    (decided, uid, detour)
}

#[test]
fn a_detour_is_over_when_it_has_ended_and_no_twin_is_left() {
    let node = NodeName::new("n1");
    let (old, new) = (commit('a', "app:1"), commit('b', "app:2"));
    let (_, _, mut detour) = went_back(&old, &new, &node);
    assert!(!detour.is_over());
    detour.ended = true;
    assert!(!detour.is_over(), "its twin still runs");
    assert!(!Detour::to(old.id.clone(), Timestamp::UNIX_EPOCH).is_over());
}

#[test]
fn only_pods_of_this_host_that_run_another_template_go_back() {
    let node = NodeName::new("n1");
    let (old, new) = (commit('a', "app:1"), commit('b', "app:2"));
    let affected = record(&new, &node);
    let elsewhere = PodRecord {
        uid: PodUid::new("elsewhere"),
        ..record(&new, &NodeName::new("n2"))
    };
    let same = PodRecord {
        uid: PodUid::new("same"),
        ..record(&old, &node)
    };
    let stopping = PodRecord {
        uid: PodUid::new("stopping"),
        stop: Some(StopRecord {
            at: Timestamp::UNIX_EPOCH,
            reason: StopReason::ScaledDown,
        }),
        ..record(&new, &node)
    };
    let pods = [affected, elsewhere, same, stopping].map(|pod| (pod.uid.clone(), pod));
    let decided = ClusterState {
        pods: pods.into(),
        ..ClusterState::default()
    };
    let all: BTreeSet<PodUid> = decided.pods.keys().cloned().collect();

    // Before the earlier commit can be read, and with another commit, nothing changes.
    let mut detour = Detour::to(old.id.clone(), Timestamp::UNIX_EPOCH);
    for commit in [None, Some(&*commit('c', "app:3"))] {
        detour.advance(&decided, &node, commit, &all);
        assert!(detour.twins.is_empty());
        assert_eq!(detour.state(&decided, &node, commit), decided);
    }

    let own = detour.state(&decided, &node, Some(&old));
    let changed: Vec<&str> = own
        .pods
        .iter()
        .filter(|(uid, pod)| **pod != decided.pods[*uid])
        .map(|(uid, _)| uid.as_str())
        .collect();
    assert_eq!(changed, ["one"]);
    detour.advance(&decided, &node, Some(&old), &all);
    let twins: Vec<&str> = detour.twins.keys().map(PodUid::as_str).collect();
    assert_eq!(twins, ["one"]);
}

#[test]
fn a_twin_runs_until_the_leaders_target_has_its_template() {
    let node = NodeName::new("n1");
    let (old, new) = (commit('a', "app:1"), commit('b', "app:2"));
    let (decided, uid, detour) = went_back(&old, &new, &node);
    let twin = detour.twins[&uid].uid.clone();
    let stop = |state: &ClusterState, commit| {
        let own = detour.state(state, &node, commit);
        own.pods[&twin].stop.as_ref().map(|stop| stop.reason)
    };
    assert_eq!(stop(&decided, Some(&old)), None);
    assert_eq!(stop(&decided, None), None, "the commit cannot be read");
    let lost = ClusterState::default();
    assert_eq!(stop(&lost, Some(&old)), None, "a lost record stops nothing");
    let mut same = decided.clone();
    same.pods.get_mut(&uid).unwrap().template = record(&old, &node).template;
    assert_eq!(stop(&same, Some(&old)), Some(StopReason::WentBack));
}

#[test]
fn a_stopped_pod_is_reported_as_gone_only_when_its_twin_is() {
    let node = NodeName::new("n1");
    let (old, new) = (commit('a', "app:1"), commit('b', "app:2"));
    let (mut decided, uid, mut detour) = went_back(&old, &new, &node);
    let twin = detour.twins[&uid].uid.clone();
    decided.pods.get_mut(&uid).unwrap().stop = Some(StopRecord {
        at: Timestamp::UNIX_EPOCH,
        reason: StopReason::ScaledDown,
    });
    let reported = |detour: &Detour, gone: &BTreeSet<PodUid>| {
        let report = NodeReport {
            gone: gone.clone(),
            ..NodeReport::default()
        };
        detour.report(&decided, report).gone
    };
    // The twin has a grace period to end.
    let own = BTreeSet::from([uid.clone()]);
    detour.advance(&decided, &node, Some(&old), &own);
    assert!(reported(&detour, &own).is_empty());
    let both = BTreeSet::from([uid.clone(), twin]);
    assert_eq!(reported(&detour, &both), own);
    detour.advance(&decided, &node, Some(&old), &both);
    assert!(reported(&detour, &both).contains(&uid));
}

#[test]
fn the_message_of_a_pod_that_went_back_keeps_what_its_host_reports() {
    let node = NodeName::new("n1");
    let (old, new) = (commit('a', "app:1"), commit('b', "app:2"));
    let (decided, uid, mut detour) = went_back(&old, &new, &node);
    let twin = detour.twins[&uid].uid.clone();
    let message = |detour: &Detour, message: Option<&str>| {
        let mut report = NodeReport::default();
        let status = PodStatus {
            message: message.map(str::to_owned),
            ..PodStatus::pending()
        };
        report.pods.insert(twin.clone(), status);
        detour.report(&decided, report).pods[&uid].message.clone()
    };
    let words = "runs commit aaaaaaaaaa by `windlass rollback --local`";
    assert_eq!(message(&detour, None).unwrap(), words);
    let both = format!("is slow; {words}");
    assert_eq!(message(&detour, Some("is slow")).unwrap(), both);
    detour.ended = true;
    assert_eq!(message(&detour, None), None);
}

#[test]
fn a_host_goes_back_alone_and_returns() {
    let node = NodeName::new("n1");
    let (old, new) = (commit('a', "app:1"), commit('b', "app:2"));
    let pod = record(&new, &node);
    let uid = pod.uid.clone();
    let mut decided = ClusterState::default();
    decided.pods.insert(uid.clone(), pod);
    let mut detour = Detour::to(old.id.clone(), Timestamp::UNIX_EPOCH);
    let gone = |uids: &[&PodUid]| {
        uids.iter()
            .map(|uid| (*uid).clone())
            .collect::<BTreeSet<_>>()
    };

    // The pod stops first, and is not reported as gone.
    detour.advance(&decided, &node, Some(&old), &gone(&[]));
    let own = detour.state(&decided, &node, Some(&old));
    assert_eq!(
        own.pods[&uid].stop.as_ref().unwrap().reason,
        StopReason::WentBack
    );
    assert_eq!(own.pods.len(), 1);
    let report = NodeReport {
        gone: gone(&[&uid]),
        ..NodeReport::default()
    };
    assert!(detour.report(&decided, report).gone.is_empty());

    // The twin runs next, and is reported as the pod itself.
    detour.advance(&decided, &node, Some(&old), &gone(&[&uid]));
    let own = detour.state(&decided, &node, Some(&old));
    let twin = detour.twins[&uid].uid.clone();
    // Everything but the commit and its template is that of the pod.
    let expected = PodRecord {
        uid: twin.clone(),
        commit: old.id.clone(),
        template: record(&old, &node).template,
        ..decided.pods[&uid].clone()
    };
    assert_eq!(own.pods[&twin], expected);
    let mut report = NodeReport {
        gone: gone(&[&uid]),
        ..NodeReport::default()
    };
    report.pods.insert(twin.clone(), PodStatus::pending());
    let told = detour.report(&decided, report);
    assert!(
        told.pods[&uid]
            .message
            .as_ref()
            .unwrap()
            .contains("rollback --local")
    );
    assert!(told.gone.is_empty() && !told.pods.contains_key(&twin));

    // A stop that the leader decides applies to the twin.
    let mut stopped = decided.clone();
    let stop = StopRecord {
        at: Timestamp::UNIX_EPOCH,
        reason: StopReason::ScaledDown,
    };
    stopped.pods.get_mut(&uid).unwrap().stop = Some(stop.clone());
    assert_eq!(
        detour.state(&stopped, &node, Some(&old)).pods[&twin].stop,
        Some(stop)
    );
    let report = NodeReport {
        gone: gone(&[&uid, &twin]),
        ..NodeReport::default()
    };
    assert_eq!(detour.report(&stopped, report).gone, gone(&[&uid]));

    // At the end the twin stops first, and the pod is started after that.
    detour.ended = true;
    let own = detour.state(&decided, &node, Some(&old));
    assert!(own.pods[&twin].stop.is_some() && own.pods[&uid].stop.is_some());
    detour.advance(&decided, &node, Some(&old), &gone(&[&uid, &twin]));
    assert!(detour.is_over());
    assert_eq!(detour.state(&decided, &node, Some(&old)), decided);
}
