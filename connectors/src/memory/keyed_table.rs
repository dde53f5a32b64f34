//! A table in the memory of this process that a job keeps up to date by key.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use arrow::row::{OwnedRow, RowConverter, SortField};
use async_trait::async_trait;
use tidemill_core::batch::Batch;
use tidemill_core::error::{Error, Result, find_name};
use tidemill_core::sink::{ChangelogMode, Committer, Delivery, NothingToCommit, Sink, SinkContext, SinkWriter};

/// The newest row of each key, for a program that runs a job and reads what has become of it. Cloning shares the table.
///
/// Rows show when they are written, and a job that goes on from a checkpoint writes some again: as they replace what they had put
/// there, the table is in the end what it would be without the failure ([`Delivery::Idempotent`]). It lives as long as this
/// process: a job that goes on in another one finds it empty, and adds what changes from then on.
#[derive(Clone)]
pub struct KeyedTable(Arc<Shared>);

struct Shared {
    schema: SchemaRef,
    key_columns: Vec<usize>,
    keys: RowConverter,
    values: RowConverter,
    rows_max: usize,
    rows: Mutex<BTreeMap<OwnedRow, OwnedRow>>,
}

impl KeyedTable {
    /// An empty table of rows with these columns, told apart by those of `key`, with room for `rows_max` rows. A job that has more
    /// keys fails.
    pub fn new(schema: SchemaRef, key: &[&str], rows_max: usize) -> Result<Self> {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let place = |name: &&str| {
            find_name(name, &names).map_err(|reason| Error::request(format!("no key column '{name}': {reason}")))
        };
        let key_columns = key.iter().map(place).collect::<Result<Vec<usize>>>()?;
        if key_columns.is_empty() {
            return Err(Error::request("a keyed table without key columns").with_hint("name at least one"));
        }
        let converter = |columns: &mut dyn Iterator<Item = usize>| {
            RowConverter::new(columns.map(|column| SortField::new(schema.field(column).data_type().clone())).collect())
        };
        let keys = converter(&mut key_columns.iter().copied())?;
        let values = converter(&mut (0..names.len()))?;
        Ok(Self(Arc::new(Shared { keys, values, key_columns, rows_max, rows: Mutex::default(), schema })))
    }

    /// All rows, in the order of their keys.
    pub fn rows(&self) -> Result<RecordBatch> {
        let rows = self.locked();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let columns = self.0.values.convert_rows(rows.values().map(OwnedRow::row))?;
        drop(rows);
        Ok(RecordBatch::try_new_with_options(self.0.schema.clone(), columns, &options)?)
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.locked().len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<OwnedRow, OwnedRow>> {
        self.0.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies changes in their order. A reader sees all of them or none.
    fn apply(&self, batch: &Batch) -> Result<()> {
        let Shared { key_columns, keys, values, rows_max, .. } = &*self.0;
        let columns = batch.records().columns();
        let own: Vec<ArrayRef> = key_columns.iter().map(|column| columns[*column].clone()).collect();
        let (keys, values) = (keys.convert_columns(&own)?, values.convert_columns(columns)?);
        let mut rows = self.locked();
        for row in 0..batch.num_rows() {
            match batch.kind(row)?.is_addition() {
                true => drop(rows.insert(keys.row(row).owned(), values.row(row).owned())),
                false => drop(rows.remove(&keys.row(row).owned())),
            }
        }
        match rows.len() > *rows_max {
            true => {
                Err(Error::exhausted(format!("a keyed table has room for {rows_max} rows, and {} came", rows.len()))
                    .with_hint("give it more room, or write what has more keys to a database"))
            }
            false => Ok(()),
        }
    }
}

impl fmt::Debug for KeyedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyedTable({} rows)", self.len())
    }
}

impl Sink for KeyedTable {
    fn changelog_mode(&self) -> ChangelogMode {
        ChangelogMode::Upsert
    }

    fn delivery(&self) -> Delivery {
        Delivery::Idempotent
    }

    fn key_columns(&self) -> &[usize] {
        &self.0.key_columns
    }

    fn prepare(&self) -> Result<Arc<dyn Committer>> {
        Ok(Arc::new(NothingToCommit))
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        let (own, others) = (self.0.schema.fields(), context.schema.fields());
        let same = own.len() == others.len()
            && own.iter().zip(others).all(|(own, other)| own.data_type() == other.data_type());
        match same {
            true => Ok(Box::new(TableWriter(self.clone()))),
            false => {
                Err(Error::request(format!("rows of ({}) for a keyed table of ({})", columns(others), columns(own))))
            }
        }
    }

