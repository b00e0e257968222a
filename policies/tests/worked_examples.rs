//! The worked examples of the finance rules about hedges, allocation, attribution and ROI: inputs
//! and expected figures come from a file, the figures are computed by the rules.
//!
//! Two files have the same shape: `tests/golden/finance.json`, figures of this project made with
//! exact fractions, and `../shared/cases/finance.json`, which lies beside the project or does not.
//!
//! Not here: examples about prices (`finance_vectors`).

#[cfg(test)]
mod tests {
    use bursar_domain::{Currency, Label, Money, Timestamp};
    use bursar_policies::attribution::{
        self, Credits, Kind, Model, RevenueBook, RevenueEvent, Touch, ValueClass, attribute, decay_weight,
        in_window,
    };
    use bursar_policies::exact::{Decimal, Ratio, shares};
    use bursar_policies::hedge::analytics::{Series, reduction};
    use bursar_policies::hedge::calendar::parse_day;
    use bursar_policies::hedge::commitment::{Capacity, Lot, LotEvent, Lots, provisioned, take_or_pay};
    use bursar_policies::hedge::cost::{
        Bucket, CostReport, Cover, Leftover, Leg, Line, UnusedTo, Use, waterfall,
    };
    use bursar_policies::hedge::effectiveness::{
        DollarOffset, PassRange, correlation_for, dollar_offset, implied_rate, minimum_variance_ratio,
        variance_reduction, variance_reduction_for, volatility_reduction,
    };
    use bursar_policies::hedge::margin::{
        LimitKind, MarginRule, Margins, limit_use, price_band, variation_margin,
    };
    use bursar_policies::hedge::payoff::{Shape, Side, mean};
    use bursar_policies::hedge::position::Facets;
    use bursar_policies::hedge::profile::{Quality, Unit, lots_half_even, mtok_per_gpu_hour};
    use bursar_policies::hedge::risk::{MonthMark, realised_and_unrealised};
    use bursar_policies::roi::{self, Basis, Cost, Figure, Value as RoiValue};
    use serde_json::{Map, Value};
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    const USD: Currency = Currency::USD;

    // === reading ===

    fn text(value: &Value) -> String {
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }

    fn decimal(value: &Value) -> Decimal {
        Decimal::parse(&text(value)).unwrap()
    }

    fn ratio(value: &Value) -> Ratio {
        decimal(value).ratio()
    }

    fn fraction(value: &Value) -> Ratio {
        let text = text(value);
        let (over, under) = text.split_once('/').unwrap();
        Ratio::new(over.parse().unwrap(), under.parse().unwrap()).unwrap()
    }

    fn usd(value: &Value) -> Money {
        Money::parse(USD, &text(value)).unwrap()
    }

    fn list(value: &Value) -> &Vec<Value> {
        value.as_array().unwrap()
    }

    fn decimals(value: &Value) -> Vec<Decimal> {
        list(value).iter().map(decimal).collect()
    }

    fn map(value: &Value) -> &Map<String, Value> {
        value.as_object().unwrap()
    }

    fn label(text: &str) -> Label {
        Label::new(text).unwrap()
    }

    // === comparing ===

    /// The expected figure has as many decimals as the file wrote.
    #[track_caller]
    fn same(found: Ratio, expected: &Value) {
        let expected = text(expected);
        let places = expected.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        assert_eq!(found.text_half_even(u32::try_from(places).unwrap()).unwrap(), expected);
    }

    #[track_caller]
    fn same_money(found: Money, expected: &Value) {
        assert_eq!(found, usd(expected));
    }

    /// Exact: the expected text is the whole number, not a rounding of it.
    #[track_caller]
    fn exactly(found: Ratio, expected: &Value) {
        assert_eq!(found, ratio(expected), "{expected}");
    }

    fn settled(value: Ratio) -> Money {
        value.money_half_even(USD).unwrap()
    }

    fn of(money: Money) -> Ratio {
        Ratio::of(money)
    }

    // === units ===

    fn b1(i: &Value, e: &Value) {
        for (name, model) in map(&i["models"]) {
            let quality = Quality::new(decimal(&model["S"]), decimal(&i["S_ref"])).unwrap();
            let raw = ratio(&i["tokens_each"]).over(Ratio::whole(1_000_000)).unwrap();
            let price = ratio(&model["price_raw_per_M"]);
            let (sit, sit_price) = (quality.quantity(raw).unwrap(), quality.price(price).unwrap());
            same(quality.sit_per_token().unwrap(), &e[name]["sit_per_raw_token"]);
            same(sit_price, &e[name]["price_per_MSIT"]);
            same(sit, &e[name]["MSIT_for_1M_raw"]);
            exactly(sit.times(sit_price).unwrap(), &e[name]["cost_check_usd"]);
        }
    }

