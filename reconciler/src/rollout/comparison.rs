//! Which workloads a commit changes: those that are judged while it is rolled out.

use std::sync::Arc;

use crate::{
    commit::{Commit, Commits},
    name::ObjectKey,
    object::{ConfigSource, EnvValue, Objects, PodSpec, VolumeSource, Workload},
    state::Rollout,
};

/// The workloads that are judged while `target` is driven: those that differ between it and its
/// base, and between it and the commits that were driven in between, since pods of the latter are
/// still being replaced. If one of these commits cannot be read, or no commit was healthy yet, all
/// workloads are judged.
pub fn judged_workloads<'a>(
    rollout: &Rollout,
    commits: &Commits,
    target: &'a Commit,
) -> Vec<&'a Workload> {
    let before: Vec<Option<&Arc<Commit>>> = rollout
        .base()
        .map(|id| commits.get(&id))
        .into_iter()
        .chain(rollout.left.iter().map(|id| commits.get(id)))
        .collect();
    let workloads = target.objects.workloads.values();
    workloads
        .filter(|workload| {
            rollout.base().is_none()
                || before
                    .iter()
                    .any(|before| before.is_none_or(|before| differs(target, before, workload)))
        })
        .collect()
}

fn differs(target: &Commit, base: &Commit, workload: &Workload) -> bool {
    let Some(before) = base.objects.workloads.get(&workload.key) else {
        return true;
    };
    before.template.hash != workload.template.hash
        || before.control != workload.control
        || config_sources(&workload.template.spec)
            .iter()
            .any(|source| {
                let namespace = &workload.key.object.namespace;
                !same_config(&target.objects, &base.objects, namespace, source)
            })
}

fn same_config(a: &Objects, b: &Objects, namespace: &str, source: &ConfigSource) -> bool {
    match source {
        ConfigSource::ConfigMap(name) => {
            let key = ObjectKey::new(namespace, name);
            a.config_maps.get(&key).map(|map| &map.data)
                == b.config_maps.get(&key).map(|map| &map.data)
        }
        ConfigSource::Secret(name) => {
            let key = ObjectKey::new(namespace, name);
            a.secrets.get(&key).map(|secret| &secret.data)
                == b.secrets.get(&key).map(|secret| &secret.data)
        }
    }
}

/// The ConfigMaps and Secrets that a pod refers to in its environment or as volumes.
pub fn config_sources(spec: &PodSpec) -> Vec<&ConfigSource> {
    let volumes = spec.volumes.values().filter_map(|volume| match volume {
        VolumeSource::Config { source, .. } => Some(source),
        VolumeSource::HostPath { .. } | VolumeSource::EmptyDir { .. } => None,
    });
    let environment = spec
        .init_containers
        .iter()
        .chain(&spec.containers)
        .flat_map(|container| {
            let keys = container
                .env
                .iter()
                .filter_map(|variable| match &variable.value {
                    EnvValue::Key { source, .. } => Some(source),
                    EnvValue::Text(_) | EnvValue::Field(_) => None,
                });
            container
                .env_from
                .iter()
                .map(|from| &from.source)
                .chain(keys)
        });
    volumes.chain(environment).collect()
}
