//! Where the jobs of a session keep their checkpoints, and what they begin from.

use std::sync::Arc;

use tidemill_connectors::store::Location;
use tidemill_core::Result;
use tidemill_exec::checkpoint::savepoint::SAVEPOINT_MANIFEST;
use tidemill_exec::runtime::{Begin, Persistence, StoreFolder};
use xxhash_rust::xxh3::xxh3_64;

use crate::persistence::{from_settings, store_folder};

use super::fingerprint::{Fingerprint, StatementFolders};
use super::insert::INSERT_INTO;
use super::session::Session;

/// What the job of a query is called.
pub const QUERY: &str = "query";

/// What lies beside the folders of jobs, or is found by its name within them.
const RESERVED: [&str; 7] =
    ["lock", "job.json", "control.json", "savepoints", "manifests", "segments", SAVEPOINT_MANIFEST];
/// The most characters of a name that nothing is cut off, and the most bytes.
const PLAIN_MAX: (usize, usize) = (100, 200);
/// The most characters that are kept of a name that is changed.
const CHANGED_CHARACTERS_MAX: usize = 60;

/// A folder with a sub-folder of checkpoints for each job, named by its sink: what `tidemill run --local` works in.
#[derive(Clone, Debug)]
pub struct JobFolders {
    /// The folder.
    pub dir: Location,
    /// Part of the names of the files that these jobs write; the same whenever they go on.
    pub id: Arc<str>,
    /// Whether jobs go on from their newest checkpoints; else checkpoints in a folder are an error.
    pub resume: bool,
    /// The savepoint that the job in this folder begins from, or had begun from, for when it goes on and has no checkpoint yet.
    pub origin: Option<String>,
    /// Whether that job owns the savepoint.
    pub claims: bool,
    /// Which of the folders of jobs with the same sinks is whose.
    pub statements: StatementFolders,
}

/// A job that is about to begin.
#[derive(Clone, Debug)]
pub(super) struct NewJob {
    /// What it does: `insert into t`.
    pub name: String,
    /// Its name as a folder's, which no other job of the session has.
    pub folder: String,
}

impl JobFolders {
    /// The folder of this name.
    pub fn folder(&self, name: &str) -> StoreFolder {
        store_folder(&self.dir.child(name))
    }
}

/// The name of a job's sub-folder, which no other job has: its sinks as they are where folders can be called so, else what is
/// left of them with a checksum behind it. `number` tells jobs with the same sinks apart, from 1.
pub fn folder_name(job: &str, number: usize) -> String {
    let sinks: Vec<&str> = job.strip_prefix(INSERT_INTO).unwrap_or(job).split(", ").collect();
    let plain = sinks.join("+");
    let name = match sinks.iter().all(|sink| is_plain(sink)) && plain.chars().count() <= PLAIN_MAX.0 {
        true if plain.len() <= PLAIN_MAX.1 => plain,
        _ => {
            let kept = plain.chars().take(CHANGED_CHARACTERS_MAX);
            let kept: String = kept.map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            // No plain name has this sign.
            format!("{kept}={:016x}", xxh3_64(job.to_lowercase().as_bytes()))
        }
    };
    match number {
        0 | 1 => name,
        number => format!("{name}-{number}"),
    }
}

/// The name of the folder of one run of a job.
pub fn run_folder(job: &str, run: &str) -> String {
    format!("{}-{run}", folder_name(job, 1))
}

/// Whether a sink's name can stand in the name of a folder, and is no other's: not hidden, none that is taken, and not such as
/// tells jobs with the same sinks apart.
fn is_plain(sink: &str) -> bool {
    let is_repetition = sink.rsplit_once('-').is_some_and(|(_, number)| number.parse::<u64>().is_ok());
    let is_made_of_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    !sink.is_empty()
        && sink.chars().all(is_made_of_plain)
        && !sink.starts_with('.')
        && !RESERVED.contains(&sink)
        && !is_repetition
}

