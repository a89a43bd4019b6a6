//! Keys and values as existing clusters have them.

use std::collections::BTreeMap;

use reconciler::{
    fault::FaultKind,
    name::{Installation, ObjectKey, TemplateHash, WorkloadKey, WorkloadKind},
    state::{Outage, Rollout, ServiceAllocation, WorkloadProgress},
};

use super::*;
use crate::store::{contents::Contents, etcd::StoredValue};

#[test]
fn what_the_engine_says_of_a_pod_that_stops_is_not_written() {
    let mut status = PodStatus::pending();
    status.terminating = true;
    status.fault = Some(FaultKind::Other);
    status.message = Some("unlinkat /var/lib/docker: operation not permitted".to_owned());
    let written = String::from_utf8(pod_status_text(&status)).unwrap_or_default();
    assert!(!written.contains("unlinkat"), "{written}");
    let read: PodStatus = serde_json::from_str(&written).unwrap_or_else(|_| PodStatus::pending());
    assert_eq!(
        read,
        PodStatus {
            message: None,
            ..status
        }
    );
}

#[test]
fn keys_are_read_as_they_are_written() {
    let node = NodeName::new("n1");
    let subnet = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 3, 0), 24);
    assert_eq!(KeyKind::of(&subnet_key(subnet)), KeyKind::Subnet(subnet));
    assert_eq!(
        KeyKind::of(&node_key(&node, "facts")),
        KeyKind::Facts(node.clone())
    );
    assert_eq!(
        KeyKind::of(&pod_status_key(&node, &PodUid::new("u"))),
        KeyKind::Pod(node, PodUid::new("u"))
    );
    assert_eq!(KeyKind::of(SEEDING), KeyKind::Unknown);
    assert_eq!(KeyKind::of("subnets/10.244.3.1-24"), KeyKind::Unknown);
    assert_eq!(KeyKind::of("nodes/n1"), KeyKind::Unknown);
}

/// One record of each kind that is short, with its key and its value in etcd.
fn stored() -> Vec<(Decided, &'static str, &'static str)> {
    let node = NodeName::new("n1");
    let web = ObjectKey::new("default", "web");
    let progress = WorkloadProgress {
        updated: 2,
        available: 1,
        since: Timestamp::UNIX_EPOCH,
        template: TemplateHash::new("1-0"),
    };
    let outage = Outage {
        since: Timestamp::UNIX_EPOCH,
        lost: true,
    };
    let answer = AnswerDoc {
        id: "q".to_owned(),
        answer: Ok("done".to_owned()),
    };
    let epoch = Epoch {
        incarnation: 1,
        revision: 9,
    };
    let workload = WorkloadKey {
        kind: WorkloadKind::Deployment,
        object: web.clone(),
    };
    vec![
        (
            Decided::epoch(epoch),
            "decided/epoch",
            r#"{"epoch":{"incarnation":1,"revision":9}}"#,
        ),
        (
            Decided::answer(node.clone(), answer),
            "decided/answers/n1",
            r#"{"answer":["n1",{"id":"q","answer":{"Ok":"done"}}]}"#,
        ),
        (
            Decided::Record(Record::Serial(3)),
            "decided/serial",
            r#"{"serial":3}"#,
        ),
        (
            Decided::Record(Record::Workload(workload, progress)),
            "decided/workloads/Deployment/default/web",
            r#"{"workload":["Deployment/default/web",{"updated":2,"available":1,"since":"1970-01-01T00:00:00Z","template":"1-0"}]}"#,
        ),
        (
            Decided::Record(Record::Service(web, ServiceAllocation::default())),
            "decided/services/default/web",
            r#"{"service":["default/web",{"cluster_ip":null,"node_ports":{}}]}"#,
        ),
        (
            Decided::Record(Record::Outage(node.clone(), outage)),
            "decided/outages/n1",
            r#"{"outage":["n1",{"since":"1970-01-01T00:00:00Z","lost":true}]}"#,
        ),
        (
            Decided::Record(Record::Removed(node, Installation::new("i1"))),
            "decided/removed/n1",
            r#"{"removed":["n1","i1"]}"#,
        ),
    ]
}

