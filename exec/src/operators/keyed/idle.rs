//! State of SQL operators that is dropped when its key has been idle for long (`table.exec.state.ttl`).
//!
//! An operator looks for what has expired among the keys of a batch before it works on them, so that no result depends on when
//! a backend comes by; with every batch it lets the backend come by at a few more. What has gone is not taken back downstream:
//! to a key that comes again nothing has happened before.
//!
//! Rows whose keys are not in memory wait for each other ([`Backlog`]), for as long as they might in a buffer. A checkpoint does not
//! have them worked off, which would hold its task up, but holds them:
//!
//! ```text
//! waiting   keyed   a row for each that waits: its number, its columns and its kind; only if rows have ever waited
//! ```

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use tidemill_core::key::key_group;
use tidemill_core::operator::OperatorContext;
use tidemill_core::state::{
    Expiry, Extent, KeyedStates, RestoredState, Snapshot, SnapshotScope, StateColumn, StateId, StateTtl, not_restorable,
};
use tidemill_core::{Batch, Error, Gate, Result, Watermark};

use super::Declared;
use super::backlog::Backlog;
use crate::operators::expression::keys_and_hashes;
use crate::operators::saved::{KeyedPart, KeyedRows, restored_rows};
use crate::state::columns::TimedColumn;
use crate::state::stored_rows::{rows_of, stored_columns, stored_fields};

/// How many more slots are looked at for expired state with every batch, beside as many as there are rows.
pub const EXPIRED_SLOTS: usize = 16;

/// So long rows wait for each other at the most, whatever the buffer timeout is: many more of them wait than a buffer has.
const LONGEST_WAIT_MILLIS: u128 = 1000;

/// The state that holds the rows that wait.
const WAITING: &str = "waiting";

/// The one state of an operator: a column of type `C`, whose slots expire if there is a TTL.
pub struct IdleState<C> {
    /// All keys.
    pub states: Box<dyn KeyedStates>,
    /// Columns of the input.
    keys: Vec<usize>,
    input: SchemaRef,
    /// Rows of keys that are not in memory.
    backlog: Backlog,
    /// Rows have waited: checkpoints say which still do.
    has_waited: bool,
    context: OperatorContext,
    /// A wake-up is on its way, behind which nothing waits.
    has_deadline: bool,
    id: StateId,
    ttl: Option<StateTtl>,
    column: PhantomData<fn() -> C>,
}

impl<C: StateColumn> IdleState<C> {
    /// Registers the column.
    pub fn new(context: &OperatorContext, declared: Declared<C>) -> Result<Self> {
        let Declared { name, input, keys: (keys, fields), column, ttl } = declared;
        let mut states = context.backend.keyed_states(&fields)?;
        let id = match ttl {
            None => states.register(name, None, Box::new(column)),
            Some(_) => states.register(name, ttl, Box::new(TimedColumn::new(column))),
        }?;
        let (backlog, context) = (Backlog::default(), context.clone());
        let (has_waited, has_deadline) = (false, false);
        Ok(Self { states, keys, input, backlog, has_waited, context, has_deadline, id, ttl, column: PhantomData })
    }

    /// Processing time.
    pub fn now_millis(&self) -> i64 {
        self.context.clock.now_millis()
    }

    /// The most rows of a batch that the operator makes.
    pub fn batch_rows(&self) -> usize {
        self.context.batch_rows
    }

    /// The column.
    pub fn column(&mut self) -> Result<&mut C> {
        let column = self.states.column(self.id)?;
        match self.ttl {
            None => column.downcast(),
            Some(_) => Ok(&mut column.downcast::<TimedColumn<C>>()?.inner),
        }
    }

