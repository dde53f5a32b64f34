//! Columns of state: what a key remembers, by slot. Backends share them; they differ in where columns go that are not in use.
//!
//! [`ValueColumn`], [`ListColumn`] and [`MapColumn`] hold types of users; [`TimedColumn`] lets the slots of any column expire.

#[cfg(test)]
mod conformance;
mod entry;
mod list;
mod map;
mod timed;
mod value;

pub use entry::{Entry, Timed, Untimed};
pub use list::ListColumn;
pub use map::MapColumn;
pub use timed::TimedColumn;
pub use value::ValueColumn;

use tidemill_core::Error;

/// The error of encoding a slot that holds nothing.
fn vacant(slot: usize) -> Error {
    Error::internal(format!("slot {slot} of a state is to be encoded and is vacant"))
}
