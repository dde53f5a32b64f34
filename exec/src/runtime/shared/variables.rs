//! The broadcast variables of an attempt: filled by the one subtask that collects, then read by all that wait for it (SHR-01).
//!
//! Who collects is a task like any other, without outputs. Who reads has no edge to it: it waits before it opens, and so reads
//! nothing meanwhile. What comes to it from elsewhere goes over edges that may spill, or a producer of both would wait for ever.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::RecordBatch;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use tidemill_core::error::unknown;
use tidemill_core::graph::{ChainedOperator, JobGraph, OperatorId};
use tidemill_core::shared::{BroadcastVariable, BroadcastVariables, MemoryCharge};
use tidemill_core::{Error, Result};

use crate::error::from_datafusion;
use crate::latch::Latch;
use crate::runtime::environment::Environment;

/// The variables of `job`, by who collects them.
pub fn slots(job: &JobGraph, environment: &Environment) -> BTreeMap<OperatorId, Arc<VariableSlot>> {
    let operators = job.vertices.iter().flat_map(|vertex| &vertex.chain);
    let uses = operators.flat_map(|operator| &operator.variables);
    let mut slots = BTreeMap::new();
    for used in uses {
        slots.entry(used.collector).or_insert_with(|| {
            let consumer = MemoryConsumer::new(format!("broadcast variable {}", used.name));
            let charge = Arc::new(Charge(consumer.register(&environment.memory)));
            Arc::new(VariableSlot {
                name: used.name.clone(),
                charge,
                rows: Mutex::default(),
                content: OnceLock::new(),
                complete: Latch::default(),
            })
        });
    }
    slots
}

/// A variable, or what there is of it.
#[derive(Debug)]
pub struct VariableSlot {
    name: Arc<str>,
    charge: Arc<Charge>,
    rows: Mutex<Vec<RecordBatch>>,
    content: OnceLock<Arc<BroadcastVariable>>,
    complete: Latch,
}

impl VariableSlot {
    /// Completes when the variable is complete.
    pub async fn completed(&self) {
        self.complete.wait().await;
    }

    fn add(&self, rows: RecordBatch) -> Result<()> {
        let charged = self.charge.grow(rows.get_array_memory_size());
        charged.map_err(|error| error.context(format_args!("broadcast variable '{}'", self.name)))?;
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).push(rows);
        Ok(())
    }

    fn complete(&self) {
        self.content.get_or_init(|| {
            let rows = std::mem::take(&mut *self.rows.lock().unwrap_or_else(PoisonError::into_inner));
            Arc::new(BroadcastVariable::new(self.name.clone(), rows, self.charge.clone()))
        });
        self.complete.raise();
    }
}

/// A share of the worker's memory, given back when the variable is dropped.
struct Charge(MemoryReservation);

impl MemoryCharge for Charge {
    fn grow(&self, bytes: usize) -> Result<()> {
        self.0.try_grow(bytes).map_err(from_datafusion)
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Charge({} bytes)", self.0.size())
    }
}

/// The variables of one operator, which live as long as it does.
#[derive(Debug)]
pub struct OperatorVariables {
    operator: String,
    /// Those that it reads.
    read: Vec<(Arc<str>, Arc<VariableSlot>)>,
    /// The one that it collects.
    collected: Option<Arc<VariableSlot>>,
}

impl OperatorVariables {
    /// What `operator` reads and collects of these.
    pub fn new(operator: &ChainedOperator, slots: &BTreeMap<OperatorId, Arc<VariableSlot>>) -> Self {
        let uses = operator.variables.iter();
        let read = uses.filter_map(|used| Some((used.name.clone(), slots.get(&used.collector)?.clone())));
        Self { operator: operator.name.clone(), read: read.collect(), collected: slots.get(&operator.id).cloned() }
    }

    fn collected(&self) -> Result<&VariableSlot> {
        self.collected
            .as_deref()
            .ok_or_else(|| Error::internal(format!("nobody reads what '{}' collects", self.operator)))
    }
}

impl BroadcastVariables for OperatorVariables {
    fn get(&self, name: &str) -> Result<Arc<BroadcastVariable>> {
        let found = self.read.iter().find(|(known, _)| &**known == name);
        let Some((_, slot)) = found else {
            let error = match self.read.is_empty() {
                true => Error::request(format!("unknown broadcast variable '{name}'"))
                    .with_hint("give it to the operator by with_broadcast_set"),
                false => unknown("broadcast variable", name, self.read.iter().map(|(known, _)| &**known)),
            };
            return Err(error.context(format_args!("'{}'", self.operator)));
        };
        let content = slot.content.get().cloned();
        content.ok_or_else(|| Error::internal(format!("broadcast variable '{name}' is read before it is complete")))
    }

    fn add(&self, rows: RecordBatch) -> Result<()> {
        self.collected()?.add(rows)
    }

    fn complete(&self) -> Result<()> {
        self.collected()?.complete();
        Ok(())
    }
}
