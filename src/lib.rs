//! tidemill: a columnar, vectorized analytics engine in which batch and streaming are the same engine.
//!
//! ```
//! let rows = tidemill::sql("SELECT 6 * 7 AS answer")?;
//! assert_eq!(rows.num_rows(), 1);
//! # Ok::<(), tidemill::Error>(())
//! ```
//!
//! [`mod@sql`] for statements and sessions, [`stream`] for programs in Rust. Contracts that connectors and operators implement are in
//! `tidemill-core`, the engine that runs them in `tidemill-exec`.

mod persistence;
pub mod sql;
pub mod stream;

pub use sql::{Rows, sql};
pub use tidemill_core::{Error, ErrorKind, Result, Settings};
