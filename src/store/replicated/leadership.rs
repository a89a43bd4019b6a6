//! Whether this host leads: the life cycle of a term, and of standing for election. Nothing here
//! reads a clock or talks to etcd.
//!
//! ```text
//!            elected               listed
//! Follower ──────────► CatchingUp ────────► Leading
//!     ▲                    ▲                   │
//!     │                    └───────────────────┘ catch_up, distrust, store_lost, withdraw
//!     └── demoted, fenced_off (from both)
//! ```

use std::time::{Duration, Instant};

use crate::store::etcd::Fence;

/// This host's part in the election, and how far it is with the office that it was elected to.
#[derive(Debug, Default)]
pub(super) struct Leadership {
    office: Office,
    candidacy: Candidacy,
}

/// How far this host is with the office of the leader.
#[derive(Debug, Default)]
enum Office {
    /// This host is not elected.
    #[default]
    Follower,
    /// This host is elected, and has not read the store since: what an earlier leader wrote last
    /// may be on its way only.
    CatchingUp(Term),
    /// This host is elected and nothing of an earlier leader is missing.
    Leading(Term),
}

/// One term, from the election to its end.
#[derive(Debug)]
struct Term {
    fence: Fence,
    /// Since when this host has been elected, with a store that answers, and with few enough silent
    /// nodes that silence counts; `None` while the store does not answer.
    undisturbed_since: Option<Instant>,
    /// The number of requests for a list that a list must follow to count as this term's own.
    awaits: u64,
}

/// Whether this host wants to lead.
#[derive(Debug, Default)]
enum Candidacy {
    /// This host stands for election, if nothing else is in the way.
    #[default]
    Standing,
    /// This host leaves leading to others for a while. An election that was on its way may still
    /// arrive: it counts for nothing until then.
    Withdrawn { until: Instant },
}

impl Leadership {
    /// This host was elected; a list that was asked for `awaits` times holds everything that
    /// earlier leaders wrote.
    pub(super) fn elected(&mut self, fence: Fence, awaits: u64, now: Instant) {
        self.office = Office::CatchingUp(Term {
            fence,
            undisturbed_since: Some(now),
            awaits,
        });
    }

    /// The election is over: another host leads, or none.
    pub(super) fn demoted(&mut self) {
        self.office = Office::Follower;
    }

    /// A list of a trusted store was read that was asked for `asked` times when it was begun.
    pub(super) fn listed(&mut self, asked: u64) {
        self.office = match std::mem::take(&mut self.office) {
            Office::Follower => Office::Follower,
            // A list that was begun before may lack what an earlier leader wrote last.
            Office::CatchingUp(term) | Office::Leading(term) if asked < term.awaits => {
                Office::CatchingUp(term)
            }
            Office::CatchingUp(term) | Office::Leading(term) => Office::Leading(term),
        };
    }

    /// The store may hold what this host has not read: a leader decides nothing before a list that
    /// was asked for `awaits` times.
    pub(super) fn catch_up(&mut self, awaits: u64) {
        self.distrust();
        if let Office::CatchingUp(term) = &mut self.office {
            term.awaits = awaits;
        }
    }

    /// What this host knows of the store is in doubt: a leader decides nothing before the next
    /// list.
    pub(super) fn distrust(&mut self) {
        self.office = match std::mem::take(&mut self.office) {
            Office::Leading(term) => Office::CatchingUp(term),
            office => office,
        };
    }

    /// The store does not answer any more.
    pub(super) fn store_lost(&mut self) {
        self.distrust();
        if let Some(term) = self.term_mut() {
            term.undisturbed_since = None;
        }
    }

    /// The store answers again, or is trusted again.
    pub(super) fn store_recovered(&mut self, now: Instant) {
        if let Some(term) = self.term_mut() {
            term.undisturbed_since = Some(now);
        }
    }

    /// Notes that too many nodes are silent for any of them to be given up. Nodes that recover come
    /// back one by one: each has the time that a new leader grants.
    pub(super) fn brake(&mut self, now: Instant) {
        if let Some(term) = self.term_mut() {
            term.undisturbed_since = term.undisturbed_since.map(|_| now);
        }
    }

