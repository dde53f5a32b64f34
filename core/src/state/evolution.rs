//! What state may be restored into that is declared otherwise than it was saved (STA-16).
//!
//! Columns are matched by name, at every level: in structs, in the items of lists, in the entries of maps. Then
//!
//! * a column that was saved and is not declared is dropped;
//! * one that is declared and was not saved is NULL, if it may be;
//! * one of another type is converted if every value of the old type is one of the new ([`widens`]), and may become nullable.
//!
//! Anything else is refused, with both schemas in the message. Two things are stricter. What tells rows apart does not evolve:
//! key columns stay as they are ([`KEY_COLUMNS`]), and keys of maps may be widened and gain columns, but lose none. And a column
//! may say of itself what its absence would mean ([`EVOLUTION`]).

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, LargeListArray, ListArray, MapArray, RecordBatch, RecordBatchOptions,
    StructArray, UnionArray, new_empty_array, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, UnionFields, UnionMode};

use crate::error::{Error, Result};
use crate::state::widening::widens;

/// Metadata of a state's schema: how many of its first columns tell rows apart.
pub const KEY_COLUMNS: &str = "tidemill.key_columns";

/// Metadata of a column: how what is kept in it evolves, if not like rows.
pub const EVOLUTION: &str = "evolution";

/// [`EVOLUTION`] of values that serde reads: a NOT NULL column within that was not saved is left out, and who decodes them
/// knows a default or says which field is missing.
pub const EVOLUTION_SERDE: &str = "serde";

/// [`EVOLUTION_SERDE`] of a list or map whose elements, or values, may have been saved with the time at which they were used:
/// then each was a struct of [`ELEMENT_FIELDS`], and its value goes on without the time.
pub const EVOLUTION_SERDE_ELEMENTS: &str = "serde elements";

/// [`EVOLUTION_SERDE`] of a list or map whose elements, or values, have that time, each in a struct of [`ELEMENT_FIELDS`]. What was
/// saved without it is refused.
pub const EVOLUTION_SERDE_TIMED_ELEMENTS: &str = "serde timed elements";

/// The fields of an element of a list, or a value of a map, that expires for itself: the value, and when it was used.
pub const ELEMENT_FIELDS: [&str; 2] = ["value", "used_millis"];

/// [`EVOLUTION`] of what was computed from all rows so far: it may be dropped, but neither added, even if it is nullable, nor
/// gain or lose a part. Rows that went by cannot be counted later.
pub const EVOLUTION_COMPLETE: &str = "complete";

/// The column with its [`EVOLUTION`].
pub fn evolving(field: &Field, evolution: &str) -> FieldRef {
    let mut metadata = field.metadata().clone();
    metadata.insert(EVOLUTION.to_owned(), evolution.to_owned());
    Arc::new(field.clone().with_metadata(metadata))
}

/// A restored batch as one of the columns that a state declares now.
///
/// The types are the declared ones, but for fields that [`EVOLUTION_SERDE`] leaves out.
pub fn adapt(name: &str, batch: &RecordBatch, declared: &SchemaRef) -> Result<RecordBatch> {
    let saved = batch.schema();
    let columns = match saved.fields() == declared.fields() && have_same_keys(&saved, declared) {
        true => batch.columns().to_vec(),
        false => columns(batch, declared).map_err(|reason| not_restorable(name, &saved, declared, &reason))?,
    };
    let fields = declared.fields().iter().zip(&columns).map(|(field, column)| typed(field, column));
    let schema = Schema::new_with_metadata(fields.collect::<Fields>(), declared.metadata().clone());
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)?)
}

/// The error of state that is not restored because of a reason.
pub fn not_restorable(name: &str, saved: &Schema, declared: &Schema, reason: &str) -> Error {
    let (saved, declared) = (describe(saved), describe(declared));
    Error::request(format!("state '{name}' was saved as ({saved}) and is declared as ({declared}): {reason}"))
        .with_hint("give the new form a name of its own, or change it back")
}

/// A column of type `from` as one of type `to`, under the same rules; for who gives a column another type than it was made with.
pub fn retyped(column: &ArrayRef, from: &Field, to: &Field) -> Result<ArrayRef> {
    convert(column, from, to, Rules::default(), from.name()).map_err(Error::internal)
}