    fn b3(i: &Value, e: &Value) {
        let per_hour =
            mtok_per_gpu_hour(decimal(&i["output_tokens_per_s_per_gpu"]), decimal(&i["utilisation"]))
                .unwrap();
        exactly(per_hour, &e["Mtok_per_gpu_hour"]);
        same(ratio(&i["gpu_hour_usd"]).over(per_hour).unwrap(), &e["usd_per_Mtok"]);
        same(Ratio::whole(1_000).over(per_hour).unwrap(), &e["gpu_hours_for_1000_Mtok"]);
    }

    fn b4(i: &Value, e: &Value) {
        let hours = |mtok: &Value| ratio(mtok).over(ratio(&i["Mtok_per_gpu_hour"])).unwrap();
        let lots =
            |hours| lots_half_even(hours, ratio(&i["hedge_ratio"]), decimal(&i["lot_gpu_hours"])).unwrap();
        let (first, second) = (hours(&i["Mtok"]), hours(&i["second_case_Mtok"]));
        same(first, &e["hours"]);
        assert_eq!(lots(first).0.to_string(), text(&e["lots"]));
        same(second, &e["second_hours"]);
        assert_eq!(lots(second).0.to_string(), text(&e["second_lots"]));
        same(lots(second).1, &e["second_residual_hours"]);
    }

    fn b7(i: &Value, e: &Value) {
        let capacity = Capacity {
            units: decimal(&i["ptu"]),
            tokens_per_minute: decimal(&i["input_tpm_per_ptu"]),
            output_weight: decimal(&i["output_weight"]),
        };
        let used = (decimal(&i["input_tpm"]), decimal(&i["output_tpm"]));
        let found =
            provisioned(capacity, used, (decimal(&i["ptu_hour_usd"]), decimal(&i["hours"])), USD).unwrap();
        exactly(found.capacity, &e["capacity_tpm"]);
        exactly(found.weighted, &e["weighted_tpm"]);
        same(found.utilisation, &e["utilisation"]);
        same_money(found.taken.billed, &e["cost"]);
        same_money(found.taken.used, &e["used_cost"]);
        same_money(found.taken.unused, &e["idle_cost"]);
    }

    // === payoffs ===

    fn side(value: &Value) -> Side {
        match value.as_str() {
            Some("receive_fixed") => Side::Short,
            _ => Side::Long,
        }
    }

    fn c1_c2(i: &Value, e: &Value) {
        let floating = mean(&decimals(&i["fixings"])).unwrap();
        same(floating, &e["floating_avg"]);
        let notional = ratio(&i["notional_MSIT"]);
        let swap = Shape::Linear { fixed: decimal(&i["fixed"]) };
        let payoff = settled(swap.payoff(side(&i["side"]), notional, floating).unwrap());
        same_money(payoff, &e["settlement_usd"]);
        let Some(unit) = e.get("effective_unit_cost_if_spot_equals_index") else { return };
        let spot = settled(notional.times(floating).unwrap());
        let report = one_team(notional, spot, Cover::Cash { quantity: notional, payoff });
        exactly(of(effective(&report)).over(notional).unwrap(), unit);
    }

    /// A book of one team and one position.
    fn one_team(volume: Ratio, spot: Money, cover: Cover) -> CostReport {
        let uses = [Use {
            row: None,
            at: Timestamp::from_micros(0),
            id: 0,
            facets: Facets::team(label("team")),
            volume: volume.decimal_half_even(12).unwrap(),
            spot,
        }];
        let legs = [Leg::plain(label("position"), cover, USD)];
        waterfall(&uses, &legs, Vec::new(), (USD, Unit::Msit)).unwrap()
    }

    fn effective(report: &CostReport) -> Money {
        report.rows[&label("team")].lines.effective().unwrap()
    }

    fn c4(i: &Value, e: &Value) {
        let size = (decimal(&i["lots"]), decimal(&i["multiplier"]));
        let flows =
            variation_margin(Side::Long, size, decimal(&i["entry"]), &decimals(&i["settlements"]), USD)
                .unwrap();
        assert_eq!(flows, list(&e["daily_vm"]).iter().map(usd).collect::<Vec<_>>());
        same_money(bursar_policies::exact::sum(USD, flows).unwrap(), &e["sum"]);
    }

    fn c5(i: &Value, e: &Value) {
        let (entry, settle) = (decimal(&i["entry"]), decimal(&i["settle"]));
        let notional = decimal(&i["lots"]).times(entry).unwrap();
        exactly(notional, &e["notional"]);
        let rule = MarginRule { alpha: decimal(&i["alpha"]), ..MarginRule::token_future().unwrap() };
        let (sigma, years) = (decimal(&i["sigma20"]), fraction(&i["T_years"]));
        same(rule.volatility_part(sigma, years).unwrap().ratio(), &e["model_pct"]);
        let margins = rule.margins(notional, sigma, years, USD).unwrap();
        same_money(margins.initial, &e["IM"]);
        same_money(margins.maintenance, &e["MM"]);
        let future = Shape::Linear { fixed: entry };
        same_money(settled(future.payoff(Side::Long, ratio(&i["lots"]), settle.ratio()).unwrap()), &e["pnl"]);
        for (part, key) in [("0.15", "limit1"), ("0.25", "limit2")] {
            let (low, high) = price_band(entry, Decimal::parse(part).unwrap()).unwrap();
            exactly(low, &e[key][0]);
            exactly(high, &e[key][1]);
        }
        let moved = settle.minus(entry).unwrap().over(entry).unwrap().times(Ratio::whole(100)).unwrap();
        exactly(moved, &e["move_pct"]);
    }

