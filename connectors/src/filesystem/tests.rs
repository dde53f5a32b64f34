//! Files in every format go there and back; a job shows all of its rows or none; bad files are named.

mod partitions;
mod recovery;
mod replace;

use std::path::Path;

use arrow::array::{ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, RecordBatch};
use arrow::array::{Date32Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use tidemill_core::ErrorKind;
use tidemill_core::batch::Batch;
use tidemill_core::sink::{Committer, Predecessor};
use tidemill_core::source::SourceContext;

use super::*;
use crate::conformance::{check_sink, check_source, read_all, rows_as_text, sink_context, source_context};
use crate::registry::Disposition;
use crate::store::Stores;
use futures::executor::block_on;

fn numbers(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(values.into_iter().map(Some).collect::<Int64Array>());
    RecordBatch::try_from_iter_with_nullable([("n", column, true)]).unwrap()
}

fn every_type() -> RecordBatch {
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("n", Arc::new(Int64Array::from(vec![Some(1), None, Some(i64::MIN)])), true),
        ("s", Arc::new(StringArray::from(vec![Some("a,\"b\"\nc"), Some(""), None])), true),
        ("f", Arc::new(Float64Array::from(vec![Some(0.1), Some(f64::NAN), Some(f64::INFINITY)])), true),
        ("b", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])), true),
        (
            "d",
            Arc::new(Decimal128Array::from(vec![Some(-105), None, Some(1)]).with_precision_and_scale(10, 2).unwrap()),
            true,
        ),
        ("x", Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\x00\xFF"), None, Some(b"")])), true),
        ("t", Arc::new(TimestampMillisecondArray::from(vec![Some(-1), None, Some(1_500)])), true),
        ("z", Arc::new(TimestampMillisecondArray::from(vec![Some(0), None, Some(1)]).with_timezone("UTC")), true),
        ("y", Arc::new(Date32Array::from(vec![Some(20_778), None, Some(-1)])), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// The options of a table; `key=value` pairs behind the path.
fn options(path: &Path, more: &[(&str, &str)]) -> Options {
    let fixed = [("connector", "filesystem"), ("path", path.to_str().unwrap())];
    Options::new(fixed.into_iter().chain(more.iter().copied()))
}

fn open(path: &Path, schema: &SchemaRef, more: &[(&str, &str)]) -> Result<Arc<dyn Source>> {
    crate::registry::source(options(path, more), schema.clone(), &TableContext::new("test"))
}

fn read(source: &dyn Source, context: &SourceContext) -> Result<Vec<String>> {
    Ok(block_on(read_all(source, context))?.sorted_rows())
}

fn rows_in(path: &Path, schema: &SchemaRef, more: &[(&str, &str)]) -> Result<Vec<String>> {
    read(&*open(path, schema, more)?, &source_context(1, 1_000))
}

/// What a reader sees; nothing where there is no table.
async fn visible_rows(path: &Path, schema: &SchemaRef, more: &[(&str, &str)]) -> Vec<String> {
    let source = open(path, schema, more).unwrap();
    let delivered = read_all(&*source, &source_context(1, 1_000)).await;
    delivered.map(|delivered| delivered.sorted_rows()).unwrap_or_default()
}

fn table(path: &Path, schema: &SchemaRef, job: &str, disposition: Disposition, more: &[(&str, &str)]) -> Arc<dyn Sink> {
    let context = TableContext { disposition, ..TableContext::new(job) };
    crate::registry::sink(options(path, more), schema.clone(), &context).unwrap()
}

/// Runs a job of `parallelism` writers to its end, or up to the commit.
fn run(sink: &dyn Sink, parallelism: usize, batches: &[RecordBatch]) -> Result<Arc<dyn Committer>> {
    let committer = sink.prepare()?;
    block_on(async {
        committer.recover(Vec::new(), &[], Predecessor::Nobody).await?;
        for subtask in 0..parallelism {
            let mut writer = sink.writer(&sink_context(subtask, parallelism, batches[0].schema()))?;
            for batch in batches.iter().skip(subtask).step_by(parallelism) {
                writer.write(Batch::append(batch.clone())).await?;
            }
            committer.commit(writer.prepare_commit(None).await?).await?;
        }
        Ok(committer)
    })
}

fn run_to_end(sink: &dyn Sink, parallelism: usize, batches: &[RecordBatch]) -> Result<()> {
    let committer = run(sink, parallelism, batches)?;
    block_on(committer.finish())
}

fn write_table(path: &Path, batch: &RecordBatch, more: &[(&str, &str)]) {
    let sink = table(path, &batch.schema(), "job", Disposition::Append, more);
    run_to_end(&*sink, 1, std::slice::from_ref(batch)).unwrap();
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// SUB-14 on a local disk.
fn write_file(path: &Path, format: &str, mode: WriteMode, parallelism: usize, batches: &[RecordBatch]) -> Result<()> {
    run_to_end(&file_sink(path, format, mode, parallelism, batches)?, parallelism, batches)
}

fn file_sink(
    path: &Path,
    format: &str,
    mode: WriteMode,
    parallelism: usize,
    batches: &[RecordBatch],
) -> Result<FileSink> {
    let location = Stores::local().resolve(path.to_str().unwrap())?;
    let format = Format::from_options(format, &mut options(path, &[]))?;
    FileSink::write_as(path.to_str().unwrap(), location, format, batches[0].schema(), "job", mode, parallelism)
}

const FORMATS: [&[(&str, &str)]; 9] = [
    &[("format", "csv")],
    &[("format", "csv"), ("csv.compression", "gzip"), ("csv.header", "true")],
    &[("format", "json")],
    &[("format", "json"), ("json.compression", "zstd")],
    &[("format", "parquet")],
    &[("format", "parquet"), ("parquet.compression", "zstd")],
    &[("format", "arrow")],
    &[("format", "arrow"), ("arrow.compression", "lz4")],
    &[("format", "csv"), ("csv.field-delimiter", "|"), ("csv.null-literal", "NA"), ("csv.compression", "xz")],
];

#[test]
fn every_format_goes_there_and_back() {
    let batch = every_type();
    for format in FORMATS {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("table");
        run_to_end(
            &*table(&path, &batch.schema(), "job", Disposition::Append, format),
            2,
            &[batch.clone(), batch.slice(1, 1)],
        )
        .unwrap();
        let mut expected = rows_as_text(&batch).unwrap();
        expected.push(expected[1].clone());
        expected.sort_unstable();
        assert_eq!(rows_in(&path, &batch.schema(), format).unwrap(), expected, "{format:?}");
        block_on(check_source(&*open(&path, &batch.schema(), format).unwrap())).unwrap();
    }
}

#[test]
fn sinks_keep_their_laws_in_every_format_and_disposition() {
    let batches = [numbers(0..5), numbers(5..9)];
    let schema = batches[0].schema();
    for format in FORMATS {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("table");
        let visible = async || visible_rows(&path, &schema, format).await;
        let traces = || names(directory.path()).len() + names(&path).len();
        let sink = || Ok(table(&path, &schema, "job", Disposition::Append, format));
        block_on(check_sink(sink, &batches, visible, traces)).unwrap();

        let path = directory.path().join("f");
        let traces = || names(directory.path()).len() + names(&path).len();
        let visible = async || visible_rows(&path, &schema, format).await;
        let sink = || Ok(table(&path, &schema, "job", Disposition::Replace, format));
        block_on(check_sink(sink, &batches, visible, traces)).unwrap();
    }
}

#[test]
fn a_large_text_file_is_read_by_several() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("n.csv");
    let lines: String = (0..5_000).map(|n| format!("{n},row {n}\r\n")).collect();
    std::fs::write(&path, lines.trim_end()).unwrap();
    let fields = vec![Field::new("n", DataType::Int64, true), Field::new("s", DataType::Utf8, true)];
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let location = Stores::local().resolve(path.to_str().unwrap()).unwrap();
    let csv = crate::formats::CsvOptions { quote: None, ..Default::default() };
    let format = Format::Csv(csv, Default::default());
    let source = FileSource::new("n.csv", location, format, schema).unwrap().with_piece_bytes_min(700);
    block_on(check_source(&source)).unwrap();
    let delivered = block_on(read_all(&source, &source_context(3, 100))).unwrap();
    assert!(delivered.splits.len() > 3, "{}", delivered.splits.len());
}

#[test]
fn errors_name_the_file_and_the_line() {
    let directory = tempfile::tempdir().unwrap();
    let schema = numbers([]).schema();
    let error = |name: &str, content: &[u8], more: &[(&str, &str)]| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        let error = rows_in(&path, &schema, more).unwrap_err();
        (error.kind(), error.to_string().replace(directory.path().to_str().unwrap(), ""))
    };
    let long: String = (0..20_000).map(|n| format!("{n}\n")).collect();
    let (kind, message) = error("late.csv", format!("{long}x\n").as_bytes(), &[]);
    assert_eq!(
        (kind, message.as_str()),
        (
            ErrorKind::Data,
            "/late.csv: line 20001, column 1: 'x' is no BIGINT for 'n'; mend it, or skip and count such rows: \
             'csv.ignore-parse-errors' = 'true'"
        )
    );
    let (_, message) = error("late.csv", format!("n\n{long}x").as_bytes(), &[("csv.header", "true")]);
    assert!(message.starts_with("/late.csv: line 20002, column 1: 'x' is no BIGINT for 'n'; "), "{message}");
    let (kind, message) = error("bad.json", b"{\"n\":1}\n{\"n\":\n", &[]);
    assert_eq!(kind, ErrorKind::Data);
    assert!(message.starts_with("/bad.json: line 2: "), "{message}");
    let (_, message) = error("type.json", b"{\"n\":1}\n\n{\"n\":\"x\"}\n", &[]);
    assert!(message.starts_with("/type.json: line 3: ") && message.contains("\"x\""), "{message}");
    let (kind, message) = error("bad.csv.gz", b"no gzip at all", &[]);
    assert_eq!(kind, ErrorKind::Corrupt);
    assert!(message.starts_with("/bad.csv.gz: cannot be decompressed"), "{message}");
    let (kind, message) = error("bad.parquet", b"PAR1....PAR", &[]);
    assert_eq!(kind, ErrorKind::Corrupt);
    assert!(message.starts_with("/bad.parquet: no readable parquet file"), "{message}");
    let (kind, message) = error("bad.arrow", b"ARROW1\0\0....ARROW", &[]);
    assert_eq!(kind, ErrorKind::Corrupt);
    assert!(message.starts_with("/bad.arrow: no readable arrow file"), "{message}");
    let error = rows_in(Path::new("/no/such/flights.csv"), &schema, &[]).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::Unavailable, "/no/such/flights.csv does not exist; neither does the folder /no/such")
    );
}

