//! The directory of certificates, `peer/` in the data directory.
//!
//! ```text
//! ca.pem        the authority's certificate          node.pem, node-key.pem   this host's certificate and key
//! ca-key.pem    its key: on one host only            cluster.json             which host has the authority, and where
//! tokens.json   join tokens, as hashes               issued.json              which certificates there are
//! ```

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use reconciler::name::NodeName;
use rustix::fs::{FlockOperation, flock};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use serde::{Deserialize, Serialize};

use super::{SCHEMA, identity::provider};
use crate::{data_dir, state_file};

/// The directory; it need not exist yet.
#[derive(Clone, Debug)]
pub(crate) struct PeerDirectory {
    path: PathBuf,
}

/// `cluster.json`: the cluster that this host belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterFacts {
    /// The cluster's name, which is also the authority's.
    pub(crate) cluster: String,
    /// The host that has the authority.
    pub(crate) host: NodeName,
    /// The address of that host's listener when this host joined; `None` on that host itself.
    pub(crate) address: Option<SocketAddr>,
}

impl PeerDirectory {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The path of the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The authority's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path.join("ca.pem")
    }

    /// The authority's key, on the host that has it.
    pub(crate) fn ca_key(&self) -> PathBuf {
        self.path.join("ca-key.pem")
    }

    /// This host's certificate, followed by the authority's.
    pub(crate) fn node(&self) -> PathBuf {
        self.path.join("node.pem")
    }

    /// The key of this host's certificate.
    pub(crate) fn node_key(&self) -> PathBuf {
        self.path.join("node-key.pem")
    }

    pub(super) fn tokens(&self) -> PathBuf {
        self.path.join("tokens.json")
    }

    pub(super) fn issued(&self) -> PathBuf {
        self.path.join("issued.json")
    }

    fn cluster(&self) -> PathBuf {
        self.path.join("cluster.json")
    }

    /// A certificate whose key is being replaced.
    fn node_next(&self) -> PathBuf {
        self.path.join("node.pem.next")
    }

    /// Makes the directory, accessible to root only.
    pub(super) fn make(&self) -> Result<()> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path);
        made.with_context(|| format!("make the directory {}", self.path.display()))?;
        fs::set_permissions(&self.path, Permissions::from_mode(0o700))
            .with_context(|| format!("set the mode of {}", self.path.display()))
    }

    /// Locks the directory during a change, since the daemon and a command may change it at the
    /// same time. Waits for the other process, which takes only a moment.
    pub(super) fn lock(&self) -> Result<File> {
        let path = self.path.join("lock");
        let file = data_dir::open_lock(&path)?;
        flock(&file, FlockOperation::LockExclusive)
            .with_context(|| format!("lock {}", path.display()))?;
        Ok(file)
    }

    pub(super) fn cluster_facts(&self) -> Result<Option<ClusterFacts>> {
        Ok(state_file::read(&self.cluster(), SCHEMA)?)
    }

    pub(super) fn write_cluster_facts(&self, facts: &ClusterFacts) -> Result<()> {
        Ok(state_file::write(&self.cluster(), SCHEMA, facts)?)
    }

    /// Replaces this host's certificate and key. The next reader repairs the state after a crash in
    /// between.
    pub(super) fn replace_node(&self, certificate: &str, key: &str) -> Result<()> {
        state_file::write_bytes(&self.node_next(), certificate.as_bytes())?;
        state_file::write_bytes(&self.node_key(), key.as_bytes())?;
        self.finish_replacing()
    }

    fn finish_replacing(&self) -> Result<()> {
        let next = self.node_next();
        fs::rename(&next, self.node()).with_context(|| format!("rename {}", next.display()))
    }

    /// This host's certificate with its key; `None` if there is none.
    pub(super) fn read_node(&self) -> Result<Option<CertifiedKey>> {
        let Some(certificates) = read_certificates(&self.node())? else {
            return match read_certificates(&self.node_next())? {
                Some(_) => self.complete_replacement().map(Some),
                None => Ok(None),
            };
        };

        // The key is replaced before the certificate: a pair that does not fit was left by a crash.
        match self.with_key(certificates) {
            Ok(pair) => Ok(Some(pair)),
            Err(_) if self.node_next().exists() => self.complete_replacement().map(Some),
            Err(error) => Err(error),
        }
    }

    /// Completes a replacement after a crash between the key and the certificate.
    fn complete_replacement(&self) -> Result<CertifiedKey> {
        let _lock = self.lock()?;
        if let Some(next) = read_certificates(&self.node_next())?
            && self.with_key(next).is_ok()
        {
            self.finish_replacing()?;
        }
        let certificates = read_certificates(&self.node())?
            .with_context(|| format!("{} does not exist", self.node().display()))?;
        self.with_key(certificates)
    }

    fn with_key(&self, certificates: Vec<CertificateDer<'static>>) -> Result<CertifiedKey> {
        let path = self.node_key();
        let key = PrivateKeyDer::from_pem_file(&path)
            .with_context(|| format!("read the key in {}", path.display()))?;
        CertifiedKey::from_der(certificates, key, &provider()).with_context(|| {
            format!(
                "{} and {} do not belong together",
                self.node().display(),
                path.display()
            )
        })
    }

    /// The authority's certificate; an error if there is none.
    pub(super) fn read_ca(&self) -> Result<CertificateDer<'static>> {
        let path = self.ca();
        let first = read_certificates(&path)?.and_then(|all| all.into_iter().next());
        first.with_context(|| format!("{} holds no certificate", path.display()))
    }
}

/// All certificates of a PEM file; `None` if there is no such file.
pub(super) fn read_certificates(path: &Path) -> Result<Option<Vec<CertificateDer<'static>>>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };

    let certificates = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("{} holds no usable PEM", path.display()))?;
    anyhow::ensure!(
        !certificates.is_empty(),
        "{} holds no certificate",
        path.display()
    );
    Ok(Some(certificates))
}
