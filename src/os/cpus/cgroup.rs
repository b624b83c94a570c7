//! The share of a Linux host that is this process's: its affinity, and the
//! quotas of its control groups, v1 or v2.

use std::fs;
use std::mem::{size_of, zeroed};
use std::path::Path;

/// CPUs that this process may use, above 0; with a quota perhaps a fraction of one.
pub fn cpus() -> f64 {
    affinity().min(quota(Path::new("/")).unwrap_or(f64::INFINITY))
}

/// CPUs that this thread may run on.
fn affinity() -> f64 {
    // SAFETY: plain bits, for which zero is a value; the call fills at most as
    // many bytes as its argument allows.
    let count = unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        (libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) == 0)
            .then(|| libc::CPU_COUNT(&set))
    };
    match count {
        Some(count @ 1..) => f64::from(count),
        // A host with more CPUs than there are bits, or a guard: all that it has.
        // SAFETY: touches no memory.
        _ => (unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) } as f64).max(1.0),
    }
}

/// The least quota among this process's groups and those around them, in CPUs.
/// `root` has `proc` and `sys`.
fn quota(root: &Path) -> Option<f64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let quotas = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next().unwrap_or("");
        let path = fields.next().unwrap_or("");
        let mounts = root.join("sys/fs/cgroup");
        let (mount, read): (_, fn(&Path) -> Option<f64>) = match controllers {
            "" => (mounts, unified_quota),
            _ if !controllers.split(',').any(|controller| controller == "cpu") => {
                return Vec::new()
            }
            _ if mounts.join("cpu").exists() => (mounts.join("cpu"), old_quota),
            _ => (mounts.join(controllers), old_quota),
        };
        // In a container what is mounted may be its own group only, whatever the path says.
        let around = Path::new(path.trim_start_matches('/')).ancestors();
        around.filter_map(|group| read(&mount.join(group))).collect()
    });
    quotas.filter(|quota| *quota > 0.0).reduce(f64::min)
}

/// `150000 100000`, in microseconds, or `max 100000`.
fn unified_quota(group: &Path) -> Option<f64> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim_end().split_once(' ')?;
    ratio(quota, period)
}

/// The same in two files; -1 is none.
fn old_quota(group: &Path) -> Option<f64> {
    let read = |name| fs::read_to_string(group.join(name)).ok();
    ratio(&read("cpu.cfs_quota_us")?, &read("cpu.cfs_period_us")?)
}

fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (u32, u32) =
        (quota.trim_end().parse().ok()?, period.trim_end().parse().ok()?);
    (period > 0).then(|| f64::from(quota) / f64::from(period))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What files like these say.
    fn of(name: &str, files: &[(&str, &str)]) -> Option<f64> {
        let root =
            std::env::temp_dir().join(format!("pegasus-share-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let quota = quota(&root);
        let _ = fs::remove_dir_all(root);
        quota
    }

    const V2: (&str, &str) = ("proc/self/cgroup", "0::/a.slice/b.service\n");
    const V1: (&str, &str) =
        ("proc/self/cgroup", "9:name=systemd:/x\n5:cpuset:/x\n2:cpu,cpuacct:/docker/1f\n0::/x\n");

    #[test]
    fn a_quota_is_a_fraction_of_a_cpu() {
        let own = |max| of("fraction", &[V2, ("sys/fs/cgroup/a.slice/b.service/cpu.max", max)]);
        assert_eq!(own("150000 100000\n"), Some(1.5));
        assert_eq!(own("5000 50000\n"), Some(0.1));
        assert_eq!(own("6400000 100000\n"), Some(64.0));
        for none in ["max 100000\n", "", "1.5 1\n", "1 0\n", "0 100000\n", "-1 100000\n"] {
            assert_eq!(own(none), None, "{none:?}");
        }
    }

    #[test]
    fn the_least_of_the_groups_around_counts() {
        let inner = "sys/fs/cgroup/a.slice/b.service/cpu.max";
        let outer = "sys/fs/cgroup/a.slice/cpu.max";
        assert_eq!(
            of("outer", &[V2, (inner, "400000 100000\n"), (outer, "250000 100000\n")]),
            Some(2.5)
        );
        assert_eq!(
            of("inner", &[V2, (inner, "50000 100000\n"), (outer, "250000 100000\n")]),
            Some(0.5)
        );
        assert_eq!(of("only-outer", &[V2, (outer, "250000 100000\n")]), Some(2.5));
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_root() {
        assert_eq!(of("container", &[V2, ("sys/fs/cgroup/cpu.max", "75000 100000\n")]), Some(0.75));
    }

    #[test]
    fn the_old_groups_too() {
        let quota = "sys/fs/cgroup/cpu,cpuacct/docker/1f/cpu.cfs_quota_us";
        let period = "cpu.cfs_period_us";
        let period = quota.replace("cpu.cfs_quota_us", period);
        assert_eq!(of("old", &[V1, (quota, "350000\n"), (&period, "100000\n")]), Some(3.5));
        assert_eq!(of("old-none", &[V1, (quota, "-1\n"), (&period, "100000\n")]), None);
        let mounted = [
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "20000\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(of("old-mounted", &[V1, mounted[0], mounted[1]]), Some(0.2));
    }

    #[test]
    fn without_groups_there_is_no_quota() {
        assert_eq!(of("nothing", &[]), None);
        assert_eq!(of("no-path", &[("proc/self/cgroup", "0\n\nx:y\n:::\n")]), None);
    }

    #[test]
    fn this_host_tells() {
        let cpus = cpus();
        let whole = std::thread::available_parallelism().unwrap().get() as f64;
        assert!(cpus > 0.0 && cpus.floor().max(1.0) == whole, "{cpus}, {whole}");
    }
}
