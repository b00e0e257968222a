//! An hour of calls that three teams could have made, from a seed.
//!
//! Invariants
//! - The same seed gives the same calls, on every machine.
//!
//! Not here: who answers (`provider`), what is booked beside (`books`).

use super::START_MICROS;
use super::provider::{Ending, Reply};
use bursar_domain::Timestamp;

/// Microseconds of an hour.
const HOUR: u64 = 3_600_000_000;

/// How a call is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// OpenAI's chat.
    Chat,
    /// OpenAI's embeddings.
    Embeddings,
    /// Anthropic's messages.
    Messages,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) at: Timestamp,
    pub(super) dialect: Dialect,
    pub(super) team: Option<&'static str>,
    pub(super) workload: Option<&'static str>,
    pub(super) customer: Option<&'static str>,
    pub(super) session: Option<String>,
    pub(super) feature: Option<&'static str>,
    pub(super) model: &'static str,
    pub(super) reply: Reply,
}

impl Call {
    /// Whether a stream is asked for.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self.reply.ending, Ending::Stream | Ending::Broken)
    }
}

/// What one workload does in the hour.
struct Habit {
    calls: u64,
    team: Option<&'static str>,
    workload: Option<&'static str>,
    feature: Option<&'static str>,
    dialect: Dialect,
    /// As asked for, and as answered.
    model: (&'static str, &'static str),
    has_customers: bool,
    /// Of a hundred calls, how many are streams.
    streams: u64,
    /// Input and output around which calls lie; shares of input, in hundredths, that a cache holds and takes in.
    input: u64,
    cached: u64,
    written: u64,
    output: u64,
    reasoning: u64,
}

const CUSTOMERS: [&str; 4] = ["acme", "globex", "initech", "umbrella"];

const HABITS: [Habit; 6] = [
    Habit {
        calls: 240,
        team: Some("support"),
        workload: Some("support-bot"),
        feature: Some("chat"),
        dialect: Dialect::Chat,
        model: ("gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
        has_customers: true,
        streams: 80,
        input: 9_000,
        cached: 60,
        written: 0,
        output: 700,
        reasoning: 0,
    },
    Habit {
        calls: 60,
        team: Some("support"),
        workload: Some("ticket-triage"),
        feature: Some("triage"),
        dialect: Dialect::Chat,
        model: ("gpt-5-mini", "gpt-5-mini-2025-08-07"),
        has_customers: false,
        streams: 0,
        input: 6_000,
        cached: 30,
        written: 0,
        output: 1_800,
        reasoning: 60,
    },
    Habit {
        calls: 120,
        team: Some("search"),
        workload: Some("answer-search"),
        feature: Some("answers"),
        dialect: Dialect::Chat,
        model: ("gpt-4o", "gpt-4o-2024-11-20"),
        has_customers: true,
        streams: 90,
        input: 12_000,
        cached: 40,
        written: 0,
        output: 900,
        reasoning: 0,
    },
    Habit {
        calls: 90,
        team: Some("search"),
        workload: Some("indexer"),
        feature: Some("index"),
        dialect: Dialect::Embeddings,
        model: ("text-embedding-3-small", "text-embedding-3-small"),
        has_customers: false,
        streams: 0,
        input: 60_000,
        cached: 0,
        written: 0,
        output: 0,
        reasoning: 0,
    },
    Habit {
        calls: 70,
        team: Some("engineering"),
        workload: Some("code-review"),
        feature: Some("review"),
        dialect: Dialect::Messages,
        model: ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        has_customers: false,
        streams: 70,
        input: 38_000,
        cached: 55,
        written: 15,
        output: 2_600,
        reasoning: 0,
    },
    Habit {
        calls: 12,
        team: None,
        workload: None,
        feature: None,
        dialect: Dialect::Chat,
        model: ("gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
        has_customers: false,
        streams: 0,
        input: 4_000,
        cached: 0,
        written: 0,
        output: 500,
        reasoning: 0,
    },
];

/// Numbers that look random: splitmix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// A number between half of `middle` and one and a half of it.
    fn around(&mut self, middle: u64) -> u64 {
        (middle / 2).saturating_add(self.below(middle.saturating_add(1)))
    }
}

/// The calls of the hour, in time.
pub(super) fn hour(seed: u64) -> Vec<Call> {
    let mut numbers = Numbers(seed);
    let mut calls = Vec::new();
    for habit in &HABITS {
        for _ in 0..habit.calls {
            calls.push(call(habit, &mut numbers));
        }
    }
    calls.sort_by_key(|call| call.at);
    calls
}

fn call(habit: &Habit, numbers: &mut Numbers) -> Call {
    let into = i64::try_from(numbers.below(HOUR)).unwrap_or(0);
    let at = Timestamp::from_micros(START_MICROS.saturating_add(into));
    let customer =
        habit.has_customers.then(|| numbers.below(4)).and_then(|at| CUSTOMERS.get(usize::try_from(at).ok()?));
    let session = customer.map(|customer| format!("{customer}-{}", numbers.below(12)));
    let is_stream = numbers.below(100) < habit.streams;
    let ending = match numbers.below(100) {
        0 => Ending::Failed,
        1 | 2 => Ending::Busy,
        3 if is_stream => Ending::Broken,
        _ if is_stream => Ending::Stream,
        _ => Ending::Whole,
    };
    let share = |whole: u64, hundredths: u64| whole.saturating_mul(hundredths) / 100;
    let input = numbers.around(habit.input);
    // A cache is cold now and then.
    let is_warm = numbers.below(10) < 8;
    let cached = if is_warm { share(input, habit.cached) } else { 0 };
    let written = if is_warm { share(input, habit.written) } else { share(input, habit.cached) };
    let written = if habit.written == 0 { 0 } else { written };
    let output = if habit.output == 0 { 0 } else { numbers.around(habit.output) };
    let reply = Reply {
        ending,
        model: habit.model.1.to_owned(),
        counts: [input, cached, written, output, share(output, habit.reasoning)],
    };
    Call {
        at,
        dialect: habit.dialect,
        team: habit.team,
        workload: habit.workload,
        customer: customer.copied(),
        session,
        feature: habit.feature,
        model: habit.model.0,
        reply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_an_hour_of_every_kind_of_call() {
        let calls = hour(1);
        assert_eq!(calls, hour(1));
        assert_ne!(calls, hour(2));
        let end = START_MICROS + i64::try_from(HOUR).unwrap();
        assert!(calls.iter().all(|call| (START_MICROS..end).contains(&call.at.micros())));
        for ending in [Ending::Whole, Ending::Stream, Ending::Broken, Ending::Busy, Ending::Failed] {
            assert!(calls.iter().any(|call| call.reply.ending == ending), "{ending:?}");
        }
        let cached: u64 = calls.iter().map(|call| call.reply.counts[1]).sum();
        assert!(cached > 0 && calls.iter().any(|call| call.team.is_none()));
    }
}
