//! Tests of effective cost: the worked example, each mechanism of the waterfall, positions from
//! entry to leg, and what stays unpriced.

use super::*;
use crate::hedge::calendar::{Calendar, Month, Window, parse_day};
use crate::hedge::lifecycle::{Event, Portfolio, Purchases, What};
use crate::hedge::market::{Fixing, FxRate, Index, IndexKey, Market, Pair};
use crate::hedge::payoff::{Shape, Side};
use crate::hedge::position::Entry;
use crate::hedge::profile::{Conversion, Measured, Profile, Profiles};
use serde_json::{Value, json};

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn usd(text: &str) -> Money {
    Money::parse(Currency::USD, text).unwrap()
}

fn decimal(text: &str) -> Decimal {
    Decimal::parse(text).unwrap()
}

fn used(team: &str, volume: &str, spot: &str) -> Use {
    Use {
        row: None,
        at: Timestamp::from_micros(0),
        id: 0,
        facets: Facets::team(label(team)),
        volume: decimal(volume),
        spot: usd(spot),
    }
}

fn plain(position: &str, cover: Cover) -> Leg {
    Leg::plain(label(position), cover, Currency::USD)
}

fn cash(quantity: i128, payoff: &str) -> Cover {
    Cover::Cash { quantity: Ratio::whole(quantity), payoff: usd(payoff) }
}

fn run(uses: &[Use], legs: &[Leg]) -> CostReport {
    waterfall(uses, legs, Vec::new(), (Currency::USD, Unit::Mtok)).unwrap()
}

#[track_caller]
fn check(report: &CostReport, team: &str, effective: &str) {
    let row = &report.rows[&label(team)];
    assert_eq!(row.lines.effective().unwrap(), usd(effective), "{team}: {:#?}", row.lines);
}

#[track_caller]
fn check_line(report: &CostReport, line: Line, amounts: &[(&str, &str)], residual: &str) {
    for (team, amount) in amounts {
        assert_eq!(report.rows[&label(team)].lines.get(line), usd(amount), "{line} of {team}");
    }
    assert_eq!(report.residual.get(line), usd(residual), "{line} of the residual");
}

// === the worked example ===

#[test]
fn the_full_book_reconciles_to_the_cent() {
    let uses = [
        used("alpha", "21000", "41237.184512"),
        used("beta", "9500", "18904.50733"),
        used("gamma", "1500", "3310.008158"),
    ];
    let swap = Shape::Linear { fixed: decimal("2.10") };
    let payoff = swap.payoff(Side::Long, Ratio::whole(36_000), decimal("2.2575").ratio()).unwrap();
    let payoff = payoff.money_half_even(Currency::USD).unwrap();
    assert_eq!(payoff, usd("5670"));
    let mut leg = plain("swap", Cover::Cash { quantity: Ratio::whole(36_000), payoff });
    leg.premium = usd("1250");
    leg.fees = usd("287.45");
    let mut reservation = plain("reservation", Cover::Nothing);
    reservation.unused = usd("1680");
    reservation.unused_to = UnusedTo::Owner(label("beta"));
    let report = run(&uses, &[leg, reservation]);
    check_line(
        &report,
        Line::Spot,
        &[("alpha", "41237.18"), ("beta", "18904.51"), ("gamma", "3310.01")],
        "0",
    );
    check_line(
        &report,
        Line::Payoff,
        &[("alpha", "3307.50"), ("beta", "1496.25"), ("gamma", "236.25")],
        "630",
    );
    check_line(&report, Line::Premium, &[("alpha", "820.31"), ("beta", "371.10"), ("gamma", "58.59")], "0");
    check_line(&report, Line::Fees, &[("alpha", "188.64"), ("beta", "85.34"), ("gamma", "13.47")], "0");
    check_line(&report, Line::Unused, &[("alpha", "0"), ("beta", "1680"), ("gamma", "0")], "0");
    check(&report, "alpha", "38938.63");
    check(&report, "beta", "19544.70");
    check(&report, "gamma", "3145.82");
    assert_eq!(report.residual.effective().unwrap(), usd("-630"));
    assert_eq!(report.book.effective().unwrap(), usd("60999.15"));
    assert_eq!(report.book.get(Line::Spot), usd("63451.70"));
}

