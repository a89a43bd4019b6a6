//! What can be asked about a site's host: containers, objects, answers, metrics, files and links.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{NODE_PORT, SOON, Site};
use crate::support::daemon::DATA_DIR;
use crate::support::{Answer, Container, Outcome, eventually_some, run, text};

/// Where metrics and health are, inside the host.
const METRICS: &str = "http://127.0.0.1:9464/metrics";

/// Containers.
impl Site {
    /// All containers of the engine, whoever made them and whatever their state.
    #[track_caller]
    pub(crate) fn containers(&self) -> BTreeSet<Container> {
        self.host.containers()
    }

    /// Those that run.
    #[track_caller]
    pub(crate) fn running(&self) -> BTreeSet<Container> {
        let mut all = self.containers();
        all.retain(Container::is_running);
        all
    }

    /// Those that run, sandboxes too, of the pods whose names begin with this.
    #[track_caller]
    pub(crate) fn running_of(&self, pod: &str) -> BTreeSet<Container> {
        let mut all = self.running();
        all.retain(|one| one.pod.starts_with(pod));
        all
    }

    /// One that runs, and is no sandbox, of a pod whose name begins with this.
    #[track_caller]
    pub(crate) fn container(&self, pod: &str) -> Container {
        let mut all = self.running_of(pod).into_iter();
        all.find(|one| !one.is_sandbox())
            .unwrap_or_else(|| panic!("no container of {pod} runs"))
    }

    /// The one container of this name; panics with all of them when there is not just one.
    #[track_caller]
    pub(crate) fn one(&self, name: &str) -> Container {
        let all = self.containers();
        let mut named = all.iter().filter(|one| one.name == name);
        match (named.next(), named.next()) {
            (Some(one), None) => one.clone(),
            _ => panic!("not just one container named {name}: {all:#?}"),
        }
    }

    /// Runs a program in a running container of a pod whose name begins with this.
    #[track_caller]
    pub(crate) fn exec(&self, pod: &str, container: &str, args: &[&str]) -> Outcome {
        let mut all = self.running_of(pod).into_iter();
        let one = all
            .find(|one| one.name == container)
            .unwrap_or_else(|| panic!("no container {container} of {pod} runs"));
        self.host
            .try_docker(&[&["exec", one.id.as_str()], args].concat())
    }

    /// Fetches a URL from the network of a pod, with the pod's own resolv.conf and hosts.
    #[track_caller]
    pub(crate) fn fetch_from(&self, pod: &str, url: &str) -> Outcome {
        let container = self.container(pod);
        let format = ["inspect", "-f", "{{.State.Pid}}", &container.id];
        let process = self.host.docker(&format);
        // A file of another mount namespace cannot be bound: a copy can.
        let script = "for file in resolv.conf hosts; do
                cat /proc/$1/root/etc/$file >/run/pod-$file
                mount --bind /run/pod-$file /etc/$file || exit
            done
            exec curl -sS --max-time 5 $2";
        self.host.exec(&[
            "nsenter", "-t", &process, "--net", "unshare", "--mount", "sh", "-c", script, "sh",
            &process, url,
        ])
    }

    /// Checks that the host holds so many pods with so many containers in all, sandboxes counted,
    /// all running, and nothing else of anybody.
    #[track_caller]
    pub(crate) fn assert_exactly(&self, pods: usize, containers: usize) {
        self.assert_exactly_with_foreign(pods, containers, "");
    }

    /// The same, with one more container by id that is not the daemon's.
    #[track_caller]
    pub(crate) fn assert_exactly_with_foreign(
        &self,
        pods: usize,
        containers: usize,
        foreign: &str,
    ) {
        let mut all = self.containers();
        all.retain(|one| one.id != foreign);
        assert_eq!(all.len(), containers, "containers: {all:#?}");
        assert!(
            all.iter().all(Container::is_running),
            "not all run: {all:#?}"
        );
        let sandboxes = all.iter().filter(|one| one.is_sandbox()).count();
        assert_eq!(sandboxes, pods, "sandboxes: {all:#?}");

        assert_eq!(self.links().len(), pods, "links: {:?}", self.links());
        // One a pod, and that of the service range.
        assert_eq!(self.routes().len(), pods + 1, "routes: {:?}", self.routes());
        assert_eq!(
            self.pod_dirs().len(),
            pods,
            "directories: {:?}",
            self.pod_dirs()
        );
        assert_eq!(
            self.host.docker(&["volume", "ls", "-q"]),
            "",
            "the engine has volumes"
        );
    }
}

/// Objects of the API.
impl Site {
    /// Objects as the API lists them, of all namespaces: `pods`, `services`.
    #[track_caller]
    pub(crate) fn list(&self, kind: &str) -> Vec<Value> {
        let list = self.windlass(&["get", kind, "-A", "-o", "json"]).json();
        list["items"].as_array().unwrap().clone()
    }

    /// One object of the namespace `default`.
    #[track_caller]
    pub(crate) fn get(&self, kind: &str, name: &str) -> Value {
        self.windlass(&["get", kind, name, "-o", "json"]).json()
    }

    /// Pods as the API lists them, by name.
    #[track_caller]
    pub(crate) fn pods(&self) -> BTreeMap<String, Value> {
        let pods = self.list("pods").into_iter();
        pods.map(|pod| (text(&pod["metadata"]["name"]), pod))
            .collect()
    }

