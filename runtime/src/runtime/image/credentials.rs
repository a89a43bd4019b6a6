//! Registry credentials: from a password file, or from the `auths` of a Docker `config.json`. Its
//! credential helpers are not called.

use std::collections::BTreeMap;

use bollard::auth::DockerCredentials;
use serde::Deserialize;

/// The part of `config.json` that is read; the rest is for the Docker command.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    /// Base64 of `user:password`.
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// The credentials for a registry host; `None` if the file has none.
pub(super) fn from_docker_config(content: &[u8], host: &str) -> Option<DockerCredentials> {
    let config: DockerConfig = match serde_json::from_slice(content) {
        Ok(config) => config,
        Err(error) => {
            // Only the position is reported: the error's text may quote the file's content.
            tracing::warn!(
                line = error.line(),
                column = error.column(),
                "the registry credentials are not valid JSON"
            );
            return None;
        }
    };

    let mut auths = config.auths.into_iter();
    let (_, auth) = auths.find(|(name, _)| is_host(name, host))?;
    let decoded = auth.auth.as_deref().and_then(decode_base64);
    let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    // Docker itself cuts zero bytes off the end of the password.
    let pair = text
        .as_deref()
        .and_then(|pair| pair.trim_end_matches('\0').split_once(':'));
    let (user, password) = match pair {
        Some((user, password)) => (Some(user.to_owned()), Some(password.to_owned())),
        None => (auth.username, auth.password),
    };
    Some(DockerCredentials {
        username: user,
        password,
        identitytoken: auth.identitytoken,
        serveraddress: Some(host.to_owned()),
        ..DockerCredentials::default()
    })
}

/// The credentials for a host whose password is the content of a file, without the final line
/// break.
pub(super) fn from_password_file(
    content: Vec<u8>,
    user: &str,
    host: &str,
) -> Option<DockerCredentials> {
    let Ok(password) = String::from_utf8(content) else {
        tracing::warn!(host, "the password for the registry is not UTF-8");
        return None;
    };
    Some(DockerCredentials {
        username: Some(user.to_owned()),
        password: Some(password.trim_end_matches(['\n', '\r']).to_owned()),
        serveraddress: Some(host.to_owned()),
        ..DockerCredentials::default()
    })
}

/// Whether a name in `config.json` is this host: `https://index.docker.io/v1/` is `docker.io`.
pub(super) fn is_host(name: &str, host: &str) -> bool {
    let without_scheme = name
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let registry = without_scheme.split('/').next().unwrap_or(without_scheme);
    // Docker Hub has three names; `docker login` writes the first of these.
    let canonical = |name| match name {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    canonical(registry) == canonical(host)
}

/// Decodes standard base64; `None` if the text is not valid.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut buffer, mut bits) = (0_u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        buffer = (buffer << 6) | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((buffer >> bits) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn a_docker_configuration_gives_credentials_by_host() {
        let content =
            br#"{"auths": {"https://index.docker.io/v1/": {"auth": "ZGVwbG95ZXI6czNjcmV0"},
            "r.example.com:5000": {"auth": "Zm9vOmJhcjpiYXo="}}, "credsStore": "desktop"}"#;
        let hub = from_docker_config(content, "docker.io").unwrap();
        assert_eq!(
            (hub.username.as_deref(), hub.password.as_deref()),
            (Some("deployer"), Some("s3cret"))
        );
        let own = from_docker_config(content, "r.example.com:5000").unwrap();
        assert_eq!(
            (own.username.as_deref(), own.password.as_deref()),
            (Some("foo"), Some("bar:baz"))
        );
        assert_eq!(from_docker_config(content, "r.example.com"), None);
        assert_eq!(from_docker_config(b"{", "docker.io"), None);
    }
}