// === mechanisms ===

#[test]
fn a_unit_is_covered_once_in_the_order_of_rank() {
    let uses = [used("a", "60", "120"), used("b", "40", "80")];
    let mut first = plain("z-first", cash(70, "70"));
    first.rank = 1;
    let mut second = plain("a-second", cash(50, "100"));
    second.rank = 2;
    let report = run(&uses, &[second, first]);
    let covered: Vec<(&str, Ratio)> =
        report.legs.iter().map(|leg| (leg.position.as_str(), leg.covered)).collect();
    assert_eq!(covered, [("z-first", Ratio::whole(70)), ("a-second", Ratio::whole(30))]);
    assert_eq!(report.legs[1].effective, usd("60"));
    assert_eq!(report.residual.get(Line::Payoff), usd("40"));
    check_line(&report, Line::Payoff, &[("a", "78"), ("b", "52")], "40");
}

#[test]
fn delivered_units_are_charged_at_their_price_and_hedges_take_what_is_left() {
    let uses = [used("a", "60", "120"), used("b", "40", "80")];
    let bucket = Bucket {
        from: Timestamp::from_micros(i64::MIN),
        until: Timestamp::from_micros(i64::MAX),
        quantity: Ratio::whole(50),
    };
    let units = |quantity| Cover::Units {
        buckets: vec![Bucket { quantity: Ratio::whole(quantity), ..bucket }],
        price: decimal("1.5").ratio(),
        overage: None,
        leftover: Leftover::Lapses,
    };
    let mut swap = plain("swap", cash(100, "10"));
    swap.rank = 300;
    let report = run(&uses, &[plain("delivery", units(50)), swap]);
    check_line(&report, Line::Displaced, &[("a", "60"), ("b", "40")], "0");
    check_line(&report, Line::Contract, &[("a", "45"), ("b", "30")], "0");
    check_line(&report, Line::Payoff, &[("a", "3"), ("b", "2")], "5");
    assert_eq!(report.legs[0].displaced.checked_sub(report.legs[0].used).unwrap(), usd("25"));
    check(&report, "a", "102");
    // More delivered than used: the rest is unused and nobody's.
    let report = run(&uses, &[plain("delivery", units(120))]);
    check(&report, "a", "90");
    check_line(&report, Line::Unused, &[("a", "0"), ("b", "0")], "30");
}

#[test]
fn usage_beyond_a_commitment_costs_what_the_contract_says() {
    let uses = [used("a", "100", "200")];
    let units = |overage| Cover::Units {
        buckets: vec![Bucket {
            from: Timestamp::from_micros(i64::MIN),
            until: Timestamp::from_micros(i64::MAX),
            quantity: Ratio::whole(60),
        }],
        price: decimal("1.5").ratio(),
        overage,
        leftover: Leftover::Lapses,
    };
    check(&run(&uses, &[plain("c", units(None))]), "a", "170");
    check(&run(&uses, &[plain("c", units(Some(decimal("1.75").ratio())))]), "a", "160");
}

#[test]
fn hourly_commitments_do_not_lend_idle_hours_to_busy_ones() {
    let at = |micros, volume| Use { at: Timestamp::from_micros(micros), ..used("a", volume, "10") };
    let uses = [at(0, "10"), at(100, "2")];
    let bucket = |from, until| Bucket {
        from: Timestamp::from_micros(from),
        until: Timestamp::from_micros(until),
        quantity: Ratio::whole(6),
    };
    let cover = Cover::Units {
        buckets: vec![bucket(0, 100), bucket(100, 200)],
        price: Ratio::ONE,
        overage: None,
        leftover: Leftover::Lapses,
    };
    let report = run(&uses, &[plain("ptu", cover)]);
    assert_eq!(report.legs[0].covered, Ratio::whole(8));
    assert_eq!((report.legs[0].used, report.legs[0].unused), (usd("8"), usd("4")));
    // 6 of 10 units of the first hour and all of the second: 6 + 10 of 20.
    check_line(&report, Line::Displaced, &[("a", "16")], "0");
}

