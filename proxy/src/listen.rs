//! Listening sockets and the start and end of a running sidecar.
//!
//! Invariants
//! - Every worker accepts from the same socket, so no connection waits for one that is busy.
//! - After the first signal connections that clients have already made are still served, unless they can
//!   wait in the socket for the next process; then nothing is accepted any more. Streams end by themselves
//!   within the drain time. A second signal ends the wait.
//!
//! Not here: what a connection does (`worker`), how sockets are handed over at the start (`activation`).

use crate::app::App;
use crate::tasks;
use crate::upstream::{Connector, TlsSetup};
use crate::worker::Worker;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
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

/// How long a connection may take from its first packet until it can be accepted, when its socket is about
/// to be closed beside others: the time of one round trip over a long line.
const HANDSHAKES: Duration = Duration::from_millis(250);

/// Whether other processes may listen on the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// The address is ours alone.
    Alone,
    /// The kernel shares connections out among all who listen there (`SO_REUSEPORT`).
    WithPeers,
}

/// Who takes the connections that come when this process takes none any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heir {
    /// Nobody: they are refused.
    Nobody,
    /// Other processes with sockets of their own on the same address. What is still in our socket when it
    /// is closed is lost, though (unless `net.ipv4.tcp_migrate_req` is set).
    Peers,
    /// Whoever opened the socket and keeps it: connections wait in it for the next process.
    Giver,
}

/// An address that is taken. Nobody is heard on it yet: unless whoever opened the socket listens already,
/// connections are refused.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    heir: Heir,
}

/// A socket that connections can be accepted from.
#[derive(Debug)]
pub struct Listener {
    socket: std::net::TcpListener,
    heir: Heir,
}

impl Bound {
    /// A socket that another program opened, listens on and keeps.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn given(listener: std::net::TcpListener) -> io::Result<Self> {
        let socket = Socket::from(listener);
        if !socket.is_listener()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen"));
        }
        socket.set_nonblocking(true)?;
        Ok(Self { socket, heir: Heir::Giver })
    }

    /// From now on connections are taken, for several workers to accept.
    pub fn listen(self) -> io::Result<Listener> {
        // Whoever gave it has said how many may wait.
        if self.heir != Heir::Giver {
            self.socket.listen(BACKLOG)?;
        }
        Ok(Listener { socket: self.socket.into(), heir: self.heir })
    }
}

impl Listener {
    /// Its address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The socket alone, for those who need not care about the end.
    #[must_use]
    pub fn into_socket(self) -> std::net::TcpListener {
        self.socket
    }
}

/// Takes `address`.
pub fn bind(address: SocketAddr, sharing: Sharing) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    let heir = match sharing {
        Sharing::Alone => Heir::Nobody,
        Sharing::WithPeers => {
            socket.set_reuse_port(true)?;
            Heir::Peers
        }
    };
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(Bound { socket, heir })
}

/// The threads of the workers.
#[derive(Debug)]
pub struct Workers(Vec<std::thread::JoinHandle<()>>);

impl Workers {
    /// Starts one thread per worker.
    pub fn start(
        app: &Arc<App>,
        listener: &Listener,
        tls: &TlsSetup,
        shutdown: &watch::Receiver<Shutdown>,
    ) -> io::Result<Self> {
        let mut threads = Vec::new();
        for number in 0..app.config().server.workers {
            let (app, tls, shutdown) = (Arc::clone(app), tls.clone(), shutdown.clone());
            let (socket, heir) = (listener.socket.try_clone()?, listener.heir);
            threads.push(tasks::thread(format!("worker-{number}"), move || async move {
                match TcpListener::from_std(socket) {
                    Ok(listener) => {
                        let worker = Worker::new(&app, Connector::Network(tls));
                        run(worker, listener, heir, shutdown).await;
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
async fn run(worker: Rc<Worker>, listener: TcpListener, heir: Heir, mut shutdown: watch::Receiver<Shutdown>) {
    worker.start_sweeper();
    tokio::select! {
        biased;
        _ = shutdown.wait_for(|state| *state != Shutdown::No) => {}
        () = accept_all(&worker, &listener) => {}
    }
    worker.announce_end();
    take_what_came(&worker, listener, heir).await;
    let drain = worker.drain_time();
    tokio::select! {
        () = worker.drain(drain) => {}
        _ = shutdown.wait_for(|state| *state == Shutdown::Now) => worker.end_all(),
    }
    // The tasks of ended connections settle their exchanges before the thread goes.
    worker.settled().await;
}

/// Accepts connections for ever.
async fn accept_all(worker: &Rc<Worker>, listener: &TcpListener) {
    loop {
        match listener.accept().await {
            Ok((socket, client)) => serve(worker, socket, client),
            Err(error) => {
                // Out of file descriptors, most likely: let some connections end first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn serve(worker: &Rc<Worker>, socket: TcpStream, client: SocketAddr) {
    match socket.set_nodelay(true) {
        Ok(()) => tasks::start(Rc::clone(worker).connection(socket, client.ip())),
        Err(error) => tracing::debug!(%error, "a connection closed at once"),
    }
}

/// Accepts the connections that clients have already made and would lose with the socket; closes it.
async fn take_what_came(worker: &Rc<Worker>, listener: TcpListener, heir: Heir) {
    match heir {
        Heir::Giver => return,
        Heir::Nobody => {}
        Heir::Peers => {
            if let Err(error) = turn_away(&listener) {
                tracing::warn!(%error, "connections that are made in this moment may be reset");
            }
            let _ = tokio::time::timeout(HANDSHAKES, accept_all(worker, &listener)).await;
        }
    }
    // From the socket itself: the runtime only knows what it was told of before.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((socket, client)) = listener.accept() {
        let socket = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket));
        match socket {
            Ok(socket) => serve(worker, socket, client),
            Err(error) => tracing::debug!(%error, "a connection closed at once"),
        }
    }
}

/// Lets no new connection begin here, while those that have begun can be finished and accepted. The first
/// packet of a new one is dropped; its client sends it again a second later, and by then the kernel gives
/// it to another process's socket.
fn turn_away(listener: &TcpListener) -> io::Result<()> {
    // Classic BPF over the TCP header: what has SYN and not ACK is dropped, everything else passes.
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_AT),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}
