//! The cluster's authority, on the one host that has its key.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use reconciler::name::NodeName;
use ring::digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    JoinToken, NodeNameError, PeerDirectory, SCHEMA, TokenOffer,
    certificate::{self, Facts, NODE_LIFE, Subject},
    check_node_name,
    directory::ClusterFacts,
    random,
    token::{TokenRefusal, Tokens},
};
use crate::state_file;
use reconciler::digest::hex;

/// Signs certificates of nodes.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    directory: PeerDirectory,
    facts: ClusterFacts,
}

/// Why a certificate is refused.
#[derive(Debug, Error)]
pub(crate) enum CertificateRefusal {
    /// The token is not valid.
    #[error(transparent)]
    Token(#[from] TokenRefusal),
    /// The requested name is not allowed.
    #[error(transparent)]
    Name(#[from] NodeNameError),
    /// A renewal is asked for with a certificate of another program, such as a server of etcd.
    #[error("this is not a node's certificate")]
    NotANode,
    /// Another host has the name.
    #[error(
        "a valid certificate for {name} was made at {made:.0}: if that installation is gone, make a token with \
         `windlass cluster token --node {name} --replace`; else give this host another name"
    )]
    Taken {
        name: String,
        /// When that host received its certificate.
        made: Timestamp,
    },
    /// The certificate that is to be renewed is not valid.
    #[error(
        "the certificate that is to be renewed has been replaced by another one for {0}: join with a new token"
    )]
    Replaced(String),
    /// The certificate request is malformed.
    #[error("the certificate request cannot be used: {0}")]
    Request(String),
    /// A failure of the authority's own host.
    #[error("the authority cannot sign now: {0:#}")]
    Broken(#[from] anyhow::Error),
}

/// `issued.json`: the valid certificates, by the name in each.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Ledger {
    certificates: BTreeMap<String, Issued>,
}

/// The certificates of a name.
#[derive(Debug, Serialize, Deserialize)]
struct Issued {
    /// The serial number of the name's certificate and, after a renewal, of the one before: its
    /// owner may not have received the answer.
    serials: Vec<String>,
    made: Timestamp,
    expires: Timestamp,
}

/// A certificate for a program that is no node, such as a server of etcd.
#[derive(Clone, Debug)]
pub(crate) struct Other {
    /// The common name, which is also a DNS name of the certificate.
    pub(crate) name: String,
    /// The IP addresses of the certificate.
    pub(crate) addresses: Vec<IpAddr>,
    /// For how long the certificate is valid.
    pub(crate) life: Duration,
    /// Whether it is issued although a valid one exists.
    pub(crate) replace: bool,
}

impl Authority {
    /// Opens the authority; `None` if this host does not have it.
    pub(crate) fn open(directory: &PeerDirectory) -> Result<Option<Self>> {
        if !directory.ca_key().exists() {
            return Ok(None);
        }
        let facts = directory.cluster_facts()?.with_context(|| {
            format!(
                "{} holds the key of an authority and no cluster.json",
                directory.path().display()
            )
        })?;
        Ok(Some(Self {
            directory: directory.clone(),
            facts,
        }))
    }

    /// Makes the authority, and the certificate of its host.
    pub(crate) fn init(directory: &PeerDirectory, node: &NodeName, now: Timestamp) -> Result<Self> {
        let node = check_node_name(node.as_str())?;
        directory.make()?;
        let lock = directory.lock()?;
        for file in [directory.ca(), directory.ca_key(), directory.node()] {
            if file.exists() {
                bail!(
                    "{} exists already: this host belongs to a cluster; to begin another one, move {} away",
                    file.display(),
                    directory.path().display()
                );
            }
        }

        let cluster = format!("windlass-{}", hex(&random::<4>()?));
        let (ca, ca_key) = certificate::authority(&cluster, now)?;
        let facts = ClusterFacts {
            cluster,
            host: node.clone(),
            address: None,
        };
        // The certificate is written last: after a crash before it `init` can be repeated.
        state_file::write(&directory.issued(), SCHEMA, &Ledger::default())?;
        directory.write_cluster_facts(&facts)?;
        state_file::write_bytes(&directory.ca_key(), ca_key.as_bytes())?;
        state_file::write_bytes(&directory.ca(), ca.as_bytes())?;

        // `renew_own` takes the lock itself.
        drop(lock);
        let authority = Self {
            directory: directory.clone(),
            facts,
        };
        authority.renew_own(now)?;
        Ok(authority)
    }

