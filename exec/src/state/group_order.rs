//! The order in which rows of keyed state are stored: that of their key groups.
//!
//! Rows come in the order of slots, in which they lie in memory. Values of a fixed width are read as they lie and written to as many
//! places at a time as there are key groups; read in the order in which they are wanted, nearly each would miss the caches. They are
//! written as narrow as they can be, so that there is less to write and to read again.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch, StructArray, UInt32Array,
    downcast_primitive, make_array,
};
use arrow::compute::{concat, interleave_record_batch, take};
use arrow::datatypes::{DataType, Schema, SchemaRef, UInt32Type};
use tidemill_core::key::{places, scatter};
use tidemill_core::state::narrow::{Convert, fields_of, in_narrowest};
use tidemill_core::{Error, Result};

/// The most rows of a batch with texts: so few that those of a column stay below what 32 bits can count.
pub const BATCH_ROWS: usize = 8192;

/// The rows of `batches`, whose first column is the key group, in the order of their groups; within a group they stay in theirs.
/// Batches are not empty. What is in memory beside the rows that come and those that go are four bytes for each, and of columns of
/// a fixed width but one at a time. Whole numbers come as narrow as they can be if all columns have a fixed width.
pub fn in_group_order(batches: Vec<RecordBatch>, max_parallelism: u32) -> Result<Vec<RecordBatch>> {
    let Some(schema) = batches.first().map(RecordBatch::schema) else { return Ok(Vec::new()) };
    let mut groups: Vec<u32> = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    for batch in &batches {
        let of_batch = batch.columns().first().and_then(|column| column.as_primitive_opt::<UInt32Type>());
        groups.extend_from_slice(of_batch.ok_or_else(|| Error::internal("rows without their key group"))?.values());
    }
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    match schema.fields().iter().all(|field| is_fixed_width(field.data_type())) {
        true => Ok(vec![placed(&schema, batches, &groups, max_parallelism)?]),
        false => interleaved(&batches, &groups, max_parallelism),
    }
}

fn is_fixed_width(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => fields.iter().all(|field| is_fixed_width(field.data_type())),
        other => other.is_primitive() || *other == DataType::Boolean,
    }
}

/// All rows in one batch, column after column.
fn placed(schema: &SchemaRef, batches: Vec<RecordBatch>, groups: &[u32], max_parallelism: u32) -> Result<RecordBatch> {
    let (places, ends) = places(groups, max_parallelism as usize);
    let mut of_groups = Vec::with_capacity(groups.len());
    ends.iter().zip(0..).for_each(|(end, group)| of_groups.resize(*end, group));
    let mut columns: Vec<Vec<ArrayRef>> = vec![Vec::with_capacity(batches.len()); schema.fields().len()];
    for batch in batches {
        let (_, of_batch, _) = batch.into_parts();
        columns.iter_mut().zip(of_batch).for_each(|(column, part)| column.push(part));
    }
    // Whoever cuts rows by their key groups wants these as they are.
    let groups: ArrayRef = Arc::new(UInt32Array::from(of_groups));
    let others = columns.into_iter().skip(1).map(|parts| place(parts, &places));
    let columns = [Ok(groups)].into_iter().chain(others).collect::<Result<Vec<_>>>()?;
    let schema = Schema::new_with_metadata(fields_of(schema.fields(), &columns), schema.metadata().clone());
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

/// The values of the parts of a column, each in its place.
fn place(parts: Vec<ArrayRef>, places: &[u32]) -> Result<ArrayRef> {
    let Some(data_type) = parts.first().map(|part| part.data_type().clone()) else {
        return Err(Error::internal("a column without parts"));
    };
    if parts.iter().any(|part| part.null_count() > 0) {
        return taken(&parts, places);
    }
    if let DataType::Struct(fields) = &data_type {
        let of_field = |field: usize| {
            let parts = parts.iter().map(|part| part.as_struct().column(field).clone()).collect();
            place(parts, places)
        };
        let columns = (0..fields.len()).map(of_field).collect::<Result<Vec<_>>>()?;
        let fields = fields_of(fields, &columns);
        return Ok(Arc::new(StructArray::try_new_with_length(fields, columns, None, places.len())?));
    }
    if let Some(narrow) = in_narrowest(&data_type, &parts, InPlaces { parts: &parts, places }) {
        return Ok(narrow);
    }
    macro_rules! primitive {
        ($kind:ty) => {
            InPlaces { parts: &parts, places }.convert::<$kind, $kind>(|value| value)
        };
    }
    let placed = downcast_primitive! {
        data_type => (primitive),
        _ => return taken(&parts, places)
    };
    // Numbers alone do not tell their time zone, or how many decimals they have.
    Ok(make_array(placed.to_data().into_builder().data_type(data_type).build()?))
}

/// The values of the parts of a column, and the place of each.
struct InPlaces<'a> {
    parts: &'a [ArrayRef],
    places: &'a [u32],
}

