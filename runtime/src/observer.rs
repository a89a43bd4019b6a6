//! The containers and images on the engine, kept in memory: everything is inspected once, then only
//! what an event or a step of our own marks as changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use reconciler::{
    fault::{Fault, FaultKind},
    name::{ContainerId, ImageId, Installation, PodUid},
    observed::{ContainerState, ObservedContainer},
    plan::Role,
};
use tokio::sync::watch;

use crate::{
    docker::{CallError, Engine},
    labels::Labels,
};

mod inspect;
mod output;
mod round;
mod tail;

pub(crate) use inspect::from_inspect;
pub(crate) use output::OutputReader;
pub use output::{LastOutput, LastOutputs};
use round::RoundResult;

/// How many containers are inspected concurrently.
const INSPECT_CONCURRENCY: usize = 16;
/// An event that is older than the last inspection by more than this shows that the clock was set
/// back, not that the inspection includes the event.
const CLOCK_SLACK: Duration = Duration::from_secs(5);

/// What was observed on the engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// All containers of this installation, in any state.
    pub containers: BTreeMap<ContainerId, ObservedContainer>,
    /// Images on the engine's disk.
    pub images: BTreeSet<ImageId>,
    /// Containers of this installation whose labels this version cannot read, with the error: they
    /// are left alone.
    pub left_alone: BTreeMap<ContainerId, String>,
}

/// The cache, and the engine from which it is filled.
pub(crate) struct Observer {
    pub(crate) engine: Arc<Engine>,
    pub(crate) installation: Installation,
    pods_dir: PathBuf,
    pub(crate) output_reader: Arc<OutputReader>,
    cache: Mutex<Cache>,
    /// One round of inspections at a time: a second one would find nothing dirty, and return a
    /// cache that the first has not updated yet.
    under_way: tokio::sync::Mutex<()>,
    changed: watch::Sender<u64>,
    hangs: watch::Sender<bool>,
}

#[derive(Default)]
struct Cache {
    known: BTreeMap<ContainerId, Known>,
    left_alone: BTreeMap<ContainerId, String>,
    images: BTreeSet<ImageId>,
    dirty: Dirty,
    /// Containers on which the engine hangs. Their last observation stays valid.
    hanging: BTreeSet<ContainerId>,
}

struct Dirty {
    everything: bool,
    containers: BTreeSet<ContainerId>,
    images: bool,
}

impl Default for Dirty {
    fn default() -> Self {
        Self {
            everything: true,
            containers: BTreeSet::new(),
            images: true,
        }
    }
}

struct Known {
    observed: ObservedContainer,
    /// The time before the inspection began; events up to then are included in it.
    seen: Timestamp,
}

