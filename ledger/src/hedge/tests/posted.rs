//! Postings of contracts: whatever is entered, fixed, settled, closed, rolled, taken back or corrected, in any
//! order and beside usage and revenue, every account set sums to zero in every currency.
//!
//! Not here: postings of usage and revenue alone (`postings::tests`), what contracts cost (`policies`).

use super::books::{Held, Used, position_of, record_of, used};
use super::*;
use crate::postings::{TrialAsk, TrialBalance, trial_balance};
use bursar_policies::attribution::RevenueEntry;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// One thing that happens to the books.
#[derive(Clone, Debug)]
enum Step {
    Use(Used),
    Hold(Held),
    /// A fixing of a day, in cents; a second one restates the first.
    Fix(u8, u16),
    /// An exchange rate of a day, in ten-thousandths.
    Rate(u8, u16),
    /// Something that happens to one of the positions.
    Event(u8, Index, u16),
    /// Revenue, a refund of nothing in particular, or a saving; in dollars or euros.
    Sell(u8, u16, bool),
    Restart,
}

fn held() -> impl Strategy<Value = Held> {
    (0_u8..14, 0_u8..3, 0_u16..30, any::<bool>())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => used().prop_map(Step::Use),
        4 => held().prop_map(Step::Hold),
        1 => (1_u8..31, 100_u16..400).prop_map(|(day, cents)| Step::Fix(day, cents)),
        1 => (1_u8..31, 9_000_u16..13_000).prop_map(|(day, rate)| Step::Rate(day, rate)),
        5 => (0_u8..9, any::<Index>(), 1_u16..500).prop_map(|(what, of, amount)| Step::Event(what, of, amount)),
        1 => (0_u8..3, 1_u16..9_999, any::<bool>()).prop_map(|(kind, cents, euro)| Step::Sell(kind, cents, euro)),
        1 => Just(Step::Restart),
    ]
}

fn rate(day: u8, rate: u16) -> Draft {
    let rate = format!("{}.{:04}", rate / 10_000, rate % 10_000);
    let fields =
        json!({"pair": "EUR/USD", "date": format!("2026-09-{day:02}"), "rate": rate, "source": "ecb"});
    draft(1, FactKind::Fx, fields)
}

/// An event of a position; many are refused where its life has come to other things.
fn event(number: usize, what: u8, of: usize, amount: u16) -> Draft {
    let (position, day) = (format!("p{of}"), format!("2026-09-{:02}", 1 + amount % 30));
    let signed = if amount.is_multiple_of(2) { format!("-{amount}.25") } else { format!("{amount}.75") };
    let mut fields = match what {
        0 => json!({"event": "trade"}),
        1 => json!({"event": "fix", "value": "2.41"}),
        2 => json!({"event": "settle", "month": "2026-09", "amount": signed}),
        3 => json!({"event": "variation_margin", "amount": signed}),
        4 => json!({"event": "funding", "amount": signed}),
        5 => json!({"event": "close", "part": "0.5", "price": "2.3", "purchases": "gone"}),
        6 => json!({"event": "roll", "into": format!("p{}", of + 1)}),
        7 => json!({"event": "cancel"}),
        _ => json!({"event": "correct", "of": format!("e{}", number.saturating_sub(1))}),
    };
    fields["position_id"] = position.into();
    fields["event_id"] = format!("e{number}").into();
    fields["date"] = day.into();
    draft(1, FactKind::ContractEvent, fields)
}

fn sell(ledger: &Ledger, number: usize, kind: u8, cents: u16, euro: bool) {
    let (kind, sign) = [("revenue", ""), ("adjustment", ""), ("saving", "")][usize::from(kind)];
    let amount = format!("{sign}{}.{:02}", cents / 100, cents % 100);
    let text = json!({
        "id": format!("r{number}"), "source": "shop", "kind": kind, "amount": amount,
        "currency": if euro { "EUR" } else { "USD" }, "event_time": "2026-09-10T00:00:00Z", "customer": "a",
    });
    let event = RevenueEntry::read(&text.to_string()).unwrap().check().unwrap();
    let head = ImportHead { what: "revenue".to_owned(), file: None, checksum: String::new(), about: None };
    ledger.import_revenue(vec![(1, event)], &head, Mode::Apply, &SystemClock).unwrap();
}

