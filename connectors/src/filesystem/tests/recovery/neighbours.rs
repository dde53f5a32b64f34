//! The folder that the files of `write_as` are beside: others may have put anything there, and the job may have no business in it.

use std::fmt;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};

use super::rescaled::{MODES, rows_of, sorted_rows, write_as, write_each, writers};
use super::*;
use crate::filesystem::replace::Replacement;

/// A store that denies some calls but those below `t`.
#[derive(Debug)]
struct Fenced {
    store: Arc<InMemory>,
    denied: &'static [Call],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    List,
    Read,
    Write,
}

/// An answer as clients of the great stores tell it: the type of what is below a list is their own.
#[derive(Debug)]
struct Answer {
    message: String,
    source: Option<Box<Answer>>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Answer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

fn denied_list() -> StoreError {
    let status = "Server returned non-2xx status code: 403 Forbidden: <Error><Code>AccessDenied</Code></Error>";
    let request = format!("Error performing GET https://s3.amazonaws.com/lake in 12ms - {status}");
    let list = format!("Error performing list request: {request}");
    let answer =
        [request, list].into_iter().fold(Answer { message: status.into(), source: None }, |source, message| Answer {
            message,
            source: Some(Box::new(source)),
        });
    StoreError::Generic { store: "S3", source: Box::new(answer) }
}

impl Fenced {
    fn check(&self, call: Call, place: Option<&ObjectPath>) -> StoreResult<()> {
        let path = place.map(ToString::to_string).unwrap_or_default();
        // A list is one of what begins with `t/`.
        let is_inside = path.starts_with("t/") || path == "t" && call == Call::List;
        if is_inside || !self.denied.contains(&call) {
            return Ok(());
        }
        match call {
            Call::List => Err(denied_list()),
            _ => Err(StoreError::PermissionDenied { path, source: "403 Forbidden".into() }),
        }
    }
}

impl fmt::Display for Fenced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fenced")
    }
}

#[async_trait]
impl ObjectStore for Fenced {
    async fn put_opts(&self, place: &ObjectPath, bytes: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.check(Call::Write, Some(place))?;
        self.store.put_opts(place, bytes, options).await
    }

    async fn put_multipart_opts(
        &self,
        place: &ObjectPath,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.check(Call::Write, Some(place))?;
        self.store.put_multipart_opts(place, options).await
    }

    async fn get_opts(&self, place: &ObjectPath, options: GetOptions) -> StoreResult<GetResult> {
        self.check(Call::Read, Some(place))?;
        self.store.get_opts(place, options).await
    }

