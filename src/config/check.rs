//! The settings that cannot be right together.

use anyhow::{Result, bail, ensure};

use super::Config;
use crate::source::{quarantine::MAX_TREE_BYTES, verify::Mode};

/// The engine splits lines at 16 KiB.
const FEWEST_LOG_BYTES: u64 = 64 * 1024;

impl Config {
    /// Checks for settings that cannot be right, before the daemon changes anything.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            !self.source.url.is_empty(),
            "no repository is configured: give --repo URL, or `url` in [source] of the configuration"
        );
        if self.trust.mode != Mode::Off
            && self.trust.allowed_signers.is_none()
            && self.trust.anchor.is_none()
        {
            bail!(
                "nobody is trusted: give --allowed-signers FILE (as for `git config gpg.ssh.allowedSignersFile`), \
                 or write out --verify off"
            );
        }
        self.check_source()?;
        self.check_network()?;
        self.check_logs()?;
        ensure!(
            self.listen.api.is_none()
                || (self.listen.api_token_file.is_some()
                    && self.listen.api_certificate.is_some()
                    && self.listen.api_key.is_some()),
            "[listen] api needs api-token-file, api-certificate and api-key: over TCP it always asks for a token, \
             and kubectl sends one over TLS only"
        );
        self.check_store()
    }

    fn check_source(&self) -> Result<()> {
        let source = &self.source;
        ensure!(
            source.max_object_bytes >= MAX_TREE_BYTES,
            "[source] max-object-bytes {} is below {MAX_TREE_BYTES}, which a directory or a manifest may have",
            source.max_object_bytes
        );
        ensure!(
            source.max_mirror_bytes >= source.max_object_bytes,
            "[source] max-mirror-bytes {} is below max-object-bytes {}",
            source.max_mirror_bytes,
            source.max_object_bytes
        );
        Ok(())
    }

    fn check_logs(&self) -> Result<()> {
        let logs = &self.docker.logs;
        ensure!(
            logs.max_bytes >= FEWEST_LOG_BYTES,
            "[docker] logs max-bytes {} is below {FEWEST_LOG_BYTES}: a few lines would fill a file",
            logs.max_bytes
        );
        ensure!(
            logs.max_files >= 2,
            "[docker] logs max-files {} is below 2: lines would be lost whenever a file is full",
            logs.max_files
        );
        Ok(())
    }

    fn check_network(&self) -> Result<()> {
        let network = &self.network;
        let subnet = self.pod_subnet();
        ensure!(
            network.pod_range.contains(&subnet),
            "[network] pod-subnet {subnet} is not in pod-range {}",
            network.pod_range
        );
        ensure!(
            !network.pod_range.contains(&network.service_range)
                && !network.service_range.contains(&network.pod_range),
            "[network] pod-range {} and service-range {} overlap",
            network.pod_range,
            network.service_range
        );
        ensure!(
            network.service_range.contains(&self.dns_address()),
            "[network] dns {} is not in service-range {}",
            self.dns_address(),
            network.service_range
        );
        ensure!(
            network.node_port_first <= network.node_port_last,
            "[network] node-port-first {} is above node-port-last {}",
            network.node_port_first,
            network.node_port_last
        );
        Ok(())
    }
}
