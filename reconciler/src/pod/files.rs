//! The files of a pod: resolv.conf, hosts, hostname and volumes; and which of them each container
//! mounts.

use std::{fmt::Write, net::Ipv4Addr};

use super::{
    environment::{PodFacts, config_data},
    missing::MissingContent,
};
use crate::{
    digest::sha256_hex,
    object::{
        ConfigItem, ConfigSource, Container, DnsPolicy, MountPropagation, Objects, PodSpec,
        Sensitive, VolumeSource,
    },
    plan::{Mount, MountSource, PodFiles, VolumeFile, VolumeFiles},
};

/// The host's own resolver configuration, and the address of the cluster's DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsFacts {
    /// Address of the cluster's DNS; `None` if the host runs none.
    pub cluster: Option<Ipv4Addr>,
    /// The DNS zone of the cluster, for example `cluster.local`.
    pub zone: String,
    /// `search` of the host's resolv.conf.
    pub host_searches: Vec<String>,
    /// `nameserver` of the host's resolv.conf.
    pub host_servers: Vec<String>,
    /// `options` of the host's resolv.conf.
    pub host_options: Vec<String>,
}

/// The files of a pod. An error names the content that is missing in the commit.
pub fn pod_files(
    spec: &PodSpec,
    pod: &PodFacts<'_>,
    objects: &Objects,
    dns: &DnsFacts,
) -> Result<PodFiles, MissingContent> {
    let short = short_hostname(spec, pod);
    let hostname = hostname(spec, pod, &dns.zone);
    let volumes: Vec<VolumeFiles> = spec
        .volumes
        .iter()
        .map(|(name, source)| {
            volume_files(name, source, spec.fs_group, &pod.key.namespace, objects)
        })
        .collect::<Result<_, _>>()?;

    Ok(PodFiles {
        pod: pod.uid.clone(),
        resolv_conf: resolv_conf(spec, &pod.key.namespace, dns),
        hosts: hosts(spec, pod, &short, &dns.zone),
        hostname: format!("{hostname}\n"),
        volumes,
    })
}

/// The volumes that can change while the pod runs: those of ConfigMaps and Secrets. An error names
/// the content that is missing in the commit.
pub fn config_volumes(
    spec: &PodSpec,
    namespace: &str,
    objects: &Objects,
) -> Result<Vec<VolumeFiles>, MissingContent> {
    spec.volumes
        .iter()
        .filter(|(_, source)| matches!(source, VolumeSource::Config { .. }))
        .map(|(name, source)| volume_files(name, source, spec.fs_group, namespace, objects))
        .collect()
}

/// A digest of the files that can change in a running pod: those of its ConfigMaps and Secrets.
/// Equal digests mean equal files. The digest is stored only where the Secret itself is, so that it
/// reveals nothing.
pub fn config_digest(files: &PodFiles) -> String {
    volumes_digest(&files.volumes)
}

/// As [`config_digest`], for the volumes alone.
pub fn volumes_digest(volumes: &[VolumeFiles]) -> String {
    let mut bytes = Vec::new();
    for volume in volumes {
        if let VolumeFiles::Files { name, files, .. } = volume {
            for file in files {
                for part in [
                    name.as_bytes(),
                    file.path.as_bytes(),
                    &file.mode.to_be_bytes(),
                    file.content.expose(),
                ] {
                    bytes.extend_from_slice(&part.len().to_be_bytes());
                    bytes.extend_from_slice(part);
                }
            }
        }
    }
    sha256_hex(&bytes)
}

/// Whether a pod has files that can change while it runs.
pub fn has_config_volumes(spec: &PodSpec) -> bool {
    spec.volumes
        .values()
        .any(|volume| matches!(volume, VolumeSource::Config { .. }))
}

/// The host name inside a pod: with `setHostnameAsFQDN` and a `subdomain`, the whole name.
pub fn hostname(spec: &PodSpec, pod: &PodFacts<'_>, zone: &str) -> String {
    let short = short_hostname(spec, pod);
    match full_name(spec, pod, &short, zone) {
        Some(full) if spec.hostname_as_fqdn && !spec.host_network => full,
        _ => short,
    }
}

/// The whole name of a pod with a `subdomain`.
fn full_name(spec: &PodSpec, pod: &PodFacts<'_>, short: &str, zone: &str) -> Option<String> {
    let subdomain = spec.subdomain.as_ref()?;
    let namespace = &pod.key.namespace;
    Some(format!("{short}.{subdomain}.{namespace}.svc.{zone}"))
}

fn short_hostname(spec: &PodSpec, pod: &PodFacts<'_>) -> String {
    if spec.host_network {
        return pod.node.to_string();
    }
    // The kernel's limit is 64 bytes (`__NEW_UTS_LEN`), and a DNS label has at most 63; the kubelet
    // truncates the name as here.
    let name = spec.hostname.as_deref().unwrap_or(&pod.key.name);
    name.get(..63)
        .unwrap_or(name)
        .trim_end_matches(['-', '.'])
        .to_owned()
}

