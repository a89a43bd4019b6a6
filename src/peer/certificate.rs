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

use super::{NODE_SUFFIX, random, server_name};
use reconciler::digest::hex;

/// For how long a host's certificate is valid; it is renewed when a third of that is left.
pub(crate) const NODE_LIFE: Duration = Duration::from_secs(90 * DAY);
/// For how long the authority's certificate is valid.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3652 * DAY);
const DAY: u64 = 24 * 60 * 60;
/// Certificates are valid from some time before they are made, because the clocks of hosts differ.
const SKEW: Duration = Duration::from_secs(2 * 60 * 60);

/// The content of a certificate that this crate uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) dns: Vec<String>,
    /// The serial number, in hexadecimal.
    pub(crate) serial: String,
    /// The start of the validity.
    pub(crate) from: Timestamp,
    /// The end of the validity.
    pub(crate) until: Timestamp,
}

impl Facts {
    /// Reads a certificate; its signature is for TLS to judge.
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
        // DER puts a zero byte before a number whose first bit is set.
        let first_digit = parsed
            .raw_serial()
            .iter()
            .position(|byte| *byte != 0)
            .unwrap_or(0);
        Ok(Self {
            name: name.context("a certificate has no common name")?.to_owned(),
            dns: dns.collect(),
            serial: hex(&parsed.raw_serial()[first_digit..]),
            from: time(parsed.validity().not_before.timestamp())?,
            until: time(parsed.validity().not_after.timestamp())?,
        })
    }

    /// The node that the certificate was made for; `None` for another certificate, such as that of
    /// a server of etcd.
    pub(crate) fn node(&self) -> Option<NodeName> {
        let node = NodeName::new(self.name.as_str());
        if self.dns == [server_name(&node)] {
            Some(node)
        } else {
            None
        }
    }

    /// Whether a third of its life or less is left.
    pub(crate) fn renewal_is_due(&self, now: Timestamp) -> bool {
        now.duration_until(self.until).as_secs() * 3
            <= self.from.duration_until(self.until).as_secs()
    }

    /// Whether renewal has been due for long: the daemon has tried many times.
    pub(crate) fn renewal_is_overdue(&self, now: Timestamp) -> bool {
        now.duration_until(self.until).as_secs() * 4
            <= self.from.duration_until(self.until).as_secs()
    }

    /// The number of days until the certificate expires; negative afterwards.
    pub(crate) fn days_left(&self, now: Timestamp) -> i64 {
        now.duration_until(self.until)
            .as_secs()
            .div_euclid(DAY.cast_signed())
    }
}

/// The subject of a certificate.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) dns: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
}

impl Subject {
    /// The subject of a node: one DNS name, and no address, since the address may change.
    pub(super) fn node(node: &NodeName) -> Self {
        Self {
            name: node.as_str().to_owned(),
            dns: vec![server_name(node)],
            addresses: Vec::new(),
        }
    }

    /// Whether a certificate with this subject would be taken for a node's.
    pub(super) fn is_of_a_node(&self) -> bool {
        self.dns
            .iter()
            .any(|name| name.to_ascii_lowercase().ends_with(NODE_SUFFIX))
    }
}

/// A key and a certificate request, both as PEM. The name in the request is only for people: the
/// authority sets the name itself.
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

/// Makes an authority: certificate and key, as PEM.
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

/// Reads a request, and checks that its sender has the key.
pub(super) fn check_request(request: &str) -> Result<CertificateSigningRequestParams> {
    let request = CertificateSigningRequestParams::from_pem(request).context("it does not read")?;
    ensure!(
        *request.public_key.algorithm() == PKCS_ECDSA_P256_SHA256,
        "its key is not a P-256 key"
    );
    Ok(request)
}

/// Signs a request. Only its key is used; the authority sets all other fields. Returns the
/// certificate followed by the authority's, as PEM.
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

/// The content of the first certificate in a PEM text.
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

/// A serial number of 128 random bits; the first byte makes it positive and fixes its length.
fn serial() -> Result<SerialNumber> {
    let mut bytes = random::<16>()?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Sets the validity of a certificate. The type of rcgen's times cannot be named in this crate, so
/// the times are computed by addition to a date that rcgen makes.
fn set_times(params: &mut CertificateParams, now: Timestamp, life: Duration) -> Result<()> {
    let now =
        u64::try_from(now.as_second()).context("this host's clock is set to a time before 1970")?;
    let now = Duration::from_secs(now);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + now.saturating_sub(SKEW);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + life;
    Ok(())
}

#[cfg(test)]
mod fuzz;
