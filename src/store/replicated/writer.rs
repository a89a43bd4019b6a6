//! What this host writes to etcd: a leader's decisions, its own keys, and its whole copy into a
//! store that is adopted.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use reconciler::{
    foreign::ForeignText,
    name::NodeName,
    state::{Change, ClusterState, NodeFacts, RecordFormat, RecordKey},
};

use super::{RESPITE, ReplicatedStore, StoreStatus, WITHDRAWAL};
use crate::store::{
    agreed::known_schema,
    etcd::{Fence, Write, WriteError},
    layout::{self, AnswerDoc, AwayDoc, DECIDED, Decided, Epoch, IDENTITY, ReportDoc},
};

impl ReplicatedStore {
    /// Writes a decision under the fence, and takes it over once it is written. The answer to the
    /// host that asked is in the same write: otherwise the next leader would execute the request a
    /// second time.
    pub(crate) async fn commit(
        &mut self,
        changes: Vec<Change>,
        answer: Option<(NodeName, AnswerDoc)>,
    ) -> Result<()> {
        let mut writes = layout::writes(&changes);
        writes.extend(answer.map(|(node, answer)| Decided::answer(node, answer).write()));
        let fence = self.fence()?;
        let epoch = Epoch {
            incarnation: self.marker.incarnation,
            revision: fence.revision,
        };
        if self.contents.epoch != epoch {
            writes.insert(0, Decided::epoch(epoch).write());
        }
        self.write_fenced(&fence, writes).await?;
        Ok(self.take_over()?)
    }

    /// Writes again the records that somebody other than a leader deleted or changed.
    pub(crate) async fn put_back(&mut self) -> Result<()> {
        let mut wronged = self.contents.wronged();
        wronged.extend(self.marker.subnets.wronged(&self.contents.subnets));
        if wronged.is_empty() {
            return Ok(());
        }
        let fence = self.fence()?;
        tracing::warn!(
            records = wronged.len(),
            "records were deleted or changed by somebody other than a leader: they are written again"
        );
        self.write_fenced(&fence, wronged).await
    }

    /// Answers a request of another host that was not executed.
    pub(crate) async fn answer(&mut self, node: &NodeName, answer: AnswerDoc) -> Result<()> {
        let fence = self.fence()?;
        self.write_fenced(&fence, vec![Decided::answer(node.clone(), answer).write()])
            .await
    }

    /// The proof to etcd that this host leads; an error if it does not.
    fn fence(&self) -> Result<Fence> {
        ensure!(self.leads(), "this host does not lead");
        let fence = self.leadership.fence();
        fence.cloned().context("this host does not lead")
    }

    async fn write_fenced(&mut self, fence: &Fence, writes: Vec<Write>) -> Result<()> {
        match self.etcd.write_fenced(fence, writes.clone()).await {
            Ok(revision) => {
                self.contents.wrote(revision, &writes);
                self.last_write.wrote(revision);
                Ok(())
            }
            Err(WriteError::Fenced) => {
                self.leadership.fenced_off(RESPITE, Instant::now());
                self.etcd.set_candidate(false);
                bail!("the decision was not written: {}", WriteError::Fenced)
            }
            // Etcd is full, or this host's user lacks the permission: another host may be able to
            // write, and requests must not repeat without end.
            Err(error @ WriteError::Refused(_)) => {
                self.withdraw(WITHDRAWAL);
                bail!("the decision could not be written to the store: {error}")
            }
            Err(error) => {
                // A part of the decision may be written: the store is listed before the next
                // decision.
                self.leadership.catch_up(self.etcd.relist());
                bail!("the decision could not be written to the store: {error}")
            }
        }
    }

    /// Publishes this node's facts and report.
    pub(crate) fn publish(
        &mut self,
        facts: &NodeFacts,
        peer: Option<SocketAddr>,
        report: &ReportDoc,
    ) {
        self.own_keys.set_facts(facts, peer);
        if !self.may_publish() {
            return;
        }
        let mut report = report.clone();
        if let StoreStatus::Frozen { .. } = self.status {
            // This host would not execute the leader's assignments.
            report.unready.get_or_insert_with(|| {
                ForeignText::new("it does not trust the store: see its `windlass status`")
            });
        }
        self.own_keys.publish(&report);
    }

