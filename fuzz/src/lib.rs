//! The decoders of stored bytes, for the fuzzer.
//!
//! Their sources are taken as they are and not through `tidemill-exec`, which would bring DataFusion along: minutes of
//! instrumented code that no decoder calls.

use std::panic;

#[allow(dead_code, unused_imports, missing_docs)]
pub mod checkpoint;

/// Lets panics unwind, as they do outside of the fuzzer: those inside of Arrow become errors, and any other one still ends the
/// process at the border of the target.
pub fn let_panics_unwind() {
    panic::set_hook(Box::new(|_| ()));
}
