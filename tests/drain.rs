//! Stopping: what runs may end, what idles is closed, and what is cut says so.

use crate::transcripts::{
    CHAT, CHAT_PATH, CHAT_REPLY, CHAT_STREAM, EVENT_DONE, EVENT_ONE, EVENT_TWO, EVENT_USAGE,
};
use bursar_domain::{Outcome, UsageSource};
use bursar_tests::http2::post;
use bursar_tests::provider::{SSE_HEAD, reply};
use bursar_tests::{Step, System, chunk, run, until};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Begins to drain; what comes back is how long that took.
fn drain(system: &System) -> JoinHandle<Duration> {
    let worker = Rc::clone(&system.worker);
    tokio::task::spawn_local(async move {
        let start = Instant::now();
        worker.drain(worker.drain_time()).await;
        worker.settled().await;
        start.elapsed()
    })
}

/// A stream that waits for `go_on` after its first event.
fn stream(go_on: &Rc<Notify>) -> Vec<Step> {
    let mut steps = vec![
        Step::Send(SSE_HEAD.to_vec()),
        Step::Send(chunk(EVENT_ONE.as_bytes())),
        Step::Until(go_on.clone()),
    ];
    steps.extend([EVENT_TWO, EVENT_USAGE, EVENT_DONE].map(|event| Step::Send(chunk(event.as_bytes()))));
    steps.push(Step::Send(b"0\r\n\r\n".to_vec()));
    steps
}

#[test]
fn a_stream_ends_by_itself_within_the_drain_time() {
    run("", |system| async move {
        let go_on = Rc::new(Notify::new());
        system.provider.script(stream(&go_on));
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT_STREAM).await;
        assert!(client.sees("Hel").await);
        let drained = drain(&system);
        tokio::time::sleep(Duration::from_secs(28)).await;
        assert!(!drained.is_finished());
        go_on.notify_one();
        let reply = client.reply().await;
        assert!(reply.whole);
        assert!(client.closed().await, "the connection is not kept");
        assert!(drained.await.unwrap() < Duration::from_secs(30));
        assert_eq!(system.record().await.outcome, Outcome::Ok);
    });
}

#[test]
fn a_reply_that_has_not_begun_ends_by_itself_and_says_that_the_connection_closes() {
    run("", |system| async move {
        system.provider.script([
            Step::Wait(Duration::from_secs(10)),
            Step::Send(reply(200, &[], CHAT_REPLY.as_bytes())),
        ]);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT).await;
        let provider = system.provider.clone();
        until("the request arrives", || provider.received().len() == 1).await;
        let drained = drain(&system);
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.header("connection")), (200, Some("close")));
        assert!(drained.await.unwrap() < Duration::from_secs(11));
        assert_eq!(system.record().await.outcome, Outcome::Ok);
    });
}

#[test]
fn connections_that_idle_or_never_spoke_are_closed_when_they_have_been_silent_for_a_second() {
    run("", |system| async move {
        system.provider.json(200, CHAT_REPLY);
        let mut idle = system.client();
        idle.post(CHAT_PATH, &[], CHAT).await;
        assert_eq!(idle.reply().await.status(), 200);
        let mut silent = system.client();
        let mut http2 = system.http2_client().await;
        system.provider.json(200, CHAT_REPLY);
        assert_eq!(http2.send(post(CHAT_PATH, &[], CHAT)).await.head.status(), 200);
        let drained = drain(&system);
        assert!(idle.closed().await);
        assert!(silent.closed().await);
        let took = drained.await.unwrap();
        assert!(took < Duration::from_millis(1500), "{took:?}");
        assert_eq!(system.records().await.len(), 2);
    });
}

#[test]
fn connections_that_were_silent_for_long_are_closed_at_once() {
    run("", |system| async move {
        system.provider.json(200, CHAT_REPLY);
        let mut idle = system.client();
        idle.post(CHAT_PATH, &[], CHAT).await;
        assert_eq!(idle.reply().await.status(), 200);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(drain(&system).await.unwrap() < Duration::from_millis(100));
        assert!(idle.closed().await);
        assert_eq!(system.records().await.len(), 1);
    });
}

