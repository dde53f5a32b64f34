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
use crate::memory::managed_memory;
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
