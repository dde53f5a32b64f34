//! tidemill

pub mod sql;
pub mod stream;

pub use sql::{Rows, sql};
pub use tidemill_core::{Error, ErrorKind, Result, Settings};

