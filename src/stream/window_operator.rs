//! The operator of windows over time: adds rows to panes, fires windows whose time has come, forgets what is over.
//!
//! ```text
//! process   row --> late for all its windows? --> side output or counter
//!               \-> its pane; a window that has fired already fires again, at once, once a row
//! advance   timers up to the watermark, in order: fire, then forget; then the watermark goes on
//! ```
//!
//! Late is judged by the watermark before the batch. In processing time nothing is late, and a wake-up takes the part of the
//! watermark.

use std::marker::PhantomData;
use std::sync::Arc;

use tidemill_core::metrics::{Counter, LATE_RECORDS_DROPPED};
use tidemill_core::operator::{Operator, OperatorContext, Output, Progress};
use tidemill_core::window::Window;
use tidemill_core::{Batch, Error, Result, Watermark};

use super::keys::Keys;
use super::layout::{KeyedCodec, KeyedRows, PlainCodec};
use super::operator::Head;
use super::panes::{Panes, Timers};
use super::record::Record;
use super::rows::{Collector, NO_TIME, Rows};
use super::stage::{Tail, emit_pieces};
use super::window_logic::WindowLogic;
use super::windows::{Assigner, TimeDomain, last_moment};

/// The side output port of late rows.
pub(super) const LATE_PORT: usize = 1;

/// What all subtasks of a window operator agree on.
pub(super) struct WindowPlan<K, T, L> {
    pub codec: Arc<KeyedCodec<K, T>>,
    pub assigner: Assigner,
    pub domain: TimeDomain,
    /// How long a window is kept after it fired, in milliseconds.
    pub lateness: i64,
    pub logic: L,
    /// How late rows leave; they are counted if they do not.
    pub late: Option<Arc<PlainCodec<T>>>,
    /// Whether results have event time.
    pub timed: bool,
    pub text: String,
}

/// Windows as the head of a task.
pub(super) struct WindowHead<K, T, R, L> {
    pub plan: Arc<WindowPlan<K, T, L>>,
    pub result: PhantomData<fn() -> R>,
}

impl<K: Record, T: Record, R: Record, L: WindowLogic<K, T, R>> Head for WindowHead<K, T, R, L> {
    fn create(&self, tail: Tail) -> Result<Box<dyn Operator>> {
        Ok(Box::new(WindowOperator {
            keys: Keys::new(self.plan.codec.clone())?,
            panes: Vec::new(),
            timers: Timers::default(),
            passed: NO_TIME,
            windows: (NO_TIME, Vec::new()),
            results: Collector::new(),
            times: Vec::new(),
            late: Rows::default(),
            due: Due::default(),
            firing: None,
            wake_at: None,
            context: None,
            dropped: Counter::default(),
            plan: self.plan.clone(),
            tail,
        }))
    }

    fn describe(&self) -> String {
        self.plan.text.clone()
    }
}

/// One subtask.
pub(super) struct WindowOperator<K, T, R, L: WindowLogic<K, T, R>> {
    pub(super) plan: Arc<WindowPlan<K, T, L>>,
    pub(super) keys: Keys<K, T>,
    /// By slot.
    pub(super) panes: Vec<Panes<L::State>>,
    pub(super) timers: Timers,
    /// Event time that has passed; always [`NO_TIME`] in processing time, in which nothing is late.
    pub(super) passed: i64,
    /// The windows of the slice that the last row fell into: the next one is likely to fall there too.
    pub(super) windows: (i64, Vec<Window>),
    results: Collector<R>,
    times: Vec<i64>,
    late: Rows<T>,
    due: Due,
    /// Timers up to here are being fired; then the watermark, if it was one, goes on.
    firing: Option<(i64, Option<Watermark>)>,
    /// The earliest wake-up that was asked for.
    wake_at: Option<i64>,
    context: Option<OperatorContext>,
    dropped: Counter,
    tail: Tail,
}

/// Slots whose time has come, in the order in which they fire.
#[derive(Debug, Default)]
struct Due {
    time: i64,
    slots: std::collections::VecDeque<usize>,
}

