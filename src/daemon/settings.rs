//! What the parts of the daemon take from the configuration.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use reconciler::{desired::CheckSettings, name::Installation};
use runtime::{RegistryAuth, RuntimeConfig};

use super::DEFAULT_LISTEN;
use crate::{
    commit_cache::Reader,
    config::{Config, read_secret},
    follow::{Judge, read_signers},
    host_info,
    http::serve::{KubectlConfig, ListenerConfig},
    source::{
        fetch::{Credentials, SecretText},
        mirror::Mirror,
        snapshot::{SnapshotLimits, SourcePath},
    },
};

/// The host's limits and permissions for manifests, for the daemon and for `check`.
pub(crate) fn check_settings(config: &Config) -> CheckSettings {
    let ranges = config.cluster_settings().ranges;
    CheckSettings {
        node_ports: ranges.node_ports,
        service_range: ranges.addresses,
        forbidden_host_paths: config
            .forbidden_paths()
            .into_iter()
            .map(|path| path.display().to_string())
            .collect(),
        allowed_host_paths: config.allow.host_paths.clone(),
        allow_privileged: config.allow.privileged,
        allow_host_namespaces: config.allow.host_namespaces,
        allowed_capabilities: config.allow.capabilities.clone(),
        reserved_addresses: vec![ranges.dns],
    }
}

pub(super) fn listen_config(config: &Config) -> ListenerConfig {
    let listen = &config.listen;
    let kubectl = match (
        &listen.api,
        &listen.api_token_file,
        &listen.api_certificate,
        &listen.api_key,
    ) {
        (Some(address), Some(token), Some(certificate), Some(key)) => Some(KubectlConfig {
            address: *address,
            token: token.clone(),
            certificate: certificate.clone(),
            key: key.clone(),
        }),
        _ => None,
    };
    ListenerConfig {
        socket_dir: config.socket_dir(),
        listen: Some(listen.metrics.unwrap_or(DEFAULT_LISTEN)),
        webhook: listen.webhook,
        kubectl,
    }
}

pub(super) fn runtime_config(
    config: &Config,
    installation: &Installation,
    data: &Path,
) -> Result<RuntimeConfig> {
    let mut runtime = RuntimeConfig::new(installation.clone(), data);
    if let Some(socket) = &config.docker.socket {
        runtime.socket = socket.clone();
    }
    runtime.forbidden_paths = config.forbidden_paths();
    let allowed = config.allow.host_paths.as_ref();
    runtime.allowed_paths = allowed.map(|paths| paths.iter().map(PathBuf::from).collect());
    runtime.docker_config = config.docker.config_file.clone();
    for registry in &config.docker.registries {
        // A file that cannot be read is an error at the start, and not only at the first pull,
        // which reads the file again.
        read_secret(&registry.password_file)?;
        runtime.registries.push(RegistryAuth {
            host: registry.host.clone(),
            user: registry.user.clone(),
            password_file: registry.password_file.clone(),
        });
    }
    runtime.cgroup_parent = config.docker.cgroup_parent.clone();
    runtime.logs = config.docker.logs.into();
    Ok(runtime)
}

/// The judge of heads, by this configuration.
pub(super) fn judge(config: &Config, reader: Reader) -> Result<Judge> {
    let judge = Judge {
        mode: config.trust.mode,
        allowed_signers: config.trust.allowed_signers.clone(),
        anchor: config.trust.anchor.clone(),
        allow_rewrite: config.trust.allow_rewrite,
        reader,
    };

    // A file that cannot be read is an error at the start, and not only at the first push.
    read_signers(judge.allowed_signers.as_deref())?;
    Ok(judge)
}

/// The reader of commits, with this host's limits.
pub(super) fn reader(config: &Config, data: &Path) -> Result<Reader> {
    let paths = match config.source.paths.as_slice() {
        [] => vec![SourcePath::root()],
        paths => paths
            .iter()
            .map(|path| {
                path.parse::<SourcePath>()
                    .with_context(|| format!("[source] paths: {path}"))
            })
            .collect::<Result<_>>()?,
    };
    Ok(Reader {
        mirror: Mirror::new(data.join("mirror.git")),
        paths,
        limits: SnapshotLimits::default(),
        check: check_settings(config),
    })
}

/// Reads the credentials for the repository from their files; `None` without credentials.
pub(super) fn credentials(config: &Config) -> Result<Option<Credentials>> {
    let source = &config.source;
    Ok(
        match (&source.token_file, &source.user, &source.ssh_key_file) {
            (Some(file), _, _) => Some(Credentials::Token(SecretText::new(read_secret(file)?))),
            (None, Some(user), _) => {
                let file = source
                    .password_file
                    .as_deref()
                    .context("[source] user needs password-file")?;
                Some(Credentials::Basic {
                    user: user.clone(),
                    password: SecretText::new(read_secret(file)?),
                })
            }
            (None, None, Some(file)) => {
                let key = std::fs::read_to_string(file)
                    .with_context(|| format!("read the ssh key {}", file.display()))?;
                Some(Credentials::SshKey(SecretText::new(key)))
            }
            (None, None, None) => None,
        },
    )
}

/// The labels of this host's node: those that Kubernetes' kubelet sets, and the configured ones.
pub(super) fn labels(config: &Config, node: &str) -> BTreeMap<String, String> {
    let own = [
        ("kubernetes.io/hostname", node),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", host_info::architecture()),
    ];
    let own = own
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    own.chain(config.node.labels.clone()).collect()
}
