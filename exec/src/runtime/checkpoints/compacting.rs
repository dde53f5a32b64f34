//! Compaction as the coordinator sees it: one at a time, and what has come of it goes into the next checkpoint.

use std::sync::Arc;

use tidemill_core::Result;
use tokio::sync::oneshot;

use super::command::StoreFolder;
use super::store::JobStore;
use crate::checkpoint::{CheckpointContent, Compaction, StoredSegment, patient};
use crate::runtime::environment::Environment;

/// The compaction of a job's checkpoints.
#[derive(Debug, Default)]
pub struct Compacting {
    under_way: Option<oneshot::Receiver<Result<Compaction>>>,
    done: Option<Compaction>,
    /// The file of one that has been applied and that no manifest names yet.
    unnamed: Option<StoredSegment>,
}

impl Compacting {
    /// Begins one if the newest checkpoint, `content`, is worth it, and there is none that is on its way into a checkpoint.
    pub fn begin(&mut self, store: &mut JobStore, content: &CheckpointContent, environment: &Environment) {
        if self.under_way.is_some() || self.done.is_some() || self.unnamed.is_some() {
            return;
        }
        let states = content.compactable();
        if states.is_empty() {
            return;
        }
        let segment = store.compaction_segment(content.checkpoint);
        store.spare(Some(segment.path()));
        let StoreFolder { store: objects, root, .. } = store.folder().clone();
        let objects = patient(objects, environment.clock.clone());
        let (mut done, under_way) = oneshot::channel();
        let work = async move {
            tokio::select! {
                biased;
                // Nobody wants it any more.
                () = done.closed() => {}
                compaction = Compaction::run(objects, &root, states, segment) => {
                    let _ = done.send(compaction);
                }
            }
        };
        environment.background.spawn("compact checkpoints", Box::pin(work));
        self.under_way = Some(under_way);
    }

    /// Waits for the end of the one that is under way. Cancel safe.
    pub async fn wait(&mut self) -> Result<Compaction> {
        let Some(under_way) = &mut self.under_way else { return std::future::pending().await };
        let ended = under_way.await;
        self.under_way = None;
        ended.unwrap_or_else(|_| Err(tidemill_core::Error::unavailable("the compaction was given up")))
    }

    /// One has ended. Whether it is good for the next checkpoint; after one that failed, that has to hold everything, so that what
    /// is replayed stays bounded.
    pub fn ended(&mut self, compaction: Result<Compaction>) -> bool {
        self.done = compaction.ok();
        self.done.is_some()
    }

    /// Applies what is done to the newest checkpoint, on which the next one builds. How many bytes the next one names more.
    pub fn apply(&mut self, last: &mut Option<Arc<CheckpointContent>>) -> u64 {
        if let (Some(compaction), Some(last)) = (self.done.take(), last)
            && compaction.apply(Arc::make_mut(last))
        {
            self.unnamed = Some(compaction.segment().clone());
        }
        self.unnamed.as_ref().map_or(0, |segment| segment.bytes)
    }

    /// A checkpoint is durable that was built on what was applied.
    pub fn named(&mut self, store: &mut JobStore) {
        self.unnamed = None;
        if self.under_way.is_none() && self.done.is_none() {
            store.spare(None);
        }
    }
}