    /// The cluster's name.
    pub(crate) fn cluster(&self) -> &str {
        &self.facts.cluster
    }

    /// Makes a one-time token with the address of this host's listener.
    pub(crate) fn token(
        &self,
        offer: &TokenOffer,
        address: SocketAddr,
        now: Timestamp,
    ) -> Result<JoinToken> {
        if let Some(node) = &offer.node {
            check_node_name(node.as_str())?;
        }
        let ca = self.directory.read_ca()?;

        let _lock = self.directory.lock()?;
        let mut tokens = Tokens::read(&self.directory)?;
        let secret = tokens.make(offer, now)?;
        tokens.write(&self.directory)?;

        let mut authority = [0; 32];
        authority.copy_from_slice(digest::digest(&digest::SHA256, &ca).as_ref());
        Ok(JoinToken {
            host: self.facts.host.clone(),
            address,
            authority,
            secret,
        })
    }

    /// Issues a new host's certificate, for a token.
    pub(crate) fn join(
        &self,
        secret: &[u8],
        node: &str,
        request: &str,
        now: Timestamp,
    ) -> Result<String, CertificateRefusal> {
        let _lock = self.directory.lock()?;
        let mut tokens = Tokens::read(&self.directory)?;
        // The token is checked first: a client without one learns nothing about names.
        let bare = NodeName::new(node);
        let replace = tokens.redeem(secret, &bare, now)?;
        let node = check_node_name(node)?;

        let mut ledger = self.ledger()?;
        if !replace {
            ledger.check_free(node.as_str(), now)?;
        }
        let chain = self.sign(request, &Subject::node(&node), now, NODE_LIFE)?;

        // A crash between the two writes costs a token, and issues no certificate.
        tokens.write(&self.directory)?;
        ledger.note(&chain, None, now)?;
        self.write_ledger(&ledger)?;
        Ok(chain)
    }

    /// Issues a new certificate to the owner of a valid one, for the name in that certificate.
    pub(crate) fn renew(
        &self,
        presented: &Facts,
        request: &str,
        now: Timestamp,
    ) -> Result<String, CertificateRefusal> {
        let node = presented.node().ok_or(CertificateRefusal::NotANode)?;
        let _lock = self.directory.lock()?;
        let mut ledger = self.ledger()?;
        let known = ledger.certificates.get(node.as_str());
        if !known.is_some_and(|issued| issued.serials.contains(&presented.serial)) {
            return Err(CertificateRefusal::Replaced(node.as_str().to_owned()));
        }

        let chain = self.sign(request, &Subject::node(&node), now, NODE_LIFE)?;
        ledger.note(&chain, Some(presented), now)?;
        self.write_ledger(&ledger)?;
        Ok(chain)
    }

    /// Issues a new certificate for this host, whatever the state of the old one: the authority is
    /// here.
    pub(crate) fn renew_own(&self, now: Timestamp) -> Result<Facts> {
        let node = &self.facts.host;
        let (key, request) = certificate::request(node.as_str())?;
        let _lock = self.directory.lock()?;
        let mut ledger = self.ledger()?;
        let chain = self.sign(&request, &Subject::node(node), now, NODE_LIFE)?;
        let facts = ledger.note(&chain, None, now)?;
        self.write_ledger(&ledger)?;
        self.directory.replace_node(&chain, &key.serialize_pem())?;
        Ok(facts)
    }

