//! The paths of the configuration that no pod may mount: every setting is classified here, or the
//! crate does not compile.

use std::path::{Path, PathBuf};

use super::{
    AllowConfig, Config, DockerConfig, DockerLogsConfig, ListenConfig, NetworkConfig, NodeConfig,
    PeerConfig, RegistryConfig, RolloutConfig, SourceConfig, StoreConfig, TrustConfig,
    WebhookConfig,
};

/// The directory of a host's configuration, with the files that it names.
const CONFIGURATION: &str = "/etc/windlass";

/// Paths that no pod may mount: a pod that reads them has a secret of this host, and a pod that
/// writes them decides who is trusted here.
#[derive(Default)]
struct ForbiddenPaths(Vec<PathBuf>);

impl ForbiddenPaths {
    fn add<'a>(&mut self, paths: impl IntoIterator<Item = &'a PathBuf>) {
        // The daemon reads a relative path from its own directory, and a hostPath is always
        // absolute.
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        self.0.extend(paths.into_iter().map(absolute));
    }
}

impl Config {
    /// The paths that no pod may mount. A pod may mount neither what lies in them nor the directories
    /// above them.
    ///
    /// No pattern here or below has `..`: a new setting must be classified.
    pub(crate) fn forbidden_paths(&self) -> Vec<PathBuf> {
        let Self {
            data_dir: _,
            file,
            socket_dir: _,
            source,
            trust,
            node,
            store,
            network,
            rollout,
            docker,
            allow,
            listen,
            webhook,
            peer,
        } = self;

        let mut forbidden = ForbiddenPaths::default();
        forbidden.add([&self.data_dir(), &self.socket_dir(), &self.peer_directory()]);
        forbidden.add([&Path::new(CONFIGURATION).to_owned()]);
        forbidden.add(file);
        of_source(&mut forbidden, source);
        of_trust(&mut forbidden, trust);
        of_store(&mut forbidden, store);
        of_docker(&mut forbidden, docker);
        of_listeners(&mut forbidden, listen, webhook, peer);
        without_paths(node, network, rollout, allow);
        forbidden.0
    }
}

fn of_source(forbidden: &mut ForbiddenPaths, source: &SourceConfig) {
    let SourceConfig {
        // A repository on this host is trusted no further than its signatures.
        url: _,
        branch: _,
        paths: _,
        poll: _,
        deadline: _,
        max_bytes: _,
        max_object_bytes: _,
        max_mirror_bytes: _,
        token_file,
        user: _,
        password_file,
        ssh_key_file,
        known_hosts_file,
        // Often the system's own file: the files in /etc/ssl/certs are public, and pods may mount
        // them.
        ca_file: _,
        fetch_user: _,
    } = source;
    forbidden.add(
        [token_file, password_file, ssh_key_file, known_hosts_file]
            .into_iter()
            .flatten(),
    );
}

fn of_trust(forbidden: &mut ForbiddenPaths, trust: &TrustConfig) {
    let TrustConfig {
        mode: _,
        allowed_signers,
        anchor: _,
        allow_rewrite: _,
    } = trust;
    forbidden.add(allowed_signers);
}

fn of_store(forbidden: &mut ForbiddenPaths, store: &StoreConfig) {
    let StoreConfig {
        endpoints: _,
        prefix: _,
        ca_file: _,
        certificate_file,
        key_file,
        user: _,
        password_file,
        away: _,
    } = store;
    forbidden.add(
        [certificate_file, key_file, password_file]
            .into_iter()
            .flatten(),
    );
}

fn of_docker(forbidden: &mut ForbiddenPaths, docker: &DockerConfig) {
    // Access to the engine's socket equals root, and pods that manage the engine mount it on
    // purpose: `host-paths` of [allow] can forbid it.
    let DockerConfig {
        socket: _,
        config_file,
        registries,
        cgroup_parent: _,
        logs: DockerLogsConfig {
            max_bytes: _,
            max_files: _,
        },
    } = docker;
    forbidden.add(config_file);
    for RegistryConfig {
        host: _,
        user: _,
        password_file,
    } in registries
    {
        forbidden.add([password_file]);
    }
}

fn of_listeners(
    forbidden: &mut ForbiddenPaths,
    listen: &ListenConfig,
    webhook: &WebhookConfig,
    peer: &PeerConfig,
) {
    let ListenConfig {
        metrics: _,
        webhook: _,
        api: _,
        api_token_file,
        api_certificate,
        api_key,
    } = listen;
    let WebhookConfig { secret_file } = webhook;
    // `forbidden_paths` has added the directory of certificates, or its default.
    let PeerConfig {
        listen: _,
        directory: _,
    } = peer;
    forbidden.add(
        [api_token_file, api_certificate, api_key, secret_file]
            .into_iter()
            .flatten(),
    );
}

