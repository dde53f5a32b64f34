//! The engine of tidemill: tasks, exchange, operators, fragments.
//!
//! Suggested order of reading: [`exchange`] (how rows travel), [`runtime`] (what runs them), [`operators`] (what they do to
//! them), [`state`] (what they remember), [`fragments`] (how a bounded plan is cut).

pub mod checkpoint;
pub mod error;
pub mod exchange;
pub mod fragments;
pub mod latch;
pub mod memory;
pub mod operators;
pub mod runtime;
pub mod state;
