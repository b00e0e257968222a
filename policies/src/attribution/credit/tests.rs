//! The compact attribution against the reference for single events, and what it adds: rows.

use super::super::model::{Model, attribute};
use super::super::resolve::{Touch, collapse, in_window};
use super::super::revenue::{Kind, RevenueBook, RevenueEvent};
use super::*;
use crate::exact::Decimal;
use bursar_domain::Label;
use proptest::prelude::*;

const PLAYERS: [&str; 4] = ["a", "b", "c", "d"];

fn usd(text: &str) -> Money {
    Money::parse(Currency::USD, text).unwrap()
}

fn rules() -> [(Rule, Model); 7] {
    let values = [3_u128, 0, 5, 1];
    let shapley = PLAYERS
        .iter()
        .zip(values)
        .map(|(name, value)| (Label::fixed(name), Ratio::whole(i128::try_from(value).unwrap())));
    let markov =
        PLAYERS.iter().zip(values).map(|(name, value)| (Label::fixed(name), u64::try_from(value).unwrap()));
    let half_life_micros = 7;
    [
        (Rule::First, Model::First),
        (Rule::Last, Model::Last),
        (Rule::Linear, Model::Linear),
        (Rule::TimeDecay { half_life_micros }, Model::TimeDecay { half_life_micros }),
        (Rule::Position, Model::Position),
        (Rule::ByPlayer(values.to_vec()), Model::Shapley(shapley.collect())),
        (Rule::ByPlayer(values.to_vec()), Model::Markov(markov.collect())),
    ]
}

type Spec = (i64, usize, u32, u32);

fn contacts(specs: &[Spec]) -> Vec<Contact> {
    let of = |(id, (at, player, leaf, session)): (usize, &Spec)| {
        let player = u32::try_from(*player).unwrap();
        Contact::new(Timestamp::from_micros(*at), id as u128, player, *leaf, *session)
    };
    specs.iter().enumerate().map(of).collect()
}

fn touches(specs: &[Spec]) -> Vec<Touch> {
    let of = |(id, (at, player, _, session)): (usize, &Spec)| Touch {
        workload: Label::fixed(PLAYERS[*player]),
        at: Timestamp::from_micros(*at),
        id: id as u128,
        session: (*session > 0).then(|| Label::new(&session.to_string()).unwrap()),
    };
    specs.iter().enumerate().map(of).collect()
}

fn by_player(parts: &Parts) -> BTreeMap<Label, Money> {
    let sum = |leaves: &BTreeMap<u32, Money>| {
        leaves.values().fold(usd("0"), |sum, part| sum.checked_add(*part).unwrap())
    };
    parts.by_player.iter().map(|(p, leaves)| (Label::fixed(PLAYERS[*p as usize]), sum(leaves))).collect()
}

fn spec() -> impl Strategy<Value = Spec> {
    (0_i64..60, 0_usize..4, 0_u32..3, 0_u32..4)
}

