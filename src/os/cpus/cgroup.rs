//! The share of a Linux host that is this process's: its affinity, and the
//! quotas of its control groups, v1 or v2.

use std::fs;
use std::mem::{size_of, zeroed};
use std::path::Path;

/// CPUs that this process may use, above 0; with a quota perhaps a fraction of one.
pub fn cpus() -> f64 {
    affinity().min(quota(Path::new("/")).map_or(f64::INFINITY, |quota| quota.cpus))
}

/// CPU time, in seconds, that all in the group of the least quota have used;
/// none without a quota. What others do on the host says nothing about what is
/// left of a quota.
pub fn used() -> Option<f64> {
    quota(Path::new("/"))?.used
}

/// A quota, and what has been used in its group.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Quota {
    /// In CPUs.
    cpus: f64,
    /// CPU time, in seconds, where the system tells.
    used: Option<f64>,
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
fn quota(root: &Path) -> Option<Quota> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let quotas = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next().unwrap_or("");
        let path = fields.next().unwrap_or("");
        let mounts = root.join("sys/fs/cgroup");
        let (mount, read): (_, fn(&Path) -> Option<Quota>) = match controllers {
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
    quotas.filter(|quota| quota.cpus > 0.0).reduce(|least, other| {
        if other.cpus < least.cpus {
            other
        } else {
            least
        }
    })
}

/// `150000 100000`, in microseconds, or `max 100000`.
fn unified_quota(group: &Path) -> Option<Quota> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim_end().split_once(' ')?;
    let used = fs::read_to_string(group.join("cpu.stat")).ok().and_then(|text| {
        let used = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
        used.parse::<u64>().ok()
    });
    Some(Quota { cpus: ratio(quota, period)?, used: used.map(|micros| micros as f64 / 1e6) })
}

/// The same in two files; -1 is none.
fn old_quota(group: &Path) -> Option<Quota> {
    let read = |name| fs::read_to_string(group.join(name)).ok();
    let cpus = ratio(&read("cpu.cfs_quota_us")?, &read("cpu.cfs_period_us")?)?;
    // Mostly mounted together with `cpu`.
    let used = read("cpuacct.usage").and_then(|text| text.trim_end().parse::<u64>().ok());
    Some(Quota { cpus, used: used.map(|nanos| nanos as f64 / 1e9) })
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
    fn read(name: &str, files: &[(&str, &str)]) -> Option<Quota> {
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

    fn of(name: &str, files: &[(&str, &str)]) -> Option<f64> {
        read(name, files).map(|quota| quota.cpus)
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
    fn what_was_used_is_told_by_the_group_of_the_quota() {
        let group = "sys/fs/cgroup/a.slice/b.service";
        let (max, stat) = (format!("{group}/cpu.max"), format!("{group}/cpu.stat"));
        let files = [V2, (&max, "50000 100000\n"), (&stat, "usage_usec 2500000\nuser_usec 1\n")];
        assert_eq!(read("used", &files), Some(Quota { cpus: 0.5, used: Some(2.5) }));
        let group = "sys/fs/cgroup/cpu,cpuacct/docker/1f";
        let [quota, period, usage] = ["cpu.cfs_quota_us", "cpu.cfs_period_us", "cpuacct.usage"]
            .map(|name| format!("{group}/{name}"));
        let files = [V1, (&quota, "50000\n"), (&period, "100000\n"), (&usage, "1500000000\n")];
        assert_eq!(read("used-old", &files), Some(Quota { cpus: 0.5, used: Some(1.5) }));
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
