//! `auth: sigv4`: requests are signed with the sidecar's own credentials, which come from the usual
//! places and are renewed in time.

use crate::aws_signature::verify;
use bursar_tests::provider::{Received, reply};
use bursar_tests::system::System;
use bursar_tests::{Setup, Step};

const HOST: &str = "bedrock-runtime.eu-west-1.amazonaws.com";
const PATH: &str = "/bedrock/model/eu.amazon.nova-micro-v1%3A0/converse";
const TARGET: &str = "/model/eu.amazon.nova-micro-v1%3A0/converse";
const REPLY: &str = r#"{"usage":{"inputTokens":10,"outputTokens":4,"totalTokens":14}}"#;
const MINUTE: i64 = 60_000_000;

fn setup(env: &[(&str, &str)]) -> Setup {
    let routes = format!(
        "builtin_routes: false\nroutes:\n  - {{ prefix: /bedrock, upstream: 'http://{HOST}', provider: bedrock, \
         auth: sigv4, allow_plaintext_upstream: true }}\n  - {{ prefix: /mantle, upstream: \
         'http://bedrock-mantle.us-east-1.api.aws', provider: bedrock-mantle, auth: sigv4, \
         allow_plaintext_upstream: true }}"
    );
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Setup { routes, env, ..Setup::new("") }
}

const KEYS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "secret-canary"),
    ("AWS_SESSION_TOKEN", "session-1"),
];

/// What an endpoint answers: keys of this number, valid for that many minutes from the tests' start.
fn keys(number: u32, minutes: i64) -> String {
    let (hour, minute) = (12 + minutes / 60, minutes % 60);
    format!(
        r#"{{"Code":"Success","AccessKeyId":"ASIA{number}","SecretAccessKey":"secret-{number}",
        "Token":"session-{number}","Expiration":"2026-11-22T{hour:02}:{minute:02}:00Z"}}"#
    )
}

fn answers(system: &System, bodies: &[&str]) {
    for body in bodies {
        system.provider.json(200, body);
    }
}

/// Sends one request and returns what the upstream received last.
async fn ask(system: &System) -> Received {
    let mut client = system.client();
    client.post(PATH, &[("x-bursar-team", "a")], "{}").await;
    let reply = client.reply().await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    system.provider.received().pop().unwrap()
}

fn verify_keys(received: &Received, number: u32) {
    verify(received, &format!("ASIA{number}"), &format!("secret-{number}"), "eu-west-1", "bedrock");
    assert_eq!(received.header("x-amz-security-token"), Some(format!("session-{number}").as_str()));
}

#[test]
fn a_request_is_signed_and_the_clients_credentials_stay_behind() {
    setup(&KEYS).run(|system| async move {
        answers(&system, &[REPLY, REPLY]);
        let mut client = system.client();
        let headers = [
            ("authorization", "AWS4-HMAC-SHA256 Credential=the/clients, SignedHeaders=host, Signature=x"),
            ("x-amz-date", "20200101T000000Z"),
            ("x-amz-security-token", "the client's"),
            ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
            ("x-api-key", "the client's"),
            ("x-amzn-bedrock-guardrailidentifier", "g1"),
            ("x-amzn-trace-id", "Root=1"),
            ("x-bursar-team", "a"),
        ];
        client.post(&format!("{PATH}?q=1"), &headers, r#"{"messages":[]}"#).await;
        assert_eq!(client.reply().await.text(), REPLY);
        let received = system.provider.request();
        assert_eq!(received.line(), format!("POST {TARGET}?q=1 HTTP/1.1"));
        verify(&received, "AKIDEXAMPLE", "secret-canary", "eu-west-1", "bedrock");
        assert_eq!(received.header("host"), Some(HOST));
        assert_eq!(received.header("x-amz-date"), Some("20261122T120000Z"));
        assert_eq!(received.header("x-amz-security-token"), Some("session-1"));
        assert_eq!(received.header("x-amzn-trace-id"), Some("Root=1"));
        let signed = received.header("authorization").unwrap();
        assert!(signed.contains("x-amzn-bedrock-guardrailidentifier") && !signed.contains("trace-id"));
        for left_behind in ["x-api-key", "x-amz-content-sha256", "x-bursar-team"] {
            assert_eq!(received.header(left_behind), None, "{left_behind}");
        }
        client.ask("GET", "/bedrock/model/x", &[]).await;
        assert_eq!(client.reply().await.status(), 200);
        let received = system.provider.received().pop().unwrap();
        verify(&received, "AKIDEXAMPLE", "secret-canary", "eu-west-1", "bedrock");
        let records = system.records().await;
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].record.usage.input_total(), Some(10));
    });
}

