//! An image name of a manifest, parsed as the engine parses it.

use reconciler::image_name::ImageName;

/// The parts of an image name, `name[:tag][@digest]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// The repository, with the registry's host where the manifest gives one.
    pub(crate) name: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// `None` if the text cannot be part of an API path of the engine. All other rules of names are
    /// the engine's to check.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_allowed =
            |letter: char| letter.is_ascii_alphanumeric() || "._-/:@+".contains(letter);
        let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
        if text.chars().all(is_allowed) && text.split('/').all(is_part) {
            Some(Self::taken_apart(text))
        } else {
            None
        }
    }

    fn taken_apart(text: &str) -> Self {
        let ImageName {
            repository,
            tag,
            digest,
        } = ImageName::taken_apart(text);
        Self {
            name: repository,
            tag,
            digest,
        }
    }

    /// The name with the digest or the tag: without a tag the engine would pull all tags.
    pub(crate) fn full(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}@{digest}", self.name),
            None => format!("{}:{}", self.name, self.version()),
        }
    }

    /// The digest, else the tag, else `latest`.
    pub(crate) fn version(&self) -> &str {
        self.digest
            .as_deref()
            .or(self.tag.as_deref())
            .unwrap_or("latest")
    }

    /// The host of the registry; `docker.io` where the name has none.
    pub(crate) fn host(&self) -> &str {
        // The rule of Docker: `team/name` is a repository of Docker Hub, and a first part with a dot
        // or a port is a host.
        match self.name.split_once('/') {
            Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
            _ => "docker.io",
        }
    }

    /// The name in the engine's short form: `docker.io/library/httpd` is `httpd`.
    pub(crate) fn familiar_name(&self) -> &str {
        let full = self.name.as_str();
        let on_hub = full.strip_prefix("index.docker.io/").unwrap_or(full);
        let path = on_hub.strip_prefix("docker.io/").unwrap_or(on_hub);
        path.strip_prefix("library/").unwrap_or(path)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn names_are_taken_apart_as_the_engine_does() {
        let cases = [
            ("httpd", "httpd:latest", "docker.io", "httpd"),
            ("httpd:2.4", "httpd:2.4", "docker.io", "httpd"),
            (
                "docker.io/library/httpd:2.4",
                "docker.io/library/httpd:2.4",
                "docker.io",
                "httpd",
            ),
            (
                "example/app",
                "example/app:latest",
                "docker.io",
                "example/app",
            ),
            (
                "r.example.com:5000/a/b",
                "r.example.com:5000/a/b:latest",
                "r.example.com:5000",
                "r.example.com:5000/a/b",
            ),
            ("localhost/x:1", "localhost/x:1", "localhost", "localhost/x"),
            ("httpd:2@sha256:ab", "httpd@sha256:ab", "docker.io", "httpd"),
        ];
        for (text, full, host, familiar) in cases {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(
                (
                    reference.full().as_str(),
                    reference.host(),
                    reference.familiar_name()
                ),
                (full, host, familiar)
            );
        }
    }

    #[test]
    fn what_would_change_an_address_is_no_name() {
        for text in ["", "a//b", "../containers", "a?b", "a b", "/a", "a/./b"] {
            assert_eq!(Reference::parse(text), None, "{text}");
        }
    }
}