#[test]
fn truncated_files_are_corrupt() {
    let batch = every_type();
    for (name, more) in [("t.parquet", "parquet"), ("t.arrow", "arrow"), ("t.csv.zst", "csv"), ("t.csv.xz", "csv")] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        write_file(&path, more, WriteMode::NoOverwrite, 1, std::slice::from_ref(&batch)).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 7]).unwrap();
        let error = rows_in(&path, &batch.schema(), &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn text_forgives_what_it_can() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bom.csv");
    std::fs::write(&path, b"\xEF\xBB\xBFn\n1\n\n2").unwrap();
    let schema = numbers([]).schema();
    assert_eq!(rows_in(&path, &schema, &[("csv.header", "true")]).unwrap(), ["1", "2", "null"]);
    let path = directory.path().join("bad.json");
    std::fs::write(&path, b"{\"n\":1}\nnot json\n{\"n\":2,\"more\":[1]}\n{}").unwrap();
    let context = source_context(1, 1_000);
    let source = open(&path, &schema, &[("json.ignore-parse-errors", "true")]).unwrap();
    assert_eq!(read(&*source, &context).unwrap(), ["1", "2", "null"]);
    assert_eq!(context.metrics.values()[tidemill_core::metrics::RECORDS_SKIPPED], 1);
}

