//! A wall clock that tests set by hand, and ways to wait without real time.

use bursar_domain::{Clock, Timestamp};
use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Stands still until it is told otherwise.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `micros` since the epoch.
    #[must_use]
    pub const fn at(micros: i64) -> Self {
        Self(AtomicI64::new(micros))
    }

    /// Moves the clock by `micros`, which may be negative.
    pub fn advance(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// Lets everything else run until `condition` holds, for at most a second of paused time.
///
/// # Panics
/// If it does not come to hold.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("in vain: {what}");
}

/// Runs `future` with the paused clock standing still, where it waits for a real thread such as the
/// ledger's: otherwise every deadline would pass meanwhile. Nothing in it may wait for a timer.
pub async fn unhurried<F: Future>(future: F) -> F::Output {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    // The runtime does not advance a paused clock while a blocking task runs.
    let blocker = tokio::task::spawn_blocking(move || {
        // An error says that the sender is gone, which is what is waited for.
        let _ = wait.recv();
    });
    let output = future.await;
    drop(done);
    blocker.await.unwrap();
    output
}
