//! A changelog folded into the table that it describes.
//!
//! A row is its values: a retraction takes away one row equal to it, whichever came first. An update keeps its row's place, so
//! that a table which is shown while it changes does not jump.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use tidemill_core::key::append_key_bytes;
use tidemill_core::{Batch, Error, Result, RowKind};

use super::rows::Rows;

/// Dead rows that are kept before their batches are let go.
const DEAD_ROWS_MIN: usize = 8_192;

/// The current content of a changing table.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{Int64Array, RecordBatch};
/// use tidemill::sql::Folded;
/// use tidemill_core::{Batch, RowKind};
///
/// let rows = |values: &[i64]| {
///     RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(values.to_vec())) as _)])
/// };
/// let mut folded = Folded::new(rows(&[])?.schema());
/// folded.apply(&Batch::append(rows(&[1, 2])?))?;
/// let kinds = vec![RowKind::UpdateBefore as u8, RowKind::UpdateAfter as u8];
/// folded.apply(&Batch::changelog(rows(&[1, 5])?, kinds.into())?)?;
/// assert_eq!(folded.rows()?.to_batch()?, rows(&[5, 2])?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Folded {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    /// The rows in order: batch and row within it. `None` where a row was taken away.
    rows: Vec<Option<(usize, usize)>>,
    /// The places of equal rows; only once something is retracted, because most tables only grow.
    places: Option<BTreeMap<Vec<u8>, Vec<usize>>>,
    live: usize,
}

impl Folded {
    /// An empty table of these columns.
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, batches: Vec::new(), rows: Vec::new(), places: None, live: 0 }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Takes in changes.
    pub fn apply(&mut self, batch: &Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let number = self.batches.len();
        self.batches.push(batch.records().clone());
        if batch.kinds().is_none() && self.places.is_none() {
            self.rows.extend((0..batch.num_rows()).map(|row| Some((number, row))));
            self.live += batch.num_rows();
            return Ok(());
        }
        self.index()?;
        // Where the row stood whose new content comes next.
        let mut vacated = None;
        for row in 0..batch.num_rows() {
            let kind = batch.kind(row)?;
            let key = key_of(batch.records(), row)?;
            match kind.is_addition() {
                true => self.add(key, (number, row), vacated.take().filter(|_| kind == RowKind::UpdateAfter)),
                false => {
                    let place = self.remove(&key).ok_or_else(|| {
                        Error::internal(format!("{kind} of a row that is not there: {}", text_of(batch.records(), row)))
                    })?;
                    vacated = (kind == RowKind::UpdateBefore).then_some(place);
                }
            }
        }
        if self.rows.len() > DEAD_ROWS_MIN + 2 * self.live {
            self.compact()?;
        }
        Ok(())
    }

    /// The rows now.
    pub fn rows(&self) -> Result<Rows> {
        let live: Vec<(usize, usize)> = self.rows.iter().flatten().copied().collect();
        if live.is_empty() {
            return Ok(Rows { schema: self.schema.clone(), batches: Vec::new() });
        }
        if live.len() == self.rows.len() && self.places.is_none() {
            return Ok(Rows { schema: self.schema.clone(), batches: self.batches.clone() });
        }
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let batch = match self.schema.fields().is_empty() {
            true => empty_columns(&self.schema, live.len())?,
            false => interleave_record_batch(&batches, &live)?,
        };
        Ok(Rows { schema: self.schema.clone(), batches: vec![batch] })
    }

    fn add(&mut self, key: Vec<u8>, row: (usize, usize), vacated: Option<usize>) {
        let place = vacated.unwrap_or(self.rows.len());
        match self.rows.get_mut(place) {
            Some(slot) => *slot = Some(row),
            None => self.rows.push(Some(row)),
        }
        self.places.get_or_insert_default().entry(key).or_default().push(place);
        self.live += 1;
    }

    fn remove(&mut self, key: &[u8]) -> Option<usize> {
        let places = self.places.as_mut()?;
        let equal = places.get_mut(key)?;
        let place = equal.pop()?;
        if equal.is_empty() {
            places.remove(key);
        }
        self.rows[place] = None;
        self.live -= 1;
        Some(place)
    }

    fn index(&mut self) -> Result<()> {
        if self.places.is_some() {
            return Ok(());
        }
        let mut places: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
        for (place, row) in self.rows.iter().enumerate() {
            if let Some((batch, row)) = row {
                places.entry(key_of(&self.batches[*batch], *row)?).or_default().push(place);
            }
        }
        self.places = Some(places);
        Ok(())
    }

    /// Lets go of the batches that hold mostly dead rows.
    fn compact(&mut self) -> Result<()> {
        let Rows { batches, .. } = self.rows()?;
        let rows =
            batches.iter().enumerate().flat_map(|(batch, rows)| (0..rows.num_rows()).map(move |row| (batch, row)));
        self.rows = rows.map(Some).collect();
        self.batches = batches;
        self.places = None;
        self.index()
    }
}

