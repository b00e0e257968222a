//! How long a hedge report takes over many records and positions, from rollups and from records, and
//! that both say the same.
//!
//! `cargo run --release -p bursar-ledger --example hedge_rate [RECORDS] [POSITIONS] [DIR]`
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measuring program, not a product")]
#![expect(clippy::disallowed_methods, reason = "measures wall time on plain threads")]

use bursar_domain::{
    Anomalies, Cost, CostStatus, Currency, FactKind, Identity, IdentitySource, Label, Metering, Outcome,
    RequestId, SystemClock, Timestamp, TokenClass, Usage, UsageRecord, UsageSource,
};
use bursar_ledger::hedge::{Draft, HedgeAsk, HedgeReport, HedgeSource, ImportHead, Mode, SpotCost, report};
use bursar_ledger::{GroupKey, Ledger, OfflineLedger, Options, Wait};
use bursar_policies::hedge::calendar::parse_day;
use bursar_policies::hedge::profile::Unit;
use jiff::tz::TimeZone;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// How often the report is made from rollups.
const ROUNDS: usize = 5;
const TEAMS: u64 = 20;
const MODELS: u64 = 10;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let records: u64 = arguments.next().map_or(5_000_000, |text| text.parse().unwrap());
    let positions: u64 = arguments.next().map_or(200, |text| text.parse().unwrap());
    let dir = arguments.next().unwrap_or_else(|| std::env::temp_dir().display().to_string());
    let dir = Path::new(&dir).join(format!("bursar-hedge-rate-{}", std::process::id()));
    let pricer = Arc::new(|_: &UsageRecord| Cost::unpriced(Currency::USD));
    let (ledger, _) = Ledger::open(Options::new(&dir), Arc::new(SystemClock), pricer).unwrap();
    fill(&ledger, records, positions);
    ledger.checkpoint().unwrap();
    let mut coarse = timed(&format!("rollups, {records} records x {positions} positions"), &ledger);
    for _ in 1..ROUNDS {
        coarse = timed("rollups again", &ledger);
    }
    ledger.close().unwrap();
    let offline = OfflineLedger::open(&dir).unwrap().from_records();
    let fine = timed("records, the same", &offline);
    assert_eq!((coarse.cost.book, &coarse.cost.rows), (fine.cost.book, &fine.cost.rows), "the same figures");
    drop(offline);
    std::fs::remove_dir_all(&dir).unwrap();
}

fn timed(what: &str, source: &dyn HedgeSource) -> HedgeReport {
    let begin = Instant::now();
    let found = report(source, &ask()).unwrap();
    println!(
        "{what}: {:.2} s, {} rows, read from {:?}",
        begin.elapsed().as_secs_f64(),
        found.rows.len(),
        found.read_from
    );
    assert!(found.complete(), "{:?} {:?}", found.gaps, found.cost.unpriced);
    found
}

fn ask() -> HedgeAsk {
    HedgeAsk {
        from: parse_day("2026-09-01").unwrap(),
        until: parse_day("2026-10-01").unwrap(),
        zone: TimeZone::UTC,
        by: vec![GroupKey::Team],
        unit: Unit::Mtok,
        currency: Currency::USD,
        spot: SpotCost::Billed,
        today: parse_day("2026-10-01").unwrap(),
        as_of: Timestamp::from_micros(i64::MAX),
        ratio: None,
    }
}

