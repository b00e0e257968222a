//! Exchanges that break at any byte, on either side: one record each, and nothing stays open.

use crate::transcripts::{CHAT, CHAT_PATH, CHAT_REPLY, CHAT_STREAM, EVENTS};
use bursar_domain::{Outcome, UsageRecord, UsageSource};
use bursar_tests::client::status;
use bursar_tests::provider::{SSE_HEAD, reply};
use bursar_tests::{Step, System, chunk, run, until};

/// A stream as it is on the wire.
fn stream() -> Vec<u8> {
    let mut all = SSE_HEAD.to_vec();
    for event in EVENTS {
        all.extend(chunk(event.as_bytes()));
    }
    all.extend(b"0\r\n\r\n");
    all
}

fn document() -> Vec<u8> {
    reply(200, &[("content-type", "application/json")], CHAT_REPLY.as_bytes())
}

/// The byte after which the head is there.
fn head_end(bytes: &[u8]) -> usize {
    bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4
}

/// The byte after which the usage has been said.
fn usage_end(bytes: &[u8]) -> usize {
    let last = b"\"reasoning_tokens\":100}}";
    bytes.windows(last.len()).position(|w| w == last).unwrap() + last.len()
}

/// The byte after which the stream has said that it is over, whatever happens to its framing.
fn done(bytes: &[u8]) -> usize {
    bytes.windows(6).position(|w| w == b"[DONE]").unwrap() + 6
}

async fn records_of(system: System, count: usize) -> Vec<UsageRecord> {
    let metric = system.metric("bursar_requests_in_flight");
    assert_eq!(metric, 0, "an exchange is still under way");
    let records = system.records_by_start().await;
    assert_eq!(records.len(), count, "as many records as requests");
    records.into_iter().map(|stored| stored.record).collect()
}

/// The byte after which some of the reply's text has passed.
fn text_begins(bytes: &[u8]) -> usize {
    bytes.windows(3).position(|w| w == b"Hel").unwrap() + 1
}

/// What the provider told when it came to that; else what passed of `Hello.`, if that counts.
fn check_output(record: &UsageRecord, said: bool, counts: bool, cut: usize) {
    let output = record.usage.output_total();
    let (right, source) = match (said, counts) {
        (true, _) => (output == Some(500), UsageSource::Provider),
        (false, true) => (output.is_some_and(|output| output <= 2), UsageSource::Tokenizer),
        (false, false) => (output.is_none(), UsageSource::Absent),
    };
    // Cut between the usage and the end, the provider's figure is there but not confirmed.
    let is_partial = said && record.usage_source == UsageSource::ProviderPartial;
    assert!(right && (record.usage_source == source || is_partial), "cut at {cut}: {record:#?}");
}

#[test]
fn a_client_that_leaves_at_any_byte_of_a_stream_leaves_one_record_and_no_connection() {
    run("", |system| async move {
        let all = stream();
        for cut in 0..all.len() {
            system.clock.advance(1);
            system.provider.script([Step::Send(all[..cut].to_vec()), Step::Stall]);
            let mut client = system.client();
            client.post(CHAT_PATH, &[], CHAT_STREAM).await;
            let provider = system.provider.clone();
            until("the request arrives", || provider.received().len() == cut + 1).await;
            if cut >= head_end(&all) {
                assert_eq!(status(&client.head().await.unwrap()), 200);
            }
            drop(client);
            until("the upstream connection is closed", || provider.open() == 0).await;
        }
        let records = records_of(system, all.len()).await;
        for (cut, record) in records.iter().enumerate() {
            let status = (cut >= head_end(&all)).then_some(200);
            assert_eq!(record.http_status, status, "cut at {cut}");
            check_output(record, cut >= usage_end(&all), cut >= head_end(&all), cut);
            let expected = if cut >= done(&all) { Outcome::Ok } else { Outcome::Aborted };
            assert_eq!(record.outcome, expected, "cut at {cut}");
        }
    });
}

