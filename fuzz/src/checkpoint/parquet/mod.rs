//! The part of `tidemill_exec::checkpoint::parquet` that reads bytes.

#[path = "../../../../exec/src/checkpoint/parquet/measure.rs"]
mod measure;
#[path = "../../../../exec/src/checkpoint/parquet/plain.rs"]
mod plain;
#[path = "../../../../exec/src/checkpoint/parquet/read.rs"]
pub mod read;