    /// Leaves leading to others for a while.
    pub(super) fn withdraw(&mut self, time: Duration, now: Instant) {
        self.candidacy = Candidacy::Withdrawn { until: now + time };
        self.distrust();
    }

    /// Notes that a write was refused because this host is no longer elected, or because its lease
    /// may have run out, also by this host's own clock alone: a new campaign after `respite` is the
    /// way back.
    pub(super) fn fenced_off(&mut self, respite: Duration, now: Instant) {
        self.demoted();
        self.withdraw(respite, now);
    }

    /// Whether this host may decide, as far as the election is concerned.
    pub(super) fn leads(&self, now: Instant) -> bool {
        let caught_up = matches!(&self.office, Office::Leading(term) if term.fence.holds_at(now));
        caught_up && !self.is_withdrawn(now)
    }

    /// Whether this host was elected and nobody has ended its term, also where its lease may have
    /// run out.
    pub(super) fn is_elected(&self) -> bool {
        self.term().is_some()
    }

    /// Whether the election surely holds, whatever else is in the way of deciding.
    pub(super) fn is_in_office(&self, now: Instant) -> bool {
        self.fence().is_some_and(|fence| fence.holds_at(now))
    }

    /// Whether this host leaves leading to others for now.
    pub(super) fn is_withdrawn(&self, now: Instant) -> bool {
        matches!(self.candidacy, Candidacy::Withdrawn { until } if until > now)
    }

