//! `topologySpreadConstraints`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use super::affinity::pod_selector;
use crate::{manifest::at::At, object::SpreadConstraint, syntax};

/// `topologySpreadConstraints` of a pod.
pub(super) fn spread(
    constraints: Option<Vec<TopologySpreadConstraint>>,
    at: &At<'_>,
) -> Vec<SpreadConstraint> {
    let mut seen = BTreeSet::new();
    let constraints = constraints.unwrap_or_default().into_iter().enumerate();
    constraints
        .map(|(index, constraint)| {
            let at = at.index(index);
            let constraint = one_constraint(constraint, &at);
            if !seen.insert((constraint.topology_key.clone(), constraint.required)) {
                at.field("topologyKey").error(format_args!(
                    "{:?} is there twice with this whenUnsatisfiable: keep one",
                    constraint.topology_key
                ));
            }
            constraint
        })
        .collect()
}

const WHEN: &[(&str, Option<bool>)] = &[
    ("DoNotSchedule", Some(true)),
    ("ScheduleAnyway", Some(false)),
];
const POLICIES: &[(&str, bool)] = &[("Honor", true), ("Ignore", false)];

fn one_constraint(constraint: TopologySpreadConstraint, at: &At<'_>) -> SpreadConstraint {
    let TopologySpreadConstraint {
        label_selector,
        match_label_keys,
        max_skew,
        min_domains,
        node_affinity_policy,
        node_taints_policy,
        topology_key,
        when_unsatisfiable,
    } = constraint;

    let required = {
        let at = at.field("whenUnsatisfiable");
        if when_unsatisfiable.is_empty() {
            at.error("required: write DoNotSchedule or ScheduleAnyway");
        }
        at.word(Some(&when_unsatisfiable), WHEN, None)
            .unwrap_or(true)
    };
    if min_domains.is_some() && !required {
        at.field("minDomains")
            .error("only with whenUnsatisfiable DoNotSchedule: remove one of them");
    }

    let positive = |number: i32, field: &str| {
        u32::try_from(at.field(field).within(number.into(), 1, i32::MAX.into())).unwrap_or(1)
    };
    SpreadConstraint {
        max_skew: positive(max_skew, "maxSkew"),
        topology_key: at
            .field("topologyKey")
            .checked(topology_key, syntax::qualified_name),
        required,
        pods: pod_selector(label_selector, match_label_keys, None, at),
        min_domains: min_domains.map_or(1, |number| positive(number, "minDomains")),
        honor_affinity: at.field("nodeAffinityPolicy").word(
            node_affinity_policy.as_deref(),
            POLICIES,
            true,
        ),
        honor_taints: at.field("nodeTaintsPolicy").word(
            node_taints_policy.as_deref(),
            POLICIES,
            false,
        ),
    }
}