impl Convert for InPlaces<'_> {
    fn convert<From: ArrowPrimitiveType, To: ArrowPrimitiveType>(
        self,
        to: impl Fn(From::Native) -> To::Native,
    ) -> ArrayRef {
        let mut values = vec![To::Native::default(); self.places.len()];
        let mut rest = self.places;
        for part in self.parts {
            let (of_part, later) = rest.split_at(part.len());
            let given = part.as_primitive::<From>().values().iter();
            given.zip(of_part).for_each(|(value, place)| values[*place as usize] = to(*value));
            rest = later;
        }
        Arc::new(PrimitiveArray::<To>::new(values.into(), None))
    }
}

fn taken(parts: &[ArrayRef], places: &[u32]) -> Result<ArrayRef> {
    let mut order = vec![0u32; places.len()];
    places.iter().zip(0..).for_each(|(place, row)| order[*place as usize] = row);
    let parts: Vec<&dyn Array> = parts.iter().map(|part| &**part).collect();
    Ok(take(&concat(&parts)?, &UInt32Array::from(order), None)?)
}

/// Rows with texts, few in a batch.
fn interleaved(batches: &[RecordBatch], groups: &[u32], max_parallelism: u32) -> Result<Vec<RecordBatch>> {
    let rows_before = |rows: &mut usize, batch: &RecordBatch| {
        *rows += batch.num_rows();
        Some(*rows)
    };
    let ends: Vec<usize> = batches.iter().scan(0, rows_before).collect();
    let (order, _) = scatter(groups, max_parallelism as usize);
    let batches: Vec<&RecordBatch> = batches.iter().collect();
    let place = |row: &u32| {
        let row = *row as usize;
        let batch = ends.partition_point(|end| *end <= row);
        (batch, row - batch.checked_sub(1).map_or(0, |before| ends[before]))
    };
    let mut places = Vec::with_capacity(BATCH_ROWS.min(order.len()));
    let ordered = order.chunks(BATCH_ROWS).map(|rows| {
        places.clear();
        places.extend(rows.iter().map(place));
        Ok(interleave_record_batch(&batches, &places)?)
    });
    ordered.collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, Int64Array, StringArray, TimestampMicrosecondArray};
    use arrow::compute::concat_batches;
    use arrow::datatypes::{Field, Fields, Int32Type, Int64Type, TimeUnit};
    use tidemill_core::state::narrow::widened;

    use super::*;

    /// A column of rows with these numbers.
    type Column = fn(&[i64]) -> ArrayRef;

    /// Rows with a number, and the other columns by number.
    fn check(others: &[(&str, Column)], rows_of_batches: &[usize]) -> Vec<usize> {
        let groups = |rows: &[i64]| -> ArrayRef {
            let group = |row: &i64| (*row as u32).wrapping_mul(2_654_435_761) % 7;
            Arc::new(UInt32Array::from_iter_values(rows.iter().map(group)))
        };
        let columns = |rows: &[i64]| -> RecordBatch {
            let number: ArrayRef = Arc::new(Int64Array::from(rows.to_vec()));
            let first = [("group", groups(rows)), ("row", number)];
            let others = others.iter().map(|(name, column)| (*name, column(rows)));
            let columns: Vec<(&str, ArrayRef)> = first.into_iter().chain(others).collect();
            let field = |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), true);
            let schema = Schema::new(columns.iter().map(field).collect::<Fields>());
            RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, column)| column).collect()).unwrap()
        };
        let mut batches = Vec::new();
        let mut begin = 0;
        for rows in rows_of_batches {
            batches.push(columns(&(begin..begin + *rows as i64).collect::<Vec<_>>()));
            begin += *rows as i64;
        }
        let declared = batches.first().map(RecordBatch::schema);
        let ordered = in_group_order(batches, 7).unwrap();
        let wide = |batch: &RecordBatch| widened(batch, &declared.clone().unwrap()).unwrap().unwrap();
        let mut expected: Vec<i64> = (0..begin).collect();
        expected.sort_by_key(|row| groups(&[*row]).as_primitive::<UInt32Type>().value(0));
        if let Some(declared) = &declared {
            let ordered: Vec<RecordBatch> = ordered.iter().map(wide).collect();
            assert_eq!(concat_batches(declared, &ordered).unwrap(), columns(&expected));
        }
        ordered.iter().map(RecordBatch::num_rows).collect()
    }

    fn time(rows: &[i64]) -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(rows.to_vec()).with_timezone("UTC"))
    }

    fn parity(rows: &[i64]) -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(row % 2 == 0)).collect::<BooleanArray>())
    }

    fn perhaps(rows: &[i64]) -> ArrayRef {
        Arc::new(rows.iter().map(|row| (row % 3 > 0).then_some(*row)).collect::<PrimitiveArray<Int64Type>>())
    }

    fn pair(rows: &[i64]) -> ArrayRef {
        let (one, other) = (time(rows), perhaps(rows));
        let fields =
            [("one", &one), ("other", &other)].map(|(name, of)| Field::new(name, of.data_type().clone(), true));
        Arc::new(StructArray::new(fields.to_vec().into(), vec![one, other], None))
    }

    fn text(rows: &[i64]) -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(format!("row {row}"))).collect::<StringArray>())
    }

    #[test]
    fn numbers_come_as_narrow_as_those_of_all_batches() {
        let column = |numbers: &[i64]| -> ArrayRef { Arc::new(Int64Array::from(numbers.to_vec())) };
        let batch = |small: &[i64], large: &[i64]| {
            let groups: ArrayRef = Arc::new(UInt32Array::from(vec![1, 0]));
            let columns =
                [("group", groups), ("small", column(small)), ("large", column(large)), ("time", time(small))];
            RecordBatch::try_from_iter(columns).unwrap()
        };
        let batches = vec![batch(&[1, -128], &[1, 2]), batch(&[127, 0], &[-40_000, 3])];
        let ordered = in_group_order(batches, 2).unwrap();
        let types: Vec<&DataType> = ordered[0].columns().iter().map(|column| column.data_type()).collect();
        let microseconds = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        assert_eq!(types, [&DataType::UInt32, &DataType::Int8, &DataType::Int32, &microseconds]);
        assert_eq!(ordered[0].column(2).as_primitive::<Int32Type>().values(), &[2, 3, 1, -40_000]);
    }

    #[test]
    fn rows_of_several_batches_come_by_group_and_keep_their_order_within_one() {
        let rows = [0, 5, BATCH_ROWS, 0, 2 * BATCH_ROWS - 5];
        assert_eq!(
            check(&[("time", time), ("parity", parity), ("perhaps", perhaps), ("pair", pair)], &rows),
            [3 * BATCH_ROWS]
        );
        assert_eq!(check(&[("text", text), ("pair", pair)], &rows), [BATCH_ROWS; 3]);
        assert!(check(&[], &[0, 0]).is_empty() && check(&[], &[]).is_empty());
    }
}
