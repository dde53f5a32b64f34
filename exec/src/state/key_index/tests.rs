//! Against a map, and where keys were appended.

use std::collections::BTreeMap;

use arrow::array::{Float64Array, Int64Array, StringArray};
use proptest::prelude::*;
use tidemill_core::key::{hash_columns, key_group};

use super::*;

fn intern(index: &mut KeyIndex, columns: &[ArrayRef]) -> Vec<usize> {
    let hashes = hash_columns(columns, columns[0].len()).unwrap();
    let mut slots = vec![];
    index.intern(columns, &hashes, &mut slots).unwrap();
    slots
}

proptest! {
    /// Against the obvious: a map from key to first place, with removals in between.
    #[test]
    fn slots_are_those_of_a_map(keys in prop::collection::vec((prop::option::of(-5..5i64), prop::option::of("[ab]{0,2}")), 1..80),
                                two_columns in any::<bool>(), remove in prop::collection::vec(any::<bool>(), 80),
                                laid_out in prop::option::of((0..4u32, 0..4u32, 0..200usize))) {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter(keys.iter().map(|key| key.0)));
        let texts: ArrayRef = Arc::new(StringArray::from_iter(keys.iter().map(|key| key.1.clone())));
        let columns = if two_columns { vec![numbers, texts] } else { vec![numbers] };
        let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
        let mut index = KeyIndex::new(&types).unwrap();
        if let Some((begin, groups, keys)) = laid_out {
            index.lay_out(&(begin..begin + groups), 8, keys);
        }
        let mut model: BTreeMap<(Option<i64>, Option<String>), usize> = BTreeMap::new();
        for (row, key) in keys.iter().enumerate() {
            let key = if two_columns { key.clone() } else { (key.0, None) };
            let row_columns: Vec<ArrayRef> = columns.iter().map(|column| column.slice(row, 1)).collect();
            let slot = intern(&mut index, &row_columns)[0];
            match model.get(&key) {
                Some(known) => prop_assert_eq!(*known, slot),
                None => prop_assert!(model.values().all(|other| *other != slot)),
            }
            model.insert(key.clone(), slot);
            let back = index.keys(&[slot]).unwrap();
            for (column, back) in row_columns.iter().zip(&back) {
                prop_assert_eq!(column, back);
            }
            if remove[row] {
                index.remove(slot);
                model.remove(&key);
            }
            prop_assert_eq!(index.len(), model.len());
        }
    }
}

#[test]
fn keys_that_were_appended_are_found_where_they_are() {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values((0..100_000).map(|n| n * 7)));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..100_000).map(|n| format!("{n}"))));
    for columns in [vec![numbers.clone()], vec![texts.clone()], vec![numbers, texts]] {
        let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
        let hashes = hash_columns(&columns, 100_000).unwrap();
        let mut index = KeyIndex::new(&types).unwrap();
        let part = |begin: usize, rows: usize| -> Vec<ArrayRef> {
            columns.iter().map(|column| column.slice(begin, rows)).collect()
        };
        assert_eq!(intern(&mut index, &part(0, 10)), (0..10).collect::<Vec<_>>());
        assert_eq!(index.append(&part(10, 80_000), &hashes[10..80_010]).unwrap(), 10..80_010);
        assert_eq!((index.unsettled(), index.len()), (80_000, 10));
        index.settle();
        assert_eq!((index.unsettled(), index.len(), index.slots()), (0, 80_010, 80_010));
        assert_eq!(intern(&mut index, &columns), (0..100_000).collect::<Vec<_>>());
        assert_eq!(index.keys(&[70_000, 5]).unwrap()[0].slice(0, 1).as_ref(), columns[0].slice(70_000, 1).as_ref());
    }
}

/// How many slots with other hashes are compared with those of all keys so far.
fn comparisons(table: &SlotTable, hashes: &[u64]) -> usize {
    let mut others = 0;
    for (slot, hash) in hashes.iter().enumerate() {
        let found = table.find(table.place(*hash), |other| {
            others += usize::from(*other as usize != slot);
            *other as usize == slot
        });
        assert_eq!(found, Some(slot));
    }
    others
}

fn hashes_of(keys: i64) -> Vec<u64> {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..keys));
    hash_columns(&[numbers], keys as usize).unwrap().to_vec()
}

/// Hashes of keys of these groups, group by group.
fn hashes_by_group(keys: i64, groups: &Range<u32>) -> Vec<u64> {
    let mut hashes = hashes_of(keys);
    hashes.retain(|hash| groups.contains(&key_group(*hash, 128)));
    hashes.sort_by_key(|hash| key_group(*hash, 128));
    hashes
}

/// As keys are added one by one at run time: those of some rows after another.
fn add(table: &mut SlotTable, from: usize, hashes: &[u64]) {
    let (mut places, mut from) = (Vec::new(), from);
    while from < hashes.len() {
        table.places(&hashes[from..], hashes, &mut places);
        for place in &places {
            table.insert(*place, from as u32, hashes);
            from += 1;
        }
    }
}

