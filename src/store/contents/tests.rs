//! Which content of the store is accepted, and which is not.

#![expect(clippy::unwrap_used, reason = "a test")]

use jiff::SignedDuration;
use reconciler::{
    name::{Installation, ObjectKey, TemplateHash},
    state::{
        Adoption, NodeFacts, NodeReport, NodeSystem, RecordFormat, Refusal, Rollout, StopReason,
        StopRecord,
    },
};

use super::*;
use crate::ids::commit_id;
use crate::store::layout;

fn pair(key: &str, value: &[u8], revision: i64) -> StoredValue {
    StoredValue {
        key: key.to_owned(),
        value: value.to_vec(),
        revision,
    }
}

#[test]
fn a_record_that_cannot_be_read_says_what_the_copy_says_also_after_a_start() {
    let mut copy = ClusterState::default();
    copy.put(Record::Serial(7));
    let mut contents = Contents::default();
    contents.remember(layout::records(&copy));
    contents.list(
        5,
        vec![pair("decided/serial", b"{\"of-a-later-version\":1}", 4)],
    );
    assert_eq!(contents.state.serial, 7);
    assert!(contents.unreadable.contains_key("decided/serial"));
    // A record that is missing in a list is not restored.
    assert!(contents.keys("decided/").eq(["decided/serial"]));
}

fn pod(node: Option<&str>) -> PodRecord {
    let place = match node {
        Some(node) => PodPlace::Node(NodeName::new(node)),
        None => PodPlace::Unplaced(Refusal::default()),
    };
    PodRecord {
        uid: PodUid::new("u"),
        key: ObjectKey::new("default", "web-1"),
        owner: "Deployment/default/web".parse().unwrap(),
        place,
        commit: commit_id("c"),
        template: TemplateHash::new("1-0"),
        created: Timestamp::UNIX_EPOCH,
        serial: 1,
        stop: None,
    }
}

const POD: &str = "decided/pods/u";

fn put(record: &PodRecord, revision: i64) -> KeyChange {
    let decided = Decided::record(record.clone());
    KeyChange::Put(pair(POD, &layout::text(&decided), revision))
}

fn place(contents: &Contents) -> Option<&str> {
    contents.state.pods[&PodUid::new("u")]
        .place
        .node()
        .map(NodeName::as_str)
}

#[test]
fn a_pod_that_has_a_node_keeps_it_whatever_its_record_says() {
    let mut contents = Contents::default();
    contents.change(2, vec![put(&pod(None), 2)], false);
    contents.settle();
    contents.change(3, vec![put(&pod(Some("n1")), 3)], false);
    assert_eq!(
        (place(&contents), contents.moved().count()),
        (Some("n1"), 0),
        "the leader has placed it"
    );
    contents.settle();
    for other in [Some("n2"), None] {
        contents.change(4, vec![put(&pod(other), 4)], false);
        assert_eq!(place(&contents), Some("n1"));
        let moved: Vec<_> = contents
            .moved()
            .map(|(key, node, _)| (key, node.as_str()))
            .collect();
        assert_eq!(moved, [(POD, "n1")]);
        contents.list(
            5,
            vec![pair(POD, &layout::text(&Decided::record(pod(other))), 4)],
        );
        assert_eq!(
            (place(&contents), contents.moved().count()),
            (Some("n1"), 1),
            "listed anew"
        );
        // The leader writes the accepted records; after that no record is wrong.
        let writes = contents.wronged();
        assert_eq!(writes, [Decided::record(pod(Some("n1"))).write()]);
        contents.wrote(6, &writes);
        assert_eq!(
            (place(&contents), contents.wronged()),
            (Some("n1"), Vec::new())
        );
        contents.list(
            3,
            vec![pair(
                POD,
                &layout::text(&Decided::record(pod(Some("n1")))),
                3,
            )],
        );
    }
    // The other fields of such a record are accepted: the pod can be stopped.
    let at = Timestamp::UNIX_EPOCH;
    let stop = Some(StopRecord {
        at,
        reason: StopReason::ScaledDown,
    });
    contents.change(
        7,
        vec![put(
            &PodRecord {
                stop: stop.clone(),
                ..pod(Some("n2"))
            },
            7,
        )],
        false,
    );
    let accepted = &contents.state.pods[&PodUid::new("u")];
    assert_eq!(
        (accepted.place.node().unwrap().as_str(), &accepted.stop),
        ("n1", &stop)
    );
    // A store that a person adopts counts for more.
    contents.accept_current();
    assert_eq!(
        (place(&contents), contents.moved().count()),
        (Some("n2"), 0)
    );
}

#[test]
fn a_pod_that_was_forgotten_is_where_it_is_found() {
    let stop = Some(StopRecord {
        at: Timestamp::UNIX_EPOCH,
        reason: StopReason::ScaledDown,
    });
    let stopped = PodRecord {
        stop,
        ..pod(Some("n1"))
    };
    let mut contents = Contents::default();
    contents.change(2, vec![put(&stopped, 2)], false);
    contents.settle();
    // Without a takeover between the two changes.
    let delete = KeyChange::Delete {
        key: POD.to_owned(),
        revision: 3,
    };
    contents.change(4, vec![delete, put(&pod(Some("n2")), 4)], false);
    assert_eq!(
        (place(&contents), contents.moved().count()),
        (Some("n2"), 0)
    );
}

