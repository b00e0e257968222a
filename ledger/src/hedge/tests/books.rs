//! Random books of every group of kinds: the report from rollups, from records added up and from records
//! one by one is the same report, and it balances.

use super::*;
use bursar_policies::exact::Decimal;
use bursar_policies::hedge::cost::CostReport;
use proptest::collection::vec;
use proptest::prelude::*;

/// Usage: the minute of September, team, model, provider, tokens in and out, cost in micro-units, currency.
pub(super) type Used = (i64, u8, u8, u8, Option<u32>, Option<u32>, Option<u32>, bool);
/// A position: its template, team, quantity, and whether it has fees and a premium.
pub(super) type Held = (u8, u8, u16, bool);

pub(super) fn used() -> impl Strategy<Value = Used> {
    let tokens = || prop::option::weighted(0.9, 0_u32..3_000_000);
    let cost = prop::option::weighted(0.9, 0_u32..90_000_000);
    (0_i64..43_200, 0_u8..3, 0_u8..3, 0_u8..2, tokens(), tokens(), cost, prop::bool::weighted(0.2))
}

pub(super) fn record_of(number: u64, used: &Used) -> Box<UsageRecord> {
    let (minute, team, model, provider, input, output, cost, euro) = *used;
    let start: jiff::Timestamp = "2026-09-01T00:00:00Z".parse().unwrap();
    let at = Timestamp::from_micros(start.as_microsecond() + minute * 60_000_000);
    let label = |text: String| Some(Label::new(&text).unwrap());
    let mut usage = Usage::unknown();
    for (class, count) in [(TokenClass::InputFresh, input), (TokenClass::OutputText, output)] {
        if let Some(count) = count {
            usage.set(class, count.into());
        }
    }
    let currency = if euro { Currency::parse("EUR").unwrap() } else { Currency::USD };
    let cost = cost.map_or(Cost::unpriced(currency), |micros| Cost {
        status: CostStatus::Priced,
        billed_pico: Some(i128::from(micros) * 1_000_001),
        ..Cost::unpriced(currency)
    });
    Box::new(UsageRecord {
        started_at: at,
        ended_at: at,
        identity: Arc::new(Identity { team: label(format!("t{team}")), ..Identity::unallocated() }),
        provider: Label::new(["openai", "azure"][usize::from(provider)]).unwrap(),
        model_served: label(format!("m{model}")),
        region: label("eu".to_owned()),
        usage,
        cost: Some(cost),
        metering: bursar_domain::Metering::Count,
        ..plain_record(number)
    })
}

pub(super) fn position_of(number: usize, held: &Held) -> Draft {
    let (template, team, quantity, charged) = *held;
    let quantity = quantity + 1;
    let teams = json!({"teams": [format!("t{team}")]});
    let cash = |kind: &str, designation: Value| json!({"kind": kind, "unit": "Mtok", "fixed_price": "2", "index_id": "TPI", "designation": designation});
    let option = |kind: &str, strikes: Value| json!({"kind": kind, "unit": "Mtok", "strikes": strikes, "index_id": "TPI", "designation": teams});
    let delivered = |kind: &str, interval: &str, designation: Value| {
        json!({"kind": kind, "unit": "Mtok", "fixed_price": "7.5", "designation": designation,
               "commitment": {"fulfilment_interval": interval, "shortfall": "pro_rata", "expiry": "2026-09-30"}})
    };
    let pool = |kind: &str, until: &str| {
        json!({"kind": kind, "unit": "USD", "effective_from": "2026-08-15", "effective_until": until,
               "designation": teams, "commitment": {"fulfilment_interval": "term", "benefit_percent": "5"}})
    };
    let mut fields = match template {
        0 => cash("swap_fixed_float", json!({})),
        1 => cash("future", teams),
        2 => cash("swap_fixed_float", json!({"models": ["m1"], "providers": ["azure"]})),
        3 => cash("swap_fixed_float", json!({"token_classes": ["output"]})),
        4 => {
            let shares = json!({"t0": "0.5", "t1": "0.25", "nobody": "0.25"});
            cash("swap_fixed_float", json!({"allocation": "designated", "shares": shares}))
        }
        5 => option("cap", json!({"cap": "2.1"})),
        6 => option("collar", json!({"cap": "2.9", "floor": "2.6"})),
        7 => option("binary", json!({"cap": "2.1"})),
        8 => delivered("forward_physical", "month", teams),
        9 => delivered("commit_usage", "hour", teams),
        10 => delivered("commit_usage", "day", json!({"models": ["m*"]})),
        11 => delivered("voucher", "term", json!({"token_classes": ["output"], "teams": ["t1"]})),
        12 => pool("prepaid_credit", "2026-12-01"),
        _ => pool("commit_spend", "2026-09-21"),
    };
    let window = [("effective_from", "2026-09-01"), ("effective_until", "2026-10-01")];
    for (key, value) in window.into_iter().chain([("trade_date", "2026-08-11")]) {
        fields[key] = fields.get(key).cloned().unwrap_or(value.into());
    }
    fields["position_id"] = format!("p{number}").into();
    fields["quantity"] = format!("{quantity}.5").into();
    if charged {
        fields["premium"] = json!({"amount": "100.01", "recognition": "straight_line"});
        fields["fees"] = json!([{"event": "settlement", "amount": "3.33"}]);
    }
    draft(1, FactKind::Contract, fields)
}

