//! The operator of rolling aggregates: one value a key, emitted anew with every record.

use std::sync::Arc;

use tidemill_core::operator::{Operator, OperatorContext, Output, Progress};
use tidemill_core::{Batch, Error, Result, Watermark};

use super::keys::Keys;
use super::layout::{KeyedCodec, KeyedRows};
use super::operator::Head;
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
    fn create(&self, tail: Tail) -> Result<Box<dyn Operator>> {
        Ok(Box::new(RollingOperator {
            keys: Keys::new(self.codec.clone())?,
            codec: self.codec.clone(),
            function: self.function.clone(),
            values: Vec::new(),
            tail,
        }))
    }

    fn describe(&self) -> String {
        self.text.clone()
    }
}

struct RollingOperator<K, T> {
    codec: Arc<KeyedCodec<K, T>>,
    function: Reduce<T>,
    keys: Keys<K, T>,
    /// The value of each slot.
    values: Vec<Option<T>>,
    tail: Tail,
}

impl<K: Record, T: Record + Clone> Operator for RollingOperator<K, T> {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        self.tail.open(context);
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        let KeyedRows { keys, hashes, rows } = self.codec.split(&batch)?;
        let slots = self.keys.intern(&keys, &hashes)?;
        self.values.resize_with(self.keys.slots(), || None);
        let mut results = Vec::with_capacity(rows.values.len());
        for (value, slot) in rows.values.into_iter().zip(slots) {
            let place = self.values.get_mut(slot).ok_or_else(|| Error::internal("a key without a place"))?;
            let value = match place.take() {
                Some(old) => (self.function)(old, value),
                None => value,
            };
            results.push(value.clone());
            *place = Some(value);
        }
        self.tail.emit(Rows { values: results, times: rows.times }.erase(), output)?;
        self.tail.end_batch(output);
        Ok(Progress::Done)
    }

    fn advance(&mut self, watermark: Watermark, output: &mut Output) -> Result<Progress> {
        self.tail.watermark(watermark, output);
        Ok(Progress::Done)
    }
}