    /// The addresses of the pods, by name.
    #[track_caller]
    pub(crate) fn addresses(&self) -> BTreeMap<String, String> {
        let pods = self.pods().into_iter();
        pods.map(|(name, pod)| (name, text(&pod["status"]["podIP"])))
            .collect()
    }
}

/// Answers.
impl Site {
    /// The URL of a path at a port of the host, as other machines call it.
    pub(crate) fn url(&self, port: u16, path: &str) -> String {
        format!("http://{}:{port}{path}", self.host.address)
    }

    /// The URL of a path at the node port.
    pub(crate) fn node_url(&self, path: &str) -> String {
        self.url(NODE_PORT, path)
    }

    /// Fetches a URL from another machine on the host's network; nothing where no HTTP answer
    /// comes.
    pub(crate) fn get_from_outside(&self, url: &str) -> Option<Answer> {
        let mut curl = self.host.network.command();
        let arguments = [
            "curl",
            "-sS",
            "--max-time",
            "10",
            "-w",
            "\n%{http_code}",
            url,
        ];
        Answer::of(&run(curl.args(arguments)))
    }

    /// What the node port answers another machine.
    pub(crate) fn ask(&self, path: &str) -> Option<Answer> {
        self.get_from_outside(&self.node_url(path))
    }

    /// What the node port answers the host itself.
    pub(crate) fn ask_inside(&self, path: &str) -> Option<Answer> {
        self.host.http_get(&self.node_url(path))
    }

    /// Waits until a URL, called from another machine, answers with 200 and a text.
    #[track_caller]
    pub(crate) fn wait_url(&self, url: &str, text: &str) -> Answer {
        eventually_some(SOON, &format!("{url} answers {text:?}"), || {
            self.get_from_outside(url)
                .filter(|answer| answer.status == 200 && answer.body.contains(text))
        })
    }

    /// Waits until the node port answers another machine with a text that begins so.
    #[track_caller]
    pub(crate) fn wait_answer(&self, path: &str, begin: &str) {
        self.wait_ask(&format!("the node port answers {begin:?}"), begin, || {
            self.ask(path)
        });
    }

    /// Waits until the node port answers the host itself with a text that begins so.
    #[track_caller]
    pub(crate) fn wait_answer_inside(&self, path: &str, begin: &str) {
        self.wait_ask(&format!("{path} answers {begin:?}"), begin, || {
            self.ask_inside(path)
        });
    }

    #[track_caller]
    fn wait_ask(&self, what: &str, begin: &str, mut ask: impl FnMut() -> Option<Answer>) {
        eventually_some(SOON, what, || {
            ask().filter(|answer| answer.status == 200 && answer.body.starts_with(begin))
        });
    }

    /// The metrics as text.
    #[track_caller]
    pub(crate) fn metrics(&self) -> String {
        self.host.http_get(METRICS).unwrap().body
    }

    /// The value of a metric, by its name with labels as it is exposed; nothing where it is not.
    pub(crate) fn find_metric(&self, name: &str) -> Option<f64> {
        let answer = self.host.http_get(METRICS)?;
        let mut lines = answer.body.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// The value of a metric that there is.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.find_metric(name)
            .unwrap_or_else(|| panic!("no metric {name} in\n{}", self.metrics()))
    }
}

/// Files, links and routes.
impl Site {
    /// A file of the daemon's data directory, read on the host, which may have a mount there.
    pub(crate) fn state_file(&self, name: &str) -> Outcome {
        self.host.exec(&["cat", &format!("{DATA_DIR}/{name}")])
    }

    /// Checks that every state file is a whole document, and that no half-written one lies beside
    /// it.
    #[track_caller]
    pub(crate) fn assert_state_files(&self) {
        for name in [
            "cluster.json",
            "instance.json",
            "node.json",
            "trust/pointers.json",
            "trust/images.json",
            "trust/accepted.json",
        ] {
            let document = self.state_file(name).json();
            assert!(
                document["schema"].is_u64(),
                "{name} has no schema: {document}"
            );
        }
        let left = self
            .host
            .exec(&["find", DATA_DIR, "-maxdepth", "2", "-name", "*.new*"])
            .ok();
        assert_eq!(left, "", "left by an unfinished write");
    }

    /// Names of the host's pod links.
    pub(crate) fn links(&self) -> BTreeSet<String> {
        let links = self.host.exec(&["ip", "-o", "link"]).ok();
        let names = links
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1));
        names
            .filter(|name| name.starts_with("wdl"))
            .filter_map(|name| name.split('@').next())
            .map(str::to_owned)
            .collect()
    }

    /// The host's routes that carry our protocol number.
    pub(crate) fn routes(&self) -> Vec<String> {
        let routes = self.host.exec(&["ip", "route", "show", "proto", "87"]).ok();
        routes.lines().map(str::to_owned).collect()
    }

    /// Pods that have a directory on the host.
    pub(crate) fn pod_dirs(&self) -> Vec<String> {
        let outcome = self.host.exec(&["ls", "-A", &format!("{DATA_DIR}/pods")]);
        outcome.stdout.lines().map(str::to_owned).collect()
    }
}
