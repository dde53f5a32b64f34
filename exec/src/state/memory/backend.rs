//! The backends: whether keyed states have a tier behind memory, and what belongs where.

use arrow::datatypes::Fields;
use tidemill_core::Result;
use tidemill_core::settings::BackendType;
use tidemill_core::state::{KeyedStates, PartStore, StateBackend};

use super::MemoryStates;
use super::outside::Leaving;
use crate::state::tier::{Tier, TierParts};

/// The backend that keeps states in memory, all of them.
#[derive(Clone, Copy, Debug)]
pub struct MemoryBackend {
    /// How many key groups there are.
    pub max_parallelism: u32,
}

impl StateBackend for MemoryBackend {
    fn keyed_states(&self, keys: &Fields) -> Result<Box<dyn KeyedStates>> {
        Ok(Box::new(MemoryStates::new(keys, self.max_parallelism)?))
    }
}

/// The backends that users choose from (BKD-01 … BKD-03, BKD-05).
///
/// Keys live in memory and leave it for the local disk when the worker is short of it; under `rocksdb` somewhat earlier, so that rows
/// which wait for keys on the disk have room. `memory` and `filesystem` differ in where the job's checkpoints go.
#[derive(Clone, Debug)]
pub struct TieredBackend {
    /// How many key groups there are.
    pub max_parallelism: u32,
    /// Where keys go that are not in memory.
    pub tier: Tier,
    /// Which backend it is.
    pub backend: BackendType,
}

impl StateBackend for TieredBackend {
    fn keyed_states(&self, keys: &Fields) -> Result<Box<dyn KeyedStates>> {
        let leaving = match self.backend {
            BackendType::Memory | BackendType::Filesystem => Leaving::WhenShort,
            BackendType::RocksDb => Leaving::Early,
        };
        Ok(Box::new(MemoryStates::tiered(keys, self.max_parallelism, self.tier.clone(), leaving)?))
    }

    fn parts(&self) -> Option<Box<dyn PartStore>> {
        Some(Box::new(TierParts::new(self.tier.clone())))
    }
}
