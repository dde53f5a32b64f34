//! The cells of a job's accumulators, and what they hold together (SUB-16).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemill_core::Result;
use tidemill_core::shared::{AccumulatorCell, AccumulatorSet, AccumulatorValues, other_kind};

/// The accumulators of the attempt that runs, or ran last. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct JobAccumulators(Arc<Mutex<Arc<AttemptAccumulators>>>);

impl JobAccumulators {
    /// What the subtasks of this attempt have added so far, merged.
    pub fn values(&self) -> AccumulatorValues {
        let attempt = self.current().clone();
        let cells = attempt.cells().clone();
        AccumulatorValues::merge(cells.iter().map(|(name, cell)| (name.clone(), &**cell)))
    }

    /// The accumulators of a new attempt. A task of an earlier one that still runs adds to cells that nobody looks at.
    pub(super) fn begin_attempt(&self) -> Arc<AttemptAccumulators> {
        let attempt = Arc::new(AttemptAccumulators::default());
        *self.current() = attempt.clone();
        attempt
    }

    fn current(&self) -> MutexGuard<'_, Arc<AttemptAccumulators>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cell and its name.
type NamedCell = (Arc<str>, Arc<dyn AccumulatorCell>);

/// The cells of all operators of all subtasks of one attempt.
#[derive(Default)]
pub struct AttemptAccumulators(Mutex<Vec<NamedCell>>);

impl AttemptAccumulators {
    /// A place for the accumulators of one operator of one subtask.
    pub fn operator(self: &Arc<Self>) -> Arc<dyn AccumulatorSet> {
        Arc::new(OperatorAccumulators { attempt: self.clone(), own: Mutex::default() })
    }

    /// Adds a cell, if it is of the kind of the others of its name.
    fn add(&self, name: &str, cell: &Arc<dyn AccumulatorCell>) -> Result<()> {
        let mut cells = self.cells();
        let (kind, same) = (cell.kind().name(), cells.iter().find(|(known, _)| &**known == name));
        let name = match same {
            Some((_, other)) if other.kind().name() != kind => {
                return Err(other_kind(name, other.kind().name(), kind));
            }
            Some((name, _)) => name.clone(),
            None => name.into(),
        };
        cells.push((name, cell.clone()));
        Ok(())
    }

    fn cells(&self) -> MutexGuard<'_, Vec<NamedCell>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for AttemptAccumulators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AttemptAccumulators({} cells)", self.cells().len())
    }
}

/// The accumulators of one operator of one subtask.
struct OperatorAccumulators {
    attempt: Arc<AttemptAccumulators>,
    own: Mutex<BTreeMap<String, Arc<dyn AccumulatorCell>>>,
}

impl fmt::Debug for OperatorAccumulators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.own.lock().unwrap_or_else(PoisonError::into_inner).keys()).finish()
    }
}

impl AccumulatorSet for OperatorAccumulators {
    fn register(&self, name: &str, new: Arc<dyn AccumulatorCell>) -> Result<Arc<dyn AccumulatorCell>> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        match own.get(name) {
            Some(cell) if cell.kind().name() == new.kind().name() => Ok(cell.clone()),
            Some(cell) => Err(other_kind(name, cell.kind().name(), new.kind().name())),
            None => {
                self.attempt.add(name, &new)?;
                own.insert(name.to_owned(), new.clone());
                Ok(new)
            }
        }
    }

    fn memory_bytes(&self) -> usize {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.values().map(|cell| cell.memory_bytes()).sum()
    }
}
