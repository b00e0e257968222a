//! Realtime sessions: a WebSocket is tunnelled byte for byte and each response leaves its record.

use crate::ledger_modes::{nearly_full, small_queue};
use crate::transcripts::{CHAT, CHAT_PATH, CHAT_REPLY};
use bursar_domain::{Label, Metering, Outcome, TokenClass, UsageRecord, UsageSource};
use bursar_ledger::StoredRecord;
use bursar_tests::provider::reply;
use bursar_tests::{Client, Step, System, run, unhurried, until};
use http::Version;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;

const PATH: &str = "/openai/v1/realtime?model=gpt-realtime";
const LIVE_PATH: &str =
    "/gemini/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent?key=k";

const HANDSHAKE: [(&str, &str); 6] = [
    ("connection", "keep-alive, Upgrade"),
    ("upgrade", "WebSocket"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-version", "13"),
    ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
    ("sec-websocket-protocol", "realtime"),
];

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nsec-websocket-protocol: realtime\r\n\
    x-request-id: req_ws\r\n\r\n";

const CREATED: &str = r#"{"type":"session.created","session":{"id":"sess_1","model":"gpt-realtime"}}"#;
const BEGINS: &str = r#"{"type":"response.created","response":{"id":"resp_1","output":[],"usage":null}}"#;
const DONE: &str = r#"{"type":"response.done","response":{"id":"resp_1","status":"completed","output":[],"usage":{"total_tokens":300,"input_tokens":200,"output_tokens":100,"input_token_details":{"text_tokens":100,"audio_tokens":100,"cached_tokens":64,"cached_tokens_details":{"text_tokens":24,"audio_tokens":40}},"output_token_details":{"text_tokens":30,"audio_tokens":70}}}}"#;
const CREATE: &str = r#"{"type":"response.create"}"#;

/// A server's text message.
fn message(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x81, 126];
    bytes.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

/// A client's text message. Its mask is zero, so that the provider sees the text.
fn from_client(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x81, 0xfe];
    bytes.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(text.as_bytes());
    bytes
}

const CLIENT_CLOSES: &[u8] = b"\x88\x82\0\0\0\0\x03\xe8";
const SERVER_CLOSES: &[u8] = b"\x88\x02\x03\xe8";

fn switching(messages: &[&str]) -> Step {
    let mut bytes = SWITCHING.as_bytes().to_vec();
    bytes.extend(messages.iter().flat_map(|text| message(text)));
    Step::Send(bytes)
}

/// Opens a session and reads the head of the answer.
async fn open(system: &System, path: &str) -> Client {
    let mut client = system.client();
    client.ask("GET", path, &HANDSHAKE).await;
    let head = client.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client
}

fn records_of(records: &[StoredRecord]) -> Vec<&UsageRecord> {
    records.iter().map(|stored| &stored.record).collect()
}

fn ending(record: &UsageRecord) -> (Outcome, Metering, UsageSource) {
    (record.outcome, record.metering, record.usage_source)
}

fn text(label: Option<&Label>) -> Option<&str> {
    label.map(Label::as_str)
}

