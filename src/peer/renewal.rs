//! Renews certificates in time: a third of the old one's life is left for attempts.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use reconciler::name::NodeName;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{
    AddressOf, Authority, Identity, PeerClient,
    certificate::{self, Facts},
};

/// How often the expiry is checked; a failed renewal is repeated at the next check.
const INTERVAL: Duration = Duration::from_secs(60 * 60);
/// The first renewal comes some time after the start, so that other hosts have time to start too.
const FIRST: Duration = Duration::from_secs(30);

/// The result of a renewal.
#[derive(Clone, Debug)]
pub(crate) struct Renewed {
    /// The name in the certificate.
    pub(crate) name: String,
    /// When the new certificate expires.
    pub(crate) until: Timestamp,
}

/// Renews the certificate whenever it is due, while the daemon runs.
pub(super) async fn keep(identity: Arc<Identity>, address_of: AddressOf) {
    tokio::time::sleep(FIRST).await;
    loop {
        let facts = identity.facts();
        if facts.renewal_is_due(Timestamp::now()) {
            match renew(&identity, &address_of).await {
                Ok(renewed) => {
                    tracing::info!(until = %renewed.until, "this host's certificate was renewed")
                }
                Err(error) => tracing::warn!(
                    days_left = facts.days_left(Timestamp::now()),
                    "this host's certificate cannot be renewed: {error:#}"
                ),
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Renews the certificate now: by the authority on this host, or by a request to the authority's
/// host.
pub(crate) async fn renew(identity: &Arc<Identity>, address_of: &AddressOf) -> Result<Renewed> {
    let directory = identity.directory();
    if let Some(authority) = Authority::open(directory)? {
        let signed = tokio::task::spawn_blocking(move || authority.renew_own(Timestamp::now()));
        let Facts { name, until, .. } = signed.await.context("renew the certificate")??;
        return Ok(Renewed { name, until });
    }

    let host = &identity.cluster().host;
    let address = address_of(host).or(identity.cluster().address);
    let address = address
        .with_context(|| format!("the address of {host}, which has the authority, is not known"))?;

    let name = identity.facts().name;
    let (key, request) = certificate::request(&name)?;
    let client = PeerClient::with(identity.clone());
    let answer = client.renew(host, address, request).await?.certificate;

    let chain = CertificateDer::pem_slice_iter(answer.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.context("read the received certificate")?;
    identity.verify(&chain, &NodeName::new(name.as_str()), Timestamp::now())?;
    let facts = certificate::facts_of_pem(&answer)?;
    ensure!(
        facts.name == name,
        "the received certificate is for {}",
        facts.name
    );

    let _lock = directory.lock()?;
    directory.replace_node(&answer, &key.serialize_pem())?;
    Ok(Renewed {
        name,
        until: facts.until,
    })
}
