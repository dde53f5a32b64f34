//! Partitioned tables and monitored directories, as they are read.

use tidemill_core::source::{SourceEvent, Split, SplitAssignment, SplitEnumerator};

use super::*;

fn sales() -> RecordBatch {
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("day", Arc::new(Date32Array::from(vec![Some(20_778), Some(20_778), None])), true),
        ("n", Arc::new(Int64Array::from(vec![1, 2, 3])), true),
        ("shop", Arc::new(StringArray::from(vec![Some("a/b"), Some(""), Some("ü")])), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn context(job: &str, columns: &[&str]) -> TableContext {
    let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
    TableContext { partitioned_by: columns.into(), ..TableContext::new(job) }
}

fn files_below(path: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let mut names: Vec<String> =
        files.iter().map(|file| file.strip_prefix(path).unwrap().to_str().unwrap().to_owned()).collect();
    names.sort_unstable();
    names
}

#[test]
fn partition_columns_are_in_folders_and_come_back_from_there() {
    let batch = sales();
    for format in FORMATS {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t");
        let context = context("job", &["day", "shop"]);
        let sink = crate::registry::sink(options(&path, format), batch.schema(), &context).unwrap();
        run_to_end(&*sink, 1, std::slice::from_ref(&batch)).unwrap();
        crate::store::journal::assert_lasting(directory.path());
        let folders: Vec<String> =
            files_below(&path).iter().map(|file| file.rsplit_once('/').unwrap().0.to_owned()).collect();
        let expected = [
            "day=2026-11-21/shop=__HIVE_DEFAULT_PARTITION__",
            "day=2026-11-21/shop=a%2Fb",
            "day=__HIVE_DEFAULT_PARTITION__/shop=ü",
        ];
        assert_eq!(folders, expected, "{format:?}");
        let source = crate::registry::source(options(&path, format), batch.schema(), &context).unwrap();
        let rows = read(&*source, &source_context(1, 1_000)).unwrap();
        let expected = ["\"2026-11-21\"|1|\"a/b\"", "\"2026-11-21\"|2|null", "null|3|\"ü\""];
        assert_eq!(rows, expected, "an empty string is NULL when it comes back");
        block_on(check_source(&*source)).unwrap();
    }
}

#[test]
fn overwriting_replaces_the_partitions_that_get_rows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t");
    let csv = [("format", "csv")];
    let batch = sales();
    let run = |job: &str, disposition, rows: &RecordBatch| {
        let context = TableContext { disposition, ..context(job, &["n"]) };
        let sink = crate::registry::sink(options(&path, &csv), batch.schema(), &context).unwrap();
        run_to_end(&*sink, 1, std::slice::from_ref(rows)).unwrap();
    };
    run("one", Disposition::Append, &batch);
    run("two", Disposition::Append, &batch.slice(0, 2));
    run("three", Disposition::Replace, &batch.slice(1, 1));
    let source = crate::registry::source(options(&path, &csv), batch.schema(), &context("r", &["n"])).unwrap();
    let numbers: Vec<String> = read(&*source, &source_context(1, 1_000))
        .unwrap()
        .iter()
        .map(|row| row.split('|').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(numbers, ["1", "1", "2", "3"]);
    assert!(files_below(&path).iter().all(|name| !name.contains("/.")), "{:?}", files_below(&path));
}

#[test]
fn what_is_in_no_partition_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t");
    std::fs::create_dir_all(path.join("n=1")).unwrap();
    std::fs::create_dir_all(path.join("_tmp")).unwrap();
    std::fs::write(path.join("_SUCCESS"), "").unwrap();
    std::fs::write(path.join("n=1/a.csv"), "x\n").unwrap();
    let schema: SchemaRef =
        Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true), Field::new("s", DataType::Utf8, true)]));
    let csv = [("format", "csv")];
    let source = || crate::registry::source(options(&path, &csv), schema.clone(), &context("r", &["n"]));
    let rows = || read(&*source()?, &source_context(1, 1_000));
    assert_eq!(rows().unwrap(), ["1|\"x\""]);
    std::fs::write(path.join("stray.csv"), "x\n").unwrap();
    let error = rows().unwrap_err().to_string();
    assert!(error.contains("t/stray.csv' is not in a partition: expected a folder 'n=…'; move it"), "{error}");
    std::fs::remove_file(path.join("stray.csv")).unwrap();
    std::fs::create_dir(path.join("n=one")).unwrap();
    std::fs::write(path.join("n=one/a.csv"), "x\n").unwrap();
    let error = rows().unwrap_err().to_string();
    assert!(error.contains("t/n=one/a.csv: 'one' is no BIGINT for 'n'; rename the folder"), "{error}");
}