#[test]
fn a_session_is_tunnelled_byte_for_byte_and_each_response_has_its_record() {
    run("", |system| async move {
        let second = DONE.replace("resp_1", "resp_2");
        let go_on = Rc::new(Notify::new());
        system.provider.script([
            switching(&[CREATED, BEGINS]),
            Step::Until(go_on.clone()),
            Step::Hear(from_client(CREATE)),
            Step::Send([message(DONE), b"\x89\x02hi".to_vec(), message(&second)].concat()),
            Step::Hear(CLIENT_CLOSES.to_vec()),
            Step::Send(SERVER_CLOSES.to_vec()),
            Step::Stall,
        ]);
        let mut client = system.client();
        let own = [("x-bursar-team", "voice"), ("authorization", "Bearer key")];
        client.ask("GET", PATH, &[HANDSHAKE.as_slice(), own.as_slice()].concat()).await;
        let head = client.head().await.unwrap();
        for line in [
            "HTTP/1.1 101",
            "connection: Upgrade\r\n",
            "upgrade: websocket\r\n",
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        ] {
            assert!(head.contains(line), "{head}");
        }
        let id = bursar_tests::provider::header(&head, "x-bursar-request-id").unwrap().to_owned();
        client.send(&from_client(CREATE)).await;
        let expected = [message(CREATED), message(BEGINS)].concat();
        assert_eq!(client.raw(expected.len()).await, expected);
        system.clock.advance(2_000_000);
        go_on.notify_one();
        let expected = [message(DONE), b"\x89\x02hi".to_vec(), message(&second)].concat();
        assert_eq!(client.raw(expected.len()).await, expected);
        client.send(CLIENT_CLOSES).await;
        assert_eq!(client.raw(SERVER_CLOSES.len()).await, SERVER_CLOSES);
        drop(client);
        let provider = system.provider.clone();
        until("the upstream connection is closed", || provider.open() == 0).await;

        let request = &system.provider.received()[0];
        assert_eq!(request.line(), "GET /v1/realtime?model=gpt-realtime HTTP/1.1");
        for (name, value) in [
            ("host", Some("provider.test")),
            ("connection", Some("Upgrade")),
            ("upgrade", Some("websocket")),
            ("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25jZQ==")),
            ("sec-websocket-version", Some("13")),
            ("sec-websocket-protocol", Some("realtime")),
            ("sec-websocket-extensions", None),
            ("authorization", Some("Bearer key")),
            ("x-bursar-team", None),
            ("content-length", None),
        ] {
            assert_eq!(request.header(name), value, "{name}");
        }

        let stored = system.records().await;
        let [first, second] = records_of(&stored)[..] else { panic!("{stored:#?}") };
        assert_eq!(first.id.to_string(), id, "the first record has the id that the client was told");
        assert_ne!(first.id, second.id);
        for (record, response) in [(first, "resp_1"), (second, "resp_2")] {
            assert_eq!(ending(record), (Outcome::Ok, Metering::Count, UsageSource::Provider));
            assert_eq!(text(record.meter_id.as_ref()), Some(response));
            assert_eq!(text(record.identity.session.as_ref()), Some(id.as_str()));
            assert_eq!(text(record.identity.team.as_ref()), Some("voice"));
            assert_eq!(text(record.model_requested.as_ref()), Some("gpt-realtime"));
            assert_eq!(text(record.model_served.as_ref()), Some("gpt-realtime"));
            assert_eq!(text(record.upstream_request_id.as_ref()), Some("req_ws"));
            assert_eq!(
                (record.api.as_str(), record.http_status, record.stream),
                ("realtime", Some(101), true)
            );
            assert_eq!(record.usage.get(TokenClass::InputAudio), Some(60));
            assert_eq!(record.usage.get(TokenClass::CachedAudio), Some(40));
            assert!(record.anomalies.is_empty());
        }
        assert_eq!((first.latency_us, second.latency_us), (2_000_000, 0));
        assert_eq!(first.bytes_in, from_client(CREATE).len() as u64);
        let passed = [CREATED, BEGINS, DONE, DONE].map(|text| text.len() as u64 + 4);
        assert_eq!(first.bytes_out + second.bytes_out, passed.iter().sum::<u64>() + 4);
    });
}

