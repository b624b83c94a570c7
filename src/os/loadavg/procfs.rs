//! `/proc/loadavg`: Linux with a libc that lacks `getloadavg`.

/// Mean runnable tasks over the last 1, 5 and 15 minutes, where the system tells.
pub fn averages() -> Option<[f64; 3]> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let mut fields = text.split(' ').map(average);
    Some([fields.next()??, fields.next()??, fields.next()??])
}

/// Linux writes hundredths: `0.05`.
fn average(field: &str) -> Option<f64> {
    let (whole, hundredths) = field.split_once('.')?;
    Some(f64::from(whole.parse::<u32>().ok()?) + f64::from(hundredths.parse::<u32>().ok()?) / 100.0)
}