#[test]
fn records_have_the_keys_and_values_that_clusters_have() {
    for (decided, key, value) in stored() {
        assert_eq!(decided.key(), key);
        assert_eq!(String::from_utf8_lossy(&text(&decided)), value);
        let read = Decided::read(key, value.as_bytes());
        assert_eq!(read.ok(), Some(Some(decided)), "{key}");
    }
    let rollout = Decided::record(Rollout::default());
    assert_eq!(rollout.key(), "decided/rollout");
    let value = text(&rollout);
    assert!(value.starts_with(br#"{"rollout":{"#));
    let read = Decided::read("decided/rollout", &value);
    assert_eq!(read.ok(), Some(Some(rollout)));
    let pod = RecordKey::Pod(PodUid::new("u"));
    assert_eq!(record_key(&pod), "decided/pods/u");
}

#[test]
fn a_record_under_another_key_counts_for_nothing_and_an_unknown_one_is_an_error() {
    for (decided, key, value) in stored() {
        for other in ["decided/epoch", "decided/serial", "decided/jobs/x"] {
            let read = Decided::read(other, value.as_bytes());
            assert_eq!(read.ok(), Some((key == other).then(|| decided.clone())));
        }
    }
    let error = |key: &str, value: &str| match Decided::read(key, value.as_bytes()) {
        Ok(decided) => format!("{decided:?}"),
        Err(error) => error.to_string(),
    };
    let job = error("decided/jobs/x", r#"{"job":{}}"#);
    assert!(
        job.contains("unknown variant `job`, expected one of `serial`"),
        "{job}"
    );
    let epoch = error("decided/epoch", r#"{"epoch":{"incarnation":1}}"#);
    assert!(epoch.contains("missing field `revision`"), "{epoch}");
    let outage = error("decided/outages/n1", r#"{"outage":["n1",{"lost":true}]}"#);
    assert!(outage.contains("missing field `since`"), "{outage}");
}

#[test]
fn the_count_of_names_is_written_first() {
    let changes = [
        Change::Delete(RecordKey::Pod(PodUid::new("a"))),
        Change::Put(Record::Serial(3)),
    ];
    let Some(Write::Put { key, .. }) = writes(&changes).into_iter().next() else {
        panic!("no write")
    };
    assert_eq!(key, "decided/serial");
}

/// The store of a recorded cluster of the last version that published no format of records.
fn recorded() -> Vec<(String, serde_json::Value)> {
    let text = include_str!("../../../tests/records/e632e2e/store.json");
    let pairs: Vec<BTreeMap<String, String>> = serde_json::from_str(text).expect("a record");
    let pairs = pairs.into_iter().map(|pair| {
        let value = serde_json::from_str(&pair["value"]).expect("a JSON value");
        (pair["key"].clone(), value)
    });
    pairs.collect()
}

/// The documents of a value to which a later version may add a field: not the maps in it.
fn documents(key: &str) -> &'static [&'static str] {
    match KeyKind::of(key) {
        KeyKind::Identity | KeyKind::Pod(..) => &[""],
        KeyKind::Facts(_) => &["", "/facts", "/facts/system"],
        KeyKind::Report(_) => &["", "/report"],
        KeyKind::Decided if key.starts_with("decided/pods/") => &["/pod"],
        KeyKind::Decided if key.starts_with("decided/workloads/") => &["/workload/1"],
        KeyKind::Decided if key.starts_with("decided/services/") => &["/service/1"],
        KeyKind::Decided if key == "decided/rollout" => &["/rollout", "/rollout/history/0"],
        KeyKind::Decided if key == "decided/epoch" => &["/epoch"],
        _ => &[],
    }
}

#[test]
fn a_field_that_a_later_version_adds_to_a_document_is_ignored() {
    let read = |pairs: Vec<(String, serde_json::Value)>| {
        let stored = pairs.into_iter().map(|(key, value)| StoredValue {
            key,
            value: text(&value),
            revision: 1,
        });
        let mut contents = Contents::default();
        contents.list(1, stored.collect());
        contents
    };
    let before = read(recorded());
    assert_eq!(before.unreadable, [].into());

    let mut later = recorded();
    let mut added = 0;
    for (key, value) in &mut later {
        for document in documents(key) {
            let document = value.pointer_mut(document).expect("a document");
            document["of_a_later_version"] = serde_json::json!({ "any": 1 });
            added += 1;
        }
    }
    assert!(added > 40, "{added}");
    let after = read(later);
    assert_eq!(after.unreadable, [].into());
    assert_eq!(after.state, before.state);
    let reports = |contents: &Contents| -> Vec<ReportDoc> {
        contents
            .members
            .values()
            .map(|member| member.report.clone())
            .collect()
    };
    assert_eq!(reports(&after), reports(&before));
}
