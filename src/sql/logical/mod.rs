//! What our SQL has beyond DataFusion's logical plans: windows over event time, and how they get into a plan.

pub mod group_window;
mod local_time;
pub mod session_window;
pub mod window_assign;

pub use local_time::LocalTime;
pub use window_assign::WindowAssign;
