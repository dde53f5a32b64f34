//! Which manifests and segments may go.
//!
//! A segment stays as long as any manifest that is there names it; if one cannot be read, all stay. Of those that nobody names,
//! a writer deletes what it knows to be dead: segments of earlier generations, which can publish nothing any more, and of its
//! own checkpoints up to the last one that it published. A segment of a later generation, or of a checkpoint that is under way,
//! is never touched. Stores that give a file its name when it is whole have it under a hidden one before, and a process that
//! dies leaves it there: it goes by the same rule.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use object_store::path::Path;
use tidemill_core::Result;
use tidemill_core::event::CheckpointId;

use super::content::Manifest;
use super::files::Files;
use super::store::read_numbered;

/// What a writer remembers of manifests, so that it reads each of them once.
#[derive(Debug, Default)]
pub(super) struct Retention {
    known: BTreeMap<u64, Named>,
}

/// What a manifest names.
#[derive(Clone, Debug)]
struct Named {
    checkpoint: CheckpointId,
    segments: BTreeSet<Arc<str>>,
}

impl Retention {
    /// Deletes the manifests that are not the newest ones of the newest `count` checkpoints. How many went away.
    pub async fn delete_manifests(
        &mut self,
        files: &Files,
        newest: &Manifest,
        manifests: &[(u64, Path)],
        count: usize,
    ) -> Result<usize> {
        let mut kept = BTreeSet::new();
        let mut deleted = 0;
        for numbered in manifests.iter().rev() {
            let (number, path) = numbered;
            // Somebody may have taken over: what is newer than our own is not ours to judge.
            if *number > newest.number {
                continue;
            }
            let checkpoint = self.named(files, newest, numbered).await?.map(|named| named.checkpoint);
            let is_next =
                checkpoint.is_some_and(|checkpoint| checkpoint > 0 && kept.len() < count && kept.insert(checkpoint));
            if is_next || *number == newest.number {
                continue;
            }
            if files.delete(path).await.is_ok() {
                self.known.remove(number);
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    /// Deletes the segments that are dead and that no manifest names. How many went away.
    pub async fn delete_segments(
        &mut self,
        files: &Files,
        newest: &Manifest,
        manifests: &[(u64, Path)],
        segments: &[Path],
    ) -> Result<usize> {
        let mut named = BTreeSet::new();
        for numbered in manifests {
            let segments = self.named(files, newest, numbered).await?.map(|named| &named.segments);
            named.extend(segments.into_iter().flatten().map(|segment| files.path(segment)));
        }
        self.known.retain(|number, _| manifests.iter().any(|(other, _)| other == number));
        let dead: Vec<&Path> = segments.iter().filter(|path| !named.contains(*path) && is_dead(path, newest)).collect();
        Ok(files.delete_all(dead).await)
    }

    /// How many checkpoints the manifests are of that are known.
    pub fn checkpoints(&self) -> usize {
        self.known
            .values()
            .map(|named| named.checkpoint)
            .filter(|checkpoint| *checkpoint > 0)
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// What a manifest names; nothing if it is gone.
    async fn named(&mut self, files: &Files, newest: &Manifest, numbered: &(u64, Path)) -> Result<Option<&mut Named>> {
        let number = numbered.0;
        let entry = match self.known.entry(number) {
            Entry::Occupied(known) => return Ok(Some(known.into_mut())),
            Entry::Vacant(entry) => entry,
        };
        let named = match number == newest.number {
            true => Some(Named::by(newest)),
            false => read_numbered(files, numbered).await?.as_ref().map(Named::by),
        };
        Ok(named.map(|named| entry.insert(named)))
    }
}

impl Named {
    fn by(manifest: &Manifest) -> Self {
        let segments = manifest.content.segments.iter().map(|segment| segment.path.clone()).collect();
        Self { checkpoint: manifest.content.checkpoint, segments }
    }
}

/// Whether nobody can name a segment any more that is not named yet.
fn is_dead(path: &Path, newest: &Manifest) -> bool {
    let mut parts = path.filename().unwrap_or_default().trim_start_matches('.').split('-');
    let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
    match (number(), number()) {
        (Some(generation), Some(checkpoint)) => {
            generation < newest.generation || generation == newest.generation && checkpoint <= newest.content.checkpoint
        }
        // A file of somebody else.
        _ => false,
    }
}