    /// Makes `slots` those of the rows of a batch that can be worked on now, and gives these; the others wait.
    pub fn take_in(&mut self, batch: Batch, slots: &mut Vec<usize>) -> Result<Batch> {
        let (columns, hashes) = keys_and_hashes(&batch, &self.keys)?;
        let gate = self.context.buffer_timeout;
        let room = match self.ttl {
            None if gate != Gate::IMMEDIATE && !self.backlog.has_restored() => self.states.backlog().bytes,
            // What expires must not depend on how long rows have waited.
            _ => 0,
        };
        let mut far = Vec::new();
        slots.clear();
        match (room, self.backlog.is_empty()) {
            (0, true) => self.states.lookup(&columns, &hashes, slots)?,
            // No key is far any more, but those for which rows wait cannot be told.
            (0, false) => far.extend(0..batch.num_rows() as u32),
            _ => self.states.lookup_near(&columns, &hashes, slots, &mut far)?,
        }
        if far.is_empty() {
            return Ok(batch);
        }
        self.has_waited = true;
        let near = self.backlog.keep_back(&batch, far)?;
        if self.backlog.size_bytes() > room {
            self.fall_due()?;
        } else if !std::mem::replace(&mut self.has_deadline, true) {
            let wait_millis = match gate {
                Gate::After(timeout) => timeout.as_millis().min(LONGEST_WAIT_MILLIS),
                Gate::Full | Gate::Infinite => LONGEST_WAIT_MILLIS,
            };
            self.context.wakeups.at(self.now_millis().saturating_add(wait_millis as i64), 0);
        }
        Ok(near)
    }

    /// The wake-up has come.
    pub fn wake(&mut self) -> Result<()> {
        self.has_deadline = false;
        self.fall_due()
    }

    /// Nothing waits any longer.
    pub fn fall_due(&mut self) -> Result<()> {
        self.backlog.fall_due(&self.keys, self.context.max_parallelism)
    }

    /// Event time has come so far, behind the rows that wait.
    pub fn advance(&mut self, watermark: Watermark) {
        self.backlog.advance(watermark);
    }

    /// The last watermark, once, if nothing waits before it.
    pub fn watermark(&mut self) -> Option<Watermark> {
        self.backlog.watermark()
    }

    /// The next rows that wait no longer, a batch at the most; makes `slots` theirs.
    pub fn next_due(&mut self, slots: &mut Vec<usize>) -> Result<Option<Batch>> {
        let keys = self.states.backlog().keys.unwrap_or(usize::MAX);
        let Some(batch) = self.backlog.next_due(self.batch_rows(), keys)? else { return Ok(None) };
        let (columns, hashes) = keys_and_hashes(&batch, &self.keys)?;
        slots.clear();
        self.states.lookup(&columns, &hashes, slots)?;
        Ok(Some(batch))
    }

    /// Freezes the states, and the rows that wait; for a [`SnapshotScope::Copy`], which is made of states alone, none may wait.
    pub fn snapshot(&mut self, scope: SnapshotScope) -> Result<Snapshot> {
        let mut snapshot = self.states.snapshot(scope)?;
        match scope {
            SnapshotScope::Copy if !self.backlog.is_empty() => {
                return Err(Error::internal("a snapshot of states alone while rows wait for their keys"));
            }
            SnapshotScope::Base | SnapshotScope::Changes if self.has_waited => {
                snapshot.push(Extent::Whole, self.waiting()?.freeze(WAITING, self.context.max_parallelism));
            }
            _ => {}
        }
        Ok(snapshot)
    }

    /// Takes back what was frozen, in place of nothing. Rows that wait follow the columns of the input by name, like all state.
    pub fn restore(&mut self, state: &mut RestoredState) -> Result<()> {
        let (keys, kept) = self.waiting_fields();
        for stored in restored_rows(state, WAITING, &keys, &kept)? {
            let columns = &stored.columns()[keys.len()..];
            let rows = rows_of(&self.input, columns, stored.num_rows()).map_err(|error| {
                let declared = Schema::new(self.input.fields().clone());
                not_restorable(WAITING, stored.schema_ref(), &declared, error.message())
            })?;
            for hash in keys_and_hashes(&rows, &self.keys)?.1.iter() {
                let group = key_group(*hash, self.context.max_parallelism);
                if !state.key_groups.contains(&group) {
                    let error = format!("a row of key group {group} waits where {:?} are owned", state.key_groups);
                    return Err(Error::corrupt(error));
                }
            }
            self.backlog.put_back(rows);
        }
        self.has_waited |= !self.backlog.is_empty();
        self.states.restore(state)
    }

