//! What a failed call to etcd means, and the message that reports it.

use std::{error::Error as _, fmt::Write as _};

use reconciler::foreign::ForeignText;

use super::EtcdConfig;

/// What a failed call means for its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallFailure {
    /// No answer, or an answer that leaves open whether the call was executed.
    Unreachable(String),
    /// Certainly not executed, and another end point would refuse the call, too.
    Refused(String),
    /// Etcd has compacted the revision away.
    Compacted,
    /// The lease has run out or was revoked.
    LeaseGone,
}

impl std::fmt::Display for CallFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(why) | Self::Refused(why) => f.write_str(why),
            Self::Compacted => f.write_str("the revision was compacted away"),
            Self::LeaseGone => f.write_str("the lease is gone from etcd"),
        }
    }
}

// gRPC's status codes, by their numbers: the crate that names them is not a dependency.
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const UNAUTHENTICATED: i32 = 16;

/// Classifies the error of a call to one end point.
pub(super) fn judge(
    error: &etcd_client::Error,
    endpoint: &str,
    config: &EtcdConfig,
) -> CallFailure {
    match error {
        etcd_client::Error::GRpcStatus(status) => {
            let message = status.message();
            let code = status.code() as i32;
            if message.contains("required revision has been compacted") {
                return CallFailure::Compacted;
            }
            if code == NOT_FOUND && message.contains("lease not found") {
                return CallFailure::LeaseGone;
            }
            match code {
                INVALID_ARGUMENT | NOT_FOUND | PERMISSION_DENIED | RESOURCE_EXHAUSTED
                | FAILED_PRECONDITION | UNAUTHENTICATED => {
                    CallFailure::Refused(words(&refusal(code, message, endpoint, config)))
                }
                _ => CallFailure::Unreachable(words(&transport(&chain(error), endpoint, config))),
            }
        }
        etcd_client::Error::LeaseKeepAliveError(why) if why.contains("lease not found") => {
            CallFailure::LeaseGone
        }
        _ => CallFailure::Unreachable(words(&transport(&chain(error), endpoint, config))),
    }
}

/// Makes a sentence safe to print: it may contain foreign text of etcd or of another server at its
/// address.
pub(super) fn words(sentence: &str) -> String {
    ForeignText::new(sentence).into()
}

/// The message for a call that etcd refused, with what to do about it.
pub(super) fn refusal(code: i32, message: &str, endpoint: &str, config: &EtcdConfig) -> String {
    let prefix = format!("{}/", config.prefix.trim_end_matches('/'));
    if message.contains("database space exceeded") {
        return format!(
            "etcd at {endpoint} is full (quota alarm) and takes no writes: compact and defragment it \
             (`etcdctl compact REVISION`, `etcdctl defrag`), then `etcdctl alarm disarm`"
        );
    }
    let who = match &config.user {
        Some((user, _)) => format!("the user {user}"),
        None => match &config.tls {
            Some(tls) => format!(
                "the user named by {} (its common name)",
                tls.certificate.display()
            ),
            None => "a client without a user".to_owned(),
        },
    };
    if code == PERMISSION_DENIED {
        return format!(
            "etcd at {endpoint} does not allow this to {who} ({message}): grant its role what it needs under {prefix}, \
             as in `etcdctl role grant-permission ROLE --prefix=true read {prefix}`"
        );
    }
    if message.contains("authentication failed") || message.contains("invalid auth token") {
        return format!(
            "etcd at {endpoint} does not know {who} by this password ({message}): check user and password"
        );
    }
    if message.contains("user name is empty") || message.contains("user name not found") {
        return format!(
            "etcd at {endpoint} asks for a user and does not know {who} ({message}): name a user and password, or use \
             a client certificate whose common name is a user of etcd"
        );
    }
    if message.contains("authentication is not enabled") {
        return format!(
            "etcd at {endpoint} has no users ({message}): `etcdctl auth enable`, or configure no user here"
        );
    }
    format!("etcd at {endpoint} refused: {message}")
}

/// The message for a call without an answer, with what to do about it.
fn transport(chain: &str, endpoint: &str, config: &EtcdConfig) -> String {
    let ca = config
        .tls
        .as_ref()
        .map(|tls| tls.ca.display().to_string())
        .unwrap_or_default();
    let own = config
        .tls
        .as_ref()
        .map(|tls| tls.certificate.display().to_string())
        .unwrap_or_default();
    let has = |words: &[&str]| words.iter().any(|word| chain.contains(word));
    let hint = if has(&["received fatal alert"]) {
        format!(
            "etcd does not accept this host's certificate {own}: it must be signed by the CA of etcd's \
                 --trusted-ca-file and not be expired"
        )
    } else if config.tls.is_some() && has(&["connection closed", "reset by peer", "roken pipe"]) {
        // In TLS 1.3 the server checks the client's certificate after the client has finished the
        // handshake: the server's alert may come too late to be read.
        format!(
            "it hung up: it is stopping, or does not accept this host's certificate {own}, which must be signed by \
             the CA of etcd's --trusted-ca-file and not be expired"
        )
    } else if has(&["UnknownIssuer", "BadSignature"]) {
        format!(
            "etcd's certificate is not signed by the CA in {ca}: name the right CA, or make etcd show its \
                 certificate from that CA"
        )
    } else if has(&["NotValidForName"]) {
        "etcd's certificate does not name this address: use a name that it does, or make a new one"
            .to_owned()
    } else if has(&["certificate expired", "CertExpired", "Expired"]) {
        "etcd's certificate has expired, or this host's clock is wrong".to_owned()
    } else if has(&["InvalidContentType", "corrupt message"]) {
        "it does not speak TLS: use http:// or give etcd a certificate".to_owned()
    } else if has(&["no leader", "etcdserver: request timed out"]) {
        "its members have no quorum: start the missing ones".to_owned()
    } else if has(&["onnection refused"]) {
        "nobody listens there: start etcd, or correct the end point".to_owned()
    } else {
        "check that etcd runs and that this host reaches it".to_owned()
    };
    format!("etcd at {endpoint} does not answer: {hint} ({chain})")
}

/// The error with all its causes; a cause that repeats the one before is left out.
fn chain(error: &etcd_client::Error) -> String {
    let mut text = match error {
        etcd_client::Error::GRpcStatus(status) => status.message().to_owned(),
        other => other.to_string(),
    };
    // The client library's own error does not return its source.
    let mut cause = match error {
        etcd_client::Error::GRpcStatus(status) => status.source(),
        etcd_client::Error::TransportError(error) => error.source(),
        _ => None,
    };
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            let _ = write!(text, ": {more}");
        }
        cause = error.source();
    }
    text
}
