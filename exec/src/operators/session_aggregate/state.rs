//! The sessions in snapshots: a row for each key and session, with the state of each aggregate.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StructArray, new_empty_array};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type};
use datafusion::common::ScalarValue;
use tidemill_core::Result;
use tidemill_core::key::hash_columns;
use tidemill_core::state::{RestoredState, Snapshot};

use super::{BTreeMap, Session, SessionAggregateOperator};
use crate::error::from_datafusion;
use crate::operators::aggregate::Aggregate;
use crate::operators::saved::{KeyedPart, KeyedRows, freeze_watermark, key_fields, restored_rows, restored_watermark};

/// The state that holds the living sessions: the key and the start of each, its end, and its accumulators.
const SESSIONS: &str = "sessions";

impl SessionAggregateOperator {
    /// All sessions, and the watermark up to which they have fired.
    pub fn frozen_state(&mut self) -> Result<Snapshot> {
        let sessions = self.frozen_sessions()?.freeze(SESSIONS, self.max_parallelism);
        Ok(Snapshot::whole([sessions, freeze_watermark(self.watermark)?]))
    }

    /// The same back again.
    pub fn restore_state(&mut self, mut state: RestoredState) -> Result<()> {
        self.watermark = restored_watermark(&mut state)?;
        let (keys, kept) = self.fields()?;
        let batches = restored_rows(&mut state, SESSIONS, &keys, &kept)?;
        batches.iter().try_for_each(|batch| self.restore_sessions(batch))
    }

    /// The columns of the state: what tells sessions apart, and what is kept of each.
    fn fields(&self) -> Result<(Fields, Fields)> {
        let keys = key_fields(&self.plan.input_schema, &self.plan.keys)?.into_iter();
        let time = |name: &str| Arc::new(Field::new(name, DataType::Int64, false));
        let states = self.plan.aggregates.iter().map(Aggregate::state_field);
        let kept: Result<Fields> = [Ok(time("session_end"))].into_iter().chain(states).collect();
        Ok((keys.chain([time("session_start")]).collect(), kept?))
    }

    fn frozen_sessions(&mut self) -> Result<KeyedRows> {
        let (keys, kept) = self.fields()?;
        let (mut slots, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        let mut states: Vec<Vec<Vec<ScalarValue>>> =
            kept[1..].iter().map(|field| vec![Vec::new(); parts(field).len()]).collect();
        for (slot, sessions) in self.sessions.iter_mut().enumerate() {
            for (start, session) in sessions {
                slots.push(slot);
                starts.push(*start);
                ends.push(session.end);
                for (place, accumulator) in session.accumulators.iter_mut().enumerate() {
                    let state = accumulator.state().map_err(from_datafusion)?;
                    let arrays = state.iter().map(ScalarValue::to_array).collect::<Result<Vec<_>, _>>();
                    *accumulator = self.plan.aggregates[place].revived(&arrays.map_err(from_datafusion)?)?;
                    state.into_iter().zip(&mut states[place]).for_each(|(value, column)| column.push(value));
                }
            }
        }
        let hashes = slots.iter().map(|slot| self.index.hash(*slot)).collect();
        let mut columns = self.index.keys(&slots)?;
        columns.push(Arc::new(Int64Array::from(starts)));
        columns.push(Arc::new(Int64Array::from(ends)));
        for (state, field) in states.into_iter().zip(&kept[1..]) {
            let column = |(values, part): (Vec<ScalarValue>, &FieldRef)| match values.is_empty() {
                true => Ok(new_empty_array(part.data_type())),
                false => ScalarValue::iter_to_array(values).map_err(from_datafusion),
            };
            let arrays = state.into_iter().zip(&parts(field)).map(column).collect::<Result<Vec<_>>>()?;
            columns.push(Arc::new(StructArray::try_new(parts(field), arrays, None)?));
        }
        Ok(KeyedRows { keys, kept, parts: vec![KeyedPart::new(columns, hashes)] })
    }

    fn restore_sessions(&mut self, rows: &RecordBatch) -> Result<()> {
        let (keys, others) = rows.columns().split_at(self.plan.keys.len());
        let mut slots = Vec::with_capacity(rows.num_rows());
        self.index.intern(keys, &hash_columns(keys, rows.num_rows())?, &mut slots)?;
        self.sessions.resize_with(self.index.slots(), BTreeMap::new);
        let times = |column: &ArrayRef| column.as_primitive::<Int64Type>().values().clone();
        let (starts, ends) = (times(&others[0]), times(&others[1]));
        for (row, slot) in slots.into_iter().enumerate() {
            let (start, end) = (starts[row], ends[row]);
            let state =
                |column: &ArrayRef| column.as_struct().columns().iter().map(|part| part.slice(row, 1)).collect();
            let accumulators = self.plan.aggregates.iter().zip(&others[2..]);
            let accumulators = accumulators.map(|(aggregate, column)| {
                let state: Vec<ArrayRef> = state(column);
                aggregate.revived(&state)
            });
            let session = Session { end, accumulators: accumulators.collect::<Result<_>>()? };
            self.session_bytes += session.memory_bytes();
            self.sessions[slot].insert(start, session);
            self.ends.insert((end, slot, start));
        }
        Ok(())
    }
}

/// The parts of an aggregate's state.
fn parts(field: &FieldRef) -> Fields {
    match field.data_type() {
        DataType::Struct(parts) => parts.clone(),
        _ => Fields::empty(),
    }
}
