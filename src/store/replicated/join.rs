//! Becoming part of the cluster in the store, or making it from what this host decided as long as it was alone.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ipnet::Ipv4Net;
use tokio::sync::mpsc;

use super::{Joining, belief::Marker, subnets::Reservations};
use crate::store::{
    agreed::{Agreed, known_schema},
    contents::Contents,
    etcd::{Created, Etcd, Event, Write, name_taken},
    layout::{self, Decided, IDENTITY, SEEDING},
    local::LocalStore,
};

/// How often a new host that must wait for the store says so.
const PATIENCE: Duration = Duration::from_secs(10);
/// When what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A host that the store does not know yet.
pub(super) struct Newcomer<'a> {
    pub(super) etcd: &'a Etcd,
    pub(super) events: &'a mut mpsc::UnboundedReceiver<Event>,
    pub(super) contents: &'a mut Contents,
    pub(super) local: &'a LocalStore,
    pub(super) joining: &'a Joining,
}

impl Newcomer<'_> {
    /// Waits for the store, joins or makes the cluster in it, and reserves a subnet.
    pub(super) async fn join(mut self) -> Result<Marker> {
        let etcd_cluster = self.next_list(0).await?;
        self.await_name().await?;
        self.make_cluster().await?;
        let Some(identity) = self.contents.identity.clone() else { bail!("the store has no cluster") };
        known_schema(&identity).map_err(anyhow::Error::msg)?;
        self.joining.agreed.check(&identity).map_err(anyhow::Error::msg)?;
        let subnet = self.reserve().await?;
        Ok(Marker {
            cluster: identity.id,
            incarnation: identity.incarnation,
            etcd_cluster,
            revision: self.contents.revision,
            epoch: self.contents.epoch.clone(),
            decided: self.contents.lasting().unwrap_or_default(),
            doubt: None,
            subnet,
            subnets: Reservations::default(),
        })
    }

    /// Waits for a list that was begun after `awaited` requests for one, saying what is waited for.
    async fn next_list(&mut self, awaited: u64) -> Result<u64> {
        let mut why = "it has not answered yet".to_owned();
        loop {
            match tokio::time::timeout(PATIENCE, self.events.recv()).await {
                Ok(Some(Event::Listed { etcd_cluster, revision, asked, pairs })) if asked >= awaited => {
                    self.contents.list(revision, pairs);
                    return Ok(etcd_cluster);
                }
                Ok(Some(Event::Lost { why: now })) => {
                    tracing::warn!("waiting for the store: {now}");
                    why = now;
                }
                Ok(Some(Event::Conflict { why })) => bail!("{why}"),
                Ok(Some(_)) => {}
                Ok(None) => bail!("the connection to etcd has ended"),
                Err(_) => tracing::warn!("a host that joins a cluster needs its store; still waiting: {why}"),
            }
        }
    }

    /// Reads everything anew: what another host has written by now is in it.
    async fn refresh(&mut self) -> Result<()> {
        let awaited = self.etcd.relist();
        self.next_list(awaited).await.map(drop)
    }

    /// Waits until the name is this host's: until then it writes nothing, and takes up nothing.
    async fn await_name(&mut self) -> Result<()> {
        let (joining, local) = (self.joining, self.local);
        let (node, installation) = (&joining.node, local.installation());
        let since = Instant::now();
        let mut told = false;
        loop {
            let alive = self.contents.members.get(node).and_then(|own| own.alive.as_ref());
            match alive {
                Some(alive) if alive.installation == installation => return Ok(()),
                Some(alive) => bail!("{}", name_taken(node, &alive.installation, installation)),
                None => {}
            }
            if since.elapsed() > PATIENCE && !std::mem::replace(&mut told, true) {
                tracing::warn!(
                    "waiting for the name {node} in the store: this host's user must be allowed to write under {}",
                    layout::node_prefix(node)
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.refresh().await?;
        }
    }

    /// Makes the cluster, unless it is there or another host is at it.
    async fn make_cluster(&mut self) -> Result<()> {
        let own = layout::text(&self.local.installation());
        while self.contents.identity.is_none() {
            match self.etcd.create(SEEDING, own.clone()).await {
                Ok(Created::Exists(pair)) if pair.value != own => {
                    tracing::warn!(
                        "another host is filling the new store; if it is gone, delete {SEEDING} under the prefix"
                    );
                    tokio::time::sleep(RETRY).await;
                }
                // Whoever held it before may have filled the store since this host looked.
                Ok(_) => {
                    self.refresh().await?;
                    let mut writes = match self.contents.identity {
                        None => self.first_records(),
                        Some(_) => Vec::new(),
                    };
                    writes.push(Write::Delete { key: SEEDING.to_owned() });
                    self.etcd.write(writes).await.context("fill the new store")?;
                }
                Err(error) => {
                    tracing::warn!("waiting to fill the new store: {error}");
                    tokio::time::sleep(RETRY).await;
                }
            }
            self.refresh().await?;
        }
        Ok(())
    }

    /// What this host has decided as long as it was alone; the identity last, since whoever sees it finds the rest.
    fn first_records(&self) -> Vec<Write> {
        let state = self.local.snapshot();
        tracing::info!(cluster = %state.cluster, pods = state.pods.len(), "the store is new: it gets this host's state");
        let identity = self.joining.agreed.identity(&state.cluster, 1);
        let mut writes: Vec<Write> = layout::records(state).iter().map(Decided::write).collect();
        writes.push(Write::Put { key: IDENTITY.to_owned(), value: layout::text(&identity) });
        writes
    }

    /// Reserves this node's subnet.
    async fn reserve(&mut self) -> Result<Ipv4Net> {
        let joining = self.joining;
        let Joining { node, agreed: Agreed { pod_range, subnet_length, .. }, .. } = joining;
        let has_pods = self.local.snapshot().pods.values().any(|record| record.place.node() == Some(node));
        let wanted = joining.subnet.or_else(|| has_pods.then_some(joining.subnet_alone));
        let own = layout::text(node);
        loop {
            let taken = &self.contents.subnets;
            let reserved = taken.iter().find(|(_, holder)| *holder == node).map(|(subnet, _)| *subnet);
            let subnet = match (wanted, reserved) {
                (Some(wanted), _) => wanted,
                (None, Some(reserved)) => return Ok(reserved),
                (None, None) => {
                    let free = pod_range.subnets(*subnet_length).ok();
                    let free =
                        free.and_then(|mut subnets| subnets.find(|subnet| !taken.contains_key(subnet)));
                    free.with_context(|| {
                        format!("no /{subnet_length} is free in pod-range {pod_range} for this host's pods")
                    })?
                }
            };
            ensure!(
                pod_range.contains(&subnet) && subnet.prefix_len() == *subnet_length,
                "pod-subnet {subnet} must be a /{subnet_length} of pod-range {pod_range}, as on the other hosts"
            );
            match self.etcd.create(&layout::subnet_key(subnet), own.clone()).await {
                Ok(Created::Made(_)) => return Ok(subnet),
                Ok(Created::Exists(pair)) if pair.value == own => return Ok(subnet),
                Ok(Created::Exists(pair)) if wanted.is_some() => bail!(
                    "pod subnet {subnet} overlaps: it is reserved for node {}; give this host another `pod-subnet` in \
                     [network]{}",
                    String::from_utf8_lossy(&pair.value),
                    if has_pods { ", after its pods are gone: they have addresses of this one" } else { "" }
                ),
                Ok(Created::Exists(_)) => {}
                Err(error) => {
                    tracing::warn!("waiting to reserve pod subnet {subnet}: {error}");
                    tokio::time::sleep(RETRY).await;
                }
            }
            self.refresh().await?;
        }
    }
}