/// The trial balance in `currency`, after its sums and the accounts of every contract were checked.
fn check_trial(source: &dyn HedgeSource, currency: &str) -> Option<TrialBalance> {
    let currency = Currency::parse(currency).unwrap();
    let terms = HedgeAsk { currency, ..ask() };
    let of_contracts = report(source, &terms);
    let all = TrialAsk { from: None, to: None, contracts: Some(terms) };
    let found = match (trial_balance(source, &all), &of_contracts) {
        (Ok(found), Ok(_)) => found,
        // What cannot be told in this currency is refused by both, and by its name.
        (Err(error), Err(_)) => {
            assert!(!error.to_string().is_empty());
            return None;
        }
        (found, report) => panic!("the one answers and the other does not: {found:?} {report:?}"),
    };
    assert!(found.balances.is_balanced(), "{:?}", found.balances.sums());
    let at = |account: &str, of: &str| {
        found.balances.of(&format!("{account}:{of}"), currency).map_or(0, |sum| sum.pico().unwrap())
    };
    for position in &of_contracts.unwrap().positions {
        let Some(leg) = &position.result else { continue };
        let (of, pico) = (leg.position.as_str(), |money: bursar_domain::Money| money.pico());
        assert_eq!(at("covered", of), pico(leg.displaced), "{of}");
        assert_eq!(at("balance", of), -(pico(leg.used) + pico(leg.unused)), "{of}");
        assert_eq!(at("gain", of), pico(leg.used) - pico(leg.displaced), "{of}");
        assert_eq!((at("settlement", of), at("hedge_result", of)), (pico(leg.payoff), -pico(leg.payoff)));
        assert_eq!(at("owed", of), -(pico(leg.premium) + pico(leg.fees)), "{of}");
    }
    Some(found)
}

fn run(steps: &[Step]) {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = open(dir.path());
    let mut drafts = fixings();
    drafts.extend((1..=30).map(|day| rate(day, 11_000 + u16::from(day))));
    assert_eq!(import(&ledger, &drafts, Mode::Apply).errors, []);
    let mut positions = 0_usize;
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Use(used) => {
                let record = record_of(1 + number as u64, used);
                let _ = ledger.append(record, Wait::Acknowledged).unwrap().wait().unwrap();
            }
            Step::Hold(held) => {
                assert_eq!(import(&ledger, &[position_of(positions, held)], Mode::Apply).errors, []);
                positions += 1;
            }
            Step::Fix(day, cents) => {
                let value = format!("{}.{:02}", cents / 100, cents % 100);
                // On holidays there is none.
                import(&ledger, &[fixing(u32::from(*day), &value)], Mode::Apply);
            }
            Step::Rate(day, value) => drop(import(&ledger, &[rate(*day, *value)], Mode::Apply)),
            Step::Event(what, of, amount) => {
                let of = if positions == 0 { 0 } else { of.index(positions) };
                let refused = import(&ledger, &[event(number, *what, of, *amount)], Mode::Apply).errors;
                assert!(refused.iter().all(|error| !error.problem.is_empty()));
            }
            Step::Sell(kind, cents, euro) => sell(&ledger, number, *kind, *cents, *euro),
            Step::Restart => {
                ledger.close().unwrap();
                ledger = open(dir.path());
            }
        }
        check_trial(&ledger, "USD");
    }
    let last = ["USD", "EUR"].map(|currency| check_trial(&ledger, currency).map(|found| found.balances));
    ledger.close().unwrap();
    verify(dir.path()).unwrap();
    let offline = OfflineLedger::open(dir.path()).unwrap().from_records();
    for (currency, last) in ["USD", "EUR"].into_iter().zip(last) {
        let again = check_trial(&offline, currency).map(|found| found.balances);
        let is_same = match (&again, &last) {
            (Some(again), Some(last)) => again.sums_are_those_of(last),
            (again, last) => again.is_none() && last.is_none(),
        };
        assert!(is_same, "from the directory in {currency}: {again:?} instead of {last:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_books_balance_in_every_currency_after_any_events(steps in vec(step(), 1..24)) {
        run(&steps);
    }
}

#[test]
fn a_settled_swap_and_a_used_delivery_post_what_the_report_says() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    import(&ledger, &fixings(), Mode::Apply);
    import(
        &ledger,
        &[swap(&json!({"premium": {"amount": "5", "recognition": "straight_line"}}))],
        Mode::Apply,
    );
    let _ = ledger.append(record(1, 1, "a", "eu"), Wait::Acknowledged).unwrap().wait().unwrap();
    let found = check_trial(&ledger, "USD").unwrap();
    let dollars = |account: &str| {
        let sum = found.balances.of(account, Currency::USD);
        sum.and_then(|sum| sum.pico()).unwrap_or(0) / 1_000_000_000_000
    };
    // 8 Mtok at 2.5 − 2, and a premium of five.
    assert_eq!((dollars("settlement:swap"), dollars("hedge_result:swap")), (4, -4));
    assert_eq!((dollars("premium:swap"), dollars("owed:swap")), (5, -5));
    ledger.close().unwrap();
}
