//! What becomes of one part or run is nothing to the others: errors, leftovers and names.

use super::*;

/// Begins a part in each of two partitions, and puts a folder where the file of the first is to be: its path.
async fn with_a_folder_in_the_way(place: &Place, sink: &dyn Sink) -> (Vec<tidemill_core::sink::Committable>, PathBuf) {
    let clock = Arc::new(ManualClock::default());
    let mut writer = writer(sink, &clock);
    write(&mut writer, 1..2).await;
    write(&mut writer, 21..22).await;
    let committables = writer.prepare_commit(None).await.unwrap();
    let names = place.names().await;
    let hidden = names.iter().find_map(|name| name.strip_prefix("t/p=0/.")).unwrap();
    let in_the_way = Path::new(&place.path).join("p=0").join(hidden.trim_end_matches(".inprogress"));
    std::fs::create_dir_all(in_the_way.join("stays")).unwrap();
    (committables, in_the_way)
}

/// SUB-08: all are tried, then the first error is raised.
#[test]
fn a_partition_that_cannot_be_written_keeps_no_other_back() {
    let csv = [("format", "csv")];
    let rows = |range: Range<u64>| rows_as_text(&numbered(range)).unwrap();
    for recovers in [false, true] {
        block_on(async {
            let place = place(Kind::Local).partitioned(&["p"]);
            let sink = place.sink(&[csv[0], COMMITTED]).unwrap();
            let committer = sink.prepare().unwrap();
            let (committables, in_the_way) = with_a_folder_in_the_way(&place, &*sink).await;
            let error = match recovers {
                false => committer.commit(committables.clone()).await.unwrap_err(),
                true => committer.recover(committables.clone(), &[], Predecessor::Own).await.unwrap_err(),
            };
            assert!(error.to_string().contains("/p=0/.part-job."), "{error}");
            assert_eq!(place.rows(&csv).await, rows(21..22));
            assert!(!place.names().await.iter().any(|name| name.ends_with("_SUCCESS")), "{:?}", place.names().await);

            std::fs::remove_dir_all(in_the_way).unwrap();
            for _ in 0..2 {
                committer.commit(committables.clone()).await.unwrap();
                assert_eq!(place.rows(&csv).await, [rows(1..2), rows(21..22)].concat());
            }
            committer.finish().await.unwrap();
            assert_eq!(place.rows(&csv).await, [rows(1..2), rows(21..22)].concat());
            assert!(!place.names().await.iter().any(|name| name.contains("/.")), "{:?}", place.names().await);
        });
    }
}

/// The same where everything becomes visible at the end.
#[test]
fn a_partition_that_cannot_be_replaced_keeps_no_other_back() {
    let csv = [("format", "csv")];
    let rows = |range: Range<u64>| rows_as_text(&numbered(range)).unwrap();
    block_on(async {
        let place = place(Kind::Local).partitioned(&["p"]).replacing();
        let sink = place.sink(&[csv[0], COMMITTED]).unwrap();
        let committer = sink.prepare().unwrap();
        let (committables, in_the_way) = with_a_folder_in_the_way(&place, &*sink).await;
        committer.commit(committables).await.unwrap();
        assert!(place.rows(&csv).await.is_empty());
        for _ in 0..2 {
            let error = committer.finish().await.unwrap_err();
            assert!(error.to_string().contains("/p=0/.part-job."), "{error}");
            let names = place.names().await;
            assert!(names.iter().any(|name| name.starts_with("t/p=1/part-job.")), "{names:?}");
            assert!(!names.iter().any(|name| name.ends_with("_SUCCESS")), "{names:?}");
        }
        std::fs::remove_dir_all(in_the_way).unwrap();
        for _ in 0..2 {
            committer.finish().await.unwrap();
            assert_eq!(place.rows(&csv).await, [rows(1..2), rows(21..22)].concat());
        }
        assert!(!place.names().await.iter().any(|name| name.contains("/.")), "{:?}", place.names().await);
    });
}

