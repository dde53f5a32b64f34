//! What it costs to lose nothing.
//!
//! ```text
//! cargo bench --bench checkpoints [-- --only cost|increments] [--seconds N --pairs N --interval T] [--keys N --backend B --budget BYTES]
//! ```
//!
//! * Cost (`cost.rs`): CPU time with and without checkpoints.
//! * Increments (`increments.rs`): many keys, of which few change between two checkpoints; then the way back from a savepoint of
//!   them, at another parallelism (`recovery.rs`).
//!
//! Checkpoints go to the local disk, synced.

#[path = "../common/mod.rs"]
mod common;
mod cost;
mod increments;
mod recovery;

use std::process::ExitCode;

use common::announce;
use tidemill::stream::Parameters;
use tidemill::{Error, Result};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    common::run(bench)
}

fn bench(given: &Parameters) -> Result<()> {
    if let Some(savepoint) = given.get("recover") {
        return recovery::recover(given, savepoint);
    }
    if let Some(interval) = given.get("cost-of") {
        return cost::work(given, interval);
    }
    if let Some(savepoint) = given.get("decode") {
        return recovery::decode(savepoint);
    }
    if given.get("touch").is_some() {
        recovery::touch();
        return Ok(());
    }
    announce("checkpoints");
    match given.get("only") {
        None => cost::bench(given).and_then(|()| increments::bench(given)),
        Some("cost") => cost::bench(given),
        Some("increments") => increments::bench(given),
        Some(other) => Err(Error::request(format!("--only {other}: there are cost and increments"))),
    }
}
