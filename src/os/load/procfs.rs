//! `/proc/loadavg`: Linux with a libc that lacks `getloadavg`.

use crate::base::decimal;

/// Mean runnable tasks over the last 1, 5 and 15 minutes, where the system tells.
pub fn averages() -> Option<[f64; 3]> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let mut fields = text.split(' ').map(decimal::parse);
    Some([fields.next()??, fields.next()??, fields.next()??])
}