    fn c6(i: &Value, e: &Value) {
        let margins = Margins { initial: usd(&i["IM"]), maintenance: usd(&i["MM"]) };
        let flows: Vec<Money> = list(&i["vm"]).iter().map(usd).collect();
        let days = margins.run(usd(&i["start_equity"]), &flows).unwrap();
        let rows = list(&e["rows_vm_call_equity"]);
        assert_eq!(days.len(), rows.len());
        for (day, row) in days.iter().zip(rows) {
            assert_eq!([day.flow, day.call, day.equity], [0, 1, 2].map(|column| usd(&row[column])));
        }
    }

    fn c8(i: &Value, e: &Value) {
        let quantity = ratio(&i["qty"]);
        let collar = Shape::Collar { cap: decimal(&i["cap"]), floor: decimal(&i["floor"]) };
        for (index, settle) in list(&i["settles"]).iter().enumerate() {
            let payoff = settled(collar.payoff(Side::Long, quantity, ratio(settle)).unwrap());
            same_money(payoff, &e["payoffs"][index]);
            let spot = settled(quantity.times(ratio(settle)).unwrap());
            let report = one_team(quantity, spot, Cover::Cash { quantity, payoff });
            exactly(of(effective(&report)).over(quantity).unwrap(), &e["effective_unit"][index]);
        }
    }

    fn c9(i: &Value, e: &Value) {
        let (quantity, consumed) = (ratio(&i["hedged"]), ratio(&i["consumed"]));
        let swap = Shape::Linear { fixed: decimal(&i["fixed"]) };
        let payoff = settled(swap.payoff(Side::Long, quantity, ratio(&i["settle"])).unwrap());
        let report = one_team(consumed, Money::zero(USD), Cover::Cash { quantity, payoff });
        let leg = &report.legs[0];
        same_money(leg.payoff, &e["total"]);
        same_money(leg.effective, &e["effective"]);
        same_money(leg.over_hedge, &e["over_hedge"]);
        assert_eq!(report.residual.get(Line::Payoff), leg.over_hedge);
        exactly(leg.over, &e["over_hedged_units"]);
        same(quantity.over(consumed).unwrap(), &e["hedge_ratio"]);
    }

    fn c11(i: &Value, e: &Value) {
        let (quantity, consumed) = (ratio(&i["hedged"]), ratio(&i["consumed"]));
        let (settle, own) = (ratio(&i["settle"]), ratio(&i["own_avg_price"]));
        let swap = Shape::Linear { fixed: decimal(&i["fixed"]) };
        let payoff = settled(swap.payoff(Side::Long, quantity, settle).unwrap());
        same_money(payoff, &e["payoff"]);
        let spot = settled(consumed.times(own).unwrap());
        same_money(spot, &e["spot"]);
        let report = one_team(consumed, spot, Cover::Cash { quantity, payoff });
        same_money(effective(&report), &e["effective"]);
        same(of(effective(&report)).over(consumed).unwrap(), &e["unit"]);
        exactly(own.minus(settle).unwrap(), &e["basis_per_unit"]);
    }

    fn units(quantity: Ratio, price: Ratio) -> Cover {
        let (from, until) = (Timestamp::from_micros(i64::MIN), Timestamp::from_micros(i64::MAX));
        let buckets = vec![Bucket { from, until, quantity }];
        Cover::Units { buckets, price, overage: None, leftover: Leftover::Lapses }
    }

    fn c13(i: &Value, e: &Value) {
        let (committed, fixed, spot) = (ratio(&i["committed_Mtok"]), ratio(&i["fixed"]), ratio(&i["spot"]));
        let book = |consumed: Ratio| {
            one_team(consumed, settled(consumed.times(spot).unwrap()), units(committed, fixed))
        };
        let report = book(ratio(&i["consumed_Mtok"]));
        let leg = &report.legs[0];
        same_money(leg.used, &e["used_cost"]);
        same_money(leg.unused, &e["unused_cost"]);
        let cost = report.book.effective().unwrap();
        same_money(cost, &e["effective"]);
        same_money(report.book.get(Line::Spot), &e["spot_equivalent"]);
        same_money(report.book.get(Line::Spot).checked_sub(cost).unwrap(), &e["benefit"]);
        let second = book(ratio(&i["second_consumed_Mtok"]));
        same_money(second.book.effective().unwrap(), &e["second_effective"]);
    }

