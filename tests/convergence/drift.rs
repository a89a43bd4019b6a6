//! Drift on the host is repaired, and no other object is touched.

use crate::sample::application;
use crate::support::{Container, Site, pause_after, text};
use std::time::{Duration, Instant};

/// The deadline of a repair, far below the resync of an hour that one of the tests sets.
const REPAIR_DEADLINE: Duration = Duration::from_secs(30);

/// A host before one kind of damage, and the state that must not change.
struct Case<'a> {
    site: &'a mut Site,
    what: &'static str,
    metric: String,
    counted: f64,
    others: Vec<Container>,
    address: String,
}

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: other}
spec:
  containers: [{name: other, image: 'windlass-test/app:1'}]
";

/// A site with the sample, and with another pod, which is never damaged.
fn running() -> Site {
    let mut site = Site::new("[rollout]\nresync = '3s'\n");
    let web = application("web", "web", "one");
    let commit = site.push(&[("web.yaml", &web), ("other.yaml", POD)], "two pods");
    site.launch(&[]);
    site.wait_settled(&commit);
    site.wait_answer_inside("/", "web");
    site
}

fn others(site: &Site) -> Vec<Container> {
    site.containers()
        .into_iter()
        .filter(|container| container.pod == "other")
        .collect()
}

fn address(site: &Site) -> String {
    site.addresses()
        .into_iter()
        .find(|(name, _)| name.starts_with("web"))
        .unwrap()
        .1
}

fn sandbox(site: &Site) -> Container {
    site.containers()
        .into_iter()
        .find(|container| container.is_sandbox() && container.pod != "other")
        .unwrap()
}

impl<'a> Case<'a> {
    /// Reads the state before the damage. `cause` is a label of the drift metric, or `restart`.
    fn new(site: &'a mut Site, what: &'static str, cause: &str) -> Self {
        let metric = match cause {
            "restart" => "windlass_container_restarts_total".to_owned(),
            cause => format!("windlass_drift_repairs_total{{cause=\"{cause}\"}}"),
        };
        let (counted, others, address) = (
            site.find_metric(&metric).unwrap_or(0.0),
            others(site),
            address(site),
        );
        Case {
            site,
            what,
            metric,
            counted,
            others,
            address,
        }
    }

    /// Removes a container while the daemon is frozen: the daemon does not observe that the
    /// container has ended, only that it does not exist any more.
    fn remove_unobserved(&mut self, container: &Container) {
        self.site.daemon().signal("STOP");
        self.site.host.docker(&["rm", "-f", &container.id]);
        self.site.daemon().signal("CONT");
    }

    /// Waits until the damage is repaired and counted, and checks that everything else is
    /// unchanged.
    #[track_caller]
    fn wait_repaired(self, mut condition: impl FnMut(&Site) -> bool) {
        let start = Instant::now();
        loop {
            let check = Instant::now();
            let (counted, done) = (
                self.site.find_metric(&self.metric).unwrap_or(0.0),
                condition(self.site),
            );
            if counted > self.counted && done {
                break;
            }
            assert!(
                start.elapsed() < REPAIR_DEADLINE,
                "{}: counted before {}, now {counted}; repaired: {done}; containers: {:#?}",
                self.what,
                self.counted,
                self.site.containers()
            );
            pause_after(check);
        }
        eprintln!("{}: repaired after {:?}", self.what, start.elapsed());
        self.site.wait_converged();
        self.site.wait_answer_inside("/", "web");
        self.site.wait_answer_inside("/notes/note", "one");
        assert_eq!(
            others(self.site),
            self.others,
            "{}: another pod was touched",
            self.what
        );
        assert_eq!(
            address(self.site),
            self.address,
            "{}: the pod has another address",
            self.what
        );
        self.site.assert_state_files();
    }
}

/// Whether a container of the sample other than `old` runs.
fn replaced(site: &Site, old: &Container) -> bool {
    let containers = site.containers();
    let mut apps = containers
        .iter()
        .filter(|container| container.name == "app");
    apps.any(|container| container.id != old.id && container.is_running())
}

#[test]
fn containers_that_were_killed_removed_or_paused_run_again() {
    let mut site = running();

    let app = site.only_container("app");
    let case = Case::new(&mut site, "a container is killed", "restart");
    case.site.host.docker(&["kill", &app.id]);
    case.wait_repaired(|site| replaced(site, &app));

    let app = newest(&site);
    let mut case = Case::new(&mut site, "a container is removed", "container_removed");
    case.remove_unobserved(&app);
    case.wait_repaired(|site| replaced(site, &app));

    let app = newest(&site);
    let case = Case::new(&mut site, "a container is paused", "container_paused");
    case.site.host.docker(&["pause", &app.id]);
    case.wait_repaired(|site| newest(site) == app);

    let holder = sandbox(&site);
    let case = Case::new(&mut site, "a sandbox is paused", "container_paused");
    case.site.host.docker(&["pause", &holder.id]);
    case.wait_repaired(|site| sandbox(site) == holder);
}

/// The sample's newest container.
fn newest(site: &Site) -> Container {
    let apps = site
        .containers()
        .into_iter()
        .filter(|container| container.name == "app");
    apps.max_by_key(|container| container.attempt).unwrap()
}

