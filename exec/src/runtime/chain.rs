//! Operators fused into one task: what one emits goes straight to the next, without a queue between threads.
//!
//! The driver always serves the operator nearest the end that has something to do. So at any moment each output holds no more
//! than one call's worth, and an operator that says `Full` is resumed only after what it emitted has gone all the way down.

use std::ops::Range;
use std::sync::Arc;

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use tidemill_core::event::CheckpointId;
use tidemill_core::operator::{Emission, InputSelection, Operator, OperatorContext, Output, Progress};
use tidemill_core::state::{RestoredState, Snapshot, SnapshotScope};
use tidemill_core::{Batch, Result, Watermark};

use crate::error::from_datafusion;

/// The operators of one subtask, in order.
pub struct Chain {
    links: Vec<Link>,
    /// What left the last operator.
    terminal: Output,
}

struct Link {
    operator: Box<dyn Operator>,
    output: Output,
    /// It said `Full` and waits to be resumed.
    stalled: bool,
    /// What the worker's budget is charged with for its state; `None` until it is open.
    charged: Option<MemoryReservation>,
}

impl Link {
    /// How many bytes its operator holds beyond what the budget is charged with.
    fn growth(&self) -> usize {
        let charged = self.charged.as_ref().map_or(usize::MAX, MemoryReservation::size);
        self.operator.memory_bytes().saturating_sub(charged)
    }

    fn charge(&mut self) -> Result<()> {
        let (Some(charged), bytes) = (&mut self.charged, self.operator.memory_bytes()) else { return Ok(()) };
        if bytes == charged.size() {
            return Ok(());
        }
        charged.try_resize(bytes).map_err(from_datafusion)
    }

    /// Has the operator give back so many bytes, and somewhat more, so that it need not be asked again at once.
    fn give_back(&mut self, bytes: usize) -> Result<()> {
        let held = self.operator.memory_bytes();
        self.operator.give_back(bytes.saturating_add(held / 4))
    }
}

/// What a chain is asked to do.
#[derive(Debug)]
pub enum Call {
    /// Rows from an input port.
    Process(usize, Batch),
    /// Event time.
    Advance(Watermark),
    /// A wake-up of the operator at this place.
    Wake(usize, u64),
    /// The end of an input port.
    EndOfInput(usize),
}

impl Chain {
    /// A chain of `operators`, each of whose outputs calls itself full at `output_bytes`.
    pub fn new(operators: Vec<Box<dyn Operator>>, output_bytes: usize) -> Self {
        let link = |operator| Link { operator, output: Output::new(output_bytes), stalled: false, charged: None };
        Self { links: operators.into_iter().map(link).collect(), terminal: Output::new(output_bytes) }
    }

    /// Opens the operators, the last one first, so that whoever emits finds its consumer ready. What they hold from now on is
    /// charged to `memory`.
    pub fn open(&mut self, contexts: &[OperatorContext], memory: &Arc<dyn MemoryPool>) -> Result<()> {
        for (link, context) in self.links.iter_mut().zip(contexts).rev() {
            link.charged = Some(MemoryConsumer::new(&*context.operator).register(memory));
            link.operator.open(context)?;
        }
        Ok(())
    }

    /// What the head wants to read.
    pub fn selection(&self) -> InputSelection {
        self.links.first().map_or(InputSelection::Any, |link| link.operator.selection())
    }

    /// Whether some operator needs no more input, so that reading on would be for nothing.
    pub fn is_finished(&self) -> bool {
        self.links.iter().any(|link| link.operator.is_finished())
    }

    /// Gives the chain something to do. Afterwards call [`Chain::next_emission`] until it returns `None`.
    pub fn call(&mut self, call: Call) -> Result<()> {
        let Some(head) = self.links.first_mut() else {
            match call {
                Call::Process(_, batch) => self.terminal.emit(batch),
                Call::Advance(watermark) => self.terminal.watermark(watermark),
                Call::Wake(..) | Call::EndOfInput(_) => {}
            }
            return Ok(());
        };
        let progress = match call {
            Call::Process(port, batch) => head.operator.process(port, batch, &mut head.output)?,
            Call::Advance(watermark) => head.operator.advance(watermark, &mut head.output)?,
            Call::EndOfInput(port) => return self.end_of_input(port),
            Call::Wake(place, token) => {
                let link = &mut self.links[place];
                let progress = link.operator.wake(token, &mut link.output)?;
                link.stalled |= progress == Progress::Full;
                return Ok(());
            }
        };
        head.stalled |= progress == Progress::Full;
        Ok(())
    }

    /// The next thing that leaves the chain, if everything asked of it has not come to rest yet.
    pub fn next_emission(&mut self) -> Result<Option<Emission>> {
        loop {
            if let Some(emission) = self.terminal.pop() {
                return Ok(Some(emission));
            }
            if !self.step()? {
                self.charge()?;
                return Ok(None);
            }
        }
    }

