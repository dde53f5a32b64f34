//! Files of `write_as` over a change of parallelism, and beside what other runs have left: one file has its hidden parts in another folder
//! than several.

use super::*;
use crate::formats::CsvOptions;
use tidemill_core::sink::SinkWriter;

/// What a job goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Checkpoint,
    Savepoint,
}

pub(super) const MODES: [WriteMode; 2] = [WriteMode::NoOverwrite, WriteMode::Overwrite];

/// What is there before a job that replaces it.
pub(super) const OLD: &str = "7,old,7\n";

/// Puts a file where one is to be written.
pub(super) async fn put_old(place: &Place) {
    place.store.put(&"t".into(), OLD.into()).await.unwrap();
}

/// What the file of this name says.
pub(super) async fn text(place: &Place, name: &str) -> String {
    let file = place.store.get(&name.into()).await.unwrap();
    String::from_utf8(file.bytes().await.unwrap().to_vec()).unwrap()
}

/// The rows of these numbers, sorted.
pub(super) fn sorted_rows(ranges: impl IntoIterator<Item = Range<u64>>) -> Vec<String> {
    let mut rows: Vec<_> = ranges.into_iter().flat_map(|rows| rows_as_text(&numbered(rows)).unwrap()).collect();
    rows.sort_unstable();
    rows
}

pub(super) fn write_as(place: &Place, mode: WriteMode, parallelism: usize) -> FileSink {
    let (path, location) = (place.path.as_str(), place.context.stores.resolve(&place.path).unwrap());
    let (csv, schema) = (Format::Csv(CsvOptions::default(), Default::default()), numbered(0..0).schema());
    let sink = FileSink::write_as(path, location, csv, schema, "job", mode, parallelism).unwrap();
    sink.with_upload_bytes(UPLOAD_BYTES)
}

pub(super) fn writers(sink: &dyn Sink, parallelism: usize) -> Vec<Box<dyn SinkWriter>> {
    let schema = numbered(0..0).schema();
    (0..parallelism).map(|n| sink.writer(&sink_context(n, parallelism, schema.clone())).unwrap()).collect()
}

/// Each writer gets five rows of its own.
pub(super) async fn write_each(writers: &mut [Box<dyn SinkWriter>], begin: u64) {
    for (number, writer) in (0..).zip(writers) {
        write(writer, rows_of(begin, number)).await;
    }
}

pub(super) fn rows_of(begin: u64, number: u64) -> Range<u64> {
    let first = begin + 10 * number;
    first..first + 5
}

/// A job that writes with one parallelism is killed behind what it goes on from, and does so with another.
async fn rescaled(place: &Place, mode: WriteMode, from: usize, to: usize, behind: Behind) -> Result<()> {
    if mode == WriteMode::Overwrite {
        put_old(place).await;
    }
    let sink = write_as(place, mode, from);
    let committer = sink.prepare()?;
    committer.recover(Vec::new(), &[], Predecessor::Nobody).await?;
    let mut first = writers(&sink, from);
    write_each(&mut first, 0).await;
    let mut complete = Vec::new();
    for writer in &mut first {
        complete.extend(writer.prepare_savepoint(1).await?);
    }
    committer.commit(complete).await?;
    write_each(&mut first, 100).await;
    let (mut complete, mut states) = (Vec::new(), Vec::new());
    for writer in &mut first {
        complete.extend(match behind {
            Behind::Checkpoint => writer.prepare_commit(Some(2)).await?,
            Behind::Savepoint => writer.prepare_savepoint(2).await?,
        });
        states.extend(writer.snapshot(2).await?);
    }
    write_each(&mut first, 200).await;
    drop((first, committer));
    let before = place.names().await;

    let sink = write_as(place, mode, to);
    let committer = sink.prepare()?;
    let of = if behind == Behind::Savepoint { Predecessor::Other } else { Predecessor::Own };
    // Whoever is killed right behind it does it once more.
    for _ in 0..2 {
        if let Err(error) = committer.recover(complete.clone(), &states, of).await {
            assert_eq!(place.names().await, before, "who is refused has changed nothing");
            return Err(error);
        }
    }
    let mut second = writers(&sink, to);
    for (number, writer) in second.iter_mut().enumerate() {
        writer.restore(states.iter().skip(number).step_by(to).cloned().collect()).await?;
    }
    write_each(&mut second, 300).await;
    for writer in &mut second {
        committer.commit(writer.prepare_commit(None).await?).await?;
    }
    drop(second);
    committer.finish().await
}

