//! What keys remember, in plain maps: the slow and obvious way.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidemill_core::state::{StateTtl, TtlUpdate, TtlVisibility};

use super::keys::Key;

/// Something that a row does with the states of its key.
#[derive(Clone, Debug)]
pub enum Op {
    Get,
    Set(String),
    Take,
    Clear,
    List,
    Add(i32, Option<String>),
    SetList(Vec<i32>),
    ClearList,
    Lookup(String),
    Entries,
    Put(String, i64),
    Delete(String),
    ClearMap,
    Sum,
    Reduce(i64),
    ClearSum,
    Mean,
    Aggregate(i64),
    ClearMean,
    Remove,
}

/// What an operation reads.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    Nothing,
    Text(Option<String>),
    List(Vec<(i32, Option<String>)>),
    Number(Option<i64>),
    Map(Vec<(String, i64)>),
    Mean(Option<f64>),
}

impl Op {
    /// An operation that reads, for each state.
    pub fn all_reads() -> Vec<Op> {
        vec![Op::Get, Op::List, Op::Entries, Op::Lookup("a".to_owned()), Op::Sum, Op::Mean]
    }
}

pub fn any_read() -> impl Strategy<Value = Op> {
    prop::sample::select(Op::all_reads())
}

pub fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => any_read(),
        2 => "[xy]{0,3}".prop_map(Op::Set),
        1 => Just(Op::Take),
        1 => Just(Op::Clear),
        3 => (0..5i32, prop::option::of("[xy]{0,2}")).prop_map(|(number, text)| Op::Add(number, text)),
        1 => prop::collection::vec(0..5i32, 0..3).prop_map(Op::SetList),
        1 => Just(Op::ClearList),
        3 => ("[abc]", any::<i64>()).prop_map(|(name, value)| Op::Put(name, value)),
        2 => "[abc]".prop_map(Op::Delete),
        1 => Just(Op::ClearMap),
        2 => (-9..9i64).prop_map(Op::Reduce),
        1 => Just(Op::ClearSum),
        2 => (-9..9i64).prop_map(Op::Aggregate),
        1 => Just(Op::ClearMean),
        1 => Just(Op::Remove),
    ]
}

/// An entry and when it was used.
type Used<T> = (T, i64);

#[derive(Clone, Debug, Default)]
struct Cell {
    value: Option<Used<String>>,
    list: Vec<Used<(i32, Option<String>)>>,
    map: BTreeMap<String, Used<i64>>,
    sum: Option<Used<i64>>,
    mean: Option<Used<(i64, i64)>>,
}

/// The states of all keys.
#[derive(Debug)]
pub struct Model {
    cells: BTreeMap<Key, Cell>,
    ttl: Option<StateTtl>,
    pub now_millis: i64,
}

impl Model {
    pub fn new(ttl: Option<StateTtl>) -> Self {
        Self { cells: BTreeMap::new(), ttl, now_millis: 0 }
    }

