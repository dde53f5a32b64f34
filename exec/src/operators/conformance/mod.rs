//! The laws of [`Operator`], checked for every operator of this folder: one table of them, one suite.
//!
//! A script of rows and watermarks, drawn at random, goes through each operator in several ways: cut into batches of 1, 7 or all
//! rows, with room for everything or for next to nothing in its output, with the hashes of an exchange or without, stopped and
//! restored at another parallelism, with state in memory and out of it. A new operator is a line in `subjects.rs`; what it must keep
//! stands here.

mod everywhere;
mod restore;
mod script;
mod subjects;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::TimestampMillisecondType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use proptest::prelude::*;
use tidemill_core::key::hash_columns;
use tidemill_core::metrics::Metrics;
use tidemill_core::operator::{Emission, InputSelection, Operator, Output, Progress};
use tidemill_core::settings::BackendType;
use tidemill_core::{Batch, Result, RowKind, Watermark};

use crate::operators::test_context;
use crate::state::TieredBackend;
use crate::state::tier::test_disk;
use script::{Demands, Draft, Row, Script, any_draft, batch};
use subjects::{Inputs, Subject, subjects};

/// How a script is given to an operator.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// Rows of a batch that goes in.
    cut: usize,
    /// Rows of a batch that comes out, at most.
    batch_rows: usize,
    /// Bytes at which the output is full.
    output_bytes: usize,
    /// Batches bring the hashes of their keys.
    hashed: bool,
    /// How often the end of an input is told.
    ends: usize,
    /// Which backend keeps state, and how many bytes of it in memory; `None` for one with room for everything.
    backend: Option<(BackendType, usize)>,
}

const PLAIN: Way =
    Way { cut: usize::MAX, batch_rows: 5, output_bytes: usize::MAX, hashed: false, ends: 1, backend: None };

/// One thing that left an operator.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Row { text: String, kind: RowKind, time: Option<i64> },
    Watermark(i64),
}

