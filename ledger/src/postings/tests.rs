//! Postings sum to zero, and say what the totals say.

use super::*;
use crate::codec::tests::{any_record, plain_record};
use crate::faults::open;
use crate::hedge::{ImportHead, Mode};
use crate::{Wait, verify};
use bursar_domain::{CostStatus, SystemClock};
use bursar_policies::attribution::RevenueEntry;
use proptest::prelude::*;

fn usd(pico: i128) -> Option<i128> {
    Some(pico)
}

/// Posts one cost; `expected` are the five accounts of its provider.
fn check(amounts: [Option<i128>; 3], expected: [i128; 5]) {
    let [list_pico, contracted_pico, billed_pico] = amounts;
    let cost = Cost {
        status: CostStatus::Priced,
        list_pico,
        contracted_pico,
        billed_pico,
        ..Cost::unpriced(Currency::USD)
    };
    let record = UsageRecord { cost: Some(cost), ..plain_record(1) };
    let mut totals = Totals::default();
    totals.add_record(&record, true);
    let (mut one, mut by_record, mut by_totals) =
        (OneByOne::default(), Balances::default(), Balances::default());
    assert!(one.add(&record));
    one.add_to(&mut by_record);
    of_totals("openai", &totals, &mut by_totals);
    assert!(by_totals.sums_are_those_of(&by_record), "{amounts:?}");
    let names = ["usage", "discounts", "adjustments", "payable", "unbilled"];
    for (name, expected) in names.into_iter().zip(expected) {
        let sum = by_totals.of(&format!("{name}:openai"), Currency::USD);
        assert_eq!(sum.and_then(|sum| sum.pico()).unwrap_or(0), expected, "{amounts:?} {name}");
    }
    assert!(by_totals.is_balanced());
}

#[test]
fn usage_is_owed_at_what_is_billed_and_the_rest_is_discount_or_adjustment() {
    check([usd(10), usd(8), usd(5)], [10, -2, -3, -5, 0]);
    check([usd(10), usd(8), None], [10, -2, 0, 0, -8]);
    check([usd(10), None, usd(12)], [10, 0, 2, -12, 0]);
    check([None, None, usd(7)], [7, 0, 0, -7, 0]);
    check([None, None, None], [0; 5]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Of any records: accounts sum to zero in every currency, `payable` is what reports say is billed,
    /// and rollups post what the records post one by one.
    #[test]
    fn postings_are_balanced_and_equal_the_totals(
        records in prop::collection::vec((any_record(), any::<bool>()), 0..30)
    ) {
        let (mut sets, mut by_provider) = (OneByOne::default(), BTreeMap::<String, Totals>::new());
        let mut all = Totals::default();
        for (record, counted) in &records {
            all.add_record(record, *counted);
            by_provider.entry(record.provider.to_string()).or_default().add_record(record, *counted);
            if *counted {
                prop_assert!(sets.add(record), "each set sums to zero");
            }
        }
        let mut one_by_one = Balances::default();
        sets.add_to(&mut one_by_one);
        let mut of_sums = Balances::default();
        by_provider.iter().for_each(|(provider, totals)| of_totals(provider, totals, &mut of_sums));
        prop_assert!(of_sums.sums_are_those_of(&one_by_one));
        prop_assert!(of_sums.is_balanced());
        for money in all.money() {
            let mut payable = MoneySum::default();
            for (account, currency, sum) in of_sums.iter() {
                if currency == money.currency && account.starts_with("payable:") {
                    payable.merge(sum);
                }
            }
            payable.merge(&money.billed);
            prop_assert!(payable.is_zero(), "payable is not what is billed");
        }
    }
}

fn entry(text: &str) -> Revenue {
    RevenueEntry::read(text).unwrap().check().unwrap()
}

#[test]
fn the_trial_balance_of_a_ledger_has_usage_and_revenue_and_sums_to_zero() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    for n in 0..20 {
        let _ = ledger.append(Box::new(plain_record(n)), Wait::Acknowledged).unwrap().wait().unwrap();
    }
    let at = "2026-01-01T00:00:05Z";
    let events = [
        format!(
            r#"{{"id":"1","source":"shop","kind":"revenue","amount":"30.00","currency":"EUR","event_time":"{at}","customer":"a"}}"#
        ),
        format!(
            r#"{{"id":"2","source":"shop","kind":"refund","amount":"-10.00","currency":"EUR","event_time":"{at}","refers_to":"1"}}"#
        ),
        format!(
            r#"{{"id":"3","source":"desk","kind":"saving","amount":"4.00","currency":"USD","event_time":"{at}","customer":"a"}}"#
        ),
    ];
    let events = (1..).zip(events.iter().map(|text| entry(text))).collect();
    let head = ImportHead { what: "revenue".to_owned(), file: None, checksum: String::new(), about: None };
    let imported = ledger.import_revenue(events, &head, Mode::Apply, &SystemClock).unwrap();
    assert_eq!(imported.imported.errors, []);
    let ask = TrialAsk { from: None, to: None, contracts: None };
    let found = trial_balance(&ledger, &ask).unwrap();
    assert!(found.balances.is_balanced());
    let pico = |account: &str, currency: &str| {
        let sum = found.balances.of(account, Currency::parse(currency).unwrap());
        sum.and_then(|sum| sum.pico())
    };
    let euro = 1_000_000_000_000;
    assert_eq!(pico("receivable:shop", "EUR"), Some(20 * euro));
    assert_eq!(
        (pico("revenue:shop", "EUR"), pico("refunds:shop", "EUR")),
        (Some(-30 * euro), Some(10 * euro))
    );
    assert_eq!((pico("saved:desk", "USD"), pico("savings:desk", "USD")), (Some(4 * euro), Some(-4 * euro)));
    let billed = ledger.usage(&UsageQuery::default()).unwrap().totals.money()[0].billed.pico().unwrap();
    assert_eq!(pico("payable:openai", "USD"), Some(-billed));
    assert_eq!((found.unpriced, found.as_of_sequence), (0, ledger.stats().last_sequence));
    // A time before all of it.
    let early = TrialAsk { to: Some(Timestamp::from_micros(0)), ..ask };
    assert_eq!(trial_balance(&ledger, &early).unwrap().balances.iter().count(), 0);
    ledger.close().unwrap();
    verify(dir.path()).unwrap();
}
