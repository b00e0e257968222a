//! Records for every test of the crate; round trips, golden bytes and hostile bytes.

use super::*;
use bursar_domain::{
    Anomalies, Cost, CostStatus, Currency, IdentitySource, Metering, ModelUsage, Money, Outcome,
    ProviderCost, Quantity, TokenClass, TraceId, Usage, UsageSource,
};
use proptest::prelude::*;

pub(crate) fn name(text: &str) -> Label {
    Label::new(text).unwrap()
}

/// The `n`-th of a row of plain records, a second apart.
pub(crate) fn plain_record(n: u64) -> UsageRecord {
    let started_at = Timestamp::from_micros(1_767_225_600_000_000 + n as i64 * 1_000_000);
    let mut usage = Usage::unknown();
    usage.set(TokenClass::InputFresh, 100 + n);
    usage.set(TokenClass::CachedRead, 20);
    usage.set(TokenClass::OutputText, 30);
    UsageRecord {
        id: RequestId::new(started_at, u128::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
        started_at,
        ended_at: started_at.plus_micros(1_234_567),
        identity: Arc::new(Identity {
            team: Some(name(["checkout", "search"][n as usize % 2])),
            workload: Some(name("bot")),
            source: IdentitySource::Config,
            ..Identity::unallocated()
        }),
        route: name("/openai"),
        provider: name("openai"),
        api: name("openai-chat"),
        model_requested: Some(name("gpt-5")),
        model_served: Some(name("gpt-5-2025-08-07")),
        tier: None,
        region: None,
        stream: n.is_multiple_of(2),
        http_status: Some(200),
        outcome: Outcome::Ok,
        metering: Metering::Count,
        usage,
        usage_source: UsageSource::Provider,
        counted_by: None,
        by_model: Vec::new(),
        usage_raw: None,
        provider_cost: None,
        cost: None,
        upstream_request_id: Some(name("req_abc")),
        meter_id: None,
        trace_id: None,
        latency_us: 1_234_567,
        ttft_us: Some(234_567),
        bytes_in: 1_000,
        bytes_out: 2_000,
        anomalies: Anomalies::default(),
    }
}

/// A cost at two prices, for ledgers in tests.
pub(crate) fn test_price(record: &UsageRecord) -> Cost {
    let tokens =
        record.usage.input_total().unwrap_or(0).saturating_add(record.usage.output_total().unwrap_or(0));
    let pico = i128::from(tokens) * 1_250_000;
    Cost {
        status: CostStatus::Priced,
        currency: Currency::USD,
        list_pico: Some(pico),
        contracted_pico: Some(pico / 2),
        billed_pico: Some(pico / 2),
        price_rows: vec![Arc::from("openai/gpt-5/2025")],
    }
}

fn any_label() -> impl Strategy<Value = Label> {
    "[a-zA-Z0-9 =+@é漢_-]{1,12}".prop_map(|text| name(&text))
}

fn some_label() -> impl Strategy<Value = Option<Label>> {
    prop::option::of(prop_oneof![prop::sample::select(vec!["a", "b", "c"]).prop_map(name), any_label()])
}

fn any_usage() -> impl Strategy<Value = Usage> {
    let count = prop_oneof![4 => 0_u64..10_000, 1 => Just(u64::MAX), 1 => any::<u64>()];
    let counts = prop::collection::vec(prop::option::of(count), 27);
    counts.prop_map(|counts| {
        let mut usage = Usage::unknown();
        let (tokens, quantities) = counts.split_at(TokenClass::ALL.len());
        for (class, count) in TokenClass::ALL.iter().zip(tokens) {
            if let Some(count) = count {
                usage.set(*class, *count);
            }
        }
        for (quantity, amount) in Quantity::ALL.iter().zip(quantities) {
            if let Some(amount) = amount {
                usage.set_quantity(*quantity, *amount);
            }
        }
        usage
    })
}

fn any_currency() -> impl Strategy<Value = Currency> {
    prop::sample::select(vec!["USD", "EUR", "JPY"]).prop_map(|code| Currency::parse(code).unwrap())
}

fn any_pico() -> impl Strategy<Value = i128> {
    prop_oneof![8 => -1_000_000_i128..1_000_000_000_000, 1 => any::<i128>()]
}

fn any_cost() -> impl Strategy<Value = Cost> {
    let amounts = prop::array::uniform3(prop::option::of(any_pico()));
    let rows = prop::collection::vec("[a-z/]{0,9}".prop_map(|row: String| Arc::from(row)), 0..3);
    (prop::sample::select(CostStatus::ALL.to_vec()), any_currency(), amounts, rows).prop_map(
        |(status, currency, [list_pico, contracted_pico, billed_pico], price_rows)| Cost {
            status,
            currency,
            list_pico,
            contracted_pico,
            billed_pico,
            price_rows,
        },
    )
}

fn any_identity() -> impl Strategy<Value = Arc<Identity>> {
    let tags = prop::collection::vec((any_label(), any_label()), 0..4);
    let source = prop::sample::select(IdentitySource::ALL.to_vec());
    (some_label(), some_label(), some_label(), some_label(), tags, source).prop_map(
        |(team, workload, customer, session, pairs, source)| {
            let mut tags = Tags::default();
            for (name, value) in pairs {
                tags.insert(name, value);
            }
            Arc::new(Identity { team, workload, customer, session, tags, source })
        },
    )
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    // A few days around a change of clocks, so that hours and days repeat.
    (1_743_120_000_000_000_i64..1_743_379_200_000_000).prop_map(Timestamp::from_micros)
}

prop_compose! {
    pub(crate) fn any_record()(
        (id, started_at, took, identity) in (any::<u128>(), any_time(), -5_000_i64..90_000_000, any_identity()),
        (route, provider, api, model_requested, model_served, tier, region) in
            (any_label(), any_label(), any_label(), some_label(), some_label(), some_label(), some_label()),
        (stream, http_status, outcome, metering, usage, usage_source) in (
            any::<bool>(),
            prop::option::of(any::<u16>()),
            prop::sample::select(Outcome::ALL.to_vec()),
            prop::sample::select(Metering::ALL.to_vec()),
            any_usage(),
            prop::sample::select(UsageSource::ALL.to_vec()),
        ),
        (counted_by, parts, raw, charge, cost) in (
            some_label(),
            prop::collection::vec((some_label(), any_usage()), 0..3),
            prop::option::of("\\PC{0,30}"),
            prop::option::of((any_currency(), any_pico())),
            prop::option::of(any_cost()),
        ),
        (upstream, meter, trace, latency_us, ttft_us, bytes, anomalies) in (
            some_label(), some_label(), any::<u128>(), any::<u64>(), prop::option::of(any::<u64>()),
            (any::<u32>(), any::<u32>()), any::<u32>(),
        ),
    ) -> UsageRecord {
        UsageRecord {
            id: RequestId::from_bits(id),
            started_at,
            ended_at: Timestamp::from_micros(started_at.micros() + took),
            identity, route, provider, api, model_requested, model_served, tier, region, stream,
            http_status, outcome, metering, usage, usage_source, counted_by,
            by_model: parts.into_iter().map(|(model, usage)| ModelUsage { model, usage }).collect(),
            usage_raw: raw.map(Arc::from),
            provider_cost: charge.map(|(currency, pico)| ProviderCost { amount: Money::from_pico(currency, pico) }),
            cost,
            upstream_request_id: upstream,
            meter_id: meter,
            trace_id: TraceId::from_bits(trace),
            latency_us, ttft_us,
            bytes_in: bytes.0.into(),
            bytes_out: bytes.1.into(),
            anomalies: Anomalies::from_bits(anomalies),
        }
    }
}

fn encode(records: &[(UsageRecord, bool)]) -> (FrameHead, Vec<u8>) {
    let mut encoder = Encoder::default();
    for (record, counted) in records {
        encoder.add_usage(record, *counted).unwrap();
    }
    let mut payload = Vec::new();
    let about = encoder.finish(&mut payload).unwrap();
    (head(about.count, &payload), payload)
}

pub(crate) fn head(count: u32, payload: &[u8]) -> FrameHead {
    FrameHead {
        payload_bytes: payload.len() as u32,
        first_sequence: 1,
        count,
        payload_version: PAYLOAD_VERSION,
        synced_sequence: 0,
        payload_crc: 0,
    }
}

fn decode(head: &FrameHead, payload: Vec<u8>) -> Result<Vec<(UsageRecord, bool)>, DecodeError> {
    let mut decoder = FrameDecoder::new(head, payload)?;
    let mut records = Vec::new();
    while let Some(decoded) = decoder.next() {
        let decoded = decoded?;
        records.push((decoded.record, decoded.counted));
    }
    Ok(records)
}

proptest! {
    #[test]
    fn records_come_back_as_they_were(
        records in prop::collection::vec((any_record(), any::<bool>()), 1..8)
    ) {
        let (head, payload) = encode(&records);
        let mut ids = Vec::new();
        for_each_id(&head, &payload, |listed| ids.push((listed.id, listed.started))).unwrap();
        let expected: Vec<_> = records.iter().map(|(r, _)| (r.id, r.started_at)).collect();
        prop_assert_eq!(ids, expected);
        prop_assert_eq!(decode(&head, payload).unwrap(), records);
    }

    #[test]
    fn extreme_times_survive(started in any::<i64>(), ended in any::<i64>(), other in any::<i64>()) {
        let mut records = vec![(plain_record(1), true), (plain_record(2), true)];
        records[0].0.started_at = Timestamp::from_micros(other);
        records[1].0.started_at = Timestamp::from_micros(started);
        records[1].0.ended_at = Timestamp::from_micros(ended);
        let (head, payload) = encode(&records);
        prop_assert_eq!(decode(&head, payload).unwrap(), records);
    }

    #[test]
    fn hostile_bytes_are_an_error_or_a_record_but_no_panic(
        records in prop::collection::vec((any_record(), any::<bool>()), 1..3),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let (head, mut payload) = encode(&records);
        let at = at.index(payload.len());
        if cut { payload.truncate(at) } else { payload[at] = byte }
        let _ = for_each_id(&head, &payload, |_| {});
        let glances = glances(&head, &payload);
        if let Ok(decoded) = decode(&head, payload) {
            let glances = glances.expect("what is a record can be looked at");
            prop_assert_eq!(glances, decoded.iter().map(looked_at).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_glance_says_what_the_record_says(
        records in prop::collection::vec((any_record(), any::<bool>()), 1..8)
    ) {
        let (head, payload) = encode(&records);
        let expected: Vec<_> = records.iter().map(looked_at).collect();
        prop_assert_eq!(glances(&head, &payload).unwrap(), expected);
    }
}

/// What can be looked at: texts, numbers, then what is added up.
type LookedAt = (Vec<Option<String>>, (u128, i64, bool, Option<u128>), crate::rollup::Totals);

fn looked_at((record, counted): &(UsageRecord, bool)) -> LookedAt {
    let who = &record.identity;
    let model = record.model_served.as_ref().or(record.model_requested.as_ref());
    let texts = [who.team.as_ref(), who.workload.as_ref(), who.customer.as_ref(), who.session.as_ref()];
    let more = [Some(&record.route), Some(&record.provider), Some(&record.api), record.tier.as_ref()];
    let models = [record.model_requested.as_ref(), model];
    let tags = who.tags.iter().flat_map(|(name, value)| [Some(name), Some(value)]);
    let all = texts.into_iter().chain(more).chain(models).chain(tags);
    let mut totals = crate::rollup::Totals::default();
    totals.add_record(record, *counted);
    let trace = record.trace_id.map(TraceId::bits);
    let texts = all.map(|label| label.map(|label| label.as_str().to_owned())).collect();
    (texts, (record.id.bits(), record.started_at.micros(), *counted, trace), totals)
}

fn glances(head: &FrameHead, payload: &[u8]) -> Result<Vec<LookedAt>, DecodeError> {
    let (mut frame, mut figures) = (GlanceFrame::new(head, payload)?, Figures::default());
    let mut found = Vec::new();
    while let Some(glance) = frame.next()? {
        glance.figures(&mut figures)?;
        let who = frame.identity(glance.identity)?;
        let mut numbers = vec![who.team, who.workload, who.customer, who.session];
        numbers.extend([glance.route, glance.provider, glance.api, glance.tier]);
        numbers.extend([glance.model_requested, glance.model()]);
        numbers.extend(who.tags.iter().flat_map(|(name, value)| [*name, *value]));
        let mut texts = Vec::new();
        for number in numbers {
            texts.push(frame.text(number)?.map(str::to_owned));
        }
        let mut totals = crate::rollup::Totals::default();
        totals.add_glance(&glance, &figures);
        let numbers = (glance.id, glance.started_at.micros(), glance.counted, figures.trace_id);
        found.push((texts, numbers, totals));
    }
    Ok(found)
}

/// One record with every field, and one with none.
fn golden_records() -> Vec<(UsageRecord, bool)> {
    let mut full = plain_record(7);
    let mut tags = Tags::default();
    tags.insert(name("case"), name("golden"));
    tags.insert(name("env"), name("prod"));
    full.identity = Arc::new(Identity {
        team: Some(name("checkout")),
        workload: Some(name("bot")),
        customer: Some(name("acme")),
        session: Some(name("s-1")),
        tags,
        source: IdentitySource::Header,
    });
    full.tier = Some(name("flex"));
    full.region = Some(name("eu"));
    full.metering = Metering::OncePerId;
    // The classes and quantities of when the bytes were written.
    for (index, class) in TokenClass::ALL.iter().take(17).enumerate() {
        full.usage.set(*class, index as u64 * 100);
    }
    for (index, quantity) in Quantity::ALL.iter().take(11).enumerate() {
        full.usage.set_quantity(*quantity, index as u64);
    }
    full.by_model = vec![ModelUsage { model: Some(name("small")), usage: plain_record(1).usage }];
    full.usage_raw = Some(Arc::from("{\"prompt_tokens\":7}"));
    full.provider_cost = Some(ProviderCost { amount: Money::from_pico(Currency::USD, 1_500_000_000) });
    full.cost = Some(test_price(&full));
    full.meter_id = Some(name("resp_1"));
    full.trace_id = TraceId::from_bits(0xabcdef);
    full.anomalies.insert(bursar_domain::Anomaly::TotalMismatch);
    let mut bare = plain_record(8);
    bare.identity = Arc::new(Identity::unallocated());
    bare.model_requested = None;
    bare.model_served = None;
    bare.http_status = None;
    bare.outcome = Outcome::Aborted;
    bare.metering = Metering::Never;
    bare.usage = Usage::unknown();
    bare.usage_source = UsageSource::Absent;
    bare.upstream_request_id = None;
    bare.ttft_us = None;
    vec![(full, true), (bare, false)]
}

/// These bytes are on users' disks. If this test fails, the format has changed: it needs a new
/// payload version and a reader for this one.
#[test]
fn the_bytes_of_payload_version_1_do_not_change() {
    let (head, payload) = encode(&golden_records());
    let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, include_str!("golden-v1.hex").trim_end());
    assert_eq!(decode(&head, payload).unwrap(), golden_records());
}

#[test]
fn a_plain_record_takes_little_room() {
    let records: Vec<_> = (0..1_000)
        .map(|n| {
            let mut record = plain_record(n);
            record.cost = Some(test_price(&record));
            (record, true)
        })
        .collect();
    let (_, payload) = encode(&records);
    assert!(payload.len() < 110 * 1_000, "{} bytes per record", payload.len() / 1_000);
}

#[test]
fn what_a_newer_program_wrote_is_refused_with_a_reason() {
    let (head, payload) = encode(&golden_records());
    let newer = FrameHead { payload_version: 9, ..head };
    assert_eq!(decode(&newer, payload.clone()).unwrap_err(), DecodeError::NewerPayload(9));

    let mut encoder = Encoder::default();
    encoder.add_usage(&plain_record(1), true).unwrap();
    encoder.records[0] = RecordKind::Revenue as u8;
    let mut payload = Vec::new();
    encoder.finish(&mut payload).unwrap();
    let unknown = Err(DecodeError::UnknownKind(8));
    assert_eq!(decode(&super::tests::head(1, &payload), payload.clone()).map(|_| ()), unknown.clone());
    assert_eq!(for_each_id(&super::tests::head(1, &payload), &payload, |_| {}), unknown);
}

#[test]
fn marks_come_out_as_they_went_in_and_leave_frames_without_them_as_they_were() {
    let owner = Arc::new(Identity { team: Some(name("b")), ..Identity::unallocated() });
    let marks = [
        Mark::Counted(b"openai\0\x01abc".as_slice().into()),
        Mark::Owner(b"openai\0batch_1".as_slice().into(), owner),
        Mark::Owner(b"".as_slice().into(), plain_record(1).identity),
    ];
    let mut encoder = Encoder::default();
    encoder.add_usage(&plain_record(1), true).unwrap();
    for mark in &marks {
        encoder.add_mark(mark).unwrap();
    }
    let mut payload = Vec::new();
    let about = encoder.finish(&mut payload).unwrap();
    assert_eq!(about.version, 2);
    let marked = FrameHead { payload_version: 2, ..head(1, &payload) };
    let mut decoder = FrameDecoder::new(&marked, payload.clone()).unwrap();
    assert_eq!(decoder.take_marks(), marks);
    assert_eq!(decoder.next().unwrap().unwrap().record, plain_record(1));
    assert!(decoder.next().is_none());
    for_each_id(&marked, &payload, |listed| assert_eq!(listed.id, plain_record(1).id)).unwrap();
    // Damage is told, never a panic.
    for cut in 0..payload.len() {
        let _ = FrameDecoder::new(&marked, payload[..cut].to_vec()).map(|mut d| while d.next().is_some() {});
    }
    encoder.clear();
    encoder.add_usage(&plain_record(3), true).unwrap();
    let mut again = Vec::new();
    assert_eq!(encoder.finish(&mut again).unwrap().version, 1);
    assert_eq!(again, encode(&[(plain_record(3), true)]).1);
}

#[test]
fn an_encoder_is_used_again_without_traces() {
    let mut encoder = Encoder::default();
    for (record, counted) in golden_records() {
        encoder.add_usage(&record, counted).unwrap();
    }
    encoder.clear();
    encoder.add_usage(&plain_record(3), true).unwrap();
    let mut again = Vec::new();
    encoder.finish(&mut again).unwrap();
    assert_eq!(again, encode(&[(plain_record(3), true)]).1);
}

#[test]
fn a_record_beyond_all_measure_is_refused_and_leaves_no_trace() {
    let mut encoder = Encoder::default();
    encoder.add_usage(&plain_record(1), true).unwrap();
    let mut huge = plain_record(2);
    huge.by_model = vec![ModelUsage { model: None, usage: huge.usage }; 200_000];
    assert_eq!(encoder.add_usage(&huge, true), Err(EncodeError));
    let mut payload = Vec::new();
    let about = encoder.finish(&mut payload).unwrap();
    assert_eq!(decode(&head(about.count, &payload), payload).unwrap(), vec![(plain_record(1), true)]);
}