fn fill(ledger: &Ledger, records: u64, positions: u64) {
    let mut drafts = Vec::new();
    for day in parse_day("2026-09-01").unwrap().series(jiff::Span::new().days(1)).take(30) {
        if !matches!(day.weekday(), jiff::civil::Weekday::Saturday | jiff::civil::Weekday::Sunday) {
            let fields = json!({"index": "TPI", "date": day.to_string(), "value": "2.25", "currency": "USD"});
            drafts.push(Draft { line: 1, kind: FactKind::Fixing, fields });
        }
    }
    drafts.extend((0..positions).map(|number| Draft {
        line: 1,
        kind: FactKind::Contract,
        fields: position(number),
    }));
    let imported = ledger.import(&drafts, &ImportHead::default(), Mode::Apply, &SystemClock).unwrap();
    assert!(imported.errors.is_empty(), "{:?}", imported.errors);
    let start: jiff::Timestamp = "2026-09-01T00:00:00Z".parse().unwrap();
    let identities: Vec<Arc<Identity>> = (0..TEAMS)
        .map(|team| {
            let label = |text: String| Some(Label::new(&text).unwrap());
            Arc::new(Identity {
                team: label(format!("team-{team}")),
                workload: label(format!("bot-{}", team % 5)),
                source: IdentitySource::Config,
                ..Identity::unallocated()
            })
        })
        .collect();
    let models: Vec<Label> =
        (0..MODELS).map(|model| Label::new(&format!("model-{model}")).unwrap()).collect();
    let step = 30 * 86_400_000_000 / i64::try_from(records.max(1)).unwrap();
    for number in 0..records {
        let at = Timestamp::from_micros(start.as_microsecond() + step * i64::try_from(number).unwrap());
        let team = usize::try_from(number % TEAMS).unwrap();
        let model = usize::try_from(number / TEAMS % MODELS).unwrap();
        let mut boxed = ledger.boxed(record(number, at, &identities[team], &models[model]));
        while let Err(rejected) = ledger.append(boxed, Wait::No) {
            boxed = rejected.record;
            std::thread::yield_now();
        }
    }
}

/// Of twenty positions twelve settle in cash, three are options, two deliver in a month, two are balances
/// that began in August, and one must be used in its hour.
fn position(number: u64) -> serde_json::Value {
    let teams = json!({"teams": [format!("team-{}", number % TEAMS)]});
    let models = json!([format!("model-{}*", number % MODELS)]);
    let both = json!({"teams": [format!("team-{}", number % TEAMS)], "models": models});
    let mut fields = match number / 7 % 20 {
        0..12 => {
            json!({"kind": "swap_fixed_float", "fixed_price": "2.1", "index_id": "TPI", "designation": both})
        }
        12..15 => {
            json!({"kind": "cap", "strikes": {"cap": "2.1"}, "index_id": "TPI", "designation": {"models": models},
                         "premium": {"amount": "120.50"}, "fees": [{"event": "settlement", "amount": "3"}]})
        }
        15..17 => json!({"kind": "commit_usage", "fixed_price": "1.4", "designation": both,
                         "commitment": {"fulfilment_interval": "month", "shortfall": "pro_rata"}}),
        17..19 => {
            json!({"kind": "prepaid_credit", "unit": "USD", "effective_from": "2026-08-15", "designation": teams,
                         "effective_until": "2027-08-15"})
        }
        _ => json!({"kind": "commit_usage", "fixed_price": "1.4", "designation": both,
                    "commitment": {"fulfilment_interval": "hour"}}),
    };
    let usual = [("unit", "Mtok"), ("quantity", "100"), ("trade_date", "2026-08-11")];
    let month = [("effective_from", "2026-09-01"), ("effective_until", "2026-10-01")];
    for (key, value) in usual.into_iter().chain(month) {
        fields[key] = fields.get(key).cloned().unwrap_or(value.into());
    }
    fields["position_id"] = format!("position-{number:04}").into();
    fields
}

fn record(number: u64, at: Timestamp, identity: &Arc<Identity>, model: &Label) -> UsageRecord {
    let mut usage = Usage::unknown();
    usage.set(TokenClass::InputFresh, 3_000 + number % 977);
    usage.set(TokenClass::OutputText, 400 + number % 131);
    let billed = i128::from(5_000 + number % 1_009) * 1_000_000;
    UsageRecord {
        id: RequestId::new(at, u128::from(number) << 32),
        started_at: at,
        ended_at: at,
        identity: identity.clone(),
        route: Label::fixed("openai"),
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
            billed_pico: Some(billed),
            ..Cost::unpriced(Currency::USD)
        }),
        upstream_request_id: None,
        meter_id: None,
        trace_id: None,
        latency_us: 900_000,
        ttft_us: None,
        bytes_in: 1_000,
        bytes_out: 9_000,
        anomalies: Anomalies::default(),
    }
}