/// Why a state cannot become another.
type Refused<T> = std::result::Result<T, String>;

fn columns(batch: &RecordBatch, declared: &Schema) -> Refused<Vec<ArrayRef>> {
    let (saved, rows) = (batch.schema_ref(), batch.num_rows());
    let keys = leading_columns(declared);
    if keys > 0 {
        let same = |place: usize| {
            let (old, new) = (saved.fields().get(place)?, declared.fields().get(place)?);
            (old.name() == new.name() && old.data_type() == new.data_type()).then_some(())
        };
        if leading_columns(saved) != keys || (0..keys).any(|place| same(place).is_none()) {
            return Err("its key columns must stay as they were".to_owned());
        }
    }
    let mut columns = batch.columns()[..keys].to_vec();
    let (old, new) = (&saved.fields()[keys..], &declared.fields()[keys..]);
    columns.extend(matched(old, &batch.columns()[keys..], new, rows, Rules::default(), "")?.into_iter().flatten());
    Ok(columns)
}

/// Columns that are the same in all need not say which are keys.
fn have_same_keys(saved: &Schema, declared: &Schema) -> bool {
    saved.metadata().get(KEY_COLUMNS).is_none_or(|keys| Some(keys) == declared.metadata().get(KEY_COLUMNS))
}

fn leading_columns(schema: &Schema) -> usize {
    schema.metadata().get(KEY_COLUMNS).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// What holds for the columns within one.
#[derive(Clone, Copy, Default)]
struct Rules {
    /// Missing NOT NULL fields are left out.
    leaves_out: bool,
    /// Nothing may be added or dropped.
    is_complete: bool,
    /// Nothing may be dropped.
    is_key: bool,
    /// What the items of this list, or the values of this map, are.
    elements: Elements,
}

/// What is known of the items of a list, or of the values of a map.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Elements {
    /// Nothing: their type says it all.
    #[default]
    Plain,
    /// They have no time, and may have been saved with one.
    Untimed,
    /// They have a time.
    Timed,
}

impl Rules {
    /// Those of a column and of what is in it.
    fn within(self, field: &Field) -> Self {
        match field.metadata().get(EVOLUTION).map(String::as_str) {
            Some(EVOLUTION_SERDE) => Self { leaves_out: true, ..self },
            Some(EVOLUTION_SERDE_ELEMENTS) => Self { leaves_out: true, elements: Elements::Untimed, ..self },
            Some(EVOLUTION_SERDE_TIMED_ELEMENTS) => Self { leaves_out: true, elements: Elements::Timed, ..self },
            Some(EVOLUTION_COMPLETE) => Self { is_complete: true, ..self },
            _ => self,
        }
    }
}

