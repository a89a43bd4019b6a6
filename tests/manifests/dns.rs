//! DNS names in pods, with busybox' resolver and with the C library's.

use std::collections::BTreeSet;

use crate::world::{cluster_ip, in_large, in_small, pod_addresses, world};

/// The addresses of a name, by the C library's resolver.
fn addresses(name: &str) -> BTreeSet<String> {
    let output = in_large(&["getent", "ahostsv4", name]);
    output
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn services_resolve_by_short_and_by_full_names() {
    let web = BTreeSet::from([cluster_ip("web")]);
    for name in [
        "web",
        "web.default",
        "web.default.svc",
        "web.default.svc.cluster.local",
        "WEB.Default.svc",
    ] {
        assert_eq!(addresses(name), web, "{name}");
    }
    let other = addresses("web.other");
    assert_eq!(other.len(), 1);
    assert_ne!(
        other, web,
        "Services of two namespaces have the same address"
    );
    let page = in_small(&["wget", "-q", "-O", "-", "http://web/"]);
    assert!(page.starts_with("app 1 web-"), "{page}");
}

#[test]
fn a_headless_service_resolves_to_its_ready_pods_and_does_not_exist_without_them() {
    assert_eq!(addresses("each"), pod_addresses("web-"));
    assert_eq!(addresses("each").len(), 3);
    let none = in_small(&["nslookup", "each-of-none.default.svc.cluster.local"]);
    assert!(none.contains("NXDOMAIN"), "{none}");
}

#[test]
fn an_external_name_resolves_to_an_address_or_an_alias() {
    assert_eq!(
        addresses("elsewhere"),
        BTreeSet::from(["192.0.2.9".to_owned()])
    );
    assert_eq!(addresses("alias"), addresses("web.other"));
    let alias = in_small(&["nslookup", "alias.default.svc.cluster.local"]);
    assert!(
        alias.contains("canonical name = web.other.svc.cluster.local"),
        "{alias}"
    );
}

#[test]
fn a_query_for_a_type_that_a_name_does_not_have_is_not_answered_with_nxdomain() {
    // For an answer without records, busybox' nslookup prints only the server.
    let no_data = in_small(&["nslookup", "-type=aaaa", "web.default.svc.cluster.local"]);
    let only_server = ["Server:\t\t10.96.0.10", "Address:\t10.96.0.10:53"];
    assert_eq!(
        no_data
            .lines()
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>(),
        only_server
    );
    let no_name = in_small(&["nslookup", "-type=a", "nothing.default.svc.cluster.local"]);
    assert!(no_name.contains("NXDOMAIN"), "{no_name}");
    assert_eq!(addresses("nothing"), BTreeSet::new());
}

#[test]
fn addresses_of_services_resolve_to_names_and_pods_have_names_by_their_addresses() {
    let reverse = in_small(&["nslookup", &cluster_ip("web")]);
    assert!(
        reverse.contains("web.default.svc.cluster.local"),
        "{reverse}"
    );
    for pod in pod_addresses("web-") {
        let name = format!("{}.default.pod.cluster.local", pod.replace('.', "-"));
        assert_eq!(addresses(&name), BTreeSet::from([pod]), "{name}");
    }
    assert_eq!(
        addresses("kube-dns.kube-system.svc.cluster.local"),
        BTreeSet::from(["10.96.0.10".to_owned()])
    );
}

#[test]
fn resolv_conf_hosts_and_hostname_of_a_pod_follow_its_manifest() {
    let host_search: Vec<String> = std::fs::read_to_string("/etc/resolv.conf")
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("search "))
        .flat_map(str::split_whitespace)
        .map(|domain| format!(" {domain}"))
        .collect();
    let expected = format!(
        "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local cluster.local{}\noptions ndots:5",
        host_search.concat()
    );
    assert_eq!(in_small(&["cat", "/etc/resolv.conf"]), expected);
    let with_more = in_large(&["cat", "/etc/resolv.conf"]);
    assert!(
        with_more.contains("cluster.local") && with_more.contains(" example.com\n"),
        "{with_more}"
    );
    assert!(
        with_more.ends_with("options ndots:5 timeout:3"),
        "{with_more}"
    );

    assert_eq!(in_small(&["hostname"]), "small");
    assert_eq!(in_small(&["cat", "/etc/hostname"]), "small");
    assert_eq!(in_large(&["hostname"]), "big");
    let own = pod_addresses("large").into_iter().next().unwrap();
    let hosts = in_large(&["cat", "/etc/hosts"]);
    assert!(
        hosts.contains(&format!("{own}\tbig.each.default.svc.cluster.local\tbig\n")),
        "{hosts}"
    );
    assert!(hosts.contains("127.0.0.1\tlocalhost\n"), "{hosts}");
    assert!(hosts.ends_with("192.0.2.7\tseven\tsept"), "{hosts}");
    assert_eq!(addresses("sept"), BTreeSet::from(["192.0.2.7".to_owned()]));
    // The pod's own name resolves by its hosts file.
    assert_eq!(addresses("big"), BTreeSet::from([own]));
    assert_eq!(world().get("pod", "small")["spec"]["nodeName"], "node-1");
}
