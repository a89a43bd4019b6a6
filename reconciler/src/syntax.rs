//! The syntax of Kubernetes' names, labels, keys and paths. The error of each rule describes the
//! valid form.

type Rule = Result<(), &'static str>;

fn rule(holds: bool, words: &'static str) -> Rule {
    if holds { Ok(()) } else { Err(words) }
}

/// RFC 1123 label: names of containers, volumes, namespaces.
pub(crate) fn label(text: &str) -> Rule {
    rule(
        is_label(text),
        "at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit",
    )
}

/// RFC 1123 subdomain: names of most objects.
pub(crate) fn subdomain(text: &str) -> Rule {
    rule(
        is_subdomain(text),
        "at most 253 lower-case letters, digits, '-' and '.', each part beginning and ending with a letter or digit",
    )
}

/// RFC 1035 label: names of Services.
pub(crate) fn service_name(text: &str) -> Rule {
    rule(
        is_label(text) && text.starts_with(|first: char| first.is_ascii_lowercase()),
        "at most 63 lower-case letters, digits and '-', beginning with a letter and ending with a letter or digit",
    )
}

/// Keys of labels, annotations, selectors and taints.
pub(crate) fn qualified_name(text: &str) -> Rule {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    rule(
        prefix.is_none_or(is_subdomain) && is_label_text(name),
        "at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit, after an optional domain and '/'",
    )
}

/// Keys of annotations, whose prefix before the '/' may contain upper-case letters.
pub(crate) fn annotation_key(text: &str) -> Rule {
    qualified_name(&text.to_ascii_lowercase())
}

/// Values of labels.
pub(crate) fn label_value(text: &str) -> Rule {
    rule(
        text.is_empty() || is_label_text(text),
        "at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
    )
}

/// Keys of ConfigMaps and Secrets, which become file names.
pub(crate) fn config_key(text: &str) -> Rule {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    rule(
        text.len() <= 253 && text.bytes().all(allowed) && text != "." && !text.starts_with(".."),
        "at most 253 letters, digits, '-', '_' and '.', and not begin with \"..\"",
    )
}

/// Names of container ports, and of the ports of Services that refer to them.
pub(crate) fn port_name(text: &str) -> Rule {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    rule(
        text.len() <= 15
            && text.bytes().all(allowed)
            && text.bytes().any(|byte| byte.is_ascii_lowercase())
            && !text.starts_with('-')
            && !text.ends_with('-')
            && !text.contains("--"),
        "at most 15 lower-case letters, digits and single '-', at least one of them a letter",
    )
}

/// Names of environment variables.
pub(crate) fn env_name(text: &str) -> Rule {
    rule(
        text.bytes()
            .all(|byte| matches!(byte, b' '..=b'~') && byte != b'='),
        "printable ASCII without '='",
    )
}

/// Names of HTTP headers.
pub(crate) fn header_name(text: &str) -> Rule {
    rule(
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
        "letters, digits and '-'",
    )
}

/// Paths on the host or in a container.
pub(crate) fn absolute_path(text: &str) -> Rule {
    rule(
        text.starts_with('/') && !text.contains('\0'),
        "an absolute path",
    )
}

/// The working directory of a container. The API server of Kubernetes accepts a relative path, but
/// no runtime starts the container: the OCI runtime specification requires an absolute `cwd`.
pub(crate) fn working_directory(text: &str) -> Rule {
    rule(
        text.starts_with('/') && !text.contains('\0'),
        "an absolute path, since no container runtime starts a program in a relative one",
    )
}

/// Paths within a volume.
pub(crate) fn relative_path(text: &str) -> Rule {
    rule(
        !text.starts_with('/') && !text.contains('\0') && text.split('/').all(|part| part != ".."),
        "a relative path without \"..\"",
    )
}

/// Search domains, which may contain '_' too.
pub(crate) fn search_domain(text: &str) -> Rule {
    rule(
        is_subdomain(&text.replace('_', "a")),
        "a domain of lower-case letters, digits, '-', '_' and '.'",
    )
}

/// One word of a configuration line.
pub(crate) fn word(text: &str) -> Rule {
    rule(
        text.bytes().all(|byte| byte.is_ascii_graphic()),
        "one word of printable ASCII",
    )
}

/// References to images, as far as they can be checked without a registry.
pub(crate) fn image(text: &str) -> Rule {
    let name = text.split('@').next().unwrap_or(text);
    let repository = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    };
    // The registry's host may contain upper-case letters, the path may not.
    let path = repository
        .split_once('/')
        .map_or(repository, |(_, path)| path);
    rule(
        text.bytes().all(|byte| byte.is_ascii_graphic())
            && !repository.is_empty()
            && !path.bytes().any(|byte| byte.is_ascii_uppercase()),
        "an image reference such as registry.example.com/team/name:tag, the name in lower case",
    )
}

fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_subdomain_part(text)
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_subdomain_part)
}

