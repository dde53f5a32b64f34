//! A checkpoint as somebody sees it who only looks: found without taking anything over, its states as rows for people (NCK-06).
//!
//! [`find_checkpoint`] finds it, [`FoundCheckpoint`] finds operators and states in it by name, [`StateRows`] are the rows of one
//! state of one subtask: layers [folded](super::fold) into what is kept, in columns that can be [read](readable).

mod readable;
mod state_rows;

pub use state_rows::StateRows;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use tidemill_core::clock::Clock;
use tidemill_core::error::nearest;
use tidemill_core::event::CheckpointId;
use tidemill_core::graph::OperatorId;
use tidemill_core::state::Extent;
use tidemill_core::{Error, Result};

use super::content::{CheckpointContent, StoredOperator, StoredState};
use super::files::{Files, store_error};
use super::savepoint::SAVEPOINT_MANIFEST;
use super::savepoint_writer::{extent_name, kind_name};
use super::store::{CheckpointStore, manifest_at, numbered_manifest, read_manifest};
use readable::Readable;

/// How many names a hint lists.
const NAMES_MAX: usize = 24;

/// A complete checkpoint or savepoint, and where it lies.
#[derive(Clone, Debug)]
pub struct FoundCheckpoint {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The folder, which paths in the content are relative to.
    pub root: Path,
    /// What there is.
    pub content: Arc<CheckpointContent>,
}

/// The savepoint in a folder; else of the checkpoints there the newest one, or number `checkpoint`; or the checkpoint whose
/// manifest `root` is. Nothing is changed, and a job that is at work there does not notice. It may delete what was found at any
/// time.
///
/// Errors: there is none, which names the folders below; it is damaged, or of a newer version.
pub async fn find_checkpoint(
    store: Arc<dyn ObjectStore>,
    root: &Path,
    clock: Arc<dyn Clock>,
    checkpoint: Option<CheckpointId>,
) -> Result<FoundCheckpoint> {
    let named = manifest_at(root);
    let root = named.as_ref().map_or(root, |(folder, _)| folder);
    let files = Files { store: store.clone(), root: root.clone(), clock: clock.clone() };
    let found = match (&named, read_manifest(&files, &files.path(SAVEPOINT_MANIFEST)).await?) {
        (Some((_, number)), _) => numbered_manifest(&files, *number).await?.content.completed().cloned(),
        (None, Some(savepoint)) => Some(savepoint.content),
        (None, None) => {
            let folder = CheckpointStore::open(store.clone(), root.clone(), clock).await?;
            match checkpoint {
                Some(number) => folder.numbered(number).await?,
                None => folder.checkpoint().cloned(),
            }
        }
    };
    let Some(content) = found else { return Err(nothing(&*store, root).await?) };
    if let Some(wanted) = checkpoint.filter(|wanted| *wanted != content.checkpoint) {
        let what = if named.is_some() { "manifest of" } else { "savepoint in" };
        let error = Error::request(format!("the {what} '{root}' is not checkpoint {wanted}"));
        return Err(error.with_hint(format!("it is checkpoint {}", content.checkpoint)));
    }
    Ok(FoundCheckpoint { store, root: root.clone(), content: Arc::new(content) })
}

/// The error of a folder without checkpoints.
async fn nothing(store: &dyn ObjectStore, root: &Path) -> Result<Error> {
    let listed = store.list_with_delimiter(Some(root)).await;
    let listed = listed.map_err(|error| store_error(format!("listing '{root}'"), error))?;
    let mut jobs = Vec::new();
    for folder in listed.common_prefixes {
        let mut files = store.list(Some(&folder.clone().join("manifests")));
        if let Ok(Some(_)) = files.try_next().await {
            jobs.extend(folder.filename().map(|name| format!("'{name}'")));
        }
    }
    let error = Error::request(format!("'{root}' holds neither a savepoint nor a complete checkpoint"));
    Ok(match jobs.is_empty() {
        true => error.with_hint("name the folder of a savepoint, or that of one job's checkpoints"),
        false => error.with_hint(format!("name one of its jobs: {}", list(&jobs))),
    })
}