/// It finds what a run of the same job has committed for its end, which never came.
#[test]
fn who_begins_anew_shows_nothing_that_another_run_has_kept_for_its_end() {
    let csv = [("format", "csv")];
    block_on(async {
        let place = place(Kind::Local).replacing();
        let clock = Arc::new(ManualClock::default());
        for (rows, of) in [(0..5, None), (5..8, Some(Predecessor::Nobody))] {
            let sink = place.sink(&csv).unwrap();
            let committer = sink.prepare().unwrap();
            if let Some(of) = of {
                assert!(place.names().await.iter().any(|name| name.ends_with(".ready")), "{:?}", place.names().await);
                committer.recover(Vec::new(), &[], of).await.unwrap();
            }
            let mut writer = writer(&*sink, &clock);
            write(&mut writer, rows).await;
            committer.commit(writer.prepare_commit(None).await.unwrap()).await.unwrap();
            match of {
                None => committer.suspend().await.unwrap(),
                Some(_) => committer.finish().await.unwrap(),
            }
        }
        assert_eq!(place.rows(&csv).await, rows_as_text(&numbered(5..8)).unwrap());
    });
}

/// What one of them cleans up is not the other's, although file names have none of the signs in which they differ.
#[test]
fn jobs_whose_names_differ_leave_each_other_alone() {
    use crate::filesystem::sink::told_apart;
    assert_eq!(told_apart("19a-1-a_b-2"), "19a-1-a_b-2", "a name that files can have stays as it is");
    for (one, other) in [("run-a.b", "run-a_b"), ("run-ä", "run-ö"), ("run-ä", "run-_")] {
        block_on(async {
            let mut place = place(Kind::Local);
            let clock = Arc::new(ManualClock::default());
            let mut parts = Vec::new();
            for name in [one, other] {
                place.context = TableContext { job: name.into(), ..place.context };
                let sink = place.sink(&[("format", "csv")]).unwrap();
                let committer = sink.prepare().unwrap();
                let mut writer = writer(&*sink, &clock);
                write(&mut writer, 0..5).await;
                assert!(writer.prepare_commit(Some(1)).await.unwrap().is_empty());
                writer.snapshot(1).await.unwrap();
                parts.push((committer, writer));
            }
            let (last, mut writer) = parts.pop().unwrap();
            let (first, _) = parts.pop().unwrap();
            first.recover(Vec::new(), &[], Predecessor::Own).await.unwrap();
            first.finish().await.unwrap();
            first.abort().await.unwrap();
            last.commit(writer.prepare_commit(None).await.unwrap()).await.unwrap();
            last.finish().await.unwrap();
            assert_eq!(place.rows(&[("format", "csv")]).await.len(), 5, "{one} {other}");
            assert_eq!(place.names().await.len(), 1);
        });
    }
}

/// Another process takes a job over while the first one still recovers.
#[derive(Debug)]
struct TakenOver(std::sync::atomic::AtomicUsize);

#[async_trait::async_trait]
impl tidemill_core::sink::Fence for TakenOver {
    async fn check(&self) -> Result<()> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Err(Error::cancelled("another process has taken over"))
    }
}

/// What it has written is not the first one's to remove, whatever that one does.
#[test]
fn a_process_that_has_lost_its_job_removes_nothing() {
    let csv = [("format", "csv")];
    for kind in [Kind::Local, Kind::Uploads, Kind::Other] {
        block_on(async {
            let place = place(kind);
            let clock = Arc::new(ManualClock::default());
            let (first, second) = (place.sink(&csv).unwrap(), place.sink(&csv).unwrap());
            let (lost, won) = (first.prepare().unwrap(), second.prepare().unwrap());
            let fence = Arc::new(TakenOver(0.into()));
            lost.fenced_by(fence.clone());
            won.recover(Vec::new(), &[], Predecessor::Own).await.unwrap();
            let mut writer = writer(&*second, &clock);
            write(&mut writer, 0..5).await;
            let complete = writer.prepare_commit(None).await.unwrap();
            for of in [Predecessor::Own, Predecessor::Other, Predecessor::Nobody] {
                assert_eq!(lost.recover(Vec::new(), &[], of).await.unwrap_err().kind(), ErrorKind::Cancelled);
            }
            lost.finish().await.unwrap_err();
            lost.abort().await.unwrap_err();
            assert_eq!(fence.0.load(std::sync::atomic::Ordering::Relaxed), 5);
            won.commit(complete).await.unwrap();
            won.finish().await.unwrap();
            assert_eq!(place.rows(&csv).await, rows_as_text(&numbered(0..5)).unwrap());
        });
    }
}
