//! What bounded plans are planned and run with: DataFusion's configuration from our settings, one memory pool, our disks.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::SessionConfig;
use tidemill_core::{Result, Settings};

use crate::error::from_datafusion;
use crate::runtime::Environment;

/// How many of the largest holders of memory the pool keeps track of, for its errors.
const TRACKED: NonZeroUsize = NonZeroUsize::new(5).unwrap();

/// DataFusion's configuration for a bounded plan that runs in `environment`.
pub fn bounded_config(settings: &Settings, environment: &Environment) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_target_partitions(settings.parallelism())
        .with_batch_size(settings.batch_rows())
        // For the sources below the plan, which run on the I/O runtime.
        .with_extension(Arc::new(environment.clone()));
    let options = config.options_mut();
    options.execution.time_zone = Some(settings.local_time_zone().to_owned());
    config
}

/// What all bounded plans of a worker share: the memory that operators may reserve, and where they spill.
pub fn bounded_runtime(settings: &Settings) -> Result<Arc<RuntimeEnv>> {
    let dirs: Vec<PathBuf> = settings.temporary_dirs().into_iter().map(PathBuf::from).collect();
    let mode = if dirs.is_empty() { DiskManagerMode::OsTmpDirectory } else { DiskManagerMode::Directories(dirs) };
    let pool = TrackConsumersPool::new(FairSpillPool::new(managed_memory(settings)), TRACKED);
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(mode))
        .build_arc()
        .map_err(from_datafusion)
}

/// The part of the budget that operators and state may reserve, in bytes: what is set, else 70 % of the budget of the process;
/// and that is what is set, else 70 % of the machine.
pub fn managed_memory(settings: &Settings) -> usize {
    let share = |bytes: usize| bytes / 10 * 7;
    settings.managed_memory().unwrap_or_else(|| share(settings.process_memory().unwrap_or_else(|| share(machine_memory()))))
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
        settings.set("taskmanager.memory.process.size", "1000 mb", Origin::Statement).unwrap();
        assert_eq!(managed_memory(&settings), (1000 << 20) / 10 * 7);
        settings.set("taskmanager.memory.managed.size", "5 mb", Origin::Statement).unwrap();
        assert_eq!(managed_memory(&settings), 5 << 20);
    }

    #[test]
    fn meminfo_is_read() {
        assert_eq!(meminfo_total("MemFree: 1 kB\nMemTotal:       16384 kB\n"), Some(16 << 20));
        assert_eq!(meminfo_total("nothing"), None);
    }
}
