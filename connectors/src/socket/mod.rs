//! Lines over TCP, both ways (SRC-10, SNK-14).
//!
//! | option | meaning |
//! | --- | --- |
//! | `hostname`, `port` | the peer, which listens |
//! | `delimiter` | ends a row, by default `\n`; another one only with format `raw` |
//! | `max-retries` | how often to connect again; 0 by default, -1 for ever |
//! | `format` | `raw` (default), `csv` or `json` |
//!
//! Nothing can be read again from a socket: the source is at most once. It ends when the peer closes the connection in good order
//! and does not come back; a connection that breaks is an error. The sink sends a batch again over a new connection when the old
//! one broke, so it is at least once; at its end it waits a moment for the peer to close, because a peer that goes away without
//! having read everything says so only then.

mod sink;
mod source;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use tidemill_core::clock::Clock;
use tidemill_core::error::{Error, Result};
use tidemill_core::sink::Sink;
use tidemill_core::source::Source;
use tokio::net::TcpStream;

use crate::formats::Format;
use crate::options::{Options, bad_value, unescape};
use crate::registry::{TableContext, refuse_replace};

pub use sink::SocketSink;
pub use source::SocketSource;

/// Flink's pause between attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Opens `'connector' = 'socket'` for reading.
pub(crate) fn open_source(
    options: &mut Options,
    schema: SchemaRef,
    _context: &TableContext,
) -> Result<Arc<dyn Source>> {
    let socket = SocketOptions::from_options(options)?;
    Ok(Arc::new(SocketSource::new(socket, schema)?))
}

/// Opens `'connector' = 'socket'` for writing.
pub(crate) fn open_sink(options: &mut Options, schema: SchemaRef, context: &TableContext) -> Result<Arc<dyn Sink>> {
    refuse_replace(context, "socket")?;
    let socket = SocketOptions::from_options(options)?;
    Ok(Arc::new(SocketSink::new(socket, schema)?))
}

/// A peer and how to talk to it.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// Name or address of the peer.
    pub hostname: String,
    /// The port it listens on.
    pub port: u16,
    /// Ends a row.
    pub delimiter: String,
    /// How often to connect again; `None` for ever.
    pub retries_max: Option<u32>,
    /// What a row looks like: raw, csv or json.
    pub format: Format,
}

impl SocketOptions {
    fn from_options(options: &mut Options) -> Result<Self> {
        let hostname = options.required("hostname")?;
        options.required("port")?;
        let port = options.parsed("port", "a port number")?.unwrap_or_default();
        let delimiter = unescape(&options.optional("delimiter").unwrap_or_else(|| "\n".to_owned()));
        let retries: i64 = options.parsed("max-retries", "a number, or -1 for ever")?.unwrap_or(0);
        let name = options.optional("format").unwrap_or_else(|| "raw".to_owned());
        let socket = Self {
            hostname,
            port,
            delimiter,
            retries_max: u32::try_from(retries).ok(),
            format: Format::from_options(&name, options)?,
        };
        socket.check()?;
        Ok(socket)
    }

    fn check(&self) -> Result<()> {
        match &self.format {
            Format::Raw(_) if !self.delimiter.is_empty() => Ok(()),
            Format::Csv(..) | Format::Json(..) if self.delimiter == "\n" => Ok(()),
            Format::Raw(_) | Format::Csv(..) | Format::Json(..) => {
                let expected = format!("a line end, with format '{}'", self.format.name());
                Err(bad_value("delimiter", &self.delimiter.escape_default().to_string(), &expected))
            }
            other => Err(bad_value("format", other.name(), "raw, csv or json")),
        }
    }

    fn address(&self) -> String {
        format!("{}:{}", self.hostname, self.port)
    }

    /// Connects; tries again as often as `attempts` has left.
    async fn connect(&self, attempts: &mut Attempts, clock: &Arc<dyn Clock>) -> Result<TcpStream> {
        loop {
            match TcpStream::connect((self.hostname.as_str(), self.port)).await {
                Ok(stream) => return Ok(stream),
                Err(_) if attempts.take() => clock.sleep(RETRY_PAUSE).await,
                Err(error) => return Err(self.broken(error, "start the peer first, or let it be tried again")),
            }
        }
    }

    /// The error of a connection that cannot be made, or breaks.
    fn broken(&self, error: std::io::Error, hint: &str) -> Error {
        let message = format!("socket {}: {error}", self.address());
        Error::unavailable(message).with_hint(format!("{hint}: 'max-retries' = '10'")).with_source(error)
    }
}

/// How often a connection may still be tried again.
#[derive(Clone, Copy, Debug)]
struct Attempts(Option<u32>);

impl Attempts {
    /// Uses one up; `false` if there was none.
    fn take(&mut self) -> bool {
        match &mut self.0 {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

#[cfg(test)]
mod tests;
