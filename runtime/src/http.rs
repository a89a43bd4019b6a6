//! HTTP requests and TCP connections of probes and hooks.

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use reqwest::{
    Client, Url,
    header::{HeaderMap, HeaderName, HeaderValue, InvalidHeaderName, InvalidHeaderValue},
    redirect,
};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};

/// As in Kubernetes, whose limit is that of Go's HTTP client.
const MAX_REDIRECTS: usize = 10;

/// Why a request or a connection to a container has failed. The messages are unbounded and may
/// contain text of the container.
#[derive(Debug, Error)]
pub(crate) enum RequestError {
    #[error("{url:?} is not an address: {cause}")]
    Url { url: String, cause: String },
    #[error("header {name:?}: {error}")]
    HeaderName {
        name: String,
        error: InvalidHeaderName,
    },
    #[error("header {name}: {error}")]
    HeaderValue {
        name: HeaderName,
        error: InvalidHeaderValue,
    },
    #[error("no answer within {} s", .0.as_secs_f32())]
    NoResponse(Duration),
    /// The message of the innermost cause, which is more specific than the library's own.
    #[error("{}", innermost(.0))]
    NotSent(reqwest::Error),
    #[error("{address}: {error}")]
    Refused { address: String, error: io::Error },
    #[error("{address}: no connection within {} s", limit.as_secs_f32())]
    NoConnection { address: String, limit: Duration },
    #[error("HTTP status {0}")]
    Status(u16),
}

/// An HTTP client that keeps no connections, uses no proxy and checks no certificates.
pub(crate) struct HttpClient(Client);

impl HttpClient {
    pub(crate) fn new() -> Result<Self, reqwest::Error> {
        let same_host = redirect::Policy::custom(|attempt| {
            let first_host = attempt.previous().first().and_then(Url::host_str);
            if attempt.previous().len() > MAX_REDIRECTS {
                attempt.error("too many redirects")
            } else if first_host == attempt.url().host_str() {
                attempt.follow()
            } else {
                // As in Kubernetes, a redirect to another host counts as a response.
                attempt.stop()
            }
        });
        let client = Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .redirect(same_host)
            .user_agent(concat!("windlass-probe/", env!("CARGO_PKG_VERSION")))
            .tls_backend_preconfigured(unchecked_tls())
            .build()?;
        Ok(Self(client))
    }

    /// The HTTP status of the response; its body is not read.
    pub(crate) async fn get(
        &self,
        url: Url,
        headers: &[(String, String)],
        limit: Duration,
    ) -> Result<u16, RequestError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::try_from(name).map_err(|error| RequestError::HeaderName {
                name: name.clone(),
                error,
            })?;
            match HeaderValue::try_from(value) {
                Ok(value) => map.append(name, value),
                Err(error) => return Err(RequestError::HeaderValue { name, error }),
            };
        }

        match self.0.get(url).headers(map).timeout(limit).send().await {
            Ok(answer) => Ok(answer.status().as_u16()),
            Err(error) if error.is_timeout() => Err(RequestError::NoResponse(limit)),
            Err(error) => Err(RequestError::NotSent(error.without_url())),
        }
    }
}

/// The URL of an httpGet handler; without a host it is that of the pod.
pub(crate) fn url(
    https: bool,
    host: Option<&str>,
    pod: Ipv4Addr,
    port: u16,
    path: &str,
) -> Result<Url, RequestError> {
    let scheme = if https { "https" } else { "http" };
    let host = match host {
        Some(host) => bracketed(host),
        None => pod.to_string(),
    };
    let slash = if path.starts_with('/') { "" } else { "/" };
    let url = format!("{scheme}://{host}:{port}{slash}{path}");
    Url::parse(&url).map_err(|error| RequestError::Url {
        cause: error.to_string(),
        url,
    })
}

/// Succeeds when a TCP connection is accepted.
pub(crate) async fn connect(
    host: Option<&str>,
    pod: Ipv4Addr,
    port: u16,
    limit: Duration,
) -> Result<(), RequestError> {
    let host = match host {
        Some(host) => host.to_owned(),
        None => pod.to_string(),
    };
    let address = format!("{host}:{port}");
    match timeout(limit, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(RequestError::Refused { address, error }),
        Err(_) => Err(RequestError::NoConnection { address, limit }),
    }
}

/// The host as a URL has it: an IPv6 address is in brackets there.
fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

fn innermost(error: &reqwest::Error) -> &dyn std::error::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}

fn unchecked_tls() -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(AnyCertificate(
        provider
            .signature_verification_algorithms
            .supported_schemes(),
    ));
    let builder = ClientConfig::builder_with_provider(provider);
    match builder.with_safe_default_protocol_versions() {
        Ok(builder) => builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth(),
        Err(error) => unreachable!("ring supports the default protocol versions: {error}"),
    }
}

/// Kubernetes' https probes do not check certificates: the probe uses the pod's address, which no
/// certificate contains.
#[derive(Debug)]
struct AnyCertificate(Vec<SignatureScheme>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