    /// Charges the budget with what the operators hold now. Past it they give back what they can, first whoever wants more, then
    /// the others; if that is too little the job fails, before the process is killed.
    fn charge(&mut self) -> Result<()> {
        for place in 0..self.links.len() {
            if self.links[place].charge().is_ok() {
                continue;
            }
            let refused = self.links[place].growth();
            self.links[place].give_back(refused)?;
            if self.links[place].charge().is_ok() {
                continue;
            }
            for other in &mut self.links {
                other.give_back(refused)?;
                if other.growth() == 0 {
                    other.charge()?;
                }
            }
            self.links[place].charge()?;
        }
        Ok(())
    }

    /// One step of the operator nearest the end that has one to make; `false` when the chain is at rest.
    fn step(&mut self) -> Result<bool> {
        for place in (0..self.links.len()).rev() {
            if let Some(emission) = self.links[place].output.pop() {
                self.deliver(place + 1, emission)?;
                return Ok(true);
            }
            let link = &mut self.links[place];
            if link.stalled {
                link.stalled = link.operator.resume(&mut link.output)? == Progress::Full;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn deliver(&mut self, place: usize, emission: Emission) -> Result<()> {
        let Some(link) = self.links.get_mut(place) else {
            match emission {
                Emission::Batch(port, batch) => self.terminal.emit_to(port, batch),
                Emission::Watermark(watermark) => self.terminal.watermark(watermark),
            }
            return Ok(());
        };
        let progress = match emission {
            Emission::Batch(0, batch) => link.operator.process(0, batch, &mut link.output)?,
            // Only the main output is chained; a side output within a chain leaves the task as it is.
            Emission::Batch(port, batch) => {
                self.terminal.emit_to(port, batch);
                return Ok(());
            }
            Emission::Watermark(watermark) => link.operator.advance(watermark, &mut link.output)?,
        };
        link.stalled |= progress == Progress::Full;
        Ok(())
    }

    /// Ends input `port` of the head; when that was its last, the operators behind it end one after the other.
    fn end_of_input(&mut self, port: usize) -> Result<()> {
        let head = &mut self.links[0];
        head.stalled |= head.operator.end_of_input(port, &mut head.output)? == Progress::Full;
        Ok(())
    }

    /// Ends the operators behind the head, after the head itself has ended and the chain is at rest. Returns `false` when
    /// there is none left to end.
    pub fn end_next(&mut self, place: usize) -> Result<bool> {
        let Some(link) = self.links.get_mut(place) else { return Ok(false) };
        link.stalled |= link.operator.end_of_input(0, &mut link.output)? == Progress::Full;
        Ok(true)
    }

    /// The places of the operators.
    pub fn places(&self) -> Range<usize> {
        0..self.links.len()
    }

    /// Has the operator at this place work off what it kept back; whether something came of it. The chain must be at rest.
    pub fn flush(&mut self, place: usize) -> Result<bool> {
        let link = &mut self.links[place];
        link.stalled |= link.operator.flush(&mut link.output)? == Progress::Full;
        Ok(link.stalled || !link.output.is_empty())
    }

    /// Freezes the state of every operator, in their order. The chain must be at rest.
    pub fn snapshot(&mut self, scope: SnapshotScope) -> Result<Vec<Snapshot>> {
        self.links.iter_mut().map(|link| link.operator.snapshot(scope)).collect()
    }

    /// Gives an operator back what it held. Once, after it was opened.
    pub fn restore(&mut self, place: usize, state: RestoredState) -> Result<()> {
        self.links[place].operator.restore(state)
    }

    /// Tells every operator that a checkpoint will never be durable.
    pub fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.links.iter_mut().try_for_each(|link| link.operator.checkpoint_aborted(checkpoint))
    }

    /// Tells every operator that a checkpoint is durable.
    pub fn checkpoint_completed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.links.iter_mut().try_for_each(|link| link.operator.checkpoint_completed(checkpoint))
    }

    /// Closes the operators; all of them, also when one fails. The first error is returned.
    pub fn close(&mut self) -> Result<()> {
        let results: Vec<Result<()>> = self.links.iter_mut().map(|link| link.operator.close()).collect();
        results.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;
    use datafusion::execution::memory_pool::FairSpillPool;
    use tidemill_core::metrics::Metrics;

    use super::*;
    use crate::operators::test_context;

    fn batch(values: Vec<i64>) -> Batch {
        let column: ArrayRef = Arc::new(Int64Array::from(values));
        Batch::append(RecordBatch::try_from_iter([("n", column)]).unwrap())
    }

    /// Emits each number as many times as it says, one row a batch, and stops whenever its output is full.
    #[derive(Default)]
    struct Repeat(Vec<i64>);

    impl Operator for Repeat {
        fn process(&mut self, _: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
            let numbers = batch.records().column(0).as_primitive::<Int64Type>().values();
            self.0.extend(numbers.iter().flat_map(|number| vec![*number; *number as usize]));
            self.resume(output)
        }

        fn resume(&mut self, output: &mut Output) -> Result<Progress> {
            while !self.0.is_empty() {
                if output.is_full() {
                    return Ok(Progress::Full);
                }
                output.emit(batch(vec![self.0.remove(0)]));
            }
            Ok(Progress::Done)
        }
    }

    #[test]
    fn a_full_output_stops_the_operator_and_nothing_is_lost() {
        let mut chain = Chain::new(vec![Box::new(Repeat::default()), Box::new(Repeat::default())], 1);
        chain.call(Call::Process(0, batch(vec![2, 3]))).unwrap();
        let mut rows = 0;
        while let Some(emission) = chain.next_emission().unwrap() {
            let Emission::Batch(0, batch) = emission else { panic!("only rows") };
            assert!(chain.links.iter().all(|link| link.output.is_empty() || link.output.is_full()));
            rows += batch.num_rows();
        }
        assert_eq!(rows, 2 * 2 + 3 * 3);
    }

    /// Keeps every row.
    #[derive(Default)]
    struct Hoard(Vec<Batch>);

    impl Operator for Hoard {
        fn process(&mut self, _: usize, batch: Batch, _: &mut Output) -> Result<Progress> {
            self.0.push(batch);
            Ok(Progress::Done)
        }

        fn memory_bytes(&self) -> usize {
            self.0.iter().map(Batch::size_bytes).sum()
        }
    }

    #[test]
    fn an_operator_that_outgrows_the_budget_fails_and_gives_back_what_it_held() {
        let memory: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(1000));
        let mut chain = Chain::new(vec![Box::new(Hoard::default())], 1);
        chain.open(&[test_context(Metrics::default())], &memory).unwrap();
        let error = loop {
            chain.call(Call::Process(0, batch(vec![1; 20]))).unwrap();
            if let Err(error) = chain.next_emission() {
                break error;
            }
        };
        assert_eq!(error.kind(), tidemill_core::ErrorKind::Exhausted);
        let text = error.to_string();
        assert!(text.contains("for test") && text.contains("budget of 1000.0 B"), "{text}");
        assert!(memory.reserved() > 0);
        drop(chain);
        assert_eq!(memory.reserved(), 0);
    }

    /// Keeps every row until it is asked to give some back.
    #[derive(Default)]
    struct Lender(Hoard);

    impl Operator for Lender {
        fn process(&mut self, input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
            self.0.process(input, batch, output)
        }

        fn memory_bytes(&self) -> usize {
            self.0.memory_bytes()
        }

        fn give_back(&mut self, bytes: usize) -> Result<()> {
            let goal = self.memory_bytes().saturating_sub(bytes);
            while self.memory_bytes() > goal {
                self.0.0.pop();
            }
            Ok(())
        }
    }

    #[test]
    fn operators_that_can_give_memory_back_before_one_fails() {
        let memory: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(1000));
        let feed = |chain: &mut Chain| {
            chain.call(Call::Process(0, batch(vec![1; 20]))).unwrap();
            chain.next_emission().map(|emission| assert!(emission.is_none()))
        };
        let mut lender = Chain::new(vec![Box::new(Lender::default())], 1);
        lender.open(&[test_context(Metrics::default())], &memory).unwrap();
        (0..100).for_each(|_| feed(&mut lender).unwrap());
        assert!(memory.reserved() > 0 && memory.reserved() <= 1000);
        drop(lender);
        let mut both = Chain::new(vec![Box::new(Repeat::default()), Box::new(Lender::default())], 1);
        both.open(&[test_context(Metrics::default()), test_context(Metrics::default())], &memory).unwrap();
        (0..100).for_each(|_| feed(&mut both).unwrap());
        assert!(memory.reserved() > 0 && memory.reserved() <= 1000);
    }

    #[test]
    fn a_watermark_stays_behind_the_rows_before_it() {
        let mut chain = Chain::new(vec![Box::new(Repeat::default())], 1);
        chain.call(Call::Process(0, batch(vec![3]))).unwrap();
        let mut seen = vec![];
        while let Some(emission) = chain.next_emission().unwrap() {
            seen.push(matches!(emission, Emission::Batch(..)));
        }
        chain.call(Call::Advance(Watermark(5))).unwrap();
        assert!(matches!(chain.next_emission().unwrap(), Some(Emission::Watermark(Watermark(5)))));
        assert_eq!(seen, [true, true, true]);
    }
}
