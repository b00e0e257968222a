//! Makes a ledger of one month, September 2026, with random revenue events, for measuring reports and
//! exports with the program itself, and for checking that no cent is lost.
//!
//! `cargo run --release -p bursar-ledger --example month -- RECORDS EVENTS DIR`
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a measuring program and a test's data, not a product"
)]

use bursar_domain::{
    Anomalies, Cost, CostStatus, Currency, Identity, IdentitySource, Label, Metering, Outcome, RequestId,
    SystemClock, Timestamp, TokenClass, Usage, UsageRecord, UsageSource,
};
use bursar_ledger::hedge::{HedgeAsk, ImportHead, Mode, SpotCost};
use bursar_ledger::roi::RoiAsk;
use bursar_ledger::{GroupKey, Ledger, Options, Wait};
use bursar_policies::attribution::{ModelName, Revenue, RevenueEntry};
use bursar_policies::hedge::calendar::parse_day;
use bursar_policies::hedge::profile::Unit;
use jiff::tz::TimeZone;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

const TEAMS: u64 = 20;
const WORKLOADS: u64 = 10;
const MODELS: u64 = 10;
/// Requests of one session.
const SESSION: u64 = 5;
/// Events of one import.
const IMPORT: u64 = 40_000;
const MONTH_MICROS: i64 = 30 * 86_400_000_000;

/// What the events of a ledger are worth together, in cents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) revenue: i64,
    pub(crate) savings: i64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [records, events, dir] = arguments.as_slice() else {
        panic!("say RECORDS EVENTS DIR, such as 5000000 200000 /tmp/month");
    };
    let ledger = open(Path::new(dir));
    let received = fill(&ledger, records.parse().unwrap(), events.parse().unwrap());
    ledger.checkpoint().unwrap();
    ledger.close().unwrap();
    println!("{dir}: {records} records, {events} events worth {received:?} cents");
}

pub(crate) fn open(dir: &Path) -> Ledger {
    let pricer = Arc::new(|_: &UsageRecord| Cost::unpriced(Currency::USD));
    Ledger::open(Options::new(dir), Arc::new(SystemClock), pricer).unwrap().0
}

/// The question of a report by team and workload.
pub(crate) fn ask(model: ModelName) -> RoiAsk {
    RoiAsk {
        hedge: HedgeAsk {
            from: parse_day("2026-09-01").unwrap(),
            until: parse_day("2026-10-01").unwrap(),
            zone: TimeZone::UTC,
            by: vec![GroupKey::Team, GroupKey::Workload],
            unit: Unit::Mtok,
            currency: Currency::USD,
            spot: SpotCost::Billed,
            today: parse_day("2026-10-01").unwrap(),
            as_of: Timestamp::from_micros(i64::MAX),
            ratio: None,
        },
        model,
        look_back_micros: 30 * 86_400_000_000,
        half_life_micros: 7 * 86_400_000_000,
        compare: false,
    }
}

/// Numbers that look random and are the same in every run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (bits ^ (bits >> 31)) % below
    }
}

