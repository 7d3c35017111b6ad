//! How much memory this process may still take, in bytes: what the system has free, what a limit on
//! a group of processes (a container, a batch job) leaves, what `ulimit -v` leaves.
//!
//! Linux only; elsewhere nothing is known. What this process holds already counts as available.

use std::fs;
use std::path::Path;

/// Addresses that the allocator reserves for each thread without taking memory.
const RESERVED_PER_THREAD: u64 = 64 << 20;

/// The least of all limits that are known, for a process that runs `num_threads` threads; `None`
/// where none is.
pub(super) fn available_memory(num_threads: usize) -> Option<u64> {
    available_under(Path::new("/"), num_threads as u64)
}

/// As [`available_memory`], for the `proc` and `sys` folders under `root`.
fn available_under(root: &Path, num_threads: u64) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_default();
    let status = read("proc/self/status");
    let held = kilobytes(&status, "VmRSS:").unwrap_or(0);
    let of_system = kilobytes(&read("proc/meminfo"), "MemAvailable:").map(|free| free + held);
    let addresses = kilobytes(&status, "VmSize:").unwrap_or(0) + RESERVED_PER_THREAD * num_threads;
    let of_address_space = address_space(&read("proc/self/limits"))
        .map(|limit| limit.saturating_sub(addresses) + held);
    let groups = read("proc/self/cgroup");
    let of_groups = groups.lines().filter_map(|line| group_limit(root, line));
    let of_group = of_groups.min().map(|left| left + held);
    [of_system, of_address_space, of_group]
        .into_iter()
        .flatten()
        .min()
}

/// The number of a line `KEY   123 kB`, in bytes.
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024)
}

/// The limit that `ulimit -v` sets.
fn address_space(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What the group of a line of `/proc/self/cgroup` and those above it leave, whatever is tightest.
fn group_limit(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let (base, names) = match controllers {
        "" => (
            "sys/fs/cgroup",
            ["memory.max", "memory.current", "inactive_file"],
        ),
        c if c.split(',').any(|c| c == "memory") => (
            "sys/fs/cgroup/memory",
            [
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            ],
        ),
        _ => return None,
    };
    // Within a container the path is often that of the world outside: its root is then the group.
    let path = Path::new(path.trim_start_matches('/'));
    path.ancestors()
        .filter_map(|group| left_in_group(&root.join(base).join(group), names))
        .min()
}

/// Limit less use, files that can be read again not counted.
fn left_in_group(group: &Path, [limit, used, reclaimable]: [&str; 3]) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let limit: u64 = read(limit)?.trim().parse().ok()?;
    let used: u64 = read(used)?.trim().parse().ok()?;
    let stat = read("memory.stat").unwrap_or_default();
    let again = stat.lines().find_map(|line| {
        let (name, bytes) = line.split_once(' ')?;
        (name == reclaimable).then(|| bytes.trim().parse::<u64>().ok())?
    });
    Some(limit.saturating_sub(used.saturating_sub(again.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn system(files: &[(&str, &str)]) -> Option<u64> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        available_under(dir.path(), 0)
    }

    const STATUS: (&str, &str) = ("proc/self/status", "VmSize:\t 30 kB\nVmRSS:\t 10 kB\n");
    const MEMORY: (&str, &str) = (
        "proc/meminfo",
        "MemTotal: 900 kB\nMemAvailable:     500 kB\n",
    );

    #[test]
    fn the_tightest_limit_counts() {
        assert_eq!(system(&[]), None);
        assert_eq!(system(&[MEMORY]), Some(500 * 1024));
        assert_eq!(system(&[MEMORY, STATUS]), Some(510 * 1024));
        let limits = "Limit    Soft Limit   Hard Limit  Units\n\
                      Max address space         102400   unlimited  bytes\n";
        let limited = system(&[MEMORY, STATUS, ("proc/self/limits", limits)]);
        assert_eq!(limited, Some(102_400 - 30 * 1024 + 10 * 1024));
        let limits = limits.replace("102400", "unlimited");
        let free = system(&[MEMORY, STATUS, ("proc/self/limits", &limits)]);
        assert_eq!(free, Some(510 * 1024));
    }

    #[test]
    fn limits_of_groups_and_of_those_above_them_count() {
        let group = ("proc/self/cgroup", "0::/job/step\n");
        let of_job = [
            ("sys/fs/cgroup/job/memory.max", "100000\n"),
            ("sys/fs/cgroup/job/memory.current", "60000\n"),
            (
                "sys/fs/cgroup/job/memory.stat",
                "anon 5\ninactive_file 20000\n",
            ),
            ("sys/fs/cgroup/job/step/memory.max", "max\n"),
            ("sys/fs/cgroup/job/step/memory.current", "60000\n"),
        ];
        let files = [&[MEMORY, group][..], &of_job].concat();
        assert_eq!(system(&files), Some(60_000));
        // Version 1, in a container that sees the path of the world outside.
        let files = [
            MEMORY,
            ("proc/self/cgroup", "9:cpu:/x\n4:memory:/docker/abc\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "70000"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "50000"),
        ];
        assert_eq!(system(&files), Some(20_000));
    }
}