#[test]
fn a_pool_pays_what_is_still_at_spot_and_fixes_no_price() {
    let uses = [used("a", "60", "75"), used("b", "40", "25")];
    let pool = |balance, leftover| Cover::Pool {
        balance: usd(balance),
        benefit: Ratio::new(1, 5).unwrap(),
        leftover,
    };
    let mut swap = plain("swap", cash(100, "10"));
    swap.rank = 300;
    let report = run(&uses, &[plain("credit", pool("40", Leftover::Stays)), swap.clone()]);
    // 40 pays for usage worth 50 at spot; the swap still covers all units.
    check_line(&report, Line::Contract, &[("a", "30"), ("b", "10")], "0");
    check_line(&report, Line::Displaced, &[("a", "37.5"), ("b", "12.5")], "0");
    check_line(&report, Line::Payoff, &[("a", "6"), ("b", "4")], "0");
    let report = run(&uses, &[plain("credit", pool("100", Leftover::Lapses)), swap]);
    check_line(&report, Line::Contract, &[("a", "60"), ("b", "20")], "0");
    check_line(&report, Line::Unused, &[("a", "0"), ("b", "0")], "20");
}

#[test]
fn binaries_and_undesignated_positions_are_the_treasurys() {
    let uses = [used("a", "10", "20")];
    let mut binary = plain("event", Cover::Uncounted { payoff: usd("7") });
    binary.premium = usd("3");
    let report = run(&uses, &[binary]);
    check(&report, "a", "20");
    assert_eq!(report.residual.effective().unwrap(), usd("-4"));
    assert_eq!(report.legs[0].covered, Ratio::ZERO);
}

#[test]
fn currency_forwards_have_a_line_of_their_own() {
    let uses = [used("a", "30", "60"), used("b", "10", "20")];
    let report = run(&uses, &[plain("fwd", Cover::Currency { payoff: usd("8") })]);
    check_line(&report, Line::Fx, &[("a", "-6"), ("b", "-2")], "0");
    check(&report, "a", "54");
}

#[test]
fn by_time_the_first_usage_gets_the_payoff() {
    let at = |micros, id, team| Use { at: Timestamp::from_micros(micros), id, ..used(team, "10", "20") };
    let mut uses = vec![at(5, 1, "late"), at(1, 2, "early"), at(5, 0, "tie")];
    let mut leg = plain("swap", cash(15, "30"));
    leg.allocation = Allocation::Fifo;
    let report = run(&uses, &[leg.clone()]);
    check_line(&report, Line::Payoff, &[("early", "20"), ("tie", "10"), ("late", "0")], "0");
    uses.reverse();
    assert_eq!(run(&uses, &[leg]), report);
}

#[test]
fn designated_shares_decide_whatever_the_volume() {
    let uses = [used("a", "90", "180"), used("b", "10", "20")];
    let mut leg = plain("swap", cash(50, "1000.01"));
    leg.allocation = Allocation::Designated(
        [("a", "0.5"), ("b", "0.3"), ("c", "0.2")].map(|(team, share)| (label(team), decimal(share))).into(),
    );
    let report = run(&uses, &[leg]);
    check_line(&report, Line::Payoff, &[("a", "500.01"), ("b", "300"), ("c", "200")], "0");
}