fn start() -> i64 {
    "2026-09-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

/// Writes the records, then the events.
pub(crate) fn fill(ledger: &Ledger, records: u64, events: u64) -> Received {
    let models: Vec<Label> =
        (0..MODELS).map(|model| Label::new(&format!("model-{model}")).unwrap()).collect();
    let step = MONTH_MICROS / i64::try_from(records.max(1)).unwrap();
    let mut identity = None;
    for number in 0..records {
        if number % SESSION == 0 || identity.is_none() {
            identity = Some(identity_of(number / SESSION));
        }
        let at = Timestamp::from_micros(start() + step * i64::try_from(number).unwrap());
        let model = &models[usize::try_from(number % MODELS).unwrap()];
        let mut boxed = ledger.boxed(record(number, at, identity.as_ref().unwrap(), model));
        while let Err(rejected) = ledger.append(boxed, Wait::No) {
            boxed = rejected.record;
            std::thread::yield_now();
        }
    }
    ledger.checkpoint().unwrap();
    let mut received = Received::default();
    let mut numbers = Numbers(7);
    let sessions = (records / SESSION).max(1);
    let mut left = events;
    while left > 0 {
        let count = left.min(IMPORT);
        let mut piece: Vec<(u64, Revenue)> = Vec::new();
        while u64::try_from(piece.len()).unwrap() < count {
            let number = left - u64::try_from(piece.len()).unwrap();
            let room = count - u64::try_from(piece.len()).unwrap();
            for fields in sale(number, room, &mut numbers, sessions, &mut received) {
                let entry = RevenueEntry::read(&fields.to_string()).unwrap().check().unwrap();
                piece.push((u64::try_from(piece.len()).unwrap() + 1, entry));
            }
        }
        left -= count;
        let done = ledger.import_revenue(piece, &ImportHead::default(), Mode::Apply, &SystemClock).unwrap();
        assert_eq!(done.imported.errors, []);
    }
    received
}

/// An event, and at times what is taken back of it.
fn sale(
    number: u64,
    room: u64,
    numbers: &mut Numbers,
    sessions: u64,
    received: &mut Received,
) -> Vec<serde_json::Value> {
    let cents = i64::try_from(1 + numbers.next(1_000_000)).unwrap();
    let time = |at: u64| {
        let at = jiff::Timestamp::from_microsecond(start() + i64::try_from(at).unwrap()).unwrap();
        at.to_string()
    };
    let at = numbers.next(u64::try_from(MONTH_MICROS).unwrap());
    let decimal = |cents: i64| {
        let sign = if cents < 0 { "-" } else { "" };
        format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
    };
    let id = format!("sale-{number}");
    let saving = numbers.next(7) == 0;
    let mut event = json!({
        "id": id, "kind": if saving { "saving" } else { "revenue" }, "amount": decimal(cents), "currency": "USD",
        "time": time(at),
    });
    match numbers.next(20) {
        0 => event["session"] = "no-such-session".into(),
        1 => {}
        _ => event["session"] = format!("session-{}", numbers.next(sessions)).into(),
    }
    let mut worth = cents;
    let mut events = vec![event];
    if room > 1 && numbers.next(8) == 0 {
        let back = 1 + i64::try_from(numbers.next(u64::try_from(cents).unwrap())).unwrap();
        let kind = ["refund", "chargeback", "adjustment"][usize::try_from(numbers.next(3)).unwrap()];
        let later = at + numbers.next(u64::try_from(MONTH_MICROS).unwrap() - at);
        events.push(json!({
            "id": format!("{id}-back"), "kind": kind, "amount": decimal(-back), "currency": "USD",
            "time": time(later), "refers_to": id,
        }));
        worth -= back;
    }
    if saving {
        received.savings += worth
    } else {
        received.revenue += worth
    }
    events
}

fn identity_of(session: u64) -> Arc<Identity> {
    let label = |text: String| Some(Label::new(&text).unwrap());
    Arc::new(Identity {
        team: label(format!("team-{}", session % TEAMS)),
        workload: label(format!("bot-{}", session % WORKLOADS)),
        session: label(format!("session-{session}")),
        source: IdentitySource::Config,
        ..Identity::unallocated()
    })
}

fn record(number: u64, at: Timestamp, identity: &Arc<Identity>, model: &Label) -> UsageRecord {
    let mut usage = Usage::unknown();
    usage.set(TokenClass::InputFresh, 3_000 + number % 977);
    usage.set(TokenClass::CachedRead, 200 + number % 31);
    usage.set(TokenClass::OutputText, 400 + number % 131);
    let pico = i128::from(5_000 + number % 1_009) * 1_000_000;
    UsageRecord {
        id: RequestId::new(at, u128::from(number) << 32),
        started_at: at,
        ended_at: at,
        identity: identity.clone(),
        route: Label::fixed("/openai"),
        provider: Label::fixed("openai"),
        api: Label::fixed("openai-chat"),
        model_requested: Some(model.clone()),
        model_served: Some(model.clone()),
        tier: None,
        region: None,
        stream: true,
        http_status: Some(200),
        outcome: Outcome::Ok,
        metering: Metering::Count,
        usage,
        usage_source: UsageSource::Provider,
        counted_by: None,
        by_model: Vec::new(),
        usage_raw: None,
        provider_cost: None,
        cost: Some(Cost {
            status: CostStatus::Priced,
            list_pico: Some(pico),
            contracted_pico: Some(pico),
            billed_pico: Some(pico),
            ..Cost::unpriced(Currency::USD)
        }),
        upstream_request_id: None,
        meter_id: None,
        trace_id: None,
        latency_us: 900_000 + number % 4_001,
        ttft_us: Some(100_000 + number % 997),
        bytes_in: 1_000 + number % 501,
        bytes_out: 9_000 + number % 3_001,
        anomalies: Anomalies::default(),
    }
}
