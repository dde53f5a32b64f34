//! tidemill

pub mod sql;
