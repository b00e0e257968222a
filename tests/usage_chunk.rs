//! Usage is asked for on the client's behalf, and the client sees nothing of it.

use crate::transcripts::{
    CHAT, CHAT_PATH, CHAT_REPLY, CHAT_STREAM, EVENT_DONE, EVENT_ONE, EVENT_TWO, EVENT_USAGE, EVENTS,
};
use bursar_domain::{Anomaly, Outcome, UsageSource};
use bursar_tests::provider::SSE_HEAD;
use bursar_tests::{Step, chunk, run};

#[test]
fn a_small_stream_is_asked_for_usage_with_an_exact_length_and_the_chunk_is_hidden() {
    run("", |system| async move {
        system.provider.sse(&EVENTS);
        let mut client = system.client();
        client.post(CHAT_PATH, &[("accept-encoding", "gzip")], CHAT_STREAM).await;
        let reply = client.reply().await;
        assert_eq!(reply.text(), [EVENT_ONE, EVENT_TWO, EVENT_DONE].concat());
        let request = system.provider.request();
        let asked = CHAT_STREAM.replace("]}", r#"],"stream_options":{"include_usage":true}}"#);
        assert_eq!(String::from_utf8(request.body.clone()).unwrap(), asked);
        assert_eq!(request.header("content-length"), Some(asked.len().to_string().as_str()));
        assert_eq!(request.header("transfer-encoding"), None);
        assert_eq!(request.header("accept-encoding"), Some("identity"));
        let record = system.record().await;
        assert_eq!((record.outcome, record.usage_source), (Outcome::Ok, UsageSource::Provider));
        assert_eq!(record.bytes_in, CHAT_STREAM.len() as u64);
        assert_eq!(record.bytes_out, EVENTS.concat().len() as u64);
    });
}

#[test]
fn a_large_stream_is_asked_for_usage_as_it_passes_and_padded_to_its_announced_length() {
    run("", |system| async move {
        system.provider.sse(&EVENTS);
        let body = format!(
            r#"{{"model":"gpt-4o-mini","stream":true,"messages":[{{"role":"user","content":"{}"}}]}}"#,
            "x".repeat(200 * 1024)
        );
        let mut client = system.client();
        client.post(CHAT_PATH, &[], &body).await;
        assert_eq!(client.reply().await.text(), [EVENT_ONE, EVENT_TWO, EVENT_DONE].concat());
        let request = system.provider.request();
        assert_eq!(request.header("content-length"), Some(request.body.len().to_string().as_str()));
        assert_eq!(request.json()["stream_options"]["include_usage"], true);
        assert_eq!(request.json()["messages"][0]["content"].as_str().unwrap().len(), 200 * 1024);
        assert_eq!(system.record().await.usage.output_total(), Some(500));
    });
}

#[test]
fn a_large_request_that_does_not_stream_gets_nothing_but_white_space() {
    run("", |system| async move {
        system.provider.json(200, CHAT_REPLY);
        let text = "x".repeat(100 * 1024);
        let body = format!(r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{text}"}}]}}"#);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], &body).await;
        assert_eq!(client.reply().await.text(), CHAT_REPLY);
        let request = system.provider.request();
        let kept: String = String::from_utf8(request.body.clone()).unwrap().replace(' ', "");
        assert_eq!(kept, body);
        assert_eq!(request.header("content-length"), Some(request.body.len().to_string().as_str()));
        assert_eq!(system.record().await.bytes_in, body.len() as u64);
    });
}

#[test]
fn a_small_request_that_does_not_stream_passes_byte_for_byte() {
    run("", |system| async move {
        system.provider.json(200, CHAT_REPLY);
        let mut client = system.client();
        client.post(CHAT_PATH, &[("accept-encoding", "gzip, br")], CHAT).await;
        assert_eq!(client.reply().await.text(), CHAT_REPLY);
        let request = system.provider.request();
        assert_eq!(request.body, CHAT.as_bytes());
        assert_eq!(request.header("accept-encoding"), Some("gzip, br"));
        assert_eq!(system.record().await.usage.output_total(), Some(500));
    });
}

#[test]
fn a_client_that_asked_itself_sees_its_chunk() {
    run("", |system| async move {
        system.provider.sse(&EVENTS);
        let body = CHAT_STREAM.replace("]}", r#"],"stream_options":{"include_usage":true}}"#);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], &body).await;
        assert_eq!(client.reply().await.text(), EVENTS.concat());
        assert_eq!(system.provider.request().body, body.as_bytes());
        assert_eq!(system.record().await.usage.output_total(), Some(500));
    });
}

#[test]
fn a_route_that_does_not_ask_leaves_request_and_reply_alone() {
    run("", |system| async move {
        let events = [EVENT_ONE, EVENT_TWO, EVENT_DONE];
        system.provider.sse(&events);
        let mut client = system.client();
        client.post("/silent/v1/chat/completions", &[], CHAT_STREAM).await;
        assert_eq!(client.reply().await.text(), events.concat());
        assert_eq!(system.provider.request().body, CHAT_STREAM.as_bytes());
        let record = system.record().await;
        assert_eq!((record.outcome, record.usage_source), (Outcome::Ok, UsageSource::Tokenizer));
        assert_eq!(record.usage.output_total(), Some(2), "counted from what passed");
    });
}

#[test]
fn a_chunk_cut_at_any_byte_is_hidden_all_the_same() {
    run("", |system| async move {
        let all = EVENTS.concat();
        let expected = [EVENT_ONE, EVENT_TWO, EVENT_DONE].concat();
        for cut in 0..all.len() {
            let (first, second) = all.as_bytes().split_at(cut);
            let pieces = [first, second].into_iter().filter(|piece| !piece.is_empty());
            let mut steps = vec![Step::Send(SSE_HEAD.to_vec())];
            steps.extend(pieces.flat_map(|piece| {
                [Step::Send(chunk(piece)), Step::Wait(std::time::Duration::from_millis(1))]
            }));
            steps.push(Step::Send(b"0\r\n\r\n".to_vec()));
            system.provider.script(steps);
            let mut client = system.client();
            client.post(CHAT_PATH, &[], CHAT_STREAM).await;
            assert_eq!(client.reply().await.text(), expected, "cut at {cut}");
        }
        let records = system.records().await;
        assert_eq!(records.len(), all.len());
        for stored in records {
            assert_eq!(stored.record.usage.output_total(), Some(500));
        }
    });
}

#[test]
fn line_ends_and_comments_of_other_servers_are_read_and_passed_unchanged() {
    run("", |system| async move {
        let crlf = |event: &str| event.replace('\n', "\r\n");
        let events = [
            ": OPENROUTER PROCESSING\r\n\r\n".to_owned(),
            crlf(EVENT_ONE),
            "event: ping\r\ndata: {\"type\":\"ping\"}\r\n\r\n".to_owned(),
            crlf(EVENT_TWO),
            crlf(EVENT_USAGE),
            crlf(EVENT_DONE),
        ];
        system.provider.sse(&events.iter().map(String::as_str).collect::<Vec<_>>());
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT_STREAM).await;
        let shown: String =
            events.iter().filter(|event| !event.contains("\"choices\":[]")).cloned().collect();
        assert_eq!(client.reply().await.text(), shown);
        let record = system.record().await;
        assert_eq!((record.outcome, record.usage.output_total()), (Outcome::Ok, Some(500)));
    });
}

#[test]
fn a_stream_compressed_against_the_request_is_shown_whole_and_marked() {
    run("", |system| async move {
        let bytes = crate::compressed::gzip(EVENTS.concat().as_bytes());
        system.provider.reply(
            200,
            &[("content-type", "text/event-stream"), ("content-encoding", "gzip")],
            &bytes,
        );
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT_STREAM).await;
        assert_eq!(client.reply().await.body, bytes);
        let record = system.record().await;
        assert_eq!(record.usage.output_total(), Some(500));
        assert!(record.anomalies.contains(Anomaly::UsageChunkShown));
    });
}