#[test]
fn a_selector_limits_who_is_covered() {
    let mut leg = plain("swap", cash(50, "50"));
    leg.selector.teams = [label("b")].into();
    let uses = [used("a", "60", "120"), used("b", "40", "80")];
    let report = run(&uses, std::slice::from_ref(&leg));
    check_line(&report, Line::Payoff, &[("a", "0"), ("b", "40")], "10");
    leg.selector.teams = [label("nobody")].into();
    let report = run(&uses, &[leg]);
    assert!(report.legs[0].covers_nothing);
    check_line(&report, Line::Payoff, &[("a", "0"), ("b", "0")], "50");
}

#[test]
fn usage_below_zero_and_a_position_twice_are_refused() {
    let refuse = |uses: &[Use], legs: &[Leg]| {
        waterfall(uses, legs, Vec::new(), (Currency::USD, Unit::Mtok)).unwrap_err()
    };
    let mut negative = used("a", "0", "1");
    negative.volume = decimal("-1");
    assert_eq!(refuse(&[negative], &[]), CostError::NegativeVolume(label("a")));
    let leg = plain("swap", cash(1, "1"));
    assert_eq!(refuse(&[], &[leg.clone(), leg]), CostError::Twice(label("swap")));
    let mut euros = used("a", "1", "1");
    euros.spot = Money::zero(Currency::parse("EUR").unwrap());
    assert!(matches!(refuse(&[euros], &[]), CostError::Exact(ExactError::Money(_))));
}

#[test]
fn a_book_that_does_not_balance_is_caught() {
    let mut report = run(&[used("a", "1", "2")], &[]);
    report.residual.add(Line::Fees, usd("0.01")).unwrap();
    assert!(matches!(report.check(), Err(CostError::Unbalanced { line: "fees", .. })));
}

// === from positions to legs ===

const NOW: Timestamp = Timestamp::from_micros(2_000_000_000_000_000);

struct World {
    portfolio: Portfolio,
    market: Market,
    profiles: Profiles,
    today: &'static str,
}

fn world(today: &'static str) -> World {
    let mut market = Market::default();
    for (id, currency) in [("TPI", "USD"), ("CTI", "CNY")] {
        market.declare(Index {
            key: IndexKey { id: label(id), version: 1 },
            currency: Currency::parse(currency).unwrap(),
            calendar: Calendar::daily(),
            last: None,
        });
    }
    World { portfolio: Portfolio::default(), market, profiles: Profiles::default(), today }
}

impl World {
    /// The same fixing on every day of the window.
    fn fixings(mut self, id: &str, from: &str, until: &str, value: &str) -> Self {
        let key = IndexKey { id: label(id), version: 1 };
        let currency = self.market.index(&key).unwrap().currency;
        let window = Window::new(parse_day(from).unwrap(), parse_day(until).unwrap()).unwrap();
        for date in window.each_day() {
            let fixing = Fixing {
                index: key.clone(),
                date,
                value: decimal(value),
                currency,
                source: label("exchange"),
                known_at: Timestamp::from_micros(1),
            };
            let _ = self.market.add_fixing(fixing).unwrap();
        }
        self
    }

    fn rate(mut self, date: &str, rate: &str) -> Self {
        let rate = FxRate {
            pair: Pair::parse("USD/CNY").unwrap(),
            date: parse_day(date).unwrap(),
            rate: decimal(rate),
            source: label("bank"),
            known_at: Timestamp::from_micros(1),
        };
        let _ = self.market.add_rate(rate).unwrap();
        self
    }

    fn position(mut self, fields: Value) -> Self {
        let mut entry = json!({
            "position_id": "p", "quantity": "100", "unit": "Mtok", "trade_date": "2026-08-01",
            "effective_from": "2026-09-01", "effective_until": "2026-10-01", "designation": {}
        });
        for (key, value) in fields.as_object().unwrap() {
            entry[key] = value.clone();
        }
        let position = serde_json::from_value::<Entry>(entry).unwrap().check();
        let _ = self.portfolio.add(position.unwrap_or_else(|errors| panic!("{errors:#?}"))).unwrap();
        self
    }

