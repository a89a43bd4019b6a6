//! The processes of a command that was started in a container: which they are, how long they have
//! run, and how they are killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    time::Duration,
};

use reconciler::name::ContainerId;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Ticks per second in `/proc/<pid>/stat`: `USER_HZ`, which is 100 on every architecture that
/// Docker runs on.
const TICKS_PER_SECOND: u64 = 100;

/// Kills the process of a command and all its descendants. Returns how many processes were killed.
///
/// `init` is the process that the engine reports as the container's init; see [`tree`] for what is
/// never killed.
pub(super) fn kill_tree(pid: i64, init: i64, container: &ContainerId) -> usize {
    tree(pid, init, &parents(), |pid| belongs_to(pid, container))
        .into_iter()
        .filter(|pid| kill_in(*pid, container))
        .count()
}

/// How long a process has been running; `None` if it does not exist, or has ended and was not
/// reaped yet.
pub(super) fn running_for(pid: i64) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    run_time(&stat, &uptime)
}

/// The processes to kill for a command whose process is `root`: the descendants of `root` in the
/// container, and `root` itself.
///
/// Empty where `root` cannot be the process of a command: before the engine has started a command
/// it reports process 0, from which every process descends; killing the container's init, or an
/// ancestor of the init, would end the container; and a process outside of the container does not
/// belong to the command.
fn tree(
    root: i64,
    init: i64,
    parents: &BTreeMap<i64, i64>,
    is_containers: impl Fn(i64) -> bool,
) -> BTreeSet<i64> {
    // Without an init the container does not run, and process 1 is the init of the host.
    if root <= 1 || init <= 1 || !parents.contains_key(&root) || !is_containers(root) {
        return BTreeSet::new();
    }

    // Each round adds the children of what was found, until no process is added.
    let mut tree = BTreeSet::from([root]);
    loop {
        let before = tree.len();
        let children: Vec<_> = parents
            .iter()
            .filter(|(_, parent)| tree.contains(parent))
            .map(|(child, _)| *child)
            .collect();
        tree.extend(children);
        if tree.len() == before {
            break;
        }
    }

    if tree.contains(&init) {
        return BTreeSet::new();
    }
    tree.into_iter().filter(|pid| is_containers(*pid)).collect()
}

/// The pidfd pins the process, so that the process that was checked is the one that is killed.
fn kill_in(pid: i64, container: &ContainerId) -> bool {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return false;
    };
    let Ok(process) = pidfd_open(raw, PidfdFlags::empty()) else {
        return false;
    };
    belongs_to(pid, container) && pidfd_send_signal(process, Signal::KILL).is_ok()
}

/// Whether a process is in the container's control group.
fn belongs_to(pid: i64, container: &ContainerId) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cgroup"))
        .is_ok_and(|groups| groups.contains(container.as_str()))
}

/// Every process of the host with its parent.
fn parents() -> BTreeMap<i64, i64> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return BTreeMap::new();
    };
    let process_and_parent = |entry: io::Result<fs::DirEntry>| {
        let pid: i64 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Field 4 in proc(5) is the parent; the first field that is left here is field 3.
        let parent = fields_of(&stat)?.nth(1)?.parse().ok()?;
        Some((pid, parent))
    };
    // A process that ends while the directory is read is left out.
    entries.filter_map(process_and_parent).collect()
}

/// Computes it from the process's `stat` and the host's `uptime`.
fn run_time(stat: &str, uptime: &str) -> Option<Duration> {
    let mut fields = fields_of(stat)?;
    // A zombie, or a process that is being removed.
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    // Start time is field 22 in proc(5); the first field that is left here is field 4.
    let ticks: u64 = fields.nth(18)?.parse().ok()?;
    let started = Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND));
    let now = Duration::try_from_secs_f64(uptime.split_whitespace().next()?.parse().ok()?).ok()?;
    Some(now.saturating_sub(started))
}

/// The fields of a `stat` from the third on. The second is the program's name in parentheses, which
/// may itself contain parentheses and spaces.
fn fields_of(stat: &str) -> Option<std::str::SplitWhitespace<'_>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INIT: i64 = 100;

    /// The init of the host, a shim with a container's init and its child, a command with a child
    /// and a grandchild, and a process of another container.
    fn parents() -> BTreeMap<i64, i64> {
        BTreeMap::from([
            (1, 0),
            (50, 1),
            (INIT, 50),
            (101, INIT),
            (200, 50),
            (201, 200),
            (202, 201),
            (300, 50),
        ])
    }

    fn is_containers(pid: i64) -> bool {
        (100..300).contains(&pid)
    }

    #[test]
    fn a_command_is_killed_with_all_that_descends_from_it() {
        assert_eq!(
            tree(200, INIT, &parents(), is_containers),
            BTreeSet::from([200, 201, 202])
        );
        let moved_out = |pid| is_containers(pid) && pid != 201;
        assert_eq!(
            tree(200, INIT, &parents(), moved_out),
            BTreeSet::from([200, 202]),
            "not what left the cgroup"
        );
    }

    #[test]
    fn without_a_process_of_the_command_nothing_is_killed() {
        let nobody = BTreeSet::new();
        let everything = |_| true;
        for (root, why) in [
            (0, "the engine has not started the command"),
            (-1, "no process"),
            (1, "the host's init"),
            (50, "the shim, from which the container's init descends"),
            (INIT, "the container's init"),
            (999, "a process that has ended"),
        ] {
            assert_eq!(tree(root, INIT, &parents(), everything), nobody, "{why}");
        }
        assert_eq!(
            tree(300, INIT, &parents(), is_containers),
            nobody,
            "another container's"
        );
        for init in [0, -1, 1] {
            assert_eq!(
                tree(200, init, &parents(), everything),
                nobody,
                "the container does not run"
            );
        }
    }

    #[test]
    fn the_time_that_a_process_runs_is_counted_from_its_own_start() {
        let stat = |state| {
            format!(
                "7 (a) (b)) {state} 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 4096 1 18"
            )
        };
        assert_eq!(
            run_time(&stat("S"), "124.95 90.00\n"),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(
            run_time(&stat("S"), "100.00 90.00\n"),
            Some(Duration::ZERO),
            "a clock of a container"
        );
        assert_eq!(run_time(&stat("Z"), "124.95 90.00\n"), None, "it has ended");
        assert_eq!(run_time("", "124.95 90.00\n"), None);
    }
}
