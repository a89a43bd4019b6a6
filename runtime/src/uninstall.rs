//! Removes everything of this installation from a host.

use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder,
};
use futures_util::{StreamExt, stream};
use reconciler::fault::Fault;

use crate::{
    docker::CallError,
    labels::installation_filter,
    pause,
    runtime::{Runtime, blocking},
    stop::REMOVE_CONCURRENCY,
    volume,
};

impl Runtime {
    /// Removes all containers of this installation, whichever version wrote their labels, the
    /// directories of the pods with their mounts, and the sandbox's image unless another
    /// installation uses it. Returns how many containers were removed.
    pub async fn uninstall(&self) -> Result<usize, Fault> {
        let removed = self
            .remove_all_containers()
            .await
            .map_err(|error| error.into_fault("cannot remove the containers"))?;
        let pods = self.pods_dir();
        blocking(move || volume::remove_all(&pods)).await?;
        self.remove_pause_images()
            .await
            .map_err(|error| error.into_fault("cannot remove the sandbox's image"))?;
        Ok(removed)
    }

    async fn remove_all_containers(&self) -> Result<usize, CallError> {
        let filter = installation_filter(&self.inner.config.installation);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filter)
            .build();
        let found = self
            .engine()
            .call(|docker| async move { docker.list_containers(Some(options)).await })
            .await?;
        let ids: Vec<_> = found
            .into_iter()
            .filter_map(|container| container.id)
            .collect();

        let removed: Vec<_> = stream::iter(ids)
            .map(|id| async move {
                let options = RemoveContainerOptionsBuilder::new()
                    .force(true)
                    .v(true)
                    .build();
                let (limit, id) = (self.engine().start_timeout, id.as_str());
                let remove = |docker: bollard::Docker| async move {
                    docker.remove_container(id, Some(options)).await
                };
                match self.engine().call_within(limit, remove).await {
                    Err(error) if !error.is_not_found() => Err(error),
                    _ => Ok(()),
                }
            })
            .buffer_unordered(REMOVE_CONCURRENCY)
            .collect()
            .await;
        self.inner.observer.everything_dirty();

        let count = removed.len();
        removed.into_iter().collect::<Result<(), _>>()?;
        Ok(count)
    }

    async fn remove_pause_images(&self) -> Result<(), CallError> {
        let filter = [("reference".to_owned(), vec![pause::REPOSITORY.to_owned()])].into();
        let options = ListImagesOptionsBuilder::new().filters(&filter).build();
        let images = self
            .engine()
            .call(|docker| async move { docker.list_images(Some(options)).await })
            .await?;
        for tag in images.into_iter().flat_map(|image| image.repo_tags) {
            let options = RemoveImageOptionsBuilder::new().build();
            let tag = tag.as_str();
            let removed = self
                .engine()
                .call(|docker| async move { docker.remove_image(tag, Some(options), None).await })
                .await;
            match removed {
                // A sandbox of another installation uses it (409), or it is gone.
                Ok(_)
                | Err(CallError::Refused {
                    status: 404 | 409, ..
                }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
