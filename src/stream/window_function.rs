//! The function of windows at work in one subtask, for the operators that know when windows fire.

use std::marker::PhantomData;

use arrow::datatypes::Fields;
use tidemill_core::operator::{OperatorContext, Output};
use tidemill_core::state::{CurrentKey, Extent, KeyedStates, RestoredState, Snapshot, SnapshotScope};
use tidemill_core::window::Window;
use tidemill_core::{Result, Watermark};
use tidemill_exec::operators::EXPIRED_SLOTS;
use tidemill_exec::operators::saved::WATERMARK;
use tidemill_exec::state::SubtaskStates;

use super::process::{InitializationContext, LazyKeys, RuntimeContext, SideOutputs, StatesOfWindows};
use super::program::SideOutput;
use super::record::Record;
use super::rows::{Collector, Rows};
use super::stage::Tail;
use super::window_context::{WindowContext, WindowStates};
use super::window_logic::WindowLogic;
use super::window_operator::OVER;

/// A key among those at hand, and the slot that it has.
pub(super) struct At<'a, K> {
    pub keys: &'a LazyKeys<'a, K>,
    pub row: usize,
    pub slot: usize,
}

impl<K> Clone for At<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for At<'_, K> {}

/// The logic, what it keeps beside the panes of its keys, and what it has emitted.
pub(super) struct WindowFunction<K, T, R, L: WindowLogic<K, T, R>> {
    pub logic: L,
    /// How far event time has come.
    pub watermark: Watermark,
    /// Processing time, as it was when the batch or the firing at hand began.
    now_millis: i64,
    windows: Option<WindowStates>,
    subtask: SubtaskStates,
    sides: SideOutputs,
    results: Collector<R>,
    /// The event time of each result, where results have one.
    times: Vec<i64>,
    /// From `open` on.
    context: Option<OperatorContext>,
    /// Opened and not yet closed.
    is_open: bool,
    /// It has seen what was restored.
    is_initialized: bool,
    types: PhantomData<fn(K, T)>,
}

impl<K: Record, T: Record, R: Record, L: WindowLogic<K, T, R>> WindowFunction<K, T, R, L> {
    /// A function that is still to be opened. `sides` are the side outputs that are read.
    pub fn new(logic: L, sides: &[SideOutput]) -> Self {
        Self {
            logic,
            watermark: Watermark::MIN,
            now_millis: 0,
            windows: None,
            subtask: SubtaskStates::default(),
            sides: SideOutputs::new(sides),
            results: Collector::new(),
            times: Vec::new(),
            context: None,
            is_open: false,
            is_initialized: false,
            types: PhantomData,
        }
    }

    /// Lets the function declare its states: those of keys among `states`, where the operator has `own_state`, those of windows
    /// elsewhere, if windows have any.
    pub fn open(
        &mut self,
        context: &OperatorContext,
        states: &mut dyn KeyedStates,
        keys: &Fields,
        own_state: &str,
        windows_merge: bool,
    ) -> Result<()> {
        self.context = Some(context.clone());
        if !L::IS_RICH {
            return Ok(());
        }
        self.is_open = true;
        [own_state, WATERMARK, OVER].into_iter().try_for_each(|name| self.subtask.claim(name))?;
        if !windows_merge {
            self.windows = Some(WindowStates::new(&*context.backend, keys)?);
        }
        let windows = match &mut self.windows {
            Some(windows) => StatesOfWindows::There(windows),
            None => StatesOfWindows::Merging,
        };
        self.logic.open(&mut RuntimeContext::new(context, Some(states), &mut self.subtask, false).with_windows(windows))
    }

    /// Shows the function what was restored of the states that belong to no key, unless it has seen it.
    fn initialize(&mut self, is_restored: bool) -> Result<()> {
        let is_done = std::mem::replace(&mut self.is_initialized, true);
        let Some(context) = self.context.as_ref().filter(|_| L::IS_RICH && !is_done) else { return Ok(()) };
        let subtask = &mut self.subtask;
        self.logic.initialize_state(&mut InitializationContext { context, is_restored, subtask })
    }

    /// A batch, or a firing, begins.
    pub fn begin(&mut self) -> Result<()> {
        self.initialize(false)?;
        if let (true, Some(context)) = (L::IS_RICH, &self.context) {
            self.now_millis = context.clock.now_millis();
        }
        Ok(())
    }

    /// The results of a window, which have `time` as their event time, if any.
    pub fn fire(
        &mut self,
        states: &mut dyn KeyedStates,
        at: At<'_, K>,
        window: Window,
        state: &L::State,
        time: Option<i64>,
    ) -> Result<()> {
        let Self { logic, windows, subtask, sides, results, times, watermark, now_millis, .. } = self;
        let mut context = WindowContext {
            keys: at.keys,
            row: at.row,
            window,
            watermark: *watermark,
            global: CurrentKey::new(states, at.slot, *now_millis),
            states: windows.as_mut(),
            current: None,
            lists: &mut subtask.lists,
            sides,
            time,
        };
        logic.fire(state, &mut context, results)?;
        if let Some(time) = time {
            times.resize(results.values.len(), time);
        }
        Ok(())
    }