#[test]
fn a_live_session_names_its_model_in_its_first_message() {
    run("", |system| async move {
        let usage = r#"{"usageMetadata":{"promptTokenCount":10,"responseTokenCount":5,"thoughtsTokenCount":3,"totalTokenCount":15}}"#;
        let setup = from_client(r#"{"setup":{"model":"models/gemini-live-2.5-flash"}}"#);
        system.provider.script([
            switching(&[]),
            Step::Hear(setup.clone()),
            Step::Send(message(usage)),
            Step::Send(SERVER_CLOSES.to_vec()),
            Step::Close,
        ]);
        let mut client = open(&system, LIVE_PATH).await;
        client.send(&setup).await;
        assert!(client.sees("usageMetadata").await);
        drop(client);
        let record = system.record().await;
        assert_eq!(text(record.model_requested.as_ref()), Some("gemini-live-2.5-flash"));
        assert_eq!((record.usage.input_total(), record.usage.output_total()), (Some(10), Some(8)));
        assert_eq!((record.api.as_str(), ending(&record).1), ("realtime", Metering::Count));
    });
}

#[test]
fn an_upstream_that_refuses_answers_for_itself_and_the_connection_goes_on() {
    run("", |system| async move {
        let refusal = br#"{"error":{"message":"no such key"}}"#;
        system.provider.reply(401, &[("content-type", "application/json")], refusal);
        system.provider.json(200, CHAT_REPLY);
        let mut client = system.client();
        client.ask("GET", PATH, &HANDSHAKE).await;
        let answer = client.reply().await;
        assert_eq!((answer.status(), answer.body.as_slice()), (401, refusal.as_slice()));
        client.post(CHAT_PATH, &[], CHAT).await;
        assert_eq!(client.reply().await.status(), 200);
        assert_eq!(system.provider.connections(), 2, "the handshake's connection is not pooled");
        let stored = system.records().await;
        let record = records_of(&stored)[0];
        assert_eq!(ending(record), (Outcome::Error, Metering::Never, UsageSource::Absent));
        assert_eq!((record.http_status, record.api.as_str()), (Some(401), "realtime"));
        assert_eq!(text(record.model_requested.as_ref()), Some("gpt-realtime"));
        assert_eq!(stored.len(), 2);
    });
}

#[test]
fn a_malformed_handshake_is_refused_and_nothing_reaches_the_upstream() {
    for (without, with, status) in [
        ("connection", None, 400),
        ("sec-websocket-key", None, 400),
        ("sec-websocket-key", Some(("sec-websocket-key", "short")), 400),
        ("sec-websocket-version", None, 426),
        ("sec-websocket-version", Some(("sec-websocket-version", "8")), 426),
    ] {
        run("", |system| async move {
            let mut headers: Vec<_> = HANDSHAKE.into_iter().filter(|(name, _)| *name != without).collect();
            headers.extend(with);
            let mut client = system.client();
            client.ask("GET", PATH, &headers).await;
            let reply = client.reply().await;
            assert_eq!(
                (reply.status(), reply.json()["error"]["code"].as_str()),
                (status, Some("bad_handshake"))
            );
            assert_eq!(reply.header("sec-websocket-version"), (status == 426).then_some("13"));
            assert!(client.closed().await);
            assert_eq!(system.provider.connections(), 0);
            assert_eq!(system.records().await.len(), 0);
        });
    }
}

#[test]
fn an_upstream_that_cannot_be_reached_or_stays_silent_is_told_in_the_providers_shape() {
    run("", |system| async move {
        system.provider.refuse();
        let mut client = system.client();
        client.ask("GET", PATH, &HANDSHAKE).await;
        let reply = client.reply().await;
        assert_eq!(
            (reply.status(), reply.json()["error"]["code"].as_str()),
            (502, Some("upstream_unreachable"))
        );
        let record = system.record().await;
        assert_eq!(ending(&record), (Outcome::Error, Metering::Never, UsageSource::Absent));
    });
    run("upstream: { response_head: 20s }", |system| async move {
        system.provider.script([Step::Stall]);
        let mut client = system.client();
        client.ask("GET", PATH, &HANDSHAKE).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.json()["error"]["code"].as_str()), (504, Some("upstream_timeout")));
        assert_eq!(system.record().await.outcome, Outcome::Error);
    });
}

#[test]
fn an_upstream_that_switches_to_something_else_is_502() {
    run("", |system| async move {
        let other = SWITCHING.replace("upgrade: websocket", "upgrade: h2c");
        system.provider.script([Step::Send(other.into_bytes()), Step::Stall]);
        let mut client = system.client();
        client.ask("GET", PATH, &HANDSHAKE).await;
        assert_eq!(client.reply().await.status(), 502);
        assert_eq!(system.record().await.outcome, Outcome::Error);
    });
}

