//! Readings of Gemini's and Vertex's transcripts.

use super::*;

const GENERATE: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const STREAM: &str = "/v1beta/models/gemini-3-flash:streamGenerateContent?alt=sse";
const ARRAY: &str =
    "/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-flash:streamGenerateContent";
const EMBED: &str = "/v1beta/models/gemini-embedding-2:batchEmbedContents";
const PREDICT: &str = "/v1/projects/p/locations/global/publishers/google/models/text-embedding-005:predict";
const INTERACTIONS: &str = "/v1beta/interactions";
const INTERACTION: &str = "/v1beta/interactions/v1_made_up";

impl Exchange {
    /// The same with the line ends that Google sends.
    fn with_crlf(self) -> Self {
        let body = String::from_utf8(self.body).unwrap().replace('\n', "\r\n").into_bytes();
        Self { body, ..self }
    }

    /// What was known after the first `bytes`, when the upstream broke off.
    fn cut_after(&self, text: &str) -> Reading {
        let at = self.body.windows(text.len()).position(|w| w == text.as_bytes()).unwrap();
        self.read([self.body.split_at(at + text.len()).0], Ending::UpstreamCut)
    }
}

fn stream(exchange: Exchange) -> Exchange {
    Exchange { request: "{}", ..exchange.with_crlf() }
}

#[test]
fn generated_content_is_read_into_disjoint_classes() {
    let reading = check(
        &transcript!("gemini", GENERATE, JSON, "gemini-content.json"),
        &[
            (C::InputFresh, 350),
            (C::InputAudio, 150),
            (C::InputImage, 0),
            (C::InputVideo, 0),
            (C::InputToolUse, 160),
            (C::CachedRead, 450),
            (C::CachedImage, 250),
            (C::OutputText, 40),
            (C::OutputReasoning, 75),
        ],
    );
    assert_eq!((reading.usage.input_total(), reading.usage.output_total()), (Some(1_360), Some(115)));
    assert_eq!(quantity(&reading, Q::ToolCalls), Some(2));
    assert_eq!(text(reading.tier.as_ref()), Some("flex"));
    assert_eq!(text(reading.model_served.as_ref()), Some("gemini-2.5-flash"));
    assert_eq!(text(reading.meter_id.as_ref()), Some("made-up-response-1"));
    assert_eq!(anomalies(&reading), []);
    assert!(!reading.stream);
}

#[test]
fn the_last_usage_of_a_stream_counts_as_a_whole_although_it_went_down() {
    let exchange = stream(transcript!("gemini", STREAM, SSE, "gemini-content.sse"));
    let reading = exchange.reading();
    assert_eq!((reading.outcome, reading.usage_source), (Outcome::Ok, UsageSource::Provider));
    assert_eq!(
        tokens(&reading),
        [
            (C::InputFresh, 147),
            (C::InputAudio, 0),
            (C::InputImage, 0),
            (C::InputVideo, 0),
            (C::InputToolUse, 360),
            (C::OutputText, 73),
            (C::OutputReasoning, 168),
        ]
    );
    assert_eq!((reading.stream, anomalies(&reading)), (true, vec![]));

    let inner = exchange.cut_after(
        "\"totalTokenCount\": 46,\"promptTokensDetails\": [{\"modality\": \"TEXT\",\"tokenCount\": 46}]}",
    );
    assert_eq!((inner.outcome, inner.usage_source), (Outcome::ErrorMidstream, UsageSource::ProviderPartial));
    assert_eq!((inner.usage.input_total(), inner.usage.output_total()), (Some(46), Some(0)));
}

