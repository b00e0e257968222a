//! The `bursar` binary: everything is in the library.

fn main() -> std::process::ExitCode {
    bursar::cli::run()
}
