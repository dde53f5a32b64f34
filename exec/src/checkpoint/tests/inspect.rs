//! What is shown of a checkpoint is what is kept: layers folded as an obvious model folds them.

use std::collections::BTreeMap;

use arrow::array::{AsArray, Int32Array};
use arrow::datatypes::Int32Type;
use arrow::util::pretty::pretty_format_batches;
use expect_test::expect;
use futures::TryStreamExt;
use proptest::prelude::*;
use tidemill_core::ErrorKind;
use tidemill_core::graph::OperatorId;
use tidemill_core::state::StateColumn;

use super::keyed_rows::{GROUPS, Row, batch, fields, group_of, keyed};
use super::*;
use crate::operators::timers::{TIMERS, Timer, TimerColumn, TimerDomain};

/// A published checkpoint with one state of these layers.
async fn published(
    store: &Arc<dyn ObjectStore>,
    states: Vec<(StateDescriptor, Vec<(Extent, RecordBatch)>)>,
) -> FoundCheckpoint {
    let mut writer = open(store).await.unwrap().take_over(1).await.unwrap();
    let mut segment = SegmentWriter::create(store.clone(), &root(), writer.segment_path(1, 0)).with_chunk_rows(3);
    let mut stored = Vec::new();
    for (descriptor, layers) in states {
        let mut of_state = Vec::new();
        for (extent, rows) in layers {
            let descriptor = StateDescriptor { schema: rows.schema(), ..descriptor.clone() };
            of_state.push(segment.write_batches(extent, &descriptor, &[rows]).await.unwrap());
        }
        stored.push(StoredState { descriptor, layers: of_state });
    }
    let operator = StoredOperator {
        id: OperatorId::from_uid("mine"),
        name: "sums".to_owned(),
        max_parallelism: GROUPS,
        subtasks: vec![StoredSubtask { index: 0, states: stored }],
    };
    let segments = segment.finish().await.unwrap().into_iter().collect();
    let operators = vec![operator];
    writer.publish(CheckpointContent { checkpoint: 1, operators, segments, ..Default::default() }).await.unwrap();
    find_checkpoint(store.clone(), &root(), clock(), None).await.unwrap()
}

async fn shown(found: &FoundCheckpoint, state: &str, batch_rows: usize) -> Vec<RecordBatch> {
    let parts = found.state(found.operator("mine").unwrap(), Some(state)).unwrap();
    let mut batches = Vec::new();
    for part in parts {
        batches.extend(part.read(batch_rows).try_collect::<Vec<_>>().await.unwrap());
    }
    batches
}

fn any_layer() -> impl Strategy<Value = (bool, Vec<(i64, i64)>)> {
    (any::<bool>(), prop::collection::vec((0..40i64, 0..1000i64), 0..30))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn layers_are_folded_like_a_map(layers in prop::collection::vec(any_layer(), 1..7), batch_rows in 1..50usize) {
        let descriptor = keyed("sum");
        let (mut model, mut stored) = (BTreeMap::new(), Vec::new());
        for (number, (removes, rows)) in layers.into_iter().enumerate() {
            let rows: BTreeMap<i64, i64> = rows.into_iter().collect();
            let (extent, schema) = match (number, removes) {
                (0, _) => (Extent::Whole, descriptor.schema.clone()),
                (_, true) => (Extent::Removed, keyed_schema(&fields("key"), &Fields::empty())),
                (_, false) => (Extent::Changed, descriptor.schema.clone()),
            };
            for (key, value) in &rows {
                if extent == Extent::Removed { model.remove(key); } else { model.insert(*key, *value); }
            }
            let rows = rows.into_iter().map(|(key, value)| (key, Some(value))).collect();
            stored.push((extent, batch(&schema, rows)));
        }
        run(async {
            let store = memory();
            let found = published(&store, vec![(descriptor, stored)]).await;
            let read = shown(&found, "sum", batch_rows).await;
            assert!(read.iter().all(|batch| (1..=batch_rows).contains(&batch.num_rows())));
            let mut rows = BTreeMap::new();
            for batch in &read {
                let groups: &Int32Array = batch.column(1).as_primitive::<Int32Type>();
                let column = |place: usize| batch.column(place).as_primitive::<Int64Type>().values().to_vec();
                for (place, (key, value)) in column(2).into_iter().zip(column(3)).enumerate() {
                    assert_eq!(groups.value(place) as u32, group_of(key));
                    assert!(rows.insert(key, value).is_none(), "key {key} comes twice");
                }
            }
            assert_eq!(rows, model);
        });
    }
}