#[test]
fn tables_that_cannot_be_partitioned_say_so() {
    let schema = sales().schema();
    let error = |connector: &str, more: &[(&str, &str)], columns: &[&str]| {
        let fixed = [("connector", connector)];
        let options = Options::new(fixed.into_iter().chain(more.iter().copied()));
        crate::registry::sink(options, schema.clone(), &context("job", columns)).unwrap_err().to_string()
    };
    assert_eq!(error("print", &[], &["n"]), "connector 'print' has no partitions; leave PARTITIONED BY away");
    let csv = [("path", "/tmp/t"), ("format", "csv")];
    let message = error("filesystem", &csv, &["day", "n", "shop"]);
    assert!(message.starts_with("every column is a partition column, and nothing is left for the files"), "{message}");
    let policy = ("sink.partition-commit.policy.kind", "success-file");
    let message = error("filesystem", &[csv[0], csv[1], policy], &[]);
    assert_eq!(
        message,
        "option 'sink.partition-commit.policy.kind' is set, and the table has no partitions; declare them with PARTITIONED BY"
    );
    let message = error("filesystem", &[csv[0], csv[1], ("sink.rolling-policy.file-size", "big")], &[]);
    assert_eq!(message, "option 'sink.rolling-policy.file-size' is 'big'; expected a size such as 512k, 64 mb or 2g");
}

/// The enumerator of a monitored directory, asked until it has nothing for now.
fn found(enumerator: &mut dyn tidemill_core::source::SplitEnumerator, context: &SourceContext) -> Result<Vec<String>> {
    let mut found = Vec::new();
    loop {
        match block_on(enumerator.next_split(0))? {
            SplitAssignment::Split(split) => found.push(split.id.rsplit_once('/').unwrap().1.to_owned()),
            SplitAssignment::Later(pause) => {
                block_on(context.clock.sleep(pause));
                return Ok(found);
            }
            SplitAssignment::Finished => panic!("a monitored directory never ends"),
        }
    }
}

#[test]
fn a_monitored_directory_goes_on_from_its_state_and_holds_immutable_files() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    std::fs::write(file("a.csv"), "1\n").unwrap();
    std::fs::write(file("b.csv"), "2\n").unwrap();
    let more = [("format", "csv"), ("source.monitor-interval", "1 s")];
    let source = open(directory.path(), &numbers([]).schema(), &more).unwrap();
    let context = source_context(1, 10);
    let mut enumerator = source.enumerator(&context).unwrap();
    let SplitAssignment::Split(first) = block_on(enumerator.next_split(0)).unwrap() else { panic!("a split") };
    assert!(first.id.ends_with("a.csv"));
    let state = enumerator.snapshot(1).unwrap();

    std::fs::write(file("c.csv"), "3\n").unwrap();
    let restored = || {
        let mut enumerator = source.enumerator(&context).unwrap();
        enumerator.restore(&state).unwrap();
        enumerator
    };
    let mut enumerator = restored();
    assert_eq!(found(&mut *enumerator, &context).unwrap(), ["b.csv", "c.csv"]);
    assert!(found(&mut *enumerator, &context).unwrap().is_empty());

    // A file that is gone is forgotten.
    std::fs::remove_file(file("b.csv")).unwrap();
    assert!(found(&mut *enumerator, &context).unwrap().is_empty());
    let remembered = String::from_utf8(enumerator.snapshot(2).unwrap()).unwrap();
    assert!(remembered.contains("a.csv") && !remembered.contains("b.csv"), "{remembered}");

    std::fs::write(file("a.csv"), "1\n2\n").unwrap();
    for mut enumerator in [enumerator, restored()] {
        let error = loop {
            if let Err(error) = found(&mut *enumerator, &context) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::Data);
        let message = error.to_string();
        assert!(message.contains("/a.csv changed after it was found: it had 2 bytes and has 4; files of"), "{message}");
    }
}

