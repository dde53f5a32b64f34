//! Sends rows over a TCP connection, batch by batch.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tidemill_core::batch::Batch;
use tidemill_core::clock::Clock;
use tidemill_core::error::{Error, Result};
use tidemill_core::event::CheckpointId;
use tidemill_core::sink::{ChangelogMode, Committable, Committer, NothingToCommit, Sink, SinkContext, SinkWriter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Attempts, SocketOptions};
use crate::formats::Encoder;

/// How long the end of a job waits for a peer that is still reading.
const CLOSE_PAUSE: Duration = Duration::from_secs(1);

/// Rows to a peer that listens.
#[derive(Clone, Debug)]
pub struct SocketSink {
    socket: SocketOptions,
    schema: SchemaRef,
}

impl SocketSink {
    /// Rows of `schema` to a socket.
    pub fn new(socket: SocketOptions, schema: SchemaRef) -> Result<Self> {
        socket.check()?;
        socket.format.check_schema(&schema)?;
        Ok(Self { socket, schema })
    }
}

impl Sink for SocketSink {
    fn changelog_mode(&self) -> ChangelogMode {
        ChangelogMode::Append
    }

    fn prepare(&self) -> Result<Arc<dyn Committer>> {
        Ok(Arc::new(NothingToCommit))
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(SocketWriter {
            encoder: self.socket.format.row_encoder(&self.schema, self.socket.delimiter.as_bytes())?,
            attempts: Attempts(self.socket.retries_max),
            socket: self.socket.clone(),
            clock: context.clock.clone(),
            stream: None,
            encoded: Vec::new(),
        }))
    }

    fn describe(&self) -> String {
        format!("socket({}, {})", self.socket.address(), self.socket.format.name())
    }
}

struct SocketWriter {
    socket: SocketOptions,
    encoder: Box<dyn Encoder>,
    attempts: Attempts,
    clock: Arc<dyn Clock>,
    stream: Option<TcpStream>,
    encoded: Vec<u8>,
}

#[async_trait]
impl SinkWriter for SocketWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        self.encoded.clear();
        self.encoder.encode(batch.records(), &mut self.encoded)?;
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    let stream = self.socket.connect(&mut self.attempts, &self.clock).await?;
                    self.stream.insert(stream)
                }
            };
            match stream.write_all(&self.encoded).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    self.stream = None;
                    if !self.attempts.take() {
                        return Err(self.broken(error));
                    }
                }
            }
        }
    }

    async fn flush(&mut self) -> Result<()> {
        match &mut self.stream {
            Some(stream) => stream.flush().await.map_err(|error| self.broken(error)),
            None => Ok(()),
        }
    }

    async fn prepare_commit(&mut self, checkpoint: Option<CheckpointId>) -> Result<Vec<Committable>> {
        if let (None, Some(stream)) = (checkpoint, self.stream.take()) {
            close(stream, &self.clock).await.map_err(|error| self.broken(error))?;
        }
        Ok(Vec::new())
    }
}

impl SocketWriter {
    fn broken(&self, error: std::io::Error) -> Error {
        self.socket.broken(error, "rows may be lost unless the connection is made again")
    }
}

/// Says that no more comes, and hears what the peer says to it: that it has closed too, that it broke the connection off with
/// rows unread, or nothing for a while.
async fn close(mut stream: TcpStream, clock: &Arc<dyn Clock>) -> std::io::Result<()> {
    stream.shutdown().await?;
    let mut ignored = [0; 512];
    let hear = async {
        while stream.read(&mut ignored).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    tokio::select! {
        biased;
        heard = hear => heard,
        () = clock.sleep(CLOSE_PAUSE) => Ok(()),
    }
}