    fn event(mut self, id: &str, date: &str, what: What) -> Self {
        let event = Event {
            id: label(id),
            date: parse_day(date).unwrap(),
            known_at: Timestamp::from_micros(1),
            what,
        };
        let _ = self.portfolio.record(&label("p"), event).unwrap().unwrap();
        self
    }

    fn book(&self) -> Book<'_> {
        Book {
            portfolio: &self.portfolio,
            market: &self.market,
            profiles: &self.profiles,
            unit: Unit::Mtok,
            currency: Currency::USD,
            today: parse_day(self.today).unwrap(),
            as_of: NOW,
        }
    }

    fn month(&self, month: &str, consumed: &mut Consumed) -> CostReport {
        let window = Month::parse(month).unwrap().window().unwrap();
        let first = window.from().to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp();
        let at = Timestamp::from_micros(first.as_microsecond());
        self.book().cost(window, &[Use { at, ..used("a", "100", "300") }], consumed).unwrap()
    }

    #[track_caller]
    fn check(&self, month: &str, effective: &str, residual: &str) -> CostReport {
        let report = self.month(month, &mut Consumed::default());
        assert_eq!(report.unpriced, []);
        check(&report, "a", effective);
        assert_eq!(report.residual.effective().unwrap(), usd(residual));
        report
    }

    #[track_caller]
    fn check_unpriced(&self, month: &str, text: &str) {
        let report = self.month(month, &mut Consumed::default());
        check(&report, "a", "300");
        let reasons: Vec<String> = report.unpriced.iter().map(ToString::to_string).collect();
        assert!(reasons.len() == 1 && reasons[0].contains(text), "{reasons:?}");
        assert!(!report.complete());
    }
}

fn swap() -> Value {
    json!({"kind": "swap_fixed_float", "fixed_price": "2.10", "index_id": "TPI"})
}

fn with(mut fields: Value, key: &str, value: Value) -> Value {
    fields[key] = value;
    fields
}

fn september() -> World {
    world("2026-12-31").fixings("TPI", "2026-09-01", "2026-10-01", "2.50")
}

#[test]
fn a_swap_settles_at_its_average() {
    let report = september().position(swap()).check("2026-09", "260", "0");
    assert!(!report.provisional());
    september().position(with(swap(), "side", json!("receive_fixed"))).check("2026-09", "340", "0");
    september().position(with(swap(), "quantity", json!("150"))).check("2026-09", "260", "-20");
    september().position(swap()).check("2026-08", "300", "0");
}

#[test]
fn options_pay_above_their_strike_and_cost_their_premium() {
    let cap = json!({
        "kind": "cap", "strikes": {"cap": "2.40"}, "index_id": "TPI",
        "premium": {"amount": "5", "pay_date": "2026-09-01"}
    });
    september().position(cap).check("2026-09", "295", "0");
    let binary = json!({"kind": "binary", "strikes": {"cap": "2.40"}, "index_id": "TPI"});
    september().position(binary).check("2026-09", "300", "-100");
}

#[test]
fn before_it_is_designated_a_position_is_the_treasurys() {
    let late = with(swap(), "designation", json!({"designated_at": "2026-10-01"}));
    september().position(late).check("2026-09", "300", "-40");
    let midway = with(swap(), "designation", json!({"designated_at": "2026-09-10"}));
    september().position(midway).check("2026-09", "300", "-40");
    let traded_late = with(swap(), "trade_date", json!("2026-09-10"));
    september().position(traded_late).check("2026-09", "260", "0");
    let never = with(swap(), "designation", Value::Null);
    september().position(never).check("2026-09", "300", "-40");
}

#[test]
fn a_running_month_is_provisional_with_quantity_and_average_to_date() {
    let world = World { today: "2026-09-15", ..september() }.position(swap());
    let report = world.check("2026-09", "280", "0");
    assert!(report.provisional(), "half the month: 50 units at 0.40");
    let point = with(swap(), "settlement_rule", json!("point"));
    World { today: "2026-09-15", ..september() }
        .position(with(point, "last_trade", json!("2026-09-16")))
        .check_unpriced("2026-09", "it settles on 2026-09-16");
}

