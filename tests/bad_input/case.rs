//! What the tables have in common: a site where something runs, and what must hold after each case.

use std::collections::BTreeSet;

use crate::manifest::{APP, deployment, idle, pod, service};
use crate::support::{Container, Site, is};

/// A site with four workloads, and what runs there.
pub(crate) struct Bench {
    pub(crate) site: Site,
    /// The last good commit.
    pub(crate) good: String,
    before: BTreeSet<Container>,
}

impl Bench {
    /// Starts the one daemon of a table.
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

    /// Waits until a head is refused, and checks that `status` says why.
    #[track_caller]
    pub(crate) fn refused(&mut self, what: &str, commit: &str, wanted: &[&str]) {
        eprintln!("{what}");
        self.site
            .wait_status(&format!("{what} is refused"), |status| {
                is(&status["source"]["refusal"]["commit"], commit)
            });
        self.says(what, wanted);
        self.untouched(what);
    }

    /// Checks that `status` contains all these words.
    #[track_caller]
    pub(crate) fn says(&self, what: &str, wanted: &[&str]) {
        let text = self.site.windlass(&["status"]).ok();
        for words in wanted {
            assert!(text.contains(words), "{what}: {words:?} is not in\n{text}");
        }
    }

    /// Checks that the good commit still runs in the very same containers, and answers.
    #[track_caller]
    pub(crate) fn untouched(&self, what: &str) {
        let status = self.site.status();
        assert!(
            is(&status["target"]["id"], &self.good),
            "{what}: {status:#}"
        );
        assert!(is(&status["phase"], "Healthy"), "{what}: {status:#}");
        assert_eq!(
            self.site.running(),
            self.before,
            "{what}: what ran was touched"
        );
        assert_eq!(self.site.ask("/").unwrap().status, 200, "{what}");
    }

    /// Goes on with a good commit on top.
    #[track_caller]
    pub(crate) fn mended(&mut self, what: &str, commit: String) {
        self.site.wait_healthy(&commit);
        assert_eq!(
            self.site.status()["source"]["refusal"],
            serde_json::Value::Null,
            "{what}"
        );
        self.good = commit;
        self.untouched(what);
    }

    /// Forgets what was committed since the good commit, also in the repository.
    #[track_caller]
    pub(crate) fn taken_back(&mut self, what: &str) {
        let good = self.good.clone();
        self.site.repo.git(&["reset", "-q", "--hard", &good]).ok();
        self.site.repo.push();
        self.site.wait_status(&format!("{what} is gone"), |status| {
            is(&status["source"]["head"], &good) && status["source"]["refusal"].is_null()
        });
        self.untouched(what);
    }
}