    fn describe(&self) -> String {
        let key: Vec<&str> = self.0.key_columns.iter().map(|key| self.0.schema.field(*key).name().as_str()).collect();
        format!("table(by {})", key.join(", "))
    }
}

fn columns(fields: &arrow::datatypes::Fields) -> String {
    fields.iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect::<Vec<_>>().join(", ")
}

struct TableWriter(KeyedTable);

#[async_trait]
impl SinkWriter for TableWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        self.0.apply(&batch)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use futures::executor::block_on;
    use proptest::prelude::*;
    use tidemill_core::RowKind;

    use super::*;
    use crate::conformance::recovery::Step;
    use crate::conformance::upserts::check_upserts;
    use crate::conformance::{rows_as_text, sink_context};

    fn schema() -> SchemaRef {
        let field = |name, data_type| Field::new(name, data_type, false);
        Arc::new(Schema::new(vec![field("key", DataType::Utf8), field("value", DataType::Int64)]))
    }

    /// The changes with these numbers: every fourth takes a key away.
    fn changes(numbers: Range<u64>) -> Batch {
        let keys = StringArray::from_iter_values(numbers.clone().map(|number| format!("k{}", number * 7 % 5)));
        let values = Int64Array::from_iter_values(numbers.clone().map(|number| number as i64));
        let kind = |number| if number % 4 == 3 { RowKind::Delete } else { RowKind::UpdateAfter };
        let kinds: Vec<u8> = numbers.map(|number| kind(number) as u8).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(values)];
        Batch::changelog(RecordBatch::try_new(schema(), columns).unwrap(), kinds.into()).unwrap()
    }

    fn table(rows_max: usize) -> KeyedTable {
        KeyedTable::new(schema(), &["key"], rows_max).unwrap()
    }

    proptest! {
        #[test]
        fn rows_that_come_again_change_nothing_in_the_end(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let table = table(100);
            let open = || Ok(Arc::new(table.clone()) as Arc<dyn Sink>);
            let visible = async || table.rows().unwrap();
            block_on(check_upserts(&open, &changes, &Step::of_bytes(&bytes), 3, visible)).unwrap();
        }
    }

    /// Says that it writes by key, and keeps every row.
    #[derive(Debug)]
    struct Appending(KeyedTable);

    impl Sink for Appending {
        fn changelog_mode(&self) -> ChangelogMode {
            ChangelogMode::Upsert
        }

        fn delivery(&self) -> Delivery {
            Delivery::Idempotent
        }

        fn key_columns(&self) -> &[usize] {
            &[0]
        }

        fn prepare(&self) -> Result<Arc<dyn Committer>> {
            self.0.prepare()
        }

        fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
            self.0.writer(context)
        }

        fn describe(&self) -> String {
            self.0.describe()
        }
    }

    #[test]
    #[should_panic(expected = "a key has one row")]
    fn who_keeps_every_row_does_not_write_by_key() {
        let table = KeyedTable::new(schema(), &["key", "value"], 100).unwrap();
        let open = || Ok(Arc::new(Appending(table.clone())) as Arc<dyn Sink>);
        let visible = async || table.rows().unwrap();
        let history = [Step::Write { subtask: 0, rows: 20 }];
        block_on(check_upserts(&open, &changes, &history, 1, visible)).unwrap();
    }

    #[test]
    fn the_newest_row_of_each_key_is_there_in_the_order_of_keys() {
        let table = table(100);
        let mut writer = table.writer(&sink_context(0, 1, schema())).unwrap();
        block_on(writer.write(changes(0..8))).unwrap();
        // 3 takes k1 away, and 7 k4; 5 and 6 are put in place of 0 and 1.
        assert_eq!(rows_as_text(&table.rows().unwrap()).unwrap(), ["\"k0\"|5", "\"k2\"|6", "\"k3\"|4"]);
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn a_table_is_bounded_and_knows_its_columns() {
        let mut writer = table(2).writer(&sink_context(0, 1, schema())).unwrap();
        let error = block_on(writer.write(changes(0..3))).unwrap_err();
        assert!(error.to_string().contains("has room for 2 rows, and 3 came"), "{error}");
        let other = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let error = table(2).writer(&sink_context(0, 1, other)).err().unwrap();
        assert!(
            error.to_string().contains("rows of (n Int64) for a keyed table of (key Utf8, value Int64)"),
            "{error}"
        );
        let error = KeyedTable::new(schema(), &["kee"], 1).unwrap_err();
        assert!(error.to_string().contains("no key column 'kee'"), "{error}");
        assert!(KeyedTable::new(schema(), &[], 1).is_err());
    }
}