    fn c15(i: &Value, e: &Value) {
        let marks = |rows: &Value, price: &str| -> Vec<MonthMark> {
            let mark = |row: &Value| MonthMark {
                month: bursar_policies::hedge::calendar::Month::parse(row["month"].as_str().unwrap())
                    .unwrap(),
                units: ratio(&row["qty"]),
                price: ratio(&row[price]),
            };
            list(rows).iter().map(mark).collect()
        };
        let (settled_months, open) = (marks(&i["settled"], "avg"), marks(&i["open"], "mark"));
        let (realised, unrealised) =
            realised_and_unrealised(side(&i["side"]), decimal(&i["fixed"]), &settled_months, &open).unwrap();
        same_money(settled(realised), &e["realised"]);
        same_money(settled(unrealised), &e["unrealised"]);
    }

    fn c17(i: &Value, e: &Value) {
        let implied =
            |key: &str| implied_rate(decimal(&i["cny_per_M"][key]), decimal(&i["usd_per_M"][key])).unwrap();
        same(implied("cache_miss"), &e["implied_cache_miss"]);
        same(implied("output"), &e["implied_output"]);
    }

    fn c19(i: &Value, e: &Value) {
        let h = minimum_variance_ratio(decimal(&i["rho"]), decimal(&i["sigma_S"]), decimal(&i["sigma_F"]))
            .unwrap();
        exactly(h, &e["h"]);
        let (lots, _) =
            lots_half_even(ratio(&i["exposure_gpu_hours"]), h, decimal(&i["multiplier"])).unwrap();
        assert_eq!(lots.to_string(), text(&e["lots"]));
        exactly(variance_reduction(decimal(&i["rho"])).unwrap(), &e["E"]);
    }

    fn c20(i: &Value, e: &Value) {
        let warn = decimal(&i["warn_at"]);
        let used = |lots: &str, limit: &str, kind| {
            limit_use(decimal(&i[lots]), decimal(&i[limit]), kind, warn).unwrap()
        };
        let (spot, status) = used("net_lots", "spot_month_limit", LimitKind::Limit);
        exactly(spot, &e["spot_usage"]);
        assert_eq!(status.name(), text(&e["spot_status"]));
        let (all, status) = used("all_month_net", "all_month_accountability", LimitKind::Accountability);
        same(all, &e["all_month_usage"]);
        assert_eq!(status.name(), text(&e["all_month_status"]));
        let lots = ratio(&i["net_lots"]).abs().unwrap();
        assert_eq!(lots >= ratio(&i["reportable"]), e["reportable"].as_bool().unwrap());
    }

    fn c22(i: &Value, e: &Value) {
        let quantity = ratio(&i["qty"]);
        let binary = Shape::Binary { strike: decimal(&i["strike"]) };
        let premium = settled(quantity.times(ratio(&i["price_paid"])).unwrap());
        let net = |settle: Ratio| {
            let payoff = settled(binary.payoff(Side::Long, quantity, settle).unwrap());
            let mut leg = Leg::plain(label("event"), Cover::Uncounted { payoff }, USD);
            leg.premium = premium;
            let report = waterfall(&[], &[leg], Vec::new(), (USD, Unit::GpuHour)).unwrap();
            assert_eq!(report.legs[0].covered, Ratio::ZERO);
            (payoff, of(report.residual.effective().unwrap()).negated().unwrap())
        };
        let (payoff, gain) = net(ratio(&i["monthly_avg"]));
        same_money(payoff, &e["payoff"]);
        exactly(gain, &e["net"]);
        exactly(net(ratio(&i["strike"])).1, &e["if_avg_equals_strike"]);
    }

    fn c23(i: &Value, e: &Value) {
        let locked = ratio(&i["locked"]);
        same_money(settled(ratio(&i["tokens_Mtok"]).times(locked).unwrap()), &e["paid"]);
        let (mut redeemed, mut paid) = (Ratio::ZERO, Ratio::ZERO);
        for (index, row) in list(&i["redeemed"]).iter().enumerate() {
            let quantity = ratio(&row["Mtok"]);
            let spot = settled(quantity.times(ratio(&row["spot"])).unwrap());
            let report = one_team(quantity, spot, units(quantity, locked));
            same_money(report.book.benefit().unwrap(), &e["benefit"][index]);
            redeemed = redeemed.plus(quantity).unwrap();
            paid = paid.plus(of(effective(&report))).unwrap();
        }
        let lapsed = one_team(Ratio::ZERO, Money::zero(USD), units(ratio(&i["expired_Mtok"]), locked));
        same_money(lapsed.legs[0].unused, &e["unused"]);
        let whole = paid.plus(of(lapsed.legs[0].unused)).unwrap();
        same(whole.over(redeemed).unwrap(), &e["effective_unit_on_redeemed"]);
    }

    // === commitments ===

    fn d2(i: &Value, e: &Value) {
        let (committed, price, used) =
            (ratio(&i["commit_gpu_hours"]), ratio(&i["price"]), ratio(&i["used_gpu_hours"]));
        let taken = take_or_pay(committed, price, used, USD).unwrap();
        same_money(taken.used, &e["used"]);
        same_money(taken.unused, &e["unused"]);
        same_money(taken.billed, &e["billed"]);
        exactly(used.over(committed).unwrap(), &e["utilisation"]);
        exactly(of(taken.billed).over(used).unwrap(), &e["effective_per_used_hour"]);
    }

