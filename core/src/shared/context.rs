//! What one operator of one subtask may reach of what is shared.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;

use crate::error::{Error, Result, unknown};
use crate::graph::OperatorId;
use crate::shared::{AccumulatorCell, AccumulatorSet, BroadcastVariable, BroadcastVariables, CachedFiles, other_kind};

/// What one operator of one subtask shares with others. The default one shares nothing: its accumulators are its own.
#[derive(Clone, Debug)]
pub struct SharedContext {
    /// Which operator of the job it is; names do not tell them apart.
    pub operator: OperatorId,
    /// How many attempts at the job came before this one.
    pub attempt: u32,
    /// What the program was given for all of its functions.
    pub parameters: Arc<BTreeMap<String, String>>,
    /// Where accumulators are registered.
    pub accumulators: Arc<dyn AccumulatorSet>,
    /// The variables that were broadcast to it.
    pub variables: Arc<dyn BroadcastVariables>,
    /// The files of the job.
    pub files: Arc<dyn CachedFiles>,
}

impl Default for SharedContext {
    fn default() -> Self {
        Self {
            operator: OperatorId(0),
            attempt: 0,
            parameters: Arc::default(),
            accumulators: Arc::new(Alone::default()),
            variables: Arc::new(Alone::default()),
            files: Arc::new(Alone::default()),
        }
    }
}

/// An operator that shares nothing.
#[derive(Default)]
struct Alone(Mutex<BTreeMap<String, Arc<dyn AccumulatorCell>>>);

impl std::fmt::Debug for Alone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Alone")
    }
}

impl AccumulatorSet for Alone {
    fn register(&self, name: &str, new: Arc<dyn AccumulatorCell>) -> Result<Arc<dyn AccumulatorCell>> {
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked, cell) = (new.kind().name(), cells.entry(name.to_owned()).or_insert(new));
        match cell.kind().name() {
            there if there == asked => Ok(cell.clone()),
            there => Err(other_kind(name, there, asked)),
        }
    }

    fn memory_bytes(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(|cell| cell.memory_bytes()).sum()
    }
}

impl BroadcastVariables for Alone {
    fn get(&self, name: &str) -> Result<Arc<BroadcastVariable>> {
        Err(unknown("broadcast variable", name, []))
    }

    fn add(&self, _rows: RecordBatch) -> Result<()> {
        Err(Error::internal("rows of a broadcast variable that nobody reads"))
    }

    fn complete(&self) -> Result<()> {
        Err(Error::internal("the end of a broadcast variable that nobody reads"))
    }
}

impl CachedFiles for Alone {
    fn path(&self, name: &str) -> Result<PathBuf> {
        Err(unknown("cached file", name, []))
    }
}
