//! What the configured durability and fail mode promise, seen by clients.

use crate::transcripts::{
    CHAT, CHAT_PATH, CHAT_REPLY, CHAT_STREAM, EVENT_DONE, EVENT_ONE, EVENT_TWO, EVENTS, MESSAGES,
    MESSAGES_PATH,
};
use bursar_ledger::RecordRange;
use bursar_tests::frames::{END_STREAM, kind};
use bursar_tests::{Client, Machine, Setup, System, run, unhurried};
use std::time::Duration;

const SYNC: &str = "ledger: { durability: sync }";

/// The smallest queue there is.
const QUEUE: usize = 64;

/// How many records have reached the journal.
fn journaled(system: &System) -> usize {
    system.app.ledger.records(RecordRange::default()).count()
}

/// Waits until the ledger's writer has taken what there was.
async fn writer_has_taken_all(system: &System) {
    let ledger = system.app.ledger.clone();
    let wait = tokio::task::spawn_blocking(move || {
        while ledger.stats().queue_entries > 0 {
            std::thread::yield_now();
        }
    });
    unhurried(wait).await.unwrap();
}

async fn ask(system: &System, client: &mut Client) -> u16 {
    system.provider.json(200, CHAT_REPLY);
    client.post(CHAT_PATH, &[], CHAT).await;
    client.reply().await.status()
}

#[test]
fn in_sync_durability_the_last_bytes_of_a_reply_wait_for_its_record() {
    run(SYNC, |system| async move {
        system.hold_ledger();
        system.provider.json(200, CHAT_REPLY);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT).await;
        let head = client.head().await.unwrap();
        assert!(client.hears_nothing_for(Duration::from_secs(20)).await, "the body is not on disk yet");
        assert_eq!(journaled(&system), 0);
        system.release_ledger();
        let reply = unhurried(client.body(head)).await;
        assert_eq!(reply.text(), CHAT_REPLY);
        assert_eq!(journaled(&system), 1);
        assert_eq!(system.records().await.len(), 1);
    });
}

#[test]
fn in_sync_durability_a_stream_flows_and_only_its_end_waits() {
    run(SYNC, |system| async move {
        system.hold_ledger();
        system.provider.sse(&EVENTS);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT_STREAM).await;
        let head = client.head().await.unwrap();
        assert!(client.sees("[DONE]").await, "the client has all there is to read");
        assert!(!client.sees_within("0\r\n\r\n", Duration::from_secs(20)).await, "but not the end");
        system.release_ledger();
        let reply = unhurried(client.body(head)).await;
        assert_eq!((reply.text(), reply.whole), ([EVENT_ONE, EVENT_TWO, EVENT_DONE].concat(), true));
        assert_eq!(journaled(&system), 1);
    });
}

#[test]
fn in_sync_durability_every_whole_reply_has_its_record_in_the_journal() {
    run(SYNC, |system| async move {
        let mut client = system.client();
        for n in 1..=20 {
            assert_eq!(unhurried(ask(&system, &mut client)).await, 200);
            assert_eq!(journaled(&system), n);
        }
    });
}

#[test]
fn in_group_durability_no_reply_waits_for_the_ledger() {
    run("", |system| async move {
        system.hold_ledger();
        let mut client = system.client();
        for _ in 0..10 {
            assert_eq!(ask(&system, &mut client).await, 200);
        }
        assert_eq!(journaled(&system), 0);
        assert_eq!(system.records().await.len(), 10);
    });
}

/// A sidecar whose ledger holds still with room for `left` more records.
pub(crate) async fn nearly_full(system: &System, left: usize) {
    system.hold_ledger();
    let mut client = system.client();
    assert_eq!(ask(system, &mut client).await, 200);
    // The writer has one record in hand; the queue is empty.
    writer_has_taken_all(system).await;
    for _ in 0..QUEUE - left {
        assert_eq!(ask(system, &mut client).await, 200);
    }
    assert_eq!(system.app.ledger.stats().queue_entries, QUEUE - left);
}

pub(crate) fn small_queue(fail: &str) -> Setup {
    let mut setup = Setup::new(&format!("ledger: {{ queue_entries_max: {QUEUE}, fail: {fail} }}"));
    setup.group_records_max = 1;
    setup
}

#[test]
fn a_full_queue_lets_traffic_flow_and_counts_the_gap_when_open() {
    small_queue("open").run(|system| async move {
        nearly_full(&system, 0).await;
        let mut client = system.client();
        for _ in 0..3 {
            assert_eq!(ask(&system, &mut client).await, 200);
        }
        assert_eq!(system.metric("bursar_records_lost_total"), 3);
        system.release_ledger();
        writer_has_taken_all(&system).await;
        assert_eq!(ask(&system, &mut client).await, 200);
        assert_eq!(system.metric("bursar_records_lost_total"), 3, "it goes on by itself");
        assert_eq!(system.records().await.len(), QUEUE + 2);
    });
}

#[test]
fn a_full_queue_refuses_with_503_in_each_providers_shape_when_closed() {
    small_queue("closed").run(|system| async move {
        nearly_full(&system, 0).await;
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.header("retry-after")), (503, Some("5")));
        assert_eq!(reply.json()["error"]["code"], "ledger_unavailable");
        client.post(MESSAGES_PATH, &[], MESSAGES).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), &reply.json()["error"]["type"]), (503, &"overloaded_error".into()));
        assert_eq!(system.provider.received().len(), QUEUE + 1, "nothing more reached the upstream");
        assert_eq!(system.metric("bursar_records_lost_total"), 0);

        system.release_ledger();
        writer_has_taken_all(&system).await;
        assert_eq!(ask(&system, &mut client).await, 200);
        assert_eq!(system.records().await.len(), QUEUE + 2);
    });
}

