//! An operator that is stopped in the middle of a script and goes on as several, each with its share of the state.

use arrow::array::{ArrayRef, RecordBatch};
use tidemill_core::key::{groups_of, hash_columns, key_group, subtask_of};
use tidemill_core::state::{
    Dealing, Extent, OperatorList, RestoredState, SnapshotScope, StateDescriptor, StateKind, StateLayer, rows_of_groups,
};

use super::script::{Row, Script, batch};
use super::subjects::Subject;
use super::{Record, Seen, Shell, Way};

/// How many key groups the operators of this suite have.
const GROUPS: u32 = 128;

/// States as a checkpoint holds them.
pub type Stored = Vec<(StateDescriptor, Vec<StateLayer>)>;

/// The script up to the rows of step `stop`, a snapshot, and the rest with `parallelism` operators that know no more than it.
/// The first goes the first way, the others the second.
/// With `base` there is a snapshot of everything at the beginning of that step, and then one of changes in every step.
pub fn run_restored(
    subject: &Subject,
    script: &Script,
    [way, next_way]: [Way; 2],
    (base, stop): (Option<usize>, usize),
    parallelism: usize,
) -> Record {
    let mut record = vec![];
    let mut first = Shell::open(subject, way);
    let reads_table = first.read_table(&script.table);
    record.push(std::mem::take(&mut first.seen));
    let mut stored = Stored::new();
    for (place, step) in script.steps[..stop].iter().enumerate() {
        match base {
            Some(base) if base == place => store(&mut first, SnapshotScope::Base, &mut stored),
            Some(base) if base < place => store(&mut first, SnapshotScope::Changes, &mut stored),
            _ => {}
        }
        record.push(first.step(&step.rows, step.watermark));
    }
    first.feed_rows(&script.steps[stop].rows);
    let is_increment = base.is_some_and(|base| base < stop);
    store(&mut first, if is_increment { SnapshotScope::Changes } else { SnapshotScope::Copy }, &mut stored);
    let before = std::mem::take(&mut first.seen);
    // What happens behind a snapshot is not in it.
    first.step(&[], i64::MAX);

    let mut others: Vec<Shell<'_>> = (0..parallelism).map(|_| Shell::open(subject, next_way)).collect();
    for (subtask, shell) in others.iter_mut().enumerate() {
        shell.operator.restore(share(&stored, subtask, parallelism)).unwrap();
        keeps_its_own(shell, subtask, parallelism);
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

/// What a subtask took out of its share is of its key groups.
fn keeps_its_own(shell: &mut Shell<'_>, subtask: usize, parallelism: usize) {
    let own = groups_of(subtask, parallelism, GROUPS);
    // With the rows that wait.
    let states = shell.operator.snapshot(SnapshotScope::Base).unwrap().states.into_iter();
    for state in states.filter(|state| state.descriptor.kind == StateKind::Keyed) {
        let name = state.descriptor.name.clone();
        for batch in state.rows().unwrap() {
            let rows = rows_of_groups(&batch, &own).unwrap().num_rows();
            assert_eq!(rows, batch.num_rows(), "{}: '{name}' of subtask {subtask}", shell.subject.name);
        }
    }
}

/// Takes a snapshot and lays it over what is stored; what is kept back is worked off before a snapshot of states alone.
pub fn store(shell: &mut Shell<'_>, scope: SnapshotScope, stored: &mut Stored) {
    if scope == SnapshotScope::Copy {
        shell.flush();
    }
    let name = &shell.subject.name;
    let snapshot = shell.operator.snapshot(scope).unwrap();
    if scope != SnapshotScope::Changes {
        stored.clear();
    }
    for state in snapshot.states {
        let (descriptor, extent) = (state.descriptor.clone(), state.extent);
        let batches = state.rows().unwrap();
        assert!(batches.iter().all(|batch| batch.schema() == descriptor.schema), "{name}: {}", descriptor.name);
        let is_known = |(state, _): &&mut (StateDescriptor, _)| state.name == descriptor.name;
        match (stored.iter_mut().find(is_known), extent) {
            (Some((_, layers)), Extent::Changed | Extent::Added) => layers.push(StateLayer::Rows(batches.into())),
            (Some((_, layers)), Extent::Removed) => layers.push(StateLayer::Removed(batches.into())),
            (Some((_, layers)), Extent::Whole) => *layers = vec![StateLayer::Rows(batches.into())],
            (None, Extent::Whole) => stored.push((descriptor, vec![StateLayer::Rows(batches.into())])),
            (None, _) => panic!("{name}: changes of '{}', of which there is nothing", descriptor.name),
        }
    }
}

/// What a restore gives to one subtask.
pub fn share(stored: &Stored, subtask: usize, parallelism: usize) -> RestoredState {
    let key_groups = groups_of(subtask, parallelism, GROUPS);
    let share = |state: &StateDescriptor, batches: &[RecordBatch]| match state.kind {
        StateKind::Keyed => batches.iter().map(|batch| rows_of_groups(batch, &key_groups).unwrap()).collect(),
        StateKind::List => {
            let list = OperatorList::restore(state.schema.clone(), batches.to_vec()).unwrap();
            OperatorList::deal(&[list], Dealing::Split, parallelism).unwrap()[subtask].batches().to_vec()
        }
        StateKind::UnionList | StateKind::Broadcast => batches.to_vec(),
    };
    let of_layer = |state: &StateDescriptor, layer: &StateLayer| layer.map(|batches| share(state, &batches)).unwrap();
    let of_state = |(state, layers): &(StateDescriptor, Vec<StateLayer>)| {
        (state.clone(), layers.iter().map(|layer| of_layer(state, layer)).collect())
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