#[test]
fn an_upstream_that_closes_at_any_byte_of_a_stream_shows_the_cut_and_leaves_one_record() {
    run("", |system| async move {
        let all = stream();
        for cut in 0..all.len() {
            system.clock.advance(1);
            system.provider.script([Step::Send(all[..cut].to_vec()), Step::Close]);
            let mut client = system.client();
            client.post(CHAT_PATH, &[], CHAT_STREAM).await;
            let reply = client.reply().await;
            if cut < head_end(&all) {
                assert_eq!(reply.status(), 502, "cut at {cut}");
                assert_eq!(reply.json()["error"]["code"], "upstream_unreachable");
            } else {
                assert_eq!(reply.status(), 200, "cut at {cut}");
                assert!(!reply.whole, "cut at {cut}: the client must not take it for the whole");
            }
            assert_eq!(system.provider.open(), 0);
        }
        let records = records_of(system, all.len()).await;
        for (cut, record) in records.iter().enumerate() {
            let expected = match cut {
                _ if cut < head_end(&all) => Outcome::Error,
                _ if cut >= done(&all) => Outcome::Ok,
                _ => Outcome::ErrorMidstream,
            };
            assert_eq!(record.outcome, expected, "cut at {cut}");
            check_output(record, cut >= usage_end(&all), cut >= text_begins(&all), cut);
        }
    });
}

#[test]
fn an_upstream_that_closes_at_any_byte_of_a_document_shows_the_cut_and_leaves_one_record() {
    run("", |system| async move {
        let all = document();
        for cut in 0..all.len() {
            system.clock.advance(1);
            system.provider.script([Step::Send(all[..cut].to_vec()), Step::Close]);
            let mut client = system.client();
            client.post(CHAT_PATH, &[], CHAT).await;
            let reply = client.reply().await;
            let has_head = cut >= head_end(&all);
            assert_eq!(reply.status(), if has_head { 200 } else { 502 }, "cut at {cut}");
            assert_eq!(reply.whole, !has_head, "cut at {cut}");
            if has_head {
                assert_eq!(reply.body, &all[head_end(&all)..cut], "what came is passed on");
            }
        }
        let records = records_of(system, all.len()).await;
        for (cut, record) in records.iter().enumerate() {
            let has_head = cut >= head_end(&all);
            assert_eq!(record.http_status, has_head.then_some(200), "cut at {cut}");
            let expected = if has_head { Outcome::ErrorMidstream } else { Outcome::Error };
            assert_eq!(record.outcome, expected, "cut at {cut}");
            check_output(record, cut >= usage_end(&all), cut >= text_begins(&all), cut);
        }
    });
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_request_leaves_a_record_only_if_something_was_sent() {
    run("", |system| async move {
        // Within the first 64 KiB nothing has gone upstream yet.
        for length in [0, 10, CHAT.len() - 1] {
            let mut client = system.client();
            let head = format!(
                "POST {CHAT_PATH} HTTP/1.1\r\nhost: sidecar\r\ncontent-length: {}\r\n\r\n",
                CHAT.len()
            );
            client.send(head.as_bytes()).await;
            client.send(&CHAT.as_bytes()[..length]).await;
            drop(client);
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(system.provider.connections(), 0);

        system.provider.script([Step::Stall]);
        let mut client = system.client();
        client
            .send(
                format!("POST {CHAT_PATH} HTTP/1.1\r\nhost: sidecar\r\ncontent-length: 200000\r\n\r\n")
                    .as_bytes(),
            )
            .await;
        client.send(&[b' '; 100_000]).await;
        let provider = system.provider.clone();
        until("the first part passes", || provider.arrived() >= 64 * 1024).await;
        drop(client);
        until("the upstream connection is closed", || provider.open() == 0).await;
        assert!(provider.received().is_empty(), "the upstream never takes half a request for a whole one");
        let record = system.record().await;
        assert_eq!((record.outcome, record.http_status), (Outcome::Aborted, None));
    });
}

#[test]
fn a_client_that_leaves_while_the_upstream_thinks_cancels_it() {
    run("", |system| async move {
        system.provider.script([Step::Stall]);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT).await;
        let provider = system.provider.clone();
        until("the request arrives", || provider.received().len() == 1).await;
        drop(client);
        until("the upstream connection is closed", || provider.open() == 0).await;
        let record = system.record().await;
        assert_eq!((record.outcome, record.http_status), (Outcome::Aborted, None));
    });
}
