//! The table as text for `nft -f -`, whole or as a difference, and the parser for the output of
//! `nft list`.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::exposure::OutsideSource;
use crate::table::{Chain, Ruleset, TABLE};

/// Elements per command; nft is slow with very long lines.
const ELEMENTS_A_COMMAND: usize = 500;

/// How many elements a text adds and deletes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) added: usize,
    pub(crate) removed: usize,
}

/// The text that replaces the table, whatever its content, in one transaction.
pub(crate) fn replace(new: &Ruleset) -> (String, Count) {
    let mut text = format!("table ip {TABLE}\ndelete table ip {TABLE}\n");
    let (content, count) = difference(&Ruleset::default(), new);
    text.push_str(&format!("table ip {TABLE}\n"));
    text.push_str(&content);
    (text, count)
}

/// The text that changes one content into the other in one transaction; empty if they are equal.
///
/// The order matters: an object exists before the first reference to it, and is deleted after the
/// last one.
pub(crate) fn difference(old: &Ruleset, new: &Ruleset) -> (String, Count) {
    let mut text = String::new();
    let mut count = Count::default();

    // New sets and chains are declared, without elements and rules.
    for (_, declaration) in missing(&new.sets, &old.sets) {
        let (kind, rest) = declaration.split_once(' ').unwrap_or((declaration, ""));
        line(&mut text, format_args!("add {kind} ip {TABLE} {rest}"));
    }
    for (name, chain) in missing(&new.chains, &old.chains) {
        declare_chain(&mut text, name, chain);
    }

    // Changed sets and chains lose their old content. Rules refer to sets, and elements to chains
    // by their verdicts: with both gone, nothing refers to the objects that are deleted at the end.
    for (name, chain) in &old.chains {
        if new.chains.get(name) != Some(chain) {
            line(&mut text, format_args!("flush chain ip {TABLE} {name}"));
        }
    }
    for (set, elements) in &old.elements {
        let deleted: Vec<String> = elements
            .iter()
            .filter(|(key, value)| lookup(new, set, key) != Some(value))
            .map(|(key, _)| key.clone())
            .collect();
        count.removed += deleted.len();
        element_commands(&mut text, "delete", set, &deleted);
    }

    // New and changed sets and chains get their content.
    for (name, chain) in &new.chains {
        if old.chains.get(name) != Some(chain) {
            for rule in &chain.rules {
                line(&mut text, format_args!("add rule ip {TABLE} {name} {rule}"));
            }
        }
    }
    for (set, elements) in &new.elements {
        let added: Vec<String> = elements
            .iter()
            .filter(|(key, value)| lookup(old, set, key) != Some(value))
            .map(|(key, value)| element(key, value))
            .collect();
        count.added += added.len();
        element_commands(&mut text, "add", set, &added);
    }

    // Sets and chains that are not wanted any more have no reference left.
    for (name, _) in missing(&old.chains, &new.chains) {
        line(&mut text, format_args!("delete chain ip {TABLE} {name}"));
    }
    for (name, _) in missing(&old.sets, &new.sets) {
        line(&mut text, format_args!("delete set ip {TABLE} {name}"));
    }
    (text, count)
}

fn missing<'a, T>(
    from: &'a BTreeMap<String, T>,
    other: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = (&'a String, &'a T)> {
    from.iter().filter(|(name, _)| !other.contains_key(*name))
}

fn lookup<'a>(ruleset: &'a Ruleset, set: &str, key: &str) -> Option<&'a String> {
    ruleset.elements.get(set)?.get(key)
}

fn declare_chain(text: &mut String, name: &str, chain: &Chain) {
    match chain.hook {
        Some(hook) => {
            line(
                text,
                format_args!("add chain ip {TABLE} {name} {{ type {hook}; policy accept; }}"),
            );
        }
        None => line(text, format_args!("add chain ip {TABLE} {name}")),
    }
}

fn element(key: &str, value: &str) -> String {
    if value.is_empty() {
        key.to_owned()
    } else {
        format!("{key} : {value}")
    }
}

fn element_commands(text: &mut String, verb: &str, set: &str, elements: &[String]) {
    for chunk in elements.chunks(ELEMENTS_A_COMMAND) {
        line(
            text,
            format_args!("{verb} element ip {TABLE} {set} {{ {} }}", chunk.join(", ")),
        );
    }
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    let _ = writeln!(text, "{content}");
}

