//! Affinity and spread.

use super::*;
use crate::object::Affinity;

/// The rules in the manifests of Kubernetes' documentation about placement.
const PLACEMENT: &str = r"apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: store}}
spec:
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
        - matchExpressions:
          - {key: topology.kubernetes.io/zone, operator: In, values: [antarctica-east1, antarctica-west1]}
          - {key: cores, operator: Gt, values: ['8']}
        - matchFields:
          - {key: metadata.name, operator: NotIn, values: [worker-1]}
      preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 1
        preference:
          matchExpressions:
          - {key: another-node-label-key, operator: Exists}
    podAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
      - labelSelector:
          matchExpressions:
          - {key: security, operator: In, values: [S1]}
        topologyKey: topology.kubernetes.io/zone
        matchLabelKeys: [pod-template-hash]
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          labelSelector: {matchLabels: {app: store}}
          topologyKey: kubernetes.io/hostname
          namespaces: [default]
          namespaceSelector: {}
          mismatchLabelKeys: [tenant]
  topologySpreadConstraints:
  - {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: store}}, minDomains: 2}
  - {maxSkew: 2, topologyKey: node, whenUnsatisfiable: ScheduleAnyway, nodeAffinityPolicy: Ignore, nodeTaintsPolicy: Honor, labelSelector: {}, matchLabelKeys: [app]}
  containers: [{name: a, image: 'a:1'}]
";

