//! A source at work in a pushed task: what its reader brings, with computed columns and watermarks, split by split (TIM-11).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Poll;

use arrow::array::RecordBatch;
use tidemill_core::clock::Spawner;
use tidemill_core::event::BarrierKind;
use tidemill_core::graph::SourceNode;
use tidemill_core::metrics::{Counter, RECORDS_OUT};
use tidemill_core::source::{SourceContext, Split, WatermarkGenerator};
use tidemill_core::{Batch, Result, Watermark};

use crate::runtime::input::InputEvent;
use crate::runtime::reader::{FromReader, ReaderHandle, SharedEnumerator};
use crate::runtime::trace::TaskTrace;

/// The task's end of a source.
#[derive(Debug)]
pub struct SourceInput {
    node: SourceNode,
    reader: ReaderHandle,
    /// Where each split that is being read goes on, in the order in which they were dealt.
    positions: Vec<Split>,
    looked: Option<Option<Result<FromReader>>>,
    splits: SplitTimes,
    pending: VecDeque<InputEvent>,
    idle: bool,
    ended: bool,
    records_out: Counter,
    trace: Option<TaskTrace>,
}

impl SourceInput {
    /// Starts a reader of `node` on the I/O runtime.
    pub fn start(
        node: SourceNode,
        context: SourceContext,
        enumerator: Arc<SharedEnumerator>,
        name: &str,
        io: &Arc<dyn Spawner>,
        trace: Option<TaskTrace>,
    ) -> Result<Self> {
        let records_out = context.metrics.counter(RECORDS_OUT);
        let reader = ReaderHandle::start(&*node.source, context, enumerator, name, io)?;
        Ok(Self {
            splits: SplitTimes::default(),
            node,
            reader,
            positions: Vec::new(),
            looked: None,
            pending: VecDeque::new(),
            idle: false,
            ended: false,
            records_out,
            trace,
        })
    }

    /// Whether the source has been read to its end.
    pub fn has_ended(&self) -> bool {
        self.ended && self.pending.is_empty()
    }

    /// The splits that are being read, each from where the rows that were handed out end.
    pub fn splits(&self) -> Vec<Split> {
        self.positions.clone()
    }

    /// Stops the reader.
    pub fn close(&mut self) {
        self.reader.close();
    }

    /// Completes when the reader has something.
    pub async fn wait(&mut self) {
        if self.looked.is_none() {
            self.looked = Some(self.reader.recv().await);
        }
    }

    /// The next event if one is there.
    pub fn try_next(&mut self) -> Result<Option<InputEvent>> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                if let (Some(trace), Some(event)) = (&self.trace, event.to_event()) {
                    trace.event(0, &event);
                }
                return Ok(Some(event));
            }
            if self.ended {
                return Ok(None);
            }
            let received = match self.looked.take() {
                Some(received) => received,
                None => match self.reader.try_recv() {
                    Poll::Ready(received) => received,
                    Poll::Pending => return Ok(None),
                },
            };
            match received {
                Some(Ok(event)) => self.take_in(event)?,
                Some(Err(error)) => return Err(error),
                None => {
                    self.ended = true;
                    self.pending.extend([InputEvent::Advance(Watermark::MAX), InputEvent::EndOfPort(0)]);
                }
            }
        }
    }

    fn take_in(&mut self, event: FromReader) -> Result<()> {
        match event {
            FromReader::Started(split) => self.positions.push(split),
            FromReader::Batch { split, records, position } => {
                if let Some(own) = self.positions.iter_mut().find(|own| own.id == split) {
                    own.position = position;
                }
                if std::mem::take(&mut self.idle) {
                    self.pending.push_back(InputEvent::SetIdle(false));
                }
                let records = match &self.node.derive {
                    Some(derive) => derive.apply(&records)?,
                    None => records,
                };
                self.records_out.add(records.num_rows());
                let watermark = self.splits.observe(&self.node, split, &records)?;
                self.pending.push_back(InputEvent::Rows(0, Batch::append(records)));
                self.pending.extend(watermark.map(InputEvent::Advance));
            }
            FromReader::SplitFinished(split) => {
                self.positions.retain(|own| own.id != split);
                self.pending.extend(self.splits.finish(&split).map(InputEvent::Advance));
            }
            FromReader::Barrier(barrier) => {
                if barrier.kind == (BarrierKind::Stop { drain: true }) {
                    self.pending.push_back(InputEvent::Advance(Watermark::MAX));
                }
                self.pending.push_back(InputEvent::Barrier(barrier.into()));
            }
            FromReader::Idle => {
                if !std::mem::replace(&mut self.idle, true) {
                    self.pending.push_back(InputEvent::SetIdle(true));
                }
            }
        }
        Ok(())
    }
}

/// The watermark of each split that is being read; theirs together is the least.
#[derive(Default)]
struct SplitTimes {
    splits: BTreeMap<Arc<str>, (Box<dyn WatermarkGenerator>, Watermark)>,
    output: Option<Watermark>,
}

impl std::fmt::Debug for SplitTimes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.splits.iter().map(|(split, (_, watermark))| (split, watermark))).finish()
    }
}

impl SplitTimes {
    fn observe(&mut self, node: &SourceNode, split: Arc<str>, records: &RecordBatch) -> Result<Option<Watermark>> {
        let Some(strategy) = &node.watermarks else { return Ok(None) };
        let (generator, watermark) = self.splits.entry(split).or_insert_with(|| (strategy.generator(), Watermark::MIN));
        if let Some(seen) = generator.observe(records)? {
            *watermark = (*watermark).max(seen);
        }
        Ok(self.advance())
    }

    fn finish(&mut self, split: &Arc<str>) -> Option<Watermark> {
        self.splits.remove(split);
        self.advance()
    }

    fn advance(&mut self) -> Option<Watermark> {
        let least = self.splits.values().map(|(_, watermark)| *watermark).min()?;
        let risen = least > self.output.unwrap_or(Watermark::MIN);
        risen.then(|| *self.output.insert(least))
    }
}