/// SUB-08: every row once, in as many files as there are subtasks now.
#[test]
fn files_go_on_with_any_parallelism() {
    for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2), (5, 2), (2, 2), (1, 1)] {
        for kind in [Kind::Local, Kind::Uploads, Kind::Other] {
            let cases = MODES.map(|mode| [(mode, Behind::Checkpoint), (mode, Behind::Savepoint)]);
            for (mode, behind) in cases.into_iter().flatten() {
                block_on(async {
                    let (place, told) = (place(kind), format!("{from} to {to}, {kind:?}, {mode:?}, {behind:?}"));
                    let outcome = rescaled(&place, mode, from, to, behind).await;
                    let is_elsewhere = (from == 1) != (to == 1);
                    if is_elsewhere && matches!((kind, behind), (Kind::Uploads, Behind::Checkpoint)) {
                        let error = outcome.unwrap_err();
                        let had = if from == 1 { "1".to_owned() } else { format!("{from} or more") };
                        let expected = format!("mem://lake/t: the sink had a parallelism of {had} and has {to} now: ");
                        assert!(error.to_string().starts_with(&expected), "{told}: {error}");
                        assert_eq!(error.kind(), ErrorKind::Request, "{told}");
                        if mode == WriteMode::Overwrite && from == 1 {
                            assert_eq!(text(&place, "t").await, OLD, "{told}");
                        }
                        return;
                    }
                    outcome.unwrap_or_else(|error| panic!("{told}: {error}"));
                    let numbers = |begin, count: usize| (0..count as u64).map(move |number| rows_of(begin, number));
                    let ranges = numbers(0, from).chain(numbers(100, from)).chain(numbers(300, to));
                    assert_eq!(place.rows(&[("format", "csv")]).await, sorted_rows(ranges), "{told}");
                    let files: Vec<String> = match to {
                        1 => vec!["t".into()],
                        to => (1..=to).map(|number| format!("t/{number}")).collect(),
                    };
                    assert_eq!(place.names().await, files, "{told}");
                    assert_eq!(place.uploads.as_ref().map_or(0, |uploads| uploads.open()), 0, "{told}");
                });
            }
        }
    }
}

/// What has a line of names in front of it is no piece of another file, which is said before a row comes.
#[test]
fn files_that_cannot_be_put_together_keep_their_parallelism() {
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t");
        let open = |parallelism| {
            let csv = CsvOptions { header: true, ..CsvOptions::default() };
            let (path, schema) = (path.to_str().unwrap(), numbered(0..0).schema());
            let (csv, location) = (Format::Csv(csv, Default::default()), Stores::local().resolve(path).unwrap());
            FileSink::write_as(path, location, csv, schema, "job", WriteMode::NoOverwrite, parallelism).unwrap()
        };
        let sink = open(3);
        sink.prepare().unwrap();
        let (mut writers, mut states) = (writers(&sink, 3), Vec::new());
        write_each(&mut writers, 0).await;
        for writer in &mut writers {
            assert!(writer.prepare_commit(Some(1)).await.unwrap().is_empty());
            states.extend(writer.snapshot(1).await.unwrap());
        }
        drop(writers);
        open(4).prepare().unwrap().recover(Vec::new(), &states, Predecessor::Own).await.unwrap();
        let error = open(2).prepare().unwrap().recover(Vec::new(), &states, Predecessor::Own).await.unwrap_err();
        let expected = format!("{}: the sink had a parallelism of 3 or more and has 2 now: ", path.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
        open(3).prepare().unwrap().recover(Vec::new(), &states, Predecessor::Own).await.unwrap();
    });
}

/// The other run was killed when it had committed all of its rows for its end.
#[test]
fn who_begins_anew_shows_nothing_of_another_run_at_any_parallelism() {
    for (other, own) in [(1, 1), (2, 2), (1, 2), (2, 1), (3, 2)] {
        for kind in [Kind::Local, Kind::Uploads, Kind::Other] {
            block_on(async {
                let place = place(kind);
                for (parallelism, begin) in [(other, 0), (own, 100)] {
                    let sink = write_as(&place, WriteMode::NoOverwrite, parallelism);
                    let committer = sink.prepare().unwrap();
                    committer.recover(Vec::new(), &[], Predecessor::Nobody).await.unwrap();
                    assert_eq!(place.names().await, Vec::<String>::new(), "{other} {own} {kind:?}");
                    let mut writers = writers(&sink, parallelism);
                    write_each(&mut writers, begin).await;
                    for writer in &mut writers {
                        committer.commit(writer.prepare_commit(None).await.unwrap()).await.unwrap();
                    }
                    if begin > 0 {
                        committer.finish().await.unwrap();
                    }
                }
                let rows = sorted_rows((0..own as u64).map(|number| rows_of(100, number)));
                assert_eq!(place.rows(&[("format", "csv")]).await, rows, "{other} {own} {kind:?}");
            });
        }
    }
}

