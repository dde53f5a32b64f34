//! A process function of rows as the head of a task: batches become records, results go through the functions behind it.

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::ArrayRef;
use tidemill_core::operator::{Operator, OperatorContext, Output};
use tidemill_core::shared::AccumulatorSet;
use tidemill_core::state::KeyedStates;
use tidemill_core::{Batch, Error, Result, Watermark};
use tidemill_exec::operators::process::{
    DueTimers, ProcessFunction, ProcessInput, ProcessOperator, ProcessPlan, Scope,
};
use tidemill_exec::operators::timers::TimerDomain;
use tidemill_exec::state::SubtaskStates;

use super::context::{BroadcastContext, Context, InitializationContext, LazyKeys};
use super::logic::Logic;
use super::runtime_context::RuntimeContext;
use super::side_outputs::SideOutputs;
use crate::stream::layout::{KeyedCodec, PlainCodec};
use crate::stream::operator::Head;
use crate::stream::program::SideOutput;
use crate::stream::record::Record;
use crate::stream::rows::{Collector, NO_TIME, Rows};
use crate::stream::stage::Tail;

/// How records of an input come out of a batch.
pub(in crate::stream) enum InputCodec<K, T> {
    /// They stand behind their keys.
    Keyed(Arc<KeyedCodec<K, T>>),
    /// They stand alone.
    Plain(PlainCodec<T>),
}

impl<K: Record, T: Record> InputCodec<K, T> {
    fn rows(&self, batch: &Batch) -> Result<Rows<T>> {
        match self {
            Self::Keyed(codec) => codec.decode_values(batch),
            Self::Plain(codec) => codec.decode_rows(batch.records()),
        }
    }

    /// The key columns of a batch.
    fn key_columns<'b>(&self, batch: &'b Batch) -> &'b [ArrayRef] {
        match self {
            Self::Keyed(codec) => &batch.records().columns()[..codec.key_columns()],
            Self::Plain(_) => &[],
        }
    }

    fn decode_keys(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<K>> {
        match self {
            Self::Keyed(codec) => codec.decode_keys(columns, rows),
            Self::Plain(_) => {
                Err(Error::request("the key of a record that has none").with_hint("call key_by before process"))
            }
        }
    }

    fn input(&self) -> ProcessInput {
        match self {
            Self::Keyed(codec) => ProcessInput::Keyed((0..codec.key_columns()).collect()),
            Self::Plain(_) => ProcessInput::Plain,
        }
    }
}

/// The inputs of a process function.
pub(in crate::stream) struct Inputs<K, A, B> {
    pub first: InputCodec<K, A>,
    /// The second one, if there is one, and whether it is broadcast.
    pub second: Option<(InputCodec<K, B>, bool)>,
}

impl<K: Record, A: Record, B: Record> Inputs<K, A, B> {
    fn plan(&self) -> ProcessPlan {
        let keys = match &self.first {
            InputCodec::Keyed(codec) => Some(codec.key_fields()),
            InputCodec::Plain(_) => None,
        };
        let second = self.second.as_ref().map(|(codec, is_broadcast)| match is_broadcast {
            true => ProcessInput::Broadcast,
            false => codec.input(),
        });
        ProcessPlan { inputs: [self.first.input()].into_iter().chain(second).collect(), keys }
    }
}

/// A process function before it is given to subtasks.
pub(in crate::stream) struct ProcessHead<K, A, B, R, L> {
    pub inputs: Arc<Inputs<K, A, B>>,
    pub logic: L,
    pub text: String,
    pub result: PhantomData<fn() -> R>,
}

impl<K: Record, A: Record, B: Record, R: Record, L: Logic<K, A, B, R>> Head for ProcessHead<K, A, B, R, L> {
    fn create(&self, tail: Tail, sides: &[SideOutput]) -> Result<Box<dyn Operator>> {
        let function = RowFunction {
            inputs: self.inputs.clone(),
            logic: self.logic.clone(),
            out: Collector::new(),
            times: Vec::new(),
            sides: SideOutputs::new(sides),
            accumulators: None,
            tail,
        };
        Ok(Box::new(ProcessOperator::new(Arc::new(self.inputs.plan()), function)))
    }

    fn describe(&self) -> String {
        self.text.clone()
    }
}

/// The function of one subtask.
struct RowFunction<K, A, B, R, L> {
    inputs: Arc<Inputs<K, A, B>>,
    logic: L,
    out: Collector<R>,
    /// The event time of each result.
    times: Vec<i64>,
    sides: SideOutputs,
    /// What its accumulators occupy, once it is open.
    accumulators: Option<Arc<dyn AccumulatorSet>>,
    tail: Tail,
}

impl<K: Record, A: Record, B: Record, R: Record, L: Logic<K, A, B, R>> RowFunction<K, A, B, R, L> {
    fn first(&mut self, batch: &Batch, scope: &mut Scope<'_>) -> Result<()> {
        let inputs = self.inputs.clone();
        let rows = inputs.first.rows(batch)?;
        let decode = |columns: &[ArrayRef], rows| inputs.first.decode_keys(columns, rows);
        let keys = LazyKeys::new(inputs.first.key_columns(batch), batch.num_rows(), &decode);
        for (row, value) in rows.values.into_iter().enumerate() {
            let time = rows.times.get(row).copied();
            let mut context = context(scope, row, &keys, &mut self.sides, time, None);
            self.logic.first(value, &mut context, &mut self.out)?;
            self.times.resize(self.out.values.len(), time.unwrap_or(NO_TIME));
        }
        Ok(())
    }

