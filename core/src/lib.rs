//! The words of tidemill: batches, time, windows, keys, contracts, the job graph, settings, errors.
//!
//! This crate does no I/O, has no clock (only the trait of one) and no async runtime: given the same arguments it answers the
//! same, [`chance`] apart. Whoever writes a connector needs this crate alone.
//!
//! ```
//! use tidemill_core::window::{WindowKind, WindowSpec};
//!
//! // A hopping window of 60 s every 20 s: time is cut into slices of 20 s, three to a window.
//! let hop = WindowSpec::new(WindowKind::Hop { size: 60_000, slide: 20_000 }, 0)?;
//! let slice = hop.slice_start(75_000)?;
//! let ends: Vec<i64> = hop.windows_of_slice(slice)?.map(|window| window.end).collect();
//! assert_eq!((slice, ends), (60_000, vec![80_000, 100_000, 120_000]));
//! # Ok::<(), tidemill_core::Error>(())
//! ```
//!
//! Suggested order of reading: what flows ([`batch`], [`event`]), when ([`time`], [`watermark`], [`window`]), where ([`key`]),
//! who works on it ([`operator`], [`source`], [`sink`], [`state`]) and what it is given ([`clock`], [`chance`], [`metrics`],
//! [`shared`]), how a program is put together ([`graph`], [`settings`]), and what goes wrong ([`error`]).

pub mod batch;
pub mod chance;
pub mod clock;
pub mod error;
pub mod event;
pub mod graph;
pub mod key;
pub mod metrics;
pub mod operator;
pub mod settings;
pub mod shared;
pub mod sink;
pub mod source;
pub mod state;
pub mod time;
pub mod watermark;
pub mod window;

pub use batch::{Batch, RowKind};
pub use error::{Error, ErrorKind, Result};
pub use event::Event;
pub use settings::{Gate, Settings};
pub use watermark::Watermark;