#[test]
fn keys_in_the_order_of_hashes_crowd_no_part_of_the_table() {
    for groups in [0..128, 32..64, 127..128] {
        let mut hashes = hashes_by_group(400_000, &groups);
        hashes.sort_unstable();
        // All of them, or each second one with the others in order again.
        for layers in [1, 2] {
            let part = hashes.len() / layers;
            let hashes: Vec<u64> =
                (0..layers).flat_map(|layer| hashes[layer..].iter().step_by(layers).copied()).collect();
            for (insert, room) in [SlotTable::insert_new, add]
                .into_iter()
                .flat_map(|insert| [0, 1000, part / 4, part / 2, part, hashes.len()].map(|room| (insert, room)))
            {
                let mut table = SlotTable::new();
                table.lay_out(&groups, 128, room, &[]);
                for step in (0..hashes.len()).step_by(500) {
                    let known = &hashes[..hashes.len().min(step + 500)];
                    insert(&mut table, step, known);
                    // Of slots with another tag, 127 in 128, none is compared: one compared for each key are eight lines looked at.
                    if step % (hashes.len() / 10_000 * 500).max(500) == 0 {
                        let (others, keys) = (comparisons(&table, known), known.len());
                        assert!(others < keys, "{others} of {keys} with room for {room} of {groups:?}");
                    }
                }
                assert_eq!(table.len(), hashes.len());
            }
        }
    }
}

#[test]
fn a_table_with_room_for_all_keys_stays_in_order() {
    for (groups, keys) in [(0..128, 450_000), (40..48, 3_600_000), (127..128, 29_000_000)] {
        let hashes = hashes_by_group(keys, &groups);
        // As full as a table can be.
        assert!(hashes.len() > 220_000 && hashes.len() <= 458_752, "{}", hashes.len());
        let mut table = SlotTable::new();
        table.lay_out(&groups, 128, hashes.len(), &[]);
        table.insert_new(0, &hashes);
        assert!(table.is_in_order(), "{groups:?}");
        table.reserve(table.capacity(), &hashes);
        assert!(!table.is_in_order());
        comparisons(&table, &hashes);
    }
}

#[test]
fn namespaces_of_a_key_have_tags_of_their_own() {
    let all: Vec<u64> = hashes_of(10_000).iter().map(|hash| hash & u64::from(u32::MAX) | 7 << 32).collect();
    let mut table = SlotTable::new();
    table.insert_new(0, &all);
    let others = comparisons(&table, &all);
    assert!(others < all.len() / 2, "{others}");
}

#[test]
fn without_a_key_there_is_a_slot_of_the_first_group() {
    let mut index = KeyIndex::new(&[]).unwrap();
    let mut slots = vec![];
    index.intern(&[], &hash_columns(&[], 3).unwrap(), &mut slots).unwrap();
    assert_eq!((slots.as_slice(), index.hash(0), index.len()), ([0, 0, 0].as_slice(), HASH_WITHOUT_KEY, 1));
    index.reserve(10_000);
    index.intern(&[], &hash_columns(&[], 1).unwrap(), &mut slots).unwrap();
    assert_eq!((slots[3], index.len()), (0, 1));
    index.remove(0);
    assert_eq!(index.len(), 0);
}

#[test]
fn nothing_is_kept_of_a_batch_but_its_keys() {
    let numbers = Int64Array::from_iter_values(0..1000);
    let held = numbers.values().inner().clone();
    let columns: Vec<ArrayRef> = vec![Arc::new(numbers)];
    let hashes = hash_columns(&columns, 1000).unwrap();
    let before = held.strong_count();
    let mut index = KeyIndex::new(&[DataType::Int64]).unwrap();
    intern(&mut index, &columns);
    assert_eq!(held.strong_count(), before);
    index.find(&columns, &hashes, &mut vec![]).unwrap();
    assert_eq!(held.strong_count(), before);
    let mut index = KeyIndex::new(&[DataType::Int64]).unwrap();
    index.append(&columns, &hashes).unwrap();
    assert_eq!(held.strong_count(), before);
    // Refused while keys are unsettled, and nothing is kept then either.
    index.intern(&columns, &hashes, &mut vec![]).unwrap_err();
    assert_eq!(held.strong_count(), before);
}

#[test]
fn keys_that_come_and_go_leave_no_bytes_behind() {
    let mut index = KeyIndex::new(&[DataType::Utf8]).unwrap();
    let key = |number: i32| -> Vec<ArrayRef> { vec![Arc::new(StringArray::from(vec![format!("{number:032}")]))] };
    let stays = intern(&mut index, &key(-1))[0];
    for number in 0..10_000 {
        let slot = intern(&mut index, &key(number))[0];
        assert_eq!(index.keys(&[stays, slot]).unwrap()[0].as_string::<i32>().value(1), format!("{number:032}"));
        index.remove(slot);
    }
    assert!(index.size_bytes() < 50_000, "{}", index.size_bytes());
    assert_eq!(intern(&mut index, &key(-1)), [stays]);
}

#[test]
fn zeros_are_one_key_and_so_are_nans() {
    let mut index = KeyIndex::new(&[DataType::Float64]).unwrap();
    let column: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]));
    assert_eq!(intern(&mut index, &[column]), [0, 0, 1, 1]);
}