/// The columns `new`, found by name among `old`: `None` for those that are left out.
fn matched(
    old: &[FieldRef],
    columns: &[ArrayRef],
    new: &[FieldRef],
    rows: usize,
    rules: Rules,
    path: &str,
) -> Refused<Vec<Option<ArrayRef>>> {
    let count = |fields: &[FieldRef], name: &str| fields.iter().filter(|field| field.name() == name).count();
    for field in old.iter().chain(new) {
        let (before, after) = (count(old, field.name()), count(new, field.name()));
        if before.max(after) > 1 && before != after {
            let path = join(path, field.name());
            return Err(format!("there were {before} columns '{path}' and are {after}"));
        }
        if after == 0 && (rules.is_key || rules.is_complete) {
            let whole = if rules.is_key { "a key" } else { "an aggregate" };
            return Err(format!("column '{}' of {whole} is gone", join(path, field.name())));
        }
    }
    let mut taken = vec![false; old.len()];
    let column = |field: &FieldRef| {
        let (path, within) = (join(path, field.name()), rules.within(field));
        let place = old.iter().enumerate().position(|(place, old)| !taken[place] && old.name() == field.name());
        match place {
            Some(place) => {
                taken[place] = true;
                convert(&columns[place], &old[place], field, within, &path).map(Some)
            }
            None if within.is_complete => Err(format!("column '{path}' is new, and the rows before are not in it")),
            None if field.is_nullable() => Ok(Some(new_null_array(field.data_type(), rows))),
            None if rules.leaves_out => Ok(None),
            None => Err(format!("column '{path}' is new and NOT NULL")),
        }
    };
    new.iter().map(column).collect()
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The items of a list, or the values of a map, as those that are declared.
fn convert_elements(column: &ArrayRef, old: &Field, new: &Field, rules: Rules, path: &str) -> Refused<ArrayRef> {
    let within = Rules { elements: Elements::Plain, ..rules };
    match (rules.elements, timed_value(old)) {
        (Elements::Timed, None) => Err(format!("what is in column '{path}' begins to expire")),
        // Who declares a field of that name had it in a struct of their own, which may have been the value.
        (Elements::Untimed, Some(value)) if !names_time(new) || names_time(value) => {
            convert(column.as_struct().column(0), value, new, within, path)
        }
        _ => convert(column, old, new, within, path),
    }
}

/// The value of an element that has a time.
fn timed_value(element: &Field) -> Option<&FieldRef> {
    let DataType::Struct(fields) = element.data_type() else { return None };
    let [value, used] = &fields[..] else { return None };
    let has_time = *used.data_type() == DataType::Int64 && !used.is_nullable();
    (has_time && [value.name(), used.name()] == ELEMENT_FIELDS).then_some(value)
}

/// Whether it is a struct with a field that is called like the time of an element.
fn names_time(field: &Field) -> bool {
    matches!(field.data_type(), DataType::Struct(fields) if fields.iter().any(|field| field.name() == ELEMENT_FIELDS[1]))
}

/// The column `old` as the column `new`.
fn convert(column: &ArrayRef, old: &Field, new: &Field, rules: Rules, path: &str) -> Refused<ArrayRef> {
    let (from, to) = (old.data_type(), new.data_type());
    if old.is_nullable() && !new.is_nullable() {
        return Err(format!("column '{path}' may hold NULL and is declared NOT NULL"));
    }
    if from == to {
        return Ok(column.clone());
    }
    let failed = |error: arrow::error::ArrowError| format!("column '{path}': {error}");
    match (from, to) {
        (DataType::Null, _) if new.is_nullable() => Ok(new_null_array(to, column.len())),
        (DataType::Struct(_), DataType::Struct(fields)) => {
            Ok(Arc::new(convert_struct(column.as_struct(), fields, rules, path)?))
        }
        (DataType::List(item), DataType::List(to)) => {
            let list = column.as_list::<i32>();
            let items = convert_elements(list.values(), item, to, rules, path)?;
            let list = ListArray::try_new(typed(to, &items), list.offsets().clone(), items, list.nulls().cloned());
            Ok(Arc::new(list.map_err(failed)?))
        }
        (DataType::LargeList(item), DataType::LargeList(to)) => {
            let list = column.as_list::<i64>();
            let items = convert(list.values(), item, to, rules, path)?;
            let list = LargeListArray::try_new(typed(to, &items), list.offsets().clone(), items, list.nulls().cloned());
            Ok(Arc::new(list.map_err(failed)?))
        }
        (DataType::FixedSizeList(item, before), DataType::FixedSizeList(to, after)) if before == after => {
            let list = column.as_fixed_size_list();
            let items = convert(list.values(), item, to, rules, path)?;
            let list = FixedSizeListArray::try_new(typed(to, &items), *after, items, list.nulls().cloned());
            Ok(Arc::new(list.map_err(failed)?))
        }
        (DataType::Map(_, before), DataType::Map(to, after)) if before == after => {
            convert_map(column.as_map(), to, *after, rules, path)
        }
        (DataType::Union(old, UnionMode::Dense), DataType::Union(new, UnionMode::Dense)) => {
            let union = column.as_any().downcast_ref::<UnionArray>().ok_or("a union that is none")?;
            convert_union(union, old, new, rules, path)
        }
        _ if widens(from, to) => {
            let options = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(column, to, &options).map_err(failed)
        }
        _ => Err(format!("column '{path}' cannot go from {from} to {to}")),
    }
}

fn convert_struct(rows: &StructArray, fields: &Fields, rules: Rules, path: &str) -> Refused<StructArray> {
    let found = matched(rows.fields(), rows.columns(), fields, rows.len(), rules, path)?;
    let present = fields.iter().zip(found).filter_map(|(field, column)| Some((field, column?)));
    let (fields, columns): (Vec<FieldRef>, Vec<ArrayRef>) =
        present.map(|(field, column)| (typed(field, &column), column)).unzip();
    let nulls = rows.nulls().cloned();
    StructArray::try_new_with_length(fields.into(), columns, nulls, rows.len())
        .map_err(|error| format!("column '{path}': {error}"))
}

fn convert_map(map: &MapArray, to: &FieldRef, sorted: bool, rules: Rules, path: &str) -> Refused<ArrayRef> {
    let wrong = || format!("column '{path}' is a map without keys and values");
    let DataType::Struct(fields) = to.data_type() else { return Err(wrong()) };
    let ([old_key, old_value], [key, value]) = (&map.entries().fields()[..], &fields[..]) else {
        return Err(wrong());
    };
    // Their columns have names, but not such that say anything.
    let of_key = Rules { is_key: true, elements: Elements::Plain, ..rules };
    let keys = convert(map.keys(), old_key, key, of_key, &join(path, "key"))?;
    let values = convert_elements(map.values(), old_value, value, rules, &join(path, "value"))?;
    let fields = Fields::from(vec![typed(key, &keys), typed(value, &values)]);
    let entries = StructArray::try_new(fields, vec![keys, values], None);
    let map = entries.and_then(|entries| {
        let field = Arc::new(Field::new(to.name(), entries.data_type().clone(), to.is_nullable()));
        MapArray::try_new(field, map.offsets().clone(), entries, map.nulls().cloned(), sorted)
    });
    Ok(Arc::new(map.map_err(|error| format!("column '{path}': {error}"))?))
}

/// Variants are matched by name; there may be more of them, not fewer.
fn convert_union(
    union: &UnionArray,
    old: &UnionFields,
    new: &UnionFields,
    rules: Rules,
    path: &str,
) -> Refused<ArrayRef> {
    let mut types = [0_i8; 256];
    for (id, field) in old.iter() {
        let same = new.iter().find(|(_, other)| other.name() == field.name());
        let (new_id, _) = same.ok_or_else(|| format!("variant '{}' is gone", join(path, field.name())))?;
        types[id as u8 as usize] = new_id;
    }
    let child = |(id, field): (i8, &FieldRef)| -> Refused<((i8, FieldRef), ArrayRef)> {
        let column = match old.iter().find(|(_, other)| other.name() == field.name()) {
            Some((old_id, before)) => convert(union.child(old_id), before, field, rules, &join(path, field.name()))?,
            None => new_empty_array(field.data_type()),
        };
        Ok(((id, typed(field, &column)), column))
    };
    let children = new.iter().map(child).collect::<Refused<Vec<_>>>()?;
    let (fields, columns): (Vec<(i8, FieldRef)>, Vec<ArrayRef>) = children.into_iter().unzip();
    let ids = union.type_ids().iter().map(|id| types[*id as u8 as usize]).collect();
    let union = UnionArray::try_new(fields.into_iter().collect(), ids, union.offsets().cloned(), columns);
    Ok(Arc::new(union.map_err(|error| format!("column '{path}': {error}"))?))
}

/// The field with the type of its column, in which something may be left out.
fn typed(field: &FieldRef, column: &ArrayRef) -> FieldRef {
    match field.data_type() == column.data_type() {
        true => field.clone(),
        false => Arc::new(field.as_ref().clone().with_data_type(column.data_type().clone())),
    }
}

/// The columns for a message: `key_group UInt32 NOT NULL, user Utf8`.
fn describe(schema: &Schema) -> String {
    let column = |field: &FieldRef| {
        let null = if field.is_nullable() { "" } else { " NOT NULL" };
        format!("{} {}{null}", field.name(), field.data_type())
    };
    schema.fields().iter().map(column).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "evolution_tests.rs"]
mod tests;