    fn second(&mut self, batch: &Batch, scope: &mut Scope<'_>) -> Result<()> {
        let inputs = self.inputs.clone();
        let Some((codec, is_broadcast)) = &inputs.second else {
            return Err(Error::internal("rows of a second stream that there is not"));
        };
        let rows = codec.rows(batch)?;
        // Keys of states are those of the first stream, also where the second has none.
        let decode_all = |columns: &[ArrayRef], rows| inputs.first.decode_keys(columns, rows);
        let decode = |columns: &[ArrayRef], rows| codec.decode_keys(columns, rows);
        let keys = LazyKeys::new(codec.key_columns(batch), batch.num_rows(), &decode);
        for (row, value) in rows.values.into_iter().enumerate() {
            let time = rows.times.get(row).copied();
            match is_broadcast {
                true => {
                    let sides = &mut self.sides;
                    let mut context = BroadcastContext { scope, decode: &decode_all, sides, time };
                    self.logic.broadcast(value, &mut context, &mut self.out)?;
                }
                false => {
                    let mut context = context(scope, row, &keys, &mut self.sides, time, None);
                    self.logic.second(value, &mut context, &mut self.out)?;
                }
            }
            self.times.resize(self.out.values.len(), time.unwrap_or(NO_TIME));
        }
        Ok(())
    }

    fn flush(&mut self, output: &mut Output) -> Result<()> {
        self.sides.flush(self.tail.batch_rows(), output)?;
        if self.out.values.is_empty() {
            return Ok(());
        }
        let values = std::mem::take(&mut self.out.values);
        let times = std::mem::take(&mut self.times);
        self.tail.emit(Rows { values, times }.erase(), output)
    }
}

fn context<'a, K>(
    scope: &'a mut Scope<'_>,
    row: usize,
    keys: &'a LazyKeys<'a, K>,
    sides: &'a mut SideOutputs,
    time: Option<i64>,
    domain: Option<TimerDomain>,
) -> Context<'a, K> {
    let watermark = scope.watermark();
    let (state, timers, beside) = scope.at(row);
    let time = time.filter(|time| *time != NO_TIME);
    Context { keys, row, state, timers, beside, sides, time, domain, watermark, has_timers: true }
}

impl<K, A, B, R, L> ProcessFunction for RowFunction<K, A, B, R, L>
where
    K: Record,
    A: Record,
    B: Record,
    R: Record,
    L: Logic<K, A, B, R>,
{
    fn open(
        &mut self,
        context: &OperatorContext,
        states: Option<&mut dyn KeyedStates>,
        subtask: &mut SubtaskStates,
    ) -> Result<()> {
        self.tail.open(context);
        let has_broadcast = self.inputs.second.as_ref().is_some_and(|(_, is_broadcast)| *is_broadcast);
        let states = states.map(|states| &mut *states as &mut dyn KeyedStates);
        self.accumulators = Some(context.shared.accumulators.clone());
        self.logic.open(&mut RuntimeContext::new(context, states, subtask, has_broadcast))
    }

    fn initialize(&mut self, context: &OperatorContext, is_restored: bool, subtask: &mut SubtaskStates) -> Result<()> {
        self.logic.initialize_state(&mut InitializationContext { context, is_restored, subtask })
    }

    fn rows(&mut self, input: usize, batch: Batch, scope: &mut Scope<'_>, output: &mut Output) -> Result<()> {
        match input {
            0 => self.first(&batch, scope)?,
            _ => self.second(&batch, scope)?,
        }
        self.flush(output)?;
        self.tail.end_batch(output);
        Ok(())
    }

    fn timers(&mut self, due: &DueTimers, scope: &mut Scope<'_>, output: &mut Output) -> Result<usize> {
        let inputs = self.inputs.clone();
        let decode = |columns: &[ArrayRef], rows| inputs.first.decode_keys(columns, rows);
        let keys = LazyKeys::new(&due.keys, due.timers.len(), &decode);
        let mut served = 0;
        for (row, timer) in due.timers.iter().enumerate() {
            let time = Some(timer.time).filter(|_| due.domain == TimerDomain::Event);
            let mut context = context(scope, row, &keys, &mut self.sides, time, Some(due.domain));
            self.logic.on_timer(timer.time, &mut context, &mut self.out)?;
            self.times.resize(self.out.values.len(), time.unwrap_or(NO_TIME));
            served += 1;
            if scope.is_interrupted() {
                break;
            }
        }
        self.flush(output)?;
        Ok(served)
    }

    fn watermark(&mut self, watermark: Watermark, output: &mut Output) -> Result<()> {
        self.tail.end_batch(output);
        self.tail.watermark(watermark, output);
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.accumulators.as_ref().map_or(0, |accumulators| accumulators.memory_bytes())
    }

    fn close(&mut self) -> Result<()> {
        self.logic.close()
    }
}
