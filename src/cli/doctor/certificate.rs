//! The check of this host's certificate in its cluster.

use std::path::Path;

use jiff::Timestamp;
use reconciler::name::NodeName;

use super::Finding;
use crate::peer::{Identity, PeerDirectory, expired_advice};

/// Checks the validity of the certificate; `None` if this host is not in a cluster.
pub(super) fn examine(directory: &Path, now: Timestamp) -> Option<Finding> {
    let identity = match Identity::open(&PeerDirectory::new(directory)) {
        Ok(identity) => identity?,
        Err(error) => {
            let advice = "run this as root; if the files are damaged, restore them from a backup, or join the cluster again";
            return Some(Finding::fail("certificate", format!("{error:#}"), advice));
        }
    };
    let facts = identity.facts();
    let (name, until) = (&facts.name, facts.until);
    Some(if until <= now {
        let found = format!(
            "the certificate of {name} expired at {until:.0}: the other hosts refuse this host"
        );
        Finding::warn(
            "certificate",
            found,
            expired_advice(identity.cluster(), &NodeName::new(name.as_str())),
        )
    } else if facts.renewal_is_overdue(now) {
        let found =
            format!("the certificate of {name}, valid until {until:.0}, is overdue for renewal");
        let advice =
            "search the daemon's log for \"cannot be renewed\", or run `windlass cluster rotate`";
        Finding::warn("certificate", found, advice)
    } else {
        Finding::ok(
            "certificate",
            format!(
                "{name} of {}, valid until {until:.0}",
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
            overdue.found.ends_with("is overdue for renewal"),
            "{}",
            overdue.found
        );
        let expired = after(91);
        assert_eq!(expired.verdict, DoctorVerdict::Warn);
        assert!(
            expired
                .found
                .starts_with("the certificate of n1 expired at "),
            "{}",
            expired.found
        );
        assert_eq!(expired.advice, "run `windlass cluster rotate` here");
        std::fs::write(path.join("node.pem"), "gone").unwrap();
        assert_eq!(after(0).verdict, DoctorVerdict::Fail);
    }
}