impl<K: Record, T: Record, R: Record, L: WindowLogic<K, T, R>> Operator for WindowOperator<K, T, R, L> {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        self.tail.open(context);
        self.keys.set_max_parallelism(context.max_parallelism);
        self.dropped = context.metrics.counter(LATE_RECORDS_DROPPED);
        self.context = Some(context.clone());
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        let KeyedRows { keys, hashes, rows } = self.plan.codec.split(&batch)?;
        let slots = self.keys.intern(&keys, &hashes)?;
        self.panes.resize_with(self.panes.len().max(self.keys.slots()), Vec::new);
        let now = self.now()?;
        for (row, (value, slot)) in rows.values.into_iter().zip(&slots).enumerate() {
            let time = now.or_else(|| rows.times.get(row).copied()).unwrap_or(NO_TIME);
            if time == NO_TIME && self.plan.assigner != Assigner::Whole {
                return Err(Error::data("a record has no event time and cannot be put into a window")
                    .with_hint("call assign_timestamps_and_watermarks on every stream that leads here"));
            }
            match self.plan.assigner {
                Assigner::Session { gap } => self.add_to_session(*slot, time, gap, value)?,
                Assigner::Sliced(_) | Assigner::Whole => self.add_to_slice(*slot, time, value)?,
            }
        }
        self.forget_unused(slots);
        self.flush(output)?;
        self.flush_late(output)?;
        self.tail.end_batch(output);
        self.ask_to_be_woken();
        Ok(Progress::Done)
    }

    fn advance(&mut self, watermark: Watermark, output: &mut Output) -> Result<Progress> {
        let is_event_time = self.plan.domain == TimeDomain::Event;
        if is_event_time {
            self.passed = watermark.0;
        }
        // At the end of the input, windows over processing time are complete too: nothing more will come into them.
        let until = if is_event_time || watermark == Watermark::MAX { watermark.0 } else { NO_TIME };
        self.firing = Some((until, Some(watermark)));
        self.resume(output)
    }

    fn wake(&mut self, _token: u64, output: &mut Output) -> Result<Progress> {
        self.wake_at = None;
        if let (Some(now), None) = (self.now()?, self.firing) {
            // A window is complete when its end has come, one millisecond behind its last moment.
            self.firing = Some((now.saturating_sub(1), None));
        }
        let progress = self.resume(output)?;
        self.ask_to_be_woken();
        Ok(progress)
    }

    fn resume(&mut self, output: &mut Output) -> Result<Progress> {
        let Some((until, watermark)) = self.firing else { return Ok(Progress::Done) };
        let rows = self.batch_rows();
        loop {
            if self.due.slots.is_empty() {
                let Some((time, mut slots)) = self.timers.pop(until) else { break };
                slots.retain(|slot| self.panes.get(*slot).is_some_and(|panes| !panes.is_empty()));
                self.keys.sort(&mut slots)?;
                self.due = Due { time, slots: slots.into() };
            }
            let slots: Vec<usize> = self.due.slots.drain(..rows.min(self.due.slots.len())).collect();
            self.fire_due(self.due.time, &slots)?;
            if self.results.values.len() >= rows {
                self.flush(output)?;
            }
            if output.is_full() {
                return Ok(Progress::Full);
            }
        }
        self.flush(output)?;
        if self.keys.is_empty() && !self.panes.is_empty() {
            self.keys.clear()?;
            self.panes = Vec::new();
        }
        self.firing = None;
        if let Some(watermark) = watermark {
            self.tail.watermark(watermark, output);
        }
        Ok(Progress::Done)
    }
}

impl<K: Record, T: Record, R: Record, L: WindowLogic<K, T, R>> WindowOperator<K, T, R, L> {
    /// Fires what ends at `time` for these slots, and forgets what is over then.
    fn fire_due(&mut self, time: i64, slots: &[usize]) -> Result<()> {
        let keys = if self.plan.logic.needs_key() { self.keys.decode(slots)? } else { Vec::new() };
        for (place, slot) in slots.iter().enumerate() {
            let key = keys.get(place);
            match self.plan.assigner {
                Assigner::Session { .. } => self.fire_session_ending(*slot, time, key)?,
                Assigner::Sliced(_) | Assigner::Whole => self.fire_window_ending(*slot, time, key)?,
            }
            self.forget_over(*slot, time)?;
            if self.panes[*slot].is_empty() {
                self.keys.remove(*slot);
            }
        }
        Ok(())
    }

