//! Listening sockets and the start and end of a running sidecar.
//!
//! Invariants
//! - Every worker accepts from the same socket, so no connection waits for one that is busy.
//! - After the first signal nothing is accepted any more; streams end by themselves within the drain
//!   time. A second signal ends the wait.
//!
//! Not here: what a connection does (`worker`).

use crate::app::App;
use crate::tasks;
use crate::upstream::{Connector, TlsSetup};
use crate::worker::Worker;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How far the end of the process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// Serving.
    No,
    /// No new connections; what runs may end.
    Drain,
    /// Everything ends now.
    Now,
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// An address that is taken, and on which nobody is heard yet: connections are refused.
#[derive(Debug)]
pub struct Bound(Socket);

impl Bound {
    /// From now on connections are taken, for several workers to accept.
    pub fn listen(self) -> io::Result<std::net::TcpListener> {
        self.0.listen(BACKLOG)?;
        Ok(self.0.into())
    }
}

/// Takes `address`.
pub fn bind(address: SocketAddr) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(Bound(socket))
}

/// The threads of the workers.
#[derive(Debug)]
pub struct Workers(Vec<std::thread::JoinHandle<()>>);

impl Workers {
    /// Starts one thread per worker.
    pub fn start(
        app: &Arc<App>,
        listener: &std::net::TcpListener,
        tls: &TlsSetup,
        shutdown: &watch::Receiver<Shutdown>,
    ) -> io::Result<Self> {
        let mut threads = Vec::new();
        for number in 0..app.config().server.workers {
            let (app, tls, shutdown) = (Arc::clone(app), tls.clone(), shutdown.clone());
            let listener = listener.try_clone()?;
            threads.push(tasks::thread(format!("worker-{number}"), move || async move {
                match TcpListener::from_std(listener) {
                    Ok(listener) => {
                        let worker = Worker::new(&app, Connector::Network(tls));
                        run(worker, listener, shutdown).await;
                    }
                    Err(error) => tracing::error!(%error, "a worker cannot listen"),
                }
            })?);
        }
        Ok(Self(threads))
    }

    /// Waits until every worker has ended.
    pub fn join(self) {
        for thread in self.0 {
            if thread.join().is_err() {
                tracing::error!("a worker ended in a panic");
            }
        }
    }
}

/// Accepts connections until the shutdown begins, then lets them end.
async fn run(worker: Rc<Worker>, listener: TcpListener, mut shutdown: watch::Receiver<Shutdown>) {
    worker.start_sweeper();
    loop {
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|state| *state != Shutdown::No) => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    if let Err(error) = socket.set_nodelay(true) {
                        tracing::debug!(%error, "a connection closed at once");
                        continue;
                    }
                    tasks::start(Rc::clone(&worker).connection(socket));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: let some connections end first.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    let drain = worker.drain_time();
    tokio::select! {
        () = worker.drain(drain) => {}
        _ = shutdown.wait_for(|state| *state == Shutdown::Now) => worker.end_all(),
    }
    // The tasks of ended connections settle their exchanges before the thread goes.
    worker.settled().await;
}
