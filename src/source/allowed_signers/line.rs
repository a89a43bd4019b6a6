//! One line of `allowed_signers`: principals, options, key.

use jiff::Timestamp;
use ssh_key::{Algorithm, PublicKey};

use super::{Moment, NotAllowed, pattern, time};

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
            .as_ref()
            .filter(|list| !pattern::list_matches(list, namespace))
        {
            return Err(NotAllowed::Namespace {
                allowed: allowed.clone(),
            });
        }
        for (at, moment) in [(Moment::CommitTime, committed), (Moment::FirstSight, now)] {
            if let Some(since) = valid_after.filter(|since| moment < *since) {
                return Err(NotAllowed::NotYetValid {
                    principal: principal.to_owned(),
                    since,
                    at,
                });
            }
            if let Some(until) = valid_before.filter(|until| moment > *until) {
                return Err(NotAllowed::Expired {
                    principal: principal.to_owned(),
                    until,
                    at,
                });
            }
        }
        Ok(principal)
    }

    /// The principal that counts as the signer. Git makes ssh-keygen verify with each principal of
    /// the line as the identity, so the first one that matches the line's own list is the signer.
    fn principal(&self) -> Option<&str> {
        let positive = self
            .principals
            .split(',')
            .filter(|pattern| !pattern.starts_with('!'));
        positive
            .into_iter()
            .find(|pattern| !pattern.is_empty() && pattern::list_matches(&self.principals, pattern))
    }
}

/// Parses one line; `None` for an empty one or a comment.
pub(super) fn parse(text: &str) -> Result<Option<SignerEntry>, String> {
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let (principals, rest) = match text.strip_prefix('"') {
        Some(quoted) => quoted
            .split_once('"')
            .ok_or("the quoted principals do not end")?,
        None => text
            .split_once(char::is_whitespace)
            .ok_or("expected: principals [options] key-type key")?,
    };
    if principals
        .split(',')
        .all(|pattern| pattern.trim_start_matches('!').is_empty())
    {
        return Err("no principal before the key".to_owned());
    }
    let rest = rest.trim_start();
    if starts_with_key(text) && rest.starts_with("AAAA") {
        return Err(
            "no principal before the key; begin the line with who it belongs to, as in dev@example.com"
                .to_owned(),
        );
    }
    let (options, key) = if starts_with_key(rest) {
        ("", rest)
    } else {
        split_options(rest)
    };
    let options = parse_options(options)?;
    let key = parse_key(key.trim_start())?;
    let blob = key
        .to_bytes()
        .map_err(|error| format!("the key does not encode again ({error})"))?;
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
    let word = text.split_whitespace().next().unwrap_or_default();
    !word.contains(['=', ','])
        && (word.starts_with("ssh-") || word.starts_with("ecdsa-") || word.starts_with("sk-"))
}

fn parse_key(text: &str) -> Result<PublicKey, String> {
    let mut words = text.split_whitespace();
    let (Some(kind), Some(blob)) = (words.next(), words.next()) else {
        return Err("expected a key type and a key, as in an .pub file".to_owned());
    };
    if kind.contains("-cert-") {
        return Err(format!(
            "{kind} is a certificate; list its authority's key with the option cert-authority"
        ));
    }
    if matches!(kind.parse::<Algorithm>(), Err(_) | Ok(Algorithm::Other(_))) {
        return Err(format!("{kind:?} is no option and no key type known here"));
    }
    PublicKey::from_openssh(&format!("{kind} {blob}")).map_err(|error| {
        format!("the {kind} key does not parse ({error}); copy it whole from the .pub file")
    })
}

/// Splits at the first white space that is not inside quotes, as OpenSSH does for options.
fn split_options(text: &str) -> (&str, &str) {
    let mut quoted = false;
    let mut escaped = false;
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => return text.split_at(index),
            _ => {}
        }
    }
    (text, "")
}

fn parse_options(mut text: &str) -> Result<Options, String> {
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
            Some("") => return Err("the options end in a comma".to_owned()),
            Some(rest) => rest,
            None if rest.is_empty() => rest,
            None => return Err(format!("expected a comma after the option {name}")),
        };
    }
    if let (Some(after), Some(before)) = (options.valid_after, options.valid_before)
        && before <= after
    {
        return Err(
            "valid-before is not later than valid-after, so the key is never valid".to_owned(),
        );
    }
    Ok(options)
}

fn parse_value<'a>(name: &str, text: &'a str) -> Result<(String, &'a str), String> {
    let quoted = text
        .strip_prefix('"')
        .ok_or_else(|| format!("the value of {name} must be in double quotes"))?;
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
    Err(format!("the quotes of {name} do not end"))
}

fn set_option(options: &mut Options, name: &str, value: Option<String>) -> Result<(), String> {
    let Options {
        cert_authority,
        namespaces,
        valid_after,
        valid_before,
    } = options;
    let twice = || format!("the option {name} comes twice");
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
        ("cert-authority", Some(_)) => return Err("cert-authority takes no value".to_owned()),
        ("namespaces" | "valid-after" | "valid-before", None) => {
            return Err(format!("the option {name} needs a value in double quotes"));
        }
        _ => {
            return Err(format!(
                "{name:?} is no option and no key type; options are cert-authority, namespaces, valid-after, \
                 valid-before"
            ));
        }
    }
    Ok(())
}
