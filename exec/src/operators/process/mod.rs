//! Process functions: any function of rows that remembers something for each key and asks to be called again later (PRF-01 …
//! PRF-06).
//!
//! ```text
//! restored  the states that belong to no key, before everything that follows
//! rows      keyed input      slots of the keys, states read and written, timers registered and deleted
//!           plain input      no states, no timers
//!           broadcast input  broadcast states written, the states of all keys within reach, no timers
//! advance   timers up to the watermark, in order; then the watermark goes on (SUB-22)
//! wake      timers up to the clock
//! ```
//!
//! The function sees whole batches and decides itself whether it looks at columns or at one row after the other. What it may use
//! while it does is its [`Scope`]. All the rest is the same for every such function and stands here: when timers fire, what is
//! part of a snapshot, how what it emits leaves.
//!
//! The end of the input is the end of both times: timers over processing time that are left fire then, each once, and those that
//! are registered meanwhile do not (TIM-03).

mod no_keys;
mod scope;
#[cfg(test)]
pub(crate) mod tests;

pub use scope::{BesideKeys, DueTimers, RowTimers, Scope};

use std::sync::Arc;

use arrow::datatypes::Fields;
use tidemill_core::operator::{Operator, OperatorContext, Output, Progress};
use tidemill_core::state::{Extent, KeyedStates, RestoredState, Snapshot, SnapshotScope};
use tidemill_core::{Batch, Error, Result, Watermark};

use crate::operators::expression::keys_and_hashes;
use crate::operators::keyed::EXPIRED_SLOTS;
use crate::operators::pending::Pending;
use crate::operators::saved::{WATERMARK, freeze_watermark, restored_watermark};
use crate::operators::timers::{DueTimer, TimerChange, TimerDomain, TimerService};
use crate::state::SubtaskStates;
use no_keys::NoKeys;
use scope::Place;

/// What rows of an input are to the function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessInput {
    /// They have a key, in these columns; the exchange in front hashes the same.
    Keyed(Vec<usize>),
    /// They have none.
    Plain,
    /// They reach every subtask.
    Broadcast,
}

/// The shape of a process operator.
#[derive(Clone, Debug)]
pub struct ProcessPlan {
    /// What each input is.
    pub inputs: Vec<ProcessInput>,
    /// The columns of the key, if there is a keyed input; they are the same in all of them.
    pub keys: Option<Fields>,
}

/// What a process operator does with rows and timers.
///
/// Laws: whatever it emits it puts into the output that it is given, which has room for everything. It remembers nothing itself
/// that a snapshot would have to hold.
pub trait ProcessFunction: Send {
    /// Called once, before everything else: declares states. `states` are there where there are keys.
    fn open(
        &mut self,
        context: &OperatorContext,
        states: Option<&mut dyn KeyedStates>,
        subtask: &mut SubtaskStates,
    ) -> Result<()>;

    /// Called once behind `open`, and behind the restore if there is one, before the first row, timer or snapshot: looks at what has
    /// been restored of the states that belong to no key, and keeps what is to be kept of it (SUB-10).
    fn initialize(
        &mut self,
        _context: &OperatorContext,
        _is_restored: bool,
        _subtask: &mut SubtaskStates,
    ) -> Result<()> {
        Ok(())
    }

    /// Rows of input `input`.
    fn rows(&mut self, input: usize, batch: Batch, scope: &mut Scope<'_>, output: &mut Output) -> Result<()>;

    /// Timers that are due, in order; how many have been served. It may stop early, and it must behind a timer after which
    /// [`Scope::is_interrupted`]: another one comes first, or the next one is gone.
    fn timers(&mut self, due: &DueTimers, scope: &mut Scope<'_>, output: &mut Output) -> Result<usize>;

    /// All that is due at a watermark has been emitted.
    fn watermark(&mut self, watermark: Watermark, output: &mut Output) -> Result<()> {
        output.watermark(watermark);
        Ok(())
    }

    /// Bytes that it holds beside the states that it is given, roughly. Must be cheap.
    fn memory_bytes(&self) -> usize {
        0
    }

    /// Called once after `open`, also when that or anything else failed.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A process function at work in one subtask.
#[derive(Debug)]
pub struct ProcessOperator<F: ProcessFunction> {
    plan: Arc<ProcessPlan>,
    function: F,
    /// Opened and not yet closed.
    is_open: bool,
    /// The function has seen what was restored.
    is_initialized: bool,
    keyed: Option<Keyed>,
    subtask: SubtaskStates,
    watermark: Watermark,
    firing: Option<Firing>,
    /// What the function emits into.
    emitted: Output,
    pending: Pending,
    context: Option<OperatorContext>,
    changes: Vec<TimerChange>,
}

/// The states and timers of keys.
struct Keyed {
    states: Box<dyn KeyedStates>,
    timers: TimerService,
}

impl std::fmt::Debug for Keyed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyed({} keys)", self.states.len())
    }
}

/// Why timers are being fired.
#[derive(Clone, Copy, Debug)]
enum Firing {
    /// Event time has come to the operator's watermark, which goes on afterwards.
    Advance,
    /// The clock has come to this time.
    Wake(i64),
}

impl<F: ProcessFunction> ProcessOperator<F> {
    /// An operator that is still to be opened.
    pub fn new(plan: Arc<ProcessPlan>, function: F) -> Self {
        Self {
            plan,
            function,
            is_open: false,
            is_initialized: false,
            keyed: None,
            subtask: SubtaskStates::default(),
            watermark: Watermark::MIN,
            firing: None,
            emitted: Output::new(usize::MAX),
            pending: Pending::default(),
            context: None,
            changes: Vec::new(),
        }
    }