    fn d3(i: &Value, e: &Value) {
        let prices = decimals(&i["prices_per_M"]);
        let list_cost = |tokens: &Value, price: Decimal| {
            settled(ratio(tokens).times(price.ratio()).unwrap().over(Ratio::whole(1_000_000)).unwrap())
        };
        let used = |name: &str, spot| Use {
            row: None,
            at: Timestamp::from_micros(0),
            id: 0,
            facets: Facets::team(label(name)),
            volume: Decimal::ONE,
            spot,
        };
        let (input, output) =
            (list_cost(&i["input_tokens"], prices[0]), list_cost(&i["output_tokens"], prices[1]));
        same_money(input, &e["list_input"]);
        same_money(output, &e["list_output"]);
        let balance = usd(&i["purchase"]);
        let cover = Cover::Pool { balance, benefit: ratio(&i["benefit"]), leftover: Leftover::Stays };
        let uses = [used("input", input), used("output", output)];
        let legs = [Leg::plain(label("credit"), cover, USD)];
        let report = waterfall(&uses, &legs, Vec::new(), (USD, Unit::Mtok)).unwrap();
        for (name, key) in [("input", "effective_input"), ("output", "effective_output")] {
            same_money(report.rows[&label(name)].lines.effective().unwrap(), &e[key]);
        }
        same_money(balance.checked_sub(report.legs[0].used).unwrap(), &e["balance"]);
    }

    fn d5(i: &Value, e: &Value) {
        let lots = list(&i["lots"]).iter().map(|lot| Lot {
            id: label(lot["id"].as_str().unwrap()),
            balance: usd(&lot["usd"]),
            expires: Some(parse_day(lot["expires"].as_str().unwrap()).unwrap()),
        });
        let mut lots = Lots::new(lots.collect());
        let (mut log, mut breakage) = (Vec::new(), Money::zero(USD));
        for used in list(&i["use"]) {
            let (events, open) =
                lots.draw(parse_day(used[0].as_str().unwrap()).unwrap(), usd(&used[1])).unwrap();
            assert_eq!(open, Money::zero(USD));
            for event in events {
                let (date, lot, amount) = match event {
                    LotEvent::Drawn { date, lot, amount } => (date.to_string(), lot, amount),
                    LotEvent::Expired { lot, amount, .. } => {
                        breakage = breakage.checked_add(amount).unwrap();
                        ("expire".to_owned(), lot, amount)
                    }
                };
                log.push((date, lot.to_string(), amount));
            }
        }
        let expected = list(&e["log"]).iter().map(|row| (text(&row[0]), text(&row[1]), usd(&row[2])));
        assert_eq!(log, expected.collect::<Vec<_>>());
        same_money(breakage, &e["breakage"]);
        same_money(lots.lots().last().unwrap().balance, &e["balance_L2"]);
    }

    // === allocation ===

    fn e1(i: &Value, e: &Value) {
        for (case, names) in [
            ("case1", ["a", "b", "c"]),
            ("case2", ["a", "b", "c"]),
            ("case3", ["a", "b", ""]),
            ("case4", ["alpha", "beta", "gamma"]),
        ] {
            let weights = list(&i[case]["weights"]).iter().map(ratio);
            let weights: BTreeMap<&str, Ratio> = names.into_iter().zip(weights).collect();
            let found = shares(usd(&i[case]["total"]), &weights).unwrap();
            let expected = e[case].get("shares").unwrap_or(&e[case]);
            for (name, part) in found.parts {
                same_money(part, &expected[name]);
            }
            let residual = e[case].get("residual").map_or(Money::zero(USD), usd);
            assert_eq!(found.residual, residual, "{case}");
        }
    }

    fn e3(i: &Value, e: &Value) {
        let uses: Vec<Use> = map(&i["spot_usd"])
            .iter()
            .map(|(team, spot)| Use {
                row: None,
                at: Timestamp::from_micros(0),
                id: 0,
                facets: Facets::team(label(team)),
                volume: decimal(&i["hedge_units"][team]),
                spot: usd(spot),
            })
            .collect();
        let quantity = ratio(&i["hedged"]);
        let swap = Shape::Linear { fixed: decimal(&i["fixed"]) };
        let payoff = settled(swap.payoff(Side::Long, quantity, ratio(&i["settle"])).unwrap());
        same_money(payoff, &e["payoff_total"]);
        let mut hedge = Leg::plain(label("swap"), Cover::Cash { quantity, payoff }, USD);
        hedge.premium = usd(&i["premium"]);
        hedge.fees = usd(&i["fees"]);
        let mut legs = vec![hedge];
        for (team, unused) in map(&i["unused_commitment"]) {
            let mut leg = Leg::plain(label(&format!("reservation-{team}")), Cover::Nothing, USD);
            leg.unused = usd(unused);
            leg.unused_to = UnusedTo::Owner(label(team));
            legs.push(leg);
        }
        let report = waterfall(&uses, &legs, Vec::new(), (USD, Unit::Msit)).unwrap();
        for (team, row) in &report.rows {
            let team = team.as_str();
            same_money(row.lines.get(Line::Spot), &e["spot"][team]);
            same_money(row.lines.get(Line::Payoff), &e["payoff_effective"][team]);
            same_money(row.lines.get(Line::Premium), &e["premium"][team]);
            same_money(row.lines.get(Line::Fees), &e["fees"][team]);
            same_money(row.lines.effective().unwrap(), &e["effective_cost"][team]);
        }
        same_money(report.residual.effective().unwrap(), &e["residual_over_hedge"]);
        same_money(report.book.effective().unwrap(), &e["book_total"]);
        same_money(report.book.get(Line::Spot), &e["spot_total"]);
        report.check().unwrap();
    }

