//! Listings of arbitrary bytes, as any version of `nft`, or another program in its place, might
//! print them.

use proptest::prelude::*;

use super::*;
use crate::fuzz::Fuzz;

const WORDS: [&str; 12] = [
    "table ip windlass {\n",
    "\tmap cluster_ips {\n",
    "\tset local {\n",
    "\tchain pick-1 {\n",
    "\t\telements = { ",
    " }\n",
    "}\n",
    ", ",
    "\t\ttype ",
    "\n",
    "\t\tdnat to 10.244.1.2:53\n",
    " : goto pick-1",
];

/// The elements that the listing in the corpus contains.
fn ruleset() -> Ruleset {
    let text = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        pairs.collect::<BTreeMap<String, String>>()
    };
    let chain = |rule: &str| Chain {
        hook: None,
        rules: vec![rule.to_owned()],
    };
    let ports = text(&[
        ("tcp . 10.96.0.1 . 443", "goto pick-2"),
        ("udp . 10.96.0.10 . 53", "goto pick-1"),
    ]);
    Ruleset {
        sets: text(&[("cluster_ips", ""), ("local", "")]),
        chains: [("output", chain("vmap")), ("pick-1", chain("dnat"))]
            .map(|(name, chain)| (name.to_owned(), chain))
            .into(),
        elements: BTreeMap::from([("cluster_ips".to_owned(), ports)]),
    }
}

#[test]
fn a_listing_matches_only_if_it_has_all_names_and_values() {
    let wanted = ruleset();
    Fuzz::new("src/text/corpus", &WORDS).run(|bytes| {
        let listing = String::from_utf8_lossy(bytes);
        let read = Listing::read(&listing);
        let rules: usize = read.rules.values().sum();
        prop_assert!(rules + read.rules.len() + read.sets.len() <= listing.lines().count());
        let is_match = matches(&wanted, &listing);
        if is_match {
            let names = wanted.chains.keys().chain(wanted.sets.keys());
            let values = wanted.elements.values().flat_map(BTreeMap::values);
            for word in names.chain(values) {
                prop_assert!(
                    listing.contains(word.as_str()),
                    "{word} is not in the listing"
                );
            }
        }
        Ok(is_match)
    });
}
