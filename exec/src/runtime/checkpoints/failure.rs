//! What follows when a checkpoint comes to nothing: who asked is told, increments on top of it go with it, and too many in a row
//! are the end of the attempt.

use std::time::Duration;

use tidemill_core::event::{BarrierKind, CheckpointId};
use tidemill_core::{Error, ErrorKind, Result};

use super::Checkpointer;
use super::pending::{Pending, Storing, answer};
use super::statistics::CheckpointStatus;
use super::store::not_answered;

impl Checkpointer {
    /// Gives up a checkpoint that is not complete.
    pub(super) fn give_up(&mut self, id: CheckpointId, cause: &Error, counts: bool) -> Result<()> {
        let Some(mut pending) = self.attempt.pending.remove(&id) else { return Ok(()) };
        pending.answer(Err(cause.clone().context(format_args!("checkpoint {id} was given up"))));
        self.count_failure(id, pending.barrier.kind, cause, counts)
    }

    pub(super) fn count_failure(
        &mut self,
        id: CheckpointId,
        kind: BarrierKind,
        cause: &Error,
        counts: bool,
    ) -> Result<()> {
        self.failed(id, &cause.to_string());
        self.attempt.abort(id);
        self.decided = self.environment.clock.monotonic();
        if matches!(kind, BarrierKind::Checkpoint | BarrierKind::FullCheckpoint) {
            self.needs_full = true;
            self.give_up_increments_after(id);
        }
        if counts || kind.stops() { self.weigh_failure(id, kind, cause) } else { Ok(()) }
    }

    /// What follows from a failure: nothing, as long as such are tolerated. Savepoints may always fail.
    fn weigh_failure(&mut self, id: CheckpointId, kind: BarrierKind, cause: &Error) -> Result<()> {
        let error = || failure_of(id, cause);
        if kind.stops() {
            // Sources have ended behind its barrier; only a restart makes them go on.
            return Err(error());
        }
        if kind == BarrierKind::Savepoint {
            return Ok(());
        }
        self.failures += 1;
        match self.failures > self.settings.tolerable_failures {
            true => Err(error()
                .with_hint("execution.checkpointing.tolerable-failed-checkpoints says how many may fail in a row")),
            false => Ok(()),
        }
    }

    /// Counts the checkpoint that is being stored as failed when that takes too long (CKP-05), and once more for every further
    /// timeout: no other one can begin meanwhile. What becomes of it is heard when the store answers. If it was being published
    /// already it may still turn out to be durable; nobody but the store can know.
    pub(super) fn expire_storing(&mut self, now: Duration) -> Result<()> {
        let timeout = self.settings.timeout;
        let is_late = |storing: &&mut Storing| storing.expires(timeout).is_some_and(|expires| expires <= now);
        let Some(storing) = self.storing.as_mut().filter(is_late) else { return Ok(()) };
        storing.since = now;
        storing.expired.raise();
        let (id, kind, reply) = (storing.id, storing.kind, storing.reply.take());
        let error = not_answered(timeout);
        self.failed(id, error.message());
        answer(reply, Err(error.clone().context(format_args!("checkpoint {id}"))));
        self.weigh_failure(id, kind, &error)
    }

    /// Increments on top of one that is missing are worth nothing.
    fn give_up_increments_after(&mut self, id: CheckpointId) {
        let is_lost = |pending: &Pending| pending.barrier.id > id && pending.barrier.kind == BarrierKind::Checkpoint;
        let mut lost: Vec<Pending> =
            self.attempt.pending.extract_if(.., |_, pending| is_lost(pending)).map(|(_, lost)| lost).collect();
        let (waiting, kept): (Vec<Pending>, Vec<Pending>) =
            std::mem::take(&mut self.attempt.waiting).into_iter().partition(is_lost);
        self.attempt.waiting = kept.into();
        lost.extend(waiting);
        for mut pending in lost {
            let reason = format!("it builds on checkpoint {id}, which failed");
            self.failed(pending.barrier.id, &reason);
            self.attempt.abort(pending.barrier.id);
            pending.answer(Err(Error::unavailable(reason)));
        }
    }

    pub(super) fn failed(&self, id: CheckpointId, reason: &str) {
        let now = self.environment.clock.now_millis();
        self.statistics.update(id, |info| {
            info.status = CheckpointStatus::Failed;
            info.duration = Duration::from_millis(now.saturating_sub(info.triggered_at).max(0) as u64);
            info.failure = Some(reason.to_owned());
        });
    }
}

/// The error of an attempt that ends with a checkpoint. A full disk and a bug of ours stay what they are, for whoever reads of
/// them. Whatever else kept the store from having the checkpoint is no fault of the query or of its data, which are final: the
/// job may try again from the one before.
fn failure_of(id: CheckpointId, cause: &Error) -> Error {
    let kind = match cause.kind() {
        kind @ (ErrorKind::Exhausted | ErrorKind::Internal) => kind,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("checkpoint {id} failed: {cause}")).with_source(cause.clone())
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_failed_checkpoint_says_why_and_a_restart_may_help() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let full = Error::from(full).context("writing 'segments/1'");
        let error = failure_of(7, &full);
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert_eq!(error.to_string(), format!("checkpoint 7 failed: {full}"));
        let causes: Vec<String> =
            std::iter::successors(error.source(), |cause| (**cause).source()).map(ToString::to_string).collect();
        assert_eq!(causes, [full.to_string(), full.source().unwrap().to_string()]);

        let kind_of = |cause: &Error| failure_of(7, cause).kind();
        assert_eq!(kind_of(&Error::internal("a bug")), ErrorKind::Internal);
        for cause in
            [Error::unavailable("away"), Error::request("taken"), Error::corrupt("bits"), Error::data("line 1")]
        {
            assert_eq!(kind_of(&cause), ErrorKind::Unavailable, "{cause}");
        }
    }
}
