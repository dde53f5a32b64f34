//! The outside of tidemill: where rows come from and where they go.
//!
//! A connector implements the contracts of `tidemill-core` ([`Source`], [`Sink`]) and nothing else: it never names the engine.
//! SQL and the builders open tables by their options through [`source()`] and [`sink()`]:
//!
//! ```
//! use std::sync::Arc;
//! use arrow::datatypes::{DataType, Field, Schema};
//! use tidemill_connectors::{Options, TableContext, source};
//!
//! let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
//! let options = Options::new([("connector", "datagen"), ("number-of-rows", "10")]);
//! let rows = source(options, schema, &TableContext::new("example"))?;
//! assert_eq!(rows.describe(), "datagen(10 rows)");
//! # Ok::<(), tidemill_core::Error>(())
//! ```
//!
//! In reading order:
//!
//! 1. [`options`] and [`registry`]: from a `WITH` clause to a source or a sink.
//! 2. [`store`]: from a URL to an object store and a path; which files a path means.
//! 3. [`formats`]: from bytes to columns and back; the text form of every value ([`formats::text`]).
//! 4. [`filesystem`]: tables of files, exactly once.
//! 5. [`datagen`], [`socket`], [`mod@print`], [`blackhole`], [`memory`]: made-up rows, lines over TCP, the terminal, nothing, and
//!    collections of the program itself.
//! 6. [`write_ahead`]: for connectors to places that know nothing of checkpoints.
//! 7. [`conformance`]: what every source and sink must pass.
//!
//! [`Source`]: tidemill_core::source::Source
//! [`Sink`]: tidemill_core::sink::Sink

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests may fail loudly"))]

pub mod options;
pub mod registry;
pub mod store;

pub mod formats;

pub mod blackhole;
pub mod datagen;
pub mod filesystem;
pub mod memory;
pub mod print;
pub mod socket;
pub mod write_ahead;

#[doc(hidden)]
pub mod conformance;

pub use formats::infer::infer_schema;
pub use memory::{CollectHandle, CollectSink, CollectionSource, KeyedTable, SequenceSource};
pub use options::Options;
pub use registry::{Disposition, TableContext, connectors, sink, source};
pub use write_ahead::{Outside, WriteAheadSink};
