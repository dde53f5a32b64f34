//! An operator that is stopped in the middle of a script and goes on as several, each with its share of the state.

use arrow::array::{ArrayRef, RecordBatch};
use tidemill_core::key::{groups_of, hash_columns, key_group, subtask_of};
use tidemill_core::state::{
    Dealing, Extent, FrozenState, OperatorList, RestoredState, SnapshotScope, StateDescriptor, StateKind, StateLayer,
    rows_of_groups,
};

use super::script::{Row, Script, batch};
use super::subjects::Subject;
use super::{Record, Seen, Shell, Way};

/// How many key groups the operators of this suite have.
const GROUPS: u32 = 128;

/// States as a checkpoint holds them.
type Stored = Vec<(StateDescriptor, Vec<RecordBatch>)>;

/// The script up to the rows of step `stop`, a snapshot, and the rest with `parallelism` operators that know no more than it.
pub fn run_restored(subject: &Subject, script: &Script, way: Way, stop: usize, parallelism: usize) -> Record {
    let mut record = vec![];
    let mut first = Shell::open(subject, way);
    let reads_table = first.read_table(&script.table);
    record.push(std::mem::take(&mut first.seen));
    for step in &script.steps[..stop] {
        record.push(first.step(&step.rows, step.watermark));
    }
    first.feed_rows(&script.steps[stop].rows);
    let before = std::mem::take(&mut first.seen);
    let stored = snapshot(&mut first);
    // What happens behind a snapshot is not in it.
    first.step(&[], i64::MAX);

    let mut others: Vec<Shell<'_>> = (0..parallelism).map(|_| Shell::open(subject, way)).collect();
    for (subtask, shell) in others.iter_mut().enumerate() {
        shell.operator.restore(share(&stored, subtask, parallelism)).unwrap();
        if reads_table {
            shell.end_table();
        }
    }
    let mut seen = before;
    for (place, step) in script.steps[stop..].iter().enumerate() {
        for (subtask, shell) in others.iter_mut().enumerate() {
            let rows = if place == 0 { vec![] } else { rows_of(subject, &step.rows, subtask, parallelism) };
            seen.extend(shell.step(&rows, step.watermark));
        }
        record.push(std::mem::take(&mut seen));
    }
    record.push(others.into_iter().flat_map(Shell::close).collect::<Vec<Seen>>());
    record
}

fn snapshot(shell: &mut Shell<'_>) -> Stored {
    let snapshot = shell.operator.snapshot(SnapshotScope::Copy).unwrap();
    assert!(snapshot.states.iter().all(|state| state.extent == Extent::Whole));
    let encode = |FrozenState { descriptor, encode, .. }| (descriptor, encode().unwrap());
    let stored: Stored = snapshot.states.into_iter().map(encode).collect();
    for (state, batches) in &stored {
        assert!(batches.iter().all(|batch| batch.schema() == state.schema), "{}: {}", shell.subject.name, state.name);
    }
    stored
}

/// What a restore gives to one subtask.
fn share(stored: &Stored, subtask: usize, parallelism: usize) -> RestoredState {
    let key_groups = groups_of(subtask, parallelism, GROUPS);
    let of_state = |(state, batches): &(StateDescriptor, Vec<RecordBatch>)| {
        let batches = match state.kind {
            StateKind::Keyed => batches.iter().map(|batch| rows_of_groups(batch, &key_groups).unwrap()).collect(),
            StateKind::List => {
                let list = OperatorList::restore(state.schema.clone(), batches.clone()).unwrap();
                OperatorList::deal(&[list], Dealing::Split, parallelism).unwrap()[subtask].batches().to_vec()
            }
            StateKind::UnionList | StateKind::Broadcast => batches.clone(),
        };
        (state.clone(), vec![StateLayer::Rows(batches)])
    };
    RestoredState { key_groups: key_groups.clone(), states: stored.iter().map(of_state).collect() }
}

/// The rows that an exchange would deal to a subtask.
fn rows_of(subject: &Subject, rows: &[Row], subtask: usize, parallelism: usize) -> Vec<Row> {
    let Some(keys) = subject.keys.as_ref().filter(|_| parallelism > 1) else { return rows.to_vec() };
    let batch = batch(rows, &subject.columns);
    let columns: Vec<ArrayRef> = keys.iter().map(|key| batch.records().column(*key).clone()).collect();
    let hashes = hash_columns(&columns, rows.len()).unwrap();
    let own = |hash: &u64| subtask_of(key_group(*hash, GROUPS), parallelism, GROUPS) == subtask;
    rows.iter().zip(&hashes).filter(|(_, hash)| own(hash)).map(|(row, _)| row.clone()).collect()
}
