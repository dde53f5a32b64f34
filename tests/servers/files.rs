//! Tables of files on real stores, through checkpoints, crashes and other parallelisms: every row is there once in the end, none
//! before its checkpoint, and nothing is left of what was given up.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use tidemill_connectors::conformance::recovery::{Fate, Step, check_history};
use tidemill_connectors::conformance::{check_source, read_all, source_context};
use tidemill_connectors::store::Location;
use tidemill_connectors::{Disposition, Options, TableContext};
use tidemill_core::ErrorKind;
use tidemill_core::source::{Source, SourceEvent, Split, SplitAssignment};

use super::hdfs::Hdfs;
use super::versitygw::Versitygw;
use super::{Server, block_on};

/// A table on a server.
struct Table {
    url: String,
    options: Vec<(&'static str, &'static str)>,
    context: TableContext,
    place: Location,
    /// Text in each row.
    row_bytes: usize,
}

impl Table {
    fn new(server: &impl Server, name: &str, format: &'static str) -> Self {
        let url = format!("{}/{name}", server.url());
        let stores = server.stores();
        let place = stores.resolve(&url).unwrap();
        let context = TableContext { stores, ..TableContext::new("job") };
        Self { url, options: vec![("format", format)], context, place, row_bytes: 20 }
    }

    fn options(&self) -> Options {
        let fixed = [("connector", "filesystem"), ("path", self.url.as_str())];
        Options::new(fixed.into_iter().chain(self.options.iter().copied()))
    }

    fn rows(&self, rows: Range<u64>) -> RecordBatch {
        let text = |n: u64| format!("{}{n}", "x".repeat((n as usize * 7) % 13 + self.row_bytes));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.clone().map(|row| row as i64)));
        let days: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.clone().map(|row| row as i64 / 40)));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(rows.map(text)));
        RecordBatch::try_from_iter_with_nullable([("n", numbers, true), ("s", texts, true), ("p", days, true)]).unwrap()
    }

    async fn visible(&self) -> Vec<String> {
        let source = tidemill_connectors::source(self.options(), self.rows(0..0).schema(), &self.context).unwrap();
        match read_all(&*source, &source_context(2, 1_000)).await {
            Ok(delivered) => delivered.sorted_rows(),
            // In a store there is no table before there is a file.
            Err(error) if error.kind() == ErrorKind::Unavailable => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }

    /// Lives through `history`, which ends well; no hidden file is left.
    async fn run(&self, history: &[Step]) {
        let open = || tidemill_connectors::sink(self.options(), self.rows(0..0).schema(), &self.context);
        check_history(&open, &|rows| self.rows(rows), history, 3, async || self.visible().await).await.unwrap();
        let hidden: Vec<String> = self.names().await.into_iter().filter(|name| name.contains("/.")).collect();
        assert!(hidden.is_empty(), "{hidden:?} after {history:?}");
    }

    async fn names(&self) -> Vec<String> {
        let files = self.place.store.list(Some(&self.place.path));
        files.map_ok(|file| file.location.to_string()).try_collect().await.unwrap()
    }

    async fn put(&self, name: &str, text: &str) {
        let place = self.place.child(name);
        place.store.put(&place.path, text.to_owned().into()).await.unwrap();
    }
}

/// A history that follows from `seed`.
fn history(seed: u64, steps: usize) -> Vec<Step> {
    let mut state = seed;
    let bytes: Vec<u8> = (0..steps * 2)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        })
        .collect();
    Step::of_bytes(&bytes)
}

#[test]
fn rows_come_once_to_s3_whatever_happens() {
    let server = Versitygw::start();
    block_on(async {
        for (seed, format) in (1..).zip(["csv", "json", "csv", "parquet", "json", "csv"]) {
            Table::new(&server, &format!("t{seed}"), format).run(&history(seed, 40)).await;
            assert_eq!(server.parts(), 0, "uploads are left after seed {seed}");
        }
    });
}

/// Rows are long here, so that uploads have parts, which are gone on with by other processes.
#[test]
fn one_upload_to_s3_goes_on_over_checkpoints_and_crashes() {
    let server = Versitygw::start();
    let table = Table { row_bytes: 100_000, ..Table::new(&server, "long", "csv") };
    let write = |subtask, rows| Step::Write { subtask, rows };
    let steps = [
        write(0, 70),
        Step::Checkpoint(Fate::Committed),
        write(0, 70),
        Step::Checkpoint(Fate::Unnoticed),
        write(0, 40),
        Step::Crash,
        write(1, 60),
        Step::Checkpoint(Fate::Lost),
        write(0, 60),
        Step::Checkpoint(Fate::CommittedInVain),
        write(0, 10),
    ];
    block_on(async {
        table.run(&steps).await;
        assert_eq!(server.parts(), 0);
        let sizes = table.place.store.list(Some(&table.place.path)).map_ok(|file| file.size);
        let sizes: Vec<u64> = sizes.try_collect().await.unwrap();
        assert!(sizes.iter().any(|size| *size > 10 << 20), "a file has several parts: {sizes:?}");
    });
}

