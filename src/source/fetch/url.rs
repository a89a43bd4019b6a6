//! The place of a repository: on this host, or behind a network.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{FetchError, layout};

pub(crate) const HTTP: u16 = 80;
pub(crate) const HTTPS: u16 = 443;
const SSH: u16 = 22;

/// A parsed repository URL; printed without its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RemoteUrl {
    /// A repository on this host.
    Local(LocalRepository),
    /// A repository that libgit2 reaches over the network.
    Network(NetworkUrl),
}

/// The configured directory of a local repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalRepository {
    /// A bare repository or a work tree.
    pub(crate) path: PathBuf,
}

/// A URL for libgit2. It may hold a password, so only its public part is printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct NetworkUrl {
    full: String,
    shown: String,
}

impl NetworkUrl {
    /// The URL with the credentials in it.
    pub(super) fn full(&self) -> &str {
        &self.full
    }

    /// The TCP port of the server.
    fn port(&self) -> Option<u16> {
        let Some((scheme, authority, _)) = authority(&self.full) else {
            // `user@host:path`
            return Some(SSH);
        };
        port_in(
            authority,
            match scheme {
                "https" => HTTPS,
                "ssh" => SSH,
                _ => HTTP,
            },
        )
    }

    /// Whether `other`, for which libgit2 requests credentials, is the same server with the same
    /// protocol: a redirect must not send a password to another server.
    pub(super) fn is_same_server(&self, other: &str) -> bool {
        match (server(&self.full), server(other)) {
            (Some((scheme, host)), Some((other_scheme, other_host))) => {
                scheme == other_scheme && host.eq_ignore_ascii_case(other_host)
            }
            // A URL of the form `user@host:path` cannot be redirected.
            (None, None) => self.full == other,
            _ => false,
        }
    }
}

impl fmt::Debug for NetworkUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl RemoteUrl {
    /// A message of libgit2 about this URL, without the secret parts.
    pub(super) fn scrub(&self, message: &str) -> String {
        match self {
            Self::Local(_) => message.to_owned(),
            Self::Network(url) => message.replace(&url.full, &url.shown),
        }
    }

    /// The TCP port of a remote server, or of a proxy; `None` for a repository on this host, and for
    /// a port that is no number.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Local(_) => None,
            Self::Network(url) => url.port(),
        }
    }

    /// Whether the server identifies itself by a certificate.
    pub(crate) fn is_https(&self) -> bool {
        matches!(self, Self::Network(url) if url.full.starts_with("https://"))
    }

    /// Whether others on the network path can read the connection.
    pub(super) fn is_plain_http(&self) -> bool {
        matches!(self, Self::Network(url) if url.full.starts_with("http://"))
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(local) => write!(f, "{}", local.path.display()),
            Self::Network(url) => f.write_str(&url.shown),
        }
    }
}

impl FromStr for RemoteUrl {
    type Err = FetchError;

    fn from_str(text: &str) -> Result<Self, FetchError> {
        let bad = |why: &str| FetchError::BadUrl {
            url: without_credentials(text),
            why: why.to_owned(),
        };
        if text.is_empty() || text.contains(['\0', '\n', '\r']) {
            return Err(bad("it is empty or holds control characters"));
        }
        let network = || {
            Self::Network(NetworkUrl {
                full: text.to_owned(),
                shown: without_credentials(text),
            })
        };
        match text.split_once("://") {
            Some(("file", rest)) => {
                let path = rest.strip_prefix("localhost").unwrap_or(rest);
                if !path.starts_with('/') {
                    return Err(bad(
                        "a file URL names an absolute path, as in file:///srv/git/deploy.git",
                    ));
                }
                let path =
                    percent_decode(path).ok_or_else(|| bad("its percent encoding is broken"))?;
                Ok(Self::Local(LocalRepository { path }))
            }
            Some(("http", rest))
                if rest
                    .split('/')
                    .next()
                    .is_some_and(|server| server.contains('@')) =>
            {
                Err(bad("credentials are not sent over plain http; use https"))
            }
            Some(("https" | "http" | "ssh", rest))
                if !rest.starts_with('/') && !rest.is_empty() =>
            {
                Ok(network())
            }
            Some(_) => Err(bad("use a path, file://, https:// or ssh://")),
            None if is_scp_like(text) => Ok(network()),
            None => std::path::absolute(text)
                .map(|path| Self::Local(LocalRepository { path }))
                .map_err(|_| bad("the path cannot be made absolute")),
        }
    }
}

