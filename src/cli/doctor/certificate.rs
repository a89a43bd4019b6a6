//! This host's certificate for the cluster's other hosts.

use std::path::Path;

use jiff::Timestamp;
use reconciler::name::NodeName;

use super::Finding;
use crate::peer::{Identity, PeerDirectory, expired_advice};

/// Whose it is, and how long it is good; nothing where this host belongs to no cluster.
pub(super) fn examine(directory: &Path, now: Timestamp) -> Option<Finding> {
    let identity = match Identity::open(&PeerDirectory::new(directory)) {
        Ok(identity) => identity?,
        Err(error) => {
            let advice =
                "become root; else put the files back from a copy, or join the cluster again";
            return Some(Finding::fail("certificate", format!("{error:#}"), advice));
        }
    };
    let facts = identity.facts();
    let (name, until) = (&facts.name, facts.until);
    Some(if until <= now {
        let found =
            format!("that of {name} has expired at {until:.0}: no other host speaks to this one");
        Finding::warn(
            "certificate",
            found,
            expired_advice(identity.cluster(), &NodeName::new(name.as_str())),
        )
    } else if facts.renewal_is_overdue(now) {
        let found = format!("{name}'s, good until {until:.0}: it should have been renewed");
        let advice =
            "look for \"cannot be renewed\" in the daemon's log, or try `windlass cluster rotate`";
        Finding::warn("certificate", found, advice)
    } else {
        Finding::ok(
            "certificate",
            format!(
                "{name} of {}, good until {until:.0}",
                identity.cluster().cluster
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    use std::time::Duration;

    use super::{super::DoctorVerdict, *};
    use crate::peer::Authority;

    #[test]
    fn a_certificate_is_good_then_overdue_then_expired() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("peer");
        let now = Timestamp::now();
        assert_eq!(examine(&path, now), None);
        Authority::init(&PeerDirectory::new(&path), &NodeName::new("n1"), now).unwrap();
        let after =
            |days: u64| examine(&path, now + Duration::from_secs(days * 24 * 3600)).unwrap();
        assert_eq!(
            (after(0).verdict, after(60).verdict),
            (DoctorVerdict::Ok, DoctorVerdict::Ok)
        );
        let overdue = after(80);
        assert_eq!(overdue.verdict, DoctorVerdict::Warn);
        assert!(
            overdue.found.ends_with("it should have been renewed"),
            "{}",
            overdue.found
        );
        let expired = after(91);
        assert_eq!(expired.verdict, DoctorVerdict::Warn);
        assert!(
            expired.found.starts_with("that of n1 has expired at "),
            "{}",
            expired.found
        );
        assert_eq!(expired.advice, "run `windlass cluster rotate` here");
        std::fs::write(path.join("node.pem"), "gone").unwrap();
        assert_eq!(after(0).verdict, DoctorVerdict::Fail);
    }
}
