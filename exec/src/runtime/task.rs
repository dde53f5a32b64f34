//! The shell around a chain: waits for input and for room, calls the operators, sends on what they emit.
//!
//! A task works for about a millisecond, then yields. Its cancellation is seen between batches.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::memory_pool::MemoryPool;
use futures::FutureExt;
use futures::future::BoxFuture;
use tidemill_core::clock::{Clock, Spawner};
use tidemill_core::event::{Barrier, CheckpointId};
use tidemill_core::operator::{InputSelection, OperatorContext, Wakeups};
use tidemill_core::sink::Committable;
use tidemill_core::state::SnapshotScope;
use tidemill_core::{Error, Result};
use tokio::sync::mpsc;

use crate::exchange::Urgency;
use crate::latch::Latch;
use crate::runtime::chain::{Call, Chain};
use crate::runtime::in_flight::InFlight;
use crate::runtime::input::{Cut, InputEvent, TaskInput};
use crate::runtime::output::TaskOutput;
use crate::runtime::participant::{Participant, SubtaskSnapshot, ToTask};
use crate::runtime::recovery::RestoredSubtask;
use crate::runtime::shared::Needs;
use crate::runtime::sink::Prepared;

/// How long a task works before it lets others run.
const WORK: Duration = Duration::from_millis(1);

/// One subtask of a pushed task.
pub struct ChainTask {
    /// Where events come from.
    pub input: TaskInput,
    /// How many operators there are, and what they do.
    pub chain: Chain,
    /// One context an operator.
    pub contexts: Vec<OperatorContext>,
    /// What has to be there before they are opened.
    pub needs: Needs,
    /// Where rows go.
    pub output: TaskOutput,
    /// Wake-ups that operators asked for, and what became of checkpoints.
    pub messages: mpsc::UnboundedReceiver<Message>,
    /// Its side of checkpoints.
    pub participant: Participant,
    /// How urgent checkpoints are.
    pub urgency: Arc<Urgency>,
    /// Its part of a checkpoint whose rows in flight are still being recorded.
    pub overtaking: Option<Overtaking>,
    /// What it goes on from.
    pub restored: Option<RestoredSubtask>,
    /// Thrown when the job is to end.
    pub cancelled: Arc<Latch>,
    /// For time slices and deadlines.
    pub clock: Arc<dyn Clock>,
    /// Charged with what the operators hold.
    pub memory: Arc<dyn MemoryPool>,
}

/// A subtask's part of a checkpoint that waits for the rows in flight.
pub struct Overtaking {
    barrier: Barrier,
    snapshot: SubtaskSnapshot,
    prepared: Option<Prepared>,
}

/// What a task hears beside its input.
#[derive(Clone, Copy, Debug)]
pub enum Message {
    /// A wake-up: the operator's place in the chain and its token.
    Wake(usize, u64),
    /// What became of a checkpoint.
    Checkpoint(ToTask),
}

/// How a subtask ended.
#[derive(Debug, Default)]
pub struct SubtaskEnd {
    /// What its sink has to commit.
    pub committables: Vec<Committable>,
    /// Its part of every checkpoint from now on; `None` if it stopped behind a barrier, and has handed in everything, or takes
    /// part in none.
    pub snapshot: Option<SubtaskSnapshot>,
}

impl ChainTask {
    /// Runs to the end of input, the end of demand, a barrier that stops it, a failure or the cancellation.
    pub async fn run(mut self) -> Result<SubtaskEnd> {
        // A function that panics keeps nobody from waiting for the sink's writer.
        let result = caught(self.work_and_close()).await;
        self.input.close();
        if result.is_err() {
            self.output.abandon(&*self.clock).await;
        }
        result
    }

    async fn work_and_close(&mut self) -> Result<SubtaskEnd> {
        let result = self.work().await;
        let closed = self.chain.close();
        let end = result?;
        closed?;
        Ok(end)
    }

