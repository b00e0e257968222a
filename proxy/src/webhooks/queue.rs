//! Events on their way, for each webhook: which is next, and when it is tried again.
//!
//! Invariants
//! - Of each webhook at most [`WAITING_MAX`] wait; the oldest gives way to a new one.
//! - One is tried until its receiver took it, said that it never will, or was asked [`TRIES_MAX`] times;
//!   from try to try the wait doubles, up to an hour.
//! - Waits are of the steady clock: a restart tries everything at once.
//!
//! Not here: one try (`send`), where it is kept (`state`).

use super::event::Event;
use bursar_domain::Label;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Most events that wait for one webhook, some 1.5 KiB each.
pub(super) const WAITING_MAX: usize = 1_000;
/// How often one is tried, which is for about a day.
pub(super) const TRIES_MAX: u32 = 36;
/// How long to wait before the second try, and the longest wait.
const FIRST_WAIT: Duration = Duration::from_secs(5);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// An event on its way to one webhook.
#[derive(Debug, Serialize, Deserialize)]
struct Parcel {
    id: String,
    body: String,
    #[serde(default)]
    tries: u32,
    /// Not before this; at once where it is not said.
    #[serde(skip)]
    due: Option<Instant>,
}

/// What came of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// The receiver has it.
    Taken,
    /// It does not take it now; perhaps it said how long to wait.
    NotNow(Option<Duration>),
    /// It will never take it.
    Never,
}

/// What follows from a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    /// It is done.
    Done,
    /// It is tried again after this time.
    Again(Duration),
    /// It is not tried again.
    GivenUp,
    /// It gave way meanwhile.
    Gone,
}

/// All events on their way, by webhook.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Queues(BTreeMap<String, VecDeque<Parcel>>);

impl Queues {
    /// Puts an event in. Returns how many gave way.
    pub(super) fn push(&mut self, webhook: &Label, event: &Event) -> u64 {
        let queue = self.0.entry(webhook.to_string()).or_default();
        queue.push_back(Parcel { id: event.id.clone(), body: event.body.clone(), tries: 0, due: None });
        let mut gave_way = 0;
        while queue.len() > WAITING_MAX {
            queue.pop_front();
            gave_way += 1;
        }
        gave_way
    }

    /// The event that is to be tried next, if one is due: the one that has waited longest for it.
    pub(super) fn next(&self, webhook: &Label, now: Instant) -> Option<Event> {
        let queue = self.0.get(webhook.as_str())?;
        let due = queue.iter().filter(|parcel| parcel.due.is_none_or(|due| due <= now));
        let Parcel { id, body, .. } = due.min_by_key(|parcel| parcel.due)?;
        Some(Event { id: id.clone(), body: body.clone() })
    }

    /// Whether anything waits that was never tried.
    pub(super) fn has_fresh(&self) -> bool {
        self.0.values().flatten().any(|parcel| parcel.tries == 0)
    }

    /// What follows from a try of the event `id`.
    pub(super) fn tried(&mut self, webhook: &Label, id: &str, tried: Tried, now: Instant) -> Follows {
        let Some(queue) = self.0.get_mut(webhook.as_str()) else { return Follows::Gone };
        let Some(at) = queue.iter().position(|parcel| parcel.id == id) else { return Follows::Gone };
        let Some(parcel) = queue.get_mut(at) else { return Follows::Gone };
        parcel.tries = parcel.tries.saturating_add(1);
        let follows = match tried {
            Tried::Taken => Follows::Done,
            Tried::NotNow(asked) if parcel.tries < TRIES_MAX => {
                let wait = wait(parcel.tries, webhook, id).max(asked.unwrap_or_default()).min(LONGEST_WAIT);
                parcel.due = now.checked_add(wait);
                Follows::Again(wait)
            }
            Tried::NotNow(_) | Tried::Never => Follows::GivenUp,
        };
        if matches!(follows, Follows::Done | Follows::GivenUp) {
            queue.remove(at);
        }
        follows
    }