#[test]
fn what_cannot_be_priced_is_listed_and_is_no_zero() {
    let gap = world("2026-12-31").fixings("TPI", "2026-09-01", "2026-09-30", "2.5");
    gap.position(swap()).check_unpriced("2026-09", "no fixing for 1 of 30 days, first 2026-09-30");
    world("2026-12-31")
        .position(with(swap(), "index_id", json!("XYZ")))
        .check_unpriced("2026-09", "unknown index XYZ v1");
    september()
        .position(with(swap(), "unit", json!("GPU-h")))
        .check_unpriced("2026-09", "GPU-h does not convert to Mtok");
    let yuan = with(with(swap(), "price_currency", json!("CNY")), "index_id", json!("CTI"));
    world("2026-12-31")
        .fixings("CTI", "2026-09-01", "2026-10-01", "20")
        .position(yuan)
        .check_unpriced("2026-09", "no rate between CNY and USD");
}

#[test]
fn a_contract_priced_in_another_currency_than_its_index_is_unpriced() {
    // 20 yuan less 2.10 dollars is no amount of either.
    let world = || world("2026-12-31").fixings("CTI", "2026-09-01", "2026-10-01", "20");
    let other = |code: &str| with(with(swap(), "index_id", json!("CTI")), "price_currency", json!(code));
    world()
        .position(other("USD"))
        .check_unpriced("2026-09", "CTI v1 is in CNY and the contract is priced in USD");
    world().position(other("CNH")).check_unpriced("2026-09", "CNY and CNH are two currencies");
}

#[test]
fn a_mark_that_is_missing_is_filled_by_the_fallback_of_the_contract_alone() {
    let marked = with(swap(), "settlement_rule", json!("continuous_mtm"));
    let gap = || world("2026-12-31").fixings("TPI", "2026-09-01", "2026-09-30", "2.50");
    gap().position(marked.clone()).check_unpriced("2026-09", "no fixing for 1 of 1 days, first 2026-09-30");
    gap().position(with(marked, "fallback", json!("last_published"))).check("2026-09", "260", "0");
}

#[test]
fn a_contract_in_yuan_settles_in_dollars_at_the_rate_of_its_day() {
    let world =
        world("2026-12-31").fixings("CTI", "2026-09-01", "2026-10-01", "17.1").rate("2026-09-30", "7.1");
    let yuan = with(with(swap(), "price_currency", json!("CNY")), "index_id", json!("CTI"));
    let yuan = with(yuan, "fixed_price", json!("10"));
    // 710 CNY at 7.1.
    world.position(yuan).check("2026-09", "200", "0");
}

#[test]
fn a_currency_forward_pays_the_difference_of_rates() {
    let forward = json!({
        "kind": "fx_forward", "unit": "USD", "quantity": "710", "fixed_price": "7.0",
        "price_currency": "CNY", "fx": {"pair": "USD/CNY"}
    });
    // 710 · (7.1 − 7.0) = 71 CNY = 10 USD.
    let report = world("2026-12-31").rate("2026-09-30", "7.1").position(forward).check("2026-09", "290", "0");
    check_line(&report, Line::Fx, &[("a", "-10")], "0");
}

#[test]
fn gpu_hours_cover_tokens_through_their_profile() {
    let mut world = september();
    let conversion =
        Conversion::Throughput { tokens_per_second: decimal("2000"), utilisation: decimal("0.5") };
    let from = parse_day("2026-01-01").unwrap();
    let profile = Profile { id: label("h100"), from, conversion, measured: Measured::default() };
    world.profiles.add(profile).unwrap();
    // 10 GPU-hours are 36 Mtok; the payoff is 10 · 0.40.
    let fields = with(with(swap(), "unit", json!("GPU-h")), "quantity", json!("10"));
    let report = world
        .position(with(fields, "designation", json!({"conversion_profile": "h100"})))
        .check("2026-09", "296", "0");
    assert_eq!(report.legs[0].covered, Ratio::whole(36));
}

