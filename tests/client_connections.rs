//! The most connections that one client may have: refused at once beyond it, free again whatever ended one,
//! and nobody else's business.
//!
//! Not here: the most in all (`http_rules`), which addresses are one client (`proxy/src/clients.rs`), real
//! sockets and several workers (`proxy/tests/hostile_peers.rs`).

use crate::transcripts::{CHAT, CHAT_PATH, CHAT_REPLY};
use bursar_tests::provider::reply;
use bursar_tests::{Client, Http2Client, Step, System, http2, run, until};
use std::net::IpAddr;
use std::time::Duration;

const ONE_EACH: &str = "server: { limits: { connections_per_client_max: 1 } }";
const REFUSED: &str = "bursar_client_connections_refused_total";

fn from(system: &System, address: &str) -> Client {
    Client::new(system.connect_from(address.parse::<IpAddr>().unwrap()))
}

async fn is_served(system: &System, client: &mut Client) -> bool {
    system.provider.json(200, CHAT_REPLY);
    client.post(CHAT_PATH, &[], CHAT).await;
    client.reply().await.status() == 200
}

#[test]
fn a_client_with_all_its_places_gets_no_more_and_others_are_served() {
    run("server: { limits: { connections_per_client_max: 2 } }", |system| async move {
        let mut first = from(&system, "203.0.113.7");
        let mut second = from(&system, "::ffff:203.0.113.7");
        assert!(is_served(&system, &mut first).await && is_served(&system, &mut second).await);
        for refused in 1..=3 {
            assert!(from(&system, "203.0.113.7").closed().await);
            assert_eq!(system.metric(REFUSED), refused);
        }
        assert_eq!(system.metric("bursar_connections"), 2, "who is refused is not counted among the open");
        let mut others = ["203.0.113.8", "2001:db8:0:1::1", "2001:db8:0:2::1"].map(|one| from(&system, one));
        for other in &mut others {
            assert!(is_served(&system, other).await);
        }
        assert!(is_served(&system, &mut first).await, "those who are there go on");
        assert_eq!((system.metric(REFUSED), system.metric("bursar_connections_refused_total")), (3, 0));
        assert_eq!(system.records().await.len(), 6);
    });
}

#[test]
fn addresses_of_one_ipv6_network_share_their_places() {
    run("server: { limits: { connections_per_client_max: 2 } }", |system| async move {
        let mut clients = ["2001:db8:0:1::1", "2001:db8:0:1:a:b:c:d"].map(|one| from(&system, one));
        for client in &mut clients {
            assert!(is_served(&system, client).await);
        }
        assert!(from(&system, "2001:db8:0:1:ffff::").closed().await);
        assert_eq!(system.metric(REFUSED), 1);
        assert_eq!(system.records().await.len(), 2);
    });
}

#[test]
fn clients_on_the_same_machine_are_not_counted() {
    run(ONE_EACH, |system| async move {
        let mut clients =
            ["127.0.0.1", "127.0.0.1", "::1", "::1", "::ffff:127.0.0.1"].map(|one| from(&system, one));
        for client in &mut clients {
            assert!(is_served(&system, client).await);
        }
        assert_eq!((system.metric(REFUSED), system.metric("bursar_connections")), (0, 5));
        assert_eq!(system.records().await.len(), 5);
    });
}

#[test]
fn who_is_refused_for_the_most_in_all_keeps_no_place_of_its_client() {
    let settings = "server: { limits: { connections_max: 1, connections_per_client_max: 1 } }";
    run(settings, |system| async move {
        let mut other = from(&system, "203.0.113.8");
        assert!(is_served(&system, &mut other).await);
        for _ in 0..3 {
            assert!(from(&system, "203.0.113.7").closed().await);
        }
        assert_eq!((system.metric(REFUSED), system.metric("bursar_connections_refused_total")), (0, 3));
        drop(other);
        until("the other one is gone", || system.metric("bursar_connections") == 0).await;
        assert!(is_served(&system, &mut from(&system, "203.0.113.7")).await);
        assert_eq!(system.records().await.len(), 2);
    });
}

/// How the only connection of a client ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It never says anything, and its time is up.
    Silent,
    /// It leaves before it has said anything.
    Unspoken,
    /// It leaves within a head.
    HalfHead,
    /// Its head cannot be read.
    Refused,
    /// It asks for the end itself.
    Close,
    /// It leaves while its reply streams.
    Leaves,
    /// Its reply is cut by the upstream.
    Cut,
    /// It speaks HTTP/2, and leaves.
    Http2,
    /// It was a session over WebSocket, which the upstream ends.
    Session,
}

