//! How long mimalloc keeps pages that were freed.
//!
//! What is made anew every second or so, the rows of a checkpoint for one, would otherwise go back to the system each time and be
//! cleared by it before it comes again: a third of what a checkpoint costs in the background. Programs that have
//! [`mimalloc::MiMalloc`] as their global allocator call [`keep_freed_pages`] before they begin, as our binary does.

use std::ffi::{c_int, c_long};

/// `mi_option_purge_delay`, which has no name in the bindings.
const PURGE_DELAY: c_int = 15;
/// Longer than checkpoints are apart, shorter than anybody waits for memory.
const KEPT_MILLIS: c_long = 10_000;

/// Lets mimalloc keep freed pages for ten seconds, where its environment variables do not say otherwise. For the beginning of
/// `main`, before there are threads: options are no atomics.
pub fn keep_freed_pages() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_some() {
        return;
    }
    // SAFETY: the call sets a number in a table of the allocator, which knows this option; nobody else runs yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, KEPT_MILLIS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_delay() {
        // SAFETY: reads a number.
        let read = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(read(), 1000, "not what this version of mimalloc has as its delay");
        keep_freed_pages();
        assert_eq!(read(), KEPT_MILLIS);
    }
}
