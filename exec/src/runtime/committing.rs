//! How a job waits for what it asks of its sinks' committers: at a checkpoint, where it goes on, and at its end.

use std::time::Duration;

use futures::future::join_all;
use tidemill_core::clock::Clock;
use tidemill_core::graph::JobGraph;
use tidemill_core::{Error, Result};

use crate::latch::Latch;

/// Bounds waits for a committer: a sink that does not answer keeps neither checkpoints nor a job that has ended.
#[derive(Clone, Copy)]
pub struct Committing<'a> {
    /// Whose sinks they are.
    pub job: &'a JobGraph,
    /// Measures the wait.
    pub clock: &'a dyn Clock,
    /// How long each sink has: `execution.checkpointing.timeout`.
    pub timeout: Duration,
}

impl Committing<'_> {
    /// What becomes of `work`, which the sink of `vertex` was asked to do.
    ///
    /// Errors: [`Unavailable`](tidemill_core::ErrorKind::Unavailable) if it takes too long. It may be done all the
    /// same, so the message is what `unknown` says of the sink with this name.
    pub async fn wait(
        &self,
        vertex: usize,
        work: impl Future<Output = Result<()>>,
        unknown: impl FnOnce(&str) -> String,
    ) -> Result<()> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.clock.sleep(self.timeout) => Err(self.not_answered(&unknown(self.name(vertex)))),
        }
    }

    fn name(&self, vertex: usize) -> &str {
        self.job.vertices[vertex].sink.as_ref().map_or("a sink", |sink| &*sink.name)
    }

    fn not_answered(&self, unknown: &str) -> Error {
        let error = Error::unavailable(format!("{unknown}: no answer for {:?}", self.timeout));
        error.with_hint("execution.checkpointing.timeout says how long it may take; a restart asks it again")
    }
}

/// Does what sinks were asked in their order, whatever becomes of the others; the first error counts (SUB-08). There is no bound but the
/// cancellation of the job: how much a sink has to do at its end, or to take back, is not a matter of one checkpoint. But once one has
/// taken as long as a checkpoint may, the others no longer wait for it.
pub async fn in_order<W: Future<Output = Result<()>>>(
    asked: impl Iterator<Item = W>,
    clock: &dyn Clock,
    timeout: Duration,
) -> Result<()> {
    let (works, done): (Vec<W>, Vec<Latch>) = asked.map(|work| (work, Latch::default())).unzip();
    let done = &done;
    let works = works.into_iter().enumerate().map(|(place, work)| async move {
        if let Some(before) = place.checked_sub(1) {
            tokio::select! {
                biased;
                () = done[before].wait() => {}
                () = clock.sleep(timeout) => {}
            }
        }
        let outcome = work.await;
        done[place].raise();
        outcome
    });
    join_all(works).await.into_iter().collect()
}
