//! Sessions: one invented transcript per shape and ending, read in every slicing.

use super::*;
use crate::usage::flavour_of;
use bursar_domain::usage::{Quantity as Q, TokenClass as C};
use proptest::prelude::*;

/// One whole message of the server.
fn frame(opcode: u8, text: &str) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match u16::try_from(text.len()) {
        Ok(len @ 0..=125) => bytes.push(u8::try_from(len).unwrap()),
        Ok(len) => {
            bytes.push(126);
            bytes.extend(len.to_be_bytes());
        }
        Err(_) => {
            bytes.push(127);
            bytes.extend((text.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(text.as_bytes());
    bytes
}

fn stream(messages: &[&str]) -> Vec<u8> {
    messages.iter().flat_map(|message| frame(1, message)).collect()
}

fn from_client(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode, 0x80 | u8::try_from(payload.len()).unwrap(), 1, 2, 3, 4];
    bytes.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

fn label(text: &str) -> Option<Label> {
    Label::new(text).ok()
}

#[derive(Clone)]
struct Session {
    api: Api,
    provider: &'static str,
    requested: Option<&'static str>,
    client: Vec<u8>,
    server: Vec<u8>,
    ending: Ending,
}

impl Session {
    fn realtime(provider: &'static str, messages: &[&str]) -> Self {
        Self {
            api: Api::Realtime,
            provider,
            requested: Some("gpt-realtime"),
            client: Vec::new(),
            server: stream(messages),
            ending: Ending::Complete,
        }
    }

    fn live(provider: &'static str, messages: &[&str]) -> Self {
        let server = messages.iter().flat_map(|message| frame(2, message)).collect();
        let setup = br#"{"setup":{"model":"models/gemini-live-1"}}"#;
        let client = [from_client(1, setup), from_client(1, br#"{"setup":{"model":"models/no"}}"#)].concat();
        Self { api: Api::Live, requested: None, client, server, ..Self::realtime(provider, &[]) }
    }

    fn ends(self, ending: Ending) -> Self {
        Self { ending, ..self }
    }

    fn read_in(&self, mut cut: impl FnMut(usize) -> usize) -> Vec<Part> {
        let requested = self.requested.and_then(label);
        let mut meter = SessionMeter::new(self.api, flavour_of(self.provider), requested);
        let mut parts = Vec::new();
        for (bytes, is_client) in [(&self.client, true), (&self.server, false)] {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(cut(rest.len()).clamp(1, rest.len()));
                rest = after;
                if is_client {
                    meter.client_says(piece);
                } else {
                    meter.server_says(piece, Timestamp::from_micros(7));
                }
                parts.extend(std::iter::from_fn(|| meter.next_part()));
            }
        }
        parts.extend(meter.finish(self.ending));
        parts
    }

    /// Reads the session in several cuts, which must agree.
    fn read(&self) -> Vec<Part> {
        let whole = self.read_in(|len| len);
        for size in [1, 2, 5, 33] {
            assert_eq!(self.read_in(|_| size), whole, "in pieces of {size}");
        }
        whole
    }
}

fn tokens(part: &Part) -> Vec<(C, u64)> {
    part.reading.usage.tokens().collect()
}

fn noted(part: &Part) -> Vec<Anomaly> {
    part.reading.anomalies.iter().collect()
}

const CREATED: &str = r#"{"type":"session.created","event_id":"e0","session":{"type":"realtime","id":"sess_1","model":"gpt-realtime-2025-08-28","audio":{"input":{"transcription":null}}}}"#;
const UPDATED: &str = r#"{"type":"session.updated","session":{"id":"sess_1","model":"gpt-realtime-2025-08-28","audio":{"input":{"transcription":{"model":"gpt-4o-transcribe","language":null}}}}}"#;
const BEGINS: &str = r#"{"type":"response.created","response":{"id":"resp_1","status":"in_progress","output":[],"usage":null}}"#;
const DELTA: &str = r#"{"type":"response.output_audio.delta","response_id":"resp_1","delta":"AAAA"}"#;
const HEARD: &str = r#"{"type":"conversation.item.input_audio_transcription.completed","item_id":"item_1","transcript":"{\"usage\":1}","usage":{"type":"tokens","total_tokens":35,"input_tokens":26,"input_token_details":{"text_tokens":0,"audio_tokens":26},"output_tokens":9}}"#;
const DONE: &str = r#"{"type":"response.done","response":{"id":"resp_1","status":"completed","output":[{"type":"function_call","name":"f","arguments":"{}"},{"type":"message","content":[{"type":"output_audio"}]}],"usage":{"total_tokens":300,"input_tokens":200,"output_tokens":100,"input_token_details":{"text_tokens":90,"audio_tokens":100,"image_tokens":10,"cached_tokens":128,"cached_tokens_details":{"text_tokens":64,"audio_tokens":60,"image_tokens":4}},"output_token_details":{"text_tokens":30,"audio_tokens":70}}}}"#;

#[test]
fn each_response_and_each_transcription_is_a_part() {
    let parts = Session::realtime("openai", &[CREATED, UPDATED, BEGINS, DELTA, HEARD, DONE]).read();
    let [heard, done] = parts.as_slice() else { panic!("{parts:#?}") };

    assert_eq!(tokens(heard), [(C::InputFresh, 0), (C::InputAudio, 26), (C::OutputText, 9)]);
    assert_eq!(heard.reading.model_served, label("gpt-4o-transcribe"));
    assert_eq!(heard.model_requested, label("gpt-4o-transcribe"));
    assert_eq!(heard.reading.meter_id, label("item_1"));
    assert_eq!((heard.started_at, heard.reading.usage.quantity(Q::ToolCalls)), (None, None));

    let classes = [
        (C::InputFresh, 26),
        (C::InputAudio, 40),
        (C::InputImage, 6),
        (C::CachedRead, 64),
        (C::CachedAudio, 60),
        (C::CachedImage, 4),
        (C::OutputText, 30),
        (C::OutputAudio, 70),
    ];
    assert_eq!(tokens(done), classes);
    assert_eq!(done.reading.usage.quantity(Q::ToolCalls), Some(1));
    let Reading { outcome, metering, usage_source, model_served, meter_id, .. } = &done.reading;
    assert_eq!((*outcome, *metering, *usage_source), (Outcome::Ok, Metering::Count, UsageSource::Provider));
    assert_eq!((model_served.clone(), meter_id.clone()), (label("gpt-realtime-2025-08-28"), label("resp_1")));
    assert_eq!(done.model_requested, label("gpt-realtime"));
    assert_eq!((done.started_at, done.first_output_at), (Some(Timestamp::from_micros(7)), done.started_at));
    assert!(done.reading.usage_raw.as_ref().unwrap().contains("cached_tokens_details"));
    assert_eq!((noted(heard), noted(done)), (vec![], vec![]));
}

#[test]
fn a_transcription_may_be_billed_by_its_length() {
    let by_length = r#"{"type":"conversation.item.input_audio_transcription.completed","item_id":"i","usage":{"type":"duration","seconds":3.25}}"#;
    let parts = Session::realtime("openai", &[CREATED, UPDATED, by_length]).read();
    let [part] = parts.as_slice() else { panic!("{parts:#?}") };
    assert_eq!(part.reading.usage.quantity(Q::AudioMillis), Some(3_250));
    assert_eq!((tokens(part), part.reading.usage_source), (vec![], UsageSource::Provider));
}

#[test]
fn a_transcription_without_usage_is_unknown_unless_it_is_free() {
    let silent =
        r#"{"type":"conversation.item.input_audio_transcription.completed","item_id":"i","transcript":"x"}"#;
    let parts = Session::realtime("openai", &[CREATED, silent]).read();
    assert_eq!((parts.len(), parts[0].reading.usage_source), (1, UsageSource::Absent));
    assert_eq!((parts[0].reading.metering, &parts[0].reading.model_served), (Metering::Count, &None));
    let parts = Session::realtime("xai", &[CREATED, silent]).read();
    assert_eq!((parts.len(), parts[0].reading.metering), (1, Metering::Never));
}

#[test]
fn a_transcription_by_a_model_that_nobody_names_is_not_the_sessions() {
    let parts = Session::realtime("openai", &[CREATED, HEARD]).read();
    let [heard] = parts.as_slice() else { panic!("{parts:#?}") };
    assert_eq!((&heard.reading.model_served, &heard.model_requested), (&None, &None));
    let parts = Session::realtime("openai", &[HEARD]).read();
    assert_eq!(parts[0].model_requested, label("gpt-realtime"));
}

#[test]
fn a_response_that_is_done_twice_is_one_part() {
    let other = DONE.replace("resp_1", "resp_2");
    let parts = Session::realtime("openai", &[CREATED, BEGINS, DONE, DONE, &other]).read();
    let ids: Vec<_> = parts.iter().map(|part| part.reading.meter_id.clone()).collect();
    assert_eq!(ids, [label("resp_1"), label("resp_2")]);
}

#[test]
fn xai_bills_beside_the_response_and_tells_the_type_last() {
    let created = r#"{"session":{"id":"s","model":"grok-voice-latest","input_audio_transcription":{"model":"grok-transcribe"}},"type":"session.created"}"#;
    let done = r#"{"response":{"id":"r1","status":"completed","output":[{"type":"message"}],"usage":{}},"usage":{"input_tokens":7,"input_token_details":{"text_tokens":7,"audio_tokens":0,"grok_tokens":0},"output_tokens":113,"output_token_details":{"text_tokens":9,"audio_tokens":104,"grok_tokens":0},"total_tokens":120,"output_audio_seconds":2.08,"billable_audio_seconds":1},"type":"response.done"}"#;
    let session =
        Session { requested: Some("grok-voice-latest"), ..Session::realtime("xai", &[created, done]) };
    let parts = session.read();
    let [part] = parts.as_slice() else { panic!("{parts:#?}") };
    let classes = [(C::InputFresh, 7), (C::InputAudio, 0), (C::OutputText, 9), (C::OutputAudio, 104)];
    assert_eq!(tokens(part), classes);
    assert_eq!(part.reading.usage.quantity(Q::AudioMillis), Some(1_000));
    assert_eq!(part.reading.model_served, label("grok-voice-latest"));
    assert_eq!(noted(part), []);
}

#[test]
fn a_response_that_was_cancelled_or_failed_says_so() {
    for (status, usage, outcome, source) in [
        (
            "cancelled",
            r#"{"input_tokens":5,"output_tokens":1,"total_tokens":6}"#,
            Outcome::Incomplete,
            UsageSource::Provider,
        ),
        ("incomplete", r#"{"input_tokens":5,"output_tokens":1}"#, Outcome::Incomplete, UsageSource::Provider),
        ("failed", "null", Outcome::Failed, UsageSource::Absent),
    ] {
        let done = format!(
            r#"{{"type":"response.done","response":{{"id":"resp_1","status":"{status}","output":[],"usage":{usage}}}}}"#
        );
        let parts = Session::realtime("openai", &[CREATED, BEGINS, &done]).read();
        assert_eq!(parts.len(), 1, "{status}");
        let Reading { outcome: read, usage_source, metering, .. } = parts[0].reading;
        assert_eq!((read, usage_source, metering), (outcome, source, Metering::Count), "{status}");
    }
}

#[test]
fn another_model_than_asked_for_is_noted_except_behind_a_deployment() {
    let other = CREATED.replace("gpt-realtime-2025-08-28", "gpt-realtime-mini");
    let parts = Session::realtime("openai", &[&other, DONE]).read();
    assert_eq!(noted(&parts[0]), [Anomaly::ServedModelDiffers]);
    let parts = Session::realtime("azure", &[&other, DONE]).read();
    assert_eq!(noted(&parts[0]), []);
}

const TURN: &str = r#"{"serverContent":{"modelTurn":{"role":"model","parts":[{"inlineData":{"mimeType":"audio/pcm","data":"AAAA"}}]}}}"#;
const CALLS: &str =
    r#"{"toolCall":{"functionCalls":[{"name":"f","args":{},"id":"1"},{"name":"g","args":{},"id":"2"}]}}"#;

#[test]
fn a_turn_on_the_gemini_api_adds_its_thoughts() {
    let ready = r#"{"setupComplete":{"sessionId":"live_1"}}"#;
    let usage = r#"{"serverContent":{"turnComplete":true},"usageMetadata":{"promptTokenCount":1150,"responseTokenCount":85,"totalTokenCount":1235,"promptTokensDetails":[{"modality":"TEXT","tokenCount":1150}],"responseTokensDetails":[{"modality":"AUDIO","tokenCount":85}],"thoughtsTokenCount":28,"trafficType":"ON_DEMAND"}}"#;
    let parts = Session::live("gemini", &[ready, CALLS, TURN, TURN, usage]).read();
    let [part] = parts.as_slice() else { panic!("{parts:#?}") };
    let usage = &part.reading.usage;
    assert_eq!((usage.input_total(), usage.output_total()), (Some(1150), Some(113)));
    assert_eq!((usage.get(C::OutputReasoning), usage.get(C::OutputAudio)), (Some(28), Some(85)));
    assert_eq!((usage.input_audio_total(), usage.quantity(Q::ToolCalls)), (Some(0), Some(2)));
    assert_eq!(
        (part.model_requested.clone(), part.reading.tier.clone()),
        (label("gemini-live-1"), label("ON_DEMAND"))
    );
    assert_eq!((part.started_at, noted(part)), (Some(Timestamp::from_micros(7)), vec![]));
}

#[test]
fn turns_on_vertex_are_parts_of_their_own() {
    let first = r#"{"usageMetadata":{"promptTokenCount":24,"candidatesTokenCount":5,"totalTokenCount":29,"promptTokensDetails":[{"modality":"TEXT","tokenCount":24}],"candidatesTokensDetails":[{"modality":"TEXT","tokenCount":5},{"modality":"AUDIO"}]}}"#;
    let second = r#"{"usageMetadata":{"promptTokenCount":100,"toolUsePromptTokenCount":6,"cachedContentTokenCount":50,"candidatesTokenCount":61,"totalTokenCount":167,"promptTokensDetails":[{"modality":"TEXT","tokenCount":30},{"modality":"AUDIO","tokenCount":60},{"modality":"VIDEO","tokenCount":4}],"cacheTokensDetails":[{"modality":"AUDIO","tokenCount":40},{"modality":"TEXT","tokenCount":10}],"candidatesTokensDetails":[{"modality":"AUDIO","tokenCount":50}]}}"#;
    let tier = r#"{"usageMetadata":{"trafficType":"ON_DEMAND"}}"#;
    let parts = Session::live("vertex", &[TURN, first, tier, TURN, second]).read();
    let [first, second] = parts.as_slice() else { panic!("{parts:#?}") };
    assert_eq!((first.reading.usage.input_total(), first.reading.usage.output_total()), (Some(24), Some(5)));
    assert_eq!(first.reading.usage.get(C::OutputAudio), Some(0));
    let classes = [
        (C::InputFresh, 26),
        (C::InputAudio, 20),
        (C::InputImage, 0),
        (C::InputVideo, 4),
        (C::InputToolUse, 6),
        (C::CachedRead, 10),
        (C::CachedAudio, 40),
        (C::CachedImage, 0),
        (C::OutputText, 11),
        (C::OutputAudio, 50),
        (C::OutputImage, 0),
    ];
    assert_eq!((tokens(second), noted(second)), (classes.to_vec(), vec![]));
}

#[test]
fn a_list_that_does_not_add_up_changes_no_total() {
    let usage = r#"{"usageMetadata":{"promptTokenCount":482,"responseTokenCount":10,"totalTokenCount":492,"promptTokensDetails":[{"modality":"TEXT","tokenCount":100},{"modality":"AUDIO","tokenCount":260}]}}"#;
    let parts = Session::live("gemini", &[usage]).read();
    let usage = &parts[0].reading.usage;
    assert_eq!((usage.input_total(), usage.get(C::InputFresh)), (Some(482), Some(222)));
    assert_eq!(noted(&parts[0]), []);
}

#[test]
fn a_total_that_fits_neither_way_is_noted() {
    let usage = r#"{"usageMetadata":{"promptTokenCount":10,"responseTokenCount":10,"thoughtsTokenCount":5,"totalTokenCount":21}}"#;
    assert_eq!(noted(&Session::live("gemini", &[usage]).read()[0]), [Anomaly::TotalMismatch]);
    let done = DONE.replace("\"total_tokens\":300", "\"total_tokens\":301");
    assert_eq!(noted(&Session::realtime("openai", &[CREATED, &done]).read()[0]), [Anomaly::TotalMismatch]);
}

fn check_end(session: &Session, expected: &[(Outcome, Metering, UsageSource)]) {
    let parts = session.read();
    let found: Vec<_> = parts
        .iter()
        .map(|part| (part.reading.outcome, part.reading.metering, part.reading.usage_source))
        .collect();
    assert_eq!(found, expected, "{parts:#?}");
}

#[test]
fn a_response_under_way_at_the_end_is_a_part_without_usage() {
    let count = |outcome| [(outcome, Metering::Count, UsageSource::Absent)];
    let cut = Session::realtime("openai", &[CREATED, BEGINS, DELTA]);
    check_end(&cut.clone().ends(Ending::ClientAbort), &count(Outcome::Aborted));
    check_end(&cut.clone().ends(Ending::UpstreamCut), &count(Outcome::ErrorMidstream));
    assert_eq!(cut.read()[0].reading.meter_id, label("resp_1"));
    let closing = Session { client: from_client(8, b"\x03\xe8"), ..cut.clone() };
    check_end(&closing.ends(Ending::UpstreamCut), &count(Outcome::Aborted));
    let server = [cut.server.clone(), b"\x88\x02\x03\xf3".to_vec()].concat();
    check_end(&Session { server, ..cut }.ends(Ending::ClientAbort), &count(Outcome::ErrorMidstream));
    let turn = Session::live("gemini", &[TURN]).ends(Ending::ClientAbort);
    check_end(&turn, &count(Outcome::Aborted));
}

#[test]
fn a_session_without_a_response_is_one_part_that_never_counts() {
    let never = |outcome| [(outcome, Metering::Never, UsageSource::Absent)];
    let idle = Session::realtime("openai", &[CREATED, UPDATED]);
    check_end(&idle.clone().ends(Ending::ClientAbort), &never(Outcome::Aborted));
    check_end(&idle.clone().ends(Ending::UpstreamCut), &never(Outcome::ErrorMidstream));
    let closing = Session { client: from_client(8, b"\x03\xe9"), ..idle.clone() };
    check_end(&closing.ends(Ending::ClientAbort), &never(Outcome::Ok));
    // 4000: the provider's own code for an invalid request.
    let server = [idle.server.clone(), b"\x88\x02\x0f\xa0".to_vec()].concat();
    check_end(&Session { server, ..idle }.ends(Ending::UpstreamCut), &never(Outcome::Error));
    check_end(&Session::live("gemini", &[]).ends(Ending::Complete), &never(Outcome::Ok));
}

#[test]
fn what_cannot_be_read_leaves_a_part_that_says_so() {
    let deflated = [stream(&[CREATED, BEGINS, DONE]), vec![0xc1, 2, 1, 1]].concat();
    let session = Session { server: deflated, ..Session::realtime("openai", &[]) };
    let parts = session.read();
    assert_eq!(parts.len(), 2);
    assert_eq!(parts[0].reading.usage.output_total(), Some(100), "what came before counts");
    assert_eq!(
        (parts[1].reading.metering, noted(&parts[1])),
        (Metering::Count, vec![Anomaly::MeteringCapped])
    );

    let broken = Session::realtime("openai", &[CREATED, r#"{"type":"response.done","#]);
    assert_eq!(noted(&broken.read()[0]), [Anomaly::MalformedReply]);
    // Raw audio is none of ours, and no doubt.
    let raw = [frame(2, "\u{1}\u{2}\u{3}"), stream(&[DONE])].concat();
    let parts = Session { server: raw, requested: None, ..Session::realtime("openai", &[]) }.read();
    assert_eq!((parts.len(), noted(&parts[0])), (1, vec![]));
}

#[test]
fn a_message_over_the_limit_is_noted_with_the_next_part() {
    let audio = "A".repeat(usize::try_from(super::super::websocket::MESSAGE_BYTES_MAX).unwrap());
    let long = format!(r#"{{"type":"response.output_audio.delta","delta":"{audio}"}}"#);
    let session = Session::realtime("openai", &[CREATED, &long, DONE]);
    let parts = session.read_in(|_| 60_000);
    assert_eq!((parts.len(), noted(&parts[0])), (1, vec![Anomaly::MeteringCapped]));
}

#[test]
fn so_many_responses_at_once_cost_no_memory() {
    let begins: Vec<String> = (0..100).map(|n| BEGINS.replace("resp_1", &format!("resp_{n}"))).collect();
    let texts: Vec<&str> = begins.iter().map(String::as_str).collect();
    let parts = Session::realtime("openai", &texts).read_in(|len| len);
    assert_eq!(parts.len(), OPEN_MAX);
}

proptest! {
    #[test]
    fn slicing_never_changes_a_session(cuts in prop::collection::vec(1_usize..200, 1..30), is_live: bool) {
        let session = if is_live {
            Session::live("gemini", &[TURN, CALLS, r#"{"usageMetadata":{"promptTokenCount":3,"responseTokenCount":4}}"#, TURN])
        } else {
            Session::realtime("openai", &[CREATED, UPDATED, BEGINS, DELTA, HEARD, DONE, BEGINS])
        };
        let whole = session.read_in(|len| len);
        let mut cuts = cuts.iter().cycle();
        prop_assert_eq!(session.read_in(|_| *cuts.next().unwrap()), whole);
    }
}
