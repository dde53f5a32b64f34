//! tidemill

pub mod sql;
pub mod stream;

pub use sql::sql;