#[test]
fn a_pod_is_not_moved_by_way_of_being_deleted_unplaced_or_of_a_restart() {
    let delete = |revision| KeyChange::Delete {
        key: POD.to_owned(),
        revision,
    };
    let moves = [
        vec![delete(5), put(&pod(Some("n2")), 6)],
        vec![put(&pod(None), 5), delete(6), put(&pod(Some("n2")), 7)],
    ];
    for changes in moves {
        let mut copy = ClusterState::default();
        copy.put(Record::from(pod(Some("n1"))));
        let mut contents = Contents::default();
        contents.remember(layout::records(&copy));
        contents.list(
            4,
            vec![pair(POD, &layout::text(&Decided::record(pod(None))), 4)],
        );
        assert_eq!(place(&contents), Some("n1"), "as the copy on the disk says");
        contents.change(7, changes, false);
        assert_eq!(place(&contents), Some("n1"));
        assert_eq!(
            contents.wronged(),
            [Decided::record(pod(Some("n1"))).write()]
        );
    }
}

#[test]
fn a_pod_is_forgotten_unstopped_only_where_its_node_has_nothing_of_it_in_an_adopted_store() {
    let (node, at) = (NodeName::new("n1"), Timestamp::UNIX_EPOCH);
    let delete = |revision| KeyChange::Delete {
        key: POD.to_owned(),
        revision,
    };
    let adopted = |serial| {
        let adopted = Some(Adoption {
            at,
            serial,
            stock_taken: true,
        });
        let rollout = Rollout {
            adopted,
            ..Rollout::default()
        };
        let decided = Decided::record(rollout);
        KeyChange::Put(pair(&decided.key(), &layout::text(&decided), 3))
    };
    let says = |stock, gone: &[&str]| {
        let gone = gone.iter().map(|uid| PodUid::new(*uid)).collect();
        let report = NodeReport {
            stock,
            gone,
            ..NodeReport::default()
        };
        let doc = ReportDoc {
            report,
            ..ReportDoc::default()
        };
        KeyChange::Put(pair(
            &layout::node_key(&node, "report"),
            &layout::text(&doc),
            4,
        ))
    };
    for (changes, forgotten) in [
        (vec![adopted(1), says(Some(at), &["u"])], true),
        // Reports of another adoption, of none, of a later pod, or of another pod.
        (vec![adopted(1), says(Some(Timestamp::MAX), &["u"])], false),
        (vec![says(Some(at), &["u"])], false),
        (vec![adopted(0), says(Some(at), &["u"])], false),
        (vec![adopted(1), says(Some(at), &["v"])], false),
    ] {
        let mut contents = Contents::default();
        contents.change(2, vec![put(&pod(Some("n1")), 2)], false);
        contents.change(4, changes.clone(), false);
        contents.change(5, vec![delete(5)], false);
        assert_eq!(contents.state.pods.is_empty(), forgotten, "{changes:?}");
        assert_eq!(contents.wronged().is_empty(), forgotten, "{changes:?}");
        // A person who adopts a store confirms its content.
        contents.accept_current();
        assert!(
            contents.state.pods.is_empty() && contents.wronged().is_empty(),
            "{changes:?}"
        );
    }
}

#[test]
fn a_clock_that_is_ahead_does_not_make_a_pod_ready_in_time_to_come() {
    let hour = SignedDuration::from_hours(1);
    let (now, node) = (Timestamp::now(), NodeName::new("n1"));
    let status = PodStatus {
        ready: Some(now + hour),
        ..PodStatus::pending()
    };
    let key = layout::pod_status_key(&node, &PodUid::new("u"));
    let mut contents = Contents::default();
    let put = KeyChange::Put(pair(&key, &layout::text(&status), 3));
    contents.change(3, vec![put], false);
    let ready_since = contents.members[&node].report.report.pods[&PodUid::new("u")]
        .ready
        .unwrap();
    assert!(ready_since <= Timestamp::now());
}

#[test]
fn a_clock_that_differs_much_is_told_as_it_differs_now_and_news_once() {
    let (node, hour) = (NodeName::new("n1"), SignedDuration::from_hours(1));
    let facts = |clock: Timestamp| {
        let facts = NodeFacts {
            name: node.clone(),
            installation: Installation::new("i1"),
            address: "192.0.2.11".parse().unwrap(),
            pod_subnet: "10.244.1.0/24".parse().unwrap(),
            mtu: 1450,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            record_format: RecordFormat::NEWEST,
            system: NodeSystem::default(),
        };
        layout::text(&FactsDoc {
            facts,
            peer: None,
            clock,
        })
    };
    let key = layout::node_key(&node, "facts");
    let mut contents = Contents::default();
    // A value from a list was written at an unknown time, so it shows no clock difference.
    contents.list(3, vec![pair(&key, &facts(Timestamp::now() + hour), 2)]);
    assert_eq!(
        (contents.members[&node].skew(), contents.take_strange()),
        (None, false)
    );

    let mut hear = |revision, ahead| {
        let put = KeyChange::Put(pair(&key, &facts(Timestamp::now() + ahead), revision));
        contents.change(revision, vec![put], false);
        let skew = contents.members[&node].skew();
        (skew.map(|skew| skew.as_hours()), contents.take_strange())
    };
    let little = SignedDuration::from_secs(5);
    assert_eq!(hear(4, little), (None, false));
    assert_eq!(hear(5, hour + little), (Some(1), true));
    assert_eq!(
        hear(6, hour + little),
        (Some(1), false),
        "the news of before"
    );
    assert_eq!(hear(7, -hour - little), (Some(-1), false));
    assert_eq!(hear(8, little), (None, false));
    // A new list shows nothing new of clocks, and keeps what is known.
    assert_eq!(hear(9, hour + little), (Some(1), true));
    contents.list(10, vec![pair(&key, &facts(Timestamp::now()), 10)]);
    assert!(contents.members[&node].skew().is_some());
}
