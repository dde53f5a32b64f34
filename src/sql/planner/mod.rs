//! From a parsed query to a logical plan.
//!
//! ```text
//! Parsed ── repair.rs ──> plan, and again with a name's case mended where that was all that was wrong
//!             context.rs: where names are looked up     relation.rs, types.rs: what DataFusion's planner lacks
//! ```

mod context;
mod relation;
pub mod repair;
mod twins;
mod types;
pub mod window;

pub use context::{Planner, Relations};
pub use relation::TableFunctions;
pub use types::SqlTypes;
