//! The operator of rolling aggregates: one value a key, emitted anew with every record.

use std::sync::Arc;

use tidemill_core::operator::{Operator, OperatorContext, Output, Progress};
use tidemill_core::state::{CurrentKey, KeyedStates, RestoredState, Snapshot, SnapshotScope, ValueState};
use tidemill_core::{Batch, Error, Result, Watermark};
use tidemill_exec::state::StateRegistry;

use super::layout::{KeyedCodec, KeyedRows};
use super::operator::Head;
use super::program::SideOutput;
use super::record::Record;
use super::rows::Rows;
use super::stage::Tail;

/// Makes two records one.
pub(super) type Reduce<T> = Arc<dyn Fn(T, T) -> T + Send + Sync>;

/// A rolling aggregate.
pub(super) struct Rolling<K, T> {
    pub codec: Arc<KeyedCodec<K, T>>,
    pub function: Reduce<T>,
    pub text: String,
}

impl<K: Record, T: Record + Clone> Head for Rolling<K, T> {
    fn create(&self, tail: Tail, _sides: &[SideOutput]) -> Result<Box<dyn Operator>> {
        let (codec, function) = (self.codec.clone(), self.function.clone());
        Ok(Box::new(RollingOperator { codec, function, states: None, value: ValueState::default(), tail }))
    }

    fn describe(&self) -> String {
        self.text.clone()
    }
}

struct RollingOperator<K, T: 'static> {
    codec: Arc<KeyedCodec<K, T>>,
    function: Reduce<T>,
    /// From `open` on.
    states: Option<Box<dyn KeyedStates>>,
    /// The value of each key.
    value: ValueState<T>,
    tail: Tail,
}

impl<K: Record, T: Record + Clone> Operator for RollingOperator<K, T> {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        self.tail.open(context);
        let mut states = context.backend.keyed_states(&self.codec.key_fields())?;
        self.value = StateRegistry::new(&mut *states).value_state("value")?;
        self.states = Some(states);
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        let KeyedRows { keys, hashes, rows } = self.codec.split(&batch)?;
        let states = self.states.as_mut().ok_or_else(not_open)?;
        let mut slots = Vec::with_capacity(rows.values.len());
        states.lookup(&keys, &hashes, &mut slots)?;
        let mut results = Vec::with_capacity(rows.values.len());
        for (value, slot) in rows.values.into_iter().zip(slots) {
            self.value.update(&mut CurrentKey::new(&mut **states, slot, 0), |old| {
                let value = match old {
                    Some(old) => (self.function)(old, value),
                    None => value,
                };
                results.push(value.clone());
                value
            })?;
        }
        states.release()?;
        self.tail.emit(Rows { values: results, times: rows.times }.erase(), output)?;
        self.tail.end_batch(output);
        Ok(Progress::Done)
    }

    fn advance(&mut self, watermark: Watermark, output: &mut Output) -> Result<Progress> {
        self.tail.watermark(watermark, output);
        Ok(Progress::Done)
    }

    fn memory_bytes(&self) -> usize {
        self.states.as_ref().map_or(0, |states| states.memory_bytes())
    }

    fn give_back(&mut self, bytes: usize) -> Result<()> {
        self.states.as_mut().map_or(Ok(()), |states| states.give_back(bytes))
    }

    fn snapshot(&mut self, scope: SnapshotScope) -> Result<Snapshot> {
        self.states.as_mut().ok_or_else(not_open)?.snapshot(scope)
    }

    fn restore(&mut self, mut state: RestoredState) -> Result<()> {
        self.states.as_mut().ok_or_else(not_open)?.restore(&mut state)
    }
}

fn not_open() -> Error {
    Error::internal("a rolling aggregate that was not opened")
}
