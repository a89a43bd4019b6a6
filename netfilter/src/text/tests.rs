use reconciler::network::ServiceTable;

use super::*;
use crate::table::tests::{backends, host, virtual_port};

fn ruleset(services: &[(&str, &[&str])]) -> Ruleset {
    let mut table = ServiceTable::default();
    for (port, endpoints) in services {
        table.cluster_ips.insert(virtual_port(port), backends(endpoints));
    }
    Ruleset::of(&host(), &table)
}

#[test]
fn a_new_endpoint_is_a_few_elements() {
    let old = ruleset(&[("10.96.0.1:80", &["10.244.1.2:80"]), ("10.96.0.2:80", &["10.244.1.9:80"])]);
    let new = ruleset(&[
        ("10.96.0.1:80", &["10.244.1.2:80", "10.244.1.3:80"]),
        ("10.96.0.2:80", &["10.244.1.9:80"]),
    ]);
    insta::assert_snapshot!(difference(&old, &new).0, @"");
}

#[test]
fn a_service_that_loses_its_last_endpoint_is_refused_and_its_chain_goes() {
    let old = ruleset(&[("10.96.0.1:80", &["10.244.1.2:80"])]);
    let new = ruleset(&[("10.96.0.1:80", &[])]);
    insta::assert_snapshot!(difference(&old, &new).0, @"");
}

#[test]
fn equal_content_is_no_text() {
    let same = ruleset(&[("10.96.0.1:80", &["10.244.1.2:80"])]);
    assert_eq!(difference(&same, &same), (String::new(), Count::default()));
}

#[test]
fn the_whole_table_of_an_idle_host() {
    insta::assert_snapshot!(replace(&ruleset(&[])).0, @"");
}

#[test]
fn a_listing_is_compared_by_elements_and_counts_of_rules() {
    let mut wanted = Ruleset::default();
    wanted.sets.insert("ports".to_owned(), String::new());
    wanted.elements.insert(
        "ports".to_owned(),
        [("tcp . 80".to_owned(), "goto a".to_owned()), ("udp . 53".to_owned(), "goto a".to_owned())].into(),
    );
    let chain = Chain { hook: None, rules: vec!["accept".to_owned(), "drop".to_owned()] };
    wanted.chains.insert("a".to_owned(), chain);
    let listing = "table ip windlass {\n\tmap ports {\n\t\ttype inet_proto . inet_service : verdict\n\
                   \t\telements = { 6 . 80 : goto a,\n\t\t\t     17 . 53 : goto a }\n\t}\n\n\
                   \tchain a {\n\t\taccept\n\t\tdrop\n\t}\n}\n";
    assert!(matches(&wanted, listing));
    assert!(!matches(&wanted, &listing.replace("17 . 53", "17 . 54")), "another element");
    assert!(!matches(&wanted, &listing.replace("\t\tdrop\n", "")), "a rule is gone");
    assert!(!matches(&wanted, ""), "the table is gone");
}
