//! The unit that flows: an Arrow record batch, with row kinds if it is a changelog and key hashes if someone computed them.
//!
//! A batch without kinds is append-only: every row is an insert. That is the fast path and stays it: nothing allocates a
//! column of `+I`.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, GenericByteViewArray, RecordBatch, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute;
use arrow::datatypes::{ByteViewType, DataType, SchemaRef};

use crate::error::{Error, Result};

/// What a changelog row does to the table it describes. The numbers are stored in checkpoints and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum RowKind {
    /// `+I`: a new row.
    Insert = 0,
    /// `-U`: the old content of a row whose new content follows.
    UpdateBefore = 1,
    /// `+U`: the new content of an updated row.
    UpdateAfter = 2,
    /// `-D`: the row is gone.
    Delete = 3,
}

impl RowKind {
    /// The kind with this stored number.
    pub fn from_u8(number: u8) -> Result<Self> {
        match number {
            0 => Ok(Self::Insert),
            1 => Ok(Self::UpdateBefore),
            2 => Ok(Self::UpdateAfter),
            3 => Ok(Self::Delete),
            other => Err(Error::corrupt(format!("row kind {other}")).with_hint("known: 0 to 3")),
        }
    }

    /// `true` for `+I` and `+U`: the row adds to the table; `false`: it takes away.
    pub fn is_addition(self) -> bool {
        matches!(self, Self::Insert | Self::UpdateAfter)
    }

    /// The two characters that a changelog shows.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Insert => "+I",
            Self::UpdateBefore => "-U",
            Self::UpdateAfter => "+U",
            Self::Delete => "-D",
        }
    }
}

impl fmt::Display for RowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.symbol())
    }
}

/// A record batch on its way between operators.
///
/// Laws: kinds and hashes, where present, have one entry a row. `-U` and `+U` of one update are adjacent and in this order.
#[derive(Clone, Debug)]
pub struct Batch {
    records: RecordBatch,
    kinds: Option<ScalarBuffer<u8>>,
    hashes: Option<ScalarBuffer<u64>>,
}

impl Batch {
    /// A batch of inserts.
    pub fn append(records: RecordBatch) -> Self {
        Self { records, kinds: None, hashes: None }
    }

    /// A batch of changes. All-insert kinds are dropped, so that downstream stays on the fast path.
    pub fn changelog(records: RecordBatch, kinds: ScalarBuffer<u8>) -> Result<Self> {
        if kinds.len() != records.num_rows() {
            return Err(Error::internal(format!("{} row kinds for {} rows", kinds.len(), records.num_rows())));
        }
        let kinds = kinds.iter().any(|kind| *kind != RowKind::Insert as u8).then_some(kinds);
        Ok(Self { records, kinds, hashes: None })
    }

    /// The same rows with the key hashes that a partitioner computed, for the keyed operator behind it.
    pub fn with_hashes(mut self, hashes: ScalarBuffer<u64>) -> Result<Self> {
        if hashes.len() != self.num_rows() {
            return Err(Error::internal(format!("{} hashes for {} rows", hashes.len(), self.num_rows())));
        }
        self.hashes = Some(hashes);
        Ok(self)
    }

    /// The same rows without hashes: their key is not the next operator's key.
    #[must_use]
    pub fn without_hashes(mut self) -> Self {
        self.hashes = None;
        self
    }

    /// The columns.
    pub fn records(&self) -> &RecordBatch {
        &self.records
    }

    /// The columns, taken out; kinds and hashes are dropped.
    pub fn into_records(self) -> RecordBatch {
        self.records
    }

    /// Columns, kinds and hashes.
    pub fn into_parts(self) -> (RecordBatch, Option<ScalarBuffer<u8>>, Option<ScalarBuffer<u64>>) {
        (self.records, self.kinds, self.hashes)
    }

    /// One kind a row, or `None` when all rows are inserts.
    pub fn kinds(&self) -> Option<&ScalarBuffer<u8>> {
        self.kinds.as_ref()
    }

    /// One key hash a row, if an exchange computed them for this batch's consumer.
    pub fn hashes(&self) -> Option<&ScalarBuffer<u64>> {
        self.hashes.as_ref()
    }

    /// The kind of one row.
    pub fn kind(&self, row: usize) -> Result<RowKind> {
        self.kinds.as_ref().map_or(Ok(RowKind::Insert), |kinds| RowKind::from_u8(kinds[row]))
    }