const ENDS: [End; 9] = [
    End::Silent,
    End::Unspoken,
    End::HalfHead,
    End::Refused,
    End::Close,
    End::Leaves,
    End::Cut,
    End::Http2,
    End::Session,
];

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";

/// A connection from `address` that ends so; how many records it leaves.
async fn play(system: &System, address: &str, end: End) -> usize {
    if matches!(end, End::Http2) {
        system.provider.json(200, CHAT_REPLY);
        let io = system.connect_from(address.parse().unwrap());
        let reply = Http2Client::new(io).await.send(http2::post(CHAT_PATH, &[], CHAT)).await;
        assert_eq!(reply.head.status(), 200);
        return 1;
    }
    let mut client = from(system, address);
    match end {
        End::Silent => assert!(client.closed().await),
        End::Unspoken => tokio::time::sleep(Duration::from_millis(1)).await,
        End::HalfHead => client.send(b"POST /openai/v1/chat").await,
        End::Refused => {
            client.send(b"GET / HTTP/1.1\r\n\r\n").await;
            assert!(client.rest().await.starts_with(b"HTTP/1.1 400 "));
        }
        End::Close => {
            system.provider.json(200, CHAT_REPLY);
            client.post(CHAT_PATH, &[("connection", "close")], CHAT).await;
            assert!(client.rest().await.starts_with(b"HTTP/1.1 200 "));
        }
        End::Leaves => {
            system.provider.script([Step::Send(CHUNKED.to_vec()), Step::Stall]);
            client.post(CHAT_PATH, &[], CHAT).await;
            assert!(client.sees("abc").await);
        }
        End::Cut => {
            system.provider.script([Step::Send(CHUNKED.to_vec()), Step::Close]);
            client.post(CHAT_PATH, &[], CHAT).await;
            assert!(!client.reply().await.whole);
        }
        End::Http2 => {}
        End::Session => {
            system.provider.script([
                Step::Send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n".to_vec()),
                Step::Close,
            ]);
            let headers = [
                ("connection", "Upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("sec-websocket-version", "13"),
            ];
            client.ask("GET", "/openai/v1/realtime?model=gpt-realtime", &headers).await;
            assert!(client.rest().await.starts_with(b"HTTP/1.1 101 "));
        }
    }
    usize::from(matches!(end, End::Close | End::Leaves | End::Cut | End::Session))
}

#[test]
fn a_place_is_free_again_whatever_ended_its_connection() {
    run(ONE_EACH, |system| async move {
        let mut sent = 0;
        for end in ENDS {
            sent += play(&system, "203.0.113.7", end).await;
            until("the connection is gone", || system.metric("bursar_connections") == 0).await;
            assert_eq!(system.metric(REFUSED), 0, "{end:?}: the place of the one before is free");
            let mut next = from(&system, "203.0.113.7");
            assert!(is_served(&system, &mut next).await, "{end:?}");
            sent += 1;
            drop(next);
            until("the next one is gone, too", || system.metric("bursar_connections") == 0).await;
        }
        assert_eq!(system.records().await.len(), sent);
    });
}

#[test]
fn a_session_over_websocket_has_its_place_until_it_ends() {
    run(ONE_EACH, |system| async move {
        system.provider.script([
            Step::Send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n".to_vec()),
            Step::Stall,
        ]);
        let mut session = from(&system, "203.0.113.7");
        let headers = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
        ];
        session.ask("GET", "/openai/v1/realtime?model=gpt-realtime", &headers).await;
        assert!(session.head().await.unwrap().starts_with("HTTP/1.1 101 "));
        assert!(from(&system, "203.0.113.7").closed().await);
        drop(session);
        until("the session is over", || system.metric("bursar_connections") == 0).await;
        assert!(is_served(&system, &mut from(&system, "203.0.113.7")).await);
    });
}

#[test]
fn many_requests_at_a_time_of_one_http2_connection_take_one_place() {
    run(ONE_EACH, |system| async move {
        let io = system.connect_from("203.0.113.7".parse().unwrap());
        let client = Http2Client::new(io).await;
        for _ in 0..5 {
            system.provider.script([Step::Send(reply(200, &[], CHAT_REPLY.as_bytes()))]);
        }
        let requests = (0..5).map(|_| {
            let mut client = client.clone();
            async move { client.send(http2::post(CHAT_PATH, &[], CHAT)).await.head.status() }
        });
        let statuses = futures_util::future::join_all(requests).await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        assert_eq!(system.metric(REFUSED), 0);
        drop(client);
        assert_eq!(system.records().await.len(), 5);
    });
}
