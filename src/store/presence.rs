//! What `nodes/NAME/alive` says of this host, put together by those who know a part of it.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{
    etcd::Etcd,
    layout::{self, AliveDoc},
};

/// What the others see of this host as long as its lease holds.
#[derive(Clone, Debug)]
pub(crate) struct Presence {
    etcd: Etcd,
    doc: Arc<Mutex<AliveDoc>>,
}

impl Presence {
    pub(super) fn new(etcd: Etcd, doc: AliveDoc) -> Self {
        Self {
            etcd,
            doc: Arc::new(Mutex::new(doc)),
        }
    }

    /// Tells hosts that have no memory of a store which cluster this one belongs to, and whether it
    /// doubts this store.
    pub(super) fn belongs(&self, cluster: &str, doubts: bool) {
        self.update(|doc| (doc.cluster, doc.doubts) = (Some(cluster.to_owned()), doubts));
    }

    /// Whether this host's control loop hangs: one that does leads nobody and takes no pods. The
    /// loop itself stands for election again once it goes on.
    pub(crate) fn hangs(&self, hangs: bool) {
        if hangs {
            self.etcd.set_candidate(false);
        }
        self.update(|doc| doc.hangs = hangs);
    }

    fn update(&self, change: impl FnOnce(&mut AliveDoc)) {
        let mut doc = self.doc.lock();
        change(&mut doc);
        self.etcd.set_alive(layout::text(&*doc));
    }
}
