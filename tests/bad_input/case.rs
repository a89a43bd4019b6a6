//! A site with a good commit, and the checks after each case of bad input.

use std::collections::BTreeSet;

use crate::manifest::{APP, deployment, idle, pod, service};
use crate::support::{Container, Site, is, unwrapped};

/// A site with four workloads, and the containers that ran before the cases.
pub(crate) struct Bench {
    pub(crate) site: Site,
    /// The last good commit.
    pub(crate) good: String,
    before: BTreeSet<Container>,
}

impl Bench {
    /// Starts the site and its daemon, which all cases of a table use.
    pub(crate) fn start() -> Bench {
        let mut site = Site::started("[source]\npaths = ['apps']");
        let good = site.deploy(&[
            ("apps/web.yaml", &deployment("web", 1, APP)),
            ("apps/service.yaml", &service("web")),
            ("apps/a.yaml", &pod("a", &idle())),
            ("apps/b.yaml", &pod("b", &idle())),
            ("apps/c.yaml", &pod("c", &idle())),
            ("README", "the manifests are in apps\n"),
        ]);
        let before = site.running();
        assert_eq!(before.len(), 8);
        Bench { site, good, before }
    }

    /// Waits until a head is refused, and checks that `windlass status` prints all these texts.
    #[track_caller]
    pub(crate) fn wait_refused(&mut self, what: &str, commit: &str, expected: &[&str]) {
        eprintln!("{what}");
        self.site
            .wait_status(&format!("{what} is refused"), |status| {
                is(&status["source"]["refusal"]["commit"], commit)
            });
        self.assert_status_contains(what, expected);
        self.assert_unchanged(what);
    }

    /// Checks that `windlass status` prints all these texts.
    #[track_caller]
    pub(crate) fn assert_status_contains(&self, what: &str, expected: &[&str]) {
        let text = unwrapped(&self.site.windlass(&["status"]).ok());
        for words in expected {
            assert!(
                text.contains(&unwrapped(words)),
                "{what}: {words:?} is not in\n{text}"
            );
        }
    }

    /// Checks that the good commit is still the target and healthy, runs in the same containers,
    /// and answers.
    #[track_caller]
    pub(crate) fn assert_unchanged(&self, what: &str) {
        let status = self.site.status();
        assert!(
            is(&status["target"]["id"], &self.good),
            "{what}: {status:#}"
        );
        assert!(is(&status["phase"], "Healthy"), "{what}: {status:#}");
        assert_eq!(
            self.site.running(),
            self.before,
            "{what}: containers of the good commit have changed"
        );
        assert_eq!(self.site.ask("/").unwrap().status, 200, "{what}");
    }

    /// Waits until a commit that corrects the bad one is healthy. It is the good commit from now
    /// on.
    #[track_caller]
    pub(crate) fn wait_corrected(&mut self, what: &str, commit: String) {
        self.site.wait_healthy(&commit);
        assert_eq!(
            self.site.status()["source"]["refusal"],
            serde_json::Value::Null,
            "{what}"
        );
        self.good = commit;
        self.assert_unchanged(what);
    }

    /// Resets the branch to the good commit, and waits until the daemon has observed that.
    #[track_caller]
    pub(crate) fn reset_to_good(&mut self, what: &str) {
        let good = self.good.clone();
        self.site.repo.git(&["reset", "-q", "--hard", &good]).ok();
        self.site.repo.push();
        self.site.wait_status(
            &format!("{what}: the head is the good commit again"),
            |status| is(&status["source"]["head"], &good) && status["source"]["refusal"].is_null(),
        );
        self.assert_unchanged(what);
    }
}
