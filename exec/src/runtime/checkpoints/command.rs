//! What users ask of a running job.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use tidemill_core::event::{BarrierKind, CheckpointId};
use tidemill_core::{Error, Result};
use tokio::sync::{mpsc, oneshot};

/// A folder of a store, under the name that users know it by.
#[derive(Clone, Debug)]
pub struct StoreFolder {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The folder.
    pub root: Path,
    /// Its URL or path.
    pub url: String,
}

/// A checkpoint that somebody asked for.
#[derive(Debug)]
pub struct Command {
    pub kind: BarrierKind,
    /// Where a savepoint goes.
    pub target: Option<StoreFolder>,
    pub reply: oneshot::Sender<Result<CheckpointId>>,
}

/// Asks a running job for checkpoints. Cloning shares it.
#[derive(Clone, Debug)]
pub struct CheckpointControl(pub(super) mpsc::UnboundedSender<Command>);

impl CheckpointControl {
    /// Takes a checkpoint now; its number, once it is durable and what it commits is visible.
    pub async fn checkpoint(&self) -> Result<CheckpointId> {
        self.ask(BarrierKind::Checkpoint, None).await
    }

    /// Writes a savepoint into `folder`, which has to be empty; the job goes on. What sinks have written since the last checkpoint
    /// is in it, and becomes visible with the next checkpoint.
    pub async fn savepoint(&self, folder: StoreFolder) -> Result<CheckpointId> {
        self.ask(BarrierKind::Savepoint, Some(folder)).await
    }

    /// Takes a last checkpoint, also written as a savepoint if a folder is given, and ends the job behind it. With `drain` event
    /// time ends first, so that all windows fire: such a job is not meant to go on (SVP-07).
    pub async fn stop(&self, drain: bool, folder: Option<StoreFolder>) -> Result<CheckpointId> {
        self.ask(BarrierKind::Stop { drain }, folder).await
    }

    async fn ask(&self, kind: BarrierKind, target: Option<StoreFolder>) -> Result<CheckpointId> {
        let over = || Error::unavailable("the job is not running");
        let (reply, answer) = oneshot::channel();
        self.0.send(Command { kind, target, reply }).map_err(|_| over())?;
        answer.await.map_err(|_| over())?
    }
}