    /// Issues a certificate for a program that is no node: `NAME.pem`, `NAME-key.pem` and `ca.pem`
    /// in a directory.
    pub(crate) fn certify(&self, other: &Other, directory: &Path, now: Timestamp) -> Result<Facts> {
        let Other {
            name,
            addresses,
            life,
            replace,
        } = other;
        let subject = Subject {
            name: name.clone(),
            dns: vec![name.clone()],
            addresses: addresses.clone(),
        };
        // The name becomes the name of a file; and a node's name would open the listeners of hosts.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if name.is_empty()
            || name.starts_with('.')
            || !name.chars().all(plain)
            || subject.is_of_a_node()
        {
            bail!(
                "`{}` cannot be the name of a certificate",
                name.escape_debug()
            );
        }

        let (key, request) = certificate::request(name)?;
        let _lock = self.directory.lock()?;
        let mut ledger = self.ledger()?;
        if !replace && let Some(issued) = ledger.valid(name, now) {
            bail!(
                "a valid certificate for {name} was made at {:.0}: say --replace to make another one",
                issued.made
            );
        }
        let chain = self.sign(&request, &subject, now, *life)?;

        std::fs::create_dir_all(directory)
            .with_context(|| format!("make {}", directory.display()))?;
        let facts = ledger.note(&chain, None, now)?;
        self.write_ledger(&ledger)?;
        let ca = self.ca()?;
        state_file::write_bytes(
            &directory.join(format!("{name}-key.pem")),
            key.serialize_pem().as_bytes(),
        )?;
        state_file::write_bytes(&directory.join(format!("{name}.pem")), chain.as_bytes())?;
        state_file::write_bytes(&directory.join("ca.pem"), ca.as_bytes())?;
        Ok(facts)
    }

    /// The authority's own certificate, as PEM.
    pub(crate) fn ca(&self) -> Result<String> {
        let path = self.directory.ca();
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    fn sign(
        &self,
        request: &str,
        subject: &Subject,
        now: Timestamp,
        life: Duration,
    ) -> Result<String, CertificateRefusal> {
        certificate::check_request(request)
            .map_err(|error| CertificateRefusal::Request(format!("{error:#}")))?;
        let path = self.directory.ca_key();
        let key =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(certificate::issue(
            &self.ca()?,
            &key,
            request,
            subject,
            (now, life),
        )?)
    }

    fn ledger(&self) -> Result<Ledger> {
        Ok(state_file::read(&self.directory.issued(), SCHEMA)?.unwrap_or_default())
    }

    fn write_ledger(&self, ledger: &Ledger) -> Result<()> {
        Ok(state_file::write(&self.directory.issued(), SCHEMA, ledger)?)
    }
}

impl Ledger {
    fn valid(&self, name: &str, now: Timestamp) -> Option<&Issued> {
        let issued = self.certificates.get(name)?;
        if issued.expires > now {
            Some(issued)
        } else {
            None
        }
    }

    fn check_free(&self, name: &str, now: Timestamp) -> Result<(), CertificateRefusal> {
        match self.valid(name, now) {
            Some(issued) => Err(CertificateRefusal::Taken {
                name: name.to_owned(),
                made: issued.made,
            }),
            None => Ok(()),
        }
    }

    /// Records a certificate that was issued. The certificate that it renews may be renewed once
    /// more.
    fn note(&mut self, chain: &str, renews: Option<&Facts>, now: Timestamp) -> Result<Facts> {
        let facts = certificate::facts_of_pem(chain)?;
        let before = renews.map(|before| before.serial.clone());
        let serials = before.into_iter().chain([facts.serial.clone()]).collect();
        let issued = Issued {
            serials,
            made: now,
            expires: facts.until,
        };

        // Entries of expired certificates are useless, and would only make the file grow.
        self.certificates.retain(|_, issued| issued.expires > now);
        self.certificates.insert(facts.name.clone(), issued);
        Ok(facts)
    }
}