    // === effectiveness ===

    fn f1(i: &Value, e: &Value) {
        for (case, expected) in list(&i["cases"]).iter().zip(list(&e["results"])) {
            let found =
                dollar_offset(usd(&case["d_hedge"]), usd(&case["d_item"]), PassRange::usual().unwrap())
                    .unwrap();
            match found {
                DollarOffset::Ratio { ratio, pass } => {
                    same(ratio, &expected["ratio"]);
                    assert_eq!(Some(pass), expected["pass_"].as_bool());
                }
                DollarOffset::ItemUnchanged => {
                    assert!(expected["ratio"].is_null() && expected["pass_"].is_null());
                }
            }
        }
    }

    fn f4(i: &Value, e: &Value) {
        let series = |key: &str| Series::of(&decimals(&i[key]));
        let found = reduction(&series("unhedged_monthly_cost"), &series("hedged_monthly_cost")).unwrap();
        for (figure, key) in [
            (found.unhedged_variance, "var_unhedged"),
            (found.hedged_variance, "var_hedged"),
            (found.variance, "var_reduction"),
            (found.volatility, "vol_reduction"),
        ] {
            assert_eq!(format!("{figure:.8}"), text(&e[key]), "{key}");
        }
    }

    fn f5(i: &Value, e: &Value) {
        for (index, part) in list(&i["E"]).iter().enumerate() {
            same(volatility_reduction(ratio(part)).unwrap(), &e["vol_reduction"][index]);
        }
        for (index, target) in list(&i["target_vol_reduction"]).iter().enumerate() {
            same(correlation_for(decimal(target)).unwrap().ratio(), &e["rho_for_target"][index]);
            same(variance_reduction_for(decimal(target)).unwrap(), &e["E_for_target"][index]);
        }
        let (without, with) = (decimal(&i["paper_sd"][0]), decimal(&i["paper_sd"][1]));
        let reduced = Ratio::ONE.minus(with.over(without).unwrap()).unwrap();
        same(reduced, &e["paper_vol_reduction"]);
        let reduced = variance_reduction_for(reduced.decimal_half_even(12).unwrap()).unwrap();
        same(reduced, &e["paper_var_reduction"]);
    }

    // === attribution ===

    const DAY_MICROS: u64 = 86_400_000_000;

    /// Microseconds of a number of days with decimals.
    fn days(value: &Value) -> u64 {
        let micros = ratio(value).scaled_half_even(u128::from(DAY_MICROS)).unwrap();
        u64::try_from(micros).unwrap()
    }

    fn touch(workload: &str, at: Timestamp) -> Touch {
        Touch { workload: label(workload), at, id: 0, session: None }
    }