#[test]
fn an_inferred_type_that_clashes_later_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("late.csv");
    let lines: String = (0..30_000).map(|n| format!("{n}\n")).collect();
    std::fs::write(&path, format!("n\n{lines}x\n")).unwrap();
    let inferred = block_on(crate::infer_schema(&Stores::local(), path.to_str().unwrap(), None)).unwrap();
    let source = crate::source(Options::new(inferred.options), inferred.schema, &TableContext::new("test")).unwrap();
    let error = read(&*source, &source_context(1, 1_000)).unwrap_err().to_string();
    assert!(error.contains("line 30002, column 1: 'x' is no BIGINT for 'n'; the types were inferred"), "{error}");
}

#[test]
fn new_files_are_found_once() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.csv"), "1\n").unwrap();
    let source =
        open(directory.path(), &numbers([]).schema(), &[("format", "csv"), ("source.monitor-interval", "1 s")])
            .unwrap();
    assert_eq!(source.boundedness(), tidemill_core::source::Boundedness::Unbounded);
    let context = source_context(1, 10);
    let mut enumerator = source.enumerator(&context).unwrap();
    let mut found = Vec::new();
    for round in 0..6 {
        match block_on(enumerator.next_split(0)).unwrap() {
            tidemill_core::source::SplitAssignment::Split(split) => found.push(split.id.to_string()),
            tidemill_core::source::SplitAssignment::Later(pause) => block_on(context.clock.sleep(pause)),
            tidemill_core::source::SplitAssignment::Finished => panic!("never"),
        }
        if round == 2 {
            std::fs::write(directory.path().join("b.csv"), "2\n").unwrap();
        }
    }
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_job_without_rows_leaves_an_empty_table() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t");
    let schema = numbers([]).schema();
    let csv = [("format", "csv")];
    run_to_end(&*table(&path, &schema, "one", Disposition::Append, &csv), 2, &[numbers([])]).unwrap();
    assert!(rows_in(&path, &schema, &csv).unwrap().is_empty());
    write_file(&directory.path().join("f.parquet"), "parquet", WriteMode::NoOverwrite, 1, &[numbers([])]).unwrap();
    assert!(rows_in(&directory.path().join("f.parquet"), &schema, &[]).unwrap().is_empty());
}

