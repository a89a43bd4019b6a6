//! A pod's sandbox: the container that holds its namespaces.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
};

use bollard::{models::ContainerSummary, query_parameters::ListContainersOptionsBuilder};
use reconciler::{
    fault::{Fault, FaultKind},
    name::{ContainerId, ImageId, PodUid},
    plan::{Role, SandboxSpec},
};

use crate::{
    container::StartError,
    docker::CallError,
    labels::{Labels, pod_filter},
    pause,
    runtime::Runtime,
    translate::{self, labels_or_none},
};

impl Runtime {
    /// Loads the sandbox's image ahead of time, so that the first pod of a host does not wait for
    /// it. An error is left to the start of that pod.
    pub async fn load_sandbox_image(&self) {
        let known = self
            .engine()
            .call(|docker| async move { docker.inspect_image(pause::image_name()).await.map(drop) })
            .await;
        let is_missing = matches!(&known, Err(error) if error.is_not_found());
        if is_missing && let Err(error) = pause::load(self.engine()).await {
            tracing::debug!("the sandbox's image is loaded with the first pod: {error}");
        }
    }

    /// Creates and starts a sandbox; its image is inside of this binary, and no registry is used.
    pub async fn start_sandbox(&self, spec: &SandboxSpec) -> Result<(), Fault> {
        let what = format!("cannot start the sandbox of pod {}", spec.identity.pod);
        let image = pause::image_name();
        let (labels, body) = translate::sandbox(spec, image, &self.inner.host);
        let id = ImageId::new(image);
        let started = match self.create_and_start(&labels, &id, body.clone()).await {
            // The engine does not have the image yet, or somebody removed it.
            Err(StartError::Call(error)) if is_image_missing(&error) => {
                pause::load(self.engine())
                    .await
                    .map_err(|error| not_the_commits(error.into_fault(&what)))?;
                self.create_and_start(&labels, &id, body).await
            }
            other => other,
        };
        started.map_err(|error| not_the_commits(error.into_fault(&what)))
    }

    /// The network namespace of a pod's running sandbox.
    pub async fn netns(&self, pod: &PodUid) -> Result<OwnedFd, Fault> {
        let what = format!("cannot open the network namespace of pod {pod}");
        let sandbox = self.sandbox_of(pod, &what).await?;
        let id = sandbox.as_str();
        let found = self
            .engine()
            .call(|docker| async move { docker.inspect_container(id, None).await })
            .await
            .map_err(|error| not_the_commits(error.into_fault(&what)))?;

        let gone = || Fault::new(FaultKind::Gone, format!("the sandbox of pod {pod} is gone"));
        let state = found.state.unwrap_or_default();
        let pid = match state.pid {
            Some(pid) if pid > 0 && state.running == Some(true) => pid,
            _ => return Err(gone()),
        };
        let namespace = File::open(format!("/proc/{pid}/ns/net")).map_err(|_| gone())?;

        // The process may have ended and its id may have been reused: the host's own network
        // namespace is never returned.
        let is_hosts = File::open("/proc/self/ns/net")
            .and_then(|own| Ok(own.metadata()?.ino() == namespace.metadata()?.ino()))
            .map_err(|error| Fault::new(FaultKind::Network, format!("{what}: {error}")))?;
        if is_hosts {
            Err(gone())
        } else {
            Ok(namespace.into())
        }
    }

    /// The newest sandbox of a pod that other containers can join.
    pub(crate) async fn sandbox_of(&self, pod: &PodUid, what: &str) -> Result<ContainerId, Fault> {
        self.container_of(pod, Role::Sandbox, "", what).await
    }

    /// The newest container of a pod with this role and name, from the cache or else from the
    /// engine.
    pub(crate) async fn container_of(
        &self,
        pod: &PodUid,
        role: Role,
        name: &str,
        what: &str,
    ) -> Result<ContainerId, Fault> {
        if let Some(id) = self.inner.observer.find(pod, role, name) {
            return Ok(id);
        }

        let installation = &self.inner.config.installation;
        let options = ListContainersOptionsBuilder::new()
            .filters(&pod_filter(installation, pod))
            .build();
        let running = self
            .engine()
            .call(|docker| async move { docker.list_containers(Some(options)).await })
            .await
            .map_err(|error| error.into_fault(what))?;

        // A container whose labels cannot be read is left alone, here too.
        let id_and_labels = |found: ContainerSummary| {
            let labels = Labels::read(&labels_or_none(found.labels), installation).ok()?;
            Some((found.id?, labels))
        };
        let newest = running
            .into_iter()
            .filter_map(id_and_labels)
            .filter(|(_, labels)| labels.role == role && labels.name == name)
            .max_by_key(|(_, labels)| labels.attempt);
        if let Some((id, _)) = newest {
            return Ok(ContainerId::new(id));
        }
        let name = match role {
            Role::Sandbox => "the sandbox",
            Role::Init | Role::Main => name,
        };
        Err(Fault::new(
            FaultKind::Gone,
            format!("{what}: {name} is not running"),
        ))
    }
}

/// Windlass defines the sandbox: whatever the engine refuses about it, it would refuse for every
/// commit.
fn not_the_commits(fault: Fault) -> Fault {
    if fault.kind.is_commits_fault() {
        Fault {
            kind: FaultKind::Other,
            ..fault
        }
    } else {
        fault
    }
}

/// A missing container would be a 404 too, so the text decides.
fn is_image_missing(error: &CallError) -> bool {
    matches!(error, CallError::Refused { status: 404, message } if message.to_lowercase().contains("no such image"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_that_does_not_start_is_not_held_against_the_commit() {
        let refused = CallError::Refused {
            status: 400,
            message: "OCI runtime: permission denied".to_owned(),
        };
        let fault = refused.into_fault("cannot start the sandbox");
        assert_eq!(fault.kind, FaultKind::Rejected);
        assert_eq!(not_the_commits(fault).kind, FaultKind::Other);
        let gone = Fault::new(FaultKind::Gone, "gone");
        assert_eq!(not_the_commits(gone.clone()), gone);
    }
}