    fn instant(text: &str) -> Timestamp {
        Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    /// The touches of the first example, which others refer to.
    fn named_touches(file: &Value) -> Vec<Touch> {
        let first = list(&file["vectors"]).iter().find(|vector| vector["id"] == "G1").unwrap();
        let rows = list(&first["inputs"]["touches"]);
        rows.iter().map(|row| touch(row[0].as_str().unwrap(), instant(row[1].as_str().unwrap()))).collect()
    }

    #[track_caller]
    fn credits(amount: Money, model: &Model, touches: &[Touch], at: Timestamp, expected: &Value) -> Credits {
        let found = attribute(amount, model, touches, at).unwrap().credits;
        for (workload, part) in &found.parts {
            same_money(*part, &expected[workload.as_str()]);
        }
        assert_eq!(found.parts.len(), map(expected).len());
        assert_eq!(found.unattributed, Money::zero(USD));
        found
    }

    const LATER: Timestamp = Timestamp::from_micros(i64::MAX / 2);

    fn touch_model(model: &Model, touches: &[Touch], i: &Value, e: &Value) {
        let count = if model == &Model::Linear { 3 } else { touches.len() };
        credits(usd(&i["revenue"]), model, &touches[..count], LATER, e);
    }

    /// Touches some days before an event.
    fn aged(ages: &Value) -> Vec<Touch> {
        let at = |age: &Value| LATER.micros() - i64::try_from(days(age)).unwrap();
        map(ages).iter().map(|(name, age)| touch(name, Timestamp::from_micros(at(age)))).collect()
    }

    fn g5(i: &Value, e: &Value) {
        let half_life_micros = days(&i["half_life_days"]);
        for (workload, age) in map(&i["age_days"]) {
            let weight = decay_weight(days(age), half_life_micros);
            assert_eq!(Some(weight), e["int_weights"][workload].as_u64(), "{workload}");
        }
        let model = Model::TimeDecay { half_life_micros };
        credits(usd(&i["revenue"]), &model, &aged(&i["age_days"]), LATER, &e["credit"]);
    }

    /// So many touches, one after the other.
    fn chain(count: i64) -> Vec<Touch> {
        (1..=count).map(|n| touch(&format!("w{n}"), Timestamp::from_micros(n))).collect()
    }

    fn g6(i: &Value, e: &Value) {
        for count in list(&i["n"]) {
            let touches = chain(count.as_i64().unwrap());
            credits(usd(&i["revenue"]), &Model::Position, &touches, LATER, &e[count.to_string()]);
        }
    }

    fn g7(i: &Value, e: &Value) {
        let mut players = BTreeSet::new();
        let mut value = BTreeMap::new();
        for (names, worth) in map(&i["v"]) {
            let members: BTreeSet<Label> = names.split('+').filter(|name| *name != "0").map(label).collect();
            players.extend(members.iter().cloned());
            value.insert(members, ratio(worth));
        }
        let phi = attribution::shapley(&players, &value).unwrap();
        for (player, share) in &phi {
            same(*share, &e["phi"][player.as_str()]);
        }
        exactly(Ratio::sum(phi.values().copied()).unwrap(), &e["sum"]);
        let touches: Vec<Touch> = players.iter().map(|player| touch(player.as_str(), LATER)).collect();
        let amount = Money::parse(USD, "1000").unwrap();
        credits(amount, &Model::Shapley(phi), &touches, LATER, &e["credit_of_1000"]);
    }

    fn g9(i: &Value, e: &Value) {
        let window = days(&i["window_days"]);
        let mut touches = aged(&i["age_days"]);
        touches.push(touch("after", LATER.plus_micros(1)));
        let mut inside = in_window(touches, LATER, window);
        inside.sort_by(|a, b| a.workload.cmp(&b.workload));
        let names: Vec<&str> = inside.iter().map(|touch| touch.workload.as_str()).collect();
        assert_eq!(
            names,
            list(&e["in_window"]).iter().map(|name| name.as_str().unwrap()).collect::<Vec<_>>()
        );
        credits(usd(&i["revenue"]), &Model::Linear, &inside, LATER, &e["credit"]);
    }

    fn event(id: &str, kind: Kind, amount: Money, refers_to: Option<&str>) -> RevenueEvent {
        let (source, at) = (label("shop"), Timestamp::from_micros(0));
        RevenueEvent { id: label(id), source, kind, amount, at, refers_to: refers_to.map(label) }
    }

    fn g10(i: &Value, e: &Value) {
        let touches = chain(i64::try_from(map(&e["original"]).len()).unwrap());
        let mut book = RevenueBook::new(USD);
        let sale = event("sale", Kind::Revenue, usd(&i["original"]), None);
        let share = |amount| Ok(credits(amount, &Model::Position, &touches, LATER, &e["original"]));
        book.book(sale, Decimal::ONE, share).unwrap();
        let refund = event("refund", Kind::Refund, usd(&i["refund"]), Some("sale"));
        let booking = book.book(refund, Decimal::ONE, |_| panic!("never modelled anew")).unwrap();
        for (workload, part) in &booking.credits.parts {
            same_money(*part, &e["reversal"][workload.as_str()]);
        }
        for (workload, part) in book.net(ValueClass::Revenue).unwrap().parts {
            same_money(part, &e["net"][workload.as_str()]);
        }
    }

    fn g12(i: &Value, e: &Value) {
        let currency = Currency::parse(i["ccy"].as_str().unwrap()).unwrap();
        let amount = |value: &Value| Money::parse(currency, &text(value)).unwrap();
        let mut book = RevenueBook::new(USD);
        let all = |amount| Ok(Credits { parts: BTreeMap::new(), unattributed: amount });
        let sale = event("sale", Kind::Revenue, amount(&i["amount"]), None);
        let rate = decimal(&i["usd_per_eur"]);
        same_money(book.book(sale, rate, all).unwrap().amount, &e["usd"]);
        let refund = event("refund", Kind::Refund, amount(&i["refund"]), Some("sale"));
        let booking = book.book(refund, decimal(&i["rate_at_refund"]), all).unwrap();
        same_money(booking.amount, &e["refund_original_rate"]);
        same_money(booking.fx_difference, &e["fx_difference"]);
        let now = booking.amount.checked_add(booking.fx_difference).unwrap();
        same_money(now, &e["refund_settlement_rate"]);
    }

    // === ROI ===

    #[track_caller]
    fn figure(found: Figure, expected: &Value) {
        match found {
            Figure::Of(ratio) => same(ratio, expected),
            _ => assert!(expected.is_null(), "{found:?} for {expected}"),
        }
    }

    fn h1(i: &Value, e: &Value) {
        let basis = Basis {
            revenue: usd(&i["revenue"]),
            savings: usd(&i["savings"]),
            spot: usd(&i["spot_cost"]),
            effective: usd(&i["effective_cost"]),
            tokens: text(&i["tokens"]).parse().unwrap(),
        };
        let both = RoiValue::WithSavings;
        figure(basis.cost_per_million(Cost::Spot).unwrap(), &e["cost_per_M_spot"]);
        figure(basis.cost_per_million(Cost::Effective).unwrap(), &e["cost_per_M_effective"]);
        figure(basis.roi(both, Cost::Spot).unwrap(), &e["roi_spot"]);
        figure(basis.roi(both, Cost::Effective).unwrap(), &e["roi_effective"]);
        figure(basis.net_per_million(both, Cost::Spot).unwrap(), &e["net_per_M_spot"]);
        let net = basis.net_per_million(both, Cost::Effective).unwrap();
        figure(net, &e["net_per_M_effective"]);
        let Figure::Of(net) = net else { panic!("{net:?}") };
        same(net.over(Ratio::whole(1_000)).unwrap(), &e["net_per_1k_effective"]);
        same_money(basis.uplift().unwrap(), &e["hedge_uplift_usd"]);
        figure(basis.gross_margin(Cost::Effective).unwrap(), &e["gross_margin_effective_revenue_only"]);
        figure(basis.roi(RoiValue::Revenue, Cost::Effective).unwrap(), &e["roi_revenue_only"]);
    }

    fn h2(i: &Value, e: &Value) {
        for (index, case) in list(&i["cases"]).iter().enumerate() {
            let found = roi::roi(usd(&case["value"]), usd(&case["cost"])).unwrap();
            figure(found, &e["roi"][index]);
            let flag = match case.get("tokens") {
                Some(tokens) => {
                    let net = usd(&case["value"]).checked_sub(usd(&case["cost"])).unwrap();
                    roi::per_million(net, text(tokens).parse().unwrap()).unwrap().flag()
                }
                None => found.flag(),
            };
            assert_eq!(flag, text(&e["flags"][index]));
        }
    }

    fn h4(i: &Value, e: &Value) {
        let cost = usd(&i["effective_cost"]);
        let per = |key: &str| roi::per_outcome(cost, i[key].as_u64().unwrap()).unwrap();
        figure(per("attempts"), &e["cost_per_attempt"]);
        figure(per("successes"), &e["cost_per_success"]);
    }

    // === files ===

    /// Runs every example of a file; those about prices are left to `finance_vectors`.
    fn run(file: &Value) -> usize {
        let touches = named_touches(file);
        let vectors = list(&file["vectors"]);
        for vector in vectors {
            let (i, e) = (&vector["inputs"], &vector["expected"]);
            let id = vector["id"].as_str().unwrap();
            println!("{id}: {}", vector["name"].as_str().unwrap());
            match id {
                "A1" | "A2" => {}
                "B1" => b1(i, e),
                "B3" => b3(i, e),
                "B4" => b4(i, e),
                "B7" => b7(i, e),
                "C1" | "C2" => c1_c2(i, e),
                "C4" => c4(i, e),
                "C5" => c5(i, e),
                "C6" => c6(i, e),
                "C8" => c8(i, e),
                "C9" => c9(i, e),
                "C11" => c11(i, e),
                "C13" => c13(i, e),
                "C15" => c15(i, e),
                "C17" => c17(i, e),
                "C19" => c19(i, e),
                "C20" => c20(i, e),
                "C22" => c22(i, e),
                "C23" => c23(i, e),
                "D2" => d2(i, e),
                "D3" => d3(i, e),
                "D5" => d5(i, e),
                "E1" => e1(i, e),
                "E3" => e3(i, e),
                "F1" => f1(i, e),
                "F4" => f4(i, e),
                "F5" => f5(i, e),
                "G1" => touch_model(&Model::First, &touches, i, e),
                "G2" => touch_model(&Model::Last, &touches, i, e),
                "G3" => touch_model(&Model::Linear, &touches, i, e),
                "G5" => g5(i, e),
                "G6" => g6(i, e),
                "G7" => g7(i, e),
                "G9" => g9(i, e),
                "G10" => g10(i, e),
                "G12" => g12(i, e),
                "H1" => h1(i, e),
                "H2" => h2(i, e),
                "H4" => h4(i, e),
                other => panic!("no rule is known for example {other}"),
            }
        }
        vectors.len()
    }

    fn read(path: &Path) -> Option<Value> {
        let text = std::fs::read_to_string(path).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn the_examples_of_this_project_hold() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/finance.json");
        assert_eq!(run(&read(&path).unwrap()), 39);
    }

    #[test]
    fn the_shared_examples_hold_where_they_are() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases/finance.json");
        match read(&path) {
            Some(file) => assert_eq!(Some(run(&file)), file["count"].as_u64().map(|count| count as usize)),
            None => println!("skipped: {} is not there; this project's own examples ran", path.display()),
        }
    }
}
