//! What a function emits beside its main output, until the batch at hand is done.

use std::any::{Any, TypeId, type_name};
use std::fmt;

use arrow::array::RecordBatch;
use tidemill_core::operator::Output;
use tidemill_core::{Error, Result};

use crate::stream::layout::PlainCodec;
use crate::stream::output_tag::OutputTag;
use crate::stream::program::SideOutput;
use crate::stream::record::{Codec, Record};
use crate::stream::rows::{NO_TIME, Rows};
use crate::stream::stage::emit_pieces;

/// The side outputs that somebody reads; output port `n + 1` is number `n`.
pub(in crate::stream) struct SideOutputs {
    outputs: Vec<(SideOutput, Option<Box<dyn Buffer>>)>,
}

impl SideOutputs {
    /// None of them has rows yet.
    pub fn new(outputs: &[SideOutput]) -> Self {
        Self { outputs: outputs.iter().map(|output| (output.clone(), None)).collect() }
    }

    /// Adds a row.
    pub fn push<S: Record>(&mut self, tag: &OutputTag<S>, value: S, time: Option<i64>) -> Result<()> {
        let known = self.outputs.iter_mut().find(|(output, _)| output.tag == tag.name);
        let Some((output, buffer)) = known else { return Ok(()) };
        if output.record != TypeId::of::<S>() {
            let (tag, record) = (&tag.name, type_name::<S>());
            return Err(Error::request(format!("a {record} for side output '{tag}', which is read as another type"))
                .with_hint("emit and read with the same tag"));
        }
        let buffer = match buffer {
            Some(buffer) => buffer,
            None => {
                let codec = PlainCodec::<S>::new(Codec::new()?, output.timed);
                buffer.insert(Box::new(TypedBuffer { codec, rows: Rows::<S>::default() }))
            }
        };
        let buffer: &mut dyn Any = &mut **buffer;
        let buffer: &mut TypedBuffer<S> =
            buffer.downcast_mut().ok_or_else(|| Error::internal("a side output of another type"))?;
        buffer.rows.values.push(value);
        buffer.rows.times.push(time.unwrap_or(NO_TIME));
        Ok(())
    }

    /// Emits all rows.
    pub fn flush(&mut self, batch_rows: usize, output: &mut Output) -> Result<()> {
        for (port, (_, buffer)) in self.outputs.iter_mut().enumerate() {
            if let Some(records) = buffer.as_mut().map(|buffer| buffer.take()).transpose()?.flatten() {
                emit_pieces(records, batch_rows, |piece| output.emit_to(port + 1, piece));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SideOutputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SideOutputs({})", self.outputs.len())
    }
}

/// Rows of a type that is not known.
trait Buffer: Any + Send {
    /// The rows as a batch, if there are any; then there are none.
    fn take(&mut self) -> Result<Option<RecordBatch>>;
}

struct TypedBuffer<S> {
    codec: PlainCodec<S>,
    rows: Rows<S>,
}

impl<S: Record> Buffer for TypedBuffer<S> {
    fn take(&mut self) -> Result<Option<RecordBatch>> {
        let rows = std::mem::take(&mut self.rows);
        if rows.values.is_empty() {
            return Ok(None);
        }
        self.codec.encode_rows(&rows).map(Some)
    }
}