fn empty_columns(schema: &SchemaRef, rows: usize) -> Result<RecordBatch> {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), Vec::new(), &options)?)
}

fn key_of(records: &RecordBatch, row: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(16 * records.num_columns());
    for column in records.columns() {
        append_key_bytes(column.as_ref(), row, &mut bytes)?;
    }
    Ok(bytes)
}

fn text_of(records: &RecordBatch, row: usize) -> String {
    let value = |column: &arrow::array::ArrayRef| {
        arrow::util::display::array_value_to_string(column, row).unwrap_or_else(|_| "?".to_owned())
    };
    records.columns().iter().map(value).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn batch(changes: &[(RowKind, i64)]) -> Batch {
        let values: Int64Array = changes.iter().map(|(_, value)| Some(*value)).collect();
        let records = RecordBatch::try_from_iter([("n", Arc::new(values) as _)]).unwrap();
        let kinds: Vec<u8> = changes.iter().map(|(kind, _)| *kind as u8).collect();
        Batch::changelog(records, kinds.into()).unwrap()
    }

    fn fold(batches: &[&[(RowKind, i64)]]) -> Result<Vec<i64>> {
        let mut folded = Folded::new(batch(&[]).schema());
        for changes in batches {
            folded.apply(&batch(changes))?;
        }
        let rows = folded.rows()?.to_batch()?;
        assert_eq!(rows.num_rows(), folded.len());
        Ok(rows.column(0).as_primitive::<Int64Type>().values().to_vec())
    }

    use RowKind::{Delete, Insert, UpdateAfter, UpdateBefore};

    #[test]
    fn equal_rows_go_one_at_a_time() {
        assert_eq!(fold(&[&[(Insert, 1), (Insert, 1), (Insert, 2)], &[(Delete, 1)]]).unwrap(), [1, 2]);
    }

    #[test]
    fn an_update_keeps_its_place() {
        let changes = [(UpdateBefore, 1), (UpdateAfter, 9), (UpdateBefore, 2), (UpdateAfter, 1)];
        assert_eq!(fold(&[&[(Insert, 1), (Insert, 2), (Insert, 3)], &changes]).unwrap(), [9, 1, 3]);
    }

    #[test]
    fn a_retraction_of_nothing_is_an_error() {
        let error = fold(&[&[(Insert, 1), (Delete, 2)]]).unwrap_err().to_string();
        assert!(error.contains("-D of a row that is not there: 2"), "{error}");
    }

    #[test]
    fn dead_rows_are_let_go() {
        let mut folded = Folded::new(batch(&[]).schema());
        for round in 0..3 * DEAD_ROWS_MIN as i64 {
            folded.apply(&batch(&[(Insert, round), (Delete, round)])).unwrap();
        }
        folded.apply(&batch(&[(Insert, 7)])).unwrap();
        assert!(folded.batches.len() < 2 * DEAD_ROWS_MIN && folded.len() == 1);
    }
}
