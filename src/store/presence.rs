//! The content of `nodes/NAME/alive`, composed by the parts that each know a field of it.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{
    etcd::Etcd,
    layout::{self, AliveDoc},
};

/// What other hosts see of this host while its lease holds.
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

    /// Publishes which cluster this host belongs to, and whether it doubts the store: hosts without
    /// a memory of a store rely on that.
    pub(super) fn belongs(&self, cluster: &str, doubts: bool) {
        self.update(|doc| (doc.cluster, doc.doubts) = (Some(cluster.to_owned()), doubts));
    }

    /// Publishes whether this host's control loop hangs: such a host leads nobody and takes no
    /// pods. The loop itself stands for election again once it continues.
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