    /// What tells rows that wait apart, and what is kept of them.
    fn waiting_fields(&self) -> (Fields, Fields) {
        let number = Field::new("$number", DataType::Int64, false);
        (Fields::from(vec![number]), stored_fields(&self.input))
    }

    fn waiting(&self) -> Result<KeyedRows> {
        let (mut parts, mut first) = (Vec::new(), 0);
        for batch in self.backlog.waiting()? {
            let hashes = keys_and_hashes(batch, &self.keys)?.1.to_vec();
            let end = first + batch.num_rows() as i64;
            let numbers = Arc::new(Int64Array::from_iter_values(first..end)) as ArrayRef;
            parts.push(KeyedPart::new([numbers].into_iter().chain(stored_columns(batch.clone())), hashes));
            first = end;
        }
        let (keys, kept) = self.waiting_fields();
        Ok(KeyedRows { keys, kept, parts })
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.states.memory_bytes() + self.backlog.size_bytes()
    }

    /// Empties those of these slots that have expired, and gives them back: they were written by it.
    pub fn expire(&mut self, slots: &[usize], now_millis: i64) -> Result<Vec<usize>> {
        if self.ttl.is_none() {
            return Ok(Vec::new());
        }
        let column = self.states.column(self.id)?;
        let undated: Vec<usize> = slots.iter().copied().filter(|slot| column.is_undated(*slot)).collect();
        self.states.touch(self.id, &undated, now_millis)?;
        let (expiry, column) = (Expiry::new(self.ttl, now_millis), self.states.column(self.id)?);
        Ok(slots.iter().copied().filter(|slot| column.expire(*slot, expiry)).collect())
    }

