//! `sysinfo(2)`: Android, where programs may not read `/proc/loadavg` and the
//! C library has no `getloadavg` before its version 29.

/// Mean runnable tasks over the last 1, 5 and 15 minutes, where the system tells.
pub fn averages() -> Option<[f64; 3]> {
    // SAFETY: plain numbers, for which zero is a value.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: the call fills the structure it is given.
    let status = unsafe { libc::sysinfo(&mut info) };
    // The kernel counts in 65536ths.
    (status == 0).then(|| info.loads.map(|load| load as f64 / 65536.0))
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_says_what_proc_says() {
        let (call, file) = (
            super::averages().expect("sysinfo(2)"),
            super::super::procfs::averages().expect("/proc"),
        );
        // A quarter of a second of the kernel's sampling may lie between the two.
        assert!(
            call.iter().zip(file).all(|(call, file)| (call - file).abs() < 1.0),
            "{call:?} {file:?}"
        );
    }
}