#[test]
fn options_are_checked() {
    let schema = numbers([]).schema();
    let error = |more: &[(&str, &str)]| open(Path::new("/tmp/t"), &schema, more).unwrap_err().to_string();
    assert_eq!(error(&[]), "the format of '/tmp/t' is not known; say it with option 'format'");
    assert_eq!(error(&[("format", "jsn")]), "unknown format 'jsn'; did you mean 'json'?");
    for never in ["0 ms", "0", "soon"] {
        assert_eq!(
            error(&[("format", "json"), ("source.monitor-interval", never)]),
            format!(
                "option 'source.monitor-interval' is '{never}'; expected a duration of at least 1 ms, such as 100 ms or 3 s"
            )
        );
    }
    let message = error(&[("format", "json"), ("csv.header", "true")]);
    assert!(message.starts_with("unknown option 'csv.header' of connector 'filesystem'; known: "), "{message}");
    assert_eq!(
        error(&[("format", "raw")]),
        "format 'raw' has one STRING column, the table 1; use format 'csv' or 'json' for rows with several columns or other types"
    );
}

/// The same table on a store that is no file system: nothing is synced, a rename is a copy, a directory is a prefix.
#[test]
fn any_object_store_will_do() {
    let store = Arc::new(object_store::memory::InMemory::new());
    let stores = Stores::local().with("mem://lake", store.clone());
    let batches = [numbers(0..5), numbers(5..9)];
    let schema = batches[0].schema();
    let count = || block_on(futures::StreamExt::count(object_store::ObjectStore::list(&*store, None)));
    for disposition in [Disposition::Append, Disposition::Replace] {
        let path = format!("mem://lake/{disposition:?}");
        let context = TableContext { stores: stores.clone(), disposition, ..TableContext::new("job") };
        let options = || Options::new([("connector", "filesystem"), ("path", path.as_str()), ("format", "parquet")]);
        let visible = async || {
            let source = crate::registry::source(options(), schema.clone(), &context).unwrap();
            let delivered = read_all(&*source, &source_context(1, 1_000)).await;
            delivered.map(|delivered| delivered.sorted_rows()).unwrap_or_default()
        };
        let sink = || crate::registry::sink(options(), schema.clone(), &context);
        // The count is taken on a thread of its own: the check runs in an executor already.
        let traces = || std::thread::scope(|scope| scope.spawn(count).join().unwrap());
        block_on(check_sink(sink, &batches, visible, traces)).unwrap();
    }
}