impl Session {
    /// Has every job from now on keep its checkpoints in a sub-folder of this folder.
    pub fn set_job_folders(&mut self, folders: JobFolders) {
        self.folders = Some(folders);
    }

    /// A place that a URL or path names.
    pub fn resolve(&self, url: &str) -> Result<Location> {
        self.stores().resolve(url)
    }

    /// The job of a statement that says what `fingerprint` stands for.
    pub(super) fn new_job(&self, name: impl Into<String>, fingerprint: Option<Fingerprint>) -> NewJob {
        let name = name.into();
        let nothing = StatementFolders::default();
        let statements = self.folders.as_ref().map_or(&nothing, |folders| &folders.statements);
        let mut folders = statements.numbers(&name, fingerprint).map(|number| folder_name(&name, number));
        let is_free = |folder: &String| self.jobs.iter().all(|job| job.folder != *folder);
        let folder = folders.find(is_free).unwrap_or_default();
        NewJob { name, folder }
    }

    /// What a job keeps, and begins from.
    pub(super) fn persistence(&self, NewJob { name, folder }: &NewJob) -> Result<Persistence> {
        let Some(folders) = &self.folders else {
            // The rows of a query go to whoever asks, who is gone with the process.
            let own = (*name != QUERY).then(|| run_folder(name, &self.run_id()));
            return from_settings(&self.settings, &self.stores(), own);
        };
        let given = from_settings(&self.settings, &self.stores(), None)?;
        let (begin, claims) = match folders.resume {
            // What the job has of its own comes first, then what it had begun from.
            true => {
                let origin = folders.origin.as_ref().map(|path| self.resolve(path)).transpose()?;
                (Begin::Resume { origin: origin.as_ref().map(store_folder) }, folders.claims)
            }
            false => (given.begin, given.claims),
        };
        Ok(Persistence { folder: Some(folders.folder(folder)), begin, claims, ..given })
    }
}

#[cfg(test)]
mod tests {
    use super::super::insert::job_name;
    use super::*;

    fn name(sinks: &[&str]) -> String {
        folder_name(&job_name(sinks.iter().copied()), 1)
    }

    #[test]
    fn folders_are_named_by_sinks() {
        assert_eq!(name(&["counts"]), "counts");
        assert_eq!(name(&["über_1.daily-sums"]), "über_1.daily-sums");
        assert_eq!(name(&["a", "b"]), "a+b");
        assert_eq!(name(&["b", "a"]), "a+b");
        assert_eq!(folder_name(&job_name(["counts"]), 2), "counts-2");
        assert_eq!(name(&["x".repeat(100).as_str()]), "x".repeat(100));
    }

    #[test]
    fn no_two_jobs_share_a_folder() {
        let (long, longer) = ("x".repeat(101), "x".repeat(102));
        let sinks: &[&[&str]] = &[
            &["a b"],
            &["a_b"],
            &["a/b"],
            &["a", "b"],
            &["a+b"],
            &["a, b"],
            &["`a", "b`"],
            &["a", "b, c"],
            &["a, b", "c"],
            &["a", "b", "c"],
            &["../x"],
            &["_.._x"],
            &[".x"],
            &["_.x"],
            &[""],
            &["_"],
            &["counts"],
            &["counts-2"],
            &[&long],
            &[&longer],
            &[&long, "a"],
        ];
        let mut names: Vec<String> = sinks.iter().map(|sinks| name(sinks)).collect();
        names.push(folder_name(&job_name(["counts"]), 2));
        let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:#?}");
        assert!(
            names.iter().all(|name| !name.starts_with('.') && !name.contains('/') && name.len() <= 255),
            "{names:#?}"
        );
    }

    #[test]
    fn no_job_has_a_name_that_is_taken() {
        for taken in RESERVED {
            assert!(name(&[taken]).starts_with(&format!("{}=", taken.replace('.', "_"))), "{}", name(&[taken]));
        }
    }
}
