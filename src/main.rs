//! The `tidemill` command.

mod allocator;
mod cli;

// Pages once touched stay: batches come and go in the same sizes, and first touch costs more than the work on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    allocator::keep_freed_pages();
    cli::main()
}

#[cfg(test)]
mod tests {
    use super::allocator::{KEPT_MILLIS, PURGE_DELAY, keep_freed_pages};

    #[test]
    fn freed_pages_are_kept_for_longer_than_the_allocator_would() {
        // SAFETY: reads a number.
        let read = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(read(), 10, "not what this version of mimalloc has as its delay");
        keep_freed_pages();
        assert_eq!(read(), KEPT_MILLIS);
    }
}