#[test]
fn a_request_that_crosses_the_beginning_of_the_drain_is_served_and_its_reply_is_the_last() {
    run("", |system| async move {
        for _ in 0..3 {
            system.provider.json(200, CHAT_REPLY);
        }
        let mut idle = system.client();
        idle.post(CHAT_PATH, &[], CHAT).await;
        let reply = idle.reply().await;
        assert_eq!((reply.status(), reply.header("connection")), (200, None));
        let mut fresh = system.client();
        let drained = drain(&system);
        tokio::time::sleep(Duration::from_millis(500)).await;
        for client in [&mut idle, &mut fresh] {
            client.post(CHAT_PATH, &[], CHAT).await;
            let reply = client.reply().await;
            assert_eq!((reply.status(), reply.header("connection")), (200, Some("close")));
            assert!(client.closed().await);
        }
        drained.await.unwrap();
        assert_eq!(system.records().await.len(), 3);
    });
}

#[test]
fn the_request_behind_a_stream_that_was_under_way_is_served_too() {
    run("", |system| async move {
        let go_on = Rc::new(Notify::new());
        system.provider.script(stream(&go_on));
        system.provider.json(200, CHAT_REPLY);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT_STREAM).await;
        // Its head was sent before anybody knew.
        let head = client.head().await.unwrap();
        let drained = drain(&system);
        tokio::time::sleep(Duration::from_secs(5)).await;
        go_on.notify_one();
        assert!(client.body(head).await.whole);
        client.post(CHAT_PATH, &[], CHAT).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.header("connection")), (200, Some("close")));
        drained.await.unwrap();
        assert_eq!(system.records().await.len(), 2);
    });
}

#[test]
fn a_refusal_while_draining_says_that_the_connection_closes_too() {
    run("", |system| async move {
        let mut client = system.client();
        let drained = drain(&system);
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.ask("GET", "/nowhere", &[]).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.header("connection")), (404, Some("close")));
        assert!(client.closed().await);
        drained.await.unwrap();
        drop(system.close().await);
    });
}

#[test]
fn the_end_of_the_drain_time_cuts_and_the_record_says_aborted() {
    run("server: { timeouts: { drain: 7s } }", |system| async move {
        let go_on = Rc::new(Notify::new());
        system.provider.script(stream(&go_on));
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT_STREAM).await;
        assert!(client.sees("Hel").await);
        let took = drain(&system).await.unwrap();
        assert_eq!(took.as_secs(), 7);
        let reply = client.reply().await;
        assert!(!reply.whole);
        let provider = system.provider.clone();
        go_on.notify_one();
        until("the upstream connection is closed", || provider.open() == 0).await;
        let record = system.record().await;
        assert_eq!((record.outcome, record.usage_source), (Outcome::Aborted, UsageSource::Tokenizer));
    });
}

#[test]
fn a_second_signal_cuts_at_once_and_the_record_says_aborted() {
    run("", |system| async move {
        let go_on = Rc::new(Notify::new());
        system.provider.script(stream(&go_on));
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT_STREAM).await;
        assert!(client.sees("Hel").await);
        let drained = drain(&system);
        tokio::time::sleep(Duration::from_secs(1)).await;
        system.worker.end_all();
        assert!(drained.await.unwrap() < Duration::from_secs(2));
        assert!(!client.reply().await.whole);
        assert_eq!(system.record().await.outcome, Outcome::Aborted);
    });
}

#[test]
fn streams_of_an_http2_connection_end_by_themselves_and_new_ones_are_refused() {
    run("", |system| async move {
        let go_on = Rc::new(Notify::new());
        system.provider.script(stream(&go_on));
        let client = system.http2_client().await;
        let mut first = client.clone();
        let first =
            tokio::task::spawn_local(async move { first.send(post(CHAT_PATH, &[], CHAT_STREAM)).await });
        let provider = system.provider.clone();
        until("the request arrives", || provider.received().len() == 1).await;
        let drained = drain(&system);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mut second = client.clone();
        assert!(second.open(post(CHAT_PATH, &[], CHAT)).await.is_err());
        go_on.notify_one();
        assert!(first.await.unwrap().whole);
        assert!(drained.await.unwrap() < Duration::from_secs(7));
        assert_eq!(system.record().await.outcome, Outcome::Ok);
    });
}

#[test]
fn an_http2_stream_that_is_cut_leaves_its_record_too() {
    run("", |system| async move {
        let go_on = Rc::new(Notify::new());
        system.provider.script(stream(&go_on));
        let mut client = system.http2_client().await;
        let response = client.open(post(CHAT_PATH, &[], CHAT_STREAM)).await.unwrap();
        assert_eq!(response.status(), 200);
        let record = system.record().await;
        assert_eq!((record.outcome, record.http_status), (Outcome::Aborted, Some(200)));
    });
}
