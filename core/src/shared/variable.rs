//! Broadcast variables: all rows of a bounded stream, once a worker, read by all of its subtasks (SHR-01).
//!
//! The rows are kept as columns. What functions read is made of them once a worker, by whoever asks first: their records, or
//! whatever an initializer makes of those.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;

use crate::error::{Error, Result};
use crate::graph::OperatorId;

/// The broadcast variables of one operator.
pub trait BroadcastVariables: Send + Sync + Debug {
    /// The variable that the operator knows as `name`. It is complete. An error that says which there are if there is no such one.
    fn get(&self, name: &str) -> Result<Arc<BroadcastVariable>>;

    /// Adds rows to the variable that the operator collects.
    fn add(&self, rows: RecordBatch) -> Result<()>;

    /// There are no more rows of it: those who read it may begin.
    fn complete(&self) -> Result<()>;
}

/// What a variable's memory is charged to, until it is dropped.
pub trait MemoryCharge: Send + Sync + Debug {
    /// Charges so many bytes more; an error if there are not so many left.
    fn grow(&self, bytes: usize) -> Result<()>;
}

/// All rows of a stream, and what was made of them.
#[derive(Debug)]
pub struct BroadcastVariable {
    name: Arc<str>,
    rows: Vec<RecordBatch>,
    bytes: usize,
    forms: Mutex<BTreeMap<FormId, Arc<dyn Any + Send + Sync>>>,
    charge: Arc<dyn MemoryCharge>,
}

/// Which operator made a form, if it is its own, and with which code.
type FormId = (Option<OperatorId>, TypeId);

impl BroadcastVariable {
    /// The variable called `name` of these rows, which are charged already. What is made of them will be.
    pub fn new(name: Arc<str>, rows: Vec<RecordBatch>, charge: Arc<dyn MemoryCharge>) -> Self {
        let bytes = rows.iter().map(RecordBatch::get_array_memory_size).sum();
        Self { name, rows, bytes, forms: Mutex::default(), charge }
    }

    /// The rows.
    pub fn rows(&self) -> &[RecordBatch] {
        &self.rows
    }

    /// What `make` makes of the rows, made by the first caller alone: the others wait for it and get the same. Callers agree when they
    /// say the same `owner` and pass the same code. What the code captures is no part of that: where it may matter, `owner` is the
    /// operator, whose subtasks capture the same; `None` is for code that captures nothing.
    ///
    /// As nobody knows what a form occupies, the budget is charged as much as for the rows.
    pub fn form<V, F>(&self, owner: Option<OperatorId>, make: F) -> Result<Arc<V>>
    where
        V: Send + Sync + 'static,
        F: FnOnce(&[RecordBatch]) -> Result<V> + 'static,
    {
        let mut forms = self.forms.lock().unwrap_or_else(PoisonError::into_inner);
        let id = (owner, TypeId::of::<F>());
        let form = match forms.get(&id) {
            Some(form) => form.clone(),
            None => {
                let named = |error: Error| error.context(format_args!("broadcast variable '{}'", self.name));
                self.charge.grow(self.bytes).map_err(named)?;
                let form: Arc<dyn Any + Send + Sync> = Arc::new(make(&self.rows).map_err(named)?);
                forms.insert(id, form.clone());
                form
            }
        };
        form.downcast().map_err(|_| Error::internal(format!("a form of '{}' of another type", self.name)))
    }
}
