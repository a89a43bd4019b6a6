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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{desired, ids::commit_id, name::CommitId};

    /// A Pod that refers to the ConfigMap `settings`, one that refers to the Secret of that name, and
    /// one that refers to nothing. `config` and `password` are their contents.
    fn commit(name: &str, config: &str, password: &str, image: &str) -> Arc<Commit> {
        let text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{mode: {config}}}\n---\n\
             apiVersion: v1\nkind: Secret\nmetadata: {{name: settings}}\nstringData: {{key: {password}}}\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata: {{name: configured}}\nspec:\n  containers:\n  \
             - {{name: c, image: 'app:1', envFrom: [{{configMapRef: {{name: settings}}}}]}}\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata: {{name: secret}}\nspec:\n  containers:\n  \
             - {{name: c, image: 'app:1', env: [{{name: K, valueFrom: {{secretKeyRef: {{name: settings, key: key}}}}}}]}}\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata: {{name: plain}}\nspec: {{containers: [{{name: c, image: '{image}'}}]}}\n"
        );
        desired::tests::commit(name, &text)
    }

    /// The names of the judged workloads of the target, where `base` is healthy and `left` were
    /// driven in between.
    fn judged(
        target: &Commit,
        base: Option<&CommitId>,
        left: &[&Arc<Commit>],
        all: &Commits,
    ) -> String {
        let rollout = Rollout {
            target: Some(target.id.clone()),
            driving: Some(target.id.clone()),
            healthy: base.cloned(),
            left: left.iter().map(|commit| commit.id.clone()).collect(),
            ..Rollout::default()
        };
        let judged = judged_workloads(&rollout, all, target);
        let names: Vec<&str> = judged
            .iter()
            .map(|workload| workload.key.object.name.as_str())
            .collect();
        names.join(" ")
    }

    #[test]
    fn workloads_are_judged_whose_template_or_config_differs_from_a_commit_before() {
        let base = commit("c1", "plain", "old", "app:1");
        let same = commit("c2", "plain", "old", "app:1");
        let config = commit("c3", "fancy", "old", "app:1");
        let template = commit("c4", "plain", "old", "app:2");
        let secret = commit("c5", "plain", "new", "app:1");
        let all: Commits = [&base, &same, &config, &template, &secret]
            .map(|commit| (commit.id.clone(), Arc::clone(commit)))
            .into();

        let since_base =
            |target: &Commit, left: &[&Arc<Commit>]| judged(target, Some(&base.id), left, &all);
        assert_eq!(since_base(&same, &[]), "");
        assert_eq!(since_base(&config, &[]), "configured");
        assert_eq!(since_base(&template, &[]), "plain");
        assert_eq!(since_base(&secret, &[]), "secret");
        assert_eq!(since_base(&same, &[&config]), "configured");
        assert_eq!(since_base(&same, &[&config, &template]), "configured plain");
    }

    #[test]
    fn all_workloads_are_judged_without_a_readable_healthy_commit() {
        let target = commit("c1", "plain", "old", "app:1");
        assert_eq!(
            judged(&target, None, &[], &Commits::new()),
            "configured plain secret"
        );
        let unreadable = commit_id("c0");
        assert_eq!(
            judged(&target, Some(&unreadable), &[], &Commits::new()),
            "configured plain secret"
        );
    }
}