    /// How many rows.
    pub fn num_rows(&self) -> usize {
        self.records.num_rows()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.num_rows() == 0
    }

    /// The schema of the columns.
    pub fn schema(&self) -> SchemaRef {
        self.records.schema()
    }

    /// Bytes that these rows occupy. A slice counts its own rows only, not the whole buffers that it keeps alive.
    pub fn size_bytes(&self) -> usize {
        let columns: usize = self.records.columns().iter().map(slice_bytes).sum();
        columns
            + self.kinds.as_ref().map_or(0, |kinds| kinds.len())
            + self.hashes.as_ref().map_or(0, |hashes| hashes.len() * size_of::<u64>())
    }

    /// The same rows without the text and bytes of other rows that their columns keep alive, where that is more than their own.
    ///
    /// A column of views shares its buffers with every batch that it was ever part of: what is kept, sent on or written must
    /// not drag all of that along.
    #[must_use]
    pub fn compact(self) -> Self {
        let columns: Vec<Option<ArrayRef>> = self.records.columns().iter().map(compacted).collect();
        if columns.iter().all(Option::is_none) {
            return self;
        }
        let old = self.records.columns().iter().cloned();
        let columns = columns.into_iter().zip(old).map(|(new, old)| new.unwrap_or(old)).collect();
        // Types and lengths are what they were, so this cannot fail; if it did, the old columns would serve as well.
        let records = RecordBatch::try_new(self.records.schema(), columns).unwrap_or(self.records);
        Self { records, ..self }
    }

    /// Rows `offset .. offset + length`, without copying.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        Self {
            records: self.records.slice(offset, length),
            kinds: self.kinds.as_ref().map(|kinds| kinds.slice(offset, length)),
            hashes: self.hashes.as_ref().map(|hashes| hashes.slice(offset, length)),
        }
    }

    /// The same kinds and hashes over other columns with as many rows (a projection).
    pub fn with_records(self, records: RecordBatch) -> Result<Self> {
        if records.num_rows() != self.num_rows() {
            return Err(Error::internal(format!("{} rows became {}", self.num_rows(), records.num_rows())));
        }
        Ok(Self { records, ..self })
    }

    /// The rows at `indices`, in that order; kinds and hashes follow.
    pub fn take(&self, indices: &UInt32Array) -> Result<Self> {
        let columns: Result<Vec<ArrayRef>, _> =
            self.records.columns().iter().map(|column| compute::take(column, indices, None)).collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(indices.len()));
        Ok(Self {
            records: RecordBatch::try_new_with_options(self.schema(), columns?, &options)?,
            kinds: self.kinds.as_ref().map(|kinds| gather(kinds, indices)),
            hashes: self.hashes.as_ref().map(|hashes| gather(hashes, indices)),
        })
    }

    /// The rows where `mask` is true; kinds and hashes follow. NULL counts as false.
    pub fn filter(&self, mask: &BooleanArray) -> Result<Self> {
        if mask.true_count() == self.num_rows() {
            return Ok(self.clone());
        }
        let records = compute::filter_record_batch(&self.records, mask)?;
        let selected = || mask.iter().enumerate().filter(|(_, keep)| *keep == Some(true)).map(|(row, _)| row);
        Ok(Self {
            records,
            kinds: self.kinds.as_ref().map(|kinds| selected().map(|row| kinds[row]).collect()),
            hashes: self.hashes.as_ref().map(|hashes| selected().map(|row| hashes[row]).collect()),
        })
    }

    /// All rows of `batches`, in order. Hashes survive if every batch has them.
    pub fn concat(schema: &SchemaRef, batches: &[Batch]) -> Result<Self> {
        if let [only] = batches {
            return Ok(only.clone());
        }
        let records = compute::concat_batches(schema, batches.iter().map(Batch::records))?;
        let kinds = batches.iter().any(|batch| batch.kinds.is_some()).then(|| {
            let mut kinds = Vec::with_capacity(records.num_rows());
            for batch in batches {
                match &batch.kinds {
                    Some(own) => kinds.extend_from_slice(own),
                    None => kinds.resize(kinds.len() + batch.num_rows(), RowKind::Insert as u8),
                }
            }
            ScalarBuffer::from(kinds)
        });
        let hashes = batches.iter().map(|batch| batch.hashes.as_deref()).collect::<Option<Vec<_>>>();
        let hashes = hashes.map(|parts| ScalarBuffer::from(parts.concat()));
        Ok(Self { records, kinds, hashes })
    }
}