proptest! {
    #[test]
    fn credits_are_those_of_the_reference_and_sum_to_the_amount(
        specs in proptest::collection::vec(spec(), 0..12), cents in 0_i128..1_000_000, window in 0_u64..80,
    ) {
        let at = Timestamp::from_micros(50);
        let amount = Money::from_pico(Currency::USD, cents * 10_000_000_000);
        let all = Contacts::new(contacts(&specs));
        let found = all.window(at, window);
        let touches = collapse(in_window(touches(&specs), at, window));
        prop_assert_eq!(found.kept().count(), touches.len());
        for (rule, model) in rules() {
            let parts = credit(amount, &rule, found, at).unwrap();
            let expected = attribute(amount, &model, &touches, at).unwrap().credits;
            prop_assert_eq!(parts.total().unwrap(), amount);
            prop_assert_eq!(parts.unattributed, expected.unattributed);
            let mut expected = expected.parts;
            // The reference names touches of no weight, too.
            let mine = by_player(&parts);
            expected.retain(|name, part| part.pico() != 0 || mine.contains_key(name));
            prop_assert_eq!(mine, expected, "{}", model.name());
        }
    }

    #[test]
    fn refunds_are_those_of_the_reference_and_leave_nothing_in_the_end(
        specs in proptest::collection::vec(spec(), 0..8),
        cents in 1_i128..1_000_000,
        parts in proptest::collection::vec(1_i128..1_000_000, 0..5),
        rate in 1_u32..30_000,
    ) {
        let at = Timestamp::from_micros(50);
        let eur = Currency::parse("EUR").unwrap();
        let amount = Money::from_pico(eur, cents * 10_000_000_000);
        let rate = Decimal::parse(&format!("{}.{:04}", rate / 10_000, rate % 10_000)).unwrap();
        let all = Contacts::new(contacts(&specs));
        let window = all.window(at, 80);
        let converted = in_currency(amount, rate.ratio(), Currency::USD).unwrap();
        let first = credit(converted, &Rule::Linear, window, at).unwrap();
        let mut sums = first.clone();
        let mut given = Given::new(amount, rate.ratio(), first);
        let mut book = RevenueBook::new(Currency::USD);
        let event = |id: String, kind, amount, refers_to| RevenueEvent {
            id: Label::new(&id).unwrap(), source: Label::fixed("s"), kind, amount, at, refers_to,
        };
        let touches = collapse(in_window(touches(&specs), at, 80));
        let sale = event("sale".to_owned(), Kind::Revenue, amount, None);
        book.book(sale, rate, |amount| Ok(attribute(amount, &Model::Linear, &touches, at)?.credits)).unwrap();
        let mut left = amount.pico();
        let mut refunds: Vec<i128> = parts.iter().map(|part| part * 10_000_000_000).collect();
        refunds.push(i128::MAX);
        for (number, refund) in refunds.into_iter().enumerate() {
            let refund = refund.min(left);
            if refund == 0 { continue; }
            left -= refund;
            let taken = Money::from_pico(eur, -refund);
            let found = given.take_back(taken, Some(rate.ratio())).unwrap();
            let kind = Kind::Refund;
            let refers_to = Some(Label::fixed("sale"));
            let event = event(number.to_string(), kind, taken, refers_to);
            let booked = book.book(event, rate, |_| panic!("not shared anew")).unwrap();
            prop_assert_eq!((found.amount, found.fx_difference), (booked.amount, Some(booked.fx_difference)));
            prop_assert_eq!(found.parts.unattributed, booked.credits.unattributed);
            prop_assert_eq!(by_player(&found.parts), booked.credits.parts.clone());
            sums.add(&found.parts).unwrap();
            for part in sums.by_player.values().flat_map(BTreeMap::values) {
                prop_assert!(part.pico() >= 0, "nobody is taken more than it was given");
            }
        }
        prop_assert!(sums.by_player.values().flat_map(BTreeMap::values).all(|part| part.pico() == 0));
        prop_assert_eq!(sums.unattributed.pico(), 0);
    }
}

#[test]
fn rows_divide_a_workload_and_the_workload_does_not_notice() {
    let specs: [Spec; 3] = [(1, 0, 0, 0), (2, 0, 1, 0), (3, 1, 0, 0)];
    let all = Contacts::new(contacts(&specs));
    let at = Timestamp::from_micros(9);
    let parts = credit(usd("100"), &Rule::Linear, all.window(at, 9), at).unwrap();
    assert_eq!(parts.by_player[&0], BTreeMap::from([(0, usd("33.34")), (1, usd("33.33"))]));
    assert_eq!(parts.by_player[&1], BTreeMap::from([(0, usd("33.33"))]));
}

#[test]
fn one_alone_gets_the_whole_amount_below_a_cent_too() {
    let specs: [Spec; 2] = [(1, 0, 0, 0), (2, 0, 1, 0)];
    let all = Contacts::new(contacts(&specs));
    let at = Timestamp::from_micros(9);
    let parts = credit(usd("0.004"), &Rule::Linear, all.window(at, 9), at).unwrap();
    assert_eq!(parts.by_player[&0], BTreeMap::from([(0, usd("0.004")), (1, usd("0"))]));
    assert_eq!(parts.unattributed, usd("0"));
    let mut given = Given::new(usd("0.004"), Ratio::ONE, parts);
    let taken = given.take_back(usd("-0.004"), None).unwrap();
    assert_eq!((taken.amount, taken.fx_difference), (usd("-0.004"), None));
    assert_eq!(taken.parts.by_player[&0][&0], usd("-0.004"));
}

#[test]
fn a_session_that_began_before_the_window_counts_from_its_first_touch_inside() {
    let specs: [Spec; 3] = [(1, 0, 0, 1), (5, 0, 0, 1), (6, 0, 0, 1)];
    let all = Contacts::new(contacts(&specs));
    let kept = |from: u64| -> Vec<i64> {
        all.window(Timestamp::from_micros(9), from).kept().map(|contact| contact.at.micros()).collect()
    };
    assert_eq!((kept(8), kept(4), kept(3), kept(2)), (vec![1], vec![5], vec![6], vec![]));
}