    async fn work(&mut self) -> Result<SubtaskEnd> {
        std::mem::take(&mut self.needs).wait(&self.cancelled).await?;
        self.chain.open(&self.contexts, &self.memory)?;
        if let Some(restored) = self.restored.take() {
            // A store that does not answer keeps nobody who wants to end.
            tokio::select! {
                biased;
                () = self.cancelled.wait() => return Err(cancelled()),
                given = restored.give_back(&mut self.chain, &mut self.input, &mut self.output) => given?,
            }
        }
        self.input.demand();
        let mut slice_end = self.clock.monotonic() + WORK;
        while !self.input.has_ended() {
            if self.cancelled.is_raised() {
                return Err(cancelled());
            }
            if self.output.is_closed() || self.chain.is_finished() {
                self.input.close();
                break;
            }
            while let Ok(message) = self.messages.try_recv() {
                self.hear(message).await?;
            }
            let only = match self.chain.selection() {
                InputSelection::Any => None,
                InputSelection::Only(port) => Some(port),
            };
            match self.input.try_next(only).await? {
                Some(InputEvent::Barrier(cut)) => {
                    self.checkpoint(cut).await?;
                    if cut.barrier.kind.stops() {
                        if !self.participant.settle().await {
                            return Err(self.output.sink_failure().await);
                        }
                        return Ok(SubtaskEnd::default());
                    }
                }
                Some(event) => self.handle(event).await?,
                None if self.input.has_ended() => break,
                None => {
                    self.flush().await?;
                    self.output.pause().await?;
                    self.wait().await?;
                    slice_end = self.clock.monotonic() + WORK;
                    continue;
                }
            }
            let now = self.clock.monotonic();
            if self.output.deadline().is_some_and(|deadline| deadline <= now) {
                self.output.flush_due().await?;
            }
            if now >= slice_end {
                yield_now().await;
                slice_end = self.clock.monotonic() + WORK;
            }
        }
        self.finish().await
    }

    async fn handle(&mut self, event: InputEvent) -> Result<()> {
        match event {
            InputEvent::Rows(port, batch) => self.chain.call(Call::Process(port, batch))?,
            InputEvent::Advance(watermark) => self.chain.call(Call::Advance(watermark))?,
            InputEvent::EndOfPort(port) => self.chain.call(Call::EndOfInput(port))?,
            InputEvent::SetIdle(idle) => {
                self.flush().await?;
                return self.output.set_idle(idle).await;
            }
            InputEvent::Declined(checkpoint, reason) => {
                self.urgency.give_up(checkpoint);
                match self.overtaking.as_ref().is_some_and(|waiting| waiting.barrier.id == checkpoint) {
                    true => self.abandon(reason),
                    false => self.participant.decline(checkpoint, reason),
                }
                return Ok(());
            }
            InputEvent::Barrier(cut) => return self.checkpoint(cut).await,
            InputEvent::InFlight(checkpoint, in_flight) => {
                self.complete(checkpoint, in_flight);
                return Ok(());
            }
        }
        self.drain().await
    }

    /// Freezes the state of the task at a barrier, and sends the barrier on.
    async fn checkpoint(&mut self, Cut { barrier, alignment, is_overtaking }: Cut) -> Result<()> {
        self.abandon("another one came before the barriers of all inputs of a task");
        let (start, scope) = (self.clock.monotonic(), barrier.kind.scope());
        if scope == SnapshotScope::Copy {
            self.flush().await?;
        }
        let splits = self.input.splits();
        let mut snapshot = self.participant.snapshot(&mut self.chain, &splits, scope)?;
        snapshot.stalled = self.clock.monotonic().saturating_sub(start);
        snapshot.alignment = alignment;
        let prepared = self.output.barrier(barrier).await?;
        self.urgency.pass(barrier.id);
        match is_overtaking {
            true => self.overtaking = Some(Overtaking { barrier, snapshot, prepared }),
            false => self.participant.acknowledge(barrier, snapshot, prepared),
        }
        Ok(())
    }

    /// Hands in the part that waited for the rows in flight.
    fn complete(&mut self, checkpoint: CheckpointId, in_flight: InFlight) {
        let waiting = self.overtaking.take_if(|waiting| waiting.barrier.id == checkpoint);
        if let Some(Overtaking { barrier, mut snapshot, prepared }) = waiting {
            self.participant.add_in_flight(&mut snapshot, in_flight);
            self.participant.acknowledge(barrier, snapshot, prepared);
        }
    }

    /// Takes no part in the checkpoint whose rows in flight are being recorded. What the sink has prepared for it goes into the
    /// next one (SUB-08).
    fn abandon(&mut self, reason: &'static str) {
        if let Some(Overtaking { barrier, snapshot, prepared }) = self.overtaking.take() {
            self.participant.decline(barrier.id, reason);
            self.participant.acknowledge(barrier, snapshot, prepared);
        }
    }

