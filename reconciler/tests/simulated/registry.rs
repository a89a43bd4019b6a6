//! A registry of images; the test chooses the behaviour of their containers.

use std::{collections::BTreeMap, time::Duration};

use reconciler::{digest::sha256_hex, name::ImageId};

/// The behaviour of the containers of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Runs, is ready and alive at once.
    Fine,
    /// Ends with this code 100 ms after its start.
    ExitsAtOnce(i64),
    /// Ends with this code after this time.
    Ends(Duration, i64),
    /// Its readiness probe never succeeds.
    NeverReady,
    /// Its readiness probe succeeds after this time.
    SlowReady(Duration),
    /// Its startup probe never succeeds.
    NeverStarts,
    /// Its liveness probe fails after this time.
    FailsLivenessAfter(Duration),
    /// The engine refuses to start it.
    Rejected,
    /// Its postStart hook fails.
    HookFails,
    /// Does not end on SIGTERM.
    IgnoresTerm,
}

#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) id: ImageId,
    pub(crate) digest: String,
    pub(crate) behaviour: Behaviour,
}

/// The images that can be pulled.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    pub(crate) reachable: bool,
    /// Whether every pull fails for a reason that is not known to Windlass.
    pub(crate) strange: bool,
    tags: BTreeMap<String, Image>,
    digests: BTreeMap<String, Image>,
    pushes: u64,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            reachable: true,
            strange: false,
            tags: BTreeMap::new(),
            digests: BTreeMap::new(),
            pushes: 0,
        }
    }
}

impl Registry {
    /// Pushes an image under a tag, and moves the tag if it exists.
    pub(crate) fn push(&mut self, name: &str, behaviour: Behaviour) -> ImageId {
        self.pushes += 1;
        let hash = sha256_hex(format!("{name} {behaviour:?} {}", self.pushes).as_bytes());
        let repository = name.split(':').next().unwrap_or(name);
        let image = Image {
            id: ImageId::new(format!("sha256:{hash}")),
            digest: format!("{repository}@sha256:{hash}"),
            behaviour,
        };
        self.tags.insert(name.to_owned(), image.clone());
        self.digests.insert(image.digest.clone(), image.clone());
        image.id
    }

    /// The image of a tag or digest.
    pub(crate) fn find(&self, reference: &str) -> Option<&Image> {
        self.tags
            .get(reference)
            .or_else(|| self.digests.get(reference))
    }
}
