//! Whether a service is well, calmly: so many bad checks to leave, so many
//! good ones to come back. Owns the counting; checks nothing itself.

/// The health of one service.
#[derive(Clone, Debug)]
pub struct Health {
    rise: u32,
    fall: u32,
    /// None until the first check.
    healthy: Option<bool>,
    streak: u32,
}

impl Health {
    /// `rise` good checks bring it back, `fall` bad ones end it (each at least
    /// 1). The very first check decides alone.
    pub fn new(rise: u32, fall: u32) -> Health {
        Health { rise: rise.max(1), fall: fall.max(1), healthy: None, streak: 0 }
    }

    /// The same health, with other rows from now on.
    pub fn with(self, rise: u32, fall: u32) -> Health {
        Health { rise: rise.max(1), fall: fall.max(1), ..self }
    }

    /// The result of a check; answers whether the health changed by it.
    pub fn checked(&mut self, good: bool) -> bool {
        let Some(well) = self.healthy else {
            self.healthy = Some(good);
            return true;
        };
        if good == well {
            self.streak = 0;
            return false;
        }
        self.streak += 1;
        let turned = self.streak >= if good { self.rise } else { self.fall };
        if turned {
            self.healthy = Some(good);
            self.streak = 0;
        }
        turned
    }

    /// Whether it was checked at all.
    pub fn is_known(&self) -> bool {
        self.healthy.is_some()
    }

    /// Whether it is known to be well.
    pub fn well(&self) -> bool {
        self.healthy == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_falls_and_rises_by_rows_and_a_mixed_row_starts_anew() {
        let mut health = Health::new(2, 3);
        assert!(!health.well() && health.checked(true) && health.well());
        for good in [false, false, true, false, false] {
            assert!(!health.checked(good) && health.well());
        }
        assert!(health.checked(false) && !health.well());
        assert!(!health.checked(true) && !health.checked(false) && !health.checked(true));
        assert!(health.checked(true) && health.well());
    }
}