#[test]
fn affinity_and_spread_are_read() {
    let file = SourceFile {
        path: "a.yaml",
        content: PLACEMENT.as_bytes(),
    };
    let (objects, problems) = parse(&[file], &Limits::default(), ReadAs::NewHead);
    assert_eq!(problems, []);
    let spec = &objects
        .workloads
        .first_key_value()
        .expect("the pod")
        .1
        .template
        .spec;
    let Affinity { node, pods, anti } = &spec.affinity;
    let spread: String = spec
        .spread
        .iter()
        .map(|constraint| format!("{constraint:?}\n"))
        .collect();
    insta::assert_snapshot!(format!("{node:?}\n{pods:?}\n{anti:?}\n{spread}"), @r#"
    NodeAffinity { required: Some([NodeTerm { labels: [NodeRequirement { key: "topology.kubernetes.io/zone", operator: In(["antarctica-east1", "antarctica-west1"]) }, NodeRequirement { key: "cores", operator: Gt(8) }], names: [] }, NodeTerm { labels: [], names: [IsNot(NodeName(worker-1))] }]), preferred: [(1, NodeTerm { labels: [NodeRequirement { key: "another-node-label-key", operator: Exists }], names: [] })] }
    PodAffinity { required: [PodTerm { pods: PodSelector { labels: Some(Selector { labels: {}, expressions: [Requirement { key: "security", operator: In(["S1"]) }] }), same: ["pod-template-hash"], other: [] }, namespaces: {}, namespace_selector: None, topology_key: "topology.kubernetes.io/zone" }], preferred: [] }
    PodAffinity { required: [], preferred: [(100, PodTerm { pods: PodSelector { labels: Some(Selector { labels: {"app": "store"}, expressions: [] }), same: [], other: ["tenant"] }, namespaces: {"default"}, namespace_selector: Some(Selector { labels: {}, expressions: [] }), topology_key: "kubernetes.io/hostname" })] }
    SpreadConstraint { max_skew: 1, topology_key: "zone", required: true, pods: PodSelector { labels: Some(Selector { labels: {"app": "store"}, expressions: [] }), same: [], other: [] }, min_domains: 2, honor_affinity: true, honor_taints: false }
    SpreadConstraint { max_skew: 2, topology_key: "node", required: false, pods: PodSelector { labels: Some(Selector { labels: {}, expressions: [] }), same: ["app"], other: [] }, min_domains: 1, honor_affinity: false, honor_taints: true }
    "#);
}

#[test]
fn errors_in_affinity_and_spread_have_their_positions() {
    let text = r"apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
        - matchExpressions:
          - {key: a b, operator: in, values: [x]}
          - {key: a, operator: In}
          - {key: a, operator: Exists, values: [x]}
          - {key: a, operator: Gt, values: [many]}
          - {key: a, operator: Lt, values: ['1', '2']}
          - {key: a}
          matchFields:
          - {key: metadata.uid, operator: In, values: [x]}
          - {key: metadata.name, operator: Exists}
          - {key: metadata.name, operator: In, values: [x, z]}
      preferredDuringSchedulingIgnoredDuringExecution:
      - {weight: 101, preference: {}}
    podAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
      - labelSelector: {matchExpressions: [{key: a, operator: Gt, values: ['1']}]}
      - {topologyKey: a, matchLabelKeys: [b], namespaces: [A]}
      - {topologyKey: a, labelSelector: {matchLabels: {b: c}}, matchLabelKeys: [b], mismatchLabelKeys: [d, d]}
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
      - {weight: 0, podAffinityTerm: {topologyKey: a, labelSelecter: {}}}
  topologySpreadConstraints:
  - {maxSkew: 0, topologyKey: a, whenUnsatisfiable: Never}
  - {maxSkew: 1, topologyKey: a, whenUnsatisfiable: ScheduleAnyway, minDomains: 2}
  - {maxSkew: 1, topologyKey: a, whenUnsatisfiable: ScheduleAnyway, nodeTaintsPolicy: honor}
  - {maxSkew: 1, topologyKey: b}
  containers: [{name: a, image: 'a:1'}]
";
    insta::assert_snapshot!(problems_of(text), @r#"
    a.yaml:10:14: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key: "a b" is not valid: it must be at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit, after an optional domain and '/'
    a.yaml:10:24: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator: "in" is not known here: write one of In, NotIn, Exists, DoesNotExist, Gt, Lt (did you mean "In"?)
    a.yaml:11:14: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[1].values: required: this operator needs at least one value
    a.yaml:12:40: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[2].values: this operator takes no values: remove them
    a.yaml:13:36: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[3].values: must be one whole number, in quotes: correct it
    a.yaml:14:36: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[4].values: must be one whole number, in quotes: correct it
    a.yaml:15:14: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[5].operator: required: write one of In, NotIn, Exists, DoesNotExist, Gt, Lt
    a.yaml:17:14: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].key: the only field to select nodes by is metadata.name: write that
    a.yaml:18:34: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[1].operator: "Exists" is not known here: write one of In, NotIn
    a.yaml:19:48: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[2].values: must be the name of one node: write a term for each
    a.yaml:21:10: spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: 101 is out of range: it must be from 1 to 100
    a.yaml:24:9: spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: required: give it a value
    a.yaml:24:53: spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector.matchExpressions[0].operator: "Gt" is not known here: write one of In, NotIn, Exists, DoesNotExist
    a.yaml:25:26: spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[1].matchLabelKeys: only beside a labelSelector: add one, or remove this
    a.yaml:25:60: spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[1].namespaces[0]: "A" is not valid: it must be at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit
    a.yaml:26:81: spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[2].matchLabelKeys[0]: labelSelector selects by "b" too: keep one of them
    a.yaml:26:108: spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[2].mismatchLabelKeys[1]: "d" is there twice: keep one
    a.yaml:29:10: spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: 0 is out of range: it must be from 1 to 100
    a.yaml:29:55: spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelecter: unknown field (did you mean "labelSelector"?): correct or remove it
    a.yaml:31:6: spec.topologySpreadConstraints[0].maxSkew: 0 is out of range: it must be 1 or more
    a.yaml:31:34: spec.topologySpreadConstraints[0].whenUnsatisfiable: "Never" is not known here: write one of DoNotSchedule, ScheduleAnyway
    a.yaml:32:69: spec.topologySpreadConstraints[1].minDomains: only with whenUnsatisfiable DoNotSchedule: remove one of them
    a.yaml:33:18: spec.topologySpreadConstraints[2].topologyKey: "a" is there twice with this whenUnsatisfiable: keep one
    a.yaml:33:69: spec.topologySpreadConstraints[2].nodeTaintsPolicy: "honor" is not known here: write one of Honor, Ignore (did you mean "Honor"?)
    a.yaml:34:6: spec.topologySpreadConstraints[3].whenUnsatisfiable: required: write DoNotSchedule or ScheduleAnyway
    "#);
}
