//! Images: pins, pulls of one image at the same time, kinds of faults, credentials and garbage
//! collection.

use std::{collections::BTreeSet, time::Duration};

use reconciler::{fault::FaultKind, plan::PullMode};
use runtime::{PullStage, RegistryAuth};

use crate::{
    bed::{Bed, docker, try_docker},
    registry::{Mode, Registry},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pinned_by_its_digest_and_collected_only_when_it_is_not_needed() {
    let bed = Bed::new().await;
    let registry = Registry::start(&bed.instance).await;
    let image = registry.image();
    let pulls =
        futures_util::future::join_all((0..8).map(|_| bed.pulled(&image, PullMode::IfNotPresent)))
            .await;
    let pins: Vec<_> = pulls.into_iter().map(Result::unwrap).collect();
    let pin = pins[0].clone();
    assert!(pins.iter().all(|other| *other == pin));
    assert!(
        registry.manifest_requests() <= 3,
        "eight pulls of one image need one request for its manifests: {}",
        registry.manifest_requests()
    );
    assert_eq!(
        pin.digest,
        Some(format!(
            "{}/app@{}",
            registry.host, registry.manifest_digest
        ))
    );
    assert_eq!(pin.warning, None);
    assert!(
        bed.runtime
            .observe()
            .await
            .unwrap()
            .images
            .contains(&pin.id)
    );

    let by_digest = bed
        .pulled(&pin.digest.clone().unwrap(), PullMode::IfNotPresent)
        .await
        .unwrap();
    assert_eq!(by_digest, pin);

    let kept = bed
        .runtime
        .collect_garbage(&BTreeSet::from([pin.id.clone()]), 0)
        .await
        .unwrap();
    assert!(kept.removed.is_empty());
    let collected = bed
        .reopened()
        .await
        .collect_garbage(&BTreeSet::new(), 0)
        .await
        .unwrap();
    assert_eq!(collected.removed, [pin.id]);
    assert!(try_docker(&["image", "inspect", &image]).is_err());
    assert!(
        try_docker(&["image", "inspect", &bed.image]).is_ok(),
        "an image that the runtime did not pull was removed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_under_way_shows_what_has_been_received() {
    let bed = Bed::with(|config| config.pull_timeout = Duration::from_secs(5)).await;
    let registry = Registry::start(&"a long line of a page\n".repeat(100_000)).await;
    registry.set(Mode::HalfALayer);
    let image = registry.image();
    let downloads = async {
        loop {
            if let [pull] = bed.runtime.pulls().as_slice()
                && pull.stage == PullStage::Downloading
                && pull.received_bytes > 0
            {
                return pull.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (pulled, pull) = tokio::join!(bed.pulled(&image, PullMode::IfNotPresent), downloads);
    assert_eq!(pull.image, image);
    let total = pull.total_bytes.unwrap();
    assert!(total > 2_000_000, "{pull:?}");
    assert!(pull.received_bytes <= total / 2 + 1, "{pull:?}");
    assert_eq!(pulled.unwrap_err().kind, FaultKind::RegistryUnreachable);
    assert_eq!(bed.runtime.pulls(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_a_refusal_and_a_silent_registry_are_different_faults() {
    let bed = Bed::with(|config| config.pull_timeout = Duration::from_secs(3)).await;
    let registry = Registry::start(&bed.instance).await;
    let kind = async |image: &str| {
        bed.pulled(image, PullMode::IfNotPresent)
            .await
            .unwrap_err()
            .kind
    };
    assert_eq!(
        kind(&format!("{}/app:nosuch", registry.host)).await,
        FaultKind::ImageMissing
    );
    assert_eq!(
        kind(&format!("{}/nosuch", registry.host)).await,
        FaultKind::ImageMissing
    );
    assert_eq!(
        kind("127.0.0.1:1/app:1").await,
        FaultKind::RegistryUnreachable
    );
    assert_eq!(kind("Not//Valid").await, FaultKind::ImageMissing);
    registry.set(Mode::Denying);
    assert_eq!(kind(&registry.image()).await, FaultKind::RegistryDenied);
    registry.set(Mode::Hanging);
    assert_eq!(
        kind(&registry.image()).await,
        FaultKind::RegistryUnreachable
    );
    let never = bed
        .pulled(&registry.image(), PullMode::Never)
        .await
        .unwrap_err();
    assert_eq!(never.kind, FaultKind::ImageMissing);
    assert!(
        never.message.contains("imagePullPolicy is Never"),
        "{never}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registrys_password_is_read_at_every_pull() {
    let registry = Registry::start("credentials").await;
    registry.set(Mode::RequiringPassword);
    let secrets = tempfile::tempdir().unwrap();
    let password_file = secrets.path().join("password");
    std::fs::write(&password_file, "old\n").unwrap();
    let auth = RegistryAuth {
        host: registry.host.clone(),
        user: "deployer".to_owned(),
        password_file: password_file.clone(),
    };
    let bed = Bed::with(|config| config.registries.push(auth)).await;
    let refused = bed
        .pulled(&registry.image(), PullMode::IfNotPresent)
        .await
        .unwrap_err();
    assert_eq!(refused.kind, FaultKind::RegistryDenied, "{refused}");
    std::fs::write(&password_file, "s3cret\n").unwrap();
    bed.pulled(&registry.image(), PullMode::IfNotPresent)
        .await
        .unwrap();
    bed.runtime
        .collect_garbage(&BTreeSet::new(), 0)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_mode_always_uses_the_local_image_with_a_warning_where_the_registry_fails() {
    let bed = Bed::new().await;
    let tag = format!("127.0.0.1:1/{}", bed.instance);
    docker(&["tag", &bed.image, &tag]);
    let local = bed.pulled(&tag, PullMode::IfNotPresent).await.unwrap();
    assert_eq!(
        (local.id.clone(), local.digest, local.warning),
        (bed.image_id.clone(), None, None)
    );
    let pin = bed.pulled(&tag, PullMode::Always).await.unwrap();
    assert_eq!(pin.id, bed.image_id);
    let warning = pin.warning.unwrap();
    assert!(
        warning.contains("local image is used") && warning.contains("connection refused"),
        "{warning}"
    );
    docker(&["rmi", &tag]);
}
