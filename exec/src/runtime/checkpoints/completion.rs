//! How a checkpoint becomes durable: its parts come in, the complete ones are stored one after the other, and everybody hears.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_core::event::{Barrier, BarrierKind, CheckpointId};
use tidemill_core::sink::Committable;
use tidemill_core::{Error, ErrorKind, Result};

use super::Checkpointer;
use super::attempt::Uncommitted;
use super::pending::{Storing, SubtaskKey};
use super::statistics::CheckpointStatus;
use super::step::{StoreStep, Stored};
use crate::latch::Latch;
use crate::runtime::job::Ending;
use crate::runtime::participant::{FromTask, ToTask};

impl Checkpointer {
    pub(super) fn on_report(&mut self, report: FromTask) -> Result<()> {
        match report {
            FromTask::Acknowledged { checkpoint, subtask, mut snapshot } => {
                let attempt = &mut self.attempt;
                let last = attempt.acknowledged.entry(subtask).or_default();
                *last = (*last).max(checkpoint);
                let committables = std::mem::take(&mut snapshot.committables).into_iter();
                let uncommitted = |committable| Uncommitted { subtask, since: checkpoint, committable };
                attempt.uncommitted.extend(committables.map(uncommitted));
                let (stalled, alignment, in_flight) = (snapshot.stalled, snapshot.alignment, snapshot.in_flight_bytes);
                self.statistics.update(checkpoint, |info| {
                    info.stalled = info.stalled.max(stalled);
                    info.alignment = info.alignment.max(alignment);
                    info.unaligned |= in_flight.is_some();
                    info.in_flight_bytes += in_flight.unwrap_or_default();
                });
                if let Some(pending) = attempt.pending.get_mut(&checkpoint) {
                    pending.parts.insert(subtask, snapshot);
                }
                self.look();
                Ok(())
            }
            FromTask::Declined { checkpoint, reason } => self.give_up(checkpoint, &Error::unavailable(reason), false),
            FromTask::Failed(error) => Err(error),
        }
    }

    /// Moves on what is complete.
    pub(super) fn look(&mut self) {
        let attempt = &mut self.attempt;
        while let Some((id, pending)) = attempt.pending.first_key_value() {
            if !pending.is_complete(attempt.enumerators.keys(), attempt.running()) {
                break;
            }
            let id = *id;
            let complete = attempt.pending.remove(&id);
            attempt.waiting.extend(complete);
        }
        self.store_next();
    }

    /// Has the next complete checkpoint stored, unless one is on its way.
    fn store_next(&mut self) {
        let (Some(_), Some(next)) = (&self.store, self.attempt.waiting.front()) else { return };
        let id = next.barrier.id;
        let committables = self.committables_until(id);
        let (Some(store), Some(mut pending)) = (self.store.take(), self.attempt.waiting.pop_front()) else { return };
        let compacted_bytes = match pending.barrier.kind {
            BarrierKind::Savepoint => 0,
            _ => self.compacting.apply(&mut self.last),
        };
        // A store that never gives the checkpoint back must not keep whoever asked for it.
        let (kind, reply) = (pending.barrier.kind, pending.reply.take());
        let since = self.environment.clock.monotonic();
        let (expired, published) = (Arc::<Latch>::default(), Arc::<Latch>::default());
        let (expires, is_published) = (expired.clone(), published.clone());
        self.storing = Some(Storing { id, kind, since, reply, expired: expires, published: is_published });
        let step = StoreStep {
            name: self.name.clone(),
            job: self.job.clone(),
            committers: self.committers.clone(),
            store,
            previous: self.last.clone(),
            compacted_bytes,
            ended: self.attempt.ended.clone(),
            pending,
            committables,
            num_retained: self.settings.num_retained,
            clock: self.environment.clock.clone(),
            background: self.environment.background.clone(),
            timeout: self.settings.timeout,
            expired,
            published,
        };
        let done = self.stored.0.clone();
        let work = async move {
            // The coordinator waits for it as long as there is a job.
            let _ = done.send(step.run().await);
        };
        self.environment.background.spawn("store a checkpoint", Box::pin(work));
    }

    pub(super) fn committables_until(&self, id: CheckpointId) -> BTreeMap<SubtaskKey, Vec<Committable>> {
        let mut committables = BTreeMap::<SubtaskKey, Vec<Committable>>::new();
        for uncommitted in self.attempt.uncommitted.iter().filter(|uncommitted| uncommitted.since <= id) {
            committables.entry(uncommitted.subtask).or_default().push(uncommitted.committable.clone());
        }
        committables
    }

    pub(super) fn on_stored(&mut self, Stored { store, mut pending, parts, outcome }: Stored) -> Result<()> {
        let Barrier { id, kind, .. } = pending.barrier;
        self.store = Some(store);
        let storing = self.storing.take();
        let is_counted = storing.as_ref().is_some_and(|storing| storing.expired.is_raised());
        pending.reply = storing.and_then(|storing| storing.reply);
        self.decided = self.environment.clock.monotonic();
        let took = self.decided.saturating_sub(pending.triggered);
        let durable = match outcome {
            Ok(durable) => durable,
            Err(error) => {
                let verdict = self.count_failure(id, kind, &error, !is_counted);
                pending.answer(Err(error.clone()));
                // Another job has taken over: there is nothing to try again.
                if error.kind() == ErrorKind::Cancelled {
                    return Err(error);
                }
                // What is complete behind it is not lost with it.
                self.store_next();
                return verdict;
            }
        };
        self.failures = 0;
        self.statistics.update(id, |info| {
            info.status = CheckpointStatus::Completed;
            info.duration = took;
            info.new_bytes = durable.content.new_bytes;
            info.total_bytes = durable.content.segments.iter().map(|segment| segment.bytes).sum();
            info.path = durable.path;
            info.failure = None;
        });
        if kind != BarrierKind::Savepoint {
            self.needs_full |= durable.content.needs_full();
            if let Some(store) = &mut self.store {
                self.compacting.named(store);
                if !kind.stops() {
                    self.compacting.begin(store, &durable.content, &self.environment);
                }
            }
            self.last = Some(Arc::new(durable.content));
            self.attempt.uncommitted.retain(|uncommitted| uncommitted.since > id);
            let stored = self.attempt.ended.iter_mut().filter(|(subtask, _)| !parts.contains(subtask));
            stored.for_each(|(_, ended)| ended.is_stored = true);
        }
        if let Some(error) = durable.not_committed {
            pending.answer(Err(error.clone()));
            return Err(error);
        }
        if let BarrierKind::Stop { drain } = kind {
            self.stopped = Some(if drain { Ending::Drained } else { Ending::Stopped });
        }
        if kind != BarrierKind::Savepoint {
            self.attempt.tell(ToTask::Completed(id));
            self.attempt.enumerators.values().for_each(|enumerator| enumerator.completed(id));
        }
        pending.answer(Ok(id));
        self.store_next();
        Ok(())
    }
}