    fn delete_stream(
        &self,
        places: BoxStream<'static, StoreResult<ObjectPath>>,
    ) -> BoxStream<'static, StoreResult<ObjectPath>> {
        let fence = Self { store: self.store.clone(), denied: self.denied };
        let allowed =
            places.map(move |place| place.and_then(|place| fence.check(Call::Write, Some(&place)).map(|()| place)));
        self.store.delete_stream(allowed.boxed())
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        match self.check(Call::List, prefix) {
            Ok(()) => self.store.list(prefix),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> StoreResult<ListResult> {
        self.check(Call::List, prefix)?;
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &ObjectPath, to: &ObjectPath, options: CopyOptions) -> StoreResult<()> {
        self.check(Call::Read, Some(from))?;
        self.check(Call::Write, Some(to))?;
        self.store.copy_opts(from, to, options).await
    }
}

/// The table of another place where some calls are denied outside of it.
fn fenced(store: &Arc<InMemory>, denied: &'static [Call]) -> Place {
    let place = place(Kind::Other);
    let fence: Arc<dyn ObjectStore> = Arc::new(Fenced { store: store.clone(), denied });
    let context = TableContext { stores: Stores::local().with("mem://lake", fence), ..TableContext::new("job") };
    Place { context, store: store.clone(), ..place }
}

#[test]
fn what_may_be_done_below_a_folder_of_a_store_is_enough_for_several_files() {
    let fences: [&'static [Call]; 3] = [&[Call::List], &[Call::List, Call::Read, Call::Write], &[Call::Write]];
    for denied in fences {
        for mode in MODES {
            block_on(async {
                let store = Arc::new(InMemory::new());
                let place = fenced(&store, denied);
                let sink = write_as(&place, mode, 2);
                let committer = sink.prepare().unwrap();
                committer.recover(Vec::new(), &[], Predecessor::Nobody).await.unwrap();
                let (mut first, mut complete) = (writers(&sink, 2), Vec::new());
                write_each(&mut first, 0).await;
                for writer in &mut first {
                    complete.extend(writer.prepare_commit(Some(1)).await.unwrap());
                }
                drop((first, committer));

                let committer = sink.prepare().unwrap();
                committer.recover(complete, &[], Predecessor::Own).await.unwrap();
                let mut second = writers(&sink, 2);
                write_each(&mut second, 100).await;
                for writer in &mut second {
                    committer.commit(writer.prepare_commit(None).await.unwrap()).await.unwrap();
                }
                committer.finish().await.unwrap();
                assert_eq!(place.names().await, ["t/1", "t/2"], "{denied:?} {mode:?}");
                let rows = sorted_rows([rows_of(0, 0), rows_of(0, 1), rows_of(100, 0), rows_of(100, 1)]);
                assert_eq!(fenced(&store, &[]).rows(&[("format", "csv")]).await, rows, "{denied:?} {mode:?}");
            });
        }
    }
}

/// A run with one subtask was killed when it had said what it shows: that counts, whoever may not show it.
#[test]
fn what_counts_already_stays_where_nobody_may_show_it() {
    for mode in MODES {
        block_on(async {
            let store = Arc::new(InMemory::new());
            let open = fenced(&store, &[]);
            let sink = write_as(&open, mode, 1);
            let committer = sink.prepare().unwrap();
            let mut first = writers(&sink, 1);
            write_each(&mut first, 0).await;
            committer.commit(first[0].prepare_commit(None).await.unwrap()).await.unwrap();
            let hidden = open.names().await.remove(0);
            let published = vec![(hidden, "t".to_owned())];
            let parent = open.context.stores.resolve(&open.path).unwrap().parent();
            Replacement { published, condemned: vec![] }.begin(&parent, "job").await.unwrap();
            let before = open.names().await;

            let no_writes = fenced(&store, &[Call::Write]);
            let error = write_as(&no_writes, mode, 2).prepare().unwrap_err().to_string();
            assert!(error.contains("permission denied") && error.contains("mend what is in its way"), "{error}");
            assert_eq!(open.names().await, before, "{mode:?}");

            let no_reads = fenced(&store, &[Call::Read]);
            let committer = write_as(&no_reads, mode, 2).prepare().unwrap();
            committer.recover(Vec::new(), &[], Predecessor::Nobody).await.unwrap();
            committer.abort().await.unwrap();
            assert_eq!(open.names().await, before, "{mode:?}");

            let shown = write_as(&open, mode, 2).prepare();
            assert_eq!(shown.is_ok(), mode == WriteMode::Overwrite);
            assert_eq!(open.rows(&[("format", "csv")]).await, sorted_rows([rows_of(0, 0)]), "{mode:?}");
        });
    }
}

/// Names that are none for files of a store, and a link that leads back.
#[cfg(target_os = "linux")]
#[test]
fn files_of_others_are_in_nobodys_way() {
    use std::os::unix::ffi::OsStrExt;
    for parallelism in [1, 2] {
        for mode in MODES {
            block_on(async {
                let place = place(Kind::Local);
                let folder = Path::new(&place.path).parent().unwrap();
                for name in
                    [b"caf\xE9".as_slice(), b"bell\x07", b".part-job.caf\xE9", b".part-job.1-0-0.csv.inprogress#1"]
                {
                    std::fs::write(folder.join(std::ffi::OsStr::from_bytes(name)), "kept").unwrap();
                }
                std::os::unix::fs::symlink(folder, folder.join("self")).unwrap();
                std::os::unix::fs::symlink(folder.join("nowhere"), folder.join("broken")).unwrap();
                let sink = write_as(&place, mode, parallelism);
                let committer = sink.prepare().unwrap();
                committer.recover(Vec::new(), &[], Predecessor::Nobody).await.unwrap();
                let mut writers = writers(&sink, parallelism);
                write_each(&mut writers, 0).await;
                for writer in &mut writers {
                    committer.commit(writer.prepare_commit(None).await.unwrap()).await.unwrap();
                }
                committer.finish().await.unwrap();
                let rows = sorted_rows((0..parallelism as u64).map(|number| rows_of(0, number)));
                assert_eq!(place.rows(&[("format", "csv")]).await, rows, "{parallelism} {mode:?}");
                assert_eq!(std::fs::read(folder.join(std::ffi::OsStr::from_bytes(b"caf\xE9"))).unwrap(), b"kept");
                assert!(folder.join("self").exists() && folder.join("bell\u{7}").exists());
            });
        }
    }
}
