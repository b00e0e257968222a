//! The guard: what stands between a client's bytes and the HTTP server.
//!
//! The HTTP/1 parser below us is good but not strict, and it has no deadlines. The guard lets it see
//! only strict, complete, canonical heads with unambiguous framing, so that no two readers of a
//! message can disagree about where it ends.
//!
//! | File | Owns |
//! |---|---|
//! | `limits.rs` | the named maxima |
//! | `rejection.rs` | every reason for turning a request away, with status and remedy |
//! | `grammar.rs` | byte classes and the small grammars: values, hosts, lengths |
//! | `target.rs` | the request target: allowed bytes, and the one canonical path |
//! | `head.rs` | one request head, line by line |
//! | `framing.rs` | `Http1Guard`: where each message of a connection begins and ends |
//! | `conn.rs` | what a connection is doing now, for deadlines and for the service |
//! | `deadlines.rs` | when that has taken too long |
//! | `io.rs` | `GuardedIo`: the guard around a socket |
//! | `fuzz.rs` | the fuzz target of the framing |
//! | `request_check.rs` | the rules that hold for HTTP/1 and HTTP/2 alike |
//!
//! Invariants
//! - Bytes that pass are passed unchanged and in order; how they were cut into reads changes nothing.
//! - After a rejection nothing more passes.
//! - At most one head (16 KiB) is held back.
//!
//! Not here: which status text a client gets (`layers::respond`), routes, identity.

pub mod conn;
pub mod deadlines;
pub mod framing;
mod grammar;
pub mod head;
pub mod io;
pub mod limits;
pub mod rejection;
pub mod request_check;
pub mod target;

#[doc(hidden)]
pub mod fuzz;

pub use conn::{ConnState, Exchange, Phase, Protocol, Tick, Ticker};
pub use deadlines::{Deadlines, Overdue, overdue};
pub use framing::{Http1Guard, Step, Verdict};
pub use head::{Framing, HeadInfo};
pub use io::{GuardedIo, rejection_in, rejection_of};
pub use limits::Limits;
pub use rejection::Rejection;
pub use request_check::{BodyPresence, Checked, Upgrade, check_request};
