//! State that was saved under one type and goes on under another (STA-16): what is read then is what the old values become.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use tidemill_core::state::{CurrentKey, KeyedStates, ListState, MapState, SnapshotScope, StateTtl};
use tidemill_core::{Error, ErrorKind, Result};

use super::job::lookup;
use super::keys::Shape;
use super::snapshots::layers;
use super::{GROUPS, Make, SavedStates, restored};
use crate::state::{StateRegistry, StateValue};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Old {
    gone: String,
    count: i32,
    size: Option<u8>,
    parts: Vec<OldPart>,
    place: (u8, String),
    form: OldForm,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct OldPart {
    weight: u16,
    label: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum OldForm {
    Point,
    Circle(f32),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct New {
    form: NewForm,
    parts: Vec<NewPart>,
    size: Option<i16>,
    since: Option<i64>,
    count: i64,
    place: (u32, String, Option<bool>),
    #[serde(default = "seven")]
    rank: u8,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct NewPart {
    #[serde(default)]
    notes: Vec<String>,
    weight: i32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum NewForm {
    Box { side: u8 },
    Circle(f64),
    Point,
}

fn seven() -> u8 {
    7
}

impl From<Old> for New {
    fn from(old: Old) -> Self {
        let part = |part: OldPart| NewPart { notes: vec![], weight: part.weight.into() };
        Self {
            form: match old.form {
                OldForm::Point => NewForm::Point,
                OldForm::Circle(radius) => NewForm::Circle(radius.into()),
            },
            parts: old.parts.into_iter().map(part).collect(),
            size: old.size.map(i16::from),
            since: None,
            count: old.count.into(),
            place: (old.place.0.into(), old.place.1, None),
            rank: 7,
        }
    }
}

fn any_old() -> impl Strategy<Value = Old> {
    let part = (any::<u16>(), prop::option::of("[a-c]{0,3}")).prop_map(|(weight, label)| OldPart { weight, label });
    let form = prop_oneof![Just(OldForm::Point), (-9i8..9).prop_map(|radius| OldForm::Circle(radius.into()))];
    let parts = prop::collection::vec(part, 0..4);
    ("[a-c]{0,3}", any::<i32>(), any::<Option<u8>>(), parts, (any::<u8>(), "[a-c]{0,3}"), form)
        .prop_map(|(gone, count, size, parts, place, form)| Old { gone, count, size, parts, place, form })
}

/// What two keys remember.
type Remembered<T> = Vec<(T, Vec<T>, BTreeMap<u32, T>)>;

fn keys(count: usize) -> Vec<arrow::array::ArrayRef> {
    Shape::Number.columns(&(0..count as i64).map(|key| (Some(key), None)).collect::<Vec<_>>())
}

/// Writes half of the keys before a base and all of them before the changes behind it.
fn saved(make: Make<'_>, remembered: &Remembered<Old>) -> SavedStates {
    let mut states = make(&Shape::Number.fields(), GROUPS);
    let mut registry = StateRegistry::new(states.as_mut());
    let (value, list, map) = (
        registry.value_state::<Old>("value").unwrap(),
        registry.list_state::<Old>("list").unwrap(),
        registry.map_state::<u32, Old>("map").unwrap(),
    );
    let mut snapshots = vec![];
    for (scope, count) in [(SnapshotScope::Base, remembered.len() / 2), (SnapshotScope::Changes, remembered.len())] {
        let slots = lookup(states.as_mut(), &keys(count));
        for (slot, (one, many, named)) in slots.iter().zip(remembered) {
            let mut key = CurrentKey::new(states.as_mut(), *slot, 0);
            value.set(&mut key, one.clone()).unwrap();
            list.clear(&mut key).unwrap();
            many.iter().for_each(|one| list.add(&mut key, one.clone()).unwrap());
            named.iter().for_each(|(name, one)| map.put(&mut key, *name, one.clone()).unwrap());
        }
        states.release().unwrap();
        snapshots.push(states.snapshot(scope).unwrap());
    }
    layers(snapshots)
}

fn read<T: StateValue>(states: &mut dyn KeyedStates, count: usize) -> Remembered<T> {
    let mut registry = StateRegistry::new(states);
    let (value, list, map) = (
        registry.value_state::<T>("value").unwrap(),
        registry.list_state::<T>("list").unwrap(),
        // The names may be wider, too.
        registry.map_state::<u64, T>("map").unwrap(),
    );
    let slots = lookup(states, &keys(count));
    let mut remembered = vec![];
    for slot in slots {
        let mut key = CurrentKey::new(states, slot, 0);
        let one = value.get(&mut key).unwrap().unwrap().clone();
        let many = list.get(&mut key).unwrap().cloned().collect();
        let named = map.entries(&mut key).unwrap().map(|(name, one)| (*name as u32, one.clone())).collect();
        remembered.push((one, many, named));
    }
    remembered
}

/// Columns come and go, numbers are wider, fields have defaults, enums have more variants: in values, lists and maps alike.
pub fn evolved_state_is_what_the_old_one_becomes(make: Make<'_>) {
    let named = prop::collection::btree_map(0..9u32, any_old(), 0..4);
    let remembered = prop::collection::vec((any_old(), prop::collection::vec(any_old(), 0..4), named), 0..6);
    proptest!(ProptestConfig::with_cases(48), |(remembered in remembered)| {
        let mut states = restored(make, 0..GROUPS, saved(make, &remembered));
        let expected: Remembered<New> = remembered
            .iter()
            .cloned()
            .map(|(one, many, named)| {
                let named = named.into_iter().map(|(name, one)| (name, one.into())).collect();
                (one.into(), many.into_iter().map(New::from).collect(), named)
            })
            .collect();
        prop_assert_eq!(&read::<New>(states.as_mut(), remembered.len()), &expected);
        // What is stored from now on has the new columns.
        let again = layers([states.snapshot(SnapshotScope::Base).unwrap()]);
        let mut states = restored(make, 0..GROUPS, again);
        prop_assert_eq!(read::<New>(states.as_mut(), remembered.len()), expected);
    });
}

/// One key with a value of this type, and what a registry says to it under another.
fn refused<A: StateValue, B: StateValue>(make: Make<'_>, value: A) -> String {
    let mut states = make(&Shape::Number.fields(), GROUPS);
    let state = StateRegistry::new(states.as_mut()).value_state::<A>("v").unwrap();
    let slot = lookup(states.as_mut(), &keys(1))[0];
    state.set(&mut CurrentKey::new(states.as_mut(), slot, 0), value).unwrap();
    let saved = layers([states.snapshot(SnapshotScope::Base).unwrap()]);
    let mut states = restored(make, 0..GROUPS, saved);
    let error = StateRegistry::new(states.as_mut()).value_state::<B>("v").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request, "{error}");
    for part in ["state 'v' was saved as (", ") and is declared as ("] {
        assert!(error.message().contains(part), "{error}");
    }
    error.message().to_owned()
}

/// What cannot be told from the old values is refused with both schemas and the column.
pub fn what_no_old_value_becomes_is_refused(make: Make<'_>) {
    #[derive(Clone, Serialize, Deserialize)]
    struct More {
        weight: u16,
        label: Option<String>,
        unheard_of: i64,
    }
    #[derive(Clone, Serialize, Deserialize)]
    struct Narrow {
        weight: u8,
    }
    let part = || OldPart { weight: 1, label: None };
    assert!(refused::<_, More>(make, part()).contains("unheard_of"));
    assert!(refused::<_, Vec<More>>(make, vec![part()]).contains("unheard_of"));
    assert!(refused::<_, Narrow>(make, part()).contains("column 'value.weight' cannot go from UInt16 to UInt8"));
    assert!(refused::<_, i64>(make, Some(1i64)).contains("column 'value' may hold NULL"));
    assert!(refused::<_, NewPart>(make, "text".to_owned()).contains("column 'value' cannot go from Utf8"));
    let named = BTreeMap::from([((1u8, 2u8), 3u8)]);
    assert!(refused::<_, BTreeMap<(u8,), u8>>(make, named).contains("of a key is gone"));
}

/// Values that were saved without a TTL get one, whose time begins then; and they lose it again.
pub fn values_may_begin_or_cease_to_expire(make: Make<'_>) {
    let ttl = Some(StateTtl::new(Duration::from_millis(10)));
    let mut states = make(&Shape::Number.fields(), GROUPS);
    let mut value = StateRegistry::new(states.as_mut()).value_state::<i64>("v").unwrap();
    let slot = lookup(states.as_mut(), &keys(1))[0];
    value.set(&mut CurrentKey::new(states.as_mut(), slot, 0), 7).unwrap();
    for (ttl, now, sweeps, expected) in [
        (ttl, 1000, true, Some(7)),
        (None, 5000, true, Some(7)),
        (ttl, 9000, false, Some(7)),
        (ttl, 9005, true, Some(7)),
        (ttl, 9014, true, Some(7)),
        (ttl, 9015, true, None),
    ] {
        let saved = layers([states.snapshot(SnapshotScope::Base).unwrap()]);
        states = restored(make, 0..GROUPS, saved);
        value = StateRegistry::new(states.as_mut()).with_ttl(ttl).value_state::<i64>("v").unwrap();
        if sweeps {
            states.expire(now, usize::MAX).unwrap();
        }
        let slot = lookup(states.as_mut(), &keys(1))[0];
        let seen = value.get(&mut CurrentKey::new(states.as_mut(), slot, now)).unwrap().copied();
        assert_eq!(seen, expected, "at {now}");
        states.release().unwrap();
    }
    assert!(states.is_empty());
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Optional {
    a: Option<i64>,
    #[serde(default)]
    b: u8,
}

/// Lists and maps of structs whose fields all have defaults, so that nothing would be missed if it were dropped.
struct Elements {
    list: ListState<Optional>,
    map: MapState<u8, Optional>,
    /// Structs whose fields are called as those of elements that expire.
    named: ListState<Named>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Named {
    value: Option<Optional>,
    used_millis: i64,
}

impl Elements {
    fn declare(states: &mut dyn KeyedStates, ttl: Option<StateTtl>) -> Result<Self> {
        let mut registry = StateRegistry::new(states);
        let (list, map) = (registry.with_ttl(ttl).list_state("list")?, registry.with_ttl(ttl).map_state("map")?);
        Ok(Self { list, map, named: registry.with_ttl(ttl).list_state("named")? })
    }

    fn read(&self, states: &mut dyn KeyedStates, now_millis: i64) -> (Vec<Optional>, Vec<(u8, Optional)>, Vec<Named>) {
        let slot = lookup(states, &keys(1))[0];
        let mut key = CurrentKey::new(states, slot, now_millis);
        let list = self.list.get(&mut key).unwrap().cloned().collect();
        let map = self.map.entries(&mut key).unwrap().map(|(name, value)| (*name, value.clone())).collect();
        (list, map, self.named.get(&mut key).unwrap().cloned().collect())
    }
}

/// Elements of lists and values of maps that cease to expire are what they were; those that begin to are refused.
pub fn elements_may_cease_to_expire_and_not_begin_to(make: Make<'_>) {
    let ttl = Some(StateTtl::new(Duration::from_millis(10)));
    let mut states = make(&Shape::Number.fields(), GROUPS);
    let elements = Elements::declare(states.as_mut(), ttl).unwrap();
    let slot = lookup(states.as_mut(), &keys(1))[0];
    let mut key = CurrentKey::new(states.as_mut(), slot, 5);
    let some = [Optional { a: Some(7), b: 8 }, Optional { a: None, b: 9 }];
    for (name, value) in (0..).zip(&some) {
        elements.list.add(&mut key, value.clone()).unwrap();
        elements.map.put(&mut key, name, value.clone()).unwrap();
        let named = Named { value: Some(value.clone()), used_millis: 3 };
        elements.named.add(&mut key, named).unwrap();
    }
    let expected = elements.read(states.as_mut(), 5);
    assert_eq!((&expected.0[..], expected.1.len(), expected.2.len()), (&some[..], 2, 2));
    states.release().unwrap();

    let saved = layers([states.snapshot(SnapshotScope::Base).unwrap()]);
    let mut states = restored(make, 0..GROUPS, saved);
    let elements = Elements::declare(states.as_mut(), None).unwrap();
    // Long after they would have expired.
    assert_eq!(elements.read(states.as_mut(), 5_000), expected);
    states.release().unwrap();

    let saved = layers([states.snapshot(SnapshotScope::Base).unwrap()]);
    let mut states = restored(make, 0..GROUPS, saved);
    let refused = |error: Error, name: &str| {
        let text = error.message();
        assert!(
            text.contains(&format!("state '{name}' was saved as (")) && text.contains("begins to expire"),
            "{text}"
        );
    };
    let mut registry = StateRegistry::new(states.as_mut());
    refused(registry.with_ttl(ttl).list_state::<Optional>("list").unwrap_err(), "list");
    refused(registry.with_ttl(ttl).map_state::<u8, Optional>("map").unwrap_err(), "map");
}
