//! Bounded plans: a DataFusion physical plan, cut at our exchanges into fragments that run as pulled tasks.
//!
//! ```text
//!   SortPreservingMerge            stage 3: ExchangeExec merge=[…]          1 subtask
//!     Sort                            ^ global
//!       Aggregate final            stage 2: Sort <- Aggregate <- ExchangeExec    n subtasks
//!         Repartition hash            ^ hash
//!           Aggregate partial      stage 1: Aggregate <- scan                n subtasks
//!             scan
//! ```
//!
//! 1. [`cut`] puts an [`ExchangeExec`] where the plan moves rows between partitions.
//! 2. [`lower`] makes a node of every piece between them, and an edge of every exchange.
//! 3. [`PlanFragment`] runs a piece: channels go into the slots of its exchanges, rows come out of its partitions' streams.
//!
//! A fragment begins when a consumer first asks, so that what its consumers prepare first (the build side of a join, the filter
//! it makes for the scan, a scalar subquery) is there when the scan below opens: across blocking exchanges too, because demand
//! comes from above whatever the gate. All of it runs in one process: operators share state through the plan.
//!
//! [`SourceExec`] puts a source of ours at the bottom of such a plan; [`bounded_config`] and [`bounded_runtime`] are what plans
//! are made and run with.

mod cut;
mod exchange_exec;
mod fragment;
mod lower;
mod parquet_scan;
mod routing;
mod session;
mod slots;
mod source_exec;
mod source_table;

pub use cut::cut;
pub use exchange_exec::ExchangeExec;
pub use fragment::PlanFragment;
pub use lower::{FragmentOptions, lower};
pub use parquet_scan::{ParquetFiles, parquet_scan};
pub use session::{bounded_config, bounded_runtime};
pub use source_exec::{Scan, SourceExec};
pub use source_table::SourceTable;
