//! Names outside the cluster's zone: they are queried from the host's own name servers, and the
//! answers are cached.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use hickory_server::{
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::{Message, Query, ResponseCode},
        rr::{Name, RData, Record, RecordType},
    },
    resolver::{
        Resolver, ResponseCache, TokioResolver, TtlConfig,
        config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    },
};
use tokio::time;

use super::Reply;
use crate::connections::{Bounds, Connections, Source};

/// The time limit of a query to one name server.
const PATIENCE: Duration = Duration::from_secs(2);
/// The time limit of a query in all; clients repeat a query after 5 s.
const DEADLINE: Duration = Duration::from_secs(4);
/// The most answers that are cached.
const CACHE: u64 = 2048;

/// The host's name servers.
pub(super) struct Upstream {
    /// `None` if the host has no name servers.
    resolver: Option<TokioResolver>,
    /// The resolver has no cache of its own: an answer from this one needs no place among the
    /// queries.
    cache: ResponseCache,
    /// The queries under way, which are limited as connections are: each has sockets as long as the
    /// name servers are silent.
    queries: Connections,
}

type Answer = Result<Message, NetError>;

impl Upstream {
    /// `bounds` limits the queries under way, all and of one source.
    pub(super) fn new(servers: &[SocketAddr], bounds: Bounds) -> Result<Self> {
        let resolver = if servers.is_empty() {
            None
        } else {
            Some(resolver(servers)?)
        };
        Ok(Self {
            resolver,
            cache: ResponseCache::new(CACHE, TtlConfig::default()),
            queries: Connections::new("DNS, names outside of the cluster", bounds),
        })
    }

    /// Queries a name for a source. Any failure is answered with "server failure", never with "no
    /// such name", and so is a query beyond the limits, at once.
    pub(super) async fn ask(&self, name: &Name, kind: RecordType, source: Source) -> Reply {
        let Some(resolver) = &self.resolver else {
            return Reply::code(ResponseCode::ServFail);
        };
        // A name that is not absolute would be tried with the host's search domains.
        let mut absolute = name.clone();
        absolute.set_fqdn(true);
        let query = Query::query(absolute, kind);
        if let Some(answer) = self.cache.get(&query, Instant::now()) {
            return reply(name, answer);
        }

        let Some(admission) = self.queries.admit(source) else {
            return Reply::code(ResponseCode::ServFail);
        };
        let life = admission.life();
        // A query under way is not closed for the next one of its own source.
        life.prove();
        let _under_way = life.start_request();

        let lookup = resolver.lookup(query.name().clone(), kind);
        let answer = tokio::select! {
            answer = time::timeout(DEADLINE, lookup) => answer,
            // All places are taken, most of them by this source.
            () = life.closed() => return Reply::code(ResponseCode::ServFail),
        };
        let Ok(answer) = answer else {
            return Reply::code(ResponseCode::ServFail);
        };

        let answer = answer.map(|found| found.message().clone());
        self.cache.insert(query, answer.clone(), Instant::now());
        reply(name, answer)
    }
}

fn reply(name: &Name, answer: Answer) -> Reply {
    match answer {
        Ok(message) => Reply {
            answers: message.answers,
            ..Reply::code(ResponseCode::NoError)
        },
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Reply {
            soa: none.soa.map(|soa| {
                Record::from_rdata(soa.name.clone(), soa.ttl, RData::SOA(soa.data.clone()))
            }),
            ..Reply::code(none.response_code)
        },
        Err(error) => {
            tracing::debug!(%name, %error, "no name server answers");
            Reply::code(ResponseCode::ServFail)
        }
    }
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver> {
    let servers = servers.iter().map(|server| {
        let connections =
            [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
        NameServerConfig::new(server.ip(), true, connections.to_vec())
    });
    let config = ResolverConfig::from_name_servers(servers.collect());

    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.timeout = PATIENCE;
    options.attempts = 1;
    // The number of sockets for a query, on which the share of descriptors depends.
    options.num_concurrent_reqs = 2;
    options.cache_size = 0;
    // As with Kubernetes' CoreDNS, the host's own /etc/hosts is not visible to pods.
    options.use_hosts_file = ResolveHosts::Never;
    // A client needs the whole chain of aliases, not its last records alone.
    options.preserve_intermediates = true;
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests;
