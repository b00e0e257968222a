//! Tests of intake: what is there already changes nothing, what contradicts is refused by name.

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
const LATER: Timestamp = Timestamp::from_micros(1_790_000_001_000_000);
const SWAP: &str = r#"{"position_id":"s","kind":"swap_fixed_float","quantity":10,"unit":"Mtok","fixed_price":"2","index_id":"TPI","trade_date":"2026-08-11","effective_from":"2026-09-01","effective_until":"2026-10-01","designation":{}}"#;

fn begun() -> Intake {
    let mut intake = Intake::default();
    for (kind, body) in [
        (FactKind::Calendar, r#"{"calendar":"CN","holidays":["2026-10-01"]}"#),
        (FactKind::Index, r#"{"index":"TPI","currency":"USD","calendar":"CN","last":"2026-12-31"}"#),
        (FactKind::Contract, SWAP),
    ] {
        assert_eq!(intake.admit(kind, body, NOW).unwrap().added, Added::New, "{body}");
        assert_eq!(intake.admit(kind, body, LATER).unwrap().added, Added::Same, "{body}");
    }
    intake
}

#[track_caller]
fn check_refused(kind: FactKind, body: &str, text: &str) {
    let error = begun().admit(kind, body, NOW).unwrap_err().to_string();
    assert!(error.contains(text), "{error:?} does not say {text:?}");
}

#[test]
fn the_same_again_changes_nothing_and_another_value_restates() {
    let mut intake = begun();
    let fixing = |value: &str| format!(r#"{{"index":"TPI","date":"2026-09-01","value":{value}}}"#);
    let mut add = |value: &str, at| intake.admit(FactKind::Fixing, &fixing(value), at).unwrap().added;
    assert_eq!(add("2.25", NOW), Added::New);
    assert_eq!(add("2.250", LATER), Added::Same, "the same value written otherwise");
    assert_eq!(add("2.26", LATER), Added::Restated);
    let key = index_key("TPI", None).unwrap();
    let known = |at| intake.market.fixing(&key, parse_day("2026-09-01").unwrap(), at).unwrap().to_string();
    assert_eq!((known(NOW), known(LATER)), ("2.25".to_owned(), "2.26".to_owned()));
}

#[test]
fn events_are_named_by_what_happened_unless_they_have_a_name() {
    let mut intake = begun();
    let settle =
        r#"{"position_id":"s","event":"settle","date":"2026-10-02","month":"2026-09","amount":"5.5"}"#;
    let admitted = intake.admit(FactKind::ContractEvent, settle, NOW).unwrap();
    assert_eq!((admitted.name.as_str(), admitted.added), ("s settle-2026-09", Added::New));
    assert_eq!(intake.admit(FactKind::ContractEvent, settle, LATER).unwrap().added, Added::Same);
    let other = settle.replace("5.5", "6");
    let error = intake.admit(FactKind::ContractEvent, &other, LATER).unwrap_err().to_string();
    assert!(error.contains("says something else"), "{error}");
    let correct = r#"{"position_id":"s","event":"correct","date":"2026-10-05","of":"settle-2026-09","instead":{"event":"settle","month":"2026-09","amount":"6"}}"#;
    assert_eq!(intake.admit(FactKind::ContractEvent, correct, LATER).unwrap().added, Added::New);
}

#[test]
fn what_is_delivered_or_drawn_is_not_settled_closed_or_rolled_in_cash() {
    let mut intake = begun();
    let credit = r#"{"position_id":"p","kind":"prepaid_credit","quantity":10,"unit":"USD","price_currency":"USD","trade_date":"2026-08-11","effective_from":"2026-09-01","effective_until":"2026-10-01"}"#;
    let _ = intake.admit(FactKind::Contract, credit, NOW).unwrap();
    let event = |more: &str| format!(r#"{{"position_id":"p","date":"2026-09-05",{more}}}"#);
    for more in [
        r#""event":"close","price":"1""#,
        r#""event":"settle","month":"2026-09","amount":"1""#,
        r#""event":"roll","into":"q""#,
        r#""event":"fix","value":"1""#,
    ] {
        let error = intake.admit(FactKind::ContractEvent, &event(more), NOW).unwrap_err().to_string();
        assert!(error.contains("p is a prepaid_credit") && error.contains("cancel it"), "{error}");
    }
    let _ = intake.admit(FactKind::ContractEvent, &event(r#""event":"cancel""#), NOW).unwrap();
}

#[test]
fn a_position_is_priced_in_the_currency_of_its_index() {
    let yuan = SWAP.replace("\"s\"", "\"yuan\"").replace("\"kind\"", "\"price_currency\":\"CNH\",\"kind\"");
    check_refused(FactKind::Contract, &yuan, "TPI v1 is in USD and the contract is priced in CNH");
    let physical = yuan.replace("swap_fixed_float", "forward_physical");
    assert!(begun().admit(FactKind::Contract, &physical, NOW).is_ok(), "it settles against nothing");
}

#[test]
fn what_holds_instead_of_an_event_is_whole_and_has_no_day_of_its_own() {
    let mut intake = begun();
    let event = |rest: &str| format!(r#"{{"position_id":"s","date":"2026-09-10",{rest}}}"#);
    let close = event(r#""event":"close","event_id":"c","price":"2.5","part":"0.5""#);
    let _ = intake.admit(FactKind::ContractEvent, &close, NOW).unwrap();
    let correct = |instead: &str| {
        event(&format!(r#""event":"correct","event_id":"x","of":"c","instead":{{"event":{instead}}}"#))
    };
    for (instead, text) in [
        (r#""close","price":"2.5","part":"5""#, "closes a part of 5"),
        (r#""close","price":"2.5","date":"2026-09-01""#, "instead.date"),
        (r#""close","price":"2.5","position_id":"t""#, "instead.position_id"),
        (r#""close","price":"2.5","event_id":"y""#, "instead.event_id"),
        (r#""correct","of":"c""#, "instead.event"),
    ] {
        let error = intake.admit(FactKind::ContractEvent, &correct(instead), NOW).unwrap_err().to_string();
        assert!(error.contains(text), "{error:?} does not say {text:?}");
    }
    let right = correct(r#""close","price":"2.5","part":"0.75""#);
    assert_eq!(intake.admit(FactKind::ContractEvent, &right, NOW).unwrap().added, Added::New);
}

#[test]
fn an_index_keeps_the_method_that_it_was_given() {
    let mut intake = begun();
    let index = |method: &str| {
        format!(r#"{{"index":"TPI","currency":"USD","calendar":"CN","last":"2026-12-31"{method}}}"#)
    };
    let first = index(r#","method":"capped at 30 %""#);
    assert_eq!(intake.admit(FactKind::Index, &first, NOW).unwrap().added, Added::Restated);
    assert_eq!(intake.admit(FactKind::Index, &first, NOW).unwrap().added, Added::Same);
    assert_eq!(intake.admit(FactKind::Index, &index(""), NOW).unwrap().added, Added::Same);
    let other = index(r#","method":"capped at 40 %""#);
    let error = intake.admit(FactKind::Index, &other, NOW).unwrap_err().to_string();
    assert!(error.contains("TPI v1 is made otherwise (capped at 30 %)"), "{error}");
    let fixing = r#"{"index":"TPI","date":"2026-09-01","value":2,"provenance":{"records":3}}"#;
    assert_eq!(intake.admit(FactKind::Fixing, fixing, NOW).unwrap().added, Added::New);
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    use FactKind as K;
    check_refused(
        K::Fixing,
        r#"{"index":"TPI","date":"2026-10-01","value":"2"}"#,
        "no business day of calendar CN",
    );
    check_refused(K::Fixing, r#"{"index":"TPI","date":"2027-01-04","value":"2"}"#, "ended on 2026-12-31");
    check_refused(K::Fixing, r#"{"index":"TPI","date":"2026-09-01","value":"-2"}"#, "must be above zero");
    check_refused(
        K::Fixing,
        r#"{"index":"TPI","date":"2026-09-01","value":"2","currency":"CNH"}"#,
        "CNY and CNH",
    );
    check_refused(K::Fixing, r#"{"index":"X","date":"2026-09-01","value":"2"}"#, "unknown index X v1");
    check_refused(K::Fixing, r#"{"index":"TPI","day":"2026-09-01","value":"2"}"#, "unknown field `day`");
    check_refused(K::Fx, r#"{"pair":"DOLLAR","date":"2026-09-01","rate":"2"}"#, "not a currency pair");
    check_refused(K::Fx, r#"{"pair":"US/DCNY","date":"2026-09-01","rate":"2"}"#, "not a currency pair");
    check_refused(K::Index, r#"{"index":"Y","currency":"USB"}"#, "currency: \"USB\" is no known currency");
    check_refused(K::Fx, r#"{"pair":"USD/USD","date":"2026-09-01","rate":"2"}"#, "not a currency pair");
    check_refused(K::Fx, r#"{"pair":"USD/CNY","date":"2026-09-01","rate":"seven"}"#, "not a plain decimal");
    check_refused(K::Index, r#"{"index":"Y","currency":"USD","calendar":"DE"}"#, "there is no calendar DE");
    check_refused(K::Index, r#"{"index":"TPI","currency":"CNY"}"#, "another version");
    check_refused(K::Calendar, r#"{"calendar":"daily"}"#, "another name");
    check_refused(K::Profile, r#"{"profile":"p","from":"2026-01-01","score":"9"}"#, "score and reference");
    check_refused(
        K::Profile,
        r#"{"profile":"p","from":"2026-01-01","score":"9","reference":"9"}"#,
        "names the model",
    );
    let late = SWAP
        .replace("\"s\"", "\"late\"")
        .replace("2026-10-01", "2027-02-01")
        .replace("\"designation\"", "\"volumes\":\"each_month\",\"designation\"");
    check_refused(K::Contract, &late, "TPI v1 ended on 2026-12-31");
    check_refused(K::Contract, &SWAP.replace("\"2\"", "\"3\""), "enter a new version");
    check_refused(
        K::Contract,
        &SWAP.replace("\"kind\"", "\"version\":2,\"kind\""),
        "version 2 overlaps it: write supersedes: 1",
    );
    let event = |rest: &str| format!(r#"{{"position_id":"s","date":"2026-10-02",{rest}}}"#);
    check_refused(K::ContractEvent, &event(r#""event":"settle","month":"2026-11","amount":"1""#), "outside");
    check_refused(
        K::ContractEvent,
        &event(r#""event":"settle","month":"2026-09","amount":"1","currency":"CNY""#),
        "settles in USD",
    );
    check_refused(K::ContractEvent, &event(r#""event":"close""#), "price is missing");
    check_refused(K::ContractEvent, &event(r#""event":"close","price":"2""#), "nothing is left to close");
    check_refused(K::ContractEvent, &event(r#""event":"roll","into":"s""#), "is the position itself");
    check_refused(
        K::ContractEvent,
        &event(r#""event":"cancel""#).replace("10-02", "02-30"),
        "date: \"2026-02-30\" is not a day",
    );
    check_refused(
        K::ContractEvent,
        &event(r#""event":"settle","month":"2026-13","amount":"1""#),
        "month: \"2026-13\" is not a month",
    );
    check_refused(K::ContractEvent, &event(r#""event":"explode""#), "is unknown; use trade");
    check_refused(K::ContractEvent, &event(r#""event":"cancel""#).replace("\"s\"", "\"t\""), "no position t");
}

#[test]
fn a_calendar_that_changes_changes_the_indices_that_use_it() {
    let mut intake = begun();
    let day = |date: &str| format!(r#"{{"index":"TPI","date":"{date}","value":"2"}}"#);
    assert!(intake.admit(FactKind::Fixing, &day("2026-10-01"), NOW).is_err());
    let calendar = r#"{"calendar":"CN","holidays":["2026-10-02"]}"#;
    assert_eq!(intake.admit(FactKind::Calendar, calendar, NOW).unwrap().added, Added::Restated);
    assert!(intake.admit(FactKind::Fixing, &day("2026-10-01"), NOW).is_ok());
    assert!(intake.admit(FactKind::Fixing, &day("2026-10-02"), NOW).is_err());
}

#[test]
fn the_longest_model_that_fits_names_the_quality_profile() {
    let mut intake = Intake::default();
    for (id, model) in [("all", "claude-*"), ("one", "claude-opus-5"), ("opus", "claude-opus-*")] {
        let body = format!(
            r#"{{"profile":"{id}","from":"2026-01-01","score":90,"reference":86,"model":"{model}"}}"#
        );
        let _ = intake.admit(FactKind::Profile, &body, NOW).unwrap();
    }
    let of = |model| intake.quality_of(&Label::fixed(model)).map(Label::as_str);
    assert_eq!(of("claude-opus-5"), Some("one"));
    assert_eq!(of("claude-opus-4"), Some("opus"));
    assert_eq!(of("claude-haiku-4"), Some("all"));
    assert_eq!(of("gpt-5"), None);
}
