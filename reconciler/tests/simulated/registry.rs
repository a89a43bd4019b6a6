//! A registry of images whose containers behave as the test says.

use std::{collections::BTreeMap, time::Duration};

use reconciler::{digest::sha256_hex, name::ImageId};

/// What a container made from an image does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Runs, is ready and alive at once.
    Fine,
    /// Ends with this code 100 ms after its start.
    ExitsAtOnce(i64),
    /// Ends with this code after so long.
    Ends(Duration, i64),
    /// Its readiness probe never succeeds.
    NeverReady,
    /// Its readiness probe succeeds after so long.
    SlowReady(Duration),
    /// Its startup probe never succeeds.
    NeverStarts,
    /// Its liveness probe fails from then on.
    FailsLivenessAfter(Duration),
    /// The engine refuses to start it.
    Rejected,
    /// Its postStart hook fails.
    HookFails,
    /// Does not end on TERM.
    IgnoresTerm,
}

/// One image.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) id: ImageId,
    pub(crate) digest: String,
    pub(crate) behaviour: Behaviour,
}

/// What can be pulled.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    pub(crate) reachable: bool,
    /// Whatever is asked for fails in a way that nobody knows.
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
    /// Pushes an image under a tag; a tag that was there moves.
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
