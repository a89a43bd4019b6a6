//! Removes pulled images that are not needed, when the disk fills.

use std::collections::{BTreeMap, BTreeSet};

use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveImageOptionsBuilder};
use reconciler::{fault::Fault, name::ImageId};

use crate::{
    docker::CallError,
    runtime::{Runtime, engine_info::disk_used_percent},
};

/// The result of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Images that were removed.
    pub removed: Vec<ImageId>,
    /// How full the engine's disk is afterwards, in per cent; `None` where it cannot be read.
    pub disk_used_percent: Option<u8>,
}

impl Runtime {
    /// While the engine's disk is fuller than `above_percent`, removes images that Windlass pulled,
    /// that are not in `keep` and that no container uses, whoever created it. An image that others
    /// have tagged is kept.
    pub async fn collect_garbage(
        &self,
        keep: &BTreeSet<ImageId>,
        above_percent: u8,
    ) -> Result<Collected, Fault> {
        let what = "cannot collect unused images";
        let root = self.engine_info().await?.root;
        let is_full = || disk_used_percent(&root).is_some_and(|percent| percent > above_percent);
        let mut removed = Vec::new();
        if is_full() {
            let listed = self.used_images().await;
            let used = listed.map_err(|error| error.into_fault(what))?;
            for (image, names) in self.recorded_images() {
                let is_needed = keep.contains(&image) || used.contains(&image);
                if is_needed || !is_full() {
                    continue;
                }
                let removal = self.remove_image(&image, &names).await;
                let is_gone = removal.map_err(|error| error.into_fault(what))?;
                if is_gone {
                    removed.push(image);
                }
            }
            self.inner.observer.images_dirty();
        }
        Ok(Collected {
            removed,
            disk_used_percent: disk_used_percent(&root),
        })
    }

    fn recorded_images(&self) -> BTreeMap<ImageId, BTreeSet<String>> {
        let record = self.inner.images.record.lock();
        record.images().clone()
    }

    async fn used_images(&self) -> Result<BTreeSet<ImageId>, CallError> {
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let containers = self
            .engine()
            .call(|docker| async move { docker.list_containers(Some(options)).await })
            .await?;
        Ok(containers
            .into_iter()
            .filter_map(|container| container.image_id)
            .map(ImageId::new)
            .collect())
    }

    /// Removes the names under which Windlass pulled an image, and the image when no other name is
    /// left. Returns whether the image is gone.
    async fn remove_image(
        &self,
        image: &ImageId,
        names: &BTreeSet<String>,
    ) -> Result<bool, CallError> {
        let id = image.as_str();
        for name in names {
            let holder = self
                .engine()
                .call(|docker| async move { docker.inspect_image(name).await })
                .await;
            match holder {
                Ok(found) if found.id.as_deref() == Some(id) => self.remove_reference(name).await?,
                // The name has moved to a newer image.
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }

        // The engine removes an image with its last name; one without tags may still have a digest.
        let left = self
            .engine()
            .call(|docker| async move { docker.inspect_image(id).await })
            .await;
        let is_gone = match left {
            Ok(found) if found.repo_tags.as_ref().is_none_or(Vec::is_empty) => {
                self.remove_reference(id).await?;
                true
            }
            // Others have tagged it.
            Ok(_) => false,
            Err(error) if error.is_not_found() => true,
            Err(error) => return Err(error),
        };

        let (runtime, image) = (self.clone(), image.clone());
        let forgotten =
            tokio::task::spawn_blocking(move || runtime.inner.images.record.lock().forget(&image))
                .await;
        if let Ok(Err(error)) = forgotten {
            tracing::warn!(%error, "an image that was removed is still on record");
        }
        Ok(is_gone)
    }

    async fn remove_reference(&self, reference: &str) -> Result<(), CallError> {
        let options = RemoveImageOptionsBuilder::new().build();
        let limit = self.engine().start_timeout;
        let remove = |docker: bollard::Docker| async move {
            docker.remove_image(reference, Some(options), None).await
        };
        match self.engine().call_within(limit, remove).await {
            // The image is in use after all, or is gone.
            Ok(_)
            | Err(CallError::Refused {
                status: 404 | 409, ..
            }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