#[test]
fn partitions_and_replaced_tables_come_whole_to_s3() {
    let server = Versitygw::start();
    block_on(async {
        let mut partitioned = Table::new(&server, "partitioned", "csv");
        partitioned.context.partitioned_by = ["p".to_owned()].into();
        partitioned.run(&history(11, 30)).await;
        let mut replaced = Table::new(&server, "replaced", "csv");
        replaced.context.disposition = Disposition::Replace;
        replaced.run(&history(12, 30)).await;
        assert_eq!(server.parts(), 0);
    });
}

#[test]
fn rows_come_once_to_hdfs_whatever_happens() {
    let server = Hdfs::shared();
    block_on(async {
        for (seed, format) in (21..).zip(["csv", "json", "parquet", "csv"]) {
            Table::new(&server, &format!("tables/t{seed}"), format).run(&history(seed, 40)).await;
        }
        let mut partitioned = Table::new(&server, "tables/partitioned", "csv");
        partitioned.context.partitioned_by = ["p".to_owned()].into();
        partitioned.run(&history(25, 30)).await;
        let mut replaced = Table::new(&server, "tables/replaced", "csv");
        replaced.context.disposition = Disposition::Replace;
        replaced.run(&history(26, 30)).await;
    });
}

async fn read_laws(server: &impl Server) {
    let table =
        Table { options: vec![("format", "csv"), ("source.recursive", "true")], ..Table::new(server, "in", "csv") };
    for (name, rows) in [("a.csv", 0..30), ("b/c.csv", 30..50), ("b/_hidden.csv", 900..910), ("d.csv", 50..51)] {
        let text: String = rows.map(|n| format!("{n},text {n},{}\n", n / 40)).collect();
        table.put(name, &text).await;
    }
    let source = tidemill_connectors::source(table.options(), table.rows(0..0).schema(), &table.context).unwrap();
    check_source(&*source).await.unwrap();
    assert_eq!(table.visible().await.len(), 51);
    let glob = Table { url: format!("{}/*/c.c?v", table.url), ..Table::new(server, "in", "csv") };
    assert_eq!(glob.visible().await.len(), 20);
}

#[test]
fn files_on_s3_and_on_hdfs_are_read_as_those_on_the_disk() {
    let s3 = Versitygw::start();
    let hdfs = Hdfs::shared();
    block_on(async {
        read_laws(&s3).await;
        read_laws(&hdfs).await;
    });
}

async fn first_event(source: &dyn Source, split: &Split) -> tidemill_core::Result<SourceEvent> {
    let mut reader = source.reader(&source_context(1, 10))?;
    reader.add_splits(vec![split.clone()]).await?;
    reader.next().await
}

/// A table that is looked at again and again may begin without a file, and a file that changes is an error.
async fn monitor(server: &impl Server) {
    let options = vec![("format", "csv"), ("source.monitor-interval", "1 s")];
    let table = Table { options, ..Table::new(server, "arriving", "csv") };
    let source = tidemill_connectors::source(table.options(), table.rows(0..0).schema(), &table.context).unwrap();
    let context = source_context(1, 10);
    let mut enumerator = source.enumerator(&context).unwrap();
    let (mut found, mut splits) = (BTreeSet::new(), Vec::new());
    for name in ["one.csv", "two.csv"] {
        assert!(matches!(enumerator.next_split(0).await.unwrap(), SplitAssignment::Later(_)));
        table.put(name, "1,one,0\n").await;
        context.clock.sleep(Duration::from_secs(1)).await;
        match enumerator.next_split(0).await.unwrap() {
            SplitAssignment::Split(split) => {
                // As it was listed, whatever more the store says when it is asked for the file alone.
                let read = first_event(&*source, &split).await;
                assert!(matches!(read, Ok(SourceEvent::Batch { .. })), "{name}: {read:?}");
                assert!(found.insert(split.id.to_string()));
                splits.push(split);
            }
            other => panic!("{name} is not found: {other:?}"),
        }
    }
    table.put("one.csv", "2,another,0\n").await;
    let error = first_event(&*source, &splits[0]).await.unwrap_err();
    assert!(error.to_string().contains("one.csv changed after it was found"), "{error}");
    context.clock.sleep(Duration::from_secs(1)).await;
    let error = enumerator.next_split(0).await.unwrap_err();
    assert!(error.to_string().contains("one.csv changed after it was found"), "{error}");
}

#[test]
fn new_files_on_s3_and_on_hdfs_are_found_as_they_come() {
    let s3 = Versitygw::start();
    let hdfs = Hdfs::shared();
    block_on(async {
        monitor(&s3).await;
        monitor(&hdfs).await;
    });
}
