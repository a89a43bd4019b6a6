//! This host's certificate as TLS uses it. New files take effect at the next handshake, without a
//! restart.

use std::{fs, os::unix::fs::MetadataExt, path::Path, sync::Arc};

use anyhow::{Context, Result};
use jiff::Timestamp;
use parking_lot::RwLock;
use reconciler::name::NodeName;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};

use super::{PeerDirectory, certificate::Facts, directory::ClusterFacts, server_name};

/// Certificate, key and authority of this host.
#[derive(Debug)]
pub(crate) struct Identity {
    directory: PeerDirectory,
    cluster: ClusterFacts,
    roots: Arc<RootCertStore>,
    loaded: RwLock<Loaded>,
}

#[derive(Clone, Debug)]
struct Loaded {
    stamp: FileStamp,
    pair: Arc<CertifiedKey>,
    facts: Facts,
}

/// Identifies a version of a file: a replaced file has another stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    inode: u64,
    changed: (i64, i64),
}

impl FileStamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            inode: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The provider of cryptography, the same for all connections.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Identity {
    /// Reads the directory; `None` if this host belongs to no cluster.
    pub(crate) fn open(directory: &PeerDirectory) -> Result<Option<Arc<Self>>> {
        let stamp = FileStamp::of(&directory.node());
        let Some(pair) = directory.read_node()? else {
            return Ok(None);
        };
        let cluster = directory.cluster_facts()?.with_context(|| {
            format!(
                "{} holds a certificate and no cluster.json",
                directory.path().display()
            )
        })?;

        let mut roots = RootCertStore::empty();
        roots
            .add(directory.read_ca()?)
            .context("use the authority's certificate")?;
        let facts = Facts::read(
            pair.end_entity_cert()
                .context("use this host's certificate")?,
        )?;

        // A stamp that is older than the content only causes one more read.
        let stamp = stamp.unwrap_or(FileStamp {
            inode: 0,
            changed: (0, 0),
        });
        let loaded = RwLock::new(Loaded {
            stamp,
            pair: Arc::new(pair),
            facts,
        });
        let directory = directory.clone();
        Ok(Some(Arc::new(Self {
            directory,
            cluster,
            roots: Arc::new(roots),
            loaded,
        })))
    }

    /// The name in this host's certificate and its validity.
    pub(crate) fn facts(&self) -> Facts {
        self.current().facts
    }

    pub(crate) fn directory(&self) -> &PeerDirectory {
        &self.directory
    }

    /// The cluster that this host belongs to.
    pub(crate) fn cluster(&self) -> &ClusterFacts {
        &self.cluster
    }

    /// The files on the disk now; the last usable ones while those cannot be used.
    fn current(&self) -> Loaded {
        let stamp = FileStamp::of(&self.directory.node());
        let old = self.loaded.read().clone();
        if stamp.is_none_or(|stamp| stamp == old.stamp) {
            return old;
        }
        match self.reload(stamp) {
            Ok(new) => {
                *self.loaded.write() = new.clone();
                new
            }
            Err(error) => {
                tracing::warn!("the old certificate stays in use: {error:#}");
                old
            }
        }
    }

    fn reload(&self, stamp: Option<FileStamp>) -> Result<Loaded> {
        let pair = self
            .directory
            .read_node()?
            .context("the certificate was removed")?;
        let facts = Facts::read(pair.end_entity_cert()?)?;
        let stamp = stamp.context("the certificate was removed")?;
        Ok(Loaded {
            stamp,
            pair: Arc::new(pair),
            facts,
        })
    }

    /// The TLS configuration of the listener: a client without a certificate can connect, and may
    /// only use `join`.
    pub(super) fn server_config(self: &Arc<Self>) -> Result<ServerConfig> {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider())
            .allow_unauthenticated()
            .build()
            .context("use the authority's certificate")?;
        let resolver: Arc<dyn ResolvesServerCert> = self.clone();
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .context("set up TLS 1.3")?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(resolver);

        // Certificates are judged at each connection, by the clock at that time: a resumed session
        // would outlive its certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// The TLS configuration for requests to another node.
    pub(super) fn client_config(self: &Arc<Self>) -> Result<ClientConfig> {
        let resolver: Arc<dyn ResolvesClientCert> = self.clone();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .context("set up TLS 1.3")?
            .with_root_certificates(self.roots.clone())
            .with_client_cert_resolver(resolver);
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// Whether a chain is a valid certificate of this node, from this cluster's authority.
    pub(super) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        node: &NodeName,
        now: Timestamp,
    ) -> Result<()> {
        verify(&self.roots, chain, node, now)
    }
}

/// Whether a chain is a valid certificate of this node.
pub(super) fn verify(
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'_>],
    node: &NodeName,
    now: Timestamp,
) -> Result<()> {
    let (first, others) = chain.split_first().context("there is no certificate")?;
    let name = ServerName::try_from(server_name(node)).context("the node's name is no DNS name")?;
    let since = std::time::Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    let now = UnixTime::since_unix_epoch(since);

    WebPkiServerVerifier::builder_with_provider(roots.clone(), provider())
        .build()
        .context("use the authority's certificate")?
        .verify_server_cert(first, others, &name, &[], now)
        .context("the certificate is not valid")?;
    Ok(())
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().pair)
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current().pair)
    }

    fn has_certs(&self) -> bool {
        true
    }
}
