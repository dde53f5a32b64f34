//! The `tidemill` command.

mod cli;

// Pages once touched stay: batches come and go in the same sizes, and first touch costs more than the work on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    tidemill::allocator::keep_freed_pages();
    cli::main()
}
