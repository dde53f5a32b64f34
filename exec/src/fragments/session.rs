//! What bounded plans are planned and run with: DataFusion's configuration from our settings, the worker's memory, our disks.

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::SessionConfig;
use tidemill_core::{Result, Settings};

use crate::error::from_datafusion;
use crate::runtime::Environment;

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
pub fn bounded_runtime(settings: &Settings, environment: &Environment) -> Result<Arc<RuntimeEnv>> {
    let dirs: Vec<PathBuf> = settings.temporary_dirs().into_iter().map(PathBuf::from).collect();
    let mode = if dirs.is_empty() { DiskManagerMode::OsTmpDirectory } else { DiskManagerMode::Directories(dirs) };
    RuntimeEnvBuilder::new()
        .with_memory_pool(environment.memory.clone())
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(mode))
        .build_arc()
        .map_err(from_datafusion)
}
