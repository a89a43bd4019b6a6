//! Names of images as manifests write them: `registry.example.com:5000/team/name:tag@sha256:...`.

use std::fmt;

/// The parts of an image name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    /// The repository, including the registry's host if the name contains one.
    pub repository: String,
    /// The text after the colon; `None` without one.
    pub tag: Option<String>,
    /// The text after the `@`; `None` without one.
    pub digest: Option<String>,
}

/// Why a text is not a valid image name. Prints what is wrong and what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageNameFault {
    /// The name begins with a URL scheme such as `https://`.
    Scheme,
    /// The part before tag and digest is empty or longer than 255 bytes.
    Length,
    /// The registry's host or port is invalid.
    Host(String),
    /// A part of the path is invalid.
    Part(String),
    /// The name consists of 64 hexadecimal digits, which is the id of an image.
    Id,
    /// The tag is invalid.
    Tag(String),
    /// The digest is invalid.
    Digest(String),
}

impl ImageName {
    /// Splits a name into its parts without checking them.
    pub fn taken_apart(text: &str) -> Self {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (text, None),
        };
        // A colon before a slash separates the registry's host from its port.
        match rest.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => Self {
                repository: repository.to_owned(),
                tag: Some(tag.to_owned()),
                digest,
            },
            _ => Self {
                repository: rest.to_owned(),
                tag: None,
                digest,
            },
        }
    }

    /// Parses a name by the rules of container engines (`ParseNormalizedNamed` of
    /// github.com/distribution/reference, and `Validate` of github.com/opencontainers/go-digest).
    ///
    /// # Errors
    ///
    /// Every name that an engine would refuse, and names whose host is an IPv6 address.
    pub fn parse(text: &str) -> Result<Self, ImageNameFault> {
        if text.contains("://") {
            return Err(ImageNameFault::Scheme);
        }
        let name = Self::taken_apart(text);
        check_repository(&name.repository)?;
        if let Some(tag) = name.tag.as_ref().filter(|tag| !is_tag(tag)) {
            return Err(ImageNameFault::Tag(tag.clone()));
        }
        if let Some(digest) = name.digest.as_ref().filter(|digest| !is_digest(digest)) {
            return Err(ImageNameFault::Digest(digest.clone()));
        }
        Ok(name)
    }
}

fn check_repository(repository: &str) -> Result<(), ImageNameFault> {
    if repository.is_empty() || repository.len() > 255 {
        return Err(ImageNameFault::Length);
    }
    let (host, path) = match repository.split_once('/') {
        Some((host, path)) if is_hosts(host) => (Some(host), path),
        _ => (None, repository),
    };
    if let Some(host) = host.filter(|host| !is_host(host)) {
        return Err(ImageNameFault::Host(host.to_owned()));
    }
    if let Some(part) = path.split('/').find(|part| !is_part(part)) {
        return Err(ImageNameFault::Part(part.to_owned()));
    }
    if path.len() == 64 && host.is_none() && path.bytes().all(is_hex) {
        return Err(ImageNameFault::Id);
    }
    Ok(())
}

/// Whether the first of several parts is a registry's host: engines recognise a host by a dot, a
/// port or an upper-case letter.
fn is_hosts(first: &str) -> bool {
    first.contains(['.', ':'])
        || first == "localhost"
        || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.split('.').all(is_label)
        && port
            .is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether a part consists of lower-case letters and digits, with `.`, `_`, `__` or dashes between
/// them.
fn is_part(part: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator =
        |text: &str| matches!(text, "." | "_" | "__") || text.chars().all(|c| c == '-');
    part.starts_with(alphanumeric)
        && part.ends_with(alphanumeric)
        && part.split(alphanumeric).all(is_separator)
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(is_word)
        && tag
            .bytes()
            .all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

/// Whether a digest uses an algorithm that engines know, with the right length of its hash.
fn is_digest(digest: &str) -> bool {
    let Some((algorithm, sum)) = digest.split_once(':') else {
        return false;
    };
    let digits = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    sum.len() == digits && sum.bytes().all(is_hex)
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

impl fmt::Display for ImageNameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("a name has no scheme: write what follows the \"://\""),
            Self::Length => f.write_str("write a name of 1 to 255 letters before the tag"),
            Self::Host(host) => {
                write!(
                    f,
                    "{host:?} is no host of a registry: write one such as registry.example.com:5000"
                )
            }
            Self::Part(part) => write!(
                f,
                "{part:?} is no part of a name: write lower-case letters and digits, with '.', '_' or '-' between them"
            ),
            Self::Id => f.write_str("this is the id of an image: write its name"),
            Self::Tag(tag) if tag.is_empty() => f.write_str(
                "nothing follows the colon: write the tag, or leave the colon out for \"latest\"",
            ),
            Self::Tag(tag) => write!(
                f,
                "{tag:?} is no tag: write at most 128 letters, digits, '_', '.' and '-', beginning with none of the \
                 last two"
            ),
            Self::Digest(digest) => {
                write!(
                    f,
                    "{digest:?} is no digest: write \"sha256:\" and 64 lower-case hexadecimal digits"
                )
            }
        }
    }
}