    /// Shows the function what was restored, unless it has seen it.
    fn initialize(&mut self, is_restored: bool) -> Result<()> {
        if std::mem::replace(&mut self.is_initialized, true) {
            return Ok(());
        }
        let context = self.context.as_ref().ok_or_else(not_open)?;
        self.function.initialize(context, is_restored, &mut self.subtask)
    }

    /// Fires the next timers; whether there were some.
    fn fire(&mut self, firing: Firing) -> Result<bool> {
        let context = self.context.as_ref().ok_or_else(not_open)?;
        let (now, timers_max) = (context.clock.now_millis(), context.batch_rows.max(1));
        let Some(Keyed { states, timers }) = &mut self.keyed else { return Ok(false) };
        let is_final = self.watermark == Watermark::MAX;
        let (mut domain, mut due) = match firing {
            Firing::Advance => (TimerDomain::Event, timers.due(TimerDomain::Event, self.watermark.0, timers_max)),
            Firing::Wake(time) => (TimerDomain::Processing, timers.due(TimerDomain::Processing, time, timers_max)),
        };
        if due.is_empty() && is_final && domain == TimerDomain::Event {
            timers.end();
            (domain, due) = (TimerDomain::Processing, timers.due(TimerDomain::Processing, i64::MAX, timers_max));
        }
        let Some(last) = due.last().map(|timer| timer.time) else { return Ok(false) };
        let (keys, slots) = timers.keys_of(&mut **states, &due)?;
        let place = Place { slots: &slots, watermark: self.watermark, now_millis: now };
        let mut scope = Scope::new(&mut **states, &mut self.subtask, &mut self.changes, place);
        scope.set_firing(domain, last);
        let due = DueTimers { domain, keys, timers: due };
        let served = self.function.timers(&due, &mut scope, &mut self.emitted)?;
        let mut fired: Vec<DueTimer> = due.timers;
        timers.put_back(domain, fired.split_off(served.min(fired.len())));
        timers.fired(&mut **states, domain, &fired, &slots[..fired.len()])?;
        timers.apply(&mut **states, &mut self.changes)?;
        states.release()?;
        self.take_emitted();
        Ok(true)
    }

    /// Queues what the function has emitted.
    fn take_emitted(&mut self) {
        let rows = self.context.as_ref().map_or(usize::MAX, |context| context.batch_rows);
        self.pending.take(&mut self.emitted, rows);
    }

    fn ask_to_be_woken(&mut self) {
        if let (Some(keyed), Some(context)) = (&mut self.keyed, &self.context) {
            keyed.timers.ask_to_be_woken(context);
        }
    }
}

impl<F: ProcessFunction> Operator for ProcessOperator<F> {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        if let Some(keys) = &self.plan.keys {
            let mut states = context.backend.keyed_states(keys)?;
            let timers = TimerService::new(&mut *states)?;
            self.keyed = Some(Keyed { states, timers });
        }
        self.context = Some(context.clone());
        self.is_open = true;
        self.subtask.claim(WATERMARK)?;
        let states = self.keyed.as_mut().map(|keyed| &mut *keyed.states as &mut dyn KeyedStates);
        self.function.open(context, states, &mut self.subtask)
    }