fn gather<T: arrow::datatypes::ArrowNativeType>(values: &ScalarBuffer<T>, indices: &UInt32Array) -> ScalarBuffer<T> {
    indices.values().iter().map(|index| values[*index as usize]).collect()
}

fn slice_bytes(array: &ArrayRef) -> usize {
    let nulls = array.nulls().map_or(0, |_| array.len().div_ceil(8));
    let data_type = array.data_type();
    if let Some(width) = data_type.primitive_width() {
        return array.len() * width + nulls;
    }
    match data_type {
        DataType::Utf8View => view_bytes(array.as_string_view()) + nulls,
        DataType::BinaryView => view_bytes(array.as_binary_view()) + nulls,
        DataType::Struct(_) => array.as_struct().columns().iter().map(slice_bytes).sum::<usize>() + nulls,
        // The only error is an overflow of usize, which no array in memory can reach.
        _ => array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()),
    }
}

fn view_bytes<T: ByteViewType>(array: &GenericByteViewArray<T>) -> usize {
    std::mem::size_of_val(&array.views()[..]) + array.total_buffer_bytes_used()
}

/// The array without bytes that other rows left in its buffers, if these are worth a copy.
fn compacted(array: &ArrayRef) -> Option<ArrayRef> {
    match array.data_type() {
        DataType::Utf8View => sparse(array.as_string_view()).map(|own| Arc::new(own) as _),
        DataType::BinaryView => sparse(array.as_binary_view()).map(|own| Arc::new(own) as _),
        _ => None,
    }
}

fn sparse<T: ByteViewType>(array: &GenericByteViewArray<T>) -> Option<GenericByteViewArray<T>> {
    let held: usize = array.data_buffers().iter().map(|buffer| buffer.len()).sum();
    (held > 0 && held > 2 * array.total_buffer_bytes_used()).then(|| array.gc())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringViewArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn batch(values: Vec<i64>, kinds: &[u8]) -> Batch {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]));
        let records = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(values))]).unwrap();
        Batch::changelog(records, kinds.to_vec().into()).unwrap()
    }

    #[test]
    fn kinds_follow_their_rows() {
        let changes = batch(vec![1, 2, 3], &[0, 1, 2]);
        let taken = changes.take(&UInt32Array::from(vec![2, 0])).unwrap();
        assert_eq!(taken.kinds().unwrap().as_ref(), [2, 0]);
        let filtered = changes.filter(&BooleanArray::from(vec![false, true, true])).unwrap();
        assert_eq!(filtered.kinds().unwrap().as_ref(), [1, 2]);
        assert_eq!(changes.slice(1, 2).kinds().unwrap().as_ref(), [1, 2]);
    }

    #[test]
    fn inserts_alone_need_no_kinds() {
        assert!(batch(vec![1, 2], &[0, 0]).kinds().is_none());
        let schema = batch(vec![], &[]).schema();
        let both = Batch::concat(&schema, &[batch(vec![1], &[0]), batch(vec![2], &[3])]).unwrap();
        assert_eq!(both.kinds().unwrap().as_ref(), [0, 3]);
    }

    #[test]
    fn a_slice_counts_its_own_rows() {
        let whole = batch((0..1000).collect(), &[0; 1000]);
        assert_eq!(whole.size_bytes(), 8000);
        assert_eq!(whole.slice(0, 10).size_bytes(), 80);
    }

    #[test]
    fn a_few_texts_let_go_of_the_others() {
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..100).map(|row| format!("{row:030}"))));
        let batch = Batch::append(RecordBatch::try_from_iter([("t", texts)]).unwrap());
        assert_eq!(batch.size_bytes(), 100 * (16 + 30));
        let held = |batch: &Batch| {
            batch.records().column(0).as_string_view().data_buffers().iter().map(|b| b.len()).sum::<usize>()
        };
        let (few, most) = (batch.slice(7, 3), batch.slice(0, 60));
        assert_eq!((held(&few), held(&few.clone().compact()), held(&most.compact())), (3000, 90, 3000));
        assert_eq!(few.records(), few.clone().compact().records());
    }

    #[test]
    fn a_kind_from_outside_is_checked() {
        assert!(RowKind::from_u8(4).is_err());
        let schema = Arc::new(Schema::empty());
        let none = RecordBatch::new_empty(schema);
        assert!(Batch::changelog(none, vec![0u8].into()).is_err());
    }
}