/// What left an operator: after its table was read, after each step, and after the end.
type Record = Vec<Vec<Seen>>;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_result_is_the_same_however_rows_are_cut(draft in any_draft()) {
        for subject in subjects() {
            let late_rows = subject.demands.late_rows && subject.late_rows_whatever_the_cut;
            let script = draft.script(Demands { late_rows, ..subject.demands });
            let expected = tables(&run(&subject, &script, PLAIN));
            for (cut, batch_rows) in [(1, 1), (7, 5), (7, 8192), (usize::MAX, 2)] {
                for hashed in [false, true] {
                    let way = Way { cut, batch_rows, hashed, ..PLAIN };
                    prop_assert_eq!(&expected, &tables(&run(&subject, &script, way)), "{}, {:?}", subject.name, way);
                }
            }
        }
    }

    #[test]
    fn behind_a_watermark_no_row_is_as_old(draft in any_draft()) {
        for (subject, script) in each_with(&draft) {
            let mut watermark = i64::MIN;
            for seen in run(&subject, &script, Way { output_bytes: 1, ..PLAIN }).concat() {
                match seen {
                    Seen::Watermark(next) => watermark = next,
                    Seen::Row { time: Some(time), text, .. } => {
                        prop_assert!(time > watermark, "{}: {} behind {}", subject.name, text, watermark);
                    }
                    Seen::Row { time: None, .. } => prop_assert!(subject.time.is_none()),
                }
            }
        }
    }

    #[test]
    fn every_watermark_is_passed_on_behind_what_it_fires(draft in any_draft()) {
        for (subject, script) in each_with(&draft) {
            let record = run(&subject, &script, PLAIN);
            let watermarks = |seen: &[Seen]| -> Vec<i64> {
                seen.iter().filter_map(|seen| match seen { Seen::Watermark(millis) => Some(*millis), _ => None }).collect()
            };
            prop_assert_eq!(record.len(), script.steps.len() + 2);
            for (step, seen) in script.steps.iter().zip(&record[1..]) {
                prop_assert_eq!(watermarks(seen), vec![step.watermark], "{}", subject.name);
                prop_assert!(matches!(seen.last(), Some(Seen::Watermark(_))), "{}: {:?}", subject.name, seen);
            }
            prop_assert!(watermarks(&record[0]).is_empty() && watermarks(&record[record.len() - 1]).is_empty());
        }
    }

    #[test]
    fn a_small_output_delays_and_changes_nothing(draft in any_draft(), cut in 1..30usize, batch_rows in 1..9usize) {
        for (subject, script) in each_with(&draft) {
            let way = Way { cut, batch_rows, ..PLAIN };
            let expected = run(&subject, &script, way);
            for output_bytes in [1, 100] {
                let seen = run(&subject, &script, Way { output_bytes, ..way });
                prop_assert_eq!(&expected, &seen, "{} with {} bytes", subject.name, output_bytes);
            }
        }
    }

    #[test]
    fn what_is_taken_back_leaves_nothing(draft in any_draft(), cut in 1..30usize) {
        for (subject, script) in each_with(&draft).filter(|(subject, _)| subject.demands.updates) {
            let last = |script: &Script| tables(&run(&subject, script, Way { cut, ..PLAIN })).pop();
            prop_assert_eq!(last(&script.clone().undone()), last(&script.emptied()), "{}", subject.name);
        }
    }

    #[test]
    fn the_result_is_the_same_wherever_state_is(draft in any_draft(), cut in 1..30usize) {
        for (subject, script) in each_with(&draft) {
            let expected = tables(&run(&subject, &script, Way { cut, ..PLAIN }));
            for backend in [BackendType::Memory, BackendType::RocksDb].into_iter().flat_map(with_little_room) {
                let seen = run(&subject, &script, Way { cut, backend: Some(backend), ..PLAIN });
                prop_assert_eq!(&expected, &tables(&seen), "{} with {:?}", subject.name, backend);
            }
        }
    }

    #[test]
    fn to_hear_the_end_twice_changes_nothing(draft in any_draft()) {
        for (subject, script) in each_with(&draft) {
            let expected = run(&subject, &script, PLAIN);
            prop_assert_eq!(&expected, &run(&subject, &script, Way { ends: 2, ..PLAIN }), "{}", subject.name);
        }
    }

    #[test]
    fn the_two_rows_of_an_update_are_neighbours_and_nothing_is_taken_back_unseen(draft in any_draft()) {
        for (subject, script) in each_with(&draft) {
            for cut in [1, 7, usize::MAX] {
                let record = run(&subject, &script, Way { cut, ..PLAIN });
                let kinds = record.iter().flatten().filter_map(|seen| match seen {
                    Seen::Row { kind, .. } => Some(*kind),
                    Seen::Watermark(_) => None,
                });
                let kinds: Vec<RowKind> = kinds.collect();
                for (place, kind) in kinds.iter().enumerate() {
                    let before = if place == 0 { None } else { Some(kinds[place - 1]) };
                    let follows = before == Some(RowKind::UpdateBefore);
                    prop_assert_eq!(*kind == RowKind::UpdateAfter, follows, "{}: {:?}", subject.name, kinds);
                }
                prop_assert!(kinds.last() != Some(&RowKind::UpdateBefore));
                let appends = kinds.iter().all(|kind| *kind == RowKind::Insert);
                prop_assert!(appends || subject.time.is_none(), "{} emitted an update", subject.name);
                // Folding looks at every count on its way.
                tables(&record);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_restored_operator_cannot_be_told_apart(draft in any_draft(), stop in any::<prop::sample::Index>(),
                                                base in prop::option::of(any::<prop::sample::Index>()), cut in 1..30usize,
                                                backend in any_backend(), next_backend in any_backend()) {
        for subject in subjects() {
            // Which rows are late may depend on where a batch was cut, not on a restore.
            let late_rows = subject.demands.late_rows && subject.late_rows_whatever_the_cut;
            let script = draft.script(Demands { late_rows, ..subject.demands });
            let way = Way { cut, ..PLAIN };
            let expected = tables(&run(&subject, &script, way));
            let ways = [Way { backend, ..way }, Way { backend: next_backend, ..way }];
            let stop = stop.index(script.steps.len());
            let base = base.map(|base| base.index(script.steps.len()));
            let parallelisms: &[usize] = if subject.keys.is_some() { &[1, 2, 3] } else { &[1] };
            for parallelism in parallelisms {
                let restored = tables(&restore::run_restored(&subject, &script, ways, (base, stop), *parallelism));
                let name = &subject.name;
                prop_assert_eq!(&expected, &restored, "{}, stopped in step {}, then {}, {:?}", name, stop, parallelism, ways);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn a_crash_at_any_place_changes_nothing(draft in any_draft(), cut in 1..12usize, backend in any_backend()) {
        for subject in subjects() {
            // Event time is no state: what is late is known again only once sources have said how far they are.
            let script = draft.script(Demands { late_rows: false, ..subject.demands });
            let way = Way { cut, ..PLAIN };
            let places = everywhere::places(&script, way);
            let expected = everywhere::run_crashed(&subject, &script, way, places);
            for place in 0..places {
                let crashed = everywhere::run_crashed(&subject, &script, Way { backend, ..way }, place);
                let name = &subject.name;
                prop_assert_eq!(tables(&expected), tables(&crashed), "{}, crashed in unit {}", name, place);
                // What is only added to is the same row by row between two watermarks.
                if subject.time.is_some() {
                    prop_assert_eq!(sorted(&expected), sorted(&crashed), "{}, crashed in unit {}", name, place);
                }
            }
        }
    }
}

fn any_backend() -> impl Strategy<Value = Option<(BackendType, usize)>> {
    use BackendType::{Filesystem, Memory, RocksDb};
    let with_tier = [Memory, Filesystem, RocksDb].into_iter().flat_map(with_little_room);
    prop::sample::select([None].into_iter().chain(with_tier.map(Some)).collect::<Vec<_>>())
}

/// Without any room in memory, and with enough for some rows to wait for their keys.
fn with_little_room(backend: BackendType) -> [(BackendType, usize); 2] {
    [(backend, 0), (backend, 8192)]
}

/// The rows between two watermarks, in no order.
fn sorted(record: &Record) -> Vec<Vec<String>> {
    let rows = |seen: &Vec<Seen>| {
        let mut rows: Vec<String> = seen.iter().map(|seen| format!("{seen:?}")).collect();
        rows.sort_unstable();
        rows
    };
    record.iter().map(rows).collect()
}

/// Every operator with its script.
fn each_with(draft: &Draft) -> impl Iterator<Item = (Subject, Script)> {
    subjects().into_iter().map(move |subject| {
        let script = draft.script(subject.demands);
        (subject, script)
    })
}

/// Gives the whole script, as a shell would.
fn run(subject: &Subject, script: &Script, way: Way) -> Record {
    let mut shell = Shell::open(subject, way);
    let mut record = vec![];
    shell.read_table(&script.table);
    record.push(std::mem::take(&mut shell.seen));
    for step in &script.steps {
        record.push(shell.step(&step.rows, step.watermark));
    }
    record.push(shell.close());
    record
}

/// What stands around an operator in a task: it calls, drains and resumes.
struct Shell<'a> {
    subject: &'a Subject,
    way: Way,
    operator: Box<dyn Operator>,
    output: Output,
    /// The most rows that went in at once.
    fed_rows: usize,
    seen: Vec<Seen>,
}

impl<'a> Shell<'a> {
    fn open(subject: &'a Subject, way: Way) -> Self {
        let mut operator = subject.factory.create().unwrap();
        let mut context = test_context(Metrics::default());
        context.batch_rows = way.batch_rows;
        if let Some((backend, state_bytes)) = way.backend {
            let tier = test_disk().limited(Some(state_bytes));
            context.backend = Arc::new(TieredBackend { max_parallelism: context.max_parallelism, tier, backend });
        }
        operator.open(&context).unwrap();
        Self { subject, way, operator, output: Output::new(way.output_bytes), fed_rows: 0, seen: vec![] }
    }

    fn reads_table(&self) -> bool {
        self.operator.selection() == InputSelection::Only(1)
    }

    /// The rows of the second input that come before all others, and whether it ended then.
    fn read_table(&mut self, table: &[Row]) -> bool {
        let ends = self.reads_table();
        if ends || self.subject.inputs == Inputs::Broadcast {
            self.feed(1, table, &[0, 1, 2]);
        }
        if ends {
            self.end_table();
        }
        ends
    }

    /// Rows, each to its input.
    fn feed_rows(&mut self, rows: &[Row]) {
        let is_odd = |row: &&Row| self.subject.inputs == Inputs::Two && row.value.is_some_and(|value| value % 2 != 0);
        let (odd, even): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(is_odd);
        let owned = |rows: Vec<&Row>| rows.into_iter().cloned().collect::<Vec<Row>>();
        self.feed(0, &owned(even), &self.subject.columns);
        self.feed(1, &owned(odd), &self.subject.columns);
    }

    fn end_table(&mut self) {
        self.end(1);
        assert_eq!(self.operator.selection(), InputSelection::Any, "{}", self.subject.name);
    }

    /// Rows and the watermark behind them; what is emitted.
    fn step(&mut self, rows: &[Row], watermark: i64) -> Vec<Seen> {
        self.feed_rows(rows);
        self.call(|operator, output| operator.advance(Watermark(watermark), output));
        self.flush();
        std::mem::take(&mut self.seen)
    }

    /// Nothing is kept back any longer: a task waits, or takes a savepoint.
    fn flush(&mut self) {
        self.call(|operator, output| operator.flush(output));
    }

    /// The end of the input and of the operator; what is emitted.
    fn close(mut self) -> Vec<Seen> {
        self.end(0);
        if self.subject.inputs != Inputs::One {
            self.end(1);
        }
        self.operator.close().unwrap();
        self.seen
    }

    fn feed(&mut self, input: usize, rows: &[Row], columns: &[usize]) {
        let (cut, hashed) = (self.way.cut, self.way.hashed);
        for rows in rows.chunks(cut) {
            self.fed_rows = self.fed_rows.max(rows.len());
            let batch = batch(rows, columns);
            let batch = match self.subject.keys.as_ref().filter(|_| hashed) {
                Some(keys) => with_hashes(batch, keys),
                None => batch,
            };
            self.call(|operator, output| operator.process(input, batch, output));
            // One that has had enough may be given more by a shell that has not looked yet, and says nothing to it.
            if self.operator.is_finished() {
                let before = self.seen.len();
                let more = script::batch(rows, columns);
                self.call(|operator, output| operator.process(input, more, output));
                assert_eq!(self.seen.len(), before, "{} was finished", self.subject.name);
            }
        }
    }

    fn end(&mut self, input: usize) {
        for _ in 0..self.way.ends {
            self.call(|operator, output| operator.end_of_input(input, output));
        }
    }

    fn call(&mut self, call: impl FnOnce(&mut dyn Operator, &mut Output) -> Result<Progress>) {
        let mut progress = call(&mut *self.operator, &mut self.output).unwrap();
        loop {
            assert!(progress == Progress::Done || self.output.is_full(), "{} stopped for nothing", self.subject.name);
            let batches = self.drain();
            let bounded = self.way.output_bytes > 1 || batches <= 1;
            assert!(bounded, "{} emitted {batches} batches into a full output", self.subject.name);
            if progress == Progress::Done {
                return;
            }
            progress = self.operator.resume(&mut self.output).unwrap();
        }
    }

    /// Takes out all that was emitted; how many batches there were.
    fn drain(&mut self) -> usize {
        let mut batches = 0;
        while let Some(emission) = self.output.pop() {
            match emission {
                Emission::Watermark(Watermark(millis)) => self.seen.push(Seen::Watermark(millis)),
                Emission::Batch(port, batch) => {
                    assert_eq!(port, 0);
                    // An update is two rows, however few are wanted.
                    let most = if self.subject.passes_batches { self.fed_rows } else { self.way.batch_rows.max(2) };
                    let rows = batch.num_rows();
                    assert!(rows > 0 && rows <= most, "{} emitted {rows} rows at once", self.subject.name);
                    batches += 1;
                    self.seen.extend(rows_of(&batch, self.subject.time));
                }
            }
        }
        batches
    }
}

fn with_hashes(batch: Batch, keys: &[usize]) -> Batch {
    let columns: Vec<ArrayRef> = keys.iter().map(|key| batch.records().column(*key).clone()).collect();
    let hashes = hash_columns(&columns, batch.num_rows()).unwrap();
    batch.with_hashes(hashes).unwrap()
}

fn rows_of(batch: &Batch, time: Option<(usize, i64)>) -> Vec<Seen> {
    let options = FormatOptions::default().with_null("NULL");
    let columns = batch.records().columns().iter();
    let columns: Vec<ArrayFormatter> =
        columns.map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    let row = |row: usize| {
        let cells: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
        let time = time.map(|(column, less)| {
            batch.records().column(column).as_primitive::<TimestampMillisecondType>().value(row) - less
        });
        Seen::Row { text: cells.join(", "), kind: batch.kind(row).unwrap(), time }
    };
    (0..batch.num_rows()).map(row).collect()
}

/// The table that was described up to each watermark, and at the end: rows with their counts.
fn tables(record: &Record) -> Vec<BTreeMap<String, i64>> {
    let mut table: BTreeMap<String, i64> = BTreeMap::new();
    let fold = |seen: &Vec<Seen>| {
        for seen in seen {
            let Seen::Row { text, kind, .. } = seen else { continue };
            let count = table.entry(text.clone()).or_default();
            *count += if kind.is_addition() { 1 } else { -1 };
            assert!(*count >= 0, "'{text}' was taken back before it was given");
        }
        table.retain(|_, count| *count != 0);
        table.clone()
    };
    record.iter().map(fold).collect()
}
