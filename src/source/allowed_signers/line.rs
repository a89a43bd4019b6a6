//! One line of `allowed_signers`: principals, options, key.

use jiff::Timestamp;
use ssh_key::{Algorithm, PublicKey};

use super::{Moment, NotAllowed, error::SignerLineError, pattern, time};

/// What separates words, as in ssh-keygen. Other white space of Unicode would make two words of what
/// ssh-keygen reads as one, so that a principal or an option had another meaning there.
const SEPARATORS: [char; 2] = [' ', '\t'];

/// The principals, namespaces and times of a key.
#[derive(Debug)]
pub(super) struct Line {
    principals: String,
    options: Options,
}

/// A line with its key.
#[derive(Debug)]
pub(super) struct SignerEntry {
    pub(super) line: Line,
    pub(super) key: PublicKey,
    /// The key with its encoding in a signature.
    pub(super) blob: Vec<u8>,
}

#[derive(Debug, Default)]
struct Options {
    cert_authority: bool,
    namespaces: Option<String>,
    valid_after: Option<Timestamp>,
    valid_before: Option<Timestamp>,
}

impl Line {
    /// The principal that vouches in `namespace` at both moments.
    pub(super) fn allows(
        &self,
        namespace: &str,
        committed: Timestamp,
        now: Timestamp,
    ) -> Result<&str, NotAllowed> {
        let Options {
            cert_authority,
            namespaces,
            valid_after,
            valid_before,
        } = &self.options;
        if *cert_authority {
            return Err(NotAllowed::OnlyAuthority);
        }

        let principal = self.principal().ok_or(NotAllowed::NoPrincipal)?;
        if let Some(allowed) = namespaces
            && !pattern::list_matches(allowed, namespace)
        {
            return Err(NotAllowed::Namespace {
                allowed: allowed.clone(),
            });
        }
        for (at, moment) in [(Moment::CommitTime, committed), (Moment::FirstSight, now)] {
            if let Some(since) = valid_after
                && moment < *since
            {
                return Err(NotAllowed::NotYetValid {
                    principal: principal.to_owned(),
                    since: *since,
                    at,
                });
            }
            if let Some(until) = valid_before
                && moment > *until
            {
                return Err(NotAllowed::Expired {
                    principal: principal.to_owned(),
                    until: *until,
                    at,
                });
            }
        }
        Ok(principal)
    }

    /// The principal that counts as the signer. Git makes ssh-keygen verify with each principal of
    /// the line as the identity, so the first one that matches the line's own list is the signer.
    fn principal(&self) -> Option<&str> {
        self.principals
            .split(',')
            .filter(|pattern| !pattern.is_empty() && !pattern.starts_with('!'))
            .find(|pattern| pattern::list_matches(&self.principals, pattern))
    }
}

/// Parses one line; `None` for an empty one or a comment.
pub(super) fn parse(text: &str) -> Result<Option<SignerEntry>, SignerLineError> {
    // An editor may not show a control character, and ssh-keygen ends a line at a carriage return.
    if let Some(found) = text.chars().find(|c| c.is_control() && *c != '\t') {
        return Err(SignerLineError::ControlCharacter(found));
    }
    let text = text.trim_matches(SEPARATORS);
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let (principals, rest) = match text.strip_prefix('"') {
        Some(quoted) => quoted
            .split_once('"')
            .ok_or(SignerLineError::OpenPrincipals)?,
        None => text
            .split_once(SEPARATORS)
            .ok_or(SignerLineError::Incomplete)?,
    };
    if principals
        .split(',')
        .all(|pattern| pattern.trim_start_matches('!').is_empty())
    {
        return Err(SignerLineError::EmptyPrincipals);
    }
    let rest = rest.trim_start_matches(SEPARATORS);
    // A key type may be a principal too; only a key in base64 after it shows that the line has no
    // principal: every key in OpenSSH's format begins with `AAAA`, the length of its type's name.
    if starts_with_key(text) && rest.starts_with("AAAA") {
        return Err(SignerLineError::KeyFirst);
    }

    let (options, key) = if starts_with_key(rest) {
        ("", rest)
    } else {
        split_options(rest)
    };
    let options = parse_options(options)?;
    let key = parse_key(key.trim_start_matches(SEPARATORS))?;
    let blob = key.to_bytes().map_err(SignerLineError::Encode)?;
    Ok(Some(SignerEntry {
        line: Line {
            principals: principals.to_owned(),
            options,
        },
        key,
        blob,
    }))
}

