//! `volumes` of a pod and `volumeMounts` of its containers.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core;

use super::quantity;
use crate::{
    manifest::{at::At, similar},
    object::{ConfigItem, ConfigSource, HostPathKind, MountPropagation, VolumeMount, VolumeSource},
    syntax,
};

/// `volumes`, keyed by name.
pub(super) fn volumes(
    volumes: Option<Vec<core::Volume>>,
    at: &At<'_>,
) -> BTreeMap<String, VolumeSource> {
    let mut sources = BTreeMap::new();
    for (index, volume) in volumes.unwrap_or_default().into_iter().enumerate() {
        let at = at.index(index);
        let (name, source) = name_and_source(volume, &at);
        if sources.insert(name.clone(), source).is_some() {
            at.field("name").error(format_args!(
                "the volume {name:?} is there twice: rename one"
            ));
        }
    }
    sources
}

/// The name and the source of a volume.
fn name_and_source(volume: core::Volume, at: &At<'_>) -> (String, VolumeSource) {
    let core::Volume {
        aws_elastic_block_store,
        azure_disk,
        azure_file,
        cephfs,
        cinder,
        config_map,
        csi,
        downward_api,
        empty_dir,
        ephemeral,
        fc,
        flex_volume,
        flocker,
        gce_persistent_disk,
        git_repo,
        glusterfs,
        host_path,
        image,
        iscsi,
        name,
        nfs,
        persistent_volume_claim,
        photon_persistent_disk,
        portworx_volume,
        projected,
        quobyte,
        rbd,
        scale_io,
        secret,
        storageos,
        vsphere_volume,
    } = volume;
    let unsupported = [
        ("awsElasticBlockStore", aws_elastic_block_store.is_some()),
        ("azureDisk", azure_disk.is_some()),
        ("azureFile", azure_file.is_some()),
        ("cephfs", cephfs.is_some()),
        ("cinder", cinder.is_some()),
        ("csi", csi.is_some()),
        ("downwardAPI", downward_api.is_some()),
        ("ephemeral", ephemeral.is_some()),
        ("fc", fc.is_some()),
        ("flexVolume", flex_volume.is_some()),
        ("flocker", flocker.is_some()),
        ("gcePersistentDisk", gce_persistent_disk.is_some()),
        ("gitRepo", git_repo.is_some()),
        ("glusterfs", glusterfs.is_some()),
        ("image", image.is_some()),
        ("iscsi", iscsi.is_some()),
        ("nfs", nfs.is_some()),
        ("persistentVolumeClaim", persistent_volume_claim.is_some()),
        ("photonPersistentDisk", photon_persistent_disk.is_some()),
        ("portworxVolume", portworx_volume.is_some()),
        ("projected", projected.is_some()),
        ("quobyte", quobyte.is_some()),
        ("rbd", rbd.is_some()),
        ("scaleIO", scale_io.is_some()),
        ("storageos", storageos.is_some()),
        ("vsphereVolume", vsphere_volume.is_some()),
    ];
    for (field, given) in unsupported {
        if given {
            at.field(field)
                .error(format_args!("not supported yet: {}", instead_of(field)));
        }
    }

    let name = at.field("name").checked(name, syntax::label);
    let mut sources = [
        host_path.map(|source| host_path_source(source, &at.field("hostPath"))),
        empty_dir.map(|source| empty_dir_source(source, &at.field("emptyDir"))),
        config_map.map(|source| config_map_source(source, &at.field("configMap"))),
        secret.map(|source| secret_source(source, &at.field("secret"))),
    ]
    .into_iter()
    .flatten();

    // In Kubernetes, a volume without a source is an emptyDir.
    let source = sources.next().unwrap_or(VolumeSource::EmptyDir {
        memory: false,
        size_limit: None,
    });
    if sources.next().is_some() {
        at.error("has more than one source: keep one");
    }
    (name, source)
}

/// What to write instead of a source that is refused.
fn instead_of(source: &str) -> &'static str {
    match source {
        "persistentVolumeClaim" | "ephemeral" => {
            "use a hostPath, and a nodeSelector that keeps the pod where its data is; or an emptyDir for what may be \
             lost with the pod"
        }
        "projected" => "mount each of its sources as a configMap or secret volume of its own",
        "downwardAPI" => "give the values to the container as env with fieldRef",
        "gitRepo" => "let an init container clone into an emptyDir",
        "image" => "let an init container of that image copy its files into an emptyDir",
        "nfs" | "cephfs" | "glusterfs" | "rbd" | "iscsi" | "fc" => {
            "mount it on the hosts, and use a hostPath below its mount point with type Directory"
        }
        _ => {
            "use a hostPath on a disk that the hosts mount, or an emptyDir for what may be lost with the pod"
        }
    }
}

