//! Pure: counts consecutive results of a probe against its thresholds.

use reconciler::{object::Probe, plan::ProbeKind};

/// The last consecutive results, and the verdict that was reached.
#[derive(Clone, Debug)]
pub(super) struct Count {
    kind: ProbeKind,
    success_threshold: u32,
    failure_threshold: u32,
    last: bool,
    in_a_row: u32,
    decided: Option<bool>,
}

/// The verdict after a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Fewer consecutive results than the threshold.
    Undecided,
    /// At least `successThreshold` consecutive successes.
    Good,
    /// At least `failureThreshold` consecutive failures.
    Bad,
}

impl Count {
    pub(super) fn new(kind: ProbeKind, probe: &Probe, known: Option<bool>) -> Self {
        Self {
            kind,
            success_threshold: probe.success_threshold.max(1),
            failure_threshold: probe.failure_threshold.max(1),
            last: false,
            in_a_row: 0,
            decided: known,
        }
    }

    /// Counts one result, and decides when it is the last that a threshold needs.
    pub(super) fn take(&mut self, ok: bool) -> Verdict {
        self.in_a_row = if self.last == ok {
            self.in_a_row.saturating_add(1)
        } else {
            1
        };
        self.last = ok;

        let threshold = if ok {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        if self.in_a_row < threshold {
            return Verdict::Undecided;
        }
        self.decided = Some(ok);
        if ok { Verdict::Good } else { Verdict::Bad }
    }

    /// Whether no further result matters: a container starts only once, and a container that must
    /// be restarted needs no further probe.
    pub(super) fn is_final(&self) -> bool {
        match self.kind {
            ProbeKind::Startup => self.decided.is_some(),
            ProbeKind::Liveness => self.decided == Some(false),
            ProbeKind::Readiness => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reconciler::object::Handler;

    use super::*;

    fn count(kind: ProbeKind, known: Option<bool>) -> Count {
        let probe = Probe {
            handler: Handler::TcpSocket {
                host: None,
                port: 80,
            },
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            success_threshold: 2,
            failure_threshold: 3,
            termination_grace: None,
        };
        Count::new(kind, &probe, known)
    }

    #[test]
    fn answers_are_counted_in_a_row() {
        use Verdict::{Bad, Good, Undecided};
        let mut count = count(ProbeKind::Readiness, None);
        let answers = [
            true, false, true, true, false, false, true, false, false, false, true, true,
        ];
        let verdicts: Vec<_> = answers.into_iter().map(|ok| count.take(ok)).collect();
        let expected = [
            Undecided, Undecided, Undecided, Good, Undecided, Undecided, Undecided, Undecided,
            Undecided, Bad, Undecided, Good,
        ];
        assert_eq!(verdicts, expected);
        assert!(!count.is_final());
    }

    #[test]
    fn a_startup_probe_ends_with_its_first_verdict() {
        let mut starting = count(ProbeKind::Startup, None);
        assert!(!starting.is_final());
        starting.take(true);
        starting.take(true);
        assert!(starting.is_final());
        assert!(count(ProbeKind::Startup, Some(true)).is_final());
    }

    #[test]
    fn a_liveness_probe_ends_when_the_container_must_be_restarted() {
        let mut count = count(ProbeKind::Liveness, Some(true));
        count.take(false);
        count.take(false);
        assert!(!count.is_final());
        count.take(false);
        assert!(count.is_final());
    }
}
