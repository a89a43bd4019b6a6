//! Forecasts as text, over clusters that an earlier forecast has brought up.

use std::{fmt::Write, net::Ipv4Addr, time::Duration};

use jiff::Timestamp;

use super::*;
use crate::{
    commit::Commits,
    desired,
    ids::commit_id,
    name::Installation,
    rollout::Head,
    settings::{ClusterSettings, RolloutSettings, ServiceRanges},
    state::{ClusterState, KnownNode, NodeFacts, NodeLife, NodeReport, NodeSystem, RecordFormat},
    status::{PodPhase, PodStatus},
};

/// A cluster of the nodes a, b and c.
struct RunningCluster {
    settings: ClusterSettings,
    state: ClusterState,
    commits: Commits,
    nodes: BTreeMap<NodeName, KnownNode>,
    reports: BTreeMap<NodeName, NodeReport>,
}

impl RunningCluster {
    /// The cluster after the rollout of a commit with these manifests.
    fn running(manifests: &str) -> Self {
        let mut scene = Self {
            settings: ClusterSettings {
                rollout: RolloutSettings::default(),
                ranges: ServiceRanges {
                    addresses: "10.96.0.0/16".parse().expect("a network"),
                    dns: Ipv4Addr::new(10, 96, 0, 10),
                    node_ports: 30000..=32767,
                },
                max_pods: 250,
            },
            state: ClusterState {
                cluster: "test".to_owned(),
                ..ClusterState::default()
            },
            commits: Commits::new(),
            nodes: ["a", "b", "c"].map(known).into(),
            reports: BTreeMap::new(),
        };
        let commit = desired::tests::commit("c1", manifests);
        scene.commits.insert(commit.id.clone(), Arc::clone(&commit));
        let kept = Commits::new();
        let input = scene.input(&kept);
        let mut imagined = ImaginedCluster::new(&input, &commit);
        let (_, end) = imagined.run(&mut Vec::new());
        assert_eq!(end, ForecastEnd::Healthy);
        let (state, reports) = imagined.into_parts();
        (scene.state, scene.reports) = (state, reports);
        scene
    }

    fn input<'a>(&'a self, kept: &'a Commits) -> ClusterInput<'a> {
        ClusterInput {
            now: Timestamp::UNIX_EPOCH + Duration::from_secs(1_000_000),
            settings: &self.settings,
            state: &self.state,
            head: &Head::Unknown,
            commits: &self.commits,
            kept,
            nodes: &self.nodes,
            reports: &self.reports,
        }
    }

    /// The forecast for a commit with these manifests, as text in which the names of pods have no
    /// generated letters.
    fn forecast(&mut self, manifests: &str) -> String {
        let commit = desired::tests::commit("c2", manifests);
        self.commits.insert(commit.id.clone(), Arc::clone(&commit));
        let kept = Commits::new();
        let forecast = forecast(&self.input(&kept), &commit);
        let mut text = String::new();
        for (owner, pace) in &forecast.paces {
            writeln!(text, "{owner}: {pace}").expect("a String");
        }
        for (number, steps) in forecast.rounds.iter().enumerate() {
            for step in steps {
                writeln!(text, "{}. {step}", number + 1).expect("a String");
            }
        }
        for note in &forecast.notes {
            writeln!(text, "note: {note}").expect("a String");
        }
        writeln!(text, "{}", forecast.end).expect("a String");
        for record in self.state.pods.values() {
            let owner = &record.owner.object.name;
            text = text.replace(&record.key.name, &format!("{owner}-..."));
        }
        text
    }

    /// Lets the first pod of a workload fail.
    fn fail(&mut self, owner: &str) {
        let mut records = self.state.pods.values();
        let record = records.find(|pod| pod.owner.object.name == owner);
        let record = record.expect("a pod of the workload");
        let node = record.place.node().expect("a node").clone();
        let report = self.reports.get_mut(&node).expect("a report");
        let status = PodStatus {
            phase: PodPhase::Running,
            ..PodStatus::pending()
        };
        report.pods.insert(record.uid.clone(), status);
    }
}