    /// Drops panes that no window needs after `time`.
    fn forget_over(&mut self, slot: usize, time: i64) -> Result<()> {
        let mut kept = Vec::new();
        for pane in std::mem::take(&mut self.panes[slot]) {
            let last = match self.plan.assigner {
                Assigner::Session { .. } => Some(pane.window),
                _ => self.plan.assigner.windows_of_slice(pane.window.start)?.last().copied(),
            };
            if last.is_some_and(|window| self.cleanup_time(&window) > time) {
                kept.push(pane);
            }
        }
        self.panes[slot] = kept;
        Ok(())
    }

    /// The moment after which a window takes no more rows.
    pub(super) fn cleanup_time(&self, window: &Window) -> i64 {
        match self.plan.domain {
            TimeDomain::Event => last_moment(window).saturating_add(self.plan.lateness),
            TimeDomain::Processing => last_moment(window),
        }
    }

    /// Whether a window takes no more rows.
    pub(super) fn is_over(&self, window: &Window) -> bool {
        self.cleanup_time(window) <= self.passed && self.passed != NO_TIME
    }

    /// A row that none of its windows takes.
    pub(super) fn skip(&mut self, time: i64, value: T) {
        if self.passed == NO_TIME || time.saturating_add(self.plan.lateness) > self.passed {
            return;
        }
        match self.plan.late {
            Some(_) => {
                self.late.values.push(value);
                self.late.times.push(time);
            }
            None => self.dropped.add(1),
        }
    }

    /// The results of a window, which is complete.
    pub(super) fn fire(&mut self, key: Option<&K>, window: Window, state: &L::State) -> Result<()> {
        self.plan.logic.fire(key, window, state, &mut self.results)?;
        if self.plan.timed {
            self.times.resize(self.results.values.len(), last_moment(&window));
        }
        Ok(())
    }

    /// The key of a slot, if the logic wants it.
    pub(super) fn key(&self, slot: usize) -> Result<Option<K>> {
        match self.plan.logic.needs_key() {
            true => Ok(self.keys.decode(&[slot])?.pop()),
            false => Ok(None),
        }
    }

    /// Keys all of whose rows were too late leave nothing behind.
    fn forget_unused(&mut self, mut slots: Vec<usize>) {
        slots.retain(|slot| self.panes[*slot].is_empty());
        slots.sort_unstable();
        slots.dedup();
        slots.into_iter().for_each(|slot| self.keys.remove(slot));
    }

    fn flush(&mut self, output: &mut Output) -> Result<()> {
        if self.results.values.is_empty() {
            return Ok(());
        }
        let values = std::mem::take(&mut self.results.values);
        let times = std::mem::take(&mut self.times);
        self.tail.emit(Rows { values, times }.erase(), output)
    }

    fn flush_late(&mut self, output: &mut Output) -> Result<()> {
        if let (Some(codec), false) = (&self.plan.late, self.late.values.is_empty()) {
            let records = codec.encode_rows(&std::mem::take(&mut self.late))?;
            emit_pieces(records, self.batch_rows(), |piece| output.emit_to(LATE_PORT, piece));
        }
        Ok(())
    }

    fn batch_rows(&self) -> usize {
        self.context.as_ref().map_or(1, |context| context.batch_rows.max(1))
    }

    /// The time of the machine, if that is the time of these windows.
    fn now(&self) -> Result<Option<i64>> {
        match (self.plan.domain, &self.context) {
            (TimeDomain::Event, _) => Ok(None),
            (TimeDomain::Processing, Some(context)) => Ok(Some(context.clock.now_millis())),
            (TimeDomain::Processing, None) => Err(Error::internal("a window operator was not opened")),
        }
    }

    /// Asks for a wake-up at the end of the next window over processing time.
    fn ask_to_be_woken(&mut self) {
        let (TimeDomain::Processing, Some(last), Some(context)) = (self.plan.domain, self.timers.next(), &self.context)
        else {
            return;
        };
        let end = last.saturating_add(1);
        if self.wake_at.is_none_or(|asked| end < asked) && last != last_moment(&super::windows::WHOLE) {
            self.wake_at = Some(end);
            context.wakeups.at(end, 0);
        }
    }
}