    /// Makes the publisher compare its keys with the store, after a list.
    pub(super) fn republish(&mut self) {
        let prefix = layout::node_prefix(&self.node);
        let alive = layout::node_key(&self.node, "alive");
        let keys: Vec<String> = self.contents.keys(&prefix).map(str::to_owned).collect();
        // The values are not kept as they were written, so every key in the list is written once
        // more; keys that are not wanted any more are deleted.
        let listed = keys
            .into_iter()
            .filter(|key| *key != alive)
            .map(|key| (key, Vec::new()))
            .collect();
        self.own_keys.publish_clock();
        self.own_keys.observed(listed);
        let mine = self.contents.subnets.get(&self.marker.subnet);
        if mine.is_none() {
            let (etcd, key) = (self.etcd.clone(), layout::subnet_key(self.marker.subnet));
            let value = layout::text(&self.node);
            tokio::spawn(async move {
                // If another host was faster, the next list shows that.
                let _ = etcd.create(&key, value).await;
            });
        }
    }

    /// Announces that this host will be back soon, and gives leadership up.
    pub(crate) async fn leave(&mut self, back_within: Duration) {
        let seconds = back_within.as_secs();
        let until = Timestamp::now() + back_within;
        let key = layout::node_key(&self.node, "away");
        let away = Write::Put {
            key,
            value: layout::text(&AwayDoc { until, seconds }),
        };
        if self.may_publish()
            && let Err(error) = self.etcd.write(vec![away]).await
        {
            tracing::warn!(
                "the announcement that this host will be back soon could not be written to the store: {error}"
            );
        }
        self.etcd.end(false).await;
    }

    /// Replaces the store's content by this host's copy, and makes this the store that all hosts
    /// trust.
    pub(crate) async fn adopt(&mut self) -> Result<String> {
        if self.status == StoreStatus::Current {
            return Ok(
                "the store is the one this cluster uses; there is nothing to adopt".to_owned(),
            );
        }
        self.check_adoptable()?;

        // The copy may be older than the running pods: each node reports what it holds before
        // anything starts.
        let state = self.local.snapshot().clone().adopted(Timestamp::now());
        if let Some(oldest) = self.oldest_reader(RecordFormat::NEWEST) {
            let records: Vec<Change> = state.records().into_iter().map(Change::Put).collect();
            oldest.check(&records, RecordKey::since)?;
        }
        let stored = self.contents.identity.as_ref();
        let adoptions = stored.map_or(0, |identity| identity.incarnation);
        let incarnation = self.marker.incarnation.max(adoptions) + 1;
        self.etcd
            .write(self.adoption(&state, incarnation))
            .await
            .context("write this host's copy to the store")?;

        self.etcd.relist();
        Ok(format!(
            "the store holds this host's copy now ({} pods); all hosts of cluster {} take it up",
            state.pods.len(),
            self.marker.cluster
        ))
    }

    /// Checks that this host may put its copy into the store.
    fn check_adoptable(&self) -> Result<()> {
        ensure!(
            !matches!(self.status, StoreStatus::Lost { .. }),
            "etcd does not answer; it must be there to be adopted"
        );
        if let StoreStatus::Conflict { why } = &self.status {
            bail!("{why}");
        }
        if let Some(identity) = &self.contents.identity {
            ensure!(
                identity.id == self.marker.cluster,
                "the store holds another cluster, {}: set the prefix of this host's cluster, {}, in [store]",
                identity.id,
                self.marker.cluster
            );
            known_schema(identity)?;
            // Adopting with another configuration would only split the cluster's hosts.
            self.agreed.check(identity)?;
        }
        // This host's copy lacks the records that only a newer version reads, and they would be lost.
        if self.contents.has_unreadable_decisions()
            && let Some((newer, _)) = self.newer_members().next()
        {
            bail!(
                "the store holds records that this version of Windlass cannot read, and an adoption would delete \
                 them: run `windlass cluster adopt-store` on node {newer}, which has a newer version, or upgrade this \
                 host first"
            );
        }
        Ok(())
    }

    /// The writes that replace the leader's records by those of a state.
    fn adoption(&self, state: &ClusterState, incarnation: u64) -> Vec<Write> {
        let mut records = layout::records(state);
        records.push(Decided::epoch(Epoch {
            incarnation,
            revision: 0,
        }));
        let wanted: BTreeSet<String> = records.iter().map(Decided::key).collect();
        let stale = self
            .contents
            .keys(DECIDED)
            .filter(|key| !wanted.contains(*key) && !key.starts_with(layout::ANSWERS));
        let mut writes: Vec<Write> = stale
            .map(|key| Write::Delete {
                key: key.to_owned(),
            })
            .collect();

        writes.extend(records.iter().map(Decided::write));
        // Written last: a host that reads the identity relies on the other records.
        let identity = self.agreed.identity(&self.marker.cluster, incarnation);
        writes.push(Write::Put {
            key: IDENTITY.to_owned(),
            value: layout::text(&identity),
        });
        writes
    }
}
