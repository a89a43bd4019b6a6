//! This host's certificate for the cluster's other hosts.

use std::path::Path;

use jiff::Timestamp;
use reconciler::name::NodeName;

use super::Finding;
use crate::peer::{Identity, PeerDirectory, expired_advice};

/// Whose it is, and how long it is good; nothing where this host belongs to no cluster.
pub(super) fn look(directory: &Path, now: Timestamp) -> Option<Finding> {
    let identity = match Identity::open(&PeerDirectory::new(directory)) {
        Ok(identity) => identity?,
        Err(error) => {
            let advice = "become root; else put the files back from a copy, or join the cluster again";
            return Some(Finding::fail("certificate", format!("{error:#}"), advice));
        }
    };
    let facts = identity.facts();
    let (name, until) = (&facts.name, facts.until);
    Some(if until <= now {
        let found = format!("that of {name} has expired at {until:.0}: no other host speaks to this one");
        Finding::warn("certificate", found, expired_advice(identity.cluster(), &NodeName::new(name.as_str())))
    } else if facts.renewal_is_overdue(now) {
        let found = format!("{name}'s, good until {until:.0}: it should have been renewed");
        let advice = "look for \"cannot be renewed\" in the daemon's log, or try `windlass cluster rotate`";
        Finding::warn("certificate", found, advice)
    } else {
        Finding::ok("certificate", format!("{name} of {}, good until {until:.0}", identity.cluster().cluster))
    })
}