/// On a distributed store any existing path refuses, and a parallel overwrite clears the directory (SUB-14).
#[test]
fn raw_lines_go_there_and_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lines.txt");
    std::fs::write(&path, "one\r\n\ntwo é\nlast").unwrap();
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("line", DataType::Utf8View, true)]));
    assert_eq!(rows_in(&path, &schema, &[]).unwrap(), ["\"\"", "\"last\"", "\"one\"", "\"two é\""]);
    block_on(check_source(&*open(&path, &schema, &[]).unwrap())).unwrap();
    std::fs::write(&path, b"one\ntwo \xFF\n").unwrap();
    let error = rows_in(&path, &schema, &[]).unwrap_err().to_string();
    assert!(error.ends_with("lines.txt: line 2: byte 0xff is not UTF-8"), "{error}");
}

#[tokio::test]
async fn a_sink_prepares_inside_a_runtime() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t");
    let schema = numbers([]).schema();
    let sink = table(&path, &schema, "one", Disposition::Replace, &[("format", "csv")]);
    let committer = sink.prepare().unwrap();
    assert!(path.is_dir());
    committer.abort().await.unwrap();
    assert!(!path.exists(), "a directory that the job made goes with it");
}

#[test]
fn values_that_do_not_fit_are_errors_in_files_with_types() {
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("n", Arc::new(Int64Array::from(vec![Some(1), None, Some(300)])), true),
        ("s", Arc::new(StringArray::from(vec![Some("true"), None, Some("x")])), true),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    for format in ["parquet", "arrow"] {
        let more = [("format", format)];
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t");
        write_table(&path, &batch, &more);
        let read_as = |name: &str, data_type: DataType| {
            let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new(name, data_type, true)]));
            rows_in(&path, &schema, &more)
        };
        let check = |name: &str, data_type: DataType, expected: &str| {
            let error = read_as(name, data_type).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data, "{error}");
            let (file, message) = error.message().split_once(": ").unwrap();
            assert!(file.ends_with(format) && file.contains("part-job"), "{file}");
            assert_eq!(message, expected);
            assert!(error.hint().unwrap().starts_with("declare the column as it is in the file: "), "{error}");
        };
        check("n", DataType::Int8, "'300' is no TINYINT for 'n'");
        check("s", DataType::Boolean, "'x' is no BOOLEAN for 's'");
        check("s", DataType::Date32, "'true' is no DATE for 's'");
        check("s", DataType::Float64, "'true' is no DOUBLE for 's'");
        let row = DataType::Struct(vec![Field::new("x", DataType::Int64, true)].into());
        check("n", row, "column 'n' is BIGINT, which does not become ROW");
        let fitting = read_as("N", DataType::Int16).unwrap();
        assert_eq!(fitting.len(), 3, "{fitting:?}");
    }
}

