//! How many threads a rank computes with where nothing is said: the cores of the machine shared
//! with the other ranks on it.

use crate::dist::Ranks;

/// Threads of this rank; `None` where it has the machine to itself.
pub(super) fn of_rank(ranks: &Ranks) -> Option<usize> {
    if ranks.world() == 1 {
        return None;
    }
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    Some(share(allowed, num_cores(), ranks.on_this_machine()))
}

/// A starter that ties each rank to cores of its own has already shared them out.
fn share(allowed: usize, cores: Option<usize>, ranks: usize) -> usize {
    match cores {
        Some(cores) if allowed < cores && allowed * ranks <= cores => allowed,
        _ => (allowed / ranks).max(1),
    }
}

/// Cores of the machine, whoever may use them; Linux only.
fn num_cores() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let cores = text.lines().filter(|line| line.starts_with("processor"));
    Some(cores.count()).filter(|&cores| cores > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_shared_once() {
        assert_eq!(share(4, Some(4), 2), 2);
        assert_eq!(share(4, Some(4), 8), 1);
        assert_eq!(share(2, Some(8), 4), 2, "tied to two cores each");
        assert_eq!(share(4, Some(64), 32), 1, "a container of four cores");
        assert_eq!(share(6, None, 2), 3);
    }
}
