//! `getloadavg(3)`: Linux with glibc or musl, the BSDs, macOS, illumos.

extern "C" {
    // The libc crate declares it for some of these systems only.
    fn getloadavg(averages: *mut f64, count: std::ffi::c_int) -> std::ffi::c_int;
}

/// Mean runnable tasks over the last 1, 5 and 15 minutes, where the system tells.
pub fn averages() -> Option<[f64; 3]> {
    let mut averages = [0.0; 3];
    // SAFETY: the call writes at most the three numbers that it is given room for.
    let count = unsafe { getloadavg(averages.as_mut_ptr(), 3) };
    (count == 3).then_some(averages)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_system_tells() {
        let averages = super::averages().expect("a load average");
        assert!(averages.iter().all(|load| load.is_finite() && *load >= 0.0), "{averages:?}");
    }
}