#[test]
fn values_too_great_for_a_float_are_errors_in_files_with_types() {
    use arrow::datatypes::Float64Type;
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("f", Arc::new(Float64Array::from(vec![Some(f64::INFINITY), None, Some(-1e300)])), true),
        ("s", Arc::new(StringArray::from(vec![Some("Infinity"), None, Some("1e39")])), true),
        ("i", Arc::new(Float64Array::from(vec![f64::INFINITY, f64::NAN, 0.5])), true),
        (
            "l",
            Arc::new(arrow::array::ListArray::from_iter_primitive::<Float64Type, _, _>([
                None,
                Some(vec![Some(1.0)]),
                Some(vec![None, Some(1e300)]),
            ])),
            true,
        ),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    for format in ["parquet", "arrow"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t");
        let more = [("format", format)];
        let sink = table(&path, &batch.schema(), "job", Disposition::Append, &more);
        run_to_end(&*sink, 1, std::slice::from_ref(&batch)).unwrap();
        let read_as = |name: &str, data_type: DataType| {
            let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new(name, data_type, true)]));
            rows_in(&path, &schema, &more).map_err(|error| {
                let (file, message) = error.message().split_once(": ").unwrap();
                assert!(error.kind() == ErrorKind::Data && file.ends_with(format), "{error}");
                message.to_owned()
            })
        };
        let list = DataType::List(Arc::new(Field::new("item", DataType::Float32, true)));
        assert_eq!(read_as("f", DataType::Float32).unwrap_err(), "'-1e300' is no FLOAT for 'f'");
        assert_eq!(read_as("s", DataType::Float32).unwrap_err(), "'1e39' is no FLOAT for 's'");
        assert_eq!(read_as("l", list).unwrap_err(), "'1e300' is no ARRAY for 'l'");
        assert_eq!(read_as("s", DataType::Float64).unwrap().len(), 3);
        assert_eq!(read_as("i", DataType::Float32).unwrap().len(), 3, "what is infinite or no number stays so");
    }
}

#[test]
fn a_place_where_no_file_can_be_is_refused() {
    if !Path::new("/proc/self").exists() {
        return;
    }
    let location = Stores::local().resolve("/proc/y.csv").unwrap();
    let csv = Format::Csv(Default::default(), Default::default());
    let schema = numbers([]).schema();
    let sink = FileSink::write_as("/proc/y.csv", location, csv, schema, "job", WriteMode::Overwrite, 1).unwrap();
    let error = sink.prepare().unwrap_err();
    assert_eq!(error.to_string(), "/proc: files cannot be written there; choose another path");
}

#[test]
fn intervals_that_would_not_come_back_are_refused() {
    use arrow::datatypes::IntervalUnit::{MonthDayNano, YearMonth};
    let directory = tempfile::tempdir().unwrap();
    let opened = |format: &str, data_type: DataType| {
        let item = DataType::List(Arc::new(Field::new("item", data_type, true)));
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("i", item, true)]));
        let options = || options(&directory.path().join("t"), &[("format", format)]);
        let source = crate::registry::source(options(), schema.clone(), &TableContext::new("test")).map(drop);
        let sink = crate::registry::sink(options(), schema, &TableContext::new("test")).map(drop);
        assert_eq!(source.is_ok(), sink.is_ok());
        sink.map_err(|error| error.to_string())
    };
    let refused = |format: &str| {
        Err(format!(
            "column 'i' is INTERVAL, for which format '{format}' has no form; declare it STRING, and CAST to and from that"
        ))
    };
    for (format, of_months, of_days) in [
        ("csv", refused("csv"), refused("csv")),
        ("json", refused("json"), refused("json")),
        ("parquet", Ok(()), refused("parquet")),
        ("arrow", Ok(()), Ok(())),
    ] {
        assert_eq!(opened(format, DataType::Interval(YearMonth)), of_months);
        assert_eq!(opened(format, DataType::Interval(MonthDayNano)), of_days);
    }
}

#[test]
fn intervals_come_back_where_they_are_taken() {
    let months: ArrayRef = Arc::new(arrow::array::IntervalYearMonthArray::from(vec![Some(14), None]));
    let batch = RecordBatch::try_from_iter_with_nullable([("i", months, true)]).unwrap();
    for format in ["parquet", "arrow"] {
        let more = [("format", format)];
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t");
        write_table(&path, &batch, &more);
        assert_eq!(rows_in(&path, &batch.schema(), &more).unwrap(), rows_as_text(&batch).unwrap());
    }
}