#[test]
fn a_recorded_settlement_goes_before_a_computed_one() {
    let amount = usd("41.5");
    let month = Month::parse("2026-09").unwrap();
    let settled =
        |world: World| world.position(swap()).event("s", "2026-10-02", What::Settlement { month, amount });
    settled(september()).check("2026-09", "258.5", "0");
    settled(world("2026-12-31")).check("2026-09", "258.5", "0");
}

#[test]
fn a_closed_position_stays_with_its_months_while_the_purchases_are_expected() {
    let two_months =
        with(with(swap(), "effective_until", json!("2026-11-01")), "volumes", json!("each_month"));
    let close = |purchases| What::CloseOut { part: decimal("1"), price: decimal("2.30"), purchases };
    let closed =
        |purchases| september().position(two_months.clone()).event("c", "2026-09-10", close(purchases));
    let expected = closed(Purchases::Expected);
    expected.check("2026-09", "280", "0");
    expected.check("2026-10", "280", "0");
    let gone = closed(Purchases::NoLongerExpected);
    let report = gone.month("2026-09", &mut Consumed::default());
    assert_eq!(report.book.get(Line::Payoff), usd("40"), "both months at once");
    gone.check("2026-10", "300", "0");
    september().position(swap()).event("x", "2026-08-20", What::Cancel).check("2026-09", "300", "0");
}

#[test]
fn take_or_pay_and_vouchers_deliver_at_their_price() {
    let physical = |quantity: &str| {
        world("2026-12-31").position(json!({
            "kind": "forward_physical", "fixed_price": "1.20", "quantity": quantity
        }))
    };
    physical("60").check("2026-09", "192", "0");
    physical("150").check("2026-09", "120", "60");
    let voucher = world("2026-12-31").position(json!({
        "kind": "voucher", "fixed_price": "2", "quantity": "250",
        "effective_until": "2026-12-01", "commitment": {"expiry": "2026-11-15"}
    }));
    let mut consumed = Consumed::default();
    let months =
        ["2026-09", "2026-10", "2026-11", "2026-12"].map(|month| voucher.month(month, &mut consumed));
    let costs = months.each_ref().map(|report| report.book.effective().unwrap());
    assert_eq!(costs, ["200", "200", "250", "300"].map(usd), "100, 100 and the last 50 of 250");
}

#[test]
fn prepaid_credit_is_drawn_until_it_is_gone_or_lapses() {
    let credit = |quantity: &str| {
        world("2026-12-31").position(json!({
            "kind": "prepaid_credit", "unit": "USD", "quantity": quantity, "effective_until": "2026-11-01",
            "commitment": {"benefit_percent": "20"}
        }))
    };
    let mut consumed = Consumed::default();
    let book = credit("300");
    let months = ["2026-09", "2026-10", "2026-11"].map(|month| book.month(month, &mut consumed));
    let costs = months.each_ref().map(|report| report.book.effective().unwrap());
    // 300 at spot costs 240 from the balance; the last 60 pay for 75.
    assert_eq!(costs, ["240", "285", "300"].map(usd));
    assert_eq!(consumed.of(&label("p")), Ratio::whole(300));
    let mut consumed = Consumed::default();
    let book = credit("500");
    let months = ["2026-09", "2026-10"].map(|month| book.month(month, &mut consumed));
    assert_eq!(months[1].residual.get(Line::Unused), usd("20"), "breakage in the period of expiry");
}

#[test]
fn premiums_and_fees_fall_into_their_periods() {
    let fields = with(
        with(swap(), "premium", json!({"amount": "61", "recognition": "straight_line"})),
        "fees",
        json!([{"event": "trade", "amount": "7"}, {"event": "settlement", "amount": "2"}]),
    );
    let fields = with(with(fields, "effective_until", json!("2026-11-01")), "volumes", json!("each_month"));
    let world = september().fixings("TPI", "2026-10-01", "2026-11-01", "2.50").position(fields);
    let line = |month, line| world.month(month, &mut Consumed::default()).book.get(line);
    assert_eq!(["2026-08", "2026-09", "2026-10"].map(|m| line(m, Line::Premium)), ["0", "30", "31"].map(usd));
    assert_eq!(["2026-08", "2026-09", "2026-10"].map(|m| line(m, Line::Fees)), ["7", "2", "2"].map(usd));
}