const HOST_PATH_KINDS: &[(&str, HostPathKind)] = &[
    ("DirectoryOrCreate", HostPathKind::DirectoryOrCreate),
    ("Directory", HostPathKind::Directory),
    ("FileOrCreate", HostPathKind::FileOrCreate),
    ("File", HostPathKind::File),
    ("Socket", HostPathKind::Socket),
    ("CharDevice", HostPathKind::CharDevice),
    ("BlockDevice", HostPathKind::BlockDevice),
];

fn host_path_source(source: core::HostPathVolumeSource, at: &At<'_>) -> VolumeSource {
    let core::HostPathVolumeSource { path, type_ } = source;
    let path = at.field("path").checked(path, syntax::absolute_path);
    if path.split('/').any(|part| part == "..") {
        at.field("path")
            .error("must not hold \"..\": write where it leads");
    }

    VolumeSource::HostPath {
        path: normalised(&path),
        kind: at
            .field("type")
            .word(type_.as_deref(), HOST_PATH_KINDS, HostPathKind::Any),
    }
}

/// A path without double slashes, trailing slashes and `.`.
fn normalised(path: &str) -> String {
    let mut normal = String::with_capacity(path.len());
    for part in path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
    {
        normal.push('/');
        normal.push_str(part);
    }
    if normal.is_empty() {
        "/".to_owned()
    } else {
        normal
    }
}

fn empty_dir_source(source: core::EmptyDirVolumeSource, at: &At<'_>) -> VolumeSource {
    let core::EmptyDirVolumeSource { medium, size_limit } = source;
    let medium = medium.unwrap_or_default();
    if !matches!(medium.as_str(), "" | "Memory") {
        at.field("medium").error(format_args!(
            "{medium:?} is not supported yet: write Memory, or leave medium out to have it on disk"
        ));
    }

    let size_limit = size_limit.and_then(|limit| bytes(&limit.0, &at.field("sizeLimit")));
    // A disk has no quota per directory; a tmpfs has a size of its own.
    if size_limit.is_some() && medium.is_empty() {
        at.field("sizeLimit")
            .warning("no effect: only an emptyDir with medium Memory is bounded");
    }

    VolumeSource::EmptyDir {
        memory: medium == "Memory",
        // A tmpfs of size 0 has no bound (tmpfs(5)), as a sizeLimit of 0 has none in Kubernetes.
        size_limit: size_limit.filter(|bytes| *bytes > 0),
    }
}

fn bytes(quantity: &str, at: &At<'_>) -> Option<u64> {
    match quantity::whole(quantity) {
        Ok(bytes) => Some(bytes),
        Err(rule) => {
            at.error(format_args!("{quantity:?} is not valid: it must be {rule}"));
            None
        }
    }
}

fn config_map_source(source: core::ConfigMapVolumeSource, at: &At<'_>) -> VolumeSource {
    let core::ConfigMapVolumeSource {
        default_mode,
        items,
        name,
        optional,
    } = source;
    VolumeSource::Config {
        source: ConfigSource::ConfigMap(at.field("name").checked(name, syntax::subdomain)),
        items: config_items(items, &at.field("items")),
        mode: default_mode.map_or(0o644, |mode| file_mode(mode, &at.field("defaultMode"))),
        optional: optional.unwrap_or(false),
    }
}

fn secret_source(source: core::SecretVolumeSource, at: &At<'_>) -> VolumeSource {
    let core::SecretVolumeSource {
        default_mode,
        items,
        optional,
        secret_name,
    } = source;
    let name = at
        .field("secretName")
        .checked(secret_name.unwrap_or_default(), syntax::subdomain);
    VolumeSource::Config {
        source: ConfigSource::Secret(name),
        items: config_items(items, &at.field("items")),
        mode: default_mode.map_or(0o644, |mode| file_mode(mode, &at.field("defaultMode"))),
        optional: optional.unwrap_or(false),
    }
}

