//! A host that uses a real etcd, and what it writes.

use super::*;

/// A host: its handle of the store, and the events that it received.
pub(super) struct EtcdHost {
    pub(super) etcd: Etcd,
    pub(super) events: UnboundedReceiver<StoreEvent>,
    /// A fence received while the test waited for another event.
    pub(super) fence: Option<Fence>,
    /// The content of the store by the events received until now.
    pub(super) keys: BTreeMap<String, Vec<u8>>,
}

impl EtcdHost {
    pub(super) fn start(
        config: EtcdConfig,
        node: &str,
        installation: &str,
        candidate: bool,
    ) -> Self {
        let session = SessionConfig {
            node: NodeName::new(node),
            alive: format!(r#"{{"installation":"{installation}"}}"#).into_bytes(),
            installation: Installation::new(installation),
            candidate,
            node_ttl: Duration::from_secs(5),
            leader_ttl: Duration::from_secs(3),
        };
        let (etcd, events) = Etcd::start(config, session).unwrap();
        Self {
            etcd,
            events,
            fence: None,
            keys: BTreeMap::new(),
        }
    }

    /// The next event that `pick` selects; other events only update the content.
    pub(super) async fn next<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(StoreEvent) -> Option<T>,
    ) -> T {
        let mut passed = Vec::new();
        let found = tokio::time::timeout(LONG, async {
            loop {
                let event = self.events.recv().await.expect("the tasks run");
                passed.push(format!("{event:?}"));
                match &event {
                    StoreEvent::Elected(fence) => self.fence = Some(fence.clone()),
                    StoreEvent::Demoted { .. } => self.fence = None,
                    StoreEvent::Listed { pairs, .. } => {
                        self.keys = pairs
                            .iter()
                            .map(|pair| (pair.key.clone(), pair.value.clone()))
                            .collect();
                    }
                    StoreEvent::Changed { changes, .. } => {
                        changes.iter().for_each(|change| match change {
                            KeyChange::Put(pair) => {
                                self.keys.insert(pair.key.clone(), pair.value.clone());
                            }
                            KeyChange::Delete { key, .. } => {
                                self.keys.remove(key);
                            }
                        })
                    }
                    _ => {}
                }
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => panic!("no {what} within {LONG:?}, but {passed:#?}"),
        }
    }

    pub(super) async fn listed(&mut self) -> (i64, Vec<StoredValue>) {
        let pick = |event| match event {
            StoreEvent::Listed {
                revision, pairs, ..
            } => Some((revision, pairs)),
            _ => None,
        };
        self.next("Listed", pick).await
    }

    pub(super) async fn lost(&mut self) -> String {
        self.next("Lost", |event| {
            if let StoreEvent::Lost { why } = event {
                Some(why)
            } else {
                None
            }
        })
        .await
    }

    pub(super) async fn elected(&mut self) -> Fence {
        if self.fence.is_none() {
            self.next("Elected", |event| {
                matches!(event, StoreEvent::Elected(_)).then_some(())
            })
            .await;
        }
        self.fence.take().unwrap()
    }

    pub(super) async fn demoted(&mut self) -> String {
        self.next("Demoted", |event| {
            if let StoreEvent::Demoted { why } = event {
                Some(why)
            } else {
                None
            }
        })
        .await
    }

    pub(super) async fn conflict(&mut self) -> String {
        self.next("Conflict", |event| {
            if let StoreEvent::Conflict { why } = event {
                Some(why)
            } else {
                None
            }
        })
        .await
    }

    /// Waits until `holds` is true for the store's content.
    pub(super) async fn until(
        &mut self,
        what: &str,
        holds: impl Fn(&BTreeMap<String, Vec<u8>>) -> bool,
    ) {
        while !holds(&self.keys) {
            self.next(what, |event| {
                matches!(
                    event,
                    StoreEvent::Listed { .. } | StoreEvent::Changed { .. }
                )
                .then_some(())
            })
            .await;
        }
    }

    pub(super) async fn until_alive(&mut self) {
        self.until("an alive key", |keys| keys.contains_key("nodes/n1/alive"))
            .await;
    }

    pub(super) async fn until_candidates(&mut self, count: usize, but: &str) {
        let others = |key: &&String| key.starts_with("election/") && !but.ends_with(key.as_str());
        self.until("candidates", |keys| {
            keys.keys().filter(others).count() == count
        })
        .await;
    }

    /// Waits for `count` changes of keys that begin with `begin`, and returns them in order.
    pub(super) async fn changes(&mut self, begin: &str, count: usize) -> Vec<KeyChange> {
        let mut found = Vec::new();
        while found.len() < count {
            let more = self.next("Changed", |event| match event {
                StoreEvent::Changed { changes, revision } => {
                    assert_eq!(
                        revision,
                        changes
                            .iter()
                            .map(|change| change.revision())
                            .max()
                            .unwrap()
                    );
                    Some(changes)
                }
                _ => None,
            });
            found.extend(
                more.await
                    .into_iter()
                    .filter(|change| change.key().starts_with(begin)),
            );
        }
        found
    }
}

pub(super) fn put(key: &str, value: &str) -> Write {
    Write::Put {
        key: key.to_owned(),
        value: value.as_bytes().to_vec(),
    }
}

pub(super) fn delete(key: &str) -> Write {
    Write::Delete {
        key: key.to_owned(),
    }
}

pub(super) fn pair(key: &str, value: &str, revision: i64) -> StoredValue {
    StoredValue {
        key: key.to_owned(),
        value: value.as_bytes().to_vec(),
        revision,
    }
}