    fn process(&mut self, input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        self.initialize(false)?;
        let context = self.context.as_ref().ok_or_else(not_open)?;
        let now_millis = context.clock.now_millis();
        let (watermark, rows) = (self.watermark, batch.num_rows());
        let kind = self.plan.inputs.get(input);
        let kind = kind.ok_or_else(|| Error::internal(format!("rows of input {input}, which there is not")))?;
        let mut slots = Vec::new();
        match (&mut self.keyed, kind) {
            (Some(Keyed { states, timers }), ProcessInput::Keyed(columns)) => {
                let (keys, hashes) = keys_and_hashes(&batch, columns)?;
                states.lookup(&keys, &hashes, &mut slots)?;
                let place = Place { slots: &slots, watermark, now_millis };
                let mut scope = Scope::new(&mut **states, &mut self.subtask, &mut self.changes, place);
                self.function.rows(input, batch, &mut scope, &mut self.emitted)?;
                timers.apply(&mut **states, &mut self.changes)?;
            }
            (Some(Keyed { states, timers }), ProcessInput::Broadcast) => {
                let place = Place { slots: &[], watermark, now_millis };
                let mut scope = Scope::new(&mut **states, &mut self.subtask, &mut self.changes, place);
                scope.set_service(timers);
                self.function.rows(input, batch, &mut scope, &mut self.emitted)?;
            }
            _ => {
                let place = Place { slots: &[], watermark, now_millis };
                let mut states = NoKeys;
                let mut scope = Scope::new(&mut states, &mut self.subtask, &mut self.changes, place);
                self.function.rows(input, batch, &mut scope, &mut self.emitted)?;
            }
        }
        if let Some(Keyed { states, .. }) = &mut self.keyed {
            states.expire(now_millis, rows + EXPIRED_SLOTS)?;
            states.release()?;
        }
        self.take_emitted();
        self.ask_to_be_woken();
        Ok(self.pending.emit(output))
    }

    fn advance(&mut self, watermark: Watermark, output: &mut Output) -> Result<Progress> {
        self.initialize(false)?;
        // After a restore inputs begin anew, below what had come before.
        self.watermark = self.watermark.max(watermark);
        self.firing = Some(Firing::Advance);
        self.resume(output)
    }

    fn wake(&mut self, _token: u64, output: &mut Output) -> Result<Progress> {
        let now = self.context.as_ref().ok_or_else(not_open)?.clock.now_millis();
        if let Some(keyed) = &mut self.keyed {
            keyed.timers.woken();
        }
        self.firing = Some(Firing::Wake(now));
        self.resume(output)
    }

    fn resume(&mut self, output: &mut Output) -> Result<Progress> {
        loop {
            if self.pending.emit(output) == Progress::Full {
                return Ok(Progress::Full);
            }
            let Some(firing) = self.firing else {
                self.ask_to_be_woken();
                return Ok(Progress::Done);
            };
            if self.fire(firing)? {
                continue;
            }
            self.firing = None;
            if let Firing::Advance = firing {
                self.function.watermark(self.watermark, &mut self.emitted)?;
                self.take_emitted();
            }
        }
    }

    fn memory_bytes(&self) -> usize {
        let keyed = self.keyed.as_ref();
        let keyed = keyed.map_or(0, |keyed| keyed.states.memory_bytes() + keyed.timers.memory_bytes());
        keyed + self.subtask.memory_bytes() + self.function.memory_bytes()
    }

    fn give_back(&mut self, bytes: usize) -> Result<()> {
        self.keyed.as_mut().map_or(Ok(()), |keyed| keyed.states.give_back(bytes))
    }

    fn snapshot(&mut self, scope: SnapshotScope) -> Result<Snapshot> {
        self.initialize(false)?;
        let mut snapshot = match &mut self.keyed {
            Some(keyed) => keyed.states.snapshot(scope)?,
            None => Snapshot::default(),
        };
        let others = self.subtask.freeze().into_iter().chain([freeze_watermark(self.watermark)?]);
        others.for_each(|state| snapshot.push(Extent::Whole, state));
        Ok(snapshot)
    }

    fn restore(&mut self, mut state: RestoredState) -> Result<()> {
        if let Some(Keyed { states, timers }) = &mut self.keyed {
            states.restore(&mut state)?;
            timers.restored(&mut **states)?;
        }
        self.watermark = restored_watermark(&mut state)?;
        self.subtask.restore(&mut state)?;
        self.initialize(true)?;
        // Timers whose time came while the job stood still fire at once (PRF-09).
        self.ask_to_be_woken();
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        match std::mem::take(&mut self.is_open) {
            true => self.function.close(),
            false => Ok(()),
        }
    }
}

impl<F: ProcessFunction> Drop for ProcessOperator<F> {
    /// A task that panicked or was given up is dropped without being closed; the function still gives back what it took (FUN-02).
    fn drop(&mut self) {
        // Why it ended is known; this is not the reason.
        let _ = self.close();
    }
}

fn not_open() -> Error {
    Error::internal("a process operator that was not opened")
}