fn config_items(items: Option<Vec<core::KeyToPath>>, at: &At<'_>) -> Vec<ConfigItem> {
    let mut paths = BTreeSet::new();
    let mut read = Vec::new();
    for (index, core::KeyToPath { key, mode, path }) in
        items.unwrap_or_default().into_iter().enumerate()
    {
        let at = at.index(index);
        let path = at.field("path").checked(path, syntax::relative_path);
        if !paths.insert(path.clone()) {
            at.field("path")
                .error(format_args!("the path {path:?} is there twice: change one"));
        }

        read.push(ConfigItem {
            key: at.field("key").checked(key, syntax::config_key),
            path,
            mode: mode.map(|mode| file_mode(mode, &at.field("mode"))),
        });
    }
    read
}

/// The permission bits of a file; the higher bits of chmod(2) are not allowed, as in Kubernetes.
fn file_mode(mode: i32, at: &At<'_>) -> u32 {
    if (0..=0o777).contains(&mode) {
        return mode.unsigned_abs();
    }
    at.error(format_args!(
        "{mode} is not a file mode: write it in octal with a leading 0 (0644), or in decimal from 0 to 511"
    ));
    0o644
}

const PROPAGATION: &[(&str, MountPropagation)] = &[
    ("None", MountPropagation::None),
    ("HostToContainer", MountPropagation::HostToContainer),
    ("Bidirectional", MountPropagation::Bidirectional),
];

/// `volumeMounts` of one container.
pub(super) fn mounts(
    mounts: Option<Vec<core::VolumeMount>>,
    volumes: &BTreeMap<String, VolumeSource>,
    privileged: bool,
    at: &At<'_>,
) -> Vec<VolumeMount> {
    let mut paths = BTreeSet::new();
    let mut read = Vec::new();
    for (index, mount) in mounts.unwrap_or_default().into_iter().enumerate() {
        let at = at.index(index);
        let mount = one_mount(mount, volumes, &at);
        if !paths.insert(mount.path.clone()) {
            at.field("mountPath").error(format_args!(
                "{:?} is mounted twice: change one",
                mount.path
            ));
        }

        if mount.propagation == MountPropagation::Bidirectional && !privileged {
            at.field("mountPropagation")
                .error("Bidirectional needs a privileged container");
        }
        read.push(mount);
    }
    read
}

/// A path in a container, made absolute as the kubelet does it (`MakeAbsolutePath`): a relative
/// path begins at `/`.
pub(super) fn below_root(path: String) -> String {
    if path.is_empty() || path.starts_with('/') {
        path
    } else {
        format!("/{path}")
    }
}

fn one_mount(
    mount: core::VolumeMount,
    volumes: &BTreeMap<String, VolumeSource>,
    at: &At<'_>,
) -> VolumeMount {
    let core::VolumeMount {
        mount_path,
        mount_propagation,
        name,
        read_only,
        recursive_read_only,
        sub_path,
        sub_path_expr,
    } = mount;
    at.field("subPathExpr").refuse(
        sub_path_expr.is_some(),
        "mount the whole volume",
        "write the path with its values as subPath in its place",
    );
    at.field("recursiveReadOnly").refuse(
        recursive_read_only.is_some_and(|mode| mode != "Disabled"),
        "leave mounts below it writable",
        "mount what lies below as readOnly volumes of their own in its place",
    );

    if !volumes.contains_key(&name) {
        let hint = similar::did_you_mean(&name, volumes.keys().map(String::as_str));
        at.field("name").error(format_args!(
            "the pod has no volume {name:?}{hint}: add it under volumes, or correct the name"
        ));
    }

    let path = at
        .field("mountPath")
        .checked(below_root(mount_path), syntax::absolute_path);
    // Kubernetes documents for mountPath too that it must not contain a colon.
    if path.split('/').any(|part| part == "..") || path.contains(':') || normalised(&path) == "/" {
        at.field("mountPath")
            .error("must be a directory or file below /, without \"..\" and ':'");
    }

    VolumeMount {
        volume: name,
        path: normalised(&path),
        sub_path: at
            .field("subPath")
            .optional(sub_path, syntax::relative_path),
        read_only: read_only.unwrap_or(false),
        propagation: at.field("mountPropagation").word(
            mount_propagation.as_deref(),
            PROPAGATION,
            MountPropagation::None,
        ),
    }
}
