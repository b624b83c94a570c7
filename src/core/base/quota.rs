//! A limit of how often something may happen in a second.

use super::time::{Moment, Span};

const SECOND: Span = Span::from_secs(1);

/// So many a second; a second begins with the first that comes after the one before.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    most: u32,
    since: Moment,
    left: u32,
}

impl Quota {
    /// `most` a second, and as many at the start.
    pub const fn per_second(most: u32) -> Quota {
        Quota { most, since: Moment::ZERO, left: most }
    }

    /// One of this second's, if there is one left.
    pub fn take(&mut self, now: Moment) -> Option<()> {
        if now.since(self.since) >= SECOND {
            (self.since, self.left) = (now, self.most);
        }
        self.left = self.left.checked_sub(1)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_and_the_next_one_as_many_again() {
        let at = |millis| Moment::ZERO + Span::from_millis(millis);
        let mut quota = Quota::per_second(2);
        assert_eq!([10_500, 10_600].map(|now| quota.take(at(now))), [Some(()); 2]);
        assert_eq!([10_700, 11_499].map(|now| quota.take(at(now))), [None; 2]);
        assert_eq!(quota.take(at(11_500)), Some(()));
        assert_eq!([11_600, 11_700].map(|now| quota.take(at(now))), [Some(()), None]);
    }
}