impl Observer {
    pub(crate) fn new(engine: Arc<Engine>, installation: Installation, pods_dir: PathBuf) -> Self {
        Self {
            output_reader: Arc::new(OutputReader::new(Arc::clone(&engine))),
            engine,
            installation,
            pods_dir,
            cache: Mutex::default(),
            under_way: tokio::sync::Mutex::new(()),
            changed: watch::Sender::new(0),
            hangs: watch::Sender::new(false),
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The current observation. An engine that does not respond is an error, never an empty host.
    pub(crate) async fn observe(self: &Arc<Self>) -> Result<Observation, Fault> {
        let _only = self.under_way.lock().await;
        // Taken before the requests: what is marked during them is inspected the next time.
        let nothing = Dirty {
            everything: false,
            containers: BTreeSet::new(),
            images: false,
        };
        let dirty = std::mem::replace(&mut self.cache().dirty, nothing);

        let mut hangs = self.hangs.subscribe();
        let looked = tokio::select! {
            biased;
            _ = hangs.wait_for(|hangs| *hangs) => {
                Err(Fault::new(FaultKind::EngineUnreachable, "the container engine hangs: it takes calls and does not answer"))
            }
            looked = self.observe_dirty(&dirty) => looked.map_err(|error| error.into_fault("cannot look at the containers")),
        };
        if let Err(fault) = looked {
            self.put_back(dirty);
            return Err(fault);
        }

        let cache = self.cache();
        Ok(Observation {
            containers: cache
                .known
                .iter()
                .map(|(id, known)| (id.clone(), known.observed.clone()))
                .collect(),
            images: cache.images.clone(),
            left_alone: cache.left_alone.clone(),
        })
    }

    /// Marks everything for inspection at the next call.
    pub(crate) fn everything_dirty(&self) {
        self.cache().dirty = Dirty::default();
        self.notify();
    }

    pub(crate) fn images_dirty(&self) {
        self.cache().dirty.images = true;
        self.notify();
    }

    /// Sets whether the engine accepts calls and does not respond. While it hangs, `observe`
    /// returns an error at once.
    pub(crate) fn hangs(&self, hangs: bool) {
        let changed = self
            .hangs
            .send_if_modified(|before| std::mem::replace(before, hangs) != hangs);
        if changed && hangs {
            tracing::warn!("the container engine hangs");
            self.notify();
        } else if changed {
            tracing::info!("the container engine answers again");
            self.everything_dirty();
        }
    }

    /// Marks a container for inspection after a step changed it.
    pub(crate) fn container_dirty(&self, id: &ContainerId) {
        self.cache().dirty.containers.insert(id.clone());
        self.notify();
    }

    /// Marks a container for inspection after the engine has done something to it, so that the
    /// engine no longer counts as hanging on it. The engine does not respond about a container that
    /// it is starting, which takes seconds on a loaded host; the observation from before must not
    /// stay valid.
    pub(crate) fn container_answers(&self, id: &ContainerId) {
        self.cache().hanging.remove(id);
        self.container_dirty(id);
    }

    /// Records that the engine has responded that it started a container. On a loaded host even the
    /// inspection that follows may get no response in time, and a container that was observed as
    /// created would count as not running.
    pub(crate) fn container_started(&self, id: &ContainerId) {
        if let Some(known) = self.cache().known.get_mut(id)
            && known.observed.state == ContainerState::Created
        {
            let now = Timestamp::now();
            known.observed.state = ContainerState::Running { started: now };
            known.seen = now;
        }
        self.container_answers(id);
    }

    /// Marks a container for inspection after an event, unless the last inspection is newer than
    /// the event.
    pub(crate) fn container_event(&self, id: &ContainerId, at: Timestamp) {
        let mut cache = self.cache();
        let is_news = cache.known.get(id).is_none_or(|known| {
            let behind = known.seen.duration_since(at);
            behind.is_negative() || behind.unsigned_abs() > CLOCK_SLACK
        });
        if is_news {
            cache.dirty.containers.insert(id.clone());
            drop(cache);
            self.notify();
        }
    }

    /// Removes a container from the cache.
    pub(crate) fn container_gone(&self, id: &ContainerId) {
        let mut cache = self.cache();
        cache.dirty.containers.remove(id);
        let was_observed = cache.known.remove(id).is_some();
        let was_left_alone = cache.left_alone.remove(id).is_some();
        drop(cache);
        if was_observed || was_left_alone {
            self.notify();
        }
    }

    /// Adds a container that was just created, so that it needs no inspection.
    pub(crate) fn container_created(&self, id: &ContainerId, labels: &Labels, image: &ImageId) {
        let observed = from_labels(labels.clone(), image.clone(), ContainerState::Created);
        self.cache().known.insert(
            id.clone(),
            Known {
                observed,
                seen: Timestamp::now(),
            },
        );
    }

    /// The newest container with this role and name that is not known to have ended.
    pub(crate) fn find(&self, pod: &PodUid, role: Role, name: &str) -> Option<ContainerId> {
        let is_wanted = |found: &ObservedContainer| {
            found.identity.uid == *pod && found.role == role && found.name == name
        };
        // A container that was created may have been started since it was inspected.
        let may_run =
            |state: &ContainerState| state.is_alive() || matches!(state, ContainerState::Created);
        let cache = self.cache();
        cache
            .known
            .iter()
            .map(|(id, known)| (id, &known.observed))
            .filter(|(_, found)| is_wanted(found) && may_run(&found.state))
            .max_by_key(|(_, found)| found.attempt)
            .map(|(id, _)| id.clone())
    }

    /// The last observation of a container; `None` if it is not in the cache.
    pub(crate) fn known(&self, id: &ContainerId) -> Option<ObservedContainer> {
        self.cache()
            .known
            .get(id)
            .map(|known| known.observed.clone())
    }

    pub(crate) fn notify(&self) {
        self.changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    async fn observe_dirty(self: &Arc<Self>, dirty: &Dirty) -> Result<(), CallError> {
        if dirty.images {
            let images = self.images().await?;
            self.cache().images = images;
        }

        let mut listed = BTreeMap::new();
        let mut wanted: BTreeSet<_> = dirty.containers.clone();
        if dirty.everything {
            let begun = Timestamp::now();
            listed = self.list().await?;
            wanted.extend(listed.keys().cloned());
            let mut cache = self.cache();
            // A container that was created after the list was requested exists and is not in the
            // list.
            cache
                .known
                .retain(|id, known| listed.contains_key(id) || known.seen >= begun);
            cache.left_alone.retain(|id, _| listed.contains_key(id));
        }

        // A task of its own waits for each of these, see `until_it_answers`.
        wanted.retain(|id| !self.cache().hanging.contains(id));
        let looks = stream::iter(wanted)
            .map(|id| {
                let summary = listed.get(&id);
                async move {
                    let seen = Timestamp::now();
                    let look = self.inspect_once(&id, summary).await;
                    (id, seen, look)
                }
            })
            .buffer_unordered(INSPECT_CONCURRENCY)
            .collect::<Vec<_>>()
            .await;

        for (id, seen, look) in looks {
            self.remember(id, seen, look?);
        }
        Ok(())
    }

    fn remember(self: &Arc<Self>, id: ContainerId, seen: Timestamp, look: RoundResult) {
        let mut cache = self.cache();
        match look {
            RoundResult::Found(observed) => {
                cache.left_alone.remove(&id);
                let was_known_to_have_ended = cache.known.get(&id).is_some_and(|before| {
                    matches!(before.observed.state, ContainerState::Exited { .. })
                });
                if !was_known_to_have_ended {
                    self.output_reader.begin(&id, &observed);
                }
                cache.known.insert(id, Known { observed, seen });
            }
            RoundResult::Gone => {
                cache.left_alone.remove(&id);
                cache.known.remove(&id);
            }
            RoundResult::LeftAlone(why) => {
                cache.known.remove(&id);
                cache.left_alone.insert(id, why);
            }
            RoundResult::Hangs(listed) => {
                // The list tells less than an inspection from before. Any event is newer than it.
                if let Some(observed) = listed
                    && !cache.known.contains_key(&id)
                {
                    let seen = Timestamp::UNIX_EPOCH;
                    cache.known.insert(id.clone(), Known { observed, seen });
                }
                if cache.hanging.insert(id.clone()) {
                    drop(cache);
                    tracing::warn!(container = %id, "the engine does not answer for a container");
                    tokio::spawn(round::until_it_answers(Arc::downgrade(self), id));
                }
            }
        }
    }

    fn put_back(&self, dirty: Dirty) {
        let now = &mut self.cache().dirty;
        now.everything |= dirty.everything;
        now.images |= dirty.images;
        now.containers.extend(dirty.containers);
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock()
    }
}

/// An observation from the labels of a container, without its times.
fn from_labels(labels: Labels, image: ImageId, state: ContainerState) -> ObservedContainer {
    let Labels {
        identity,
        role,
        name,
        attempt,
        message_from_logs: _,
    } = labels;
    ObservedContainer {
        identity,
        role,
        name,
        attempt,
        image,
        state,
    }
}

#[cfg(test)]
mod tests {
    use reconciler::{
        name::{ObjectKey, TemplateHash, WorkloadKey, WorkloadKind},
        plan::PodIdentity,
    };

    use super::*;
    use crate::ids::commit_id;

    fn container(state: ContainerState) -> ObservedContainer {
        ObservedContainer {
            identity: PodIdentity {
                uid: PodUid::new("uid-1"),
                pod: ObjectKey::new("default", "web"),
                owner: WorkloadKey {
                    kind: WorkloadKind::Pod,
                    object: ObjectKey::new("default", "web"),
                },
                commit: commit_id("0123"),
                template: TemplateHash::new("1-0123"),
            },
            role: Role::Sandbox,
            name: String::new(),
            attempt: 0,
            image: ImageId::new("sha256:1"),
            state,
        }
    }

    #[test]
    fn a_container_that_was_started_runs_also_where_its_inspection_gets_no_answer() {
        let nowhere = PathBuf::from("/nonexistent");
        let limit = Duration::from_secs(1);
        let engine = Arc::new(Engine::new(nowhere.clone(), limit, limit));
        let observer = Arc::new(Observer::new(engine, Installation::new("test"), nowhere));
        let (id, ended) = (ContainerId::new("c1"), ContainerId::new("c2"));
        for (id, state) in [
            (&id, ContainerState::Created),
            (&ended, ContainerState::Dead),
        ] {
            let observed = container(state);
            let seen = Timestamp::UNIX_EPOCH;
            observer
                .cache()
                .known
                .insert(id.clone(), Known { observed, seen });
        }

        for id in [&id, &ended] {
            observer.container_started(id);
            observer.cache().hanging.insert(id.clone());
            observer.remember(id.clone(), Timestamp::now(), RoundResult::Hangs(None));
        }

        let state = |id| observer.known(id).map(|observed| observed.state);
        assert!(
            matches!(state(&id), Some(ContainerState::Running { .. })),
            "the engine has said that it started the container"
        );
        assert_eq!(
            state(&ended),
            Some(ContainerState::Dead),
            "what ended since is not called back"
        );
    }

    #[test]
    fn a_container_that_the_engine_has_started_at_last_is_looked_at_again_at_once() {
        let nowhere = PathBuf::from("/nonexistent");
        let limit = Duration::from_secs(1);
        let engine = Arc::new(Engine::new(nowhere.clone(), limit, limit));
        let observer = Observer::new(engine, Installation::new("test"), nowhere);
        let id = ContainerId::new("c1");
        observer.cache().hanging.insert(id.clone());
        observer.container_dirty(&id);
        assert!(
            observer.cache().hanging.contains(&id),
            "that something was tried is no answer"
        );
        observer.container_answers(&id);
        assert!(
            !observer.cache().hanging.contains(&id),
            "the engine does not hang on it"
        );
        assert!(
            observer.cache().dirty.containers.contains(&id),
            "it is looked at"
        );
    }
}
