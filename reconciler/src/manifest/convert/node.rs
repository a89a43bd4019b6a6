//! Namespaces, Nodes, and the taints and tolerations that keep pods off a node.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1 as core;

use super::meta::{Named, object_meta};
use crate::{
    manifest::at::At,
    name::NodeName,
    object::{DRAIN, Meta, NodeObject, Taint, TaintEffect, Toleration},
    syntax,
};

/// Reads a Namespace, which has a name and labels only.
pub(in crate::manifest) fn namespace(namespace: core::Namespace, at: &At<'_>) -> (String, Meta) {
    let core::Namespace {
        metadata,
        spec,
        status: _,
    } = namespace;
    let core::NamespaceSpec { finalizers } = spec.unwrap_or_default();
    at.field("spec").field("finalizers").ignore(
        finalizers.is_some(),
        "what leaves the commit is removed at once",
    );
    let (key, meta) = object_meta(metadata, Named::Namespace, at);
    (key.name, meta)
}

const HOSTS: &str = "the host's own configuration says this";

/// Reads a Node: labels, taints and the cordon of one host.
pub(in crate::manifest) fn node(node: core::Node, at: &At<'_>) -> (NodeName, NodeObject) {
    let core::Node {
        metadata,
        spec,
        status: _,
    } = node;
    let (
        key,
        Meta {
            labels,
            annotations,
        },
    ) = object_meta(metadata, Named::Node, at);
    let at_metadata = at.field("metadata");
    let drain = drain(
        annotations.get(DRAIN).map(String::as_str),
        &at_metadata.field("annotations").field(DRAIN),
    );

    let at = at.field("spec");
    let core::NodeSpec {
        config_source,
        external_id,
        pod_cidr,
        pod_cidrs,
        provider_id,
        taints,
        unschedulable,
    } = spec.unwrap_or_default();
    for (field, given) in [
        ("configSource", config_source.is_some()),
        ("externalID", external_id.is_some()),
        ("podCIDR", pod_cidr.is_some()),
        ("podCIDRs", pod_cidrs.is_some()),
        ("providerID", provider_id.is_some()),
    ] {
        at.field(field).ignore(given, HOSTS);
    }

    let node = NodeObject {
        labels,
        annotations,
        taints: all_taints(taints.unwrap_or_default(), &at.field("taints")),
        // As with kubectl drain, a node is cordoned before its pods leave: they would come back.
        unschedulable: drain || unschedulable.unwrap_or(false),
        drain,
    };
    (NodeName::new(key.name), node)
}

/// Whether the annotation asks to drain the node.
fn drain(annotation: Option<&str>, at: &At<'_>) -> bool {
    match annotation {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            at.error(format_args!(
                "{other:?} says neither to drain the node nor not to: write \"true\" or \"false\""
            ));
            false
        }
    }
}

fn all_taints(taints: Vec<core::Taint>, at: &At<'_>) -> Vec<Taint> {
    let mut seen = BTreeSet::new();
    let mut read = Vec::new();
    for (index, taint) in taints.into_iter().enumerate() {
        let at = at.index(index);
        let Some(taint) = one_taint(taint, &at) else {
            continue;
        };
        // Kubernetes identifies a taint by its key and its effect.
        if !seen.insert((taint.key.clone(), taint.effect)) {
            at.field("key").error(format_args!(
                "{:?} is there twice with this effect: keep one",
                taint.key
            ));
        }
        read.push(taint);
    }
    read
}

const EFFECTS: &[(&str, Option<TaintEffect>)] = &[
    ("NoSchedule", Some(TaintEffect::NoSchedule)),
    ("PreferNoSchedule", Some(TaintEffect::PreferNoSchedule)),
    ("NoExecute", Some(TaintEffect::NoExecute)),
];

fn one_taint(taint: core::Taint, at: &At<'_>) -> Option<Taint> {
    let core::Taint {
        effect,
        key,
        time_added,
        value,
    } = taint;
    at.field("timeAdded")
        .ignore(time_added.is_some(), "only an API server writes this");

    if effect.is_empty() {
        at.field("effect")
            .error("required: write one of NoSchedule, PreferNoSchedule, NoExecute");
    }
    let effect = at.field("effect").word(Some(&effect), EFFECTS, None);
    let taint = Taint {
        key: at.field("key").checked(key, syntax::qualified_name),
        value: at
            .field("value")
            .optional(value, syntax::label_value)
            .unwrap_or_default(),
        effect: effect?,
    };
    Some(taint)
}

/// `tolerations` of a pod.
pub(super) fn tolerations(
    tolerations: Option<Vec<core::Toleration>>,
    at: &At<'_>,
) -> Vec<Toleration> {
    let tolerations = tolerations.unwrap_or_default().into_iter().enumerate();
    tolerations
        .map(|(index, toleration)| one_toleration(toleration, &at.index(index)))
        .collect()
}

fn one_toleration(toleration: core::Toleration, at: &At<'_>) -> Toleration {
    let core::Toleration {
        effect,
        key,
        operator,
        toleration_seconds,
        value,
    } = toleration;
    let key = at.field("key").optional(key, syntax::qualified_name);
    let value = at.field("value").optional(value, syntax::label_value);
    let exists = at.field("operator").word(
        operator.as_deref(),
        &[("Equal", false), ("Exists", true)],
        false,
    );

    if exists && value.is_some() {
        at.field("value")
            .error("the operator Exists takes no value: remove one of them");
    }
    if !exists && key.is_none() {
        at.field("key")
            .error("required: only the operator Exists goes without a key");
    }

    let effect = at.field("effect").word(effect.as_deref(), EFFECTS, None);
    if toleration_seconds.is_some() && effect != Some(TaintEffect::NoExecute) {
        at.field("tolerationSeconds")
            .error("only for the effect NoExecute: set it, or remove this");
    } else if toleration_seconds.is_some() {
        at.field("tolerationSeconds")
            .warning("no effect: a taint that is tolerated is tolerated for ever here");
    }

    Toleration {
        key,
        equal: if exists {
            None
        } else {
            Some(value.unwrap_or_default())
        },
        effect,
        // In Kubernetes a negative number means "at once".
        for_at_most: toleration_seconds
            .map(|seconds| Duration::from_secs(seconds.clamp(0, i32::MAX.into()).unsigned_abs())),
    }
}