#[test]
fn mantle_is_signed_for_its_own_service_after_usage_was_asked_for() {
    setup(&KEYS).run(|system| async move {
        answers(&system, &["{}"]);
        let mut client = system.client();
        client.post("/mantle/v1/chat/completions", &[], r#"{"model":"m","stream":true}"#).await;
        assert_eq!(client.reply().await.status(), 200);
        let received = system.provider.request();
        assert_eq!(received.json()["stream_options"]["include_usage"], true);
        verify(&received, "AKIDEXAMPLE", "secret-canary", "us-east-1", "bedrock-mantle");
        system.close().await;
    });
}

#[test]
fn a_body_in_chunks_is_held_whole_and_signed() {
    setup(&KEYS).run(|system| async move {
        answers(&system, &[REPLY]);
        let mut client = system.client();
        client.begin(PATH, &[]).await;
        let mut body = br#"{"messages":""#.to_vec();
        client.chunk(&body).await;
        for letter in [b'a', b'b', b'c'] {
            client.chunk(&[letter; 100_000]).await;
            body.extend([letter; 100_000]);
        }
        assert_eq!(system.provider.connections(), 0, "nothing is sent before the hash is known");
        client.chunk(br#""}"#).await;
        body.extend(br#""}"#);
        client.send(b"0\r\n\r\n").await;
        assert_eq!(client.reply().await.status(), 200);
        let received = system.provider.request();
        assert!(received.body == body);
        assert_eq!(received.header("content-length"), Some(body.len().to_string().as_str()));
        verify(&received, "AKIDEXAMPLE", "secret-canary", "eu-west-1", "bedrock");
        assert_eq!(system.record().await.bytes_in, body.len() as u64);
    });
}

#[test]
fn a_body_too_large_to_hold_is_refused_with_what_to_do() {
    setup(&KEYS).run(|system| async move {
        let mut client = system.client();
        let size = (25 << 20) + 1;
        let head = format!("POST {PATH} HTTP/1.1\r\nhost: s\r\ncontent-length: {size}\r\n\r\n");
        client.send(head.as_bytes()).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.header("x-amzn-errortype")), (413, Some("ValidationException")));
        assert!(reply.text().contains("held to be signed"), "{}", reply.text());
        assert_eq!(system.provider.connections(), 0);
        assert!(system.records().await.is_empty());
    });
}

#[test]
fn without_credentials_nothing_is_sent_and_the_reason_is_told() {
    setup(&[("AWS_EC2_METADATA_DISABLED", "true")]).run(|system| async move {
        let mut client = system.client();
        client.post(PATH, &[], "{}").await;
        let reply = client.reply().await;
        assert_eq!(
            (reply.status(), reply.header("x-amzn-errortype")),
            (503, Some("ServiceUnavailableException"))
        );
        let text = reply.text();
        assert!(text.contains("no AWS credentials: nothing is set up"), "{text}");
        assert_eq!(system.provider.connections(), 0);
        assert!(system.records().await.is_empty());
    });
}

#[test]
fn keys_of_the_instance_are_asked_for_once_and_renewed_before_their_end() {
    setup(&[]).run(|system| async move {
        answers(&system, &["metadata-token", "role-1\n", &keys(1, 60), REPLY, REPLY]);
        verify_keys(&ask(&system).await, 1);
        verify_keys(&ask(&system).await, 1);
        let received = system.provider.received();
        let lines: Vec<&str> = received.iter().map(Received::line).collect();
        let role = "GET /latest/meta-data/iam/security-credentials/";
        assert_eq!(lines[0], "PUT /latest/api/token HTTP/1.1");
        assert_eq!(received[0].header("x-aws-ec2-metadata-token-ttl-seconds"), Some("60"));
        assert_eq!(lines[1], format!("{role} HTTP/1.1"));
        assert_eq!(lines[2], format!("{role}role-1 HTTP/1.1"));
        assert_eq!(received[2].header("x-aws-ec2-metadata-token"), Some("metadata-token"));
        assert_eq!(received[2].header("host"), Some("169.254.169.254"));
        assert_eq!(lines.len(), 5, "the second request asked nobody: {lines:?}");

        system.clock.advance(56 * MINUTE);
        answers(&system, &["t", "role-1", &keys(2, 300), REPLY]);
        verify_keys(&ask(&system).await, 2);
        system.close().await;
    });
}

#[test]
fn valid_keys_serve_on_while_renewing_fails_and_nobody_asks_in_a_hurry() {
    setup(&[]).run(|system| async move {
        answers(&system, &["t", "r", &keys(1, 60), REPLY]);
        verify_keys(&ask(&system).await, 1);
        system.clock.advance(56 * MINUTE);
        system.provider.json(500, "{}");
        answers(&system, &[REPLY, REPLY]);
        verify_keys(&ask(&system).await, 1);
        verify_keys(&ask(&system).await, 1);
        system.clock.advance(MINUTE);
        answers(&system, &["t", "r", &keys(2, 300), REPLY]);
        verify_keys(&ask(&system).await, 2);
        system.close().await;
    });
}

#[test]
fn a_web_identity_is_exchanged_at_the_token_service() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "web.identity-token\n").unwrap();
    let env = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/pod"),
        ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1/"),
    ];
    setup(&env).run(|system| async move {
        let answer = "<A><Credentials><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>secret-1</SecretAccessKey>\
                      <SessionToken>session-1</SessionToken><Expiration>2026-11-22T13:00:00Z</Expiration>\
                      </Credentials></A>";
        answers(&system, &[answer, REPLY]);
        verify_keys(&ask(&system).await, 1);
        let received = system.provider.received();
        let body = String::from_utf8(received[0].body.clone()).unwrap();
        assert_eq!(
            body,
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole\
             %2Fpod&RoleSessionName=bursar&WebIdentityToken=web%2Eidentity%2Dtoken"
        );
        system.close().await;
    });
    setup(&env).run(|system| async move {
        let refusal = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>canary</Message></Error></ErrorResponse>";
        system.provider.script([Step::Send(reply(403, &[], refusal.as_bytes()))]);
        let mut client = system.client();
        client.post(PATH, &[], "{}").await;
        let reply = client.reply().await;
        assert_eq!(reply.status(), 503);
        assert!(reply.text().contains("the token service answered 403 Forbidden (AccessDenied)"), "{}", reply.text());
        assert!(!reply.text().contains("canary"));
        system.close().await;
    });
}

