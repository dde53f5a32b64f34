//! Stored rows in columns that people can read.
//!
//! | stored | read |
//! | --- | --- |
//! | | `subtask`: who stored it |
//! | key group | `key_group` |
//! | key and what is kept | the same columns, of [plain](crate::checkpoint::parquet) types |
//! | timers of a key | a row for each: `domain`, `namespace`, `time_millis`, and `time` where that is a date |
//! | when a slot was last used | `used_at` |
//! | rows beside older ones | `layer`: 0 for those of the last whole snapshot, then counting up |

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch, TimestampMillisecondArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef, TimeUnit, UInt32Type};
use tidemill_core::state::{KEY_GROUP, StateDescriptor, StateKind, key_columns};
use tidemill_core::{Error, Result};

use crate::checkpoint::parquet::{plain, plain_field};
use crate::operators::timers::TIMERS;

/// How the columns of a key that a program computes are called, with a number behind it.
const COMPUTED_KEY: &str = "$key.";
/// When the slots of a state were last used.
const USED: &str = "used_millis";
/// The first and the last millisecond of the years 1 to 9999.
const DATES: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// How the rows of one state become readable.
#[derive(Debug)]
pub struct Readable {
    schema: SchemaRef,
    is_keyed: bool,
    is_timers: bool,
    is_timed: bool,
    has_layers: bool,
}

impl Readable {
    /// The form of a state, with the number of each row's layer if rows of several stand beside one another.
    pub fn new(state: &StateDescriptor, has_layers: bool) -> Self {
        let is_keyed = state.kind == StateKind::Keyed;
        let stored = state.schema.fields();
        let is_timers = is_keyed && state.name == TIMERS && stored.last().is_some_and(is_timer_list);
        let used = |field: &FieldRef| field.name() == USED && *field.data_type() == DataType::Int64;
        let is_timed = is_keyed && !is_timers && stored.last().is_some_and(used);
        let mut fields = vec![Field::new("subtask", DataType::Int32, false)];
        fields.extend(has_layers.then(|| Field::new("layer", DataType::Int32, false)));
        fields.extend(is_keyed.then(|| Field::new(KEY_GROUP, DataType::Int32, false)));
        let kept = &stored[usize::from(is_keyed).min(stored.len())..stored.len() - usize::from(is_timers || is_timed)];
        let keys = key_columns(&state.schema).map_or(0, |keys| keys.len());
        let computed = kept.iter().take(keys).filter(|field| field.name().starts_with(COMPUTED_KEY)).count();
        fields.extend(kept.iter().enumerate().map(|(place, field)| {
            let field = plain_field(field).as_ref().clone();
            // Keys that a program computes have no names of their own.
            match field.name().strip_prefix(COMPUTED_KEY).filter(|_| place < keys) {
                Some(_) if computed == 1 => field.with_name("key"),
                Some(number) => field.clone().with_name(format!("key_{number}")),
                None => field,
            }
        }));
        if is_timers {
            fields.extend([
                Field::new("domain", DataType::Utf8, false),
                Field::new("namespace", DataType::Int64, false),
                Field::new("time_millis", DataType::Int64, false),
                Field::new("time", instant(), true),
            ]);
        }
        fields.extend(is_timed.then(|| Field::new("used_at", instant(), true)));
        Self { schema: Arc::new(Schema::new(named_apart(fields))), is_keyed, is_timers, is_timed, has_layers }
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Stored rows of a subtask's layer in these columns.
    pub fn rows(&self, subtask: u32, layer: usize, stored: &RecordBatch) -> Result<RecordBatch> {
        let (mut columns, timers) = match self.is_timers {
            true => timers(stored)?,
            false => (stored.columns().to_vec(), Vec::new()),
        };
        let rows = timers.first().or(columns.first()).map_or(stored.num_rows(), |column| column.len());
        let number = |number: i32| Arc::new(Int32Array::from(vec![number; rows])) as ArrayRef;
        let mut read = vec![number(subtask as i32)];
        read.extend(self.has_layers.then(|| number(layer as i32)));
        if self.is_keyed {
            let groups = columns.first().and_then(|groups| groups.as_primitive_opt::<UInt32Type>());
            let groups = groups.ok_or_else(|| Error::corrupt("keyed state whose first column is no key group"))?;
            read.push(Arc::new(Int32Array::from_iter_values(groups.values().iter().map(|group| *group as i32))));
            columns.remove(0);
        }
        let used = if self.is_timed { columns.pop() } else { None };
        read.extend(columns.iter().map(plain).collect::<Result<Vec<_>>>()?);
        read.extend(timers);
        read.extend(used.map(|used| instants(&used)).transpose()?);
        Ok(RecordBatch::try_new(self.schema.clone(), read)?)
    }
}

/// The columns before the list of timers, a row for each timer, and the columns of the timers.
fn timers(stored: &RecordBatch) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
    let wrong = || Error::corrupt("timers without domain, namespace and time");
    let Some((lists, keys)) = stored.columns().split_last() else { return Err(wrong()) };
    let lists = lists.as_list_opt::<i32>().ok_or_else(wrong)?;
    let offsets = lists.value_offsets();
    let of_row = |row: usize| std::iter::repeat_n(row as u32, (offsets[row + 1] - offsets[row]) as usize);
    let places = UInt32Array::from_iter_values((0..lists.len()).flat_map(of_row));
    let keys = keys.iter().map(|column| Ok(take(column, &places, None)?)).collect::<Result<Vec<_>>>()?;
    let first = offsets.first().map_or(0, |first| *first as usize);
    let items = lists.values().slice(first, places.len());
    let mut columns = items.as_struct_opt().ok_or_else(wrong)?.columns().to_vec();
    let [_, _, times] = columns.as_slice() else { return Err(wrong()) };
    let times = instants(times)?;
    columns.push(times);
    Ok((keys, columns))
}

fn is_timer_list(field: &FieldRef) -> bool {
    match field.data_type() {
        DataType::List(item) => matches!(item.data_type(), DataType::Struct(columns) if columns.len() == 3),
        _ => false,
    }
}

/// Milliseconds as instants, NULL where that is no date that SQL knows.
fn instants(millis: &ArrayRef) -> Result<ArrayRef> {
    let millis = millis.as_primitive_opt::<Int64Type>().ok_or_else(|| Error::corrupt("times that are no numbers"))?;
    let instants = millis.iter().map(|time| time.filter(|time| DATES.contains(time)));
    Ok(Arc::new(instants.collect::<TimestampMillisecondArray>().with_timezone("UTC")))
}

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

/// The fields, of which no two have one name.
fn named_apart(fields: Vec<Field>) -> Vec<Field> {
    let mut taken = BTreeSet::new();
    let apart = |field: Field| {
        let mut name = field.name().clone();
        let mut number = 2;
        while !taken.insert(name.to_lowercase()) {
            name = format!("{}_{number}", field.name());
            number += 1;
        }
        field.with_name(name)
    };
    fields.into_iter().map(apart).collect()
}
