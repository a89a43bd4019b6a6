//! The cluster's zone: the data of each name, by the DNS specification for Kubernetes clusters
//! (1.1.0).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use hickory_server::proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{A, CNAME, PTR, SOA, TXT},
};
use reconciler::network::{DnsAnswer, DnsRecords};

use super::TTL;

/// The version of the specification that the zone follows, as clients can ask for it.
const VERSION: &str = "1.1.0";
/// Timers of the zone's SOA record, which no secondary ever reads.
const REFRESH_S: i32 = 7200;
const RETRY_S: i32 = 1800;
const EXPIRE_S: i32 = 86_400;

/// The records with the names that are derived from them.
#[derive(Debug)]
pub(super) struct Zone {
    records: DnsRecords,
    /// Names that exist only because other names lie below them.
    parents: BTreeSet<String>,
    /// The names of Service addresses.
    pointers: BTreeMap<Ipv4Addr, String>,
}

/// The data of a name.
#[derive(Debug, PartialEq)]
pub(super) enum ZoneAnswer {
    /// The name is not in the cluster's zone.
    Outside,
    /// The name does not exist.
    Nothing,
    /// The name exists, with this data of the queried type, which is often empty.
    Data(Vec<RData>),
    /// The name is an alias of another one.
    Alias(Box<(Name, RData)>),
}

impl Zone {
    pub(super) fn new(records: DnsRecords) -> Self {
        let mut parents = BTreeSet::from([records.zone.clone(), format!("svc.{}", records.zone)]);
        let mut pointers = BTreeMap::new();
        for (name, answer) in &records.names {
            let mut rest = name.as_str();
            // RFC 8020: where a name exists, each name above it exists too, without data.
            while let Some((_, parent)) = rest.split_once('.') {
                if parent.len() <= records.zone.len() || !parents.insert(parent.to_owned()) {
                    break;
                }
                rest = parent;
            }

            if let DnsAnswer::Addresses(addresses) = answer {
                for address in addresses {
                    pointers.entry(*address).or_insert_with(|| name.clone());
                }
            }
        }
        Self {
            records,
            parents,
            pointers,
        }
    }

    /// Whether no records have been published yet: even the DNS server's own name comes with the
    /// first records.
    pub(super) fn is_unknown(&self) -> bool {
        self.records.names.is_empty()
    }

    /// The data of a name, in any case of letters.
    pub(super) fn find(&self, name: &Name, kind: RecordType) -> ZoneAnswer {
        let text = name.to_lowercase().to_ascii();
        let text = text.trim_end_matches('.');

        if let Some(address) = reversed_address(text) {
            return match self.pointers.get(&address).and_then(|name| absolute(name)) {
                Some(name) => only(kind, RecordType::PTR, RData::PTR(PTR(name))),
                None => ZoneAnswer::Outside,
            };
        }
        let Some(below) = self.below_zone(text) else {
            return ZoneAnswer::Outside;
        };

        match self.records.names.get(text) {
            Some(DnsAnswer::Addresses(addresses)) => of_addresses(kind, addresses.iter().copied()),
            Some(DnsAnswer::Alias(target)) => match absolute(target) {
                Some(target) => {
                    ZoneAnswer::Alias(Box::new((target.clone(), RData::CNAME(CNAME(target)))))
                }
                None => ZoneAnswer::Data(Vec::new()),
            },
            None if below == "dns-version" => only(
                kind,
                RecordType::TXT,
                RData::TXT(TXT::new(vec![VERSION.to_owned()])),
            ),
            None if below.is_empty() => match self.soa_data() {
                Some(soa) => only(kind, RecordType::SOA, soa),
                None => ZoneAnswer::Data(Vec::new()),
            },
            None => match pod_address(below) {
                Some(address) => of_addresses(kind, [address]),
                None if self.parents.contains(text) => ZoneAnswer::Data(Vec::new()),
                None => ZoneAnswer::Nothing,
            },
        }
    }

    /// The SOA record in answers for "no such name" and "no such data", which determines for how
    /// long they are cached.
    pub(super) fn soa(&self) -> Option<Record> {
        Some(Record::from_rdata(
            absolute(&self.records.zone)?,
            TTL,
            self.soa_data()?,
        ))
    }

    fn soa_data(&self) -> Option<RData> {
        let zone = &self.records.zone;
        let server = absolute(&format!("ns.dns.{zone}"))?;
        let mailbox = absolute(&format!("hostmaster.{zone}"))?;
        Some(RData::SOA(SOA::new(
            server, mailbox, 1, REFRESH_S, RETRY_S, EXPIRE_S, TTL,
        )))
    }

    /// The part of a name before the zone, without the dot; `None` if it is not in the zone.
    fn below_zone<'a>(&self, name: &'a str) -> Option<&'a str> {
        let below = name.strip_suffix(&self.records.zone)?;
        if below.is_empty() {
            Some(below)
        } else {
            below.strip_suffix('.')
        }
    }
}

fn of_addresses(kind: RecordType, addresses: impl IntoIterator<Item = Ipv4Addr>) -> ZoneAnswer {
    let requested = matches!(kind, RecordType::A | RecordType::ANY);
    ZoneAnswer::Data(if requested {
        addresses.into_iter().map(|ip| RData::A(A(ip))).collect()
    } else {
        Vec::new()
    })
}

/// The answer of a name that has one record, of type `kind`.
fn only(requested: RecordType, kind: RecordType, data: RData) -> ZoneAnswer {
    let matches = requested == kind || requested == RecordType::ANY;
    ZoneAnswer::Data(if matches { vec![data] } else { Vec::new() })
}

/// `10-244-1-2.default.pod`: a pod's address, whether the pod exists or not.
fn pod_address(below: &str) -> Option<Ipv4Addr> {
    let (address, namespace) = below.strip_suffix(".pod")?.split_once('.')?;
    if namespace.is_empty() || namespace.contains('.') || address.contains('.') {
        return None;
    }
    address.replace('-', ".").parse().ok()
}

/// The address in a name such as `1.0.96.10.in-addr.arpa` (RFC 1035, 3.5).
fn reversed_address(name: &str) -> Option<Ipv4Addr> {
    let reversed: Ipv4Addr = name.strip_suffix(".in-addr.arpa")?.parse().ok()?;
    let [a, b, c, d] = reversed.octets();
    Some(Ipv4Addr::new(d, c, b, a))
}

/// A name with its final dot; `None` if it is none that DNS can carry.
fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}
