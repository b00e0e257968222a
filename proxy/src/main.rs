//! The `bursar` binary: everything is in the library.

// Exchanges take and free some forty pieces of memory in bursts, and records are freed by another
// thread than took them: where the C library's allocator searches, this one keeps lists.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    bursar::cli::run()
}
