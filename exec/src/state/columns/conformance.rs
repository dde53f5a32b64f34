//! The laws of [`StateColumn`], kept by every column of this folder.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::ArrayRef;
use proptest::prelude::*;
use tidemill_core::state::{Expiry, ListCells, MapCells, StateColumn, StateTtl, ValueCells};

use super::*;

/// What is done to a slot: `None` clears it, a number is made into whatever the column holds.
type Writes = Vec<(usize, Option<u8>)>;

const SLOTS: usize = 6;

fn at(now_millis: i64) -> Expiry {
    Expiry::new(Some(StateTtl::new(Duration::from_millis(10))), now_millis)
}

fn write<C: StateColumn>(column: &mut C, writes: &Writes, put: fn(&mut C, usize, u8)) {
    for (slot, value) in writes {
        match value {
            Some(value) => put(column, *slot, *value),
            None => column.clear(*slot),
        }
    }
}

fn held<C: StateColumn>(column: &C) -> Vec<usize> {
    (0..SLOTS).filter(|slot| !column.is_vacant(*slot)).collect()
}

fn check<C: StateColumn>(new: fn() -> C, put: fn(&mut C, usize, u8)) {
    let writes = || prop::collection::vec((0..SLOTS, prop::option::weighted(0.8, any::<u8>())), 0..30);
    proptest!(ProptestConfig::with_cases(64), |(before in writes(), after in writes())| {
        let mut column = new();
        column.resize(SLOTS);
        let empty = column.memory_bytes();
        prop_assert!(held(&column).is_empty());
        write(&mut column, &before, put);
        let slots = held(&column);

        let encoded = column.encode(&slots).unwrap();
        prop_assert_eq!(&column.encode(&slots).unwrap(), &encoded);
        prop_assert_eq!(encoded.len(), column.fields().len());
        for (array, field) in encoded.iter().zip(column.fields()) {
            prop_assert_eq!((array.len(), array.data_type()), (slots.len(), field.data_type()));
            prop_assert!(field.is_nullable() || array.null_count() == 0);
        }

        // Into other slots of a column where something else was, half of the rows at a time.
        let mut other = new();
        other.resize(2 * SLOTS);
        write(&mut other, &after, put);
        let targets: Vec<usize> = slots.iter().map(|slot| 2 * SLOTS - 1 - slot).collect();
        let half = slots.len() / 2;
        let part = |from: usize, to: usize| encoded.iter().map(|array| array.slice(from, to - from)).collect::<Vec<ArrayRef>>();
        other.decode(&targets[..half], &part(0, half)).unwrap();
        other.decode(&targets[half..], &part(half, slots.len())).unwrap();
        prop_assert_eq!(&other.encode(&targets).unwrap(), &encoded);

        // Behind others, likewise.
        let mut behind = new();
        behind.resize(SLOTS);
        write(&mut behind, &after, put);
        let kept = held(&behind);
        let kept = (kept.clone(), behind.encode(&kept).unwrap());
        behind.append(SLOTS..SLOTS + half, &part(0, half)).unwrap();
        behind.append(SLOTS + half..SLOTS + slots.len(), &part(half, slots.len())).unwrap();
        prop_assert_eq!(&behind.encode(&(SLOTS..SLOTS + slots.len()).collect::<Vec<_>>()).unwrap(), &encoded);
        prop_assert_eq!(&behind.encode(&kept.0).unwrap(), &kept.1);

        // Frozen is frozen.
        let frozen = column.freeze(&slots).unwrap();
        write(&mut column, &after, put);
        prop_assert_eq!(&frozen().unwrap(), &encoded);

        // Of one slot twice the later row counts.
        if let [first, .., last] = slots[..] {
            let (mut twice, mut once) = (new(), new());
            twice.resize(1);
            once.resize(1);
            twice.decode(&[0, 0], &[part(0, 1), part(slots.len() - 1, slots.len())].concat_rows()).unwrap();
            once.decode(&[0], &part(slots.len() - 1, slots.len())).unwrap();
            prop_assert_eq!(twice.encode(&[0]).unwrap(), once.encode(&[0]).unwrap(), "{} and {}", first, last);
        }

        (0..SLOTS).for_each(|slot| column.clear(slot));
        prop_assert_eq!((held(&column).len(), column.memory_bytes()), (0, empty), "a cleared column is as new");
    });
}

/// Rows below rows.
trait ConcatRows {
    fn concat_rows(&self) -> Vec<ArrayRef>;
}

impl ConcatRows for [Vec<ArrayRef>; 2] {
    fn concat_rows(&self) -> Vec<ArrayRef> {
        let [above, below] = self;
        let both = above.iter().zip(below);
        both.map(|(above, below)| arrow::compute::concat(&[above.as_ref(), below.as_ref()]).unwrap()).collect()
    }
}

fn text(value: u8) -> Option<String> {
    (!value.is_multiple_of(3)).then(|| "x".repeat(value as usize))
}

#[test]
fn values_keep_the_laws() {
    check(|| ValueColumn::<u8>::new().unwrap(), |column, slot, value| column.set(slot, value, at(0)));
    type Texts = ValueColumn<(Option<String>, Vec<u8>)>;
    check(|| Texts::new().unwrap(), |column, slot, value| column.set(slot, (text(value), vec![value; 3]), at(0)));
    check(
        || TimedColumn::new(ValueColumn::<Option<String>>::new().unwrap()),
        |column, slot, value| column.set(slot, text(value), at(i64::from(value))),
    );
}

#[test]
fn lists_keep_the_laws() {
    check(
        || ListColumn::<Untimed<Option<String>>>::new().unwrap(),
        |column, slot, value| column.push(slot, text(value), at(0)),
    );
    check(
        || ListColumn::<Timed<u8>>::new().unwrap(),
        |column, slot, value| column.push(slot, value, at(i64::from(value))),
    );
}

#[test]
fn maps_keep_the_laws() {
    check(
        || MapColumn::<u8, Untimed<Option<String>>>::new().unwrap(),
        |column, slot, value| match value % 4 {
            0 => drop(column.remove(slot, &(value / 8), at(0))),
            _ => column.put(slot, value / 8, text(value), at(0)),
        },
    );
    check(
        || MapColumn::<(String, u8), Timed<BTreeMap<String, u8>>>::new().unwrap(),
        |column, slot, value| {
            let inner = BTreeMap::from([("a".to_owned(), value)]);
            column.put(slot, ("k".repeat(value as usize % 5), 1), inner, at(i64::from(value)));
        },
    );
}

#[test]
fn entries_expire_each_for_itself() {
    let mut list = ListColumn::<Timed<u8>>::new().unwrap();
    list.resize(1);
    (0..5).for_each(|number| list.push(0, number, at(i64::from(number))));
    let seen = |list: &ListColumn<Timed<u8>>, now| list.iter(0, at(now)).copied().collect::<Vec<_>>();
    assert_eq!((seen(&list, 9), seen(&list, 12)), (vec![0, 1, 2, 3, 4], vec![3, 4]));
    let before = list.memory_bytes();
    assert!(list.expire(0, at(12)) && !list.expire(0, at(12)));
    assert!(list.memory_bytes() < before);
    assert_eq!(seen(&list, 0), [3, 4]);
    assert!(list.expire(0, at(100)) && list.is_vacant(0));
}

#[test]
fn a_map_without_possible_columns_is_refused() {
    let error = MapColumn::<Option<u8>, Untimed<u8>>::new().map(drop).unwrap_err();
    assert!(error.to_string().contains("keys are options"), "{error}");
}
