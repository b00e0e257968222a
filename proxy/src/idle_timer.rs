//! A deadline for silence that costs nothing while something happens.
//!
//! Invariants
//! - It is armed for one tick at a time and re-armed only when it fires: progress is a flag, and the
//!   real limit lies between the limit and one tick more.
//! - It outlives its exchange: the next one on the worker takes it over, still armed.
//!
//! Not here: what happens on expiry (`reply`, `layers::forward`).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// See the module.
#[derive(Debug)]
pub struct IdleTimer {
    sleep: Pin<Box<Sleep>>,
    tick: Duration,
    limit: Duration,
    /// Whole ticks without progress.
    silent: Duration,
    progressed: bool,
}

impl IdleTimer {
    /// Starts a timer that looks every `tick`.
    #[must_use]
    pub fn start(limit: Duration, tick: Duration) -> Self {
        let tick = tick.min(limit);
        let sleep = Box::pin(tokio::time::sleep(tick));
        Self { sleep, tick, limit, silent: Duration::ZERO, progressed: false }
    }

    /// Goes on with another limit, from now on.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        if limit < self.tick {
            self.rearm(limit);
        } else {
            self.progressed = true;
        }
        self
    }

    /// Starts anew for another exchange, which looks every `tick`.
    #[must_use]
    pub fn taken_over(mut self, limit: Duration, tick: Duration) -> Self {
        self.limit = limit;
        let tick = tick.min(limit);
        if tick == self.tick && !self.sleep.is_elapsed() {
            // Whatever is left of the tick is not counted.
            self.progressed = true;
        } else {
            self.rearm(tick);
        }
        self
    }

    fn rearm(&mut self, tick: Duration) {
        self.tick = tick;
        self.silent = Duration::ZERO;
        self.progressed = false;
        self.sleep.as_mut().reset(Instant::now() + tick);
    }

    /// Something has happened.
    pub fn progress(&mut self) {
        self.progressed = true;
    }

    /// The limit, if it has passed without progress.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Option<Duration> {
        while let Poll::Ready(()) = self.sleep.as_mut().poll(cx) {
            if std::mem::take(&mut self.progressed) {
                self.silent = Duration::ZERO;
            } else {
                self.silent = self.silent.saturating_add(self.tick);
            }
            if self.silent >= self.limit {
                return Some(self.limit);
            }
            self.sleep.as_mut().reset(Instant::now() + self.tick);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    const SECOND: Duration = Duration::from_secs(1);

    async fn expires_after(mut timer: IdleTimer, progress: &[u64]) -> Duration {
        let begun = Instant::now();
        for at in progress {
            let next = begun + SECOND * u32::try_from(*at).unwrap();
            tokio::select! {
                biased;
                _ = poll_fn(|cx| timer.poll_expired(cx).map_or(Poll::Pending, Poll::Ready)) => return begun.elapsed(),
                () = tokio::time::sleep_until(next) => timer.progress(),
            }
        }
        poll_fn(|cx| timer.poll_expired(cx).map_or(Poll::Pending, Poll::Ready)).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn silence_from_the_start_expires_at_the_limit() {
        assert_eq!(expires_after(IdleTimer::start(10 * SECOND, 10 * SECOND), &[]).await, 10 * SECOND);
        assert_eq!(expires_after(IdleTimer::start(10 * SECOND, 5 * SECOND), &[]).await, 10 * SECOND);
        assert_eq!(expires_after(IdleTimer::start(3 * SECOND, 5 * SECOND), &[]).await, 3 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn after_progress_it_expires_between_the_limit_and_a_tick_more() {
        for last in 1..=9 {
            let timer = IdleTimer::start(10 * SECOND, 5 * SECOND);
            let silent = expires_after(timer, &[last]).await - SECOND * u32::try_from(last).unwrap();
            assert!((10 * SECOND..=15 * SECOND).contains(&silent), "{last}: {silent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn progress_in_every_tick_keeps_it_from_expiring() {
        let every_four: Vec<u64> = (1..=100).map(|n| n * 4).collect();
        let silent = expires_after(IdleTimer::start(5 * SECOND, 5 * SECOND), &every_four).await;
        assert!(silent >= 405 * SECOND, "{silent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_is_taken_over_gives_the_whole_limit_again() {
        for waited in [0, 3, 7, 60] {
            let timer = IdleTimer::start(10 * SECOND, 5 * SECOND);
            tokio::time::sleep(SECOND * waited).await;
            let silent = expires_after(timer.taken_over(8 * SECOND, 5 * SECOND), &[]).await;
            assert!((8 * SECOND..=15 * SECOND).contains(&silent), "{waited}: {silent:?}");
        }
    }
}
