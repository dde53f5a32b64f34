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
use std::sync::atomic::Ordering;

use tidemill_core::error::{Error, Result};
use tidemill_core::sink::{Committable, Predecessor, WriterState};

use super::{CommitSettings, FileCommitter, exists_already, folder_in_the_way, is_empty_folder, is_file, is_folder};
use crate::filesystem::part::{IN_PROGRESS, Part, PartName, PartState, Prepared, READY, Upload, lost};
use crate::filesystem::replace::names_in;
use crate::store::{Location, is_denied, make_folder, publish};

/// What a job goes on from.
struct Held {
    committables: Vec<(Part, Option<Upload>)>,
    states: Vec<PartState>,
    /// The jobs whose hidden files are all its own.
    jobs: BTreeSet<String>,
}

/// A part that is hidden in a folder, and how its name ends.
type Hidden = (PartName, &'static str);

/// What is hidden when a job goes on.
#[derive(Default)]
struct Found {
    here: Vec<Hidden>,
    /// Where the job had several subtasks or one.
    there: Vec<Hidden>,
}

impl Found {
    fn is_here(&self, part: &PartName) -> bool {
        self.here.iter().any(|(found, _)| found == part)
    }

    fn has(&self, part: &PartName) -> bool {
        self.is_here(part) || self.there.iter().any(|(found, _)| found == part)
    }
}

impl Held {
    fn all(&self) -> impl Iterator<Item = &Part> + Clone {
        let complete = self.committables.iter().map(|(part, _)| part);
        complete.chain(self.states.iter().map(|state| &state.part))
    }

    fn parts(&self) -> impl Iterator<Item = &PartName> + Clone {
        self.all().map(|part| &part.name)
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
    /// Brings what a job goes on from to where this sink looks for it, and clears the way for its files. Of a run that is nobody's nothing
    /// is brought and nothing stays.
    ///
    /// Errors: it cannot become a piece of the files that the sink has now, or is gone; nothing was changed.
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
        let there = self.settings.elsewhere.as_ref().map(|elsewhere| self.at(elsewhere));
        let found = match of {
            Predecessor::Nobody => Found::default(),
            _ => Found { here: self.hidden().await?, there: there_if_allowed(there.as_ref()).await? },
        };
        self.check_pieces(&held, &found)?;
        let has_file_in_the_way = self.has_file_in_the_way().await?;
        // A job that goes on has not ended: nothing of it can have become a piece of a file that is there.
        let goes_on = of == Predecessor::Other || !held.states.is_empty();
        if (goes_on || has_file_in_the_way)
            && let Some(part) = held.all().find(|part| !found.has(&part.name))
        {
            return Err(lost(part, self.table()));
        }
        let Some(there) = there else { return self.make_room(has_file_in_the_way).await };
        match of {
            Predecessor::Nobody => self.check_folder(&there)?,
            _ => self.commit_there(&there, &held, &found).await?,
        }
        self.make_room(has_file_in_the_way).await?;
        if of != Predecessor::Nobody {
            self.bring_from(&there, &held).await?;
        }
        self.leave(&there, jobs).await
    }

    /// Has writers name their parts as of later than those that wait for the end.
    pub(super) async fn come_behind(&self) -> Result<()> {
        if self.settings.publication.names().is_empty() {
            return Ok(());
        }
        let last = self.ready_parts().await?.values().flatten().map(PartName::opened).max();
        if let Some(last) = last {
            self.settings.opened_min.fetch_max(last.saturating_add(1), Ordering::Relaxed);
        }
        Ok(())
    }

    /// The same committer for what is hidden in another folder.
    fn at(&self, elsewhere: &Location) -> Self {
        let settings = CommitSettings { table: elsewhere.clone(), elsewhere: None, ..self.settings.clone() };
        Self { settings, is_new: false, partitions: None, fence: self.fence.clone() }
    }

    /// Whether a file that is to be replaced has the name of the folder.
    ///
    /// Errors: it is what the job wrote with one subtask, and had not been there before.
    async fn has_file_in_the_way(&self) -> Result<bool> {
        if self.settings.keeps_old || self.is_one_file() || !is_file(self.table()).await? {
            return Ok(false);
        }
        if !self.settings.has_ended_elsewhere {
            return Ok(true);
        }
        let error = format!(
            "{}: a run of the job with a parallelism of 1 had come to its end: the file is complete",
            self.table()
        );
        Err(Error::request(error).with_hint("begin once more to replace it, or choose another path"))
    }

    /// Makes the folder in the place of a file: it cannot stay until those that replace it are complete.
    async fn make_room(&self, has_file_in_the_way: bool) -> Result<()> {
        if has_file_in_the_way {
            self.table().delete().await?;
        }
        make_folder(self.table()).await
    }

    /// Refuses a folder that has the name of the one file and which nothing says to be of this job.
    fn check_folder(&self, there: &Self) -> Result<()> {
        match self.is_one_file() && is_empty_folder(there.table()) {
            true if self.settings.keeps_old => Err(exists_already(there.table())),
            true => Err(folder_in_the_way(there.table())),
            false => Ok(()),
        }
    }

    /// Commits there what was to be committed.
    async fn commit_there(&self, there: &Self, held: &Held, found: &Found) -> Result<()> {
        let is_there = |part: &Part| found.there.iter().any(|(found, _)| *found == part.name);
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
        outcome
    }

    /// Gives all that is held its place here.
    async fn bring_from(&self, there: &Self, held: &Held) -> Result<()> {
        let hidden = there_if_allowed(Some(there)).await?;
        for (part, ending) in hidden.iter().filter(|(part, ending)| held.has(part, ending)) {
            let name = format!(".{}{ending}", part.as_str());
            publish(&there.table().child(&name), &self.table().child(&name)).await?;
        }
        Ok(())
    }

    /// Removes what is left there, and the folder that has the name of the one file.
    async fn leave(&self, there: &Self, jobs: &BTreeSet<String>) -> Result<()> {
        if let Err(error) = there.clean_unless_ending(jobs).await
            && !is_denied(&error)
        {
            return Err(error);
        }
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

    /// Removes what is hidden, but not while it is published: what a marker names counts already.
    async fn clean_unless_ending(&self, jobs: &BTreeSet<String>) -> Result<()> {
        match self.markers().await?.is_empty() {
            true => self.clean(jobs, |_, _| false).await,
            false => Ok(()),
        }
    }

    /// The parts that are hidden in this folder, of whatever job, and their endings.
    async fn hidden(&self) -> Result<Vec<Hidden>> {
        Ok(names_in(self.table()).await?.iter().filter_map(|name| PartName::of_any(name)).collect())
    }

    /// Refuses parts that the files which there are now cannot hold.
    fn check_pieces(&self, held: &Held, found: &Found) -> Result<()> {
        let brought = found.there.iter().filter(|(part, ending)| held.has(part, ending)).map(|(part, _)| part);
        let parts = held.parts().chain(brought);
        let (count, format) = (self.settings.publication.names().len(), &self.settings.format);
        let is_alike = |part: &PartName| part.extension() == format.extension();
        let has_file =
            |part: &PartName| part.order().is_none_or(|(subtask, _)| subtask < count) || format.is_concatenable();
        if let Some(part) = parts.clone().find(|part| !is_alike(part) && found.is_here(part)) {
            let (was, is) = (part.extension(), format.extension());
            let error = format!("{}: the sink wrote '{was}' and writes '{is}' now", self.target());
            return Err(Error::request(error).with_hint("go on with the format and compression that it had"));
        }
        match parts.clone().all(|part| is_alike(part) && has_file(part)) {
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
        let target = self.target();
        let error = format!("{target}: the sink had a parallelism of {before} and has {now} now: {reason}");
        Error::request(error).with_hint("go on with the parallelism that it had")
    }

    /// The file, or the folder of files.
    fn target(&self) -> &Location {
        self.settings.elsewhere.as_ref().filter(|_| self.is_one_file()).unwrap_or(self.table())
    }

    fn is_one_file(&self) -> bool {
        self.settings.elsewhere.as_ref().is_some_and(|elsewhere| elsewhere.parent().path == self.table().path)
    }
}

/// What is hidden there. Nothing where nobody may look: who has written there could.
async fn there_if_allowed(there: Option<&FileCommitter>) -> Result<Vec<Hidden>> {
    let Some(there) = there else { return Ok(Vec::new()) };
    match there.hidden().await {
        Err(error) if is_denied(&error) => Ok(Vec::new()),
        hidden => hidden,
    }
}
