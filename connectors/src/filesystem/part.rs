//! Names of part files, and what checkpoints hold of them.
//!
//! ```text
//! part-<job>.<opened>-<subtask>-<number>.<extension>             published
//! .part-….inprogress                                             being written, or complete and not yet committed
//! .part-….upload                                                 the id of the multipart upload that becomes the part
//! .part-….ready                                                  committed, to be published when the job ends
//! ```

use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tidemill_core::error::{Error, Result};
use tidemill_core::sink::{Committable, WriterState};

use super::partition_commit::Progress;
use crate::store::Location;

pub(super) const IN_PROGRESS: &str = ".inprogress";
pub(super) const UPLOAD: &str = ".upload";
pub(super) const READY: &str = ".ready";

/// The name of a part file: `part-<job>.<opened>-<subtask>-<number>.<extension>`. Together with the time at which its writer
/// opened, a job's name is unique over restarts, and parts of one subtask sort in the order in which they were written. A job's
/// name has no dot here, so that no job takes the files of another whose name goes on behind its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct PartName(String);

impl PartName {
    pub(super) fn new(job: &str, opened: i64, subtask: usize, number: u64, extension: &str) -> Self {
        Self(format!("{}{}-{subtask}-{number}.{extension}", Self::prefix(job), opened.max(0)))
    }

    /// How the names of all parts of `job` begin.
    pub(super) fn prefix(job: &str) -> String {
        format!("part-{job}.")
    }

    /// The part behind a hidden name with this ending, if it is one of `job`.
    pub(super) fn of_hidden(name: &str, job: &str, ending: &str) -> Option<Self> {
        let name = name.strip_prefix('.')?.strip_suffix(ending)?;
        name.starts_with(&Self::prefix(job)).then(|| Self(name.to_owned()))
    }

    /// A hidden name as long as any that a part gets.
    pub(super) fn probe(job: &str, extension: &str) -> String {
        let name = Self::new(job, 9_999_999_999_999, 9_999, 9_999_999, extension);
        format!(".{}{IN_PROGRESS}#1", name.0)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The job that wrote it.
    pub(super) fn job(&self) -> &str {
        self.0.strip_prefix("part-").and_then(|name| name.split('.').next()).unwrap_or_default()
    }

    /// Committed, to be published when the job ends.
    pub(super) fn ready(&self) -> String {
        format!(".{}{READY}", self.0)
    }

    /// Subtask, then what orders its parts.
    pub(super) fn order(&self) -> Option<(usize, (i64, u64))> {
        let mut numbers = self.0.split('.').nth(1)?.splitn(3, '-');
        let opened = numbers.next()?.parse().ok()?;
        let subtask = numbers.next()?.parse().ok()?;
        Some((subtask, (opened, numbers.next()?.parse().ok()?)))
    }

    /// When the writer that named it opened.
    pub(super) fn opened(&self) -> i64 {
        self.order().map_or(i64::MIN, |(_, (opened, _))| opened)
    }

    /// What a hidden name stands for, of whatever job: the part, and its ending.
    pub(super) fn of_any(name: &str) -> Option<(Self, &'static str)> {
        let hidden = name.strip_prefix('.')?;
        let endings = [IN_PROGRESS, UPLOAD, READY].into_iter();
        endings.filter_map(|ending| Some((Self(hidden.strip_suffix(ending)?.to_owned()), ending))).next()
    }

    /// How the file of it ends.
    pub(super) fn extension(&self) -> &str {
        self.0.splitn(3, '.').nth(2).unwrap_or_default()
    }

    /// The name, among those of files, of the one that it becomes a piece of. Subtasks of a job that had more of them share.
    pub(super) fn whole<'a>(&self, names: &'a [String]) -> Option<&'a String> {
        let (subtask, _) = self.order()?;
        names.get(subtask.checked_rem(names.len())?)
    }

    fn is_sound(&self) -> bool {
        self.0.starts_with("part-") && !self.0.contains('/') && self.order().is_some()
    }
}

/// A part and the folder of its partition below the table; empty where the table has none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) folder: String,
    pub(super) name: PartName,
}

impl Part {
    fn named(&self, table: &Location, name: &str) -> Location {
        folder_of(table, &self.folder).child(name)
    }

    /// Where its bytes are until it is committed.
    pub(super) fn in_progress(&self, table: &Location) -> Location {
        self.named(table, &format!(".{}{IN_PROGRESS}", self.name.0))
    }

    /// What remembers its multipart upload until it is committed.
    pub(super) fn upload_note(&self, table: &Location) -> Location {
        self.named(table, &format!(".{}{UPLOAD}", self.name.0))
    }

    /// Where it waits for the end of its job.
    pub(super) fn ready(&self, table: &Location) -> Location {
        self.named(table, &self.name.ready())
    }

    /// Where readers find it.
    pub(super) fn published(&self, table: &Location) -> Location {
        self.named(table, &self.name.0)
    }

    fn is_sound(&self) -> bool {
        self.name.is_sound() && Path::parse(&self.folder).is_ok()
    }
}

/// The folder of a partition.
pub(super) fn folder_of(table: &Location, folder: &str) -> Location {
    if folder.is_empty() { table.clone() } else { table.child(folder) }
}

/// A multipart upload and the parts that it has, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Upload {
    pub(super) id: String,
    pub(super) parts: Vec<String>,
}