#[test]
fn a_container_is_asked_with_its_token() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "from-file\n").unwrap();
    let full = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials");
    let relative = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/1");
    let from_file = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.to_str().unwrap());
    let plain = ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "from-variable");
    for (env, host, line, token) in [
        (vec![full, from_file, plain], "169.254.170.23", "GET /v1/credentials HTTP/1.1", Some("from-file")),
        (vec![full, plain], "169.254.170.23", "GET /v1/credentials HTTP/1.1", Some("from-variable")),
        (vec![relative], "169.254.170.2", "GET /v2/credentials/1 HTTP/1.1", None),
    ] {
        setup(&env).run(|system| async move {
            answers(&system, &[&keys(1, 60), REPLY]);
            verify_keys(&ask(&system).await, 1);
            let received = system.provider.received();
            assert_eq!((received[0].line(), received[0].header("host")), (line, Some(host)));
            assert_eq!(received[0].header("authorization"), token);
            system.close().await;
        });
    }
}

#[test]
fn many_requests_at_once_ask_for_keys_once() {
    setup(&[]).run(|system| async move {
        answers(&system, &["t", "r", &keys(1, 60)]);
        let mut clients = Vec::new();
        for _ in 0..5 {
            system.provider.json(200, REPLY);
            let mut client = system.client();
            client.post(PATH, &[], "{}").await;
            clients.push(client);
        }
        for mut client in clients {
            assert_eq!(client.reply().await.status(), 200);
        }
        assert_eq!(system.provider.received().len(), 3 + 5);
        assert_eq!(system.records().await.len(), 5);
    });
}