fn is_subdomain_part(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(allowed) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_label_text(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.len() <= 63
        && edge(text.as_bytes().first())
        && edge(text.as_bytes().last())
        && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_what_is_none() {
        for good in ["a", "web-1", "a.b-c.d"] {
            assert_eq!(subdomain(good), Ok(()), "{good}");
        }
        for bad in ["A", "-a", "a-", "a..b", "a_b", "", "ä"] {
            assert!(subdomain(bad).is_err(), "{bad}");
        }
        assert!(service_name("1web").is_err());
        assert_eq!(qualified_name("app.example.com/Name_1"), Ok(()));
        assert!(qualified_name("a/b/c").is_err());
        assert_eq!(label_value(""), Ok(()));
        assert!(label_value("a b").is_err());
    }

    #[test]
    fn paths_and_images_are_told_from_what_is_none() {
        assert!(relative_path("a/../b").is_err());
        assert_eq!(relative_path("a/..b"), Ok(()));
        for good in [
            "httpd",
            "Registry.example:5000/a/b:V1.0-SNAPSHOT",
            "a@sha256:00",
        ] {
            assert_eq!(image(good), Ok(()), "{good}");
        }
        for bad in ["HTTPD", "a b", ":tag", "registry/Name"] {
            assert!(image(bad).is_err(), "{bad}");
        }
    }

    /// A rule with texts that it accepts and texts that it refuses.
    type Case = (
        fn(&str) -> Rule,
        &'static [&'static str],
        &'static [&'static str],
    );

    #[test]
    fn each_rule_accepts_and_refuses_what_its_kubernetes_rule_does() {
        const RULES: &[Case] = &[
            (
                label,
                &["a", "1", "a-1"],
                &["", "A", "-a", "a-", "a.b", "a_b"],
            ),
            (
                service_name,
                &["a", "a-1"],
                &["", "1a", "A", "-a", "a-", "a.b"],
            ),
            (
                qualified_name,
                &["A", "a.b/A_1.c-d", "1"],
                &[
                    "", "/a", "a/", "A/a", "a_b/c", "a/b/c", "-a", "a-", ".a", "a.", "a b", "ä",
                ],
            ),
            (
                annotation_key,
                &["Example.com/B", "b"],
                &["a_b/c", "/a", "a b"],
            ),
            (
                label_value,
                &["", "a", "1", "A_b.c-d"],
                &["-a", "a-", "_a", "a_", ".a", "a.", "a b", "ä"],
            ),
            (
                config_key,
                &[".a", "a..", "A_b-1.c"],
                &[".", "..", "..a", "...", "a/b", "a b", "ä"],
            ),
            (
                port_name,
                &["http", "a-1", "1a", "a-b-c"],
                &["", "1", "1-2", "-a", "a-", "a--b", "A", "a_b", "a.b"],
            ),
            (
                env_name,
                &["A B", "a~!", "1"],
                &["A=B", "ä", "\t", "\u{7f}"],
            ),
            (header_name, &["X-A1", "1"], &["a b", "a_b", "a:"]),
            (
                absolute_path,
                &["/", "/a"],
                &["", "a", "a/b", "/a\0", "a\0"],
            ),
            (
                working_directory,
                &["/", "/a"],
                &["", "a", "a/b", "/a\0", "a\0"],
            ),
            (
                relative_path,
                &["", "a", "a/b", "..a", "a/..b", "."],
                &["/a", "/", "..", "../a", "a/..", "a/../b", "a\0", "\0"],
            ),
            (
                search_domain,
                &["a", "_tcp.a", "a_b.c-d"],
                &["", "A", "a..b", "-a", "a b"],
            ),
            (word, &["a", "!~"], &["a b", "ä", "a\n", "\u{7f}"]),
            (
                image,
                &[
                    "a",
                    "a:V1",
                    "Host:5000/a",
                    "Host/a:V1",
                    "Host:5000/a@sha256:AA",
                    "a:V@x",
                ],
                &[
                    "",
                    "A",
                    ":a",
                    "@a",
                    "a\n",
                    "ä",
                    "Host/A",
                    "Host:5000/A",
                    "Host:5000/A:a",
                ],
            ),
        ];
        for (number, (rule, accepted, refused)) in RULES.iter().enumerate() {
            for text in *accepted {
                assert_eq!(rule(text), Ok(()), "rule {number}: {text:?}");
            }
            for text in *refused {
                assert!(rule(text).is_err(), "rule {number}: {text:?}");
            }
        }
    }

    #[test]
    fn names_are_bounded_in_length() {
        let is_bounded = |rule: fn(&str) -> Rule, most: usize| {
            rule(&"a".repeat(most)).is_ok() && rule(&"a".repeat(most + 1)).is_err()
        };
        assert!(is_bounded(label, 63));
        assert!(is_bounded(label_value, 63));
        assert!(is_bounded(subdomain, 253));
        assert!(is_bounded(service_name, 63));
        assert!(is_bounded(qualified_name, 63));
        assert!(is_bounded(search_domain, 253));
        assert!(is_bounded(port_name, 15));
        assert!(is_bounded(config_key, 253));
    }
}