#[test]
fn rows_beside_older_ones_say_where_they_stand() {
    run(async {
        let store = memory();
        let descriptor = keyed("slices");
        let rows = |rows: Vec<Row>| batch(&descriptor.schema, rows);
        let layers =
            vec![(Extent::Whole, rows(vec![(1, Some(10)), (2, Some(20))])), (Extent::Added, rows(vec![(1, Some(11))]))];
        let found = published(&store, vec![(descriptor.clone(), layers)]).await;
        expect![[r#"
            +---------+-------+-----------+-----+-------+
            | subtask | layer | key_group | key | value |
            +---------+-------+-----------+-----+-------+
            | 0       | 0     | 1         | 1   | 10    |
            | 0       | 0     | 2         | 2   | 20    |
            | 0       | 1     | 1         | 1   | 11    |
            +---------+-------+-----------+-----+-------+"#]]
        .assert_eq(&pretty_format_batches(&shown(&found, "slices", 10).await).unwrap().to_string());
    });
}

#[test]
fn timers_are_rows_and_times_are_dates() {
    run(async {
        let store = memory();
        let mut column = TimerColumn::new();
        column.resize(2);
        let timer = |domain, time, namespace| Timer { domain, time, namespace };
        column.insert(0, timer(TimerDomain::Event, 1_500, 3));
        column.insert(0, timer(TimerDomain::Processing, i64::MAX, 0));
        column.insert(1, timer(TimerDomain::Event, -1, 0));
        let key = Fields::from(vec![Field::new("key", DataType::Utf8, false)]);
        let timers = StateDescriptor {
            name: TIMERS.to_owned(),
            kind: StateKind::Keyed,
            schema: keyed_schema(&key, column.fields()),
        };
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(UInt32Array::from(vec![0, 4])), Arc::new(StringArray::from(vec!["ann", "bob"]))];
        columns.extend(column.encode(&[0, 1]).unwrap());
        let rows = RecordBatch::try_new(timers.schema.clone(), columns).unwrap();

        let used = Fields::from(vec![
            Field::new("value", DataType::Int64, false),
            Field::new("used_millis", DataType::Int64, false),
        ]);
        let last = StateDescriptor {
            name: "last".to_owned(),
            schema: keyed_schema(&Fields::empty(), &used),
            ..timers.clone()
        };
        let numbers = |number| Arc::new(Int64Array::from(vec![number])) as ArrayRef;
        let columns = vec![Arc::new(UInt32Array::from(vec![5])) as ArrayRef, numbers(7), numbers(1_000)];
        let used = RecordBatch::try_new(last.schema.clone(), columns).unwrap();
        let layers = vec![(Extent::Whole, used.clone()), (Extent::Changed, used)];

        let found = published(&store, vec![(timers, vec![(Extent::Whole, rows)]), (last, layers)]).await;
        expect![[r#"
            +---------+-----------+-----+------------+-----------+---------------------+--------------------------+
            | subtask | key_group | key | domain     | namespace | time_millis         | time                     |
            +---------+-----------+-----+------------+-----------+---------------------+--------------------------+
            | 0       | 0         | ann | event      | 3         | 1500                | 1970-01-01T00:00:01.500Z |
            | 0       | 0         | ann | processing | 0         | 9223372036854775807 |                          |
            | 0       | 4         | bob | event      | 0         | -1                  | 1969-12-31T23:59:59.999Z |
            +---------+-----------+-----+------------+-----------+---------------------+--------------------------+"#]]
        .assert_eq(&pretty_format_batches(&shown(&found, TIMERS, 10).await).unwrap().to_string());
        expect![[r#"
            +---------+-----------+-------+----------------------+
            | subtask | key_group | value | used_at              |
            +---------+-----------+-------+----------------------+
            | 0       | 5         | 7     | 1970-01-01T00:00:01Z |
            +---------+-----------+-------+----------------------+"#]]
        .assert_eq(&pretty_format_batches(&shown(&found, "last", 10).await).unwrap().to_string());
    });
}

#[test]
fn what_is_not_there_is_answered_with_what_is() {
    run(async {
        let store = memory();
        let nowhere = find_checkpoint(store.clone(), &Path::from("jobs"), clock(), None).await.unwrap_err();
        expect!["'jobs' holds neither a savepoint nor a complete checkpoint; name the folder of a savepoint, or that of one job's checkpoints"]
            .assert_eq(&nowhere.to_string());
        let rows = batch(&keyed("sum").schema, vec![(1, Some(2))]);
        let layers = vec![(Extent::Whole, rows)];
        let found = published(&store, vec![(keyed("sum"), layers.clone()), (keyed("count"), layers)]).await;
        let above = find_checkpoint(store.clone(), &Path::from("jobs"), clock(), None).await.unwrap_err();
        expect!["'jobs' holds neither a savepoint nor a complete checkpoint; name one of its jobs: 'one'"]
            .assert_eq(&above.to_string());
        let number = find_checkpoint(store.clone(), &root(), clock(), Some(9)).await.unwrap_err();
        expect!["'jobs/one' has no checkpoint 9; it has 1"].assert_eq(&number.to_string());
        assert_eq!(find_checkpoint(store.clone(), &root(), clock(), Some(1)).await.unwrap().content, found.content);
        // By its manifest, too, whose number is another one.
        let manifest = |number| Path::from(format!("jobs/one/{}", manifest_name(number)));
        let by_manifest = find_checkpoint(store.clone(), &manifest(2), clock(), None).await.unwrap();
        assert_eq!((by_manifest.content, by_manifest.root), (found.content.clone(), root()));
        let other = find_checkpoint(store.clone(), &manifest(2), clock(), Some(9)).await.unwrap_err();
        expect!["the manifest of 'jobs/one' is not checkpoint 9; it is checkpoint 1"].assert_eq(&other.to_string());
        let gone = find_checkpoint(store.clone(), &manifest(7), clock(), None).await.unwrap_err();
        expect!["'jobs/one/manifests/00000000000000000007' is not there: its job may have deleted it; name the folder of the checkpoints for the newest of them"]
            .assert_eq(&gone.to_string());

        let error = found.operator("sum").unwrap_err().to_string();
        expect!["the checkpoint has no operator 'sum'; did you mean 'sums'? it has 'sums' (562b65afdb173371)"]
            .assert_eq(&error);
        let by_name = found.operator("sums").unwrap();
        assert_eq!(found.operator("mine").unwrap(), by_name);
        assert_eq!(found.operator(&by_name.id.to_string()).unwrap(), by_name);
        let error = found.state(by_name, None).unwrap_err().to_string();
        expect!["operator 'sums' has several states; name one with state => '…': 'sum', 'count'"].assert_eq(&error);
        let error = found.state(by_name, Some("cuont")).unwrap_err().to_string();
        expect!["operator 'sums' has no state 'cuont'; did you mean 'count'? it has 'sum', 'count'"].assert_eq(&error);
    });
}

#[test]
fn a_checkpoint_that_its_job_has_deleted_says_so() {
    run(async {
        let store = memory();
        let rows = batch(&keyed("sum").schema, vec![(1, Some(2))]);
        let found = published(&store, vec![(keyed("sum"), vec![(Extent::Whole, rows)])]).await;
        let parts = found.state(found.operator("sums").unwrap(), None).unwrap();
        store.delete(&Path::from(format!("jobs/one/{}", found.content.segments[0].path))).await.unwrap();
        let error = parts[0].read(10).try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().starts_with("checkpoint 1 in 'jobs/one' cannot be read any more: "), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("num-retained")), "{error}");
    });
}
