//! What another machine on the host's network reaches, with routes over the host to the ranges of
//! pods and Services, while the host's own firewall accepts queries.

use crate::{
    manifest::{APP, deployment, service},
    support::{Answer, SOON, Site, eventually, run},
};

/// Sends a query for the Service `web` to the cluster's DNS, and prints the length of the answer.
const QUERY: &str = r#"
    use IO::Socket::INET; $SIG{ALRM} = sub { exit 1 }; alarm 2;
    my $socket = IO::Socket::INET->new(PeerAddr => '10.96.0.10', PeerPort => 53, Proto => 'udp') or exit 1;
    my $name = join('', map { chr(length $_) . $_ } qw(web default svc cluster local));
    $socket->send(pack('n6', 7, 256, 1, 0, 0, 0) . $name . "\0\0\1\0\1");
    $socket->recv(my $answer, 1000) // exit 1; print length $answer;"#;

/// A site with a Service behind a NodePort, and a neighbour with routes.
fn site(more: &str) -> Site {
    let mut site = Site::started(more);
    let web = format!("{}---\n{}", deployment("web", 1, APP), service("web"));
    site.deploy(&[("web.yaml", &web)]);
    for range in ["10.244.0.0/16", "10.96.0.0/16"] {
        let address = site.host.address.to_string();
        let route = ["ip", "route", "replace", range, "via", &address];
        site.host.network.exec(&route).ok();
    }
    let accept = "iptables -C INPUT -p udp --dport 53 -j ACCEPT 2>/dev/null || \
                  iptables -A INPUT -p udp --dport 53 -j ACCEPT";
    site.host.exec(&["sh", "-c", accept]).ok();
    site
}

/// Which parts answer the neighbour.
fn reached(site: &Site) -> Vec<&'static str> {
    let pod = site
        .addresses()
        .into_iter()
        .find(|(name, _)| name.starts_with("web-"));
    let pod = format!("http://{}:8080/", pod.expect("a pod of web").1);
    let service = site.get("service", "web")["spec"]["clusterIP"].clone();
    let service = format!("http://{}/", service.as_str().unwrap());
    let answers = |url: &str| {
        let mut curl = site.host.network.command();
        let outcome = run(curl.args([
            "curl",
            "-sS",
            "--max-time",
            "2",
            "-w",
            "\n%{http_code}",
            url,
        ]));
        Answer::of(&outcome).is_some_and(|answer| answer.status == 200)
    };
    let dns = site.host.network.exec(&["perl", "-e", QUERY]).success();
    let parts = [
        ("dns", dns),
        ("pods", answers(&pod)),
        ("services", answers(&service)),
    ];
    let reached = parts.into_iter().filter(|(_, answers)| *answers);
    reached.map(|(part, _)| part).collect()
}

fn notes(site: &Site) -> String {
    site.status()["notes"].to_string()
}

#[test]
fn a_neighbour_reaches_node_ports_and_what_the_configuration_opens() {
    let mut site = site("");
    site.wait_answer("/", "app 1 web-");
    assert_eq!(reached(&site), [""; 0]);
    assert!(!notes(&site).contains("expose"), "{}", notes(&site));

    site.stop();
    site.configure("[network]\nexpose = ['dns', 'pods', 'services']");
    site.start();
    eventually(SOON, "everything is open", || {
        reached(&site) == ["dns", "pods", "services"]
    });
}

#[test]
fn an_installation_from_before_stays_open_and_names_its_neighbours_until_the_setting_is_written() {
    let short = "[rollout]\nresync = '1s'";
    let mut site = site(short);
    let containers = site.running();
    site.stop();
    // As a version without the setting leaves it.
    site.host
        .exec(&["rm", "/var/lib/windlass/exposure.json"])
        .ok();
    site.start();
    eventually(SOON, "everything is open", || {
        reached(&site) == ["dns", "pods", "services"]
    });
    assert_eq!(
        site.running(),
        containers,
        "an upgrade restarts no container"
    );
    let neighbour = crate::support::GATEWAY.to_string();
    eventually(SOON, "status names the neighbour", || {
        notes(&site).contains(&format!("{neighbour} ("))
    });
    let doctor = site.windlass(&["doctor"]).stdout;
    let line = doctor.lines().find(|line| line.contains("exposure"));
    let line = line.unwrap_or_else(|| panic!("{doctor}"));
    assert!(
        line.contains("warn") && line.contains(&neighbour),
        "{doctor}"
    );

    site.stop();
    site.configure(&format!("{short}\n[network]\nexpose = []"));
    site.start();
    site.wait_converged();
    eventually(SOON, "everything is closed", || reached(&site).is_empty());
    assert!(!notes(&site).contains(&neighbour), "{}", notes(&site));
    site.wait_answer("/", "app 1 web-");
    assert_eq!(site.running(), containers);
}