    /// Tells the function that windows are over.
    pub fn clear(
        &mut self,
        states: &mut dyn KeyedStates,
        at: At<'_, K>,
        over: impl IntoIterator<Item = Window>,
    ) -> Result<()> {
        for window in over {
            let mut context = WindowContext {
                keys: at.keys,
                row: at.row,
                window,
                watermark: self.watermark,
                global: CurrentKey::new(&mut *states, at.slot, self.now_millis),
                states: self.windows.as_mut(),
                current: None,
                lists: &mut self.subtask.lists,
                sides: &mut self.sides,
                time: None,
            };
            self.logic.clear(&mut context)?;
        }
        Ok(())
    }

    /// Brings what is kept for all these keys in a window into memory at once, where it will be asked for one by one.
    pub fn bring_in(&mut self, keys: &LazyKeys<'_, K>, window: Window) -> Result<()> {
        match self.windows.as_mut().filter(|windows| windows.is_used) {
            Some(windows) => windows.lookup(keys.columns().to_vec(), keys.rows(), window).map(drop),
            None => Ok(()),
        }
    }

    /// A batch, or a firing, is done: drops what has expired of so many more keys, and holds no slot any more.
    pub fn release(&mut self, states: &mut dyn KeyedStates, rows: usize) -> Result<()> {
        if L::IS_RICH {
            states.expire(self.now_millis, rows + EXPIRED_SLOTS)?;
            if let Some(windows) = &mut self.windows {
                windows.states.expire(self.now_millis, rows + EXPIRED_SLOTS)?;
                windows.states.release()?;
            }
        }
        states.release()
    }

    /// How many results wait to be sent.
    pub fn results(&self) -> usize {
        self.results.values.len()
    }

    /// Sends results on.
    pub fn flush(&mut self, tail: &mut Tail, output: &mut Output) -> Result<()> {
        if L::IS_RICH {
            self.sides.flush(tail.batch_rows(), output)?;
        }
        if self.results.values.is_empty() {
            return Ok(());
        }
        let values = std::mem::take(&mut self.results.values);
        let times = std::mem::take(&mut self.times);
        tail.emit(Rows { values, times }.erase(), output)
    }

    /// Bytes that it holds beside the states of keys, roughly.
    pub fn memory_bytes(&self) -> usize {
        let windows = self.windows.as_ref().map_or(0, |windows| windows.states.memory_bytes());
        let accumulators = self.context.as_ref().filter(|_| L::IS_RICH);
        let accumulators = accumulators.map_or(0, |context| context.shared.accumulators.memory_bytes());
        windows + self.subtask.memory_bytes() + accumulators
    }

    /// Moves out of memory what it holds of the states of windows, up to `bytes`; how much that was.
    pub fn give_back(&mut self, bytes: usize) -> Result<usize> {
        let Some(windows) = &mut self.windows else { return Ok(0) };
        let before = windows.states.memory_bytes();
        windows.states.give_back(bytes)?;
        Ok(before.saturating_sub(windows.states.memory_bytes()))
    }

    /// Adds what it keeps to a snapshot.
    pub fn snapshot(&mut self, scope: SnapshotScope, snapshot: &mut Snapshot) -> Result<()> {
        self.initialize(false)?;
        if let Some(windows) = &mut self.windows {
            snapshot.states.extend(windows.states.snapshot(scope)?.states);
        }
        self.subtask.freeze().into_iter().for_each(|state| snapshot.push(Extent::Whole, state));
        Ok(())
    }

    /// Takes what it kept out of `state`, before the states of keys do.
    pub fn restore(&mut self, state: &mut RestoredState) -> Result<()> {
        if let Some(windows) = &mut self.windows {
            windows.restore(state)?;
        }
        self.subtask.restore(state)?;
        self.initialize(true)
    }

    /// Gives back what the function took.
    pub fn close(&mut self) -> Result<()> {
        match std::mem::take(&mut self.is_open) {
            true => self.logic.close(),
            false => Ok(()),
        }
    }
}

impl<K, T, R, L: WindowLogic<K, T, R>> Drop for WindowFunction<K, T, R, L> {
    /// A task that panicked or was given up is dropped without being closed; the function still gives back what it took (FUN-02).
    fn drop(&mut self) {
        if std::mem::take(&mut self.is_open) {
            // Why it ended is known; this is not the reason.
            let _ = self.logic.close();
        }
    }
}
