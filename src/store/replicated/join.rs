//! How a host becomes a member of the cluster in the store, or makes that cluster from its own
//! decisions of the time when it was alone.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ipnet::Ipv4Net;
use reconciler::name::NodeName;
use tokio::sync::{mpsc, watch};

use super::{Joining, NODE_LEASE, marker::Marker, subnets::Reservations};
use crate::store::{
    agreed::{Agreed, known_schema},
    contents::Contents,
    etcd::{Created, Etcd, StoreEvent, Write, name_taken},
    layout::{self, Decided, IDENTITY, SEEDING},
    local::LocalStore,
};

/// How often a new host logs what of the store it waits for.
const PATIENCE: Duration = Duration::from_secs(10);
/// After this time a failed write is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How often a new host reads which other hosts there are.
const LOOK: Duration = Duration::from_secs(1);
/// Within this time every living host has published that it lives, and whether it trusts the store.
const CALM: Duration = NODE_LEASE;

/// A host that the store does not know yet.
pub(super) struct Newcomer<'a> {
    etcd: &'a Etcd,
    events: &'a mut mpsc::UnboundedReceiver<StoreEvent>,
    contents: &'a mut Contents,
    local: &'a LocalStore,
    joining: &'a Joining,
    /// What this host waits for, as a sentence for people.
    waiting: &'a watch::Sender<String>,
    /// Etcd's own id of its cluster, from the last list.
    etcd_cluster: u64,
    /// Since when the store has answered without an interruption.
    calm: Instant,
}

impl<'a> Newcomer<'a> {
    pub(super) fn new(
        etcd: &'a Etcd,
        events: &'a mut mpsc::UnboundedReceiver<StoreEvent>,
        contents: &'a mut Contents,
        local: &'a LocalStore,
        joining: &'a Joining,
        waiting: &'a watch::Sender<String>,
    ) -> Self {
        Self {
            etcd,
            events,
            contents,
            local,
            joining,
            waiting,
            etcd_cluster: 0,
            calm: Instant::now(),
        }
    }

    /// Waits for the store, joins its cluster or makes one in it, and reserves a subnet.
    pub(super) async fn join(mut self) -> Result<Marker> {
        self.next_list(0).await?;
        self.calm = Instant::now();
        self.await_name().await?;
        self.await_calm().await?;
        self.make_cluster().await?;
        let Some(identity) = self.contents.identity.clone() else {
            bail!("the store has no cluster")
        };
        known_schema(&identity)?;
        self.joining.agreed.check(&identity)?;
        let subnet = self.reserve().await?;
        Ok(Marker {
            cluster: identity.id,
            incarnation: identity.incarnation,
            etcd_cluster: self.etcd_cluster,
            revision: self.contents.revision,
            epoch: self.contents.epoch.clone(),
            decided: self.contents.lasting().unwrap_or_default(),
            doubt: None,
            subnet,
            subnets: Reservations::default(),
        })
    }

    /// Waits for a list that was begun after `awaited` requests for one, and reports what it waits
    /// for.
    async fn next_list(&mut self, awaited: u64) -> Result<()> {
        let mut why = "it has not answered yet".to_owned();
        loop {
            match tokio::time::timeout(PATIENCE, self.events.recv()).await {
                Ok(Some(StoreEvent::Listed {
                    etcd_cluster,
                    revision,
                    asked,
                    pairs,
                })) if asked >= awaited => {
                    if etcd_cluster != self.etcd_cluster || revision < self.contents.revision {
                        self.calm = Instant::now();
                    }
                    self.etcd_cluster = etcd_cluster;
                    self.contents.list(revision, pairs);
                    return Ok(());
                }
                Ok(Some(StoreEvent::Lost { why: now })) => {
                    self.calm = Instant::now();
                    self.report_waiting(format!("waiting for the store: {now}"));
                    why = now;
                }
                Ok(Some(StoreEvent::Conflict { why })) => bail!("{why}"),
                Ok(Some(_)) => {}
                Ok(None) => bail!("the connection to etcd has ended"),
                Err(_) => self.report_waiting(format!(
                    "a host that joins a cluster needs its store; still waiting: {why}"
                )),
            }
        }
    }

    /// Reads the whole store again, so that the writes of other hosts until now are known.
    async fn refresh(&mut self) -> Result<()> {
        let awaited = self.etcd.relist();
        self.next_list(awaited).await
    }

    /// Reports what is waited for, once for each reason.
    fn report_waiting(&self, why: String) {
        self.waiting.send_if_modified(|before| {
            let news = *before != why;
            if news {
                tracing::warn!("{why}");
                *before = why;
            }
            news
        });
    }

    fn is_calm(&self) -> bool {
        self.calm.elapsed() >= CALM && objection(self.contents, &self.joining.node).is_none()
    }