    async fn hear(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Wake(place, token) => {
                self.chain.call(Call::Wake(place, token))?;
                self.drain().await
            }
            Message::Checkpoint(ToTask::Completed(checkpoint)) => self.chain.checkpoint_completed(checkpoint),
            Message::Checkpoint(ToTask::Aborted { checkpoint, oldest }) => {
                self.urgency.give_up(checkpoint);
                if self.overtaking.as_ref().is_some_and(|waiting| waiting.barrier.id == checkpoint) {
                    self.abandon("it was given up");
                }
                self.input.abort_checkpoint(checkpoint, oldest);
                self.chain.checkpoint_aborted(checkpoint)
            }
        }
    }

    async fn drain(&mut self) -> Result<()> {
        while let Some(emission) = self.chain.next_emission()? {
            if self.cancelled.is_raised() {
                return Err(cancelled());
            }
            self.output.emit(emission).await?;
        }
        Ok(())
    }

    /// Has the operators work off what they have kept back, one after the other.
    async fn flush(&mut self) -> Result<()> {
        for place in self.chain.places() {
            if self.chain.flush(place)? {
                self.drain().await?;
            }
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<SubtaskEnd> {
        // It needs no more input: what the checkpoint would have to hold of it has not come.
        self.abandon("a task ended before the barriers of all its inputs had come");
        // Nobody has told the first operator that its input ends if it is not read to its end.
        self.flush().await?;
        let mut place = 1;
        while self.chain.end_next(place)? {
            self.drain().await?;
            place += 1;
        }
        let committables = self.output.end().await?;
        // The sink has ended well, so it has prepared all of them.
        self.participant.settle().await;
        let snapshot = self.participant.at_end(&mut self.chain)?;
        Ok(SubtaskEnd { committables, snapshot: Some(snapshot) })
    }

    /// Until there is something to read, a buffer to flush, a wake-up or the cancellation.
    async fn wait(&mut self) -> Result<()> {
        let until_flush = async {
            match self.output.deadline() {
                Some(deadline) => self.clock.sleep(deadline.saturating_sub(self.clock.monotonic())).await,
                None => std::future::pending().await,
            }
        };
        let woken = tokio::select! {
            biased;
            () = self.cancelled.wait() => return Err(cancelled()),
            Some(message) = self.messages.recv() => Some(message),
            result = self.input.wait() => {
                result?;
                None
            }
            () = self.urgency.changed() => None,
            () = until_flush => None,
        };
        if let Some(message) = woken {
            self.hear(message).await?;
        }
        self.output.flush_due().await
    }
}

/// The error of a task that was told to stop. Never a cause: the job reports why it was told.
pub fn cancelled() -> Error {
    Error::cancelled("the job was cancelled")
}

/// What becomes of `work`. A panic is an error with its words.
pub async fn caught<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let result = AssertUnwindSafe(work).catch_unwind().await;
    result.unwrap_or_else(|panic| Err(Error::internal(format!("panicked: {}", panic_text(&*panic)))))
}

/// What somebody said who panicked.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// Lets other tasks of this thread run.
pub async fn yield_now() {
    tokio::task::yield_now().await;
}

/// Wake-ups of one operator of a chain.
#[derive(Debug)]
pub struct TaskWakeups {
    /// Place of the operator in its chain.
    pub place: usize,
    /// To the task.
    pub sender: mpsc::UnboundedSender<Message>,
    /// Processing time.
    pub clock: Arc<dyn Clock>,
    /// Where waiting and foreign work happen.
    pub io: Arc<dyn Spawner>,
}

impl Wakeups for TaskWakeups {
    fn at(&self, millis: i64, token: u64) {
        let delay = Duration::from_millis(millis.saturating_sub(self.clock.now_millis()).max(0) as u64);
        let (sleep, sender) = (self.clock.sleep(delay), self.sender.clone());
        let work = async move {
            // Nothing sleeps any longer than the task that it would wake.
            tokio::select! {
                biased;
                () = sender.closed() => {}
                () = sleep => {}
            }
        };
        self.after(Box::pin(work), token);
    }

    fn after(&self, work: BoxFuture<'static, ()>, token: u64) {
        let (sender, place) = (self.sender.clone(), self.place);
        let task = async move {
            work.await;
            // The task has ended when nobody listens.
            let _ = sender.send(Message::Wake(place, token));
        };
        self.io.spawn("wake-up", Box::pin(task));
    }
}