#[test]
fn a_total_that_leaves_nothing_for_text_that_was_sent_says_nothing() {
    let read = |part: &str| {
        let body = format!(
            r#"{{"candidates":[{{"content":{{"parts":[{part}]}},"finishReason":"STOP"}}],"usageMetadata":{{"promptTokenCount":5,"totalTokenCount":5}}}}"#
        );
        let body = format!("data: {body}\r\n\r\n");
        stream(Exchange::new("gemini", STREAM, SSE, body.as_bytes())).reading().usage.output_total()
    };
    assert_eq!(read(r#"{"text":"a hundred words"}"#), None);
    assert_eq!(read(r#"{"text":""}"#), Some(0));
}

#[test]
fn a_prompt_that_was_first_estimated_too_long_shrinks() {
    let exchange = stream(transcript!("gemini", STREAM, SSE, "gemini-content-shrinking.sse"));
    let reading = exchange.sliced();
    assert_eq!((reading.usage.input_total(), reading.usage.output_total()), (Some(79), Some(12)));
    assert_eq!((reading.outcome, reading.usage_source), (Outcome::Ok, UsageSource::Provider));
    for at in 0..exchange.body.len() {
        let cut = exchange.read([exchange.body.split_at(at).0], Ending::UpstreamCut);
        assert_eq!(cut.outcome, Outcome::ErrorMidstream, "after {at} bytes");
    }
}

#[test]
fn a_chunk_with_a_traffic_type_alone_tells_the_tier_and_counts_nothing() {
    let exchange = stream(transcript!("vertex", ARRAY, SSE, "vertex-content.sse"));
    let reading = check(&exchange, &[(C::InputFresh, 30), (C::OutputText, 7), (C::OutputReasoning, 90)]);
    assert_eq!(text(reading.tier.as_ref()), Some("ON_DEMAND_FLEX"));
    assert_eq!(quantity(&reading, Q::ToolCalls), Some(1));
    let early = exchange.cut_after("\"willContinue\": true");
    assert_eq!((early.usage_source, quantity(&early, Q::ToolCalls)), (UsageSource::Absent, Some(0)));
}

#[test]
fn pictures_and_repeated_searches_are_counted_once() {
    let exchange = stream(transcript!("gemini", STREAM, SSE, "gemini-content-image.sse"));
    let reading = check(
        &exchange,
        &[
            (C::InputFresh, 33),
            (C::InputAudio, 0),
            (C::InputImage, 0),
            (C::InputVideo, 0),
            (C::OutputText, 660),
            (C::OutputAudio, 0),
            (C::OutputImage, 1_120),
            (C::OutputReasoning, 529),
        ],
    );
    assert_eq!(quantity(&reading, Q::WebSearchRequests), Some(2));
    assert_eq!(anomalies(&reading), [Anomaly::ServedModelDiffers]);
}

#[test]
fn a_large_picture_is_no_reason_for_doubt() {
    let picture = "A".repeat(3 * 1024 * 1024);
    let body = format!(
        "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"inlineData\":{{\"data\":\"{picture}\"}}}}]}},\"finishReason\":\"STOP\"}}],\"usageMetadata\":{{\"promptTokenCount\":5,\"candidatesTokenCount\":6}}}}\r\n\r\n"
    );
    let reading = Exchange::new("gemini", STREAM, SSE, body.as_bytes()).whole();
    assert_eq!((reading.usage.output_total(), anomalies(&reading)), (Some(6), vec![]));
}

#[test]
fn a_stream_may_be_one_array_and_its_end_is_the_arrays() {
    let exchange = transcript!("vertex", ARRAY, JSON, "gemini-content-array.json");
    let classes = [(C::InputFresh, 11), (C::OutputText, 16), (C::OutputReasoning, 232)];
    let reading = check(&exchange, &classes);
    assert_eq!(quantity(&reading, Q::ToolCalls), Some(1));
    assert_eq!(quantity(&reading, Q::WebSearchRequests), Some(1));
    assert_eq!((reading.stream, anomalies(&reading)), (true, vec![]));

    let untold = Exchange { headers: HeaderMap::new(), ..exchange.clone() };
    assert_eq!(untold.reading(), reading);

    // All is known but the closing bracket.
    let open = exchange.body.trim_ascii_end().split_last().unwrap().1;
    for ending in [Ending::Complete, Ending::UpstreamCut] {
        let cut = exchange.read([open], ending);
        assert_eq!((cut.outcome, tokens(&cut)), (Outcome::ErrorMidstream, classes.to_vec()));
    }
    let early = exchange.cut_after("The [lantern] {keeper}");
    assert_eq!(
        (early.outcome, early.usage_source, early.stream),
        (Outcome::ErrorMidstream, UsageSource::Absent, true)
    );
}

#[test]
fn a_damaged_array_keeps_what_came_before_and_is_told() {
    for (body, output) in [
        (&br#"[{"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":2}} {"usageMetadata":{"promptTokenCount":3}}]"#[..], Some(2)),
        (br#"[{"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":2}}] x"#, Some(2)),
        (br#"[{"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":2},}]"#, Some(2)),
        (br#"[}]"#, None),
    ] {
        let reading = Exchange::new("vertex", ARRAY, JSON, body).sliced();
        assert_eq!(reading.usage.output_total(), output, "{}", String::from_utf8_lossy(body));
        assert_eq!(reading.outcome, Outcome::ErrorMidstream);
        assert_eq!(anomalies(&reading), [Anomaly::MalformedReply]);
    }
    let empty = Exchange::new("vertex", ARRAY, JSON, b"[]").sliced();
    assert_eq!(
        (empty.outcome, empty.usage_source, anomalies(&empty)),
        (Outcome::Ok, UsageSource::Absent, vec![])
    );
    let odd = Exchange::new(
        "vertex",
        ARRAY,
        JSON,
        b"[1,null,[{\"usageMetadata\":{}}],\"x\",{\"usageMetadata\":7}]",
    );
    assert_eq!((odd.sliced().outcome, odd.sliced().usage_source), (Outcome::Ok, UsageSource::Absent));
}

#[test]
fn an_error_in_a_stream_keeps_the_counts_so_far() {
    for exchange in [
        stream(transcript!("gemini", STREAM, SSE, "gemini-content-error.sse")),
        transcript!("vertex", ARRAY, JSON, "gemini-content-array-error.json"),
    ] {
        let reading = exchange.reading();
        assert_eq!((reading.outcome, reading.metering), (Outcome::ErrorMidstream, Metering::Count));
        assert_eq!(reading.usage_source, UsageSource::ProviderPartial);
        assert_eq!((reading.usage.input_total(), reading.usage.output_total()), (Some(11), Some(1)));
    }
}

#[test]
fn an_error_status_never_counts() {
    for (path, kind) in [(GENERATE, JSON), (STREAM, SSE), (EMBED, JSON), (INTERACTIONS, JSON)] {
        let reading = transcript!("gemini", path, kind, "gemini-404.json").status(404).reading();
        assert_eq!((reading.outcome, reading.metering), (Outcome::Error, Metering::Never), "{path}");
    }
}

#[test]
fn a_blocked_prompt_is_filtered_and_unknown_or_counted_as_told() {
    let plain = transcript!("vertex", GENERATE, JSON, "gemini-content-blocked.json").reading();
    assert_eq!((plain.outcome, plain.metering), (Outcome::Filtered, Metering::Count));
    assert_eq!((plain.usage_source, text(plain.tier.as_ref())), (UsageSource::Absent, Some("ON_DEMAND")));
    let streamed = stream(transcript!("gemini", STREAM, SSE, "gemini-content-blocked.sse")).reading();
    assert_eq!((streamed.outcome, streamed.usage_source), (Outcome::Filtered, UsageSource::Provider));
    assert_eq!((streamed.usage.input_total(), streamed.usage.output_total()), (Some(9), Some(0)));
    let unblocked = br#"{"promptFeedback":{"blockReason":"BLOCKED_REASON_UNSPECIFIED"},"usageMetadata":{"promptTokenCount":1}}"#;
    assert_eq!(Exchange::new("gemini", GENERATE, JSON, unblocked).reading().outcome, Outcome::Ok);
}

#[test]
fn without_a_prompt_count_the_input_is_unknown() {
    let exchange = transcript!("gemini", GENERATE, JSON, "gemini-content-no-prompt.json")
        .header("x-gemini-service-tier", "standard");
    let reading = check(&exchange, &[(C::OutputText, 18), (C::OutputReasoning, 58)]);
    assert_eq!(reading.usage.input_total(), None);
    assert_eq!(text(reading.tier.as_ref()), Some("standard"));
}

#[test]
fn numbers_for_enumerations_read_like_their_names() {
    let body = br#"[{"candidates":[{"finishReason":1}],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":2,
        "trafficType":1,"promptTokensDetails":[{"modality":4,"tokenCount":5},{"modality":1,"tokenCount":4}]}}]"#;
    let reading = Exchange::new("vertex", ARRAY, JSON, body).reading();
    assert_eq!(reading.usage.get(C::InputAudio), Some(5));
    assert_eq!(
        (text(reading.tier.as_ref()), reading.usage_source),
        (Some("ON_DEMAND"), UsageSource::Provider)
    );
}

#[test]
fn the_model_of_the_path_is_the_one_that_was_asked_for() {
    for (path, body, expected) in [
        (GENERATE, "{}", vec![]),
        (GENERATE, r#"{"model":"gemini-1"}"#, vec![]),
        ("/v1beta/models/gemini-2.5-pro:generateContent", "{}", vec![Anomaly::ServedModelDiffers]),
        ("/v1beta/tunedModels/ours:generateContent", "{}", vec![]),
    ] {
        let exchange = Exchange { request: body, ..transcript!("gemini", path, JSON, "gemini-content.json") };
        assert_eq!(anomalies(&exchange.whole()), expected, "{path} {body}");
    }
}

#[test]
fn embeddings_have_input_alone_where_they_say_any() {
    let classes = [
        (C::InputFresh, 3),
        (C::InputAudio, 0),
        (C::InputImage, 258),
        (C::InputVideo, 0),
        (C::OutputText, 0),
    ];
    let reading = check(&transcript!("gemini", EMBED, JSON, "gemini-embeddings.json"), &classes);
    assert_eq!(quantity(&reading, Q::ToolCalls), None);
    let silent = transcript!("gemini", EMBED, JSON, "gemini-embedding-unmetered.json").reading();
    assert_eq!((silent.outcome, silent.metering), (Outcome::Ok, Metering::Count));
    assert_eq!((silent.usage_source, silent.usage.is_unknown()), (UsageSource::Absent, true));
    let exchange = transcript!("vertex", PREDICT, JSON, "vertex-predict.json");
    let predicted = check(&exchange, &[(C::InputFresh, 15), (C::OutputText, 0)]);
    assert_eq!(anomalies(&predicted), []);
    let cut = exchange.cut_after("0.2");
    assert_eq!((cut.usage.input_total(), cut.usage_source), (Some(6), UsageSource::ProviderPartial));
}

#[test]
fn an_interaction_is_read_under_its_own_names() {
    let reading = check(
        &transcript!("gemini", INTERACTIONS, JSON, "gemini-interaction.json"),
        &[
            (C::InputFresh, 4),
            (C::InputAudio, 18),
            (C::InputImage, 0),
            (C::InputVideo, 0),
            (C::InputToolUse, 129),
            (C::CachedRead, 0),
            (C::OutputText, 973),
            (C::OutputReasoning, 249),
        ],
    );
    assert_eq!(quantity(&reading, Q::WebSearchRequests), Some(2));
    assert_eq!(quantity(&reading, Q::ToolCalls), Some(1));
    assert_eq!(text(reading.tier.as_ref()), Some("priority"));
    assert_eq!(text(reading.meter_id.as_ref()), Some("v1_made_up"));
    assert_eq!(anomalies(&reading), []);
}

#[test]
fn an_interactions_stream_is_read_at_its_last_event() {
    let exchange = transcript!("gemini", INTERACTIONS, SSE, "gemini-interaction.sse");
    let reading = check(
        &exchange,
        &[
            (C::InputFresh, 8),
            (C::InputAudio, 0),
            (C::InputImage, 258),
            (C::InputVideo, 0),
            (C::InputToolUse, 0),
            (C::CachedRead, 0),
            (C::OutputText, 3),
            (C::OutputReasoning, 57),
        ],
    );
    assert_eq!(quantity(&reading, Q::ToolCalls), Some(1));
    assert_eq!(text(reading.model_served.as_ref()), Some("gemini-2.5-flash-lite"));
    let earlier = transcript!("gemini", INTERACTIONS, SSE, "gemini-interaction-earlier.sse");
    let reading = check(&earlier, &[(C::InputFresh, 7), (C::OutputText, 5)]);
    assert_eq!(quantity(&reading, Q::ToolCalls), Some(1));
    assert_eq!(text(reading.model_served.as_ref()), Some("deep-research-pro"));
    let failed = transcript!("gemini", INTERACTIONS, SSE, "gemini-interaction-failed.sse").reading();
    assert_eq!((failed.outcome, failed.usage_source), (Outcome::ErrorMidstream, UsageSource::Absent));
}

#[test]
fn an_interaction_in_the_background_counts_once_per_id() {
    let queued = transcript!("gemini", INTERACTIONS, JSON, "gemini-interaction-queued.json")
        .request(r#"{"agent":"deep-research-pro","background":true}"#)
        .reading();
    assert_eq!((queued.outcome, queued.metering), (Outcome::Queued, Metering::OncePerId));
    assert_eq!(text(queued.meter_id.as_ref()), Some("v1_made_up"));
    let streamed = transcript!("gemini", INTERACTIONS, SSE, "gemini-interaction.sse");
    assert_eq!(streamed.cut_after("status_update").metering, Metering::Count);
    let get = |exchange: Exchange| exchange.method(Method::GET).reading();
    let poll = get(transcript!("gemini", INTERACTION, JSON, "gemini-interaction-queued.json"));
    assert_eq!((poll.outcome, poll.metering), (Outcome::Queued, Metering::Never));
    let done = get(transcript!("gemini", INTERACTION, JSON, "gemini-interaction.json"));
    assert_eq!((done.outcome, done.metering), (Outcome::Ok, Metering::OncePerId));
    assert_eq!(text(done.meter_id.as_ref()), Some("v1_made_up"));
    let replayed = get(transcript!("gemini", INTERACTION, SSE, "gemini-interaction.sse"));
    assert_eq!((replayed.outcome, replayed.metering), (Outcome::Ok, Metering::OncePerId));
}

#[test]
fn other_companies_models_on_vertex_are_read_in_their_own_shape() {
    let path =
        "/v1/projects/p/locations/global/publishers/anthropic/models/claude-sonnet-4-5:streamRawPredict";
    let reading = transcript!("vertex", path, SSE, "messages.sse").reading();
    assert_eq!((reading.usage.input_total(), reading.usage.output_total()), (Some(10), Some(15)));
    let path = "/v1/projects/p/locations/global/endpoints/openapi/chat/completions";
    let reading = transcript!("vertex", path, JSON, "gemini-chat.json").reading();
    assert_eq!((reading.usage.input_total(), reading.usage.output_total()), (Some(35), Some(74)));
}

#[test]
fn counting_and_caching_never_count() {
    for path in [
        "/v1beta/models/gemini-2.5-flash:countTokens",
        "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-flash:computeTokens",
        "/v1beta/cachedContents",
    ] {
        let reading = transcript!("gemini", path, JSON, "gemini-content.json").whole();
        assert_eq!((reading.outcome, reading.metering), (Outcome::Ok, Metering::Never), "{path}");
    }
}

#[test]
fn what_stands_before_a_body_is_read_alike_in_any_slicing() {
    for before in ["\u{c}", "\u{b}", " ", "\t\r\n ", "\n\u{c}", "\u{feff}", ":"] {
        let mut exchange = transcript!("vertex", ARRAY, JSON, "gemini-content-array.json");
        exchange.body.splice(..0, before.bytes());
        let total = exchange.sliced().usage.input_total();
        let is_skipped = !["\u{b}", ":"].contains(&before);
        assert_eq!(total.is_some(), is_skipped, "{before:?}");
    }
}

fn all() -> Vec<Exchange> {
    vec![
        stream(transcript!("gemini", STREAM, SSE, "gemini-content.sse")),
        stream(transcript!("vertex", ARRAY, SSE, "vertex-content.sse")),
        transcript!("vertex", ARRAY, JSON, "gemini-content-array.json"),
        transcript!("vertex", ARRAY, JSON, "gemini-content-array-error.json"),
        transcript!("gemini", GENERATE, JSON, "gemini-content.json"),
        transcript!("gemini", EMBED, JSON, "gemini-embeddings.json"),
        transcript!("vertex", PREDICT, JSON, "vertex-predict.json"),
        transcript!("gemini", INTERACTIONS, JSON, "gemini-interaction.json"),
        transcript!("gemini", INTERACTIONS, SSE, "gemini-interaction.sse"),
    ]
}

proptest! {
    #[test]
    fn any_slicing_gives_the_same_reading(
        which in 0_usize..9, sizes in prop::collection::vec(1_usize..300, 1..12),
    ) {
        let exchange = all().swap_remove(which);
        let pieces = slices(&exchange.body, &sizes);
        prop_assert_eq!(exchange.read(pieces, Ending::Complete), exchange.whole());
    }

    #[test]
    fn damaged_transcripts_are_survived_alike_in_any_slicing(
        which in 0_usize..9,
        damage in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            Just(b'"'), Just(b'['), Just(b']'), Just(b'{'), Just(b'}'), Just(b','), Just(b'9'), any::<u8>()]), 1..6),
        repeat in any::<prop::sample::Index>(),
        sizes in prop::collection::vec(1_usize..300, 1..12),
    ) {
        let mut exchange = all().swap_remove(which);
        for (at, byte) in damage {
            let at = at.index(exchange.body.len());
            exchange.body[at] = byte;
        }
        let from = repeat.index(exchange.body.len());
        exchange.body.extend_from_within(from..);
        let whole = exchange.whole();
        prop_assert_eq!(exchange.read(slices(&exchange.body, &sizes), Ending::Complete), whole.clone());
        prop_assert_eq!(exchange.read(exchange.body.chunks(1), Ending::Complete), whole);
    }
}
