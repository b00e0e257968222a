//! How long a request's body may keep us waiting where its connection cannot tell: in HTTP/2 many
//! requests share one, so each body is timed by its reader.
//!
//! Invariants
//! - Time is charged to the client only while someone waits for its bytes: an upstream that does not
//!   read stops the clock.
//! - Only [`BODY_PROGRESS_BYTES`] more of the body are progress, as in HTTP/1: a trickle is a stall.
//!
//! Not here: HTTP/1, where the guard times the whole connection (`guard::conn`).

use crate::guard::conn::BODY_PROGRESS_BYTES;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// The time that a body has left to make progress.
#[derive(Debug)]
pub struct Patience {
    limit: Duration,
    left: Duration,
    waiting_since: Option<Instant>,
    trickle: usize,
    /// Made at the first wait: most bodies never keep anybody waiting.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// With `limit` between two steps of progress.
    #[must_use]
    pub const fn new(limit: Duration) -> Self {
        Self { limit, left: limit, waiting_since: None, trickle: 0, sleep: None }
    }

    /// A piece of the body has come.
    pub fn received(&mut self, bytes: usize) {
        if let Some(since) = self.waiting_since.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        self.trickle = self.trickle.saturating_add(bytes);
        if self.trickle >= BODY_PROGRESS_BYTES {
            self.trickle = 0;
            self.left = self.limit;
        }
    }

    /// Nothing is there to read: ready when the patience is at its end.
    pub fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = match self.waiting_since {
            Some(since) => since + self.left,
            None => {
                let now = Instant::now();
                self.waiting_since = Some(now);
                now + self.left
            }
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if sleep.deadline() != until {
            sleep.as_mut().reset(until);
        }
        sleep.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::future::poll_fn;

    const LIMIT: Duration = Duration::from_secs(30);

    async fn waits(patience: &mut Patience, seconds: u64) -> bool {
        let over = poll_fn(|cx| patience.poll_over(cx));
        tokio::time::timeout(Duration::from_secs(seconds), over).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_does_not_buy_time() {
        let mut patience = Patience::new(LIMIT);
        for _ in 0..29 {
            assert!(waits(&mut patience, 1).await);
            patience.received(1);
            patience.received(0);
        }
        assert!(!waits(&mut patience, 2).await);
    }

    #[tokio::test(start_paused = true)]
    async fn progress_buys_the_whole_time_anew() {
        let mut patience = Patience::new(LIMIT);
        for _ in 0..10 {
            assert!(waits(&mut patience, 29).await);
            patience.received(BODY_PROGRESS_BYTES);
        }
        assert!(!waits(&mut patience, 31).await);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_reads_is_not_charged() {
        let mut patience = Patience::new(LIMIT);
        assert!(waits(&mut patience, 20).await);
        patience.received(1);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(poll_fn(|cx| patience.poll_over(cx)).now_or_never(), None);
        assert!(waits(&mut patience, 9).await);
        assert!(!waits(&mut patience, 2).await);
    }
}