fn starts_with_key(text: &str) -> bool {
    let word = words(text).next().unwrap_or_default();
    !word.contains(['=', ','])
        && (word.starts_with("ssh-") || word.starts_with("ecdsa-") || word.starts_with("sk-"))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(SEPARATORS).filter(|word| !word.is_empty())
}

fn parse_key(text: &str) -> Result<PublicKey, SignerLineError> {
    let mut words = words(text);
    let (Some(kind), Some(blob)) = (words.next(), words.next()) else {
        return Err(SignerLineError::NoKey);
    };
    if kind.contains("-cert-") {
        return Err(SignerLineError::Certificate(kind.to_owned()));
    }
    if matches!(kind.parse::<Algorithm>(), Err(_) | Ok(Algorithm::Other(_))) {
        return Err(SignerLineError::UnknownKeyType(kind.to_owned()));
    }

    PublicKey::from_openssh(&format!("{kind} {blob}")).map_err(|error| SignerLineError::Key {
        kind: kind.to_owned(),
        error,
    })
}

/// Splits at the first separator that is not inside quotes, as OpenSSH does for options.
fn split_options(text: &str) -> (&str, &str) {
    let mut quoted = false;
    let mut escaped = false;
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            c if SEPARATORS.contains(&c) && !quoted => return text.split_at(index),
            _ => {}
        }
    }
    (text, "")
}

fn parse_options(mut text: &str) -> Result<Options, SignerLineError> {
    let mut options = Options::default();
    while !text.is_empty() {
        let end = text.find(['=', ',']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let (value, rest) = match rest.strip_prefix('=') {
            Some(rest) => parse_value(name, rest).map(|(value, rest)| (Some(value), rest))?,
            None => (None, rest),
        };
        set_option(&mut options, name, value)?;
        text = match rest.strip_prefix(',') {
            Some("") => return Err(SignerLineError::TrailingComma),
            Some(rest) => rest,
            None if rest.is_empty() => rest,
            None => return Err(SignerLineError::NoComma(name.to_owned())),
        };
    }
    if let (Some(after), Some(before)) = (options.valid_after, options.valid_before)
        && before <= after
    {
        return Err(SignerLineError::NeverValid);
    }
    Ok(options)
}

fn parse_value<'a>(name: &str, text: &'a str) -> Result<(String, &'a str), SignerLineError> {
    let quoted = text
        .strip_prefix('"')
        .ok_or_else(|| SignerLineError::Unquoted(name.to_owned()))?;

    let mut value = String::new();
    let mut escaped = false;
    for (index, c) in quoted.char_indices() {
        match c {
            '"' if !escaped => return Ok((value, &quoted[index + 1..])),
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            // Only a quote can be escaped; any other backslash stands for itself.
            '"' => value.push('"'),
            c => {
                if escaped {
                    value.push('\\');
                }
                value.push(c);
            }
        }
        escaped = false;
    }
    Err(SignerLineError::OpenValue(name.to_owned()))
}

fn set_option(
    options: &mut Options,
    name: &str,
    value: Option<String>,
) -> Result<(), SignerLineError> {
    let Options {
        cert_authority,
        namespaces,
        valid_after,
        valid_before,
    } = options;
    let twice = || SignerLineError::Repeated(name.to_owned());
    match (name.to_ascii_lowercase().as_str(), value) {
        ("cert-authority", None) => *cert_authority = true,
        ("namespaces", Some(list)) => {
            if namespaces.replace(list).is_some() {
                return Err(twice());
            }
        }
        ("valid-after", Some(text)) => {
            if valid_after.replace(time::parse(&text)?).is_some() {
                return Err(twice());
            }
        }
        ("valid-before", Some(text)) => {
            if valid_before.replace(time::parse(&text)?).is_some() {
                return Err(twice());
            }
        }
        ("cert-authority", Some(_)) => return Err(SignerLineError::ValueOfCertAuthority),
        ("namespaces" | "valid-after" | "valid-before", None) => {
            return Err(SignerLineError::NoValue(name.to_owned()));
        }
        _ => return Err(SignerLineError::UnknownOption(name.to_owned())),
    }
    Ok(())
}
