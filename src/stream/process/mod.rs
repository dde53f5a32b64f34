//! Process functions: the lowest level of the API, with states, timers and side outputs (API-05, PRF-01 … PRF-06).
//!
//! ```text
//! ProcessFunction, CoProcessFunction, BroadcastProcessFunction     what users write          functions.rs
//! RuntimeContext, Context, BroadcastContext …                      what they are given       runtime_context.rs, context.rs
//! Logic ── RowFunction ──> the engine's ProcessOperator            what stands between       logic.rs, head.rs
//! ```

mod context;
mod functions;
mod head;
mod logic;
mod runtime_context;
mod side_outputs;

pub(super) use context::LazyKeys;
pub use context::{BroadcastContext, Context, InitializationContext};
pub use functions::{BroadcastProcessFunction, CoProcessFunction, ProcessFunction};
pub(super) use head::{InputCodec, Inputs, ProcessHead};
pub(super) use logic::{Broadcasting, Logic, One, Two};
pub use runtime_context::RuntimeContext;
pub(super) use runtime_context::StatesOfWindows;
pub(super) use side_outputs::SideOutputs;