#[test]
fn when_closed_no_more_is_let_in_than_will_find_room_at_its_end() {
    small_queue("closed").run(|system| async move {
        nearly_full(&system, 2).await;
        let mut clients = Vec::new();
        let mut refused = 0;
        for _ in 0..5 {
            system.provider.script([bursar_tests::Step::Stall]);
            let mut client = system.client();
            client.post(CHAT_PATH, &[], CHAT).await;
            if client.hears_nothing_for(Duration::from_secs(1)).await {
                clients.push(client);
            } else {
                assert_eq!(client.reply().await.status(), 503);
                refused += 1;
            }
        }
        assert_eq!((clients.len(), refused), (2, 3));
        drop(clients);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(system.metric("bursar_records_lost_total"), 0);
        assert_eq!(system.records().await.len(), QUEUE + 1);
    });
}

#[test]
fn when_closed_a_burst_on_one_http2_connection_is_let_in_only_as_far_as_there_is_room() {
    small_queue("closed").run(|system| async move {
        nearly_full(&system, 3).await;
        // Whatever is let in stays, so that an answer is a refusal.
        for _ in 0..10 {
            system.provider.script([bursar_tests::Step::Stall]);
        }
        let mut client = system.frames(&[]).await;
        // All heads before any body: each is admitted before another has got anywhere.
        for stream in (1..=19).step_by(2) {
            client.post(stream, CHAT_PATH).await;
        }
        for stream in (1..=19).step_by(2) {
            client.send(kind::DATA, END_STREAM, stream, CHAT.as_bytes()).await;
        }
        for _ in 0..7 {
            assert!(client.until_within(kind::HEADERS, Duration::from_secs(1)).await.is_some(), "let in");
        }
        assert_eq!(client.until_within(kind::HEADERS, Duration::from_secs(1)).await, None, "refused");
        assert_eq!(system.provider.received().len(), QUEUE - 3 + 1 + 3);
        drop(client);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(system.metric("bursar_records_lost_total"), 0);
        assert_eq!(system.records().await.len(), QUEUE + 1);
    });
}

#[test]
fn when_closed_a_request_that_is_never_sent_gives_its_place_back() {
    small_queue("closed").run(|system| async move {
        nearly_full(&system, 1).await;
        for _ in 0..3 {
            let mut client = system.client();
            client.begin(CHAT_PATH, &[]).await;
            client.send(b"not a chunk\r\n").await;
            assert_eq!(client.reply().await.status(), 400);
        }
        let mut client = system.client();
        assert_eq!(ask(&system, &mut client).await, 200);
        assert_eq!(system.metric("bursar_records_lost_total"), 0);
    });
}

#[test]
fn when_open_no_places_are_kept() {
    small_queue("open").run(|system| async move {
        nearly_full(&system, 0).await;
        let mut client = system.client();
        assert_eq!(ask(&system, &mut client).await, 200);
    });
}

// === at ledger.bytes_max ===

/// A ledger of small segments, so that it needs room soon.
fn small_segments(fail: &str) -> Setup {
    Setup { machine: Some(Machine::new()), ..small_queue(fail) }
}

/// Waits until the writer has nothing to do or no room.
async fn writer_rests(system: &System) {
    let ledger = system.app.ledger.clone();
    let wait = tokio::task::spawn_blocking(move || {
        while ledger.stats().queue_entries > 0 && !ledger.is_troubled() {
            std::thread::yield_now();
        }
    });
    unhurried(wait).await.unwrap();
}

/// Takes all room from the ledger, and asks until it says so; returns how many requests passed.
async fn at_the_bound(system: &System) -> usize {
    let mut client = system.client();
    system.app.ledger.limit_bytes(Some(1));
    let mut passed = 0;
    while !system.app.ledger.is_troubled() {
        match ask(system, &mut client).await {
            200 => passed += 1,
            status => assert_eq!((status, system.app.ledger.is_troubled()), (503, true)),
        }
        writer_rests(system).await;
    }
    passed
}

/// Gives the ledger room again, and waits until it has written what came meanwhile.
async fn has_room_again(system: &System) {
    system.app.ledger.limit_bytes(None);
    system.settled().await;
}

#[test]
fn at_its_bound_an_open_ledger_lets_traffic_flow_and_has_all_of_it_when_there_is_room() {
    small_segments("open").run(|system| async move {
        let mut passed = at_the_bound(&system).await;
        let mut client = system.client();
        for _ in 0..10 {
            assert_eq!(ask(&system, &mut client).await, 200);
            passed += 1;
        }
        assert!(journaled(&system) < passed);
        assert_eq!(system.metric("bursar_ledger_healthy"), 0);
        assert_eq!(system.metric("bursar_ledger_bytes_max"), 1);
        has_room_again(&system).await;
        assert_eq!(system.metric("bursar_records_lost_total"), 0);
        assert_eq!(system.metric("bursar_ledger_healthy"), 1);
        assert_eq!(system.records().await.len(), passed);
    });
}

#[test]
fn at_its_bound_a_closed_ledger_refuses_and_loses_nothing_of_what_was_let_in() {
    small_segments("closed").run(|system| async move {
        let passed = at_the_bound(&system).await;
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.header("retry-after")), (503, Some("5")));
        assert_eq!(reply.json()["error"]["code"], "ledger_unavailable");
        assert_eq!(system.provider.received().len(), passed, "nothing more reached the upstream");
        has_room_again(&system).await;
        assert_eq!(journaled(&system), passed);
        assert_eq!(ask(&system, &mut client).await, 200);
        assert_eq!(system.metric("bursar_records_lost_total"), 0);
        assert_eq!(system.records().await.len(), passed + 1);
    });
}
