//! What has the name of the file or folder that `write_as` writes, and when it goes: not before it is known that the job may begin, and
//! never if it is what the job has just shown.

use super::rescaled::{MODES, OLD, put_old, rows_of, sorted_rows, text, write_as, write_each, writers};
use super::*;
use crate::filesystem::part::{Part, PartName, Prepared};
use crate::filesystem::replace::Replacement;

const KINDS: [Kind; 3] = [Kind::Local, Kind::Uploads, Kind::Other];

async fn run_to_end(sink: &FileSink, committer: &dyn Committer, parallelism: usize) {
    let mut writers = writers(sink, parallelism);
    write_each(&mut writers, 100).await;
    for writer in &mut writers {
        committer.commit(writer.prepare_commit(None).await.unwrap()).await.unwrap();
    }
    committer.finish().await.unwrap();
}

#[test]
fn a_file_goes_when_the_job_may_begin_and_not_before() {
    for kind in KINDS {
        block_on(async {
            let place = place(kind);
            put_old(&place).await;
            assert!(write_as(&place, WriteMode::NoOverwrite, 2).prepare().is_err());
            let sink = write_as(&place, WriteMode::Overwrite, 2);
            let committer = sink.prepare().unwrap();
            assert_eq!(text(&place, "t").await, OLD, "{kind:?}: who is prepared may still be refused");
            let unreadable = [WriterState(b"x".to_vec())];
            let name = PartName::new("job", 1, 0, 0, "csv");
            let gone = Prepared::Part(Part { folder: String::new(), name }, None).encode().unwrap();
            committer.recover(Vec::new(), &unreadable, Predecessor::Own).await.unwrap_err();
            for of in [Predecessor::Own, Predecessor::Other] {
                let error = committer.recover(vec![gone.clone()], &[], of).await.unwrap_err().to_string();
                assert!(error.contains("its rows would be lost"), "{error}");
            }
            committer.abort().await.unwrap();
            assert_eq!(place.names().await, ["t"], "{kind:?}");
            assert_eq!(text(&place, "t").await, OLD, "{kind:?}");

            let committer = sink.prepare().unwrap();
            committer.recover(Vec::new(), &[], Predecessor::Nobody).await.unwrap();
            assert_eq!(place.names().await, Vec::<String>::new(), "{kind:?}");
            run_to_end(&sink, &*committer, 2).await;
            assert_eq!(place.names().await, ["t/1", "t/2"], "{kind:?}");
        });
    }
}

/// A run with one subtask was killed when it had said what it shows, and had not shown it.
#[test]
fn what_a_run_has_only_now_shown_is_not_deleted_by_the_next() {
    for kind in KINDS {
        for mode in MODES {
            block_on(async {
                let place = place(kind);
                let sink = write_as(&place, mode, 1);
                let committer = sink.prepare().unwrap();
                let mut first = writers(&sink, 1);
                write_each(&mut first, 0).await;
                let complete = first[0].prepare_commit(None).await.unwrap();
                committer.commit(complete.clone()).await.unwrap();
                let hidden = place.names().await.remove(0);
                let published = vec![(hidden, "t".to_owned())];
                let parent = place.context.stores.resolve(&place.path).unwrap().parent();
                Replacement { published, condemned: vec![] }.begin(&parent, "job").await.unwrap();
                drop((first, committer, sink));

                let sink = write_as(&place, mode, 2);
                let told = format!("{kind:?} {mode:?}");
                match sink.prepare() {
                    Err(error) => {
                        assert_eq!(mode, WriteMode::NoOverwrite);
                        assert!(error.to_string().contains("exists already"), "{error}");
                    }
                    Ok(committer) => {
                        assert_eq!(mode, WriteMode::Overwrite);
                        for (complete, of) in [(vec![], Predecessor::Nobody), (complete, Predecessor::Own)] {
                            let error = committer.recover(complete, &[], of).await.unwrap_err().to_string();
                            assert!(error.contains("had come to its end: the file is complete"), "{told}: {error}");
                        }
                        committer.abort().await.unwrap();
                    }
                }
                assert_eq!(place.names().await, ["t"], "{told}");
                assert_eq!(place.rows(&[("format", "csv")]).await, sorted_rows([rows_of(0, 0)]), "{told}");
                if mode == WriteMode::Overwrite {
                    let committer = sink.prepare().unwrap();
                    committer.recover(Vec::new(), &[], Predecessor::Nobody).await.unwrap();
                    run_to_end(&sink, &*committer, 2).await;
                    assert_eq!(place.names().await, ["t/1", "t/2"], "{told}");
                }
            });
        }
    }
}

/// Several subtasks made the folder, and no row had come when they were stopped.
#[test]
fn an_empty_folder_is_no_obstacle_to_a_job_that_goes_on_with_one_subtask() {
    for mode in MODES {
        for of in [Predecessor::Own, Predecessor::Other] {
            block_on(async {
                let place = place(Kind::Local);
                let committer = write_as(&place, mode, 2).prepare().unwrap();
                committer.recover(Vec::new(), &[], Predecessor::Nobody).await.unwrap();
                committer.suspend().await.unwrap();
                let folder = Path::new(&place.path);
                assert!(folder.is_dir());

                let sink = write_as(&place, mode, 1);
                let committer = sink.prepare().unwrap();
                let error = committer.recover(Vec::new(), &[], Predecessor::Nobody).await.unwrap_err().to_string();
                let expected = if mode == WriteMode::Overwrite { "is a folder" } else { "exists already" };
                assert!(error.contains(expected), "{error}");
                assert!(folder.is_dir(), "nothing says that it is not somebody else's");
                committer.recover(Vec::new(), &[], of).await.unwrap();
                run_to_end(&sink, &*committer, 1).await;
                assert_eq!(place.rows(&[("format", "csv")]).await, sorted_rows([rows_of(100, 0)]), "{mode:?} {of:?}");
                assert_eq!(place.names().await, ["t"]);
            });
        }
    }
}
