//! The cluster's DNS on this host: answers for the cluster's zone from memory, everything else from
//! the host's own name servers.
//!
//! It runs on a thread of its own, so that no reconcile can make a pod wait for a name.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    sync::Arc,
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use hickory_server::{
    Server,
    net::runtime::Time,
    proto::{
        op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode},
        rr::{DNSClass, Name, Record, RecordType},
    },
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use parking_lot::RwLock;
use reconciler::network::DnsRecords;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use tokio::sync::oneshot;

pub(crate) use self::callers::Callers;
use self::{
    upstream::Upstream,
    zone::{Zone, ZoneAnswer},
};
use crate::{
    connections::{Bounded, Connections, Source},
    descriptors::Taker,
};

pub(crate) mod cache;
mod callers;
mod tcp;
mod upstream;
mod zone;

/// For how many seconds clients may cache an answer: a changed Service may be unnoticed for this
/// time.
const TTL: u32 = 5;
/// The number of connections that wait to be accepted: in a flood, other clients must not meet a
/// full queue.
const TCP_BACKLOG: i32 = 1024;
/// The most aliases that are followed one after another.
const ALIASES: usize = 8;
/// The largest UDP answer: it passes every link without fragments.
const UDP_PAYLOAD: u16 = 1232;

/// The running server, which ends when the value is dropped.
pub(crate) struct Dns {
    zone: Arc<RwLock<Arc<Zone>>>,
    callers: Arc<RwLock<Callers>>,
    #[cfg(test)]
    address: SocketAddrV4,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// Serves `records` on an address, UDP and TCP. The address need not be on the host yet. Port 0
    /// takes a free one.
    ///
    /// `upstreams` are asked for names outside the zone; the server itself is left out of them.
    /// Nobody but the `callers` is answered.
    pub(crate) fn start(
        address: SocketAddrV4,
        records: DnsRecords,
        callers: Callers,
        upstreams: Vec<SocketAddr>,
    ) -> Result<Self> {
        let (udp, tcp) = sockets(address)
            .with_context(|| format!("cannot serve the cluster's DNS on {address}"))?;
        let SocketAddr::V4(address) = udp.local_addr()? else {
            anyhow::bail!("{address} is not IPv4")
        };

        let zone = Arc::new(RwLock::new(Arc::new(Zone::new(records))));
        let callers = Arc::new(RwLock::new(callers));
        // A host whose resolv.conf names this server would ask itself without end.
        let others = upstreams
            .into_iter()
            .filter(|upstream| *upstream != SocketAddr::V4(address))
            .collect();

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let service = DnsService {
            zone: Arc::clone(&zone),
            callers: Arc::clone(&callers),
        };
        let thread = thread::Builder::new()
            .name("dns".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    if let Err(error) = serve(udp, tcp, service, others, stopped).await {
                        tracing::error!(
                            error = format!("{error:#}"),
                            "the cluster's DNS has ended"
                        );
                    }
                });
            })?;

        Ok(Self {
            zone,
            callers,
            #[cfg(test)]
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Answers from these records from now on.
    pub(crate) fn publish(&self, records: DnsRecords) {
        let zone = Arc::new(Zone::new(records));
        *self.zone.write() = zone;
    }

    /// Answers these callers, and no others, from now on.
    pub(crate) fn admit(&self, callers: Callers) {
        *self.callers.write() = callers;
    }

    /// The address of the server, with the port that it has taken.
    #[cfg(test)]
    pub(crate) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Whether the thread still runs.
    pub(crate) fn is_serving(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread has logged its error already.
            let _ = thread.join();
        }
    }
}

/// Sockets that can be bound before a device has the address.
fn sockets(address: SocketAddrV4) -> Result<(UdpSocket, TcpListener)> {
    let open = |kind, address: &SocketAddrV4| -> rustix::io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, kind, flags, None)?;
        // IP_FREEBIND, ip(7): the address may be added later, with the device `windlass0`.
        sockopt::set_ip_freebind(&socket, true)?;
        // Connections of the daemon before this one may still be in TIME-WAIT.
        if kind == SocketType::STREAM {
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        bind(&socket, address)?;
        Ok(socket)
    };

    let tcp = open(SocketType::STREAM, &address)?;
    listen(&tcp, TCP_BACKLOG)?;
    let tcp = TcpListener::from(tcp);

    // Port 0 takes a free port: UDP gets the same one.
    let port = tcp.local_addr()?.port();
    let udp = UdpSocket::from(open(
        SocketType::DGRAM,
        &SocketAddrV4::new(*address.ip(), port),
    )?);
    Ok((udp, tcp))
}

async fn serve(
    udp: UdpSocket,
    tcp: TcpListener,
    service: DnsService,
    upstreams: Vec<SocketAddr>,
    stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let handler = Handler {
        service,
        upstream: Arc::new(Upstream::new(&upstreams, Taker::DnsUpstream.bounds())?),
    };
    let mut server = Server::new(handler.clone());
    server.register_socket(tokio::net::UdpSocket::from_std(udp)?);

    let connections = Connections::new("DNS over TCP", Taker::Dns.bounds());
    let listener = Bounded::new(tokio::net::TcpListener::from_std(tcp)?, connections);

    tokio::select! {
        ended = server.block_until_done() => Ok(ended?),
        () = tcp::serve(listener, handler) => Ok(()),
        _ = stopped => Ok(server.shutdown_gracefully().await?),
    }
}

