//! The part of `tidemill_exec::checkpoint` that reads bytes.

#[path = "../../../exec/src/checkpoint/codec.rs"]
pub mod codec;
#[path = "../../../exec/src/checkpoint/content.rs"]
pub mod content;
#[path = "../../../exec/src/checkpoint/generated.rs"]
#[allow(clippy::all, unsafe_op_in_unsafe_fn, mismatched_lifetime_syntaxes)]
#[rustfmt::skip]
mod generated;
#[path = "../../../exec/src/checkpoint/manifest.rs"]
pub mod manifest;
pub mod parquet;