/// Whether a listing (`nft -p list table`) shows the committed content: every chain with its number
/// of rules, and every element. Rules are counted and not compared, because each version of nft
/// prints them in its own way.
pub(crate) fn matches(ruleset: &Ruleset, listing: &str) -> bool {
    let listed = Listing::read(listing);
    let rules: BTreeMap<&str, usize> = ruleset
        .chains
        .iter()
        .map(|(name, chain)| (name.as_str(), chain.rules.len()))
        .collect();
    let sets: BTreeSet<&str> = ruleset.sets.keys().map(String::as_str).collect();
    if rules != listed.rules || sets != listed.sets {
        return false;
    }

    let none = BTreeSet::new();
    ruleset.elements.iter().all(|(set, elements)| {
        let wanted: BTreeSet<String> = elements
            .iter()
            .map(|(key, value)| element(&numeric(key), value))
            .collect();
        wanted == *listed.elements.get(set.as_str()).unwrap_or(&none)
    })
}

/// The addresses and packet counts in a listing of the set of outside senders, those with the most
/// packets first.
pub(crate) fn counted_sources(listing: &str) -> Vec<OutsideSource> {
    let Some((_, elements)) = listing.split_once("elements = {") else {
        return Vec::new();
    };
    let (elements, _) = elements.split_once('}').unwrap_or((elements, ""));
    let mut sources: Vec<OutsideSource> = elements.split(',').filter_map(counted_source).collect();
    sources.sort_by_key(|source| (Reverse(source.packets), source.address));
    sources
}

/// `192.0.2.7 expires 23h59m1s counter packets 3 bytes 180`; the order of the words after the
/// address depends on the version of nft.
fn counted_source(element: &str) -> Option<OutsideSource> {
    let mut words = element.split_whitespace();
    let address = words.next()?.parse().ok()?;
    words.find(|word| *word == "packets")?;
    Some(OutsideSource {
        address,
        packets: words.next()?.parse().ok()?,
    })
}

/// A key with its protocol as a number, as `nft -p` prints it: the protocol's name would depend on
/// the host's /etc/protocols.
fn numeric(key: &str) -> String {
    let parts = key.split(" . ").map(|part| match part {
        "tcp" => "6",
        "udp" => "17",
        "sctp" => "132",
        other => other,
    });
    parts.collect::<Vec<_>>().join(" . ")
}

#[derive(Default)]
struct Listing<'a> {
    sets: BTreeSet<&'a str>,
    rules: BTreeMap<&'a str, usize>,
    elements: BTreeMap<&'a str, BTreeSet<String>>,
}

impl<'a> Listing<'a> {
    fn read(text: &'a str) -> Self {
        let mut listing = Self::default();
        let mut chain = None;
        let mut set = "";
        let mut in_elements = false;
        for content in text.lines().map(str::trim) {
            let mut words = content.split(' ');
            let first = words.next().unwrap_or_default();
            let second = words.next().unwrap_or_default();
            match (first, second) {
                ("table" | "" | "}", _) if !in_elements => chain = None,
                ("map" | "set", name) if chain.is_none() && content.ends_with('{') => {
                    set = name;
                    listing.sets.insert(name);
                }
                ("chain", name) if chain.is_none() => {
                    chain = Some(name);
                    listing.rules.insert(name, 0);
                }
                ("elements", "=") => {
                    in_elements =
                        listing.take_elements(set, content.trim_start_matches("elements = {"));
                }
                _ if in_elements => in_elements = listing.take_elements(set, content),
                // The type of a set, or type, hook and policy of a base chain.
                ("type", _) => {}
                // Any other line in a chain is a rule.
                _ => {
                    if let Some(count) = chain.and_then(|chain| listing.rules.get_mut(chain)) {
                        *count += 1;
                    }
                }
            }
        }
        listing
    }

    /// Reads the elements of one line; false at the last line.
    fn take_elements(&mut self, set: &'a str, content: &str) -> bool {
        let (elements, more) = match content.strip_suffix('}') {
            Some(last) => (last, false),
            None => (content, true),
        };
        let elements = elements
            .split(',')
            .map(str::trim)
            .filter(|element| !element.is_empty());
        self.elements
            .entry(set)
            .or_default()
            .extend(elements.map(str::to_owned));
        more
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