#[test]
fn a_perpetual_pays_the_change_of_its_mark_and_its_funding() {
    let fields = json!({
        "kind": "perpetual", "fixed_price": "2.00", "index_id": "TPI", "effective_until": "2026-11-01",
        "volumes": "each_month"
    });
    let world = september().fixings("TPI", "2026-10-01", "2026-11-01", "2.80").position(fields).event(
        "f",
        "2026-10-05",
        What::Funding(usd("-4")),
    );
    world.check("2026-09", "250", "0");
    world.check("2026-10", "274", "0");
}

#[test]
fn months_add_up_and_another_hedge_ratio_is_a_question() {
    let world = september().position(swap());
    let mut both = world.month("2026-09", &mut Consumed::default());
    both.merge(world.month("2026-08", &mut Consumed::default())).unwrap();
    assert_eq!(both.book.effective().unwrap(), usd("560"));
    let window = Month::parse("2026-09").unwrap().window().unwrap();
    let uses = [used("a", "100", "300")];
    let half = Ratio::new(1, 2).unwrap();
    let scaled = world.book().scaled(window, &uses, &Consumed::default(), half).unwrap();
    check(&scaled, "a", "280");
    check(&world.book().unhedged(&uses).unwrap(), "a", "300");
}

#[test]
fn rows_finer_than_teams_add_up_to_the_teams_whatever_the_rule() {
    let fine = |team: &str, row: &str, volume: &str| Use {
        row: Some(Label::new(row).unwrap()),
        ..used(team, volume, "100")
    };
    let uses = [fine("a", "a / bot", "30"), fine("a", "a / search", "10"), fine("b", "b / bot", "60")];
    let coarse: Vec<Use> = uses.iter().map(|used| Use { row: None, ..used.clone() }).collect();
    let zero = Money::zero(Currency::USD);
    let usd = |text| Money::parse(Currency::USD, text).unwrap();
    let designated = [("a", "3"), ("b", "1")];
    let designated = designated.map(|(team, share)| (Label::fixed(team), Decimal::parse(share).unwrap()));
    for allocation in [Allocation::ProRata, Allocation::Designated(designated.into())] {
        let cover = Cover::Cash { quantity: Ratio::whole(80), payoff: usd("77.77") };
        let leg = Leg {
            premium: usd("10.01"),
            unused: usd("5.55"),
            unused_to: UnusedTo::Owner(Label::fixed("a")),
            allocation,
            ..Leg::plain(Label::fixed("swap"), cover, Currency::USD)
        };
        let run = |uses: &[Use]| {
            waterfall(uses, std::slice::from_ref(&leg), Vec::new(), (Currency::USD, Unit::Mtok)).unwrap()
        };
        let (rows, teams) = (run(&uses), run(&coarse));
        assert_eq!(rows.book, teams.book);
        for (team, whole) in &teams.rows {
            for line in Line::ALL {
                let parts = rows.rows.iter().filter(|(row, _)| row.as_str().starts_with(team.as_str()));
                let sum = parts.fold(zero, |sum, (_, row)| sum.checked_add(row.lines.get(*line)).unwrap());
                let apart = sum.checked_sub(whole.lines.get(*line)).unwrap().pico().abs();
                assert!(
                    apart <= 2 * Currency::USD.minor_pico(),
                    "{team} {line}: {sum} {}",
                    whole.lines.get(*line)
                );
            }
        }
        assert!(rows.rows.keys().all(|row| row.as_str().contains(" / ")), "{:?}", rows.rows.keys());
    }
}