impl LocalRepository {
    /// The directory of this repository's refs, if it can be told.
    pub(crate) fn git_directory(&self) -> Option<PathBuf> {
        let directory = layout::git_directory(&self.path).ok()?;
        directory.join("refs").is_dir().then_some(directory)
    }

    /// The directory as configured.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether the text has the form `user@host:path`, as git defines it: a colon before the first
/// slash.
fn is_scp_like(text: &str) -> bool {
    let head = text.split('/').next().unwrap_or_default();
    head.contains(':') && !head.starts_with('.')
}

/// The port in `[user@]host[:port]`, or the default; `None` if the port is no number.
pub(crate) fn port_in(authority: &str, default: u16) -> Option<u16> {
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    // The colons of an IPv6 address stand in brackets.
    let after_host = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
    match after_host.rsplit_once(':') {
        Some((_, port)) if !port.is_empty() => port.parse().ok(),
        _ => Some(default),
    }
}

fn authority(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    Some((scheme, authority, path))
}

/// Scheme, host and port of a URL, without the user.
fn server(url: &str) -> Option<(&str, &str)> {
    let (scheme, authority, _) = authority(url)?;
    Some((
        scheme,
        authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host),
    ))
}

fn without_credentials(url: &str) -> String {
    match authority(url) {
        Some((scheme, authority, path)) => {
            let host = authority
                .rsplit_once('@')
                .map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

fn percent_decode(text: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        let decoded = u8::from_str_radix(digits, 16).ok()?;
        // No path holds a zero byte.
        if decoded == 0 {
            return None;
        }
        bytes.push(decoded);
        rest = rest.get(2..)?;
    }
    Some(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn urls_parse_and_print_without_passwords() {
        for (text, shown) in [
            ("/srv/git/deploy.git", "/srv/git/deploy.git"),
            ("file:///srv/git/a%20b.git", "/srv/git/a b.git"),
            ("file://localhost/srv/git", "/srv/git"),
            (
                "https://dev:secret@git.example.com/a.git",
                "https://git.example.com/a.git",
            ),
            (
                "ssh://git@git.example.com:2222/a.git",
                "ssh://git.example.com:2222/a.git",
            ),
            ("git@git.example.com:a.git", "git@git.example.com:a.git"),
        ] {
            let url: RemoteUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("secret"));
        }
        for text in [
            "",
            "ftp://x/y",
            "file://host/x",
            "https://",
            "file:///a%zz",
            "git://git.example.com/a",
            "http://dev:secret@git.example.com/a",
        ] {
            assert!(text.parse::<RemoteUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_port_is_that_of_the_url_or_of_its_scheme() {
        for (text, port) in [
            ("/srv/git/a.git", None),
            ("https://git.example.com/a.git", Some(443)),
            ("https://dev:1@git.example.com:8443/a.git", Some(8443)),
            ("http://[::1]:3000/a.git", Some(3000)),
            ("http://[::1]/a.git", Some(80)),
            ("ssh://git@git.example.com/a.git", Some(22)),
            ("ssh://git@git.example.com:2222/a.git", Some(2222)),
            ("git@git.example.com:a.git", Some(22)),
            ("https://git.example.com:/a.git", Some(443)),
            ("https://git.example.com:70000/a.git", None),
        ] {
            assert_eq!(text.parse::<RemoteUrl>().unwrap().port(), port, "{text}");
        }
    }

    #[test]
    fn credentials_go_to_the_configured_server_only() {
        let url = |text: &str| match text.parse().unwrap() {
            RemoteUrl::Network(url) => url,
            RemoteUrl::Local(local) => panic!("{local:?}"),
        };
        let plain = url("https://git.example.com/a.git");
        assert!(plain.is_same_server("https://git.example.com/a.git/info/refs"));
        assert!(!plain.is_same_server("http://git.example.com/a.git"));
        assert!(!plain.is_same_server("https://git.example.com.evil.example/a.git"));
        assert!(!plain.is_same_server("https://git.example.com:444/a.git"));
    }
}
