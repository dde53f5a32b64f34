//! Reads rows from a TCP connection as they come.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use tidemill_core::clock::Clock;
use tidemill_core::error::Result;
use tidemill_core::metrics::{Counter, RECORDS_SKIPPED};
use tidemill_core::source::{
    Boundedness, ListEnumerator, Source, SourceContext, SourceEvent, SourceReader, Split, SplitEnumerator,
};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::{Attempts, RETRY_PAUSE, SocketOptions};
use crate::formats::{ReadOptions, RowDecoder, RowText};

/// Rows from a peer that listens. It ends when the peer closes the connection and does not come back.
#[derive(Clone, Debug)]
pub struct SocketSource {
    socket: SocketOptions,
    schema: SchemaRef,
}

impl SocketSource {
    /// Rows of `schema` from a socket.
    pub fn new(socket: SocketOptions, schema: SchemaRef) -> Result<Self> {
        socket.check()?;
        socket.format.check_schema(&schema)?;
        Ok(Self { socket, schema })
    }
}

impl Source for SocketSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Unbounded
    }

    fn parallelism_max(&self) -> Option<usize> {
        Some(1)
    }

    fn enumerator(&self, _context: &SourceContext) -> Result<Box<dyn SplitEnumerator>> {
        Ok(Box::new(ListEnumerator::new([Split::new(self.socket.address())])))
    }

    fn reader(&self, context: &SourceContext) -> Result<Box<dyn SourceReader>> {
        let options = ReadOptions {
            schema: self.schema.clone(),
            projection: context.projection.clone(),
            batch_rows: context.batch_rows.max(1),
            skipped: context.metrics.counter(RECORDS_SKIPPED),
        };
        Ok(Box::new(SocketReader {
            decoder: self.socket.format.row_decoder(&options, self.socket.delimiter.as_bytes())?,
            attempts: Attempts(self.socket.retries_max),
            socket: self.socket.clone(),
            batch_rows: options.batch_rows,
            skipped: options.skipped,
            clock: context.clock.clone(),
            split: None,
            state: State::Disconnected,
            buffer: BytesMut::new(),
            has_rest: false,
            lines: 0,
        }))
    }

    fn describe(&self) -> String {
        format!("socket({}, {})", self.socket.address(), self.socket.format.name())
    }
}

enum State {
    Disconnected,
    Connected(TcpStream),
    /// The peer closed, and what it sent last has been decoded.
    Closed,
}

struct SocketReader {
    socket: SocketOptions,
    decoder: Box<dyn RowDecoder>,
    attempts: Attempts,
    batch_rows: usize,
    skipped: Counter,
    clock: Arc<dyn Clock>,
    split: Option<Arc<str>>,
    state: State,
    buffer: BytesMut,
    /// Whether more came than went into the last batch.
    has_rest: bool,
    /// Lines that were decoded, for errors.
    lines: u64,
}

impl SocketReader {
    /// The whole rows in the buffer.
    fn decode(&mut self, split: &Arc<str>, is_last: bool) -> Result<Option<SourceEvent>> {
        let text = RowText { bytes: &self.buffer, rows_max: self.batch_rows, starts_before: usize::MAX, is_last };
        let rows = self.decoder.decode(text).map_err(|error| {
            let before = count_lines(&self.buffer[..error.offset]);
            let error = error.at_line(self.lines + before).context(format_args!("socket {}", self.socket.address()));
            self.socket.format.advise(error)
        })?;
        self.lines += count_lines(&self.buffer[..rows.consumed]);
        self.buffer.advance(rows.consumed);
        self.has_rest = rows.consumed > 0 && !self.buffer.is_empty();
        self.skipped.add(rows.skipped);
        // Nothing can be read again, so there is no position to remember.
        let event = SourceEvent::Batch { split: split.clone(), records: rows.records.clone(), position: Vec::new() };
        Ok((rows.records.num_rows() > 0).then_some(event))
    }
}

fn count_lines(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}

#[async_trait]
impl SourceReader for SocketReader {
    async fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        self.split = splits.into_iter().next_back().map(|split| split.id).or(self.split.take());
        Ok(())
    }

    async fn next(&mut self) -> Result<SourceEvent> {
        let Some(split) = self.split.clone() else { return Ok(SourceEvent::NeedsSplit) };
        loop {
            // Before anything is waited for, and before the end: it may be all that ever came.
            while self.has_rest {
                if let Some(event) = self.decode(&split, matches!(self.state, State::Closed))? {
                    return Ok(event);
                }
            }
            match &mut self.state {
                State::Disconnected => {
                    let stream = self.socket.connect(&mut self.attempts, &self.clock).await?;
                    self.state = State::Connected(stream);
                }
                State::Connected(stream) => {
                    let read = match stream.read_buf(&mut self.buffer).await {
                        Ok(read) => read,
                        Err(_) if self.attempts.take() => {
                            // The rest of the row that was on its way is lost with its connection.
                            self.buffer.clear();
                            self.state = State::Disconnected;
                            self.clock.sleep(RETRY_PAUSE).await;
                            continue;
                        }
                        Err(error) => return Err(self.socket.broken(error, "let the connection be made again")),
                    };
                    if read == 0 {
                        self.state = State::Closed;
                    }
                    let is_last = read == 0;
                    if let Some(event) = self.decode(&split, is_last)? {
                        return Ok(event);
                    }
                }
                State::Closed if self.attempts.take() => {
                    self.clock.sleep(RETRY_PAUSE).await;
                    // A peer that does not come back has ended the input; it has not failed.
                    match self.socket.connect(&mut self.attempts, &self.clock).await {
                        Ok(stream) => self.state = State::Connected(stream),
                        Err(_) => self.attempts = Attempts(Some(0)),
                    }
                }
                State::Closed => {
                    self.split = None;
                    return Ok(SourceEvent::SplitFinished(split));
                }
            }
        }
    }
}
