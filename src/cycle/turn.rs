//! When it is this host's turn to fetch a commit that all hosts of the cluster have learnt of at
//! the same time.

use std::{sync::Arc, time::Duration};

use reconciler::name::NodeName;
use tokio::{sync::Notify, time::Instant};

/// The time from one host's fetch to the next host's.
const APART: Duration = Duration::from_millis(10);
/// The longest delay: that of the last host in a large cluster.
const LONGEST: Duration = Duration::from_secs(3);

/// The delay of this host by its place among the members, in the order of their names, so that no
/// two hosts fetch at the same instant. The time in which all hosts fetch grows with their number
/// up to [`LONGEST`]; a host that is alone does not wait.
fn delay<'a>(own: &NodeName, members: impl Iterator<Item = &'a NodeName>) -> Duration {
    let (mut before, mut others) = (0, 0);
    for name in members.filter(|name| *name != own) {
        others += 1;
        before += u32::from(name < own);
    }
    let apart = APART.min(LONGEST / (others + 1));
    apart * before
}

/// Nudges the follower when it is this host's turn.
#[derive(Debug, Default)]
pub(super) struct FetchTurn {
    /// When the follower is nudged, or was nudged last.
    due: Option<Instant>,
}

impl FetchTurn {
    /// Nudges `follower` after this host's delay. A request that comes while a nudge is due is
    /// served by that nudge.
    pub(super) fn nudge<'a>(
        &mut self,
        follower: &Arc<Notify>,
        own: &NodeName,
        members: impl Iterator<Item = &'a NodeName>,
    ) {
        let now = Instant::now();
        if self.due.is_some_and(|due| due > now) {
            return;
        }

        let due = now + delay(own, members);
        self.due = Some(due);
        if due == now {
            follower.notify_one();
            return;
        }
        let follower = Arc::clone(follower);
        tokio::spawn(async move {
            tokio::time::sleep_until(due).await;
            follower.notify_one();
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn cluster(hosts: u32) -> Vec<NodeName> {
        (0..hosts)
            .map(|number| NodeName::new(format!("n{number:04}")))
            .collect()
    }

    fn delays(names: &[NodeName]) -> Vec<Duration> {
        names.iter().map(|own| delay(own, names.iter())).collect()
    }

    #[test]
    fn a_host_that_is_alone_does_not_wait() {
        assert_eq!(delays(&cluster(1)), [Duration::ZERO]);
        assert_eq!(
            delay(&NodeName::new("n1"), std::iter::empty()),
            Duration::ZERO
        );
    }

    #[test]
    fn hosts_fetch_one_after_the_other() {
        assert_eq!(delays(&cluster(3)), [0, 10, 20].map(Duration::from_millis));
        for hosts in [2, 10, 299, 300, 301, 1_000, 5_000] {
            let delays = delays(&cluster(hosts));
            let distinct: BTreeSet<_> = delays.iter().collect();
            assert_eq!(
                distinct.len(),
                delays.len(),
                "{hosts} hosts: two fetch in the same instant"
            );
            let last = delays.iter().max().copied().unwrap_or_default();
            assert!(
                last < APART * hosts && last <= LONGEST,
                "{hosts} hosts: the last waits for {last:?}"
            );
        }
    }

    #[test]
    fn the_delay_grows_with_the_number_of_hosts_up_to_a_bound() {
        let last = |hosts| {
            delays(&cluster(hosts))
                .into_iter()
                .max()
                .unwrap_or_default()
        };
        assert!(last(2) < last(10) && last(10) < last(100) && last(100) < last(300));
        assert!(last(300) < LONGEST && last(5_000) < LONGEST);
    }

    #[test]
    fn a_host_counts_itself_although_the_members_do_not_list_it() {
        let names = cluster(10);
        let own = &names[7];
        let others: Vec<_> = names.iter().filter(|name| *name != own).collect();
        assert_eq!(delay(own, others.into_iter()), delay(own, names.iter()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_nudge_serves_all_requests_before_it() {
        let (follower, mut turn, names) =
            (Arc::new(Notify::new()), FetchTurn::default(), cluster(10));
        let began = Instant::now();
        for _ in 0..5 {
            turn.nudge(&follower, &names[4], names.iter());
        }
        follower.notified().await;
        assert_eq!(began.elapsed().as_millis() / 10, 4);
        let again = tokio::time::timeout(Duration::from_secs(5), follower.notified()).await;
        assert!(again.is_err(), "a second nudge came");
        turn.nudge(&follower, &names[0], names.iter());
        let at_once = tokio::time::timeout(Duration::ZERO, follower.notified()).await;
        assert!(at_once.is_ok(), "the first host waited");
    }
}
