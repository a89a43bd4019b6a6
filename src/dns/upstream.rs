//! Names outside the cluster's zone: they are queried from the host's own name servers, and the
//! answers are cached.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use hickory_server::{
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, Record, RecordType},
    },
    resolver::{
        Resolver, TokioResolver,
        config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    },
};
use tokio::{sync::Semaphore, time};

use super::Reply;
use crate::descriptors::Taker;

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
    questions: Semaphore,
}

impl Upstream {
    pub(super) fn new(servers: &[SocketAddr]) -> Result<Self> {
        let resolver = if servers.is_empty() {
            None
        } else {
            Some(resolver(servers)?)
        };
        // A query beyond the limit is answered with "server failure" at once.
        Ok(Self {
            resolver,
            questions: Semaphore::new(Taker::DnsUpstream.most()),
        })
    }

    /// Queries a name. Any failure is answered with "server failure", never with "no such name".
    pub(super) async fn ask(&self, name: &Name, kind: RecordType) -> Reply {
        let (Some(resolver), Ok(_question)) = (&self.resolver, self.questions.try_acquire()) else {
            return Reply::code(ResponseCode::ServFail);
        };

        // A name that is not absolute would be tried with the host's search domains.
        let mut absolute = name.clone();
        absolute.set_fqdn(true);
        match time::timeout(DEADLINE, resolver.lookup(absolute, kind)).await {
            Ok(Ok(found)) => Reply {
                answers: found.answers().to_vec(),
                ..Reply::code(ResponseCode::NoError)
            },
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => Reply {
                soa: none.soa.map(|soa| {
                    Record::from_rdata(soa.name.clone(), soa.ttl, RData::SOA(soa.data.clone()))
                }),
                ..Reply::code(none.response_code)
            },
            Ok(Err(error)) => {
                tracing::debug!(%name, %error, "no name server answers");
                Reply::code(ResponseCode::ServFail)
            }
            Err(_) => Reply::code(ResponseCode::ServFail),
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
    options.cache_size = CACHE;
    // As with Kubernetes' CoreDNS, the host's own /etc/hosts is not visible to pods.
    options.use_hosts_file = ResolveHosts::Never;
    // A client needs the whole chain of aliases, not its last records alone.
    options.preserve_intermediates = true;
    Ok(builder.build()?)
}
