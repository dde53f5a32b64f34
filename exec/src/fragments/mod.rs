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
//! 3. [`PlanFragment`] runs a piece: channels go into the exchanges' [`slots`], rows come out of the partitions' streams.
//!
//! A fragment begins when a consumer first asks, so that what its consumers prepare first (the build side of a join, the filter
//! it makes for the scan, a scalar subquery) is there when the scan below opens. All of it runs in one process: operators share
//! state through the plan.

pub mod cut;
pub mod exchange_exec;
mod fragment;
mod lower;
mod routing;
pub mod session;
pub mod slots;
pub mod source_exec;
pub mod source_table;

pub use cut::cut;
pub use exchange_exec::ExchangeExec;
pub use fragment::{PlanFragment, Reader};
pub use lower::{FragmentOptions, lower};
pub use session::{bounded_config, bounded_runtime};
pub use source_exec::{Scan, SourceExec};
pub use source_table::SourceTable;
