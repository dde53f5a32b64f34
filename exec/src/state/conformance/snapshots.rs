//! Snapshots as text: what stands for each key in each state, and what every snapshot keeps to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::UInt32Type;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidemill_core::key::{hash_columns, key_group};
use tidemill_core::state::{Extent, FrozenState, KEY_GROUP, Snapshot, StateDescriptor, StateKind, StateLayer};

use super::GROUPS;

/// What is kept, by state and key.
pub type Rows = BTreeMap<(String, String), String>;

/// The batches of a snapshot.
pub fn encode(snapshot: Snapshot) -> Vec<(Extent, StateDescriptor, Vec<RecordBatch>)> {
    let encode = |state: FrozenState| (state.extent, state.descriptor.clone(), state.rows().unwrap());
    snapshot.states.into_iter().map(encode).collect()
}

/// The same as a restore gets it.
pub fn layers(snapshots: impl IntoIterator<Item = Snapshot>) -> Vec<(StateDescriptor, Vec<StateLayer>)> {
    layers_unchecked(
        snapshots.into_iter().flat_map(encode).inspect(|(_, descriptor, batches)| check(descriptor, batches)),
    )
}

/// The same of snapshots whose keys are none of those that the suite knows.
pub fn layers_unchecked(
    encoded: impl IntoIterator<Item = (Extent, StateDescriptor, Vec<RecordBatch>)>,
) -> Vec<(StateDescriptor, Vec<StateLayer>)> {
    let mut states: BTreeMap<String, (StateDescriptor, Vec<StateLayer>)> = BTreeMap::new();
    for (extent, descriptor, batches) in encoded {
        let batches = through_ipc(batches);
        let layer = match extent {
            Extent::Whole | Extent::Changed => StateLayer::Rows(batches.into()),
            Extent::Added => panic!("a backend has nothing beside what it stored"),
            Extent::Removed => StateLayer::Removed(batches.into()),
        };
        let name = descriptor.name.clone();
        let (_, layers) = states.entry(name).or_insert_with(|| (descriptor, Vec::new()));
        if extent == Extent::Whole {
            layers.clear();
        }
        layers.push(layer);
    }
    states.into_values().collect()
}

/// What comes back from a file.
pub fn through_ipc(batches: Vec<RecordBatch>) -> Vec<RecordBatch> {
    let Some(first) = batches.first() else { return batches };
    let mut bytes = vec![];
    let mut writer = StreamWriter::try_new(&mut bytes, first.schema_ref()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    drop(writer);
    StreamReader::try_new(Cursor::new(bytes), None).unwrap().map(Result::unwrap).collect()
}

/// The rows of a snapshot of everything.
pub fn rows(snapshot: Snapshot) -> Rows {
    fold(Rows::new(), snapshot)
}

/// A snapshot laid over what there was: first what is gone, then what is new.
pub fn fold(mut rows: Rows, snapshot: Snapshot) -> Rows {
    for (extent, descriptor, batches) in encode(snapshot) {
        check(&descriptor, &batches);
        if extent == Extent::Whole {
            rows.retain(|(state, _), _| *state != descriptor.name);
        }
        for (key, row) in texts(&descriptor, &batches) {
            match extent {
                Extent::Whole | Extent::Changed => drop(rows.insert((descriptor.name.clone(), key), row)),
                Extent::Added => panic!("a backend has nothing beside what it stored"),
                Extent::Removed => drop(rows.remove(&(descriptor.name.clone(), key))),
            }
        }
    }
    rows
}

/// Rows are in the order of their key groups, which are those of their keys; no key is there twice; columns are as declared.
pub fn check(descriptor: &StateDescriptor, batches: &[RecordBatch]) {
    assert_eq!((descriptor.kind, descriptor.schema.field(0).name().as_str()), (StateKind::Keyed, KEY_GROUP));
    let mut last = 0;
    for batch in batches {
        assert_eq!(batch.schema(), descriptor.schema);
        let keys = &batch.columns()[1..=keys_of(descriptor)];
        let hashes = hash_columns(keys, batch.num_rows()).unwrap();
        for (group, hash) in batch.column(0).as_primitive::<UInt32Type>().values().iter().zip(hashes.iter()) {
            assert!(*group == key_group(*hash, GROUPS) && *group >= last, "{group} after {last}");
            last = *group;
        }
    }
    let texts = texts(descriptor, batches);
    assert_eq!(texts.iter().map(|(key, _)| key).collect::<BTreeSet<_>>().len(), texts.len(), "a key is there twice");
}

/// Key and rest of each row.
fn texts(descriptor: &StateDescriptor, batches: &[RecordBatch]) -> Vec<(String, String)> {
    let keys = keys_of(descriptor) + 1;
    let of_batch = |batch: &RecordBatch| {
        let options = FormatOptions::new().with_null("NULL");
        let columns = batch.columns().iter();
        let columns: Vec<ArrayFormatter<'_>> =
            columns.map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        let text = |columns: &[ArrayFormatter<'_>], row| {
            columns.iter().map(|column| format!("<{}>", column.value(row))).collect::<String>()
        };
        let rows = 0..batch.num_rows();
        rows.map(|row| (text(&columns[..keys], row), text(&columns[keys..], row))).collect::<Vec<_>>()
    };
    batches.iter().flat_map(of_batch).collect()
}

/// How many columns the key has.
fn keys_of(descriptor: &StateDescriptor) -> usize {
    descriptor.schema.fields().iter().filter(|field| ["k0", "k1"].contains(&field.name().as_str())).count()
}