/// A machine whose clock is behind goes on from a savepoint: what it writes comes behind what is there.
#[test]
fn rows_stay_in_their_order_where_a_clock_is_behind() {
    for kind in [Kind::Local, Kind::Uploads, Kind::Other] {
        for mode in MODES {
            block_on(async {
                let place = place(kind);
                let (ahead, behind) = (Arc::new(ManualClock::default()), Arc::new(ManualClock::default()));
                ahead.sleep(std::time::Duration::from_secs(3_600)).await;
                let sink = write_as(&place, mode, 1);
                let committer = sink.prepare().unwrap();
                let mut first = writer(&sink, &ahead);
                write(&mut first, 0..5).await;
                let saved = first.prepare_savepoint(1).await.unwrap();
                committer.commit(saved.clone()).await.unwrap();
                drop((first, committer, sink));

                let sink = write_as(&place, mode, 1);
                let committer = sink.prepare().unwrap();
                let mut second = writer(&sink, &behind);
                committer.recover(saved, &[], Predecessor::Other).await.unwrap();
                write(&mut second, 5..10).await;
                committer.commit(second.prepare_commit(None).await.unwrap()).await.unwrap();
                committer.finish().await.unwrap();
                let numbers: Vec<String> = (0..10).map(|n| n.to_string()).collect();
                let written = text(&place, "t").await;
                let first_fields: Vec<_> = written.lines().map(|line| line.split(',').next().unwrap()).collect();
                assert_eq!(first_fields, numbers, "{kind:?} {mode:?}");
            });
        }
    }
}

/// With the parallelism that it had, the job is not told of parallelisms.
#[test]
fn files_of_another_format_are_refused_as_that() {
    for parallelism in [1, 2] {
        for mode in MODES {
            block_on(async {
                let place = place(Kind::Local);
                let open = |format| {
                    let format = Format::from_options(format, &mut options(Path::new(&place.path), &[])).unwrap();
                    let location = place.context.stores.resolve(&place.path).unwrap();
                    let (path, schema) = (place.path.as_str(), numbered(0..0).schema());
                    FileSink::write_as(path, location, format, schema, "job", mode, parallelism).unwrap()
                };
                let sink = open("csv");
                let committer = sink.prepare().unwrap();
                let (mut first, mut complete) = (writers(&sink, parallelism), Vec::new());
                write_each(&mut first, 0).await;
                for writer in &mut first {
                    complete.extend(writer.prepare_savepoint(1).await.unwrap());
                }
                committer.commit(complete.clone()).await.unwrap();
                let before = place.names().await;
                let committer = open("json").prepare().unwrap();
                let error = committer.recover(complete.clone(), &[], Predecessor::Other).await.unwrap_err().to_string();
                assert!(
                    error.starts_with(&format!("{}: the sink wrote 'csv' and writes 'json' now", place.path)),
                    "{error}"
                );
                assert_eq!(place.names().await, before, "{parallelism} {mode:?}");
                open("csv").prepare().unwrap().recover(complete, &[], Predecessor::Other).await.unwrap();
            });
        }
    }
}

/// Its rows became a file, which whoever goes on would replace by one that has only what came behind the savepoint.
#[test]
fn a_savepoint_of_a_job_that_has_ended_since_does_not_cost_its_rows() {
    for (from, to) in [(1, 1), (2, 2), (1, 2), (2, 1)] {
        // The last of them with rows since the one before, and without.
        for (kind, savepoints) in
            [Kind::Local, Kind::Uploads, Kind::Other].into_iter().flat_map(|kind| [(kind, 1), (kind, 2)])
        {
            block_on(async {
                let place = place(kind);
                let sink = write_as(&place, WriteMode::Overwrite, from);
                let committer = sink.prepare().unwrap();
                let (mut first, mut complete) = (writers(&sink, from), Vec::new());
                write_each(&mut first, 0).await;
                for savepoint in 1..=savepoints {
                    complete = Vec::new();
                    for writer in &mut first {
                        complete.extend(writer.prepare_savepoint(savepoint).await.unwrap());
                    }
                    committer.commit(complete.clone()).await.unwrap();
                }
                committer.finish().await.unwrap();
                // Who was killed right behind the end, before anybody knew of it, does it once more.
                write_as(&place, WriteMode::Overwrite, from).prepare().unwrap();
                committer.recover(complete.clone(), &[], Predecessor::Own).await.unwrap();
                committer.finish().await.unwrap();

                let begun = write_as(&place, WriteMode::Overwrite, to).prepare();
                let refused = match begun {
                    Ok(committer) => committer.recover(complete, &[], Predecessor::Other).await.unwrap_err(),
                    Err(error) => error,
                };
                let expected = if (from, to) == (2, 1) { "is a folder" } else { "its rows would be lost" };
                assert!(refused.to_string().contains(expected), "{from} {to} {kind:?}: {refused}");
                let rows = sorted_rows((0..from as u64).map(|number| rows_of(0, number)));
                assert_eq!(place.rows(&[("format", "csv")]).await, rows, "{from} {to} {kind:?}");
            });
        }
    }
}
