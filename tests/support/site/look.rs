//! What tests read from a site's host: containers, objects, answers, metrics, files and links.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{NODE_PORT, SOON, Site};
use crate::support::daemon::DATA_DIR;
use crate::support::{Answer, Container, Outcome, eventually_some, run, text};

/// The URL of the metrics, from inside the host.
const METRICS: &str = "http://127.0.0.1:9464/metrics";

/// Containers.
impl Site {
    /// All containers of the engine in any state, made by the daemon or by another client.
    #[track_caller]
    pub(crate) fn containers(&self) -> BTreeSet<Container> {
        self.host.containers()
    }

    /// The running containers, with sandboxes.
    #[track_caller]
    pub(crate) fn running(&self) -> BTreeSet<Container> {
        let mut containers = self.containers();
        containers.retain(Container::is_running);
        containers
    }

    /// The running containers, with sandboxes, of the pods whose names begin with `pod`.
    #[track_caller]
    pub(crate) fn running_of(&self, pod: &str) -> BTreeSet<Container> {
        let mut containers = self.running();
        containers.retain(|container| container.pod.starts_with(pod));
        containers
    }

    /// A running container that is no sandbox, of a pod whose name begins with `pod`.
    #[track_caller]
    pub(crate) fn container(&self, pod: &str) -> Container {
        let mut containers = self.running_of(pod).into_iter();
        containers
            .find(|container| !container.is_sandbox())
            .unwrap_or_else(|| panic!("no container of {pod} runs"))
    }

    /// The only container of this name; panics with all containers where there is none, or more
    /// than one.
    #[track_caller]
    pub(crate) fn only_container(&self, name: &str) -> Container {
        let all = self.containers();
        let mut named = all.iter().filter(|container| container.name == name);
        match (named.next(), named.next()) {
            (Some(container), None) => container.clone(),
            _ => panic!("there must be exactly one container named {name}: {all:#?}"),
        }
    }

    /// Runs a program in the running container `container` of a pod whose name begins with `pod`.
    #[track_caller]
    pub(crate) fn exec(&self, pod: &str, container: &str, args: &[&str]) -> Outcome {
        let mut containers = self.running_of(pod).into_iter();
        let running = containers
            .find(|running| running.name == container)
            .unwrap_or_else(|| panic!("no container {container} of {pod} runs"));
        self.host
            .try_docker(&[&["exec", running.id.as_str()], args].concat())
    }

    /// Fetches a URL from the network of a pod, with the pod's own resolv.conf and hosts.
    #[track_caller]
    pub(crate) fn fetch_from(&self, pod: &str, url: &str) -> Outcome {
        let container = self.container(pod);
        let format = ["inspect", "-f", "{{.State.Pid}}", &container.id];
        let process = self.host.docker(&format);
        // A file of another mount namespace cannot be bind-mounted, so a copy of it is.
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

    /// Checks that the host has exactly this many pods and containers, sandboxes included, that all
    /// containers run, and that links, routes, directories and volumes belong to these pods.
    #[track_caller]
    pub(crate) fn assert_exactly(&self, pods: usize, containers: usize) {
        self.assert_exactly_with_foreign(pods, containers, "");
    }

    /// Like [`Site::assert_exactly`], but the container with the id `foreign` is not counted.
    #[track_caller]
    pub(crate) fn assert_exactly_with_foreign(
        &self,
        pods: usize,
        containers: usize,
        foreign: &str,
    ) {
        let mut all = self.containers();
        all.retain(|container| container.id != foreign);
        assert_eq!(all.len(), containers, "containers: {all:#?}");
        assert!(
            all.iter().all(Container::is_running),
            "a container does not run: {all:#?}"
        );
        let sandboxes = all
            .iter()
            .filter(|container| container.is_sandbox())
            .count();
        assert_eq!(sandboxes, pods, "sandboxes: {all:#?}");

        assert_eq!(self.links().len(), pods, "links: {:?}", self.links());
        // Each pod has a route, and so has the range of the Services.
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

    /// Fetches a URL from another machine on the host's network; `None` where no HTTP answer comes.
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

    /// The node port's answer to another machine.
    pub(crate) fn ask(&self, path: &str) -> Option<Answer> {
        self.get_from_outside(&self.node_url(path))
    }

    /// The node port's answer to the host itself.
    pub(crate) fn ask_inside(&self, path: &str) -> Option<Answer> {
        self.host.http_get(&self.node_url(path))
    }

    /// Waits until a URL answers another machine with status 200 and a body that contains a text.
    #[track_caller]
    pub(crate) fn wait_url(&self, url: &str, text: &str) -> Answer {
        eventually_some(SOON, &format!("{url} answers {text:?}"), || {
            self.get_from_outside(url)
                .filter(|answer| answer.status == 200 && answer.body.contains(text))
        })
    }

    /// Waits until the node port answers another machine with a body that begins with a text.
    #[track_caller]
    pub(crate) fn wait_answer(&self, path: &str, start: &str) {
        let what = format!("{path} at the node port answers {start:?} to another machine");
        self.wait_body(&what, start, || self.ask(path));
    }

    /// Waits until the node port answers the host itself with a body that begins with a text.
    #[track_caller]
    pub(crate) fn wait_answer_inside(&self, path: &str, start: &str) {
        let what = format!("{path} at the node port answers {start:?} to the host itself");
        self.wait_body(&what, start, || self.ask_inside(path));
    }

    #[track_caller]
    fn wait_body(&self, what: &str, start: &str, mut ask: impl FnMut() -> Option<Answer>) {
        eventually_some(SOON, what, || {
            ask().filter(|answer| answer.status == 200 && answer.body.starts_with(start))
        });
    }

    /// The metrics as text.
    #[track_caller]
    pub(crate) fn metrics(&self) -> String {
        self.host.http_get(METRICS).unwrap().body
    }

    /// The value of a metric, by its name with labels as in the exposition; `None` where it is not
    /// exposed.
    pub(crate) fn find_metric(&self, name: &str) -> Option<f64> {
        let answer = self.host.http_get(METRICS)?;
        let mut lines = answer.body.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// The value of a metric that must be exposed.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.find_metric(name)
            .unwrap_or_else(|| panic!("no metric {name} in\n{}", self.metrics()))
    }
}

/// Files, links and routes.
impl Site {
    /// A file of the daemon's data directory, read on the host, because a test may have mounted a
    /// file system there.
    pub(crate) fn state_file(&self, name: &str) -> Outcome {
        self.host.exec(&["cat", &format!("{DATA_DIR}/{name}")])
    }

    /// Checks that every state file is a complete document, and that no partly written file lies
    /// beside it.
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
        let unfinished = self
            .host
            .exec(&["find", DATA_DIR, "-maxdepth", "2", "-name", "*.new*"])
            .ok();
        assert_eq!(unfinished, "", "an unfinished write has left these files");
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

    /// The host's routes with the protocol number of Windlass.
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