impl FoundCheckpoint {
    /// The operator with this id, uid or name.
    ///
    /// Errors: there is none, or there are several of that name; it lists them.
    pub fn operator(&self, wanted: &str) -> Result<&StoredOperator> {
        let operators = &self.content.operators;
        let uid = OperatorId::from_uid(wanted);
        let by_id = |operator: &&StoredOperator| operator.id == uid || operator.id.to_string() == wanted;
        if let Some(found) = operators.iter().find(by_id) {
            return Ok(found);
        }
        let named: Vec<&StoredOperator> = operators.iter().filter(|operator| operator.name == wanted).collect();
        match named.as_slice() {
            [one] => Ok(one),
            [] => {
                let names = operators.iter().map(|operator| operator.name.as_str());
                let near =
                    nearest(wanted, names.clone()).map(|near| format!("did you mean '{near}'? ")).unwrap_or_default();
                let known: Vec<String> =
                    operators.iter().map(|operator| format!("'{}' ({})", operator.name, operator.id)).collect();
                let error = Error::request(format!("the checkpoint has no operator '{wanted}'"));
                Err(error.with_hint(format!("{near}it has {}", list(&known))))
            }
            several => {
                let ids: Vec<String> = several.iter().map(|operator| operator.id.to_string()).collect();
                let error = Error::request(format!("the checkpoint has {} operators '{wanted}'", several.len()));
                Err(error.with_hint(format!("give the id of one: {}", list(&ids))))
            }
        }
    }

    /// The rows of a state of an operator, one part for each subtask that has stored it; `state` may be left out where there is
    /// only one.
    ///
    /// Errors: there is no such state, or none is named and there are several; it lists them.
    pub fn state(&self, operator: &StoredOperator, state: Option<&str>) -> Result<Vec<StateRows>> {
        let mut names: Vec<&str> = Vec::new();
        for stored in operator.subtasks.iter().flat_map(|subtask| &subtask.states) {
            if !names.contains(&stored.descriptor.name.as_str()) {
                names.push(&stored.descriptor.name);
            }
        }
        let known = || list(&names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>());
        let of = format!("operator '{}'", operator.name);
        let name = match (state, names.as_slice()) {
            (_, []) => return Err(Error::request(format!("{of} has no state"))),
            (None, [only]) => *only,
            (None, _) => {
                let error = Error::request(format!("{of} has several states"));
                return Err(error.with_hint(format!("name one with state => '…': {}", known())));
            }
            (Some(wanted), names) if names.contains(&wanted) => wanted,
            (Some(wanted), names) => {
                let near = nearest(wanted, names.iter().copied());
                let near = near.map(|near| format!("did you mean '{near}'? ")).unwrap_or_default();
                let error = Error::request(format!("{of} has no state '{wanted}'"));
                return Err(error.with_hint(format!("{near}it has {}", known())));
            }
        };
        let stored: Vec<(u32, &StoredState)> = operator
            .subtasks
            .iter()
            .flat_map(|subtask| subtask.states.iter().map(|state| (subtask.index, state)))
            .filter(|(_, state)| state.descriptor.name == name)
            .collect();
        let Some((_, first)) = stored.first() else { return Err(Error::internal(format!("state '{name}' is gone"))) };
        let has_parts = stored.iter().flat_map(|(_, state)| &state.layers).any(|layer| layer.extent == Extent::Added);
        let readable = Arc::new(Readable::new(&first.descriptor, has_parts));
        let rows = |(subtask, state)| StateRows::new(self, subtask, state, readable.clone());
        Ok(stored.into_iter().map(rows).collect())
    }
}

impl StoredState {
    /// How it is partitioned: `keyed`, `list`, `union list` or `broadcast`.
    pub fn kind(&self) -> &'static str {
        kind_name(self.descriptor.kind)
    }

    /// What its layers are, the oldest first: `whole, changed, removed`.
    pub fn extents(&self) -> String {
        self.layers.iter().map(|layer| extent_name(layer.extent)).collect::<Vec<_>>().join(", ")
    }

    /// The columns in which it is shown.
    pub fn readable_schema(&self) -> SchemaRef {
        let has_parts = self.layers.iter().any(|layer| layer.extent == Extent::Added);
        Readable::new(&self.descriptor, has_parts).schema().clone()
    }
}

fn list(names: &[String]) -> String {
    match names.len() {
        0..=NAMES_MAX => names.join(", "),
        _ => format!("{} …", names[..NAMES_MAX].join(", ")),
    }
}