/// What is answered, and to whom, as last published.
#[derive(Clone)]
struct DnsService {
    zone: Arc<RwLock<Arc<Zone>>>,
    callers: Arc<RwLock<Callers>>,
}

#[derive(Clone)]
struct Handler {
    service: DnsService,
    upstream: Arc<Upstream>,
}

/// The answer to one query.
#[derive(Debug)]
struct Reply {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    soa: Option<Record>,
}

impl Reply {
    fn code(code: ResponseCode) -> Self {
        Self {
            code,
            authoritative: false,
            answers: Vec::new(),
            soa: None,
        }
    }
}

impl Handler {
    fn admits(&self, caller: IpAddr) -> bool {
        self.service.callers.read().admit(caller)
    }

    /// Resolves a name for a source and follows aliases, inside and outside of the zone.
    async fn resolve(&self, name: &Name, kind: RecordType, turn: u16, source: Source) -> Reply {
        let zone = Arc::clone(&self.service.zone.read());
        let mut reply = Reply {
            authoritative: true,
            ..Reply::code(ResponseCode::NoError)
        };

        let mut name = name.clone();
        for _ in 0..ALIASES {
            match zone.find(&name, kind) {
                ZoneAnswer::Outside => {
                    let answered = self.upstream.ask(&name, kind, source).await;
                    reply.authoritative &= !reply.answers.is_empty();
                    reply.code = answered.code;
                    reply.answers.extend(answered.answers);
                    reply.soa = answered.soa;
                    return reply;
                }
                // Before the first records the names of the zone are unknown. "No such name" would
                // be wrong, and clients would cache it.
                ZoneAnswer::Nothing if zone.is_unknown() => {
                    return Reply::code(ResponseCode::ServFail);
                }
                ZoneAnswer::Nothing => {
                    reply.code = ResponseCode::NXDomain;
                    reply.soa = zone.soa();
                    return reply;
                }
                ZoneAnswer::Data(mut data) => {
                    if data.is_empty() {
                        reply.soa = zone.soa();
                    } else {
                        // Clients use the first address, so each query gets another one first.
                        let first = usize::from(turn) % data.len();
                        data.rotate_left(first);
                    }
                    let records = data
                        .into_iter()
                        .map(|data| Record::from_rdata(name.clone(), TTL, data));
                    reply.answers.extend(records);
                    return reply;
                }
                ZoneAnswer::Alias(alias) => {
                    let (target, data) = *alias;
                    reply.answers.push(Record::from_rdata(name, TTL, data));
                    if kind == RecordType::CNAME {
                        return reply;
                    }
                    name = target;
                }
            }
        }
        // An alias of itself, or a chain of aliases that is too long.
        Reply::code(ResponseCode::ServFail)
    }

    async fn reply(&self, request: &Request) -> Reply {
        if request.metadata.message_type != MessageType::Query {
            return Reply::code(ResponseCode::FormErr);
        }
        if request.metadata.op_code != OpCode::Query {
            return Reply::code(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else {
            return Reply::code(ResponseCode::FormErr);
        };
        if info.query.query_class() != DNSClass::IN {
            return Reply::code(ResponseCode::Refused);
        }

        let question = info.query.original();
        let (name, kind) = (question.name(), question.query_type());
        let source = Source::from(request.src());
        self.resolve(name, kind, request.metadata.id, source).await
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        // The answer to a forged sender would be traffic to a victim, a refusal as well.
        if !self.admits(request.src().ip()) {
            return unanswered(Metadata::response_from_request(&request.metadata));
        }
        let mut reply = self.reply(request).await;
        let mut edns = None;
        if let Some(requested) = &request.edns {
            let answered = edns.insert(Edns::new());
            // RFC 6891, 6.2.3: a size below 512 bytes counts as 512.
            answered.set_max_payload(requested.max_payload().clamp(512, UDP_PAYLOAD));
            answered.set_version(0);
            // RFC 6891, 6.1.3: a version that the server does not know is answered with BADVERS.
            if requested.version() > 0 {
                reply = Reply::code(ResponseCode::BADVERS);
                answered.set_rcode_high(ResponseCode::BADVERS.high());
            }
        }

        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = true;
        metadata.response_code = reply.code;

        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &edns {
            builder.edns(edns);
        }
        let message = builder.build(metadata, &reply.answers, [], &reply.soa, []);
        match response.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "a DNS answer could not be sent");
                unanswered(metadata)
            }
        }
    }
}

/// The result for the server where no answer was sent.
fn unanswered(metadata: Metadata) -> ResponseInfo {
    ResponseInfo::from(Header {
        metadata,
        counts: HeaderCounts::default(),
    })
}

/// The name servers in a resolv.conf, in order.
pub(crate) fn upstreams(resolv_conf: &str) -> Vec<SocketAddr> {
    resolv_conf
        .lines()
        .filter_map(name_server)
        .filter(|upstream| upstream.ip() != Ipv4Addr::UNSPECIFIED)
        .collect()
}

/// The address in a line `nameserver ADDRESS` of resolv.conf(5).
fn name_server(line: &str) -> Option<SocketAddr> {
    let mut words = line.split_whitespace();
    if words.next()? != "nameserver" {
        return None;
    }
    Some(SocketAddr::new(words.next()?.parse().ok()?, 53))
}

#[cfg(test)]
mod tests;