    /// Waits until the store has answered for a while and no host that knows the store objects to
    /// it: this host remembers no store, so it can tell neither an empty store from a wiped one,
    /// nor an old store from a restored one.
    async fn await_calm(&mut self) -> Result<()> {
        loop {
            if self.is_calm() {
                return Ok(());
            }
            let why = objection(self.contents, &self.joining.node);
            self.report_waiting(why.unwrap_or_else(|| {
                "waiting for a moment whether another host knows better what the store should be".to_owned()
            }));
            tokio::time::sleep(LOOK).await;
            self.refresh().await?;
        }
    }

    /// Waits until the name is this host's: before that, this host writes nothing and starts
    /// nothing.
    async fn await_name(&mut self) -> Result<()> {
        let (joining, local) = (self.joining, self.local);
        let (node, installation) = (&joining.node, local.installation());
        let since = Instant::now();
        loop {
            let alive = self
                .contents
                .members
                .get(node)
                .and_then(|own| own.alive.as_ref());
            match alive {
                Some(alive) if alive.installation == *installation => return Ok(()),
                Some(alive) => bail!("{}", name_taken(node, &alive.installation, installation)),
                None => {}
            }
            if since.elapsed() > PATIENCE {
                self.report_waiting(format!(
                    "waiting for the name {node} in the store: this host's user must be allowed to write under {}",
                    layout::node_prefix(node)
                ));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.refresh().await?;
        }
    }

    /// Makes the cluster, unless the cluster exists or another host is making it.
    async fn make_cluster(&mut self) -> Result<()> {
        let own = layout::text(&self.local.installation());
        while self.contents.identity.is_none() {
            match self.etcd.create(SEEDING, own.clone()).await {
                Ok(Created::Exists(pair)) if pair.value != own => {
                    self.report_waiting(format!(
                        "another host is filling the new store; if it is gone, delete {SEEDING} under the prefix"
                    ));
                    tokio::time::sleep(RETRY).await;
                }
                // The host that held the key before may have filled the store since this host read
                // it.
                Ok(_) => {
                    self.refresh().await?;
                    let mut writes = match self.contents.identity {
                        None if self.is_calm() => self.first_records(),
                        _ => Vec::new(),
                    };
                    writes.push(Write::Delete {
                        key: SEEDING.to_owned(),
                    });
                    self.etcd
                        .write(writes)
                        .await
                        .context("fill the new store")?;
                }
                Err(error) => {
                    self.report_waiting(format!("waiting to fill the new store: {error}"));
                    tokio::time::sleep(RETRY).await;
                }
            }
            self.refresh().await?;
            // The store may have been lost while this host waited or wrote.
            self.await_calm().await?;
        }
        Ok(())
    }

    /// The decisions of this host from the time when it was alone. The identity comes last, since a
    /// host that reads the identity relies on the other records.
    fn first_records(&self) -> Vec<Write> {
        let state = self.local.snapshot();
        tracing::info!(cluster = %state.cluster, pods = state.pods.len(), "the store is new: it gets this host's state");
        let identity = self.joining.agreed.identity(&state.cluster, 1);
        let mut writes: Vec<Write> = layout::records(state).iter().map(Decided::write).collect();
        writes.push(Write::Put {
            key: IDENTITY.to_owned(),
            value: layout::text(&identity),
        });
        writes
    }

    /// Reserves this node's subnet.
    async fn reserve(&mut self) -> Result<Ipv4Net> {
        let joining = self.joining;
        let Joining {
            node,
            agreed:
                Agreed {
                    pod_range,
                    subnet_length,
                    ..
                },
            ..
        } = joining;
        let has_pods = self
            .local
            .snapshot()
            .pods
            .values()
            .any(|record| record.place.node() == Some(node));
        let wanted = joining
            .subnet
            .or_else(|| has_pods.then_some(joining.subnet_alone));
        let own = layout::text(node);
        loop {
            let taken = &self.contents.subnets;
            let reserved = taken
                .iter()
                .find(|(_, holder)| *holder == node)
                .map(|(subnet, _)| *subnet);
            let subnet = match (wanted, reserved) {
                (Some(wanted), _) => wanted,
                (None, Some(reserved)) => return Ok(reserved),
                (None, None) => {
                    let free = pod_range.subnets(*subnet_length).ok();
                    let free = free
                        .and_then(|mut subnets| subnets.find(|subnet| !taken.contains_key(subnet)));
                    free.with_context(|| {
                        format!("no /{subnet_length} is free in pod-range {pod_range} for this host's pods")
                    })?
                }
            };
            ensure!(
                pod_range.contains(&subnet) && subnet.prefix_len() == *subnet_length,
                "pod-subnet {subnet} must be a /{subnet_length} of pod-range {pod_range}, as on the other hosts"
            );
            match self
                .etcd
                .create(&layout::subnet_key(subnet), own.clone())
                .await
            {
                Ok(Created::Made(_)) => return Ok(subnet),
                Ok(Created::Exists(pair)) if pair.value == own => return Ok(subnet),
                Ok(Created::Exists(pair)) if wanted.is_some() => bail!(
                    "pod subnet {subnet} overlaps: it is reserved for node {}; give this host another `pod-subnet` in \
                     [network]{}",
                    String::from_utf8_lossy(&pair.value),
                    if has_pods {
                        ", after its pods are gone: they have addresses of this one"
                    } else {
                        ""
                    }
                ),
                Ok(Created::Exists(_)) => {}
                Err(error) => {
                    self.report_waiting(format!("waiting to reserve pod subnet {subnet}: {error}"));
                    tokio::time::sleep(RETRY).await;
                }
            }
            self.refresh().await?;
        }
    }
}

/// Why this host must not join the store as it is: a living host belongs to another cluster than
/// the store, or does not trust the store.
fn objection(contents: &Contents, node: &NodeName) -> Option<String> {
    let stored = contents.identity.as_ref().map(|identity| &identity.id);
    contents.members.iter().filter(|(name, _)| *name != node).find_map(|(name, member)| {
        let alive = member.alive.as_ref()?;
        let own = alive.cluster.as_ref()?;
        let why = match stored {
            Some(stored) if stored == own && !alive.doubts => return None,
            Some(stored) if stored == own => "does not trust the content of the store".to_owned(),
            Some(stored) => format!("belongs to cluster {own}, and the store holds {stored}"),
            None => format!("belongs to cluster {own}, and the store has no cluster under its prefix"),
        };
        Some(format!(
            "node {name} {why}: this host has never been in the cluster and cannot know better, so it waits; look at \
             `windlass status` on {name}, and make its copy the store's content with `windlass cluster adopt-store` \
             there, or correct `prefix` in [store] here"
        ))
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use reconciler::name::Installation;

    use super::*;
    use crate::store::{
        etcd::StoredValue,
        layout::{AliveDoc, node_key, text},
    };

    fn alive(node: &str, cluster: Option<&str>, doubts: bool) -> StoredValue {
        let cluster = cluster.map(str::to_owned);
        let doc = AliveDoc {
            installation: Installation::new(node),
            cluster,
            doubts,
            hangs: false,
        };
        StoredValue {
            key: node_key(&NodeName::new(node), "alive"),
            value: text(&doc),
            revision: 3,
        }
    }

    fn objected(identity: Option<&str>, others: &[StoredValue]) -> Option<String> {
        let agreed = Agreed {
            pod_range: "10.244.0.0/16".parse().unwrap(),
            subnet_length: 24,
            service_range: "10.96.0.0/16".parse().unwrap(),
            dns: "10.96.0.10".parse().unwrap(),
            zone: "cluster.local".to_owned(),
            node_ports: (30000, 32767),
        };
        let identity = identity.map(|id| text(&agreed.identity(id, 1)));
        let identity = identity.map(|value| StoredValue {
            key: IDENTITY.to_owned(),
            value,
            revision: 2,
        });
        let own = alive("n4", None, false);
        let mut contents = Contents::default();
        contents.list(
            3,
            identity
                .into_iter()
                .chain(others.iter().cloned())
                .chain([own])
                .collect(),
        );
        objection(&contents, &NodeName::new("n4"))
    }

    #[test]
    fn a_host_without_memory_hears_those_who_remember() {
        // Three new hosts at the same time, and a store that its hosts trust.
        assert_eq!(
            objected(None, &[alive("n1", None, false), alive("n2", None, false)]),
            None
        );
        assert_eq!(
            objected(
                Some("c"),
                &[alive("n1", Some("c"), false), alive("n2", None, false)]
            ),
            None
        );
        // A host of a version that does not publish this.
        let old = StoredValue {
            value: b"{\"installation\":\"n1\"}".to_vec(),
            ..alive("n1", None, false)
        };
        assert_eq!(objected(None, &[old]), None);

        let wiped = objected(
            None,
            &[alive("n1", None, false), alive("n2", Some("c"), true)],
        )
        .unwrap();
        assert!(
            wiped.contains("node n2 belongs to cluster c, and the store has no cluster"),
            "{wiped}"
        );
        let other = objected(
            Some("d"),
            &[alive("n1", Some("d"), false), alive("n2", Some("c"), true)],
        )
        .unwrap();
        assert!(
            other.contains("node n2 belongs to cluster c, and the store holds d"),
            "{other}"
        );
        let restored = objected(Some("c"), &[alive("n1", Some("c"), true)]).unwrap();
        assert!(
            restored.contains("node n1 does not trust the content of the store"),
            "{restored}"
        );
        assert!(
            restored.contains("`windlass cluster adopt-store` there"),
            "{restored}"
        );
    }
}
