//! Where the bytes of a part go until it is committed: three strategies, by what the store can do.
//!
//! | store | bytes go | at a checkpoint | after a crash |
//! | --- | --- | --- | --- |
//! | local disk | to a file under a hidden name | synced; the length is state | cut to that length, and gone on with |
//! | with multipart uploads | to an upload, part by part | id, parts and the tail are state | the upload is gone on with |
//! | any other | to a file under a hidden name | the part is over | begun anew |

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;

use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use tidemill_core::error::{Error, Result};

use super::part::{Part, PartState, Upload, folder_of, lost};
use crate::store::{Location, blocking, make_folder, sync_directory, sync_open, write_durably};

/// Bytes that are gathered before they go to a local file.
const FILE_BYTES: usize = 1 << 20;
/// Bytes that are gathered before they go to a store that is not to remember them.
pub(super) const STAGED_BYTES: usize = 8 << 20;
/// The size of the parts of an upload: stores refuse smaller ones but for the last, and some want all to be of one size.
pub(super) const UPLOAD_BYTES: usize = 5 << 20;

/// Where parts of a table go.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    pub(super) table: Location,
    /// Whether a part becomes visible when it is committed, or waits for the end of its job.
    pub(super) is_published_at_once: bool,
    pub(super) upload_bytes: usize,
}

impl Destination {
    /// Whether a part can be gone on with behind a checkpoint.
    pub(super) fn can_go_on(&self) -> bool {
        self.table.is_local() || self.table.multipart().is_some()
    }

    /// Where a part is once it is committed.
    pub(super) fn committed(&self, part: &Part) -> Location {
        if self.is_published_at_once { part.published(&self.table) } else { part.ready(&self.table) }
    }

    /// Begins a part.
    pub(super) async fn create(&self, part: &Part) -> Result<Target> {
        let place = part.in_progress(&self.table);
        if !part.folder.is_empty() {
            make_folder(&folder_of(&self.table, &part.folder)).await?;
        }
        if let Some(path) = place.file_path() {
            let file = blocking(move || OpenOptions::new().write(true).create_new(true).open(path)).await;
            let file = Arc::new(file.map_err(|error| error.context(&place))?);
            return Ok(Target::File(FileTarget { place, file, is_entered: false }));
        }
        match self.table.multipart() {
            Some(store) => {
                let place = self.committed(part);
                let id = store.create_multipart(&place.path).await.map_err(|error| place.error(error))?;
                UploadNote { id: id.clone(), path: place.path.to_string() }
                    .write(&part.upload_note(&self.table))
                    .await?;
                let upload = Upload { id, parts: Vec::new() };
                Ok(Target::Upload(self.upload(place, store, upload, Vec::new())))
            }
            None => {
                let upload = place.store.put_multipart(&place.path).await.map_err(|error| place.error(error))?;
                Ok(Target::Staged(StagedTarget { place, upload }))
            }
        }
    }

    /// Goes on with a part as it was at a checkpoint.
    pub(super) async fn resume(&self, state: &PartState) -> Result<Target> {
        let part = &state.part;
        let place = part.in_progress(&self.table);
        let is_here = match (&state.upload, place.file_path()) {
            (None, Some(path)) => path.exists(),
            (Some(_), None) => part.upload_note(&self.table).head().await?.is_some(),
            _ => {
                let message = format!("{}: the checkpoint is of a table on another kind of store", self.table);
                return Err(Error::request(message).with_hint("begin without the checkpoint"));
            }
        };
        if !is_here {
            let committed = self.committed(part);
            return Err(match committed.head().await? {
                None => lost(part, &self.table),
                Some(_) => {
                    let message = format!("{committed} was committed by a later checkpoint than this one");
                    Error::request(message).with_hint("go on from the newest checkpoint")
                }
            });
        }
        match (&state.upload, self.table.multipart()) {
            (Some(upload), Some(store)) => {
                let target = self.upload(self.committed(part), store, upload.clone(), state.tail.clone());
                Ok(Target::Upload(target))
            }
            _ => FileTarget::resume(place, state.bytes).await.map(Target::File),
        }
    }

    fn upload(&self, place: Location, store: &Arc<dyn MultipartStore>, upload: Upload, tail: Vec<u8>) -> UploadTarget {
        UploadTarget { place, store: store.clone(), upload, tail, part_bytes: self.upload_bytes.max(1) }
    }
}

/// Takes the bytes of one part.
pub(super) enum Target {
    File(FileTarget),
    Upload(UploadTarget),
    Staged(StagedTarget),
}

impl Target {
    /// How many bytes are worth a call of `write`.
    pub(super) fn worthwhile(&self) -> usize {
        match self {
            Self::File(_) => FILE_BYTES,
            Self::Upload(target) => target.part_bytes,
            Self::Staged(_) => STAGED_BYTES,
        }
    }

    /// Appends bytes.
    pub(super) async fn write(&mut self, bytes: Vec<u8>) -> Result<()> {
        match self {
            Self::File(target) => target.write(bytes).await,
            Self::Upload(target) => target.write(bytes).await,
            Self::Staged(target) => target.write(bytes).await,
        }
    }

    /// Makes what was written last over a crash, together with what this returns: the upload and its tail. A part that cannot
    /// be gone on with is an error.
    pub(super) async fn sync(&mut self) -> Result<(Option<Upload>, Vec<u8>)> {
        match self {
            Self::File(target) => target.sync().await.map(|()| (None, Vec::new())),
            Self::Upload(target) => Ok((Some(target.upload.clone()), target.tail.clone())),
            Self::Staged(target) => Err(Error::internal(format!("{} cannot be gone on with", target.place))),
        }
    }

