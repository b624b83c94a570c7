//! How long a loop stays, and how it takes its leave.
//!
//! Owns what it was told of ending, since when nobody is there, and the last
//! words to the queue. Counts nobody.

use pegasus_core::base::time::{Moment, Span};

/// How long the queue is given to hear that the last client is gone.
const FAREWELL: Span = Span::from_millis(200);
/// How often a loop that is done looks whether the others are.
const LOOK: Span = Span::from_millis(50);

/// When a loop has nothing left to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stay {
    /// When it is told to end.
    Forever,
    /// When its only client is gone.
    OneClient,
    /// When no client has been there for `redirect_linger`.
    Linger,
}

/// See the file's head.
#[derive(Debug)]
pub struct Staying {
    stay: Stay,
    /// Since when nobody is there.
    idle_since: Option<Moment>,
    /// When to look whether the other loops are done.
    next_look: Option<Moment>,
    /// It was told to end: until when.
    ending: Option<Moment>,
    /// Nothing is left to do, but the queue may not know it yet: since when.
    farewell: Option<Moment>,
}

impl Staying {
    /// It has just begun.
    pub fn new(stay: Stay) -> Staying {
        Staying { stay, idle_since: None, next_look: None, ending: None, farewell: None }
    }

    /// Whether it is somebody else who listens, and will again.
    pub fn lingers(&self) -> bool {
        self.stay == Stay::Linger
    }

    /// Whether it waits for nobody new.
    pub fn leaves(&self) -> bool {
        self.is_ending() || self.stay == Stay::OneClient
    }

    /// It is told to end, and has so long for it.
    pub fn end(&mut self, within: Span, now: Moment) {
        self.ending = Some(now + within);
    }

    /// Whether it was told to end.
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Whether it has no more time: who is still there has to go.
    pub fn is_late(&self, now: Moment) -> bool {
        self.ending.is_some_and(|until| now >= until)
    }

    /// Whether nobody is left and all is `said` to the queue. So many are `here`,
    /// and so many with other loops; with nobody here it stays for `linger` where
    /// it does so.
    pub fn is_over(&mut self, here: usize, elsewhere: usize, said: bool, linger: Span, now: Moment) -> bool {
        self.next_look = None;
        if here > 0 {
            (self.idle_since, self.farewell) = (None, None);
            return false;
        }
        let idle = now.since(*self.idle_since.get_or_insert(now));
        let nothing_left = match (self.ending, self.stay) {
            (Some(until), _) => {
                // While other loops have clients somebody must listen to signals.
                self.next_look = (elsewhere > 0).then(|| now + LOOK);
                elsewhere == 0 || now >= until
            }
            (None, Stay::Forever) => false,
            (None, Stay::OneClient) => true,
            (None, Stay::Linger) => idle >= linger,
        };
        if !nothing_left {
            self.farewell = None;
            return false;
        }
        said || now.since(*self.farewell.get_or_insert(now)) >= FAREWELL
    }

    /// When [`is_over`](Staying::is_over) may change its mind.
    pub fn deadline(&self, linger: Span) -> Option<Moment> {
        if let Some(since) = self.farewell {
            return Some(since + FAREWELL);
        }
        let lingers = self.lingers() && !self.is_ending();
        let linger = self.idle_since.filter(|_| lingers).map(|since| since + linger);
        [linger, self.ending, self.next_look].into_iter().flatten().min()
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
        let mut staying = Staying::new(Stay::Forever);
        assert!(!staying.is_over(0, 0, true, LINGER, at(0)) && staying.deadline(LINGER).is_none());
        staying.end(Span::from_secs(30), at(0));
        assert!(!staying.is_over(1, 1, true, LINGER, at(1)) && !staying.is_late(at(1)));
        assert_eq!(staying.deadline(LINGER), Some(at(30_000)));
        // Its own are gone; it looks now and then after those of others.
        assert!(!staying.is_over(0, 1, true, LINGER, at(2)));
        assert_eq!(staying.deadline(LINGER), Some(at(2) + LOOK));
        assert!(staying.is_late(at(30_000)) && staying.is_over(0, 1, true, LINGER, at(30_000)));
    }

    #[test]
    fn the_queue_hears_of_the_last_client_but_is_not_waited_for_long() {
        let mut staying = Staying::new(Stay::OneClient);
        assert!(!staying.is_over(1, 0, true, LINGER, at(0)));
        assert!(!staying.is_over(0, 0, false, LINGER, at(5)));
        assert_eq!(staying.deadline(LINGER), Some(at(5) + FAREWELL));
        assert!(staying.is_over(0, 0, true, LINGER, at(6)) && staying.is_over(0, 0, false, LINGER, at(5) + FAREWELL));
    }

    #[test]
    fn who_lingers_waits_for_the_next_client_anew_after_each() {
        let mut staying = Staying::new(Stay::Linger);
        assert!(!staying.is_over(0, 0, true, LINGER, at(0)));
        assert_eq!(staying.deadline(LINGER), Some(at(10_000)));
        assert!(!staying.is_over(1, 0, true, LINGER, at(9_000)) && staying.deadline(LINGER).is_none());
        assert!(!staying.is_over(0, 0, true, LINGER, at(12_000)) && staying.is_over(0, 0, true, LINGER, at(22_000)));
        // Told to end it looks after others, however long nobody was here.
        staying.end(Span::from_secs(30), at(23_000));
        assert!(!staying.is_over(0, 1, true, LINGER, at(23_000)));
        assert_eq!(staying.deadline(LINGER), Some(at(23_000) + LOOK));
    }
}
