//! Operators that keep one column of state for the keys of their input, and update it with every batch: what is the same for all of
//! them, from the rows that wait for keys outside of memory to snapshots.
//!
//! ```text
//! batch ── slots of its keys ──┬─ in memory ──────────────────────────────> update ──> what changes downstream
//!                              └─ not ── backlog ── many, in their order ──────^
//! ```

mod backlog;
mod idle;

use arrow::datatypes::{Fields, SchemaRef};
use tidemill_core::operator::{Operator, OperatorContext, Output, Progress};
use tidemill_core::state::{RestoredState, Snapshot, SnapshotScope, StateColumn, StateTtl};
use tidemill_core::{Batch, Error, Result, Watermark};

use crate::operators::pending::Pending;
pub use idle::{EXPIRED_SLOTS, IdleState};

/// What an operator does with its one column of state.
pub trait KeyedUpdate: Send {
    /// What is kept for keys.
    type Column: StateColumn;

    /// The state, empty.
    ///
    /// Errors: values of these columns cannot be keys, or not be kept.
    fn declare(&self) -> Result<Declared<Self::Column>>;

    /// Works on rows of keys that have slots; rows that change downstream by it. There is at least one row, and those of one key come
    /// in their order.
    fn update(&mut self, states: &mut IdleState<Self::Column>, rows: Rows<'_>) -> Result<Option<Batch>>;

    /// The input has ended, perhaps not for the first time; rows that change downstream by it.
    fn end(&mut self, _states: &mut IdleState<Self::Column>) -> Result<Option<Batch>> {
        Ok(None)
    }

    /// Adds to a snapshot what is not in the column.
    fn snapshot(&self, _snapshot: &mut Snapshot) -> Result<()> {
        Ok(())
    }

    /// Takes back what `snapshot` added.
    fn restore(&mut self, _state: &mut RestoredState) -> Result<()> {
        Ok(())
    }

    /// Bytes held beside the column.
    fn memory_bytes(&self) -> usize {
        0
    }
}

/// The one state of an operator.
pub struct Declared<C> {
    /// Its name in snapshots.
    pub name: &'static str,
    /// The columns of the input.
    pub input: SchemaRef,
    /// Those of them that are its key: their numbers, and what they are.
    pub keys: (Vec<usize>, Fields),
    /// The column, empty.
    pub column: C,
    /// How long a key is kept that is not written.
    pub ttl: Option<StateTtl>,
}

/// Rows whose keys were found.
pub struct Rows<'a> {
    /// The rows.
    pub batch: &'a Batch,
    /// The slot of each row's key.
    pub slots: &'a [usize],
    /// Processing time.
    pub now_millis: i64,
}

/// The operator that makes such updates.
pub struct KeyedUpdates<U: KeyedUpdate> {
    update: U,
    /// From `open` on.
    states: Option<IdleState<U::Column>>,
    /// Slots of a batch.
    slots: Vec<usize>,
    pending: Pending,
}

impl<U: KeyedUpdate> KeyedUpdates<U> {
    /// Not open yet.
    pub fn new(update: U) -> Self {
        Self { update, states: None, slots: Vec::new(), pending: Pending::default() }
    }

    fn states(&mut self) -> Result<&mut IdleState<U::Column>> {
        self.states.as_mut().ok_or_else(not_open)
    }

    /// Works on rows whose slots are at hand.
    fn work(&mut self, batch: &Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let states = self.states.as_mut().ok_or_else(not_open)?;
        let rows = Rows { batch, slots: &self.slots, now_millis: states.now_millis() };
        if let Some(changed) = self.update.update(states, rows)? {
            self.pending.push(changed, states.batch_rows());
        }
        Ok(())
    }
}

impl<U: KeyedUpdate> Operator for KeyedUpdates<U> {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        self.states = Some(IdleState::new(context, self.update.declare()?)?);
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        let states = self.states.as_mut().ok_or_else(not_open)?;
        let batch = states.take_in(batch, &mut self.slots)?;
        self.work(&batch)?;
        self.resume(output)
    }

    fn advance(&mut self, watermark: Watermark, output: &mut Output) -> Result<Progress> {
        self.states()?.advance(watermark);
        self.resume(output)
    }

    fn wake(&mut self, _token: u64, output: &mut Output) -> Result<Progress> {
        self.states()?.wake()?;
        self.resume(output)
    }

    fn flush(&mut self, output: &mut Output) -> Result<Progress> {
        self.states()?.fall_due()?;
        self.resume(output)
    }

    fn end_of_input(&mut self, _input: usize, output: &mut Output) -> Result<Progress> {
        let states = self.states.as_mut().ok_or_else(not_open)?;
        if let Some(changed) = self.update.end(states)? {
            self.pending.push(changed, states.batch_rows());
        }
        self.flush(output)
    }

    fn resume(&mut self, output: &mut Output) -> Result<Progress> {
        while self.pending.emit(output) == Progress::Done {
            let states = self.states.as_mut().ok_or_else(not_open)?;
            let due = states.next_due(&mut self.slots)?;
            if let Some(batch) = &due {
                self.work(batch)?;
            }
            match self.states()?.watermark() {
                Some(watermark) => self.pending.push_watermark(watermark),
                None if due.is_none() => return Ok(Progress::Done),
                None => {}
            }
        }
        Ok(Progress::Full)
    }

    fn memory_bytes(&self) -> usize {
        self.update.memory_bytes() + self.states.as_ref().map_or(0, IdleState::memory_bytes)
    }

    fn give_back(&mut self, bytes: usize) -> Result<()> {
        self.states.as_mut().map_or(Ok(()), |states| states.states.give_back(bytes))
    }

    fn snapshot(&mut self, scope: SnapshotScope) -> Result<Snapshot> {
        let mut snapshot = self.states()?.snapshot(scope)?;
        self.update.snapshot(&mut snapshot)?;
        Ok(snapshot)
    }

    fn restore(&mut self, mut state: RestoredState) -> Result<()> {
        self.update.restore(&mut state)?;
        self.states()?.restore(&mut state)
    }
}

fn not_open() -> Error {
    Error::internal("an operator that was not opened")
}
