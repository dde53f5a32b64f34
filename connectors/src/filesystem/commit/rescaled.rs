//! A sink with names for its files that goes on with another number of subtasks.
//!
//! ```text
//! several -> more    each subtask goes on with its file, new ones begin new ones
//! several -> fewer   what subtasks wrote that there are no more goes to the files of the others
//! one <-> several    dir/.part-… <-> dir/out/.part-…: the one file has what is hidden beside it, the folder within it
//! ```
//!
//! What is hidden elsewhere is renamed, before a row is read. An upload under way has the name of its object for good: it cannot be.

use std::collections::BTreeSet;

use tidemill_core::error::{Error, Result};
use tidemill_core::sink::{Committable, Predecessor, WriterState};

use super::{CommitSettings, FileCommitter, folder_in_the_way, is_folder};
use crate::filesystem::part::{IN_PROGRESS, Part, PartName, PartState, Prepared, READY, Upload};
use crate::filesystem::replace::names_in;
use crate::store::{is_denied, publish};

/// What a job goes on from.
struct Held {
    committables: Vec<(Part, Option<Upload>)>,
    states: Vec<PartState>,
    /// The jobs whose hidden files are all its own.
    jobs: BTreeSet<String>,
}

impl Held {
    fn parts(&self) -> impl Iterator<Item = &PartName> + Clone {
        let complete = self.committables.iter().map(|(part, _)| part);
        complete.chain(self.states.iter().map(|state| &state.part)).map(|part| &part.name)
    }

    /// Whether a hidden file is part of it.
    fn has(&self, part: &PartName, ending: &str) -> bool {
        match ending {
            READY => self.jobs.contains(part.job()) || self.parts().any(|held| held == part),
            IN_PROGRESS => self.states.iter().any(|state| state.part.name == *part),
            _ => false,
        }
    }
}

impl FileCommitter {
    /// Brings what a job goes on from to where this sink looks for it. Of a run that is nobody's nothing is brought and nothing stays.
    ///
    /// Errors: it cannot become a piece of the files that the sink has now; nothing was changed.
    pub(super) async fn take_over(
        &self,
        committables: &[Committable],
        states: &[WriterState],
        jobs: &BTreeSet<String>,
        of: Predecessor,
    ) -> Result<()> {
        if self.settings.publication.names().is_empty() {
            return Ok(());
        }
        // One that cannot be read is an error when it is committed, behind the others.
        let complete = committables.iter().filter_map(|committable| match Prepared::decode(committable) {
            Ok(Prepared::Part(part, upload)) => Some((part, upload)),
            _ => None,
        });
        let states = states.iter().map(PartState::decode).collect::<Result<_>>()?;
        let held = Held { committables: complete.collect(), states, jobs: jobs.clone() };
        self.check_pieces(held.parts())?;
        let Some(elsewhere) = &self.settings.elsewhere else { return Ok(()) };
        let settings = CommitSettings { table: elsewhere.clone(), elsewhere: None, ..self.settings.clone() };
        let there = Self { settings, is_new: false, partitions: None };
        if of != Predecessor::Nobody {
            self.bring_from(&there, &held).await?;
        }
        self.leave(&there, jobs).await
    }

    /// Commits there what was to be committed, then gives all that is held its place here.
    async fn bring_from(&self, there: &Self, held: &Held) -> Result<()> {
        let hidden = there.hidden().await?;
        self.check_pieces(hidden.iter().filter(|(part, ending)| held.has(part, ending)).map(|(part, _)| part))?;
        let is_there = |part: &Part| hidden.iter().any(|(found, _)| *found == part.name);
        if held.states.iter().any(|state| state.upload.is_some() && is_there(&state.part)) {
            let error = self.refusal(held.parts(), "an upload that is under way cannot become another file");
            return Err(
                error.with_hint("go on with the parallelism that it had, or end the job behind a savepoint first")
            );
        }
        let mut outcome = Ok(());
        for (part, upload) in held.committables.iter().filter(|(part, _)| is_there(part)) {
            outcome = outcome.and(there.commit_part(part, upload.as_ref()).await);
        }
        outcome?;
        for (part, ending) in there.hidden().await?.iter().filter(|(part, ending)| held.has(part, ending)) {
            let name = format!(".{}{ending}", part.as_str());
            publish(&there.table().child(&name), &self.table().child(&name)).await?;
        }
        Ok(())
    }

    /// Removes what is left there, and the folder that has the name of the one file.
    async fn leave(&self, there: &Self, jobs: &BTreeSet<String>) -> Result<()> {
        let cleaned = there.clean(jobs, |_, _| false).await;
        cleaned.or_else(|error| if is_denied(&error) { Ok(()) } else { Err(error) })?;
        let folder = there.table();
        if !self.is_one_file() || !is_folder(folder).await? {
            return Ok(());
        }
        if let Some(path) = folder.file_path() {
            // Not empty means that something else is there.
            let _ = std::fs::remove_dir(path);
        }
        match is_folder(folder).await? {
            true => Err(folder_in_the_way(folder)),
            false => Ok(()),
        }
    }

    /// The parts that are hidden in this folder, of whatever job, and their endings. None where nobody may look: who has written there
    /// could.
    async fn hidden(&self) -> Result<Vec<(PartName, &'static str)>> {
        match names_in(self.table()).await {
            Err(error) if is_denied(&error) => Ok(Vec::new()),
            names => Ok(names?.iter().filter_map(|name| PartName::of_any(name)).collect()),
        }
    }

    /// Refuses parts that the files which there are now cannot hold.
    fn check_pieces<'a>(&self, parts: impl Iterator<Item = &'a PartName> + Clone) -> Result<()> {
        let (count, format) = (self.settings.publication.names().len(), &self.settings.format);
        let fits = |part: &PartName| {
            let has_file = part.order().is_none_or(|(subtask, _)| subtask < count);
            part.extension() == format.extension() && (has_file || format.is_concatenable())
        };
        match parts.clone().all(fits) {
            true => Ok(()),
            false => Err(self.refusal(parts, "its files cannot be put together")),
        }
    }

    /// The error for a job that cannot go on with another parallelism of this sink.
    fn refusal<'a>(&self, parts: impl Iterator<Item = &'a PartName>, reason: &str) -> Error {
        let last = parts.filter_map(PartName::order).map(|(subtask, _)| subtask).max().unwrap_or_default();
        let now = self.settings.publication.names().len();
        let before = match (now, last) {
            (1, last) => format!("{} or more", last.max(1) + 1),
            (_, 0) => "1".to_owned(),
            (_, last) => format!("{} or more", last + 1),
        };
        let target = self.settings.elsewhere.as_ref().filter(|_| self.is_one_file()).unwrap_or(self.table());
        let error = format!("{target}: the sink had a parallelism of {before} and has {now} now: {reason}");
        Error::request(error).with_hint("go on with the parallelism that it had")
    }

    fn is_one_file(&self) -> bool {
        self.settings.elsewhere.as_ref().is_some_and(|elsewhere| elsewhere.parent().path == self.table().path)
    }
}
