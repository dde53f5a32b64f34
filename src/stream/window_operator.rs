//! The operator of windows over time: adds rows to panes, fires windows whose time has come, forgets what is over.
//!
//! ```text
//! process   row --> late for all its windows? --> side output or counter
//!               \-> its pane; a window that has fired already fires again, at once, once a row
//! advance   times up to the watermark, in order: fire, tell the function what is over, forget; then the watermark goes on
//! ```
//!
//! Late is judged by the watermark before the batch. In processing time nothing is late, and a wake-up takes the part of the
//! watermark.
//!
//! The panes are the state. When to look at which key follows from them, so the queue of times is made anew after a restore.

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::ArrayRef;
use tidemill_core::metrics::{Counter, LATE_RECORDS_DROPPED};
use tidemill_core::operator::{Operator, OperatorContext, Output, Progress, is_overdue};
use tidemill_core::state::{Extent, KeyedStates, RestoredState, Snapshot, SnapshotScope, StateId};
use tidemill_core::window::Window;
use tidemill_core::{Batch, Error, Result, Watermark};
use tidemill_exec::operators::saved::{freeze_numbers, freeze_watermark, restored_numbers, restored_watermark};

use super::cells::Cells;
use super::layout::{KeyedCodec, KeyedRows, PlainCodec};
use super::operator::Head;
use super::panes::Panes;
use super::process::LazyKeys;
use super::program::SideOutput;
use super::record::Record;
use super::rows::{NO_TIME, Rows};
use super::stage::{Tail, emit_pieces};
use super::window_function::{At, WindowFunction};
use super::window_logic::WindowLogic;
use super::window_times::WindowTimes;
use super::windows::{Assigner, TimeDomain, last_moment};

/// The side output port of late rows.
pub(super) const LATE_PORT: usize = 1;