    /// How many keys something is kept for.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Does what the row says; what it reads.
    pub fn apply(&mut self, key: Key, op: &Op) -> Seen {
        let (clock, now) = (Clock { ttl: self.ttl, now: self.now_millis }, self.now_millis);
        let mut cell = self.cells.remove(&key).unwrap_or_default();
        let mut seen = Seen::Nothing;
        match op.clone() {
            Op::Get => seen = Seen::Text(clock.read(&mut cell.value)),
            Op::Set(text) => cell.value = Some((text, now)),
            Op::Take => seen = Seen::Text(cell.value.take().filter(|value| clock.sees(value)).map(|value| value.0)),
            Op::Clear => cell.value = None,
            Op::List => {
                cell.list.iter_mut().for_each(|element| clock.renew(element));
                let visible = cell.list.iter().filter(|element| clock.sees(element));
                seen = Seen::List(visible.map(|(value, _)| value.clone()).collect());
            }
            Op::Add(number, text) => cell.list.push(((number, text), now)),
            Op::SetList(list) => cell.list = list.into_iter().map(|number| ((number, None), now)).collect(),
            Op::ClearList => cell.list.clear(),
            Op::Lookup(name) => {
                cell.map.get_mut(&name).into_iter().for_each(|entry| clock.renew(entry));
                seen = Seen::Number(cell.map.get(&name).filter(|entry| clock.sees(entry)).map(|entry| entry.0));
            }
            Op::Entries => {
                cell.map.values_mut().for_each(|entry| clock.renew(entry));
                let visible = cell.map.iter().filter(|(_, entry)| clock.sees(entry));
                seen = Seen::Map(visible.map(|(name, entry)| (name.clone(), entry.0)).collect());
            }
            Op::Put(name, value) => cell.map.extend([(name, (value, now))]),
            Op::Delete(name) => {
                seen = Seen::Number(cell.map.remove(&name).filter(|entry| clock.sees(entry)).map(|entry| entry.0));
            }
            Op::ClearMap => cell.map.clear(),
            Op::Sum => seen = Seen::Number(clock.read(&mut cell.sum)),
            Op::Reduce(value) => {
                let sum = cell.sum.filter(|sum| clock.sees(sum)).map_or(0, |sum| sum.0);
                cell.sum = Some((sum + value, now));
            }
            Op::ClearSum => cell.sum = None,
            Op::Mean => seen = Seen::Mean(clock.read(&mut cell.mean).map(|(sum, count)| sum as f64 / count as f64)),
            Op::Aggregate(value) => {
                let (sum, count) = cell.mean.filter(|mean| clock.sees(mean)).map_or((0, 0), |mean| mean.0);
                cell.mean = Some(((sum + value, count + 1), now));
            }
            Op::ClearMean => cell.mean = None,
            Op::Remove => cell = Cell::default(),
        }
        self.keep(key, cell);
        seen
    }

    /// Drops what has expired.
    pub fn sweep(&mut self) {
        let clock = Clock { ttl: self.ttl, now: self.now_millis };
        for (key, mut cell) in std::mem::take(&mut self.cells) {
            cell.value.take_if(|value| clock.is_over(value));
            cell.sum.take_if(|sum| clock.is_over(sum));
            cell.mean.take_if(|mean| clock.is_over(mean));
            cell.list.retain(|element| !clock.is_over(element));
            cell.map.retain(|_, entry| !clock.is_over(entry));
            self.keep(key, cell);
        }
    }

    fn keep(&mut self, key: Key, cell: Cell) {
        let is_empty = cell.value.is_none() && cell.sum.is_none() && cell.mean.is_none();
        if !(is_empty && cell.list.is_empty() && cell.map.is_empty()) {
            self.cells.insert(key, cell);
        }
    }
}

#[derive(Clone, Copy)]
struct Clock {
    ttl: Option<StateTtl>,
    now: i64,
}

impl Clock {
    fn is_over<T>(&self, used: &Used<T>) -> bool {
        self.ttl.is_some_and(|ttl| used.1 + ttl.time_to_live.as_millis() as i64 <= self.now)
    }

    fn sees<T>(&self, used: &Used<T>) -> bool {
        let shows = |ttl: StateTtl| ttl.visibility == TtlVisibility::ReturnExpiredIfNotCleanedUp;
        !self.is_over(used) || self.ttl.is_some_and(shows)
    }

    fn renew<T>(&self, used: &mut Used<T>) {
        if !self.is_over(used) && self.ttl.is_some_and(|ttl| ttl.update == TtlUpdate::OnReadAndWrite) {
            used.1 = self.now;
        }
    }

    fn read<T: Clone>(&self, cell: &mut Option<Used<T>>) -> Option<T> {
        cell.iter_mut().for_each(|used| self.renew(used));
        cell.as_ref().filter(|used| self.sees(used)).map(|used| used.0.clone())
    }
}