/// The first row that is read of a split, and the split behind it.
fn first_row(source: &dyn Source, split: &Split) -> Result<(String, Split)> {
    let mut reader = source.reader(&source_context(1, 1))?;
    block_on(async {
        reader.add_splits(vec![split.clone()]).await?;
        match reader.next().await? {
            SourceEvent::Batch { records, position, .. } => {
                Ok((rows_as_text(&records)?.concat(), Split { position, ..split.clone() }))
            }
            other => panic!("{other:?}"),
        }
    })
}

fn next_split(enumerator: &mut dyn SplitEnumerator) -> Split {
    match block_on(enumerator.next_split(0)).unwrap() {
        SplitAssignment::Split(split) => split,
        other => panic!("{other:?}"),
    }
}

/// Before the directory is listed again: what was dealt out, what is read in part, and what a checkpoint still has to
/// deal out.
#[test]
fn a_file_that_has_changed_is_not_opened() {
    let schema: SchemaRef =
        Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true), Field::new("day", DataType::Int64, true)]));
    let grow = |file: &Path| std::fs::write(file, "1\n2\n3\n4\n").unwrap();
    let replace = |file: &Path| {
        let hidden = file.with_file_name(".other");
        std::fs::write(&hidden, "7\n8\n9\n").unwrap();
        std::fs::rename(hidden, file).unwrap();
    };
    let changes: [&dyn Fn(&Path); 2] = [&grow, &replace];
    for (change, columns) in changes.into_iter().zip([&[][..], &["day"]]) {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join(if columns.is_empty() { "" } else { "day=1" });
        std::fs::create_dir_all(&folder).unwrap();
        let files = ["a.csv", "b.csv"].map(|name| folder.join(name));
        files.iter().for_each(|file| std::fs::write(file, "1\n2\n3\n").unwrap());
        let schema = if columns.is_empty() { numbers([]).schema() } else { schema.clone() };
        let more = options(directory.path(), &[("format", "csv"), ("source.monitor-interval", "1 s")]);
        let source = crate::registry::source(more, schema, &context("job", columns)).unwrap();
        let context = source_context(1, 1);

        let mut enumerator = source.enumerator(&context).unwrap();
        let dealt = next_split(&mut *enumerator);
        let state = enumerator.snapshot(1).unwrap();
        let mut restored = source.enumerator(&context).unwrap();
        restored.restore(&state).unwrap();
        let waiting = next_split(&mut *restored);
        assert!(dealt.id.ends_with("a.csv") && waiting.id.ends_with("b.csv"));

        // A file that has not changed goes on, and so does one of a checkpoint that does not know what it was like.
        let (first, half) = first_row(&*source, &dealt).unwrap();
        let (second, last) = first_row(&*source, &half).unwrap();
        let older = Split { position: b"4".to_vec(), ..dealt.clone() };
        let rows = [first, second, first_row(&*source, &last).unwrap().0, first_row(&*source, &older).unwrap().0];
        assert_eq!(rows.map(|row| row[..1].to_owned()), ["1", "2", "3", "3"]);

        files.iter().for_each(|file| change(file));
        for (split, name) in [(dealt, "a.csv"), (half, "a.csv"), (waiting, "b.csv")] {
            let error = first_row(&*source, &split).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
            let message = error.to_string();
            assert!(message.contains(&format!("/{name} changed after it was found: it ")), "{message}");
        }
    }
}
