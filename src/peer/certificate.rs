//! Certificates: made with rcgen, read with x509-parser. Keys are P-256.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    SanType, SerialNumber,
};
use reconciler::name::NodeName;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use super::{NODE_SUFFIX, hex, random, server_name};

/// How long a host's certificate is good; it is renewed when a third of that is left.
pub(crate) const NODE_LIFE: Duration = Duration::from_secs(90 * DAY);
/// How long the authority's is good.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3652 * DAY);
const DAY: u64 = 24 * 60 * 60;
/// Certificates are good from a while before they are made, because the clocks of hosts differ.
const SKEW: Duration = Duration::from_secs(2 * 60 * 60);

/// What is read from a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Its common name.
    pub(crate) name: String,
    /// Its DNS names.
    pub(crate) dns: Vec<String>,
    /// Its serial number, in hexadecimal.
    pub(crate) serial: String,
    /// Since when it is good.
    pub(crate) from: Timestamp,
    /// Until when it is good.
    pub(crate) until: Timestamp,
}

impl Facts {
    /// Reads a certificate; who signed it is for TLS to judge.
    pub(crate) fn read(certificate: &CertificateDer<'_>) -> Result<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).context("read a certificate")?;
        let name = parsed
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok());
        let names = parsed
            .subject_alternative_name()
            .context("read a certificate's names")?;
        let names = names
            .map(|names| names.value.general_names.as_slice())
            .unwrap_or_default();
        let dns = names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        let time = |time: i64| Timestamp::from_second(time).context("read a certificate's times");
        let bare = parsed
            .raw_serial()
            .iter()
            .position(|byte| *byte != 0)
            .unwrap_or(0);
        Ok(Self {
            name: name.context("a certificate has no common name")?.to_owned(),
            dns: dns.collect(),
            serial: hex(&parsed.raw_serial()[bare..]),
            from: time(parsed.validity().not_before.timestamp())?,
            until: time(parsed.validity().not_after.timestamp())?,
        })
    }

    /// The node it was made for; `None` for a certificate of something else, such as a server of
    /// etcd.
    pub(crate) fn node(&self) -> Option<NodeName> {
        let node = NodeName::new(self.name.as_str());
        (self.dns == [server_name(&node)]).then_some(node)
    }

    /// Whether a third of its life or less is left.
    pub(crate) fn renewal_is_due(&self, now: Timestamp) -> bool {
        now.duration_until(self.until).as_secs() * 3
            <= self.from.duration_until(self.until).as_secs()
    }

    /// Whether it is due for long: the daemon has tried many times.
    pub(crate) fn renewal_is_overdue(&self, now: Timestamp) -> bool {
        now.duration_until(self.until).as_secs() * 4
            <= self.from.duration_until(self.until).as_secs()
    }

    /// Days that are left; negative afterwards.
    pub(crate) fn days_left(&self, now: Timestamp) -> i64 {
        now.duration_until(self.until)
            .as_secs()
            .div_euclid(DAY.cast_signed())
    }
}

/// Who a certificate is for.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// The common name.
    pub(super) name: String,
    /// DNS names.
    pub(super) dns: Vec<String>,
    /// Addresses.
    pub(super) addresses: Vec<IpAddr>,
}

impl Subject {
    /// A node: one DNS name, and no address, since it may change.
    pub(super) fn node(node: &NodeName) -> Self {
        Self {
            name: node.as_str().to_owned(),
            dns: vec![server_name(node)],
            addresses: Vec::new(),
        }
    }

    /// Whether this would be taken for a node.
    pub(super) fn is_of_a_node(&self) -> bool {
        self.dns
            .iter()
            .any(|name| name.to_ascii_lowercase().ends_with(NODE_SUFFIX))
    }
}

/// A key and a request for a certificate, both as PEM. The name in it is for people: the authority
/// knows better.
pub(super) fn request(name: &str) -> Result<(KeyPair, String)> {
    let key = KeyPair::generate().context("make a key")?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let request = params
        .serialize_request(&key)
        .context("make a certificate request")?;
    let request = request.pem().context("write a certificate request")?;
    Ok((key, request))
}

/// A new authority: certificate and key, as PEM.
pub(super) fn authority(cluster: &str, now: Timestamp) -> Result<(String, String)> {
    let key = KeyPair::generate().context("make a key")?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, cluster);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial()?);
    set_times(&mut params, now, AUTHORITY_LIFE)?;
    let certificate = params
        .self_signed(&key)
        .context("sign the authority's certificate")?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Reads a request, and checks that who made it has the key.
pub(super) fn check_request(request: &str) -> Result<CertificateSigningRequestParams> {
    let request = CertificateSigningRequestParams::from_pem(request).context("it does not read")?;
    ensure!(
        *request.public_key.algorithm() == PKCS_ECDSA_P256_SHA256,
        "its key is not a P-256 key"
    );
    Ok(request)
}

/// Signs a request. Only its key is taken; everything else is as we say. Returns the certificate
/// with the authority's behind it, as PEM.
pub(super) fn issue(
    ca: &str,
    ca_key: &str,
    request: &str,
    subject: &Subject,
    (now, life): (Timestamp, Duration),
) -> Result<String> {
    let request = check_request(request)?;
    let key = KeyPair::from_pem(ca_key).context("read the authority's key")?;
    let issuer = Issuer::from_ca_cert_pem(ca, key).context("read the authority's certificate")?;
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, subject.name.as_str());
    for name in &subject.dns {
        let name = name
            .as_str()
            .try_into()
            .with_context(|| format!("`{name}` is no DNS name"))?;
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    params
        .subject_alt_names
        .extend(subject.addresses.iter().copied().map(SanType::IpAddress));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial()?);
    set_times(&mut params, now, life)?;
    let certificate = params
        .signed_by(&request.public_key, &issuer)
        .context("sign the certificate")?;
    Ok(format!("{}{ca}", certificate.pem()))
}

/// The first certificate of a PEM text, read.
pub(super) fn facts_of_pem(chain: &str) -> Result<Facts> {
    let first = CertificateDer::from_pem_slice(chain.as_bytes()).context("read a certificate")?;
    Facts::read(&first)
}

/// A certificate as PEM.
pub(super) fn pem_of(certificate: &CertificateDer<'_>) -> String {
    use ssh_encoding::base64::{Base64, Encoding};
    let text = Base64::encode_string(certificate);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for (at, letter) in text.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            pem.push('\n');
        }
        pem.push(letter);
    }
    pem + "\n-----END CERTIFICATE-----\n"
}

/// 128 random bits; the first byte makes them positive and keeps their length.
fn serial() -> Result<SerialNumber> {
    let mut bytes = random::<16>()?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Sets since when and until when a certificate is good. rcgen's times can be added to, but not be
/// named from here.
fn set_times(params: &mut CertificateParams, now: Timestamp, life: Duration) -> Result<()> {
    let now = u64::try_from(now.as_second()).context("the clock says that it is before 1970")?;
    let now = Duration::from_secs(now);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + now.saturating_sub(SKEW);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + life;
    Ok(())
}

#[cfg(test)]
mod fuzz;
