//! How long mimalloc keeps pages that were freed.
//!
//! What is made anew every second or so, the rows of a checkpoint for one, would otherwise go back to the system each time and be
//! cleared by it before it comes again: a third of what a checkpoint costs in the background.
//!
//! A module of our binary and of the benchmarks, which have mimalloc as their global allocator, and not of the library: what refers to
//! mimalloc brings its thread-local storage along, for which a Python process that loads the wheel has no room.

use std::ffi::{c_int, c_long};

/// `mi_option_purge_delay`, which has no name in the bindings.
pub const PURGE_DELAY: c_int = 15;
/// Of what threads hold; what they gave back to all is kept ten times as long (`mi_option_arena_purge_mult`). Longer than checkpoints are
/// apart, and their compactions; shorter than anybody waits for memory.
pub const KEPT_MILLIS: c_long = 10_000;

/// Lets mimalloc keep freed pages for ten seconds to a hundred, where its environment variables do not say otherwise. For the beginning of
/// `main`, before there are threads: options are no atomics.
pub fn keep_freed_pages() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_some() {
        return;
    }
    // SAFETY: the call sets a number in a table of the allocator, which knows this option; nobody else runs yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, KEPT_MILLIS) }
}