#[test]
fn a_client_that_leaves_ends_the_session_and_its_open_response_is_aborted() {
    run("", |system| async move {
        system.provider.script([switching(&[CREATED, BEGINS]), Step::Stall]);
        let mut client = open(&system, PATH).await;
        assert!(client.sees("resp_1").await);
        drop(client);
        let provider = system.provider.clone();
        until("the upstream connection is closed", || provider.open() == 0).await;
        let record = system.record().await;
        assert_eq!(ending(&record), (Outcome::Aborted, Metering::Count, UsageSource::Absent));
        assert_eq!(text(record.meter_id.as_ref()), Some("resp_1"));
    });
}

#[test]
fn a_client_that_leaves_before_the_answer_is_aborted() {
    run("", |system| async move {
        let go_on = Rc::new(Notify::new());
        system.provider.script([Step::Until(go_on.clone()), switching(&[CREATED]), Step::Stall]);
        let mut client = system.client();
        client.ask("GET", PATH, &HANDSHAKE).await;
        let provider = system.provider.clone();
        until("the handshake arrives", || provider.received().len() == 1).await;
        drop(client);
        go_on.notify_one();
        until("the upstream connection is closed", || provider.open() == 0).await;
        let record = system.record().await;
        assert_eq!((record.outcome, record.metering), (Outcome::Aborted, Metering::Never));
    });
}

#[test]
fn an_upstream_that_breaks_off_ends_the_session_and_the_client_hears_it() {
    run("", |system| async move {
        system.provider.script([switching(&[CREATED, DONE, BEGINS]), Step::Close]);
        let mut client = open(&system, PATH).await;
        let expected = [message(CREATED), message(DONE), message(BEGINS)].concat();
        assert_eq!(client.rest().await, expected, "all that came, and then the end");
        drop(client);
        let stored = system.records().await;
        let [done, open] = records_of(&stored)[..] else { panic!("{stored:#?}") };
        assert_eq!(ending(done), (Outcome::Ok, Metering::Count, UsageSource::Provider));
        assert_eq!(ending(open), (Outcome::ErrorMidstream, Metering::Count, UsageSource::Absent));
    });
}

#[test]
fn the_last_response_is_recorded_when_it_comes_behind_the_clients_close() {
    run("", |system| async move {
        let go_on = Rc::new(Notify::new());
        system.provider.script([
            switching(&[CREATED, BEGINS]),
            Step::Until(go_on.clone()),
            Step::Send([message(DONE), SERVER_CLOSES.to_vec()].concat()),
            Step::Close,
        ]);
        let mut client = open(&system, PATH).await;
        assert!(client.sees("resp_1").await);
        client.send(CLIENT_CLOSES).await;
        client.finish().await;
        go_on.notify_one();
        assert!(client.sees("response.done").await);
        drop(client);
        let record = system.record().await;
        assert_eq!(ending(&record), (Outcome::Ok, Metering::Count, UsageSource::Provider));
    });
}

#[test]
fn a_session_in_which_nothing_passes_is_ended_after_the_idle_time() {
    run("upstream: { idle: 10s }", |system| async move {
        system.provider.script([
            switching(&[CREATED]),
            Step::Wait(Duration::from_secs(8)),
            Step::Send(b"\x89\0".to_vec()),
            Step::Stall,
        ]);
        let mut client = open(&system, PATH).await;
        let start = tokio::time::Instant::now();
        client.rest().await;
        let took = start.elapsed().as_secs();
        // The timer is looked at when it fires: the silence is between one and two idle times.
        assert!((18..=28).contains(&took), "{took}");
        let record = system.record().await;
        assert_eq!((record.outcome, record.metering), (Outcome::ErrorMidstream, Metering::Never));
    });
}

