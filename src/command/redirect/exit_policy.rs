//! When a worker ends, and how.
//!
//! Owns the deadline of a drain, the time since the last client, and the time that the
//! last requests to the queue may take. Counts no clients.

use pegasus_core::base::time::{Moment, Span};

/// How long the last requests to the queue may take.
const FLUSH_TIMEOUT: Span = Span::from_millis(200);
/// How often a worker without clients looks whether the others have some.
const RECHECK_INTERVAL: Span = Span::from_millis(50);

/// When a loop has nothing left to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunMode {
    /// When it is commanded to.
    Forever,
    /// When its only client is gone.
    OneClient,
    /// When no client has been there for `redirect_linger`.
    Linger,
}

/// What decides whether a worker may end.
#[derive(Debug)]
pub struct ExitPolicy {
    run_mode: RunMode,
    /// Since when no client is there.
    idle_since: Option<Moment>,
    /// When to look whether the other workers are done.
    recheck_at: Option<Moment>,
    /// New clients are still accepted although the process is to end: until when.
    accept_until: Option<Moment>,
    /// Draining: until when.
    drain_until: Option<Moment>,
    /// Nothing is left to do but to send the last requests: since when.
    flushing_since: Option<Moment>,
}

impl ExitPolicy {
    /// It has just begun.
    pub fn new(run_mode: RunMode) -> ExitPolicy {
        ExitPolicy {
            run_mode,
            idle_since: None,
            recheck_at: None,
            accept_until: None,
            drain_until: None,
            flushing_since: None,
        }
    }

    /// Whether other clients than those that are here may come until it is commanded to end.
    pub fn is_daemon(&self) -> bool {
        self.run_mode == RunMode::Forever
    }

    /// Whether the listen socket is lent by a superserver, which goes on listening.
    pub fn lingers(&self) -> bool {
        self.run_mode == RunMode::Linger
    }

    /// Whether no new clients are expected.
    pub fn is_leaving(&self) -> bool {
        self.is_draining() || self.run_mode == RunMode::OneClient
    }

    /// Goes on accepting for so long, before the drain.
    pub fn start_grace(&mut self, within: Span, now: Moment) {
        self.accept_until = Some(now + within);
    }

    /// Whether the process is to end, and new clients are still accepted.
    pub fn is_in_grace(&self) -> bool {
        self.accept_until.is_some()
    }

    /// Whether the grace is over, so that the drain must be started.
    pub fn is_grace_over(&self, now: Moment) -> bool {
        self.accept_until.is_some_and(|until| now >= until)
    }

    /// Starts to drain, which may take so long.
    pub fn start_drain(&mut self, within: Span, now: Moment) {
        self.accept_until = None;
        self.drain_until = Some(now + within);
    }

    /// Whether it drains.
    pub fn is_draining(&self) -> bool {
        self.drain_until.is_some()
    }

    /// Whether the time to drain is over: clients that are left are closed.
    pub fn is_past_deadline(&self, now: Moment) -> bool {
        self.drain_until.is_some_and(|until| now >= until)
    }

    /// Whether no client is left and all is `flushed` to the queue. `here` and `others`:
    /// how many clients this worker and the other workers have. Without clients, a
    /// lingering worker stays for `linger`.
    pub fn poll_finished(
        &mut self,
        here: usize,
        others: usize,
        flushed: bool,
        linger: Span,
        now: Moment,
    ) -> bool {
        self.recheck_at = None;
        if here > 0 {
            (self.idle_since, self.flushing_since) = (None, None);
            return false;
        }
        let idle = now.since(*self.idle_since.get_or_insert(now));
        let nothing_left = match (self.drain_until, self.run_mode) {
            (Some(until), _) => {
                // While other workers have clients, this one must stay to take signals.
                self.recheck_at = (others > 0).then(|| now + RECHECK_INTERVAL);
                others == 0 || now >= until
            }
            (None, RunMode::Forever) => false,
            (None, RunMode::OneClient) => true,
            (None, RunMode::Linger) => idle >= linger,
        };
        if !nothing_left {
            self.flushing_since = None;
            return false;
        }
        flushed || now.since(*self.flushing_since.get_or_insert(now)) >= FLUSH_TIMEOUT
    }

    /// When [`poll_finished`](ExitPolicy::poll_finished) may change its mind.
    pub fn next_timeout(&self, linger: Span) -> Option<Moment> {
        if let Some(since) = self.flushing_since {
            return Some(since + FLUSH_TIMEOUT);
        }
        let lingers = self.lingers() && !self.is_draining();
        let linger = self.idle_since.filter(|_| lingers).map(|since| since + linger);
        let own = [linger, self.accept_until, self.drain_until, self.recheck_at];
        own.into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Span = Span::from_secs(10);

    fn at(millis: u64) -> Moment {
        Moment::ZERO + Span::from_millis(millis)
    }

    #[test]
    fn a_daemon_stays_until_it_is_told_and_everybody_is_gone() {
        let mut exit_policy = ExitPolicy::new(RunMode::Forever);
        assert!(
            !exit_policy.poll_finished(0, 0, true, LINGER, at(0))
                && exit_policy.next_timeout(LINGER).is_none()
        );
        exit_policy.start_drain(Span::from_secs(30), at(0));
        assert!(
            !exit_policy.poll_finished(1, 1, true, LINGER, at(1))
                && !exit_policy.is_past_deadline(at(1))
        );
        assert_eq!(exit_policy.next_timeout(LINGER), Some(at(30_000)));
        // Its own are gone; it looks now and then after those of others.
        assert!(!exit_policy.poll_finished(0, 1, true, LINGER, at(2)));
        assert_eq!(exit_policy.next_timeout(LINGER), Some(at(2) + RECHECK_INTERVAL));
        assert!(
            exit_policy.is_past_deadline(at(30_000))
                && exit_policy.poll_finished(0, 1, true, LINGER, at(30_000))
        );
    }

    #[test]
    fn the_queue_hears_of_the_last_client_but_is_not_waited_for_long() {
        let mut exit_policy = ExitPolicy::new(RunMode::OneClient);
        assert!(!exit_policy.poll_finished(1, 0, true, LINGER, at(0)));
        assert!(!exit_policy.poll_finished(0, 0, false, LINGER, at(5)));
        assert_eq!(exit_policy.next_timeout(LINGER), Some(at(5) + FLUSH_TIMEOUT));
        assert!(
            exit_policy.poll_finished(0, 0, true, LINGER, at(6))
                && exit_policy.poll_finished(0, 0, false, LINGER, at(5) + FLUSH_TIMEOUT)
        );
    }

    #[test]
    fn who_lingers_waits_for_the_next_client_anew_after_each() {
        let mut exit_policy = ExitPolicy::new(RunMode::Linger);
        assert!(!exit_policy.poll_finished(0, 0, true, LINGER, at(0)));
        assert_eq!(exit_policy.next_timeout(LINGER), Some(at(10_000)));
        assert!(
            !exit_policy.poll_finished(1, 0, true, LINGER, at(9_000))
                && exit_policy.next_timeout(LINGER).is_none()
        );
        assert!(
            !exit_policy.poll_finished(0, 0, true, LINGER, at(12_000))
                && exit_policy.poll_finished(0, 0, true, LINGER, at(22_000))
        );
        // Draining, it waits for the others, however long no client was here.
        exit_policy.start_drain(Span::from_secs(30), at(23_000));
        assert!(!exit_policy.poll_finished(0, 1, true, LINGER, at(23_000)));
        assert_eq!(exit_policy.next_timeout(LINGER), Some(at(23_000) + RECHECK_INTERVAL));
    }
}