/// What a committable says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Prepared {
    /// A part that is complete; as a file under its hidden name, or as an upload.
    Part(Part, Option<Upload>),
    /// How far a subtask has come, for tables whose partitions are committed.
    Progress(Progress),
}

impl Prepared {
    pub(super) fn encode(&self) -> Result<Committable> {
        serde_json::to_vec(self)
            .map(Committable)
            .map_err(|error| Error::internal("a part is not encodable").with_source(error))
    }

    pub(super) fn decode(committable: &Committable) -> Result<Self> {
        let prepared: Self = serde_json::from_slice(&committable.0)
            .map_err(|error| Error::corrupt("a committable of a file sink is not readable").with_source(error))?;
        match &prepared {
            Self::Part(part, _) if !part.is_sound() => Err(Error::corrupt("a committable names no part file")),
            _ => Ok(prepared),
        }
    }
}

/// A part in progress at a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartState {
    pub(super) part: Part,
    /// When it was opened, and when rows last came, in milliseconds since the epoch.
    pub(super) created: i64,
    pub(super) written: i64,
    /// Its length, that of the tail included.
    pub(super) bytes: u64,
    /// Where its bytes are: `None` for a file under the hidden name, which is as long as `bytes`.
    pub(super) upload: Option<Upload>,
    /// What is too short to be a part of the upload.
    #[serde(skip)]
    pub(super) tail: Vec<u8>,
}

impl PartState {
    /// `length of the head (4 bytes) | head as JSON | tail`
    pub(super) fn encode(&self) -> Result<WriterState> {
        let not_encodable = || Error::internal("the state of a part is not encodable");
        let head = serde_json::to_vec(self).map_err(|error| not_encodable().with_source(error))?;
        let length = u32::try_from(head.len()).map_err(|_| not_encodable())?;
        Ok(WriterState([&length.to_le_bytes()[..], &head, &self.tail].concat()))
    }

    pub(super) fn decode(state: &WriterState) -> Result<Self> {
        let corrupt = || Error::corrupt("the state of a file sink is not readable");
        let (length, rest) = state.0.split_first_chunk::<4>().ok_or_else(corrupt)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (head, tail) = rest.split_at_checked(length).ok_or_else(corrupt)?;
        let head: Self = serde_json::from_slice(head).map_err(|error| corrupt().with_source(error))?;
        match head.part.is_sound() {
            true => Ok(Self { tail: tail.to_vec(), ..head }),
            false => Err(corrupt()),
        }
    }
}

/// The error for rows that a checkpoint counts on and nobody has any more.
pub(super) fn lost(part: &Part, table: &Location) -> Error {
    let place = part.published(table);
    Error::corrupt(format!("{place} is neither published nor there under a hidden name: its rows would be lost"))
        .with_hint("bring the file back, or begin without the checkpoint")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_job_subtask_and_order() {
        let name = PartName::new("job-7", 1_000, 2, 13, "csv.gz");
        assert_eq!(name.as_str(), "part-job-7.1000-2-13.csv.gz");
        assert_eq!(name.order(), Some((2, (1_000, 13))));
        assert_eq!((name.job(), name.opened(), name.extension()), ("job-7", 1_000, "csv.gz"));
        assert_eq!(PartName::of_hidden(&name.ready(), "job-7", READY), Some(name.clone()));
        assert_eq!(PartName::of_hidden(&name.ready(), "job-71", READY), None);
        assert_eq!(PartName::of_hidden(&name.ready(), "job", READY), None);
        assert_eq!(PartName::of_hidden(name.as_str(), "job-7", READY), None);
        assert_eq!(PartName::of_any(&name.ready()), Some((name.clone(), READY)));
        assert_eq!(PartName::of_any(name.as_str()), None);
    }

    #[test]
    fn every_part_belongs_to_a_file_however_many_there_are() {
        let of = |subtask, count: usize| {
            let names: Vec<String> = (1..=count).map(|number| number.to_string()).collect();
            PartName::new("j", 1, subtask, 0, "csv").whole(&names).cloned()
        };
        assert_eq!([of(0, 3), of(2, 3), of(2, 2), of(4, 3)].map(Option::unwrap), ["1", "3", "1", "2"]);
        assert_eq!(of(0, 0), None);
    }

    #[test]
    fn states_go_there_and_back() {
        let part = Part { folder: "a=1".into(), name: PartName::new("j", 1, 0, 0, "csv") };
        let upload = Some(Upload { id: "x".into(), parts: vec!["e1".into()] });
        let state = PartState { part, created: 1, written: 2, bytes: 12, upload, tail: b"1,\xFF\n".to_vec() };
        let encoded = state.encode().unwrap();
        assert_eq!(PartState::decode(&encoded).unwrap(), state);
        for cut in [0, 3, 10] {
            assert!(PartState::decode(&WriterState(encoded.0[..cut].to_vec())).is_err());
        }
    }

    #[test]
    fn a_committable_that_leads_out_of_its_table_is_corrupt() {
        for (folder, name) in [("../x", "part-j.1-0-0.csv"), ("", "part-j.1-0-0/../../x"), ("", "x")] {
            let part = Part { folder: folder.into(), name: PartName(name.into()) };
            let encoded = Prepared::Part(part, None).encode().unwrap();
            assert!(Prepared::decode(&encoded).is_err(), "{folder} {name}");
        }
    }
}
