//! What a subtask gets back is what a slow and obvious dealing of all rows gives it, at any parallelism.

use std::ops::Range;

use proptest::prelude::*;
use tidemill_core::ErrorKind;
use tidemill_core::graph::OperatorId;
use tidemill_core::key::groups_of;
use tidemill_core::state::{Dealing, OperatorList, RestoredState, StateLayer, rows_of_groups};

use super::*;

const GROUPS: u32 = 12;
const KINDS: [u64; 2] = [0, 1];

/// What one old subtask stored: the parts of its keyed state, and its lists.
struct Old {
    keyed: Vec<(Extent, Vec<RecordBatch>)>,
    list: Option<Vec<RecordBatch>>,
    union: Vec<RecordBatch>,
    broadcast: Option<Vec<RecordBatch>>,
}

fn forms() -> [StateDescriptor; 4] {
    [
        descriptor("keyed", StateKind::Keyed, &KINDS),
        descriptor("list", StateKind::List, &KINDS),
        descriptor("union", StateKind::UnionList, &KINDS),
        descriptor("broadcast", StateKind::Broadcast, &KINDS),
    ]
}

fn random_old(groups: Range<u32>, chance: &mut Chance) -> Old {
    let [keyed, list, union, broadcast] = forms();
    let some = |descriptor: &StateDescriptor, chance: &mut Chance| {
        let count = chance.below(12) as usize;
        rows(descriptor, &KINDS, count, groups.clone(), chance)
    };
    let parts = |chance: &mut Chance| {
        let extents = [Extent::Whole, Extent::Changed, Extent::Removed, Extent::Changed];
        let part = |chance: &mut Chance| (extents[chance.below(4) as usize], some(&keyed, chance));
        (0..chance.below(5)).map(|_| part(chance)).collect::<Vec<_>>()
    };
    Old {
        // A subtask without key groups has no keyed rows.
        keyed: if groups.is_empty() { Vec::new() } else { parts(chance) },
        list: (!chance.one_in(4)).then(|| some(&list, chance)),
        union: some(&union, chance),
        broadcast: (!chance.one_in(4)).then(|| some(&broadcast, chance)),
    }
}

async fn stored(store: &Arc<dyn ObjectStore>, old: &[Old]) -> StoredOperator {
    let [keyed, list, union, broadcast] = forms();
    let mut subtasks = Vec::new();
    for (index, old) in (0..).zip(old) {
        let path = format!("segments/{index}");
        let mut writer = SegmentWriter::create(store.clone(), &root(), path).with_chunk_rows(5);
        let mut states = vec![StoredState { descriptor: keyed.clone(), layers: vec![] }];
        for (extent, batches) in &old.keyed {
            states[0].layers.push(writer.write_batches(*extent, &keyed, batches).await.unwrap());
        }
        let lists = [(&list, &old.list), (&union, &Some(old.union.clone())), (&broadcast, &old.broadcast)];
        for (descriptor, batches) in lists {
            let Some(batches) = batches else { continue };
            let layers = vec![writer.write_batches(Extent::Whole, descriptor, batches).await.unwrap()];
            states.push(StoredState { descriptor: descriptor.clone(), layers });
        }
        writer.finish().await.unwrap();
        subtasks.push(StoredSubtask { index, states });
    }
    StoredOperator { id: OperatorId(1), name: "operator".to_owned(), max_parallelism: GROUPS, subtasks }
}

/// The layers as (whether rows are taken out, which rows), without empty ones.
fn comparable(schema: &SchemaRef, layers: &[StateLayer]) -> Vec<(bool, RecordBatch)> {
    let layers = layers
        .iter()
        .map(|layer| (matches!(layer, StateLayer::Removed(_)), whole(schema, &layer.rows().decode().unwrap())));
    layers.filter(|(_, rows)| rows.num_rows() > 0).collect()
}

fn expected_keyed(old: &[Old], groups: &Range<u32>) -> Vec<StateLayer> {
    let mut layers = Vec::new();
    for old in old {
        let begin = layers.len();
        for (extent, batches) in &old.keyed {
            let rows: Vec<RecordBatch> = batches.iter().map(|batch| rows_of_groups(batch, groups).unwrap()).collect();
            match extent {
                Extent::Whole => layers.truncate(begin),
                Extent::Changed | Extent::Removed | Extent::Added => {}
            }
            layers.push(if *extent == Extent::Removed {
                StateLayer::Removed(rows.into())
            } else {
                StateLayer::Rows(rows.into())
            });
        }
    }
    layers
}