#[test]
fn a_pod_whose_sandbox_is_gone_is_started_again_with_its_address() {
    let mut site = running();
    for (what, command) in [
        ("a sandbox is killed", ["kill", "-sKILL"]),
        ("a sandbox is removed", ["rm", "-f"]),
    ] {
        let (old, app) = (sandbox(&site), newest(&site));
        let case = Case::new(&mut site, what, "sandbox_gone");
        case.site.host.docker(&[command[0], command[1], &old.id]);
        case.wait_repaired(|site| replaced(site, &app));
        assert_ne!(sandbox(&site).id, old.id);
        site.assert_exactly(2, 4);
    }
}

#[test]
fn a_foreign_container_with_the_name_of_the_next_attempt_is_not_touched_and_blocks_nothing() {
    let mut site = running();
    let app = site.only_container("app");
    let name = text(&site.host.inspect(&app.id)["Name"]);
    let stem = name
        .trim_start_matches('/')
        .strip_suffix("_0")
        .unwrap()
        .to_owned();
    let foreign = site
        .host
        .docker(&["create", "--name", &format!("{stem}_1"), "busybox", "true"]);
    let mut case = Case::new(
        &mut site,
        "a foreign container has the name of the next attempt",
        "container_removed",
    );
    case.remove_unobserved(&app);
    case.wait_repaired(|site| replaced(site, &app));
    assert_eq!(
        site.host.inspect(&foreign)["State"]["Status"],
        "created",
        "the foreign container was touched"
    );
    site.host.docker(&["rm", &foreign]);
    site.assert_exactly(2, 4);
}

#[test]
fn a_deleted_link_is_restored_before_the_next_resync() {
    let mut site = running();
    assert!(site.take_daemon().stop().success());
    site.configure("[rollout]\nresync = '1h'\n");
    site.launch(&[]);
    site.wait_converged();
    // The second deletion comes so soon after the first that the daemon delays its check.
    for _ in 0..2 {
        let case = Case::new(&mut site, "windlass0 is deleted", "other");
        case.site
            .host
            .exec(&["ip", "link", "del", "windlass0"])
            .ok();
        case.wait_repaired(|site| !site.routes().is_empty());
        site.assert_exactly(2, 4);
    }
}

#[test]
fn rules_links_and_routes_of_the_host_are_restored() {
    let mut site = running();
    let link = |site: &Site| {
        let address = address(site);
        let routes = site.routes();
        let route = routes
            .iter()
            .find(|route| route.starts_with(&format!("{address} ")))
            .unwrap()
            .clone();
        route
            .split_whitespace()
            .skip_while(|word| *word != "dev")
            .nth(1)
            .unwrap()
            .to_owned()
    };
    let (pod, name) = (address(&site), link(&site));
    let dns = "10.96.0.10";
    let cases: [(&str, &str, String); 11] = [
        (
            "the table is flushed",
            "service_table",
            "nft flush table ip windlass".into(),
        ),
        (
            "the table is deleted",
            "service_table",
            "nft delete table ip windlass".into(),
        ),
        (
            "a map is emptied",
            "service_table",
            "nft flush map ip windlass endpoints".into(),
        ),
        (
            "a pod's link is deleted",
            "link_gone",
            format!("ip link del {name}"),
        ),
        (
            "a pod's link is down",
            "link_gone",
            format!("ip link set {name} down"),
        ),
        (
            "a pod's route is deleted",
            "link_gone",
            format!("ip route del {pod}"),
        ),
        (
            "windlass0 is deleted",
            "other",
            "ip link del windlass0".into(),
        ),
        (
            "windlass0 has no address",
            "other",
            format!("ip addr del {dns}/32 dev windlass0"),
        ),
        (
            "the service route is deleted",
            "other",
            "ip route del 10.96.0.0/16".into(),
        ),
        (
            "forwarding is off",
            "other",
            "sysctl -qw net.ipv4.ip_forward=0".into(),
        ),
        (
            "the accept rules are gone",
            "other",
            "iptables -w -F DOCKER-USER".into(),
        ),
    ];
    let before = site.containers();
    let rules = |site: &Site| {
        site.host
            .exec(&["iptables-save", "-t", "filter"])
            .ok()
            .matches("windlass")
            .count()
    };
    let accept_rules = rules(&site);
    assert!(accept_rules > 0, "the host has no accept rules of Windlass");
    for (what, cause, damage) in cases {
        let case = Case::new(&mut site, what, cause);
        case.site.host.exec(&["sh", "-c", &damage]).ok();
        case.wait_repaired(|site| site.ask_inside("/").is_some());
        assert_eq!(site.containers(), before, "{what}: a container was touched");
        site.assert_exactly(2, 4);
        assert_eq!(rules(&site), accept_rules, "{what}");
        assert_eq!(
            site.host
                .exec(&["cat", "/proc/sys/net/ipv4/ip_forward"])
                .ok(),
            "1",
            "{what}"
        );
        let device = site
            .host
            .exec(&["ip", "-o", "addr", "show", "windlass0"])
            .ok();
        assert!(device.contains(dns), "{what}: {device}");
    }
}
