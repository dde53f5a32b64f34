//! What users ask of a running job.

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::path::Path;
use tidemill_core::clock::{Clock, Spawner};
use tidemill_core::event::{BarrierKind, CheckpointId};
use tidemill_core::{Error, Result};
use tokio::sync::{mpsc, oneshot};

use super::store::answered;
use crate::checkpoint::check_savepoint_folder;

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
pub struct CheckpointControl {
    pub(super) commands: mpsc::UnboundedSender<Command>,
    /// Whether barriers can flow through the job.
    pub(super) takes_checkpoints: bool,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) io: Arc<dyn Spawner>,
    /// How long a store may take to answer: `execution.checkpointing.timeout`.
    pub(super) patience: Duration,
}

impl CheckpointControl {
    /// Takes a checkpoint now; its number, once it is durable and what it commits is visible.
    pub async fn checkpoint(&self) -> Result<CheckpointId> {
        self.ask(BarrierKind::Checkpoint, None).await
    }

    /// Writes a savepoint into `folder`, which has to be empty; the job goes on. What sinks have written since the last checkpoint
    /// is in it, and becomes visible with the next checkpoint.
    ///
    /// Errors: something is in the folder, or nothing can be written there; the job has not noticed then.
    pub async fn savepoint(&self, folder: StoreFolder) -> Result<CheckpointId> {
        self.ask(BarrierKind::Savepoint, Some(folder)).await
    }

    /// Takes a last checkpoint, also written as a savepoint if a folder is given, and ends the job behind it. With `drain` event
    /// time ends first, so that all windows fire: nothing goes on from such a savepoint (SVP-07).
    ///
    /// Errors: something is in the folder, or nothing can be written there; the job goes on then as if nobody had asked. A store
    /// that fails later, while the checkpoint is written, fails the attempt.
    pub async fn stop(&self, drain: bool, folder: Option<StoreFolder>) -> Result<CheckpointId> {
        self.ask(BarrierKind::Stop { drain }, folder).await
    }

    async fn ask(&self, kind: BarrierKind, target: Option<StoreFolder>) -> Result<CheckpointId> {
        if !self.takes_checkpoints {
            let error = Error::request("a job that runs as a batch, or whose exchanges block, takes no checkpoints");
            return Err(error.with_hint("set execution.runtime-mode to streaming"));
        }
        if let Some(target) = &target {
            self.check(target.clone()).await?;
        }
        let over = || Error::unavailable("the job is not running");
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command { kind, target, reply }).map_err(|_| over())?;
        answer.await.map_err(|_| over())?
    }

    /// Refuses a folder that cannot take a savepoint: behind the barrier of a stop the sources have ended, and it would be too late.
    /// Whoever asks may be anywhere; stores and clocks want the job's threads.
    async fn check(&self, StoreFolder { store, root, url }: StoreFolder) -> Result<()> {
        let (clock, patience) = (self.clock.clone(), self.patience);
        let (reply, checked) = oneshot::channel();
        let check = async move {
            let look = check_savepoint_folder(store, &root, clock.clone());
            let looked = async { look.await.map_err(|error| error.context(&url)) };
            let _ = reply.send(answered(&*clock, patience, &url, looked).await);
        };
        self.io.spawn("look at a savepoint's folder", Box::pin(check));
        checked.await.unwrap_or_else(|_| Err(Error::unavailable("the job is not running")))
    }
}
