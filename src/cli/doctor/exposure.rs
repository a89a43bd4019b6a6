//! What other machines can reach of pods, Services and DNS.

use netfilter::{Exposure, OutsideSource};

use super::Finding;
use crate::view::{counted, network_open};

const SUBJECT: &str = "exposure";

/// Names what is open to other machines, and the senders that the table of this host has counted.
pub(super) async fn examine(exposure: &anyhow::Result<Exposure>) -> Finding {
    match exposure {
        Ok(exposure) => {
            // Without nft, or not as root, there are no counts; the check of nft says so.
            let sources = netfilter::outside_sources().await.unwrap_or_default();
            finding(exposure, &sources)
        }
        Err(error) => Finding::fail(
            SUBJECT,
            format!("{error:#}"),
            "run this as root; if it fails as root, restore the file",
        ),
    }
}

fn finding(exposure: &Exposure, sources: &[OutsideSource]) -> Finding {
    match exposure {
        Exposure::Unset => Finding::warn(
            SUBJECT,
            network_open(sources),
            "write `expose = []` in [network] to close them, or name what other machines need: \
             docs/network.md",
        ),
        Exposure::Only(parts) => {
            let open: Vec<String> = parts.iter().map(ToString::to_string).collect();
            let open = if open.is_empty() {
                "pods, Services and DNS are closed to other machines".to_owned()
            } else {
                format!("open to other machines: {}", open.join(", "))
            };
            let dropped = if sources.is_empty() {
                String::new()
            } else {
                format!("; dropped {}", counted(sources))
            };
            Finding::ok(SUBJECT, format!("{open}{dropped}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use netfilter::Exposed;

    use super::{super::DoctorVerdict, *};

    #[test]
    fn what_an_older_version_left_open_is_a_warning_with_the_setting_that_closes_it() {
        let source = OutsideSource {
            address: [192, 0, 2, 7].into(),
            packets: 3,
        };
        let open = finding(&Exposure::Unset, std::slice::from_ref(&source));
        assert_eq!(open.verdict, DoctorVerdict::Warn);
        assert!(open.found.ends_with("192.0.2.7 (3)"), "{}", open.found);
        assert!(open.advice.contains("`expose = []`"), "{}", open.advice);

        let closed = finding(&Exposure::Only(BTreeSet::new()), &[source]);
        assert_eq!(closed.verdict, DoctorVerdict::Ok);
        assert_eq!(
            closed.found,
            "pods, Services and DNS are closed to other machines; dropped packets from other \
             machines: 192.0.2.7 (3)"
        );
        let parts = BTreeSet::from([Exposed::Services, Exposed::Dns]);
        assert_eq!(
            finding(&Exposure::Only(parts), &[]).found,
            "open to other machines: dns, services"
        );
    }
}
