//! Keeps this node's keys in etcd at the values that the node wants, without blocking a caller.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};

use super::etcd::{Etcd, Write, WriteError};

/// After this time a failed write is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// The wanted keys of one node, and their values.
pub(super) type KeyValues = BTreeMap<String, Vec<u8>>;

/// The handle of the task; dropping it ends the task.
#[derive(Debug)]
pub(super) struct Publisher {
    wanted: watch::Sender<Option<Arc<KeyValues>>>,
    observed: mpsc::UnboundedSender<KeyValues>,
    trouble: watch::Receiver<Option<String>>,
}

impl Publisher {
    pub(super) fn start(etcd: Etcd) -> Self {
        let (wanted, wanted_keys) = watch::channel(None);
        let (listed, listed_keys) = mpsc::unbounded_channel();
        let (reported, trouble) = watch::channel(None);
        tokio::spawn(publish(etcd, wanted_keys, listed_keys, reported));
        Self {
            wanted,
            observed: listed,
            trouble,
        }
    }

    /// Sets all keys that this node publishes from now on.
    pub(super) fn want(&self, keys: KeyValues) {
        self.wanted.send_if_modified(|before| {
            if before.as_deref() == Some(&keys) {
                return false;
            }
            *before = Some(Arc::new(keys));
            true
        });
    }

    /// Replaces the value of a key that is wanted.
    pub(super) fn renew(&self, key: &str, value: Vec<u8>) {
        self.wanted.send_if_modified(|wanted| {
            let Some(old) = wanted
                .as_mut()
                .and_then(|wanted| Arc::make_mut(wanted).get_mut(key))
            else {
                return false;
            };
            *old = value;
            true
        });
    }

    /// Cancels the writes that are not done yet.
    pub(super) fn rest(&self) {
        self.wanted
            .send_if_modified(|wanted| wanted.take().is_some());
    }

    /// Takes in the keys of this node from a list of the store.
    pub(super) fn observed(&self, keys: KeyValues) {
        // Sending fails only if the task has ended, which happens only with this handle.
        let _ = self.observed.send(keys);
    }

    /// Why the last write failed; `None` if it succeeded.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }
}

async fn publish(
    etcd: Etcd,
    mut wanted_keys: watch::Receiver<Option<Arc<KeyValues>>>,
    mut listed_keys: mpsc::UnboundedReceiver<KeyValues>,
    reported: watch::Sender<Option<String>>,
) {
    // Nothing is written before a list shows which keys exist.
    let Some(mut there) = listed_keys.recv().await else {
        return;
    };
    let mut failed;
    loop {
        while let Ok(listed) = listed_keys.try_recv() {
            there = listed;
        }
        let wanted = wanted_keys.borrow_and_update().clone();
        let writes = wanted
            .as_deref()
            .map(|wanted| difference(&there, wanted))
            .unwrap_or_default();
        if writes.is_empty() {
            failed = false;
            reported.send_if_modified(|trouble| trouble.take().is_some());
        } else {
            let written = etcd.write(writes).await;
            failed = written.is_err();
            match written {
                Ok(_) => {
                    there = wanted.as_deref().cloned().unwrap_or_default();
                    reported.send_replace(None);
                }
                // A refused write is reported; a write with an unknown result is repeated.
                Err(WriteError::Refused(why) | WriteError::Unknown(why)) => {
                    reported.send_replace(Some(why));
                }
                Err(WriteError::Fenced) => {}
            }
        }
        let retry = async {
            match failed {
                true => tokio::time::sleep(RETRY).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = wanted_keys.changed() => if changed.is_err() { return },
            listed = listed_keys.recv() => match listed {
                Some(listed) => there = listed,
                None => return,
            },
            () = retry => {}
        }
    }
}

fn difference(there: &KeyValues, wanted: &KeyValues) -> Vec<Write> {
    let puts = wanted
        .iter()
        .filter(|(key, value)| there.get(*key) != Some(value));
    let deletes = there.keys().filter(|key| !wanted.contains_key(*key));
    puts.map(|(key, value)| Write::Put {
        key: key.clone(),
        value: value.clone(),
    })
    .chain(deletes.map(|key| Write::Delete { key: key.clone() }))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_written() {
        let keys = |list: &[(&str, &str)]| -> KeyValues {
            list.iter()
                .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()))
                .collect()
        };
        let writes = difference(
            &keys(&[("a", "1"), ("b", "1"), ("c", "1")]),
            &keys(&[("a", "1"), ("b", "2")]),
        );
        assert_eq!(
            writes,
            [
                Write::Put {
                    key: "b".to_owned(),
                    value: b"2".to_vec()
                },
                Write::Delete {
                    key: "c".to_owned()
                }
            ]
        );
    }
}