/// A position on a region or in the order of requests that pays and covers nothing, so that records are
/// read.
fn reads_records(designation: &Value) -> Draft {
    let mut fields = swap(&json!({"position_id": "reader", "fixed_price": "2.5"})).fields;
    fields["designation"] = designation.clone();
    draft(1, FactKind::Contract, fields)
}

/// What must be the same, without the reader's own line.
fn figures(report: &HedgeReport) -> (CostReport, Value) {
    let mut cost = report.cost.clone();
    cost.check().unwrap();
    cost.legs.retain(|leg| leg.position.as_str() != "reader");
    let gaps: Vec<String> = report.gaps.iter().map(|(gap, count)| format!("{count} {gap}")).collect();
    (cost, json!(gaps))
}

fn check_book(usage: &[Used], positions: &[Held]) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let mut drafts = fixings();
    for day in 1..=30 {
        let fields = json!({"pair": "EUR/USD", "date": format!("2026-09-{day:02}"), "rate": format!("1.{day:02}7"), "source": "ecb"});
        drafts.push(draft(1, FactKind::Fx, fields));
    }
    drafts.extend(positions.iter().enumerate().map(|(number, held)| position_of(number, held)));
    let imported = import(&ledger, &drafts, Mode::Apply);
    assert_eq!(imported.errors, []);
    for (number, used) in (1_u64..).zip(usage) {
        let _ = ledger.append(record_of(number, used), Wait::Acknowledged).unwrap().wait().unwrap();
    }
    let by = vec![GroupKey::Team, GroupKey::Model];
    let ask = HedgeAsk { by, ratio: Decimal::parse("0.5").ok(), ..ask() };
    let first = report(&ledger, &ask).unwrap();
    let delivers_a_class = positions.iter().any(|(template, ..)| *template == 11);
    let swaps_a_class = positions.iter().any(|(template, ..)| *template == 3);
    let delivers = positions.iter().any(|(template, ..)| (8..12).contains(template));
    let by_records = delivers_a_class || (swaps_a_class && delivers);
    assert_eq!(first.read_from, if by_records { ReadFrom::Records } else { ReadFrom::Rollups });
    import(&ledger, &[reads_records(&json!({"regions": ["nowhere"]}))], Mode::Apply);
    let summed = report(&ledger, &ask).unwrap();
    assert_eq!(summed.read_from, ReadFrom::Records);
    assert_eq!(figures(&summed), figures(&first), "records added up");
    assert_eq!((&summed.rows, &summed.consumed), (&first.rows, &first.consumed));
    ledger.close().unwrap();
    let offline = OfflineLedger::open(dir.path()).unwrap();
    assert_eq!(figures(&report(&offline, &ask).unwrap()), figures(&first), "from the directory");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 64, ..ProptestConfig::default() })]

    #[test]
    fn rollups_and_records_give_the_same_report_of_any_book(
        usage in vec(used(), 1..40),
        positions in vec((0_u8..14, 0_u8..3, 0_u16..30, any::<bool>()), 0..9),
    ) {
        check_book(&usage, &positions);
    }
}
