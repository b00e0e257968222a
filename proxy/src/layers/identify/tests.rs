//! Identity from configuration, headers, aliases and baggage.

use super::*;
use crate::config::Sources;

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

fn config() -> Identify {
    Identify {
        team: None,
        workload: None,
        customer: None,
        session: None,
        tags: Tags::default(),
        required: Vec::new(),
        trust_headers: true,
        on_bad_tag: BadTag::Drop,
        aliases: true,
        on_contradiction: BadTag::Drop,
        require_key: false,
    }
}

fn read(pairs: &[(&'static str, &str)]) -> Identified {
    identify(&headers(pairs), &config(), None).unwrap()
}

fn tags(identified: &Identified) -> Vec<(&str, &str)> {
    identified.identity.tags.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect()
}

#[test]
fn own_headers_name_team_workload_customer_session_and_tags() {
    let it = read(&[
        ("x-bursar-team", "checkout"),
        ("x-bursar-workload", "bot"),
        ("x-bursar-customer", "acme"),
        ("x-bursar-session", "s1"),
        ("x-bursar-tag-feature", "search"),
    ]);
    let id = &it.identity;
    assert_eq!(id.team, Some(label("checkout")));
    assert_eq!(id.workload, Some(label("bot")));
    assert_eq!(id.customer, Some(label("acme")));
    assert_eq!(id.session, Some(label("s1")));
    assert_eq!(tags(&it), [("feature", "search")]);
    assert_eq!(id.source, IdentitySource::Header);
}

#[test]
fn nothing_said_is_unallocated() {
    assert_eq!(read(&[]).identity, Identity::unallocated());
}

#[test]
fn the_configured_team_beats_the_header_and_the_header_fills_the_rest() {
    let config = Identify { team: Some(label("payments")), ..config() };
    let sent = headers(&[("x-bursar-team", "spoof"), ("x-bursar-workload", "bot")]);
    let id = identify(&sent, &config, None).unwrap().identity;
    assert_eq!(id.team, Some(label("payments")));
    assert_eq!(id.workload, Some(label("bot")));
    assert_eq!(id.source, IdentitySource::Header, "the weakest source used");
}

#[test]
fn headers_beat_baggage_and_baggage_is_percent_decoded() {
    let it = read(&[
        ("x-bursar-team", "a"),
        ("baggage", "x-bursar-team=b, x-bursar-workload=%C3%A9quipe;prop=1,other=1,x-bursar-tag-k=v"),
    ]);
    assert_eq!(it.identity.team, Some(label("a")));
    assert_eq!(it.identity.workload, Some(label("équipe")));
    assert_eq!(tags(&it), [("k", "v")]);
    assert_eq!(it.identity.source, IdentitySource::Baggage);
}

#[test]
fn untrusted_headers_are_not_read_but_the_trace_is() {
    let config = Identify { trust_headers: false, ..config() };
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let it = identify(&headers(&[("x-bursar-team", "a"), ("traceparent", trace)]), &config, None).unwrap();
    assert_eq!(it.identity.team, None);
    assert_eq!(it.trace.unwrap().to_string(), "0af7651916cd43dd8448eb211c80319c");
}

#[test]
fn aliases_of_other_gateways_are_understood() {
    let it = read(&[
        ("x-litellm-tags", "job:42, nightly"),
        ("helicone-property-app", "x"),
        ("x-portkey-metadata", r#"{"_user":"acme","env":"prod","n":3}"#),
        ("helicone-session-id", "s9"),
        ("openai-project", "proj_1"),
    ]);
    assert_eq!(it.identity.customer, Some(label("acme")));
    assert_eq!(it.identity.session, Some(label("s9")));
    let expected = [
        ("app", "x"),
        ("env", "prod"),
        ("job", "42"),
        ("n", "3"),
        ("nightly", "true"),
        ("openai_project", "proj_1"),
    ];
    assert_eq!(tags(&it), expected);
}

#[test]
fn aliases_can_be_switched_off() {
    let config = Identify { aliases: false, ..config() };
    let it = identify(&headers(&[("x-litellm-end-user-id", "acme")]), &config, None).unwrap();
    assert_eq!(it.identity.customer, None);
}

#[test]
fn a_bad_value_is_dropped_and_marked() {
    let long = "x".repeat(300);
    for bad in ["", "a\tb", long.as_str()] {
        let it = read(&[("x-bursar-team", bad)]);
        assert_eq!(it.identity.team, None, "{bad:?}");
        assert!(it.anomalies.contains(Anomaly::TagDropped), "{bad:?}");
    }
}

#[test]
fn a_header_sent_twice_is_a_bad_value() {
    let it = read(&[("x-bursar-team", "a"), ("x-bursar-team", "b")]);
    assert_eq!(it.identity.team, None);
    assert!(it.anomalies.contains(Anomaly::TagDropped));
}

#[test]
fn a_bad_value_is_refused_where_configured_and_names_the_header() {
    let config = Identify { on_bad_tag: BadTag::Refuse, ..config() };
    let error = identify(&headers(&[("x-bursar-tag-x", "a\tb")]), &config, None).unwrap_err();
    assert!(error.to_string().starts_with("header x-bursar-tag-x: "), "{error}");
}

#[test]
fn a_required_part_that_is_missing_is_refused_with_the_remedy() {
    let config = Identify { required: vec![RequiredTag::Team], ..config() };
    let error = identify(&headers(&[]), &config, None).unwrap_err();
    assert_eq!(error, IdentityError::Missing { name: "team".to_owned(), header: "team".to_owned() });
    assert!(identify(&headers(&[("x-bursar-team", "a")]), &config, None).is_ok());
}

#[test]
fn malformed_trace_headers_give_no_trace() {
    for bad in [
        "",
        "00-0-0-00",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
    ] {
        assert_eq!(read(&[("traceparent", bad)]).trace, None, "{bad}");
    }
}

/// The problem with a header under our prefix that is none of ours, when bad tags are refused.
fn unknown(name: &'static str) -> String {
    let config = Identify { on_bad_tag: BadTag::Refuse, ..config() };
    identify(&headers(&[(name, "v")]), &config, None).unwrap_err().to_string()
}

#[test]
fn an_unknown_header_of_ours_is_marked_and_what_was_meant_is_said() {
    for (name, suggestion) in [
        ("x-bursar-teem", "did you mean x-bursar-team?"),
        ("x-bursar-costumer", "did you mean x-bursar-customer?"),
        ("x-bursar-tags", "did you mean x-bursar-tag-NAME?"),
        ("x-bursar-project", "send x-bursar-team, -workload"),
    ] {
        let it = read(&[(name, "v")]);
        assert!(it.anomalies.contains(Anomaly::TagDropped));
        assert_eq!(it.unknown.as_deref(), Some(name));
        let told = unknown(name);
        assert!(told.starts_with(&format!("unknown header {name}: {suggestion}")), "{told}");
    }
    let it = read(&[("baggage", "x-bursar-teem=a,teem=b")]);
    assert_eq!(it.unknown.as_deref(), Some("x-bursar-teem"));
    assert_eq!(read(&[("x-bursar-team", "a"), ("teem", "b")]).unknown, None);
    let sent_back = read(&[("x-bursar-request-id", "0"), ("x-bursar-cost", "1"), ("x-bursar-budget", "b")]);
    assert_eq!((sent_back.unknown, sent_back.anomalies.iter().count()), (None, 0));
}

#[test]
fn only_so_many_unknown_names_are_remembered() {
    let mut cache = IdentityCache::default();
    let config = Arc::new(Config::load(Sources::none()).unwrap());
    for n in 0..1000 {
        let name = HeaderName::try_from(format!("x-bursar-{n}-{}", "x".repeat(100))).unwrap();
        let map: HeaderMap = [(name, HeaderValue::from_static("v"))].into_iter().collect();
        let (_, _, anomalies) = cache.identify(&map, &config, None).unwrap();
        assert!(anomalies.contains(Anomaly::TagDropped));
    }
    assert_eq!(cache.told.len(), TOLD_MAX);
    assert!(cache.told.iter().all(|name| name.len() <= TOLD_CHARS_MAX));
}

#[test]
fn the_callers_span_and_its_decision_are_read_from_a_whole_traceparent_only() {
    let check = |traceparent: &str, parent: Option<u64>, sampled: Option<bool>| {
        let found = caller(&headers(&[("traceparent", traceparent)]));
        assert_eq!(
            (found.parent_span.map(|span| span.get()), found.sampled),
            (parent, sampled),
            "{traceparent}"
        );
    };
    let trace = "0af7651916cd43dd8448eb211c80319c";
    check(&format!("00-{trace}-b7ad6b7169203331-01"), Some(0xb7ad_6b71_6920_3331), Some(true));
    check(&format!("00-{trace}-b7ad6b7169203331-00"), Some(0xb7ad_6b71_6920_3331), Some(false));
    check(&format!("cc-{trace}-b7ad6b7169203331-03-more"), Some(0xb7ad_6b71_6920_3331), Some(true));
    check(&format!("00-{trace}-0000000000000000-01"), None, Some(true));
    check(&format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)), None, None);
    check("00-x", None, None);
    check("", None, None);
}