    /// Drops what waits for webhooks that are not among these; how many events that were.
    pub(super) fn retain(&mut self, names: &[&str]) -> usize {
        let before = self.len();
        self.0.retain(|name, _| names.contains(&name.as_str()));
        before.saturating_sub(self.len())
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.0.values().map(VecDeque::len).sum()
    }
}

/// How long to wait after so many tries: half of it is the same for all, the other half follows from the
/// event and the webhook, so that not all come back at once.
fn wait(tries: u32, webhook: &Label, id: &str) -> Duration {
    let doubled = 1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX);
    let whole = FIRST_WAIT.saturating_mul(doubled).min(LONGEST_WAIT);
    let half = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX) / 2;
    let hash = blake3::hash(format!("{webhook} {id} {tries}").as_bytes());
    let (bits, _) = hash.as_bytes().as_chunks::<8>();
    let bits = bits.first().copied().map_or(0, u64::from_le_bytes);
    let more = bits.checked_rem(half.saturating_add(1)).unwrap_or(0);
    Duration::from_millis(half.saturating_add(more))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str) -> Event {
        Event { id: id.to_owned(), body: "{}".to_owned() }
    }

    fn name() -> Label {
        Label::new("hook").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_an_hour_and_end_after_about_a_day() {
        let (mut queues, mut all) = (Queues::default(), Duration::ZERO);
        queues.push(&name(), &event("e"));
        let mut now = Instant::now();
        for tries in 1..TRIES_MAX {
            assert_eq!(queues.next(&name(), now).unwrap().id, "e");
            let Follows::Again(wait) = queues.tried(&name(), "e", Tried::NotNow(None), now) else {
                panic!("{tries}")
            };
            let whole = Duration::from_secs(5).saturating_mul(1 << (tries - 1).min(20)).min(LONGEST_WAIT);
            assert!(wait >= whole / 2 && wait <= whole, "{tries}: {wait:?} of {whole:?}");
            assert_eq!(queues.next(&name(), now), None);
            now += wait;
            all += wait;
        }
        assert_eq!(queues.tried(&name(), "e", Tried::NotNow(None), now), Follows::GivenUp);
        assert_eq!(queues.len(), 0);
        let hours = all.as_secs() / 3_600;
        assert!((13..=27).contains(&hours), "{hours} hours");
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_may_ask_for_more_time_but_not_for_ever() {
        let mut queues = Queues::default();
        queues.push(&name(), &event("e"));
        let now = Instant::now();
        let asked = Tried::NotNow(Some(Duration::from_secs(100)));
        assert_eq!(queues.tried(&name(), "e", asked, now), Follows::Again(Duration::from_secs(100)));
        let asked = Tried::NotNow(Some(Duration::MAX));
        assert_eq!(queues.tried(&name(), "e", asked, now), Follows::Again(LONGEST_WAIT));
        assert_eq!(queues.tried(&name(), "e", Tried::Never, now), Follows::GivenUp);
        assert_eq!(queues.tried(&name(), "e", Tried::Taken, now), Follows::Gone);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_gives_way_and_one_that_fails_holds_up_no_other() {
        let mut queues = Queues::default();
        let now = Instant::now();
        let gave_way: u64 = (0..WAITING_MAX + 2).map(|n| queues.push(&name(), &event(&n.to_string()))).sum();
        assert_eq!((gave_way, queues.len()), (2, WAITING_MAX));
        assert_eq!(queues.tried(&name(), "0", Tried::Taken, now), Follows::Gone);
        assert_eq!(queues.next(&name(), now).unwrap().id, "2");
        queues.tried(&name(), "2", Tried::NotNow(None), now);
        assert_eq!(queues.next(&name(), now).unwrap().id, "3");
        // A restart tries all again, and still knows how often it was tried.
        let text = serde_json::to_string(&queues).unwrap();
        let mut queues: Queues = serde_json::from_str(&text).unwrap();
        assert_eq!(queues.next(&name(), now).unwrap().id, "2");
        let Follows::Again(wait) = queues.tried(&name(), "2", Tried::NotNow(None), now) else { panic!() };
        assert!(wait >= Duration::from_secs(5), "{wait:?}");
        assert_eq!(queues.retain(&["another"]), WAITING_MAX);
    }
}