fn check(old: &[Old], restored: RestoredState, subtask: usize, parallelism: usize) {
    let [keyed, list, union, broadcast] = forms();
    let groups = groups_of(subtask, parallelism, GROUPS);
    assert_eq!(restored.key_groups, groups);
    let layers = |descriptor: &StateDescriptor| {
        let state = restored.states.iter().find(|(other, _)| other == descriptor);
        state.map(|(_, layers)| comparable(&descriptor.schema, layers)).unwrap_or_default()
    };
    let one = |batches: Vec<RecordBatch>| comparable(&list.schema, &[StateLayer::Rows(batches.into())]);
    assert_eq!(layers(&keyed), comparable(&keyed.schema, &expected_keyed(old, &groups)));

    let lists = old.iter().map(|old| OperatorList::restore(list.schema.clone(), old.list.clone().unwrap_or_default()));
    let lists: Vec<OperatorList> = lists.map(Result::unwrap).collect();
    let dealt = OperatorList::deal(&lists, Dealing::Split, parallelism).unwrap();
    assert_eq!(layers(&list), one(dealt[subtask].batches().to_vec()));

    let of_union: Vec<StateLayer> = old.iter().map(|old| StateLayer::Rows(old.union.clone().into())).collect();
    assert_eq!(layers(&union), comparable(&union.schema, &of_union));

    let copies: Vec<&Vec<RecordBatch>> = old.iter().filter_map(|old| old.broadcast.as_ref()).collect();
    let own = old.get(subtask).and_then(|old| old.broadcast.as_ref());
    let own = own.or(copies.get(subtask % copies.len().max(1)).copied()).map(|copy| one(copy.to_vec()));
    assert_eq!(layers(&broadcast), own.unwrap_or_default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_parallelism_gets_what_dealing_by_hand_gives(seed in any::<u64>(), before in 1..7usize, after in 1..9usize) {
        run(async {
            let store = memory();
            let mut chance = Chance(seed);
            let old: Vec<Old> =
                (0..before).map(|subtask| random_old(groups_of(subtask, before, GROUPS), &mut chance)).collect();
            let operator = stored(&store, &old).await;
            for parallelism in [before, after] {
                for subtask in 0..parallelism {
                    let restored = restored_state(store.as_ref(), &root(), &operator, subtask, parallelism, GROUPS).await;
                    check(&old, restored.unwrap(), subtask, parallelism);
                }
            }
        });
    }
}

/// A subtask that goes on as before does not need the files of others.
#[test]
fn only_what_is_needed_is_read() {
    run(async {
        let store = memory();
        let mut chance = Chance(9);
        let old: Vec<Old> = (0..3)
            .map(|subtask| Old {
                broadcast: Some(rows(&forms()[3], &KINDS, 3, 0..1, &mut chance)),
                union: Vec::new(),
                ..random_old(groups_of(subtask, 3, GROUPS), &mut chance)
            })
            .collect();
        let operator = stored(&store, &old).await;
        for other in [0, 2] {
            let _ = store.delete(&Path::from(format!("jobs/one/segments/{other}"))).await;
        }
        let restored = restored_state(store.as_ref(), &root(), &operator, 1, 3, GROUPS).await.unwrap();
        assert_eq!(restored.key_groups, 4..8);
        let error = restored_state(store.as_ref(), &root(), &operator, 0, 3, GROUPS).await.unwrap_err();
        assert!(error.to_string().contains("'jobs/one/segments/0' is missing"), "{error}");
    });
}

#[test]
fn another_number_of_key_groups_is_an_error() {
    run(async {
        let store = memory();
        let operator = stored(&store, &[]).await;
        let error = restored_state(store.as_ref(), &root(), &operator, 0, 1, 64).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request);
        expect_test::expect!["operator 'operator' was saved with a max parallelism of 12 and is to go on with one of 64; set pipeline.max-parallelism to 12"]
            .assert_eq(&error.to_string());
        assert!(restored_state(store.as_ref(), &root(), &operator, 0, 1, GROUPS).await.unwrap().states.is_empty());
    });
}
