//! Joins a cluster with a token. The key is made on this host and stays here.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use reconciler::name::NodeName;
use ring::digest;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use serde::{Deserialize, Serialize};
use ssh_encoding::base64::{Base64UrlUnpadded, Encoding};

use super::{
    JoinToken, PeerDirectory,
    certificate::{self, Facts},
    check_node_name,
    client::{Certified, Keep, PeerTarget},
    directory::ClusterFacts,
    identity::{provider, verify},
};
use crate::state_file;

/// The body of a request to `/peer/v1/join`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JoinRequest {
    /// The token's secret, in base64url.
    pub(super) secret: String,
    /// The name of the new host.
    pub(super) node: String,
    /// The certificate request, as PEM.
    pub(super) request: String,
}

/// The result of joining.
#[derive(Clone, Debug)]
pub(crate) struct Joined {
    pub(crate) cluster: String,
    /// The host that has the authority.
    pub(crate) host: NodeName,
    /// When the certificate expires.
    pub(crate) until: Timestamp,
}

/// Requests this host's certificate from the authority's host.
pub(crate) async fn join(
    directory: &PeerDirectory,
    node: &NodeName,
    token: &JoinToken,
    replace: bool,
) -> Result<Joined> {
    check_node_name(node.as_str())?;
    refuse_if_joined(directory, replace)?;

    let (key, request) = certificate::request(node.as_str())?;
    let target = PeerTarget {
        node: token.host.clone(),
        address: token.address,
    };
    let http = target.client(config(token)?, Keep::No)?;
    let secret = Base64UrlUnpadded::encode_string(&token.secret);
    let body = JoinRequest {
        secret,
        node: node.as_str().to_owned(),
        request,
    };
    let response = target
        .send(http.post(target.url("join")).timeout(PATIENCE).json(&body))
        .await?;
    let Certified {
        certificate,
        cluster,
    } = target.read(response).await?;

    let chain =
        CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.context("read the received certificate")?;
    let ca =
        pinned(&chain, &token.authority).context("the answer lacks the authority's certificate")?;
    let mut roots = RootCertStore::empty();
    roots
        .add(ca.clone())
        .context("use the authority's certificate")?;
    verify(&Arc::new(roots), &chain, node, Timestamp::now()).context(NOT_ACCEPTED)?;
    let facts = certificate::facts_of_pem(&certificate)?;
    let ca = certificate::pem_of(&ca);

    directory.make()?;
    let _lock = directory.lock()?;
    let address = Some(token.address);
    let known = ClusterFacts {
        cluster: cluster.clone(),
        host: token.host.clone(),
        address,
    };
    directory.write_cluster_facts(&known)?;
    state_file::write_bytes(&directory.ca(), ca.as_bytes())?;
    directory.replace_node(&certificate, &key.serialize_pem())?;
    Ok(Joined {
        cluster,
        host: token.host.clone(),
        until: facts.until,
    })
}

/// The time limit of joining as a whole.
const PATIENCE: Duration = Duration::from_secs(20);
/// A new certificate that is not accepted, with the most frequent cause.
const NOT_ACCEPTED: &str =
    "the received certificate is not valid: check that the clocks of the two hosts agree";

fn refuse_if_joined(directory: &PeerDirectory, replace: bool) -> Result<()> {
    if directory.ca_key().exists() {
        bail!(
            "this host has the authority of a cluster: to join another one, move {} away",
            directory.path().display()
        );
    }
    if replace {
        return Ok(());
    }

    if let Some(pair) = directory.read_node()? {
        let facts = Facts::read(
            pair.end_entity_cert()
                .context("use this host's certificate")?,
        )?;
        ensure!(
            facts.until <= Timestamp::now(),
            "this host has a certificate for {} that is valid until {:.0}: say --replace to join anew",
            facts.name,
            facts.until
        );
    }
    Ok(())
}

fn config(token: &JoinToken) -> Result<ClientConfig> {
    let verifier = Pinned {
        authority: token.authority,
        provider: provider(),
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("set up TLS 1.3")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The certificate with this fingerprint.
fn pinned(chain: &[CertificateDer<'_>], authority: &[u8; 32]) -> Option<CertificateDer<'static>> {
    let is = |one: &&CertificateDer<'_>| digest::digest(&digest::SHA256, one).as_ref() == authority;
    chain
        .iter()
        .find(is)
        .map(|certificate| certificate.clone().into_owned())
}

/// Trusts a server whose certificate is from the token's authority, for the token's host.
#[derive(Debug)]
struct Pinned {
    authority: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = pinned(intermediates, &self.authority).ok_or_else(|| {
            rustls::Error::General("the server does not belong to the token's cluster".to_owned())
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(authority)?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