#[test]
fn a_session_may_end_by_itself_within_the_drain_time_and_is_cut_after_it() {
    for ends_by_itself in [true, false] {
        run("server: { timeouts: { drain: 7s } }", |system| async move {
            let go_on = Rc::new(Notify::new());
            system.provider.script([
                switching(&[CREATED, BEGINS]),
                Step::Until(go_on.clone()),
                Step::Send([message(DONE), SERVER_CLOSES.to_vec()].concat()),
                Step::Close,
            ]);
            let mut client = open(&system, PATH).await;
            assert!(client.sees("resp_1").await);
            let worker = Rc::clone(&system.worker);
            let drained = tokio::task::spawn_local(async move {
                let start = tokio::time::Instant::now();
                worker.drain(worker.drain_time()).await;
                worker.settled().await;
                start.elapsed()
            });
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(!drained.is_finished());
            if ends_by_itself {
                go_on.notify_one();
                assert!(client.sees("response.done").await);
                drop(client);
                assert_eq!(drained.await.unwrap().as_secs(), 2);
                assert_eq!(system.record().await.outcome, Outcome::Ok);
            } else {
                client.rest().await;
                assert_eq!(drained.await.unwrap().as_secs(), 7);
                go_on.notify_one();
                assert_eq!(system.record().await.outcome, Outcome::Aborted);
            }
        });
    }
}

#[test]
fn a_client_that_does_not_read_slows_the_upstream() {
    run("", |system| async move {
        let audio = "A".repeat(60_000);
        let delta = message(&format!(r#"{{"type":"response.output_audio.delta","delta":"{audio}"}}"#));
        let mut steps = vec![switching(&[CREATED])];
        steps.extend((0..100).map(|_| Step::Send(delta.clone())));
        steps.push(Step::Send(SERVER_CLOSES.to_vec()));
        steps.push(Step::Close);
        system.provider.script(steps);
        let mut client = open(&system, PATH).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Two in-memory pipes of 64 KiB and one buffer of the tunnel.
        assert!(system.provider.sent() <= 200 * 1024, "{}", system.provider.sent());
        let all = client.rest().await;
        assert_eq!(all.len(), message(CREATED).len() + 100 * delta.len() + SERVER_CLOSES.len());
        drop(client);
        assert_eq!(system.record().await.metering, Metering::Never);
    });
}

#[test]
fn in_sync_durability_the_client_sees_the_end_of_a_response_when_it_is_on_disk() {
    run("ledger: { durability: sync }", |system| async move {
        let second = Duration::from_secs(1);
        let steps = [switching(&[CREATED]), Step::Wait(second), Step::Send(message(DONE)), Step::Stall];
        system.provider.script(steps);
        system.hold_ledger();
        let mut client = open(&system, PATH).await;
        assert!(client.sees("session.created").await);
        assert!(!client.sees_within("response.done", Duration::from_secs(20)).await);
        system.release_ledger();
        assert!(unhurried(client.sees("response.done")).await);
        drop(client);
        assert_eq!(system.record().await.outcome, Outcome::Ok);
    });
}

#[test]
fn what_cannot_be_read_still_passes_and_is_recorded_as_unknown() {
    run("", |system| async move {
        let deflated = b"\xc1\x03abc".to_vec();
        system.provider.script([switching(&[CREATED]), Step::Send(deflated.clone()), Step::Close]);
        let mut client = open(&system, PATH).await;
        assert_eq!(client.rest().await, [message(CREATED), deflated].concat());
        drop(client);
        let record = system.record().await;
        assert_eq!((record.metering, record.usage_source), (Metering::Count, UsageSource::Absent));
        assert!(record.anomalies.contains(bursar_domain::Anomaly::MeteringCapped));
    });
}

#[test]
fn what_a_client_sends_before_the_answer_is_refused_or_passed_on_in_order() {
    run("", |system| async move {
        let go_on = Rc::new(Notify::new());
        system.provider.script([
            Step::Until(go_on.clone()),
            switching(&[CREATED]),
            Step::Hear(from_client(CREATE)),
            Step::Stall,
        ]);
        let mut client = system.client();
        client.ask("GET", PATH, &HANDSHAKE).await;
        // No request begins like this: the guard cannot let it pass.
        client.send(&from_client(CREATE)).await;
        let provider = system.provider.clone();
        until("the handshake arrives", || provider.received().len() == 1).await;
        go_on.notify_one();
        let answer = client.head().await.unwrap();
        let is_refused = answer.starts_with("HTTP/1.1 400 ");
        assert!(is_refused || provider.has_seen(CREATE), "{answer}");
        drop(client);
        assert_eq!(system.records().await.len(), 1);
    });
}

#[test]
fn a_websocket_over_http2_is_refused() {
    run("", |system| async move {
        let mut client = system.http2_client().await;
        let request = http::Request::connect("http://sidecar").version(Version::HTTP_2);
        let response = client.open(request.body(Vec::new()).unwrap()).await;
        assert!(response.is_err() || response.is_ok_and(|reply| reply.status() == 501));
        assert_eq!(system.provider.connections(), 0);
        assert_eq!(system.records().await.len(), 0);
    });
}

#[test]
fn an_upgrade_without_a_websocket_behind_it_is_an_ordinary_reply() {
    run("", |system| async move {
        system.provider.script([Step::Send(reply(200, &[], b"no"))]);
        let mut client = system.client();
        client.ask("GET", PATH, &HANDSHAKE).await;
        let answer = client.reply().await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, "no"));
        assert_eq!(system.record().await.metering, Metering::Never);
    });
}