/// The state that holds the panes of each key.
const PANES: &str = "panes";
/// The state that holds up to when windows have ended that are over.
pub(super) const OVER: &str = "over";

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
    fn create(&self, tail: Tail, sides: &[SideOutput]) -> Result<Box<dyn Operator>> {
        Ok(Box::new(WindowOperator {
            kept: None,
            times: Vec::new(),
            passed: NO_TIME,
            fired: NO_TIME,
            over_before: NO_TIME,
            windows: (NO_TIME, Vec::new()),
            function: WindowFunction::new(self.plan.logic.clone(), sides),
            late: Rows::default(),
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
    /// From `open` on; taken out while it is worked on.
    kept: Option<Kept>,
    /// What the rows at hand have asked for: to look at the key of a slot again at a time.
    pub(super) times: Vec<(usize, i64)>,
    /// Event time that has passed; always [`NO_TIME`] in processing time, in which nothing is late.
    pub(super) passed: i64,
    /// Windows whose last moment is not later had fired when the state was stored from which this one was restored.
    pub(super) fired: i64,
    /// Those whose last moment is not later were over then.
    over_before: i64,
    /// The windows of the slice that the last row fell into: the next one is likely to fall there too.
    pub(super) windows: (i64, Vec<Window>),
    pub(super) function: WindowFunction<K, T, R, L>,
    late: Rows<T>,
    /// Up to here windows are being fired; then the watermark, if it was one, goes on.
    firing: Option<(i64, Option<Watermark>)>,
    /// The earliest wake-up that was asked for.
    wake_at: Option<i64>,
    context: Option<OperatorContext>,
    dropped: Counter,
    tail: Tail,
}

/// The keys with their panes, and when to look at which.
pub(super) struct Kept {
    pub states: Box<dyn KeyedStates>,
    pub panes: StateId,
    times: WindowTimes,
}

impl<K: Record, T: Record, R: Record, L: WindowLogic<K, T, R>> Operator for WindowOperator<K, T, R, L> {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        self.tail.open(context);
        let keys = self.plan.codec.key_fields();
        let mut states = context.backend.keyed_states(&keys)?;
        let panes = states.register(PANES, None, Box::new(Cells::<Panes<L::State>>::new(PANES)?))?;
        let times = WindowTimes::new(&*states)?;
        self.dropped = context.metrics.counter(LATE_RECORDS_DROPPED);
        self.context = Some(context.clone());
        let kept = self.kept.insert(Kept { states, panes, times });
        let windows_merge = matches!(self.plan.assigner, Assigner::Session { .. });
        self.function.open(context, &mut *kept.states, &keys, PANES, windows_merge)
    }

    fn process(&mut self, _input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        let KeyedRows { keys, hashes, rows } = self.plan.codec.split(&batch)?;
        let mut kept = self.kept.take().ok_or_else(not_open)?;
        let mut slots = Vec::with_capacity(hashes.len());
        kept.states.lookup(&keys, &hashes, &mut slots)?;
        self.add(&mut kept, &keys, rows, &slots)?;
        kept.times.add(&*kept.states, &mut self.times)?;
        kept.states.touch(kept.panes, &slots, 0)?;
        self.function.release(&mut *kept.states, slots.len())?;
        self.kept = Some(kept);
        self.function.flush(&mut self.tail, output)?;
        self.flush_late(output)?;
        self.tail.end_batch(output);
        self.ask_to_be_woken();
        Ok(Progress::Done)
    }

    fn advance(&mut self, watermark: Watermark, output: &mut Output) -> Result<Progress> {
        self.function.begin()?;
        let is_event_time = self.plan.domain == TimeDomain::Event;
        if is_event_time {
            // After a restore inputs begin anew, below what has passed.
            self.passed = self.passed.max(watermark.0);
        }
        self.function.watermark = self.function.watermark.max(watermark);
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
            let mut kept = self.kept.take().ok_or_else(not_open)?;
            let due = kept.times.due(&mut *kept.states, until, rows)?;
            let Some((time, keys, slots)) = due else {
                self.kept = Some(kept);
                break;
            };
            self.fire_due(&mut kept, time, &keys, &slots)?;
            self.kept = Some(kept);
            if self.function.results() >= rows {
                self.function.flush(&mut self.tail, output)?;
            }
            if output.is_full() {
                return Ok(Progress::Full);
            }
        }
        self.function.flush(&mut self.tail, output)?;
        self.firing = None;
        if let Some(watermark) = watermark {
            self.tail.watermark(watermark, output);
        }
        Ok(Progress::Done)
    }

    fn memory_bytes(&self) -> usize {
        let kept = self.kept.as_ref().map_or(0, |kept| kept.states.memory_bytes() + kept.times.memory_bytes());
        kept + self.function.memory_bytes()
    }

    fn give_back(&mut self, bytes: usize) -> Result<()> {
        let given = self.function.give_back(bytes)?;
        self.kept.as_mut().map_or(Ok(()), |kept| kept.states.give_back(bytes.saturating_sub(given)))
    }

    fn snapshot(&mut self, scope: SnapshotScope) -> Result<Snapshot> {
        let kept = self.kept.as_mut().ok_or_else(not_open)?;
        // Restored a moment ago, what is over by now is still to be looked at.
        let is_behind = kept.times.next().is_some_and(|time| time <= self.passed);
        let mut snapshot = kept.states.snapshot(scope)?;
        let over = if is_behind { self.over_before } else { self.over_until() };
        self.function.snapshot(scope, &mut snapshot)?;
        snapshot.push(Extent::Whole, freeze_watermark(Watermark(self.passed))?);
        snapshot.push(Extent::Whole, freeze_numbers(OVER, &[over])?);
        Ok(snapshot)
    }

    fn restore(&mut self, mut state: RestoredState) -> Result<()> {
        self.function.watermark = restored_watermark(&mut state)?;
        self.passed = self.function.watermark.0;
        self.fired = self.passed;
        self.over_before = restored_numbers(&mut state, OVER)?.into_iter().min().unwrap_or(NO_TIME);
        self.function.restore(&mut state)?;
        let mut kept = self.kept.take().ok_or_else(not_open)?;
        kept.states.restore(&mut state)?;
        let mut slots = Vec::new();
        kept.states.all(&mut slots)?;
        for slot in slots {
            for pane in kept.panes::<L::State>()?.cell(slot).iter() {
                self.look_again(slot, &pane.window, self.over_before)?;
            }
        }
        kept.times.add(&*kept.states, &mut self.times)?;
        self.kept = Some(kept);
        // Windows whose end has come while the job stood still fire at once.
        self.ask_to_be_woken();
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        self.function.close()
    }
}

impl Kept {
    /// The panes of each key.
    pub fn panes<S: Record + Clone>(&mut self) -> Result<&mut Cells<Panes<S>>> {
        self.states.column(self.panes)?.downcast()
    }
}

impl<K: Record, T: Record, R: Record, L: WindowLogic<K, T, R>> WindowOperator<K, T, R, L> {
    /// Adds rows to the panes of their keys.
    fn add(&mut self, kept: &mut Kept, keys: &[ArrayRef], rows: Rows<T>, slots: &[usize]) -> Result<()> {
        let (plan, now) = (self.plan.clone(), self.now()?);
        let decode = |columns: &[ArrayRef], rows| plan.codec.decode_keys(columns, rows);
        let keys = LazyKeys::new(keys, slots.len(), &decode);
        self.function.begin()?;
        for (row, (value, slot)) in rows.values.into_iter().zip(slots.iter().copied()).enumerate() {
            let time = now.or_else(|| rows.times.get(row).copied()).unwrap_or(NO_TIME);
            if time == NO_TIME && self.plan.assigner != Assigner::Whole {
                return Err(Error::data("a record has no event time and cannot be put into a window")
                    .with_hint("call assign_timestamps_and_watermarks on every stream that leads here"));
            }
            let panes = kept.panes::<L::State>()?.cell(slot);
            let again = match self.plan.assigner {
                Assigner::Session { gap } => self.add_to_session(panes, slot, time, gap, value)?,
                Assigner::Sliced(_) | Assigner::Whole => self.add_to_slice(panes, slot, time, value)?,
            };
            if !again.is_empty() {
                self.fire_again(kept, At { keys: &keys, row, slot }, again)?;
            }
        }
        Ok(())
    }

    /// Notes when a pane is to be looked at: at the last moment of each window that has not passed, and when it is over. Of those that
    /// are over by now, only such as end by `over_before` were known to be.
    pub(super) fn look_again(&mut self, slot: usize, pane: &Window, over_before: i64) -> Result<()> {
        let windows = match self.plan.assigner {
            Assigner::Session { .. } => vec![*pane],
            _ => self.plan.assigner.windows_of_slice(pane.start)?,
        };
        let ahead = windows.iter().map(last_moment).filter(|last| *last > self.passed);
        self.times.extend(ahead.map(|last| (slot, last)));
        // The pane goes with the last of them; a rich function is told of each.
        let told = if L::IS_RICH { &windows[..] } else { &windows[windows.len().saturating_sub(1)..] };
        for window in told {
            let over = self.cleanup_time(window);
            if over > self.passed || last_moment(window) > over_before {
                self.times.push((slot, over));
            }
        }
        Ok(())
    }

    /// The moment after which a window takes no more rows.
    pub(super) fn cleanup_time(&self, window: &Window) -> i64 {
        match self.plan.domain {
            TimeDomain::Event => last_moment(window).saturating_add(self.plan.lateness),
            TimeDomain::Processing => last_moment(window),
        }
    }

    /// Windows whose last moment is not later take no more rows.
    pub(super) fn over_until(&self) -> i64 {
        match self.passed {
            NO_TIME => NO_TIME,
            passed => passed.saturating_sub(self.plan.lateness),
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
        let next = self.kept.as_ref().and_then(|kept| kept.times.next());
        let (TimeDomain::Processing, Some(last), Some(context)) = (self.plan.domain, next, &self.context) else {
            return;
        };
        let end = last.saturating_add(1);
        let now = context.clock.now_millis();
        if self.wake_at.is_none_or(|asked| end < asked || is_overdue(asked, now))
            && last != last_moment(&super::windows::WHOLE)
        {
            self.wake_at = Some(end);
            context.wakeups.at(end, 0);
        }
    }
}

fn not_open() -> Error {
    Error::internal("a window operator that was not opened")
}