    /// Ends the part and makes it last.
    pub(super) async fn close(&mut self) -> Result<Option<Upload>> {
        match self {
            Self::File(target) => target.sync().await.map(|()| None),
            Self::Upload(target) => target.close().await.map(Some),
            Self::Staged(target) => target.close().await.map(|()| None),
        }
    }

    /// Removes what was written. The error that leads here counts; what cannot be cleaned up is hidden anyway.
    pub(super) async fn discard(self) {
        match self {
            Self::File(target) => drop(target.place.delete().await),
            Self::Upload(target) => drop(target.store.abort_multipart(&target.place.path, &target.upload.id).await),
            Self::Staged(mut target) => drop(target.upload.abort().await),
        }
    }
}

/// A local file under its hidden name.
pub(super) struct FileTarget {
    place: Location,
    file: Arc<File>,
    /// Whether its entry in the directory is on the disk.
    is_entered: bool,
}

impl FileTarget {
    async fn resume(place: Location, length: u64) -> Result<Self> {
        let Some(path) = place.file_path() else { return Err(Error::internal(format!("{place} is no local file"))) };
        let opened = blocking(move || {
            let mut file = OpenOptions::new().write(true).open(path)?;
            let found = file.metadata()?.len();
            if found > length {
                file.set_len(length)?;
            }
            file.seek(SeekFrom::Start(length))?;
            Ok((file, found))
        });
        let (file, found) = opened.await.map_err(|error| error.context(&place))?;
        if found < length {
            let message = format!("{place} has {found} bytes, and had {length} at the checkpoint");
            return Err(Error::corrupt(message).with_hint("bring the file back, or begin without the checkpoint"));
        }
        Ok(Self { place, file: Arc::new(file), is_entered: true })
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<()> {
        let file = self.file.clone();
        blocking(move || (&*file).write_all(&bytes)).await.map_err(|error| error.context(&self.place))
    }

    async fn sync(&mut self) -> Result<()> {
        let (file, path) = (self.file.clone(), self.place.file_path().unwrap_or_default());
        blocking(move || sync_open(&file, &path)).await.map_err(|error| error.context(&self.place))?;
        if !self.is_entered {
            sync_directory(&self.place).await?;
            self.is_entered = true;
        }
        Ok(())
    }
}

/// A multipart upload to where the part will be. Committing it is completing it, which shows all of it at once.
pub(super) struct UploadTarget {
    place: Location,
    store: Arc<dyn MultipartStore>,
    upload: Upload,
    tail: Vec<u8>,
    part_bytes: usize,
}

impl UploadTarget {
    async fn write(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.tail.extend(bytes);
        while self.tail.len() >= self.part_bytes {
            let rest = self.tail.split_off(self.part_bytes);
            let part = std::mem::replace(&mut self.tail, rest);
            self.put(part).await?;
        }
        Ok(())
    }

    async fn put(&mut self, bytes: Vec<u8>) -> Result<()> {
        let place = &self.place;
        let put = self.store.put_part(&place.path, &self.upload.id, self.upload.parts.len(), bytes.into());
        self.upload.parts.push(put.await.map_err(|error| place.error(error))?.content_id);
        Ok(())
    }

    async fn close(&mut self) -> Result<Upload> {
        let tail = std::mem::take(&mut self.tail);
        if !tail.is_empty() || self.upload.parts.is_empty() {
            self.put(tail).await?;
        }
        Ok(self.upload.clone())
    }
}

/// Completes an upload, so that its object is there.
pub(super) async fn complete_upload(place: &Location, upload: &Upload) -> object_store::Result<()> {
    let missing = || object_store::Error::NotSupported { source: "the store has no uploads to go on with".into() };
    let store = place.multipart().ok_or_else(missing)?;
    let parts = upload.parts.iter().map(|id| PartId { content_id: id.clone() }).collect();
    store.complete_multipart(&place.path, &upload.id, parts).await.map(drop)
}

/// A file that a store takes whole or not at all.
pub(super) struct StagedTarget {
    place: Location,
    upload: Box<dyn MultipartUpload>,
}

impl StagedTarget {
    async fn write(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.upload.put_part(bytes.into()).await.map_err(|error| self.place.error(error))
    }

    async fn close(&mut self) -> Result<()> {
        self.upload.complete().await.map(drop).map_err(|error| self.place.error(error))
    }
}

/// What a hidden object says of an upload that is not yet committed: no store lists uploads through our client, and one that
/// nobody knows costs until somebody looks for it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct UploadNote {
    id: String,
    path: String,
}

impl UploadNote {
    async fn write(&self, note: &Location) -> Result<()> {
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Error::internal("the note of an upload is not encodable").with_source(error))?;
        write_durably(note, bytes).await
    }

    /// Ends the upload that `note` remembers, and the note. One that is over already is no error.
    pub(super) async fn withdraw(note: &Location) -> Result<()> {
        let found = match note.store.get(&note.path).await {
            Ok(found) => found.bytes().await.map_err(|error| note.error(error))?,
            Err(object_store::Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(note.error(error)),
        };
        if let (Ok(Self { id, path }), Some(store)) = (serde_json::from_slice::<Self>(&found), note.multipart())
            && let Ok(path) = Path::parse(path)
        {
            // Who ends what is over gets an error that differs from store to store.
            let _ = store.abort_multipart(&path, &id).await;
        }
        note.delete().await
    }
}