#[test]
fn when_closed_a_session_ends_when_there_is_no_place_for_its_next_record() {
    small_queue("closed").run(|system| async move {
        nearly_full(&system, 2).await;
        let go_on = Rc::new(Notify::new());
        let [second, third] = ["resp_2", "resp_3"].map(|id| Step::Send(message(&DONE.replace("resp_1", id))));
        system.provider.script([
            switching(&[CREATED, BEGINS]),
            Step::Send(message(DONE)),
            Step::Until(go_on.clone()),
            second,
            Step::Wait(Duration::from_secs(1)),
            third,
            Step::Stall,
        ]);
        let mut client = open(&system, PATH).await;
        let expected = [message(CREATED), message(BEGINS), message(DONE)].concat();
        assert_eq!(
            client.raw(expected.len()).await,
            expected,
            "there was a place for the second record, too"
        );
        go_on.notify_one();
        let rest = client.rest().await;
        assert!(!rest.windows(6).any(|window| window == b"resp_3"), "it went on without a place");
        assert_eq!(system.metric("bursar_records_lost_total"), 0);
    });
}

#[test]
fn a_session_holds_each_response_and_ends_when_the_next_does_not_fit() {
    // A response holds 500 tokens of output and the input of the last one, which is 200.
    let settings = "upstream: { idle: 3h }\nreserve: { max_output: 500 }\nbudgets:\n  \
                    - { name: b, scope: { model: gpt-realtime }, window: day, limit: 1200 tokens }\n";
    run(settings, |system| async move {
        let (first, second) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        system.provider.script([
            switching(&[CREATED, BEGINS]),
            Step::Until(first.clone()),
            Step::Send(message(DONE)),
            Step::Until(second.clone()),
            Step::Send(message(&DONE.replace("resp_1", "resp_2"))),
            Step::Stall,
        ]);
        let mut client = open(&system, PATH).await;
        let _ = client.raw(message(CREATED).len() + message(BEGINS).len()).await;
        let (budgets, now) = (std::sync::Arc::clone(&system.app.budgets), system.app.now());
        let standing = || budgets.standing(0, now).unwrap();
        assert_eq!(standing().held, 500);
        // Longer than a hold lasts that nobody keeps.
        tokio::time::advance(Duration::from_secs(7_000)).await;
        assert_eq!(standing().held, 500);
        first.notify_one();
        let _ = client.raw(message(DONE).len()).await;
        system.settled().await;
        assert_eq!((standing().settled, standing().held), (300, 700));
        second.notify_one();
        let provider = system.provider.clone();
        until("the session is ended", || provider.open() == 0).await;
        assert_eq!(system.metric("bursar_requests_refused_total{reason=\"budget_exceeded\"}"), 1);
        drop(client);
        let records = system.records().await;
        assert_eq!(records.len(), 2, "{records:#?}");
        assert_eq!((standing().settled, standing().held), (600, 0));
    });
}
