//! How a worker's memory is shared out.
//!
//! ```text
//! machine --70 %--> process (taskmanager.memory.process.size)
//!                     |--70 %--> managed: operators and state reserve it before they take it
//!                     `--10 %--> network: buffers between tasks
//! ```

use std::num::NonZeroUsize;
use std::sync::Arc;

use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, TrackConsumersPool};
use tidemill_core::Settings;
use tidemill_core::settings::parse_bytes;

/// How many of the largest holders of memory the pool keeps track of, for its errors.
const TRACKED: NonZeroUsize = NonZeroUsize::new(5).unwrap();

/// The one pool of a worker. Operators that can spill share it fairly; those that cannot get what they ask for while it lasts.
pub fn managed_pool(settings: &Settings) -> Arc<dyn MemoryPool> {
    Arc::new(TrackConsumersPool::new(FairSpillPool::new(managed_memory(settings)), TRACKED))
}

/// What all of a worker may occupy, in bytes: what is set, else 70 % of the machine.
pub fn process_memory(settings: &Settings) -> usize {
    settings.process_memory().unwrap_or_else(|| machine_memory() / 10 * 7)
}

/// What operators and state may reserve, in bytes: what is set, else 70 % of the process.
pub fn managed_memory(settings: &Settings) -> usize {
    settings.managed_memory().unwrap_or_else(|| process_memory(settings) / 10 * 7)
}

/// What buffers between tasks may occupy, in bytes: a fraction of the process, within its bounds.
pub fn network_memory(settings: &Settings) -> usize {
    let text = |key| settings.get(key).unwrap_or_default();
    let fraction: f64 = text("taskmanager.memory.network.fraction").parse().unwrap_or(0.1);
    let least = parse_bytes(text("taskmanager.memory.network.min")).unwrap_or(64 << 20);
    let share = (process_memory(settings) as f64 * fraction) as usize;
    share.max(least).min(settings.network_memory_max())
}

/// The memory that this process can have: the machine's, or less where a control group says so.
fn machine_memory() -> usize {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    // "max" is no number and no limit.
    let limits = limits.iter().filter_map(|path| read(path)?.trim().parse::<usize>().ok());
    let total = read("/proc/meminfo").and_then(|text| meminfo_total(&text));
    // Of a machine that does not say how large it is, little is taken.
    limits.chain(total).min().unwrap_or(1 << 30)
}

/// The line `MemTotal: 16384 kB`, in bytes.
fn meminfo_total(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    use tidemill_core::settings::Origin;

    use super::*;

    #[test]
    fn what_is_set_wins_over_shares() {
        let mut settings = Settings::default();
        assert!(managed_memory(&settings) > 0);
        let mut set = |key, value| settings.set(key, value, Origin::Statement).map(|_| settings.clone()).unwrap();
        assert_eq!(managed_memory(&set("taskmanager.memory.process.size", "1000 mb")), (1000 << 20) / 10 * 7);
        assert_eq!(managed_memory(&set("taskmanager.memory.managed.size", "5 mb")), 5 << 20);
    }

    #[test]
    fn the_network_has_its_fraction_within_bounds() {
        let mut settings = Settings::default();
        let mut set = |key, value| settings.set(key, value, Origin::Statement).map(|_| settings.clone()).unwrap();
        assert_eq!(network_memory(&set("taskmanager.memory.process.size", "1000 mb")), 100 << 20);
        assert_eq!(network_memory(&set("taskmanager.memory.process.size", "100 mb")), 64 << 20);
        assert_eq!(network_memory(&set("taskmanager.memory.network.max", "1 mb")), 1 << 20);
    }

    #[test]
    fn meminfo_is_read() {
        assert_eq!(meminfo_total("MemFree: 1 kB\nMemTotal:       16384 kB\n"), Some(16 << 20));
        assert_eq!(meminfo_total("nothing"), None);
    }
}