    /// For how long this host has led without an interruption and without a brake.
    pub(super) fn led_for(&self, now: Instant) -> Duration {
        let since = self.term().and_then(|term| term.undisturbed_since);
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// The proof of the election to etcd.
    pub(super) fn fence(&self) -> Option<&Fence> {
        self.term().map(|term| &term.fence)
    }

    fn term(&self) -> Option<&Term> {
        match &self.office {
            Office::Follower => None,
            Office::CatchingUp(term) | Office::Leading(term) => Some(term),
        }
    }

    fn term_mut(&mut self) -> Option<&mut Term> {
        match &mut self.office {
            Office::Follower => None,
            Office::CatchingUp(term) | Office::Leading(term) => Some(term),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fence(now: Instant) -> Fence {
        Fence::holding_until(7, now + 60 * SECOND)
    }

    /// A host that is elected and has read the store since.
    fn leader(now: Instant) -> Leadership {
        let mut leadership = Leadership::default();
        leadership.elected(fence(now), 3, now);
        leadership.listed(3);
        leadership
    }

    #[test]
    fn a_host_that_is_not_elected_does_not_lead_whatever_it_reads() {
        let now = Instant::now();
        let mut leadership = Leadership::default();
        leadership.listed(9);
        leadership.catch_up(10);
        leadership.store_recovered(now);
        leadership.brake(now);
        assert!(!leadership.leads(now) && !leadership.is_elected());
        assert!(!leadership.is_in_office(now) && leadership.fence().is_none());
        assert_eq!(leadership.led_for(now + SECOND), Duration::ZERO);
    }

    #[test]
    fn an_elected_host_leads_after_a_list_that_was_asked_for_since() {
        let now = Instant::now();
        let mut leadership = Leadership::default();
        leadership.elected(fence(now), 3, now);
        assert!(leadership.is_in_office(now) && !leadership.leads(now));
        leadership.listed(2);
        assert!(!leadership.leads(now), "a list of before");
        leadership.listed(3);
        assert!(leadership.leads(now));
        assert_eq!(leadership.fence().map(|fence| fence.revision), Some(7));
        assert_eq!(leadership.led_for(now + SECOND), SECOND);
    }

    #[test]
    fn a_leader_whose_lease_may_have_run_out_is_elected_and_does_not_lead() {
        let now = Instant::now();
        let leadership = leader(now);
        let later = now + 61 * SECOND;
        assert!(!leadership.leads(later) && !leadership.is_in_office(later));
        assert!(leadership.is_elected());
    }

    #[test]
    fn a_demoted_leader_follows_and_a_new_term_starts_from_nothing() {
        let now = Instant::now();
        let mut leadership = leader(now);
        leadership.demoted();
        leadership.listed(9);
        assert!(!leadership.leads(now) && !leadership.is_elected());
        let later = now + 5 * SECOND;
        leadership.elected(fence(now), 10, later);
        leadership.listed(9);
        assert!(!leadership.leads(later));
        leadership.listed(10);
        assert!(leadership.leads(later));
        assert_eq!(leadership.led_for(later + SECOND), SECOND);
    }

    #[test]
    fn a_leader_that_must_look_again_waits_for_the_list_that_it_asked_for() {
        let now = Instant::now();
        let mut leadership = leader(now);
        leadership.catch_up(5);
        assert!(!leadership.leads(now) && leadership.is_in_office(now));
        leadership.listed(4);
        assert!(!leadership.leads(now));
        leadership.listed(5);
        assert!(leadership.leads(now));
        assert_eq!(leadership.led_for(now + SECOND), SECOND, "no break");
    }

    #[test]
    fn a_leader_in_doubt_leads_again_after_the_next_list() {
        let now = Instant::now();
        let mut leadership = leader(now);
        leadership.distrust();
        assert!(!leadership.leads(now));
        leadership.listed(3);
        assert!(leadership.leads(now));
    }

    #[test]
    fn a_leader_that_lost_the_store_starts_its_time_anew() {
        let now = Instant::now();
        let mut leadership = leader(now);
        let lost = now + 10 * SECOND;
        leadership.store_lost();
        assert!(!leadership.leads(lost) && leadership.is_elected());
        assert_eq!(leadership.led_for(lost), Duration::ZERO);
        leadership.brake(lost);
        assert_eq!(leadership.led_for(lost + SECOND), Duration::ZERO);
        let back = now + 20 * SECOND;
        leadership.store_recovered(back);
        assert!(!leadership.leads(back), "nothing is read yet");
        leadership.listed(3);
        assert!(leadership.leads(back));
        assert_eq!(leadership.led_for(back + SECOND), SECOND);
    }

    #[test]
    fn a_brake_gives_the_nodes_the_time_that_a_new_leader_gives() {
        let now = Instant::now();
        let mut leadership = leader(now);
        leadership.brake(now + 10 * SECOND);
        assert_eq!(leadership.led_for(now + 12 * SECOND), 2 * SECOND);
        assert!(leadership.leads(now + 12 * SECOND));
    }

    #[test]
    fn a_leader_that_withdraws_leads_again_only_later_and_after_a_list() {
        let now = Instant::now();
        let mut leadership = leader(now);
        leadership.withdraw(5 * SECOND, now);
        assert!(leadership.is_withdrawn(now) && leadership.is_in_office(now));
        leadership.listed(3);
        assert!(!leadership.leads(now + 4 * SECOND));
        assert!(leadership.leads(now + 5 * SECOND));
        assert!(!leadership.is_withdrawn(now + 5 * SECOND));

        leadership.withdraw(5 * SECOND, now);
        assert!(!leadership.leads(now + 5 * SECOND), "nothing is read since");
    }

    #[test]
    fn an_election_that_arrives_at_a_withdrawn_host_counts_once_that_is_over() {
        let now = Instant::now();
        let mut leadership = Leadership::default();
        leadership.withdraw(5 * SECOND, now);
        leadership.elected(fence(now), 1, now);
        leadership.listed(1);
        assert!(!leadership.leads(now) && leadership.is_in_office(now));
        assert!(leadership.leads(now + 5 * SECOND));
    }

    #[test]
    fn a_leader_that_is_fenced_off_follows_and_withdraws() {
        let now = Instant::now();
        let mut leadership = leader(now);
        leadership.fenced_off(SECOND, now);
        assert!(!leadership.is_elected() && leadership.is_withdrawn(now));
        assert!(!leadership.is_withdrawn(now + SECOND));
        leadership.listed(9);
        assert!(!leadership.leads(now + SECOND));
    }
}
