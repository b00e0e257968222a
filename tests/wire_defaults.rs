//! Defaults that show on the wire alone: windows of HTTP/2, and that no other origin is let in.
//!
//! Not here: values of settings and where each default is tested (`secure_defaults.rs`), versions of TLS
//! (`tls.rs`, `proxy/src/admin/listener/tests.rs`).

use crate::transcripts::{CHAT, CHAT_PATH, CHAT_REPLY};
use bursar_tests::frames::kind;
use bursar_tests::{Reply, run};

/// What a client has of a stream's window before anything is said (RFC 9113, section 6.9.2).
const USUAL_WINDOW: u32 = 65_535;

#[test]
fn http2_windows_are_64_kib_for_a_stream_and_1_mib_for_a_connection() {
    run("", |system| async move {
        let mut client = system.frames(&[]).await;
        let settings = client.until(kind::SETTINGS).await.unwrap().payload;
        let value = |wanted: u16| {
            let pairs = settings.chunks_exact(6);
            let mut found = pairs.filter(|pair| pair[..2] == wanted.to_be_bytes());
            found.next().map(|pair| u32::from_be_bytes(pair[2..].try_into().unwrap()))
        };
        const STREAMS: u16 = 3;
        const WINDOW: u16 = 4;
        assert_eq!((value(WINDOW), value(STREAMS)), (Some(64 << 10), Some(100)));
        let more = client.until(kind::WINDOW_UPDATE).await.unwrap();
        let increment = u32::from_be_bytes(more.payload.try_into().unwrap());
        assert_eq!((more.stream, USUAL_WINDOW + increment), (0, 1 << 20));
    });
}

fn lets_no_origin_in(reply: &Reply, about: &str) {
    for name in ["origin", "methods", "headers", "credentials", "private-network", "max-age"] {
        let name = format!("access-control-allow-{name}").replace("allow-max-age", "max-age");
        assert_eq!(reply.header(&name), None, "{about}");
    }
    assert!(!reply.text().to_lowercase().contains("access-control"), "{about}");
}

/// The listener for applications adds nothing that lets a page of another origin read a reply.
#[test]
fn no_other_origin_is_let_in_by_the_proxy() {
    run("", |system| async move {
        let origin = ("origin", "https://page.example");
        let preflight =
            [origin, ("access-control-request-method", "POST"), ("access-control-request-headers", "x")];
        system.provider.json(200, CHAT_REPLY);
        system.provider.json(200, CHAT_REPLY);
        let mut client = system.client();
        client.post(CHAT_PATH, &[origin], CHAT).await;
        let reply = client.reply().await;
        assert_eq!(reply.status(), 200);
        lets_no_origin_in(&reply, "a reply of the provider");
        client.ask("OPTIONS", CHAT_PATH, &preflight).await;
        lets_no_origin_in(&client.reply().await, "a preflight of a route");
        for method in ["OPTIONS", "GET"] {
            let mut client = system.client();
            client.ask(method, "/nowhere", &preflight).await;
            let reply = client.reply().await;
            assert_eq!(reply.status(), 404);
            lets_no_origin_in(&reply, method);
        }
    });
}