/// Sections that name no file of this host's own.
fn without_paths(
    node: &NodeConfig,
    network: &NetworkConfig,
    rollout: &RolloutConfig,
    allow: &AllowConfig,
) {
    let NodeConfig {
        name: _,
        address: _,
        labels: _,
        taints: _,
        max_pods: _,
    } = node;
    let NetworkConfig {
        pod_range: _,
        pod_subnet: _,
        node_ranges: _,
        service_range: _,
        dns: _,
        zone: _,
        mtu: _,
        path: _,
        vxlan: _,
        node_port_first: _,
        node_port_last: _,
        drain_delay: _,
        expose: _,
    } = network;
    let RolloutConfig {
        soak: _,
        deadline: _,
        deletion_percent: _,
        max_faulty_nodes: _,
        canary_nodes: _,
        canary_soak: _,
        history: _,
        resync: _,
        spare_images: _,
    } = rollout;
    let AllowConfig {
        privileged: _,
        host_namespaces: _,
        host_paths: _,
        capabilities: _,
    } = allow;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names of a section's settings: serde lists them in its error about an unknown setting.
    fn settings(section: &str) -> BTreeSet<String> {
        let header = if section.is_empty() {
            String::new()
        } else {
            format!("[{section}]\n")
        };
        let refused = toml::from_str::<Config>(&format!("{header}no-such-setting = 1"));
        let message = refused.expect_err("an unknown setting").to_string();
        let listed = message
            .split_once("expected")
            .expect("serde lists the settings")
            .1;
        listed
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    }

    const FORBIDDEN: [&str; 16] = [
        "data-dir",
        "socket-dir",
        "docker.config-file",
        "listen.api-certificate",
        "listen.api-key",
        "listen.api-token-file",
        "peer.directory",
        "source.known-hosts-file",
        "source.password-file",
        "source.ssh-key-file",
        "source.token-file",
        "store.certificate-file",
        "store.key-file",
        "store.password-file",
        "trust.allowed-signers",
        "webhook.secret-file",
    ];

    /// Settings that hold no path on this host, or one that pods may be given.
    const OPEN: [&str; 6] = [
        "source.url",
        "source.paths",
        "source.ca-file",
        "store.ca-file",
        "allow.host-paths",
        "docker.socket",
    ];

    /// The configuration with a path as the setting's value; `None` if the setting takes no path.
    fn takes_a_path(section: &str, name: &str) -> Option<Config> {
        let value = format!("/forbidden/{section}/{name}");
        let header = if section.is_empty() {
            String::new()
        } else {
            format!("[{section}]\n")
        };
        toml::from_str(&format!("{header}{name} = '{value}'")).ok()
    }

    #[test]
    fn every_setting_that_takes_a_path_is_forbidden_or_named_as_open() {
        let mut sections = settings("");
        sections.insert(String::new());
        let mut forbidden = Vec::new();
        let mut left_open = Vec::new();
        for section in &sections {
            // The top level's own settings are no sections.
            if matches!(section.as_str(), "data-dir" | "socket-dir") {
                continue;
            }
            for name in settings(section) {
                let Some(config) = takes_a_path(section, &name) else {
                    continue;
                };
                let path = PathBuf::from(format!("/forbidden/{section}/{name}"));
                let setting = if section.is_empty() {
                    name
                } else {
                    format!("{section}.{name}")
                };
                if config.forbidden_paths().contains(&path) {
                    forbidden.push(setting);
                } else {
                    left_open.push(setting);
                }
            }
        }
        assert_eq!(forbidden, FORBIDDEN);
        for setting in &left_open {
            let pathlike = [
                "-file",
                "-dir",
                "directory",
                "-key",
                "key",
                "certificate",
                "signers",
                "path",
            ];
            let suspect = pathlike.iter().any(|ending| setting.ends_with(ending));
            assert!(
                !suspect || OPEN.contains(&setting.as_str()),
                "{setting} takes a path and is not forbidden"
            );
        }
    }

    #[test]
    fn no_pod_mounts_a_secret_or_what_holds_one() {
        let text = "[source]\nssh-key-file = '/srv/keys/ssh'\n[store]\nkey-file = '/srv/etcd/key.pem'\n\
                    password-file = '/srv/etcd/password'\n[listen]\napi-key = '/srv/api.key'\n\
                    [docker]\nconfig-file = '/root/.docker/config.json'\n[peer]\ndirectory = '/srv/peer'";
        let settings =
            crate::daemon::check_settings(&toml::from_str(text).expect("a configuration"));
        let refused = |path: &str| {
            let pod = format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n  containers: [{{name: a, image: 'a:1'}}]\n  \
                 volumes: [{{name: v, hostPath: {{path: '{path}'}}}}]\n"
            );
            let (_, problems) = crate::commit_cache::parse_and_check(
                &[("a.yaml", pod.as_bytes())],
                &settings,
                reconciler::manifest::ReadAs::NewHead,
            );
            problems
                .iter()
                .any(|problem| problem.to_string().contains("the daemon's own"))
        };
        for path in [
            "/srv/keys/ssh",
            "/srv/keys",
            "/srv",
            "/",
            "/srv/etcd/key.pem",
            "/srv/./etcd/password",
            "/srv/api.key",
            "/root/.docker",
            "/srv/peer/ca-key.pem",
            "/var/lib/windlass/mirror.git",
            "/run/windlass/admin.sock",
            "/etc/windlass/token",
            "/etc",
        ] {
            assert!(refused(path), "{path} is not refused");
        }
        for path in [
            "/srv/data",
            "/srv/keys2",
            "/etc/ssl",
            "/var/run/docker.sock",
        ] {
            assert!(!refused(path), "{path} is refused");
        }
    }

    #[test]
    fn a_registrys_password_and_the_defaults_are_forbidden() {
        let text = "[source]\ntoken-file = 'token'\n[[docker.registries]]\nhost = 'r'\nuser = 'u'\npassword-file = '/run/secrets/r'";
        let config: Config = toml::from_str(text).expect("a configuration");
        let config = Config {
            file: Some("/srv/windlass.toml".into()),
            ..config
        };
        let forbidden = config.forbidden_paths();
        for path in [
            "/var/lib/windlass",
            "/run/windlass",
            "/var/lib/windlass/peer",
            "/etc/windlass",
            "/srv/windlass.toml",
            "/run/secrets/r",
        ] {
            assert!(
                forbidden.contains(&PathBuf::from(path)),
                "{path} is not in {forbidden:?}"
            );
        }
        assert!(
            forbidden.iter().all(|path| path.is_absolute()),
            "{forbidden:?}"
        );
    }
}
