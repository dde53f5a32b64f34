//! Streams of typed records: sources, functions, keys, windows, sinks. Bounded or not is a matter of the source.
//!
//! ```
//! use tidemill::stream::Environment;
//!
//! let environment = Environment::local();
//! let counts = environment
//!     .from_elements(["to be or not".to_owned(), "to be".to_owned()])
//!     .flat_map(|line, out| out.extend(line.split(' ').map(|word| (word.to_owned(), 1_i64))))
//!     .group_by(|(word, _)| word.clone())
//!     .sum(|(_, count)| count);
//! let mut counts = counts.collect()?;
//! counts.sort();
//! assert_eq!(counts[0], ("be".to_owned(), 2));
//! # Ok::<(), tidemill_core::Error>(())
//! ```
//!
//! A program is built first and runs when it is executed. On the way it becomes:
//!
//! ```text
//! calls on streams --> program (a node a call) --lower--> StreamGraph (functions fused) --chain--> tasks
//! ```
//!
//! In reading order:
//!
//! 1. [`Environment`], [`DataStream`], [`KeyedStream`], [`WindowedStream`]: what users call; `sources`, `sinks`, `placement`,
//!    `watermarks` are more of the same, and `parameters` reads the arguments of a program.
//! 2. [`RichMapFunction`] and its kin, [`ProcessFunction`], [`ProcessWindowFunction`] and what they are given, [`ConnectedStreams`],
//!    [`BroadcastStream`]: states, timers, two inputs, what subtasks share.
//! 3. `record`, `layout`, `rows`: records as Rust values and as columns.
//! 4. `stage`, `operator`: functions of rows, fused; `rolling`, `window_operator`, `count_window`, `process`: those that
//!    remember; `cells`: what they remember as state.
//! 5. `program`, `lower`, `runner`: from calls to a running job.

mod broadcast_sets;
mod cells;
mod connected_streams;
mod count_window;
mod data_stream;
mod environment;
mod keyed_stream;
mod layout;
mod lines;
mod lower;
mod operator;
mod output_tag;
mod panes;
mod parameters;
mod placement;
mod print_lines;
mod process;
mod program;
mod record;
#[cfg(test)]
mod restore_tests;
mod rich_functions;
mod rich_logic;
mod rolling;
mod rows;
mod runner;
mod sinks;
mod sources;
mod stage;
mod watermarks;
mod whole_batch;
mod window_context;
mod window_firing;
mod window_function;
mod window_functions;
mod window_logic;
mod window_operator;
mod window_sessions;
mod window_slices;
mod window_times;
mod windowed_stream;
mod windows;

pub use connected_streams::{
    BroadcastConnectedStream, BroadcastStream, ConnectedStreams, KeyedBroadcastConnectedStream, KeyedConnectedStreams,
};
pub use count_window::CountWindowedStream;
pub use data_stream::DataStream;
pub use environment::Environment;
pub use keyed_stream::KeyedStream;
pub use layout::ROWTIME;
pub use output_tag::OutputTag;
pub use parameters::Parameters;
pub use process::{
    BroadcastContext, BroadcastProcessFunction, CoProcessFunction, Context, InitializationContext, ProcessFunction,
    RuntimeContext,
};
pub use record::Record;
pub use rich_functions::{RichFilterFunction, RichFlatMapFunction, RichMapFunction, RichReduceFunction};
pub use rows::Collector;
pub use runner::JobHandle;
pub use sinks::{DataSink, WriteMode};
pub use tidemill_connectors::KeyedTable;
pub use tidemill_core::metrics::Counter;
pub use tidemill_core::shared::{
    Accumulator, AccumulatorRef, AccumulatorValues, Average, DoubleCounter, DoubleMaximum, DoubleMinimum, Histogram,
    IntCounter, IntMaximum, IntMinimum, ListAccumulator, LongCounter, LongMaximum, LongMinimum,
};
pub use tidemill_core::state::{
    AggregatingState, CurrentKey, ListState, MapState, ReducingState, StateTtl, TtlUpdate, TtlVisibility, ValueState,
};
pub use tidemill_core::window::Window;
pub use tidemill_exec::operators::timers::TimerDomain;
pub use tidemill_exec::runtime::JobResult;
pub use tidemill_exec::state::{BroadcastMap, BroadcastStates, OperatorListState, OperatorLists, StateValue};
pub use watermarks::Watermarks;
pub use window_context::WindowContext;
pub use window_functions::ProcessWindowFunction;
pub use window_logic::AggregateFunction;
pub use windowed_stream::WindowedStream;
pub use windows::{Session, Sliding, Tumbling, Windows};
