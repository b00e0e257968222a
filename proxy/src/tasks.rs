//! The only place that starts tasks and threads.
//!
//! Invariants
//! - A task belongs to the worker thread it was started on; the thread's end ends it.
//!
//! Not here: what the tasks do.

use std::future::Future;

/// Runs futures on the current worker's thread; hyper starts its HTTP/2 streams through it.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerExecutor;

impl<F> hyper::rt::Executor<F> for WorkerExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        start(async move {
            future.await;
        });
    }
}

/// Starts `future` on the current worker's thread.
pub fn start(future: impl Future<Output = ()> + 'static) {
    drop(tokio::task::spawn_local(future));
}

/// Starts a named thread with a runtime of its own and runs `main` on it.
pub fn thread<F, Fut>(name: String, main: F) -> std::io::Result<std::thread::JoinHandle<()>>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    std::thread::Builder::new().name(name).spawn(move || match runtime() {
        Ok(runtime) => tokio::task::LocalSet::new().block_on(&runtime, main()),
        Err(error) => tracing::error!(%error, "cannot start a runtime"),
    })
}

/// Starts a named thread without a runtime.
pub fn plain_thread(
    name: String,
    main: impl FnOnce() + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(main)
}

/// A single-threaded runtime with timers and sockets.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
