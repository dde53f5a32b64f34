//! What our SQL has beyond DataFusion's logical plans: windows over event time, and how they get into a plan.

pub mod group_window;
mod local_time;
mod order_columns;
pub mod session_window;
mod three_valued_in;
pub mod window_assign;

pub use local_time::LocalTime;
pub use order_columns::with_order_columns;
pub use three_valued_in::ThreeValuedIn;
pub use window_assign::WindowAssign;