    /// These slots were written, and were those of a batch of so many rows: none is held any more.
    pub fn written(&mut self, slots: &[usize], rows: usize, now_millis: i64) -> Result<()> {
        self.states.touch(self.id, slots, now_millis)?;
        if self.ttl.is_some() {
            self.states.expire(now_millis, rows.saturating_add(EXPIRED_SLOTS))?;
        }
        self.states.release()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use arrow::array::{AsArray, RecordBatch};
    use arrow::compute::SortOptions;
    use arrow::datatypes::Int64Type;
    use tidemill_core::metrics::Metrics;
    use tidemill_core::operator::{Emission, Operator, OperatorContext, OperatorFactory, Output};
    use tidemill_core::settings::BackendType;
    use tidemill_core::state::{RestoredState, SnapshotScope, StateLayer};

    use super::*;
    use crate::operators::group_aggregate::GroupAggregate;
    use crate::operators::group_aggregate::tests::{batch, input_schema, plan};
    use crate::operators::process::tests::Hand;
    use crate::operators::test_context;
    use crate::operators::top_n::TopN;
    use crate::state::TieredBackend;
    use crate::state::conformance::snapshots::{encode, layers_unchecked};
    use crate::state::tier::test_disk;

    /// An operator under a clock that is put by hand.
    struct Clocked {
        operator: Box<dyn Operator>,
        hand: Arc<Hand>,
    }

    impl Clocked {
        fn new(factory: &dyn OperatorFactory) -> Self {
            let (mut operator, hand) = (factory.create().unwrap(), Arc::new(Hand::default()));
            let context = OperatorContext { clock: hand.clone(), batch_rows: 100, ..test_context(Metrics::default()) };
            operator.open(&context).unwrap();
            Self { operator, hand }
        }

        /// Rows `(key, value, adds)` at a time; the first columns of what leaves.
        fn rows(&mut self, now_millis: i64, rows: &[(i64, i64, bool)]) -> Vec<String> {
            self.hand.0.store(now_millis, Ordering::Relaxed);
            let rows: Vec<_> = rows.iter().map(|(key, value, adds)| ((Some(*key), Some(*value)), *adds)).collect();
            let (mut output, mut seen) = (Output::new(usize::MAX), vec![]);
            let _ = self.operator.process(0, batch(&rows), &mut output).unwrap();
            while let Some(Emission::Batch(_, batch)) = output.pop() {
                let columns = batch.records().columns().iter().take(2);
                let columns: Vec<_> = columns.map(|column| column.as_primitive::<Int64Type>().values()).collect();
                for row in 0..batch.num_rows() {
                    let cells: Vec<String> = columns.iter().map(|column| column[row].to_string()).collect();
                    seen.push(format!("{} {}", batch.kind(row).unwrap().symbol(), cells.join(" ")));
                }
            }
            seen
        }

        /// How many keys a checkpoint holds, and the checkpoint.
        fn saved(&mut self) -> (usize, RestoredState) {
            let states = self.operator.snapshot(SnapshotScope::Copy).unwrap().states.into_iter();
            let states =
                states.map(|state| (state.descriptor.clone(), vec![StateLayer::Rows(state.rows().unwrap().into())]));
            let states: Vec<_> = states.collect();
            let keyed = states[0].1.iter().map(|layer| layer.rows().count()).sum();
            (keyed, RestoredState { key_groups: 0..128, states })
        }
    }

    fn ttl() -> Option<StateTtl> {
        Some(StateTtl::new(Duration::from_millis(10)))
    }

    fn groups(keys: &[usize], ttl: Option<StateTtl>) -> GroupAggregate {
        GroupAggregate { ttl, ..plan(keys.to_vec()) }
    }

    /// The first row by value of each key.
    fn first() -> TopN {
        TopN {
            partition_by: vec![0],
            order_by: vec![(1, SortOptions::default())],
            first: 1,
            last: 1,
            emits_rank: false,
            input_updates: false,
            ttl: ttl(),
            input_schema: input_schema(),
            schema: input_schema(),
        }
    }

    #[test]
    fn a_group_to_which_no_row_comes_begins_anew() {
        let mut counts = Clocked::new(&groups(&[0], ttl()));
        assert_eq!(counts.rows(0, &[(1, 5, true)]), ["+I 1 1"]);
        assert_eq!(counts.rows(9, &[(1, 6, true)]), ["-U 1 1", "+U 1 2"]);
        assert_eq!(counts.rows(19, &[(1, 7, true), (2, 1, true)]), ["+I 1 1", "+I 2 1"]);
        let mut for_ever = Clocked::new(&groups(&[0], None));
        assert_eq!(for_ever.rows(0, &[(1, 5, true)]), ["+I 1 1"]);
        assert_eq!(for_ever.rows(i64::MAX, &[(1, 6, true)]), ["-U 1 1", "+U 1 2"]);
    }

    #[test]
    fn the_group_of_everything_begins_anew_too() {
        let mut counts = Clocked::new(&groups(&[], ttl()));
        assert_eq!(counts.rows(0, &[(1, 5, true), (2, 6, true)]), ["+I 2 11"]);
        assert_eq!(counts.rows(10, &[(1, 7, true)]), ["+I 1 7"]);
        // Without rows it is not forgotten: its result stands.
        assert_eq!(counts.rows(15, &[(1, 7, false), (1, 8, true)]), ["-U 1 7", "+U 1 8"]);
    }

    #[test]
    fn what_a_forgotten_group_no_longer_knows_is_not_taken_back() {
        let mut counts = Clocked::new(&groups(&[0], ttl()));
        counts.rows(0, &[(1, 5, true), (1, 6, true)]);
        assert!(counts.rows(10, &[(1, 5, false)]).is_empty());
        assert_eq!(counts.rows(20, &[(1, 6, false), (1, 7, true), (2, 1, true)]), ["+I 1 1", "+I 2 1"]);
        assert_eq!(counts.rows(21, &[(1, 7, false)]), ["-D 1 1"]);
        assert_eq!(counts.saved().0, 1);
    }

    #[test]
    fn duplicates_do_not_prolong_the_life_of_the_first() {
        let mut firsts = Clocked::new(&first());
        assert_eq!(firsts.rows(0, &[(1, 5, true)]), ["+I 1 5"]);
        assert!(firsts.rows(9, &[(1, 5, true), (1, 6, true)]).is_empty());
        assert_eq!(firsts.rows(10, &[(1, 7, true)]), ["+I 1 7"]);
        assert_eq!(firsts.rows(19, &[(1, 6, true)]), ["-D 1 7", "+I 1 6"]);
        assert!(firsts.rows(28, &[(1, 8, true)]).is_empty());
        assert_eq!(firsts.rows(29, &[(1, 8, true)]), ["+I 1 8"]);
    }

    #[test]
    fn rows_of_others_sweep_out_what_has_expired() {
        let many: Vec<(i64, i64, bool)> = (0..30).map(|key| (key, key, true)).collect();
        for mut operator in [Clocked::new(&groups(&[0], ttl())), Clocked::new(&first())] {
            assert_eq!(operator.rows(0, &many).len(), 30);
            operator.rows(10, &[(100, 1, true)]);
            operator.rows(10, &[(101, 1, true)]);
            assert_eq!(operator.saved().0, 2);
        }
    }

    #[test]
    fn times_are_part_of_a_checkpoint_and_a_ttl_may_come_later() {
        for before in [None, ttl()] {
            let mut first = Clocked::new(&groups(&[0], before));
            first.rows(5, &[(1, 5, true)]);
            let saved = first.saved().1;
            let restored = |now| {
                let mut counts = Clocked::new(&groups(&[0], ttl()));
                counts.operator.restore(saved.clone()).unwrap();
                counts.rows(now, &[(1, 6, true)])
            };
            let updated = ["-U 1 1", "+U 1 2"];
            assert_eq!(restored(14), updated);
            match before {
                None => assert_eq!(restored(15), updated),
                Some(_) => assert_eq!(restored(15), ["+I 1 1"]),
            }
        }
    }

    #[test]
    fn rows_of_keys_outside_wait_for_each_other_and_watermarks_behind_them() {
        let tier = test_disk().limited(Some(64 << 10));
        let backend = TieredBackend { max_parallelism: 128, tier, backend: BackendType::Memory };
        let context =
            OperatorContext { batch_rows: 100, backend: Arc::new(backend), ..test_context(Metrics::default()) };
        let mut counts = groups(&[0], None).create().unwrap();
        counts.open(&context).unwrap();
        let rows = |keys: &mut dyn Iterator<Item = i64>| {
            batch(&keys.map(|key| ((Some(key), Some(1)), true)).collect::<Vec<_>>())
        };
        let mut output = Output::new(usize::MAX);
        // The last count of each key that was told, and whether a watermark came, and came last.
        let told = |output: &mut Output| {
            let (mut last, mut watermarks, mut is_last) = (std::collections::BTreeMap::new(), 0, false);
            while let Some(emission) = output.pop() {
                is_last = matches!(emission, Emission::Watermark(_));
                watermarks += usize::from(is_last);
                let Emission::Batch(_, batch) = emission else { continue };
                let columns = batch.records().columns().iter().take(2);
                let columns: Vec<_> = columns.map(|column| column.as_primitive::<Int64Type>().values()).collect();
                last.extend((0..batch.num_rows()).map(|row| (columns[0][row], columns[1][row])));
            }
            (last, (watermarks, is_last))
        };
        for first in (0..20_000).step_by(1000) {
            let _ = counts.process(0, rows(&mut (first..first + 1000)), &mut output).unwrap();
        }
        let _ = counts.flush(&mut output).unwrap();
        assert_eq!(told(&mut output).0.len(), 20_000);

        let some = || (0..20_000).step_by(100);
        let _ = counts.process(0, rows(&mut some()), &mut output).unwrap();
        let _ = counts.advance(tidemill_core::Watermark(5), &mut output).unwrap();
        let _ = counts.process(0, rows(&mut some()), &mut output).unwrap();
        let (near, watermarks) = told(&mut output);
        assert!(near.len() < 200 && watermarks.0 == 0, "{} of 200, {watermarks:?}", near.len());
        assert!(counts.snapshot(SnapshotScope::Copy).is_err());
        let _ = counts.flush(&mut output).unwrap();
        let (far, watermarks) = told(&mut output);
        assert_eq!((near.len() + far.len(), watermarks), (200, (1, true)));
        assert!(near.values().chain(far.values()).all(|count| *count == 3));
        assert!(counts.snapshot(SnapshotScope::Copy).is_ok());
    }

    #[test]
    fn a_checkpoint_holds_the_rows_that_wait_and_behind_it_nothing_overtakes_them() {
        let tier = test_disk().limited(Some(64 << 10));
        let backend = TieredBackend { max_parallelism: 128, tier, backend: BackendType::Memory };
        let little =
            OperatorContext { batch_rows: 100, backend: Arc::new(backend), ..test_context(Metrics::default()) };
        let plan = GroupAggregate { input_updates: true, ..groups(&[0], None) };
        let opened = |context: &OperatorContext| {
            let mut counts = plan.create().unwrap();
            counts.open(context).unwrap();
            counts
        };
        let rows =
            |keys: Vec<i64>, adds| batch(&keys.into_iter().map(|key| ((Some(key), Some(1)), adds)).collect::<Vec<_>>());
        let told = |output: &mut Output| {
            let mut rows = 0;
            while let Some(emission) = output.pop() {
                rows += if let Emission::Batch(_, batch) = emission { batch.num_rows() } else { 0 };
            }
            rows
        };
        let (mut counts, mut output) = (opened(&little), Output::new(usize::MAX));
        for first in (0..20_000).step_by(1000) {
            let _ = counts.process(0, rows((first..first + 1000).collect(), true), &mut output).unwrap();
        }
        let _ = counts.flush(&mut output).unwrap();
        told(&mut output);
        let base = counts.snapshot(SnapshotScope::Base).unwrap();
        // New keys wait too: they might be outside.
        let new: Vec<i64> = (50_000..50_010).collect();
        let _ = counts.process(0, rows(new.clone(), true), &mut output).unwrap();
        assert_eq!(told(&mut output), 0);
        let waiting = counts.snapshot(SnapshotScope::Changes).unwrap();
        let _ = counts.flush(&mut output).unwrap();
        assert_eq!(told(&mut output), 10);
        let none_waits = counts.snapshot(SnapshotScope::Changes).unwrap();

        let holding = |snapshot: Snapshot| {
            let mut layers = layers_unchecked(encode(snapshot)).into_iter();
            layers.find(|(state, _)| state.name == WAITING).unwrap()
        };
        let (waiting, none) = (holding(waiting), holding(none_waits));
        let count = |state: &StateLayer| state.rows().count();
        assert_eq!((waiting.1.iter().map(count).sum::<usize>(), none.1.iter().map(count).sum::<usize>()), (10, 0));

        // The input has its columns in another order now.
        let turned = |layer: &StateLayer| {
            let turned = |batch: &RecordBatch| {
                let columns = 2..batch.num_columns() - 1;
                let places: Vec<usize> = (0..2).chain(columns.clone().rev()).chain([columns.end]).collect();
                batch.project(&places).unwrap()
            };
            StateLayer::Rows(layer.rows().decode().unwrap().iter().map(turned).collect::<Vec<_>>().into())
        };
        let turned = (waiting.0.clone(), waiting.1.iter().map(turned).collect());
        let much = test_context(Metrics::default());
        let base = layers_unchecked(encode(base));
        for (context, waiting) in [(&little, &waiting), (&much, &waiting), (&much, &turned)] {
            let mut states = base.clone();
            states.push(waiting.clone());
            let mut restored = opened(context);
            restored.restore(RestoredState { key_groups: 0..128, states }).unwrap();
            // Taken back before they were added they would be ignored, and then added for ever.
            let _ = restored.process(0, rows(new.clone(), false), &mut output).unwrap();
            let _ = restored.flush(&mut output).unwrap();
            told(&mut output);
            let _ = restored.process(0, rows(new.clone(), true), &mut output).unwrap();
            let _ = restored.flush(&mut output).unwrap();
            assert_eq!(told(&mut output), 10, "each is inserted, and nothing was there before");
        }
        let elsewhere = RestoredState { key_groups: 0..1, states: vec![waiting] };
        let refused = opened(&much).restore(elsewhere).unwrap_err().to_string();
        assert!(refused.contains("waits where 0..1 are owned"), "{refused}");
    }
}
