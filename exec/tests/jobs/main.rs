//! Whole jobs of pushed tasks: that a seed replays them, that demand ends them, that they leave nothing on disk.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

#[path = "../common/collect.rs"]
mod collect;
mod graph;
mod limit;
mod overlapping;
mod panics;
mod simulation;
#[path = "../common/source.rs"]
mod source;
mod spill;
#[path = "../common/watermarks.rs"]
mod watermarks;