impl std::error::Error for ImageNameFault {}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_engines_take_are_taken() {
        let sum = "0".repeat(64);
        for text in [
            "httpd",
            "httpd:2.4",
            "Registry.example:5000/a/b:V1.0-SNAPSHOT",
            "Team/app",
            "localhost/x",
            "a__b/c---d",
            "r.example.com/a.b_c/d--e:_x",
            &format!("httpd@sha256:{sum}"),
            &format!("httpd:2@sha256:{sum}"),
            &format!("httpd@sha384:{}", "0".repeat(96)),
            &format!("httpd@sha512:{}", "f".repeat(128)),
            &format!("a/{sum}"),
            &format!("r.example.com/{sum}"),
            &"z".repeat(64),
            "r-x.example.com:5000/a",
            &"a".repeat(255),
            &format!("a:{}", "b".repeat(128)),
        ] {
            assert_eq!(ImageName::parse(text).map(drop), Ok(()), "{text}");
        }
        assert!(ImageName::parse(&"a".repeat(256)).is_err());
        assert!(ImageName::parse(&format!("a:{}", "b".repeat(129))).is_err());
    }

    #[test]
    fn a_name_consists_of_its_repository_tag_and_digest() {
        let parts = |text: &str| {
            let ImageName {
                repository,
                tag,
                digest,
            } = ImageName::taken_apart(text);
            format!("{repository} {tag:?} {digest:?}")
        };
        for (text, expected) in [
            ("a", "a None None"),
            ("a:1", "a Some(\"1\") None"),
            ("r:5000/a", "r:5000/a None None"),
            ("r:5000/a:1@b:2@c", "r:5000/a Some(\"1\") Some(\"b:2@c\")"),
        ] {
            assert_eq!(parts(text), expected, "{text}");
        }
        let sum = "0".repeat(64);
        for digest in [
            format!("sha256:{sum}0"),
            format!("sha384:{sum}"),
            format!("sha512:{sum}"),
            sum,
        ] {
            let expected = Err(ImageNameFault::Digest(digest.clone()));
            assert_eq!(ImageName::parse(&format!("a@{digest}")), expected);
        }
    }

    #[test]
    fn every_fault_says_what_to_write() {
        let (sum, long) = ("0".repeat(64), "a".repeat(256));
        let faults: String = [
            "https://registry.example.com/a",
            "docker://a",
            "nginx:",
            ":tag",
            "nginx:-a",
            "nginx:a+b",
            "nginx@",
            "nginx@sha256:00",
            &format!("nginx@sha256:{}", sum.replace('0', "A")),
            &format!("nginx@md5:{}", "0".repeat(32)),
            "nginx@sha256:0@sha256:0",
            "HTTPD",
            "team/App",
            "a//b",
            "a/",
            "/a",
            "a.-b",
            "a___b",
            "../a",
            "r_x.example.com/a",
            "r.example.com:/a",
            "r.example.com:5000x/a",
            "[::1]:5000/a",
            &sum,
            &long,
        ]
        .iter()
        .map(|text| match ImageName::parse(text) {
            Ok(_) => format!("{text}: taken\n"),
            Err(fault) => format!("{:.40}: {fault}\n", *text),
        })
        .collect();
        insta::assert_snapshot!(faults, @r#"
        https://registry.example.com/a: a name has no scheme: write what follows the "://"
        docker://a: a name has no scheme: write what follows the "://"
        nginx:: nothing follows the colon: write the tag, or leave the colon out for "latest"
        :tag: write a name of 1 to 255 letters before the tag
        nginx:-a: "-a" is no tag: write at most 128 letters, digits, '_', '.' and '-', beginning with none of the last two
        nginx:a+b: "a+b" is no tag: write at most 128 letters, digits, '_', '.' and '-', beginning with none of the last two
        nginx@: "" is no digest: write "sha256:" and 64 lower-case hexadecimal digits
        nginx@sha256:00: "sha256:00" is no digest: write "sha256:" and 64 lower-case hexadecimal digits
        nginx@sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAA: "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" is no digest: write "sha256:" and 64 lower-case hexadecimal digits
        nginx@md5:000000000000000000000000000000: "md5:00000000000000000000000000000000" is no digest: write "sha256:" and 64 lower-case hexadecimal digits
        nginx@sha256:0@sha256:0: "sha256:0@sha256:0" is no digest: write "sha256:" and 64 lower-case hexadecimal digits
        HTTPD: "HTTPD" is no part of a name: write lower-case letters and digits, with '.', '_' or '-' between them
        team/App: "App" is no part of a name: write lower-case letters and digits, with '.', '_' or '-' between them
        a//b: "" is no part of a name: write lower-case letters and digits, with '.', '_' or '-' between them
        a/: "" is no part of a name: write lower-case letters and digits, with '.', '_' or '-' between them
        /a: "" is no part of a name: write lower-case letters and digits, with '.', '_' or '-' between them
        a.-b: "a.-b" is no part of a name: write lower-case letters and digits, with '.', '_' or '-' between them
        a___b: "a___b" is no part of a name: write lower-case letters and digits, with '.', '_' or '-' between them
        ../a: ".." is no host of a registry: write one such as registry.example.com:5000
        r_x.example.com/a: "r_x.example.com" is no host of a registry: write one such as registry.example.com:5000
        r.example.com:/a: "r.example.com:" is no host of a registry: write one such as registry.example.com:5000
        r.example.com:5000x/a: "r.example.com:5000x" is no host of a registry: write one such as registry.example.com:5000
        [::1]:5000/a: "[::1]:5000" is no host of a registry: write one such as registry.example.com:5000
        0000000000000000000000000000000000000000: this is the id of an image: write its name
        aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: write a name of 1 to 255 letters before the tag
        "#);
    }
}
