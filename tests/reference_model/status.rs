//! What a queue's `status` says, against the model.

use super::Model;
use pegasus_core::base::key_value;
use pegasus_core::base::time::Moment;

/// A number of a line of pairs.
#[track_caller]
pub fn number(line: &str, key: &str) -> u64 {
    let value = key_value::find(line, key).and_then(|text| text.parse().ok());
    value.unwrap_or_else(|| panic!("no {key} in {line}"))
}

impl Model {
    /// The providers' rows agree with the model: what is offered is free, active or
    /// spent, and no provider is missing.
    #[track_caller]
    pub fn check_status(&self, status: &str, now: Moment) {
        let mut shown = 0;
        for line in status.lines().filter(|line| line.starts_with("provider ")) {
            shown += 1;
            self.check_row(line, now);
        }
        let known = self.accounts.values().filter(|account| account.is_shown(now)).count();
        assert_eq!(shown, known, "providers in\n{status}");
    }

    #[track_caller]
    fn check_row(&self, line: &str, now: Moment) {
        let service = key_value::find(line, "service").and_then(|text| text.parse().ok());
        let provider = key_value::find(line, "address").and_then(|text| text.parse().ok());
        let place = (service.expect(line), provider.expect(line));
        let account = self.accounts.get(&place).expect(line);
        let offers = account.offers(now);
        let free = account.free(now);
        for (key, value) in [
            ("tickets", if offers { account.tickets } else { 0 }),
            ("capacity", if offers { account.capacity } else { 0 }),
            ("free", free),
            ("active", account.active),
            ("spent", account.spent),
            ("offered", free + account.active + account.spent),
        ] {
            assert_eq!(number(line, key), u64::from(value), "{key} in {line}\nbut {account:?}");
        }
        let held = account.hold_end.since(now).to_string();
        assert_eq!(key_value::find(line, "held"), Some(held.as_str()), "{line}");
    }
}