fn known(name: &str) -> (NodeName, KnownNode) {
    let number = name.as_bytes()[0];
    let facts = NodeFacts {
        name: NodeName::new(name),
        installation: Installation::new(name),
        address: Ipv4Addr::new(192, 0, 2, number),
        pod_subnet: format!("10.42.{number}.0/24").parse().expect("a network"),
        mtu: 1500,
        labels: BTreeMap::from([("kubernetes.io/hostname".to_owned(), name.to_owned())]),
        taints: Vec::new(),
        record_format: RecordFormat::NEWEST,
        system: NodeSystem::default(),
    };
    let life = NodeLife::Ready;
    (NodeName::new(name), KnownNode { facts, life })
}

/// A workload with these lines in its `spec`.
fn workload(kind: &str, name: &str, image: &str, spec: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    \
         spec: {{containers: [{{name: c, image: '{image}'}}]}}\n---\n"
    )
}

#[test]
fn fewer_replicas_and_a_new_image_are_rolled_out_within_the_limits() {
    let mut scene = RunningCluster::running(&workload("Deployment", "web", "app:1", "replicas: 3"));
    let after = workload("Deployment", "web", "app:2", "replicas: 2");
    insta::assert_snapshot!(scene.forecast(&after), @r"
    Deployment/default/web: rolling update to 2 replicas: at most 1 pod more, and no pod fewer available
    1. stop pod default/web-... on c: its template has changed
    2. start a pod of Deployment/default/web on c
    3. stop pod default/web-... on b: its template has changed
    4. start a pod of Deployment/default/web on b
    5. stop pod default/web-... on a: its template has changed
    then the commit is healthy
    ");
}

#[test]
fn a_recreated_deployment_stops_before_it_starts() {
    let spec = "replicas: 2\n  strategy: {type: Recreate}";
    let mut scene = RunningCluster::running(&workload("Deployment", "web", "app:1", spec));
    insta::assert_snapshot!(scene.forecast(&workload("Deployment", "web", "app:2", spec)), @r"
    Deployment/default/web: Recreate: all old pods stop before the first new pod starts
    1. stop pod default/web-... on a: its template has changed
    1. stop pod default/web-... on b: its template has changed
    2. start a pod of Deployment/default/web on a
    2. start a pod of Deployment/default/web on b
    then the commit is healthy
    ");
}

#[test]
fn a_daemon_set_is_replaced_node_by_node() {
    let spec = "minReadySeconds: 600";
    let mut scene = RunningCluster::running(&workload("DaemonSet", "agent", "app:1", spec));
    insta::assert_snapshot!(scene.forecast(&workload("DaemonSet", "agent", "app:2", spec)), @r"
    DaemonSet/default/agent: rolling update: the old pod stops before the new pod starts, on at most 1 node at a time
    1. stop pod default/agent-... on a: its template has changed
    2. start a pod of DaemonSet/default/agent on a
    3. stop pod default/agent-... on b: its template has changed
    4. start a pod of DaemonSet/default/agent on b
    5. stop pod default/agent-... on c: its template has changed
    6. start a pod of DaemonSet/default/agent on c
    then the commit is healthy
    ");
}

#[test]
fn pods_of_a_deleted_workload_stop_and_those_of_a_new_one_start() {
    let [old, new] =
        ["old", "new"].map(|name| workload("Deployment", name, "app:1", "replicas: 1"));
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: new}\nspec: {selector: {app: new}, \
                   type: NodePort, ports: [{port: 80}]}\n";
    let mut scene = RunningCluster::running(&old);
    insta::assert_snapshot!(scene.forecast(&format!("{new}{service}")), @r"
    1. start a pod of Deployment/default/new on b
    1. give Service default/new the address 10.96.1.0 and the node ports 32767
    2. stop pod default/old-... on a: its owner is not in the commit any more
    then the commit is healthy
    ");
}

#[test]
fn the_canaries_come_first() {
    let spec = "replicas: 3";
    let mut scene = RunningCluster::running(&workload("Deployment", "web", "app:1", spec));
    scene.settings.rollout.canary_nodes = [NodeName::new("b")].into();
    insta::assert_snapshot!(scene.forecast(&workload("Deployment", "web", "app:2", spec)), @r"
    Deployment/default/web: rolling update to 3 replicas: at most 1 pod more, and no pod fewer available
    1. start a pod of Deployment/default/web on b
    2. stop pod default/web-... on b: its template has changed
    3. start a pod of Deployment/default/web on a
    4. stop pod default/web-... on a: its template has changed
    5. start a pod of Deployment/default/web on c
    6. stop pod default/web-... on c: its template has changed
    then the commit is healthy
    ");
}

#[test]
fn a_pod_that_no_node_takes_is_named_with_the_reason() {
    let mut scene = RunningCluster::running(&workload("Deployment", "web", "app:1", "replicas: 1"));
    let after = workload("Deployment", "web", "app:1", "replicas: 2").replace(
        "spec: {containers",
        "spec: {nodeSelector: {disk: fast}, containers",
    );
    insta::assert_snapshot!(scene.forecast(&after), @r"
    Deployment/default/web: rolling update to 2 replicas: at most 1 pod more, and no pod fewer available
    1. a pod of Deployment/default/web waits for a node: 0 of 3 nodes: 3 do not match spec.nodeSelector
    then the rollout fails (Progressing): Deployment/default/web: 0 of 2 pods available; pod web-944477f0da-pkvxc is not placed: 0 of 3 nodes: 3 do not match spec.nodeSelector
    ");
}

#[test]
fn a_commit_that_changes_nothing_starts_and_stops_nothing() {
    let manifests = workload("Deployment", "web", "app:1", "replicas: 3");
    let mut scene = RunningCluster::running(&manifests);
    assert_eq!(scene.forecast(&manifests), "then the commit is healthy\n");
}

#[test]
fn a_commit_is_forecast_while_another_one_is_prepared() {
    let web = |image| workload("Deployment", "web", image, "replicas: 1");
    let mut scene = RunningCluster::running(&web("app:1"));
    let alone = scene.forecast(&web("app:3"));

    let other = desired::tests::commit("c3", &web("app:2"));
    scene.state.rollout.target = Some(other.id.clone());
    scene.state.rollout.phase = Phase::preparing();
    scene.commits.insert(other.id.clone(), other);
    assert_eq!(scene.forecast(&web("app:3")), alone);
    assert!(
        alone.contains("start a pod of Deployment/default/web"),
        "{alone}"
    );

    // The commit that is prepared itself.
    scene.state.rollout.target = Some(commit_id("c2"));
    assert_eq!(scene.forecast(&web("app:3")), alone);
}

#[test]
fn a_pod_that_fails_already_is_replaced_by_the_rules_of_the_leader() {
    let manifests = |replicas: u32| {
        let db = workload("Deployment", "db", "db:1", &format!("replicas: {replicas}"));
        format!(
            "{db}{}",
            workload("Deployment", "web", "app:1", "replicas: 1")
        )
    };
    let mut scene = RunningCluster::running(&manifests(1));
    scene.fail("db");
    insta::assert_snapshot!(scene.forecast(&manifests(2)), @r"
    1. start a pod of Deployment/default/db on c
    2. stop pod default/db-... on a: it failed and is replaced
    2. start a pod of Deployment/default/db on b
    then the commit is healthy
    ");
}

#[test]
fn each_way_to_replace_pods_has_its_words() {
    let apps = |kind: &str, spec: &str| workload(kind, "web", "app:1", spec);
    let manifests = [
        apps("Deployment", "replicas: 8\n  strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 25%}}"),
        apps("Deployment", "paused: true"),
        apps("DaemonSet", "updateStrategy: {rollingUpdate: {maxSurge: 20%, maxUnavailable: 0}}"),
        apps("DaemonSet", "updateStrategy: {type: OnDelete}"),
        apps("ReplicaSet", "replicas: 1"),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: 'app:1'}]}\n"
            .to_owned(),
    ];
    let words = manifests.map(|text| {
        let commit = desired::tests::commit("c1", &text);
        let workload = commit.objects.workloads.values().next();
        Pace::of(workload.expect("a workload")).to_string()
    });
    insta::assert_snapshot!(words.join("\n"), @r"
    rolling update to 8 replicas: no pod more, and at most 2 pods fewer available
    paused: no pod is replaced
    rolling update: the old pod stops when the new pod is ready, on at most 20 % of the nodes at a time
    running pods keep the old template until they end or are restarted
    running pods keep the old template until they end or are restarted
    the old pod stops before the new pod starts
    ");
}
