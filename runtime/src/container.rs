//! Creating and starting containers in as few calls as possible: create, start. Only a name that is
//! in use takes more.

use bollard::{
    models::{ContainerCreateBody, ContainerStateStatusEnum as Status},
    query_parameters::CreateContainerOptionsBuilder,
};
use reconciler::{
    fault::{Fault, FaultKind},
    name::{ContainerId, ImageId},
    plan::ContainerSpec,
};

use crate::{
    docker::CallError,
    labels::Labels,
    runtime::{Runtime, blocking},
    translate::{self, labels_or_none},
    volume,
};

/// How many names are tried: the usual one, and one with the id of the foreign container that holds
/// it.
const NAME_TRIES: usize = 4;

/// The result of creating a container.
enum Created {
    /// It was created, or found, and must be started.
    Fresh(ContainerId),
    /// An earlier daemon created and started it.
    Running(ContainerId),
}

impl Runtime {
    /// Creates and starts a container in its pod's sandbox. A container that an earlier daemon
    /// created before it was killed is reused.
    pub async fn start_container(&self, spec: &ContainerSpec) -> Result<(), Fault> {
        let what = format!(
            "cannot start container {} of pod {}",
            spec.name, spec.identity.pod
        );
        let sandbox = self.sandbox_of(&spec.identity.uid, &what).await?;
        let mounts = {
            let (pods, spec, rules) = (self.pods_dir(), spec.clone(), self.host_path_rules());
            blocking(move || volume::container_files(&pods, &spec, &rules)).await?
        };
        let user = self.user_for(spec, &what).await?;
        let log_driver = self.engine().log_driver().await;
        let log_driver = log_driver.map_err(|error| error.into_fault(&what))?;
        let host = &self.inner.host;
        let (labels, body) = translate::container(spec, &sandbox, mounts, user, log_driver, host);
        self.create_and_start(&labels, &spec.image, body)
            .await
            .map_err(|error| error.into_fault(&what))
    }

    /// Creates and starts a container, or reuses the existing one.
    pub(crate) async fn create_and_start(
        &self,
        labels: &Labels,
        image: &ImageId,
        body: ContainerCreateBody,
    ) -> Result<(), StartError> {
        let observer = &self.inner.observer;
        let id = match self.create(labels, body).await? {
            Created::Fresh(id) => {
                observer.container_created(&id, labels, image);
                id
            }
            Created::Running(id) => {
                observer.container_dirty(&id);
                return Ok(());
            }
        };

        let (limit, started) = (self.engine().start_timeout, id.as_str());
        let start =
            |docker: bollard::Docker| async move { docker.start_container(started, None).await };
        let result = self.engine().call_within(limit, start).await;

        // The engine's event often arrives before its response, and then the container has been
        // inspected already.
        let known = observer.known(&id);
        let is_seen_alive = known.is_some_and(|known| known.state.is_alive());
        if result.is_err() {
            observer.container_dirty(&id);
        } else if !is_seen_alive {
            observer.container_started(&id);
        }
        Ok(result?)
    }