fn resolv_conf(spec: &PodSpec, namespace: &str, dns: &DnsFacts) -> String {
    // In Kubernetes, `ClusterFirst` means `Default` for a pod in the host's network.
    let by_host = spec.dns_policy == DnsPolicy::Default
        || (spec.dns_policy == DnsPolicy::ClusterFirst && spec.host_network)
        || dns.cluster.is_none();
    let (mut servers, mut searches, mut options) = match (spec.dns_policy, dns.cluster) {
        (DnsPolicy::None, _) => (Vec::new(), Vec::new(), Vec::new()),
        (_, Some(cluster)) if !by_host => {
            let zone = &dns.zone;
            let mut searches = vec![
                format!("{namespace}.svc.{zone}"),
                format!("svc.{zone}"),
                zone.clone(),
            ];
            searches.extend(dns.host_searches.iter().cloned());
            (
                vec![cluster.to_string()],
                searches,
                vec!["ndots:5".to_owned()],
            )
        }
        _ => (
            dns.host_servers.clone(),
            dns.host_searches.clone(),
            dns.host_options.clone(),
        ),
    };
    servers.extend(spec.dns_config.nameservers.iter().map(ToString::to_string));
    searches.extend(spec.dns_config.searches.iter().cloned());
    // An option of the pod replaces one of the same name, such as `ndots:5`.
    for option in &spec.dns_config.options {
        let name = option.split(':').next().unwrap_or(option);
        options.retain(|known| known.split(':').next() != Some(name));
        options.push(option.clone());
    }

    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !searches.is_empty() {
        let _ = writeln!(text, "search {}", searches.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

fn hosts(spec: &PodSpec, pod: &PodFacts<'_>, hostname: &str, zone: &str) -> String {
    let mut text = String::from(
        "# Written by Windlass.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    );
    let full = full_name(spec, pod, hostname, zone);
    let full = full.map_or(String::new(), |full| format!("{full}\t"));
    let _ = writeln!(text, "{}\t{full}{hostname}", pod.address);
    for (address, names) in &spec.host_aliases {
        let _ = writeln!(text, "{address}\t{}", names.join("\t"));
    }
    text
}

fn volume_files(
    name: &str,
    source: &VolumeSource,
    group: Option<u32>,
    namespace: &str,
    objects: &Objects,
) -> Result<VolumeFiles, MissingContent> {
    Ok(match source {
        VolumeSource::HostPath { path, kind } => VolumeFiles::HostPath {
            path: path.clone(),
            kind: *kind,
        },
        VolumeSource::EmptyDir { memory, size_limit } => VolumeFiles::EmptyDir {
            name: name.to_owned(),
            memory: *memory,
            size_limit: *size_limit,
            group,
        },
        VolumeSource::Config {
            source,
            items,
            mode,
            optional,
        } => VolumeFiles::Files {
            name: name.to_owned(),
            memory: matches!(source, ConfigSource::Secret(_)),
            files: config_files(name, source, items, *mode, *optional, namespace, objects)?
                .into_iter()
                .map(|file| VolumeFile {
                    // The kubelet adds these bits, so that the group can read the file.
                    mode: file.mode | if group.is_some() { 0o440 } else { 0 },
                    ..file
                })
                .collect(),
            group,
        },
    })
}

fn config_files(
    volume: &str,
    source: &ConfigSource,
    items: &[ConfigItem],
    mode: u32,
    optional: bool,
    namespace: &str,
    objects: &Objects,
) -> Result<Vec<VolumeFile>, MissingContent> {
    let Some(data) = config_data(objects, namespace, source) else {
        return if optional {
            Ok(Vec::new())
        } else {
            Err(MissingContent::VolumeSource {
                volume: volume.to_owned(),
            })
        };
    };

    // Without `items` every key becomes a file of the same name.
    if items.is_empty() {
        let file = |(path, content)| VolumeFile {
            path,
            content: Sensitive::new(content),
            mode,
        };
        return Ok(data.into_iter().map(file).collect());
    }
    let mut files = Vec::new();
    for item in items {
        match data.get(&item.key) {
            Some(content) => files.push(VolumeFile {
                path: item.path.clone(),
                content: Sensitive::new(content.clone()),
                mode: item.mode.unwrap_or(mode),
            }),
            None if optional => {}
            None => {
                return Err(MissingContent::VolumeKey {
                    volume: volume.to_owned(),
                    key: item.key.clone(),
                });
            }
        }
    }
    Ok(files)
}

/// The mounts of a container: its volumes and the pod's own files.
pub fn mounts(container: &Container, spec: &PodSpec) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = container
        .mounts
        .iter()
        .filter_map(|mount| {
            let source = match spec.volumes.get(&mount.volume)? {
                VolumeSource::HostPath { path, .. } => MountSource::HostPath {
                    path: path.clone(),
                    sub_path: mount.sub_path.clone(),
                },
                VolumeSource::EmptyDir { .. } | VolumeSource::Config { .. } => {
                    MountSource::Volume {
                        volume: mount.volume.clone(),
                        sub_path: mount.sub_path.clone(),
                    }
                }
            };
            // As in Kubernetes, the files of ConfigMaps and Secrets cannot be written by pods.
            let config = matches!(
                spec.volumes.get(&mount.volume),
                Some(VolumeSource::Config { .. })
            );
            Some(Mount {
                source,
                target: mount.path.clone(),
                read_only: mount.read_only || config,
                propagation: mount.propagation,
            })
        })
        .collect();

    // A volume that is mounted over one of these files takes its place.
    for (file, target) in [
        ("resolv.conf", "/etc/resolv.conf"),
        ("hosts", "/etc/hosts"),
        ("hostname", "/etc/hostname"),
    ] {
        let is_mounted = mounts.iter().any(|mount| mount.target == target);
        if !is_mounted {
            mounts.push(Mount {
                source: MountSource::PodFile(file),
                target: target.to_owned(),
                read_only: false,
                propagation: MountPropagation::None,
            });
        }
    }
    mounts
}