    async fn create(
        &self,
        labels: &Labels,
        body: ContainerCreateBody,
    ) -> Result<Created, StartError> {
        let own_name = labels.container_name();
        let mut name = own_name.clone();
        for _ in 0..NAME_TRIES {
            let options = CreateContainerOptionsBuilder::new().name(&name).build();
            let body = body.clone();
            let limit = self.engine().start_timeout;
            let create = |docker: bollard::Docker| async move {
                docker.create_container(Some(options), body).await
            };
            match self.engine().call_within(limit, create).await {
                Ok(created) => return Ok(Created::Fresh(ContainerId::new(created.id))),
                Err(error) if error.is_name_conflict() => {
                    match self.holder_of(&name, labels).await? {
                        Holder::Ours(created) => return Ok(created),
                        // The id of the holder makes a name that is free, and that is the same
                        // when the call is repeated.
                        Holder::Foreign(id) => {
                            name = format!("{own_name}_{}", id.get(..8).unwrap_or(&id));
                        }
                        // The container was removed in between: the same name again.
                        Holder::Nobody => {}
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(StartError::Fault(Fault::new(
            FaultKind::Other,
            format!("the container name {name} is taken again and again"),
        )))
    }

    /// The container that holds the wanted name.
    async fn holder_of(&self, name: &str, wanted: &Labels) -> Result<Holder, StartError> {
        let found = match self
            .engine()
            .call(|docker| async move { docker.inspect_container(name, None).await })
            .await
        {
            Ok(found) => found,
            Err(error) if error.is_not_found() => return Ok(Holder::Nobody),
            Err(error) => return Err(error.into()),
        };
        let id = found.id.unwrap_or_default();
        let labels = Labels::read(
            &labels_or_none(found.config.and_then(|config| config.labels)),
            &self.inner.config.installation,
        );
        if !labels.is_ok_and(|labels| labels.is_same_container(wanted)) {
            return Ok(Holder::Foreign(id));
        }

        let id = ContainerId::new(id);
        match found.state.and_then(|state| state.status) {
            Some(Status::CREATED) => Ok(Holder::Ours(Created::Fresh(id))),
            Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING) => {
                Ok(Holder::Ours(Created::Running(id)))
            }
            // An attempt is run once: a container that has ended is not started again.
            _ => {
                self.inner.observer.container_dirty(&id);
                let message = format!("{name} has already run and ended; it is looked at again");
                Err(StartError::Fault(Fault::new(FaultKind::Gone, message)))
            }
        }
    }

    /// The user by the image, where the manifest does not name one: `runAsNonRoot` refuses root,
    /// and the engine accepts the group of `runAsGroup` only together with a user.
    async fn user_for(&self, spec: &ContainerSpec, what: &str) -> Result<Option<String>, Fault> {
        let security = &spec.security;
        let group = security.run_as_group;
        if security.run_as_user.is_some() || group.is_none() && !security.run_as_non_root {
            return Ok(None);
        }

        let image = spec.image.as_str();
        let found = self
            .engine()
            .call(|docker| async move { docker.inspect_image(image).await })
            .await
            .map_err(|error| error.into_fault(what))?;

        // `USER` of the image: `user` or `user:group`; root where the image has none.
        let config = found.config.unwrap_or_default();
        let user_and_group = config.user.unwrap_or_default();
        let user = match user_and_group.split(':').next() {
            Some(user) if !user.is_empty() => user,
            _ => "0",
        };
        if security.run_as_non_root {
            refuse_root(user).map_err(|why| {
                let message = format!("{what}: runAsNonRoot is true, and {why}");
                Fault::new(FaultKind::Rejected, message)
            })?;
        }
        Ok(group.map(|group| format!("{user}:{group}")))
    }
}

/// Refuses an image's user that is root, or may be: only the image's own files say which number a
/// name has.
fn refuse_root(user: &str) -> Result<(), String> {
    const INSTEAD: &str = "write runAsUser, or the number of another user in the image (USER)";
    match user.parse::<u32>() {
        Ok(0) => Err(format!("the image runs as root: {INSTEAD}")),
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "the image's user is the name {user:?}, which may be root's: {INSTEAD}"
        )),
    }
}

/// The container that holds a name.
enum Holder {
    /// It is the wanted container, made by an earlier daemon.
    Ours(Created),
    /// It is another container; holds its id.
    Foreign(String),
    /// The name is free again.
    Nobody,
}

/// Why a container was not started: the engine's error, which the caller may still handle, or a
/// fault.
pub(crate) enum StartError {
    Call(CallError),
    Fault(Fault),
}

impl From<CallError> for StartError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl StartError {
    pub(crate) fn into_fault(self, what: &str) -> Fault {
        match self {
            Self::Call(error) => error.into_fault(what),
            Self::Fault(fault) => Fault::new(fault.kind, format!("{what}: {}", fault.message)),
        }
    }
}
