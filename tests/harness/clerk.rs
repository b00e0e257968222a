//! A provider that writes down which numbered requests it was sent, and how often, and answers each by its
//! number, so that both sides know what everybody must have seen.
//!
//! Invariants
//! - A request says its number in the header `x-number`; what it asks and gets follows from that alone.
//! - A request counts as begun with its head, and as asked when all of it is there.
//!
//! Not here: answers byte for byte as a test likes (`provider`), the network in between (`network`).

use crate::provider::{chunk, header};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Where these requests go.
pub const PATH: &str = "/openai/v1/chat/completions";

/// What the provider has of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// How often its head came.
    pub begun: u32,
    /// How often all of it came.
    pub asked: u32,
    /// Whether all of an answer was given out.
    pub answered: bool,
}

/// The provider. Its clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Clerk(Rc<RefCell<BTreeMap<u64, Told>>>);

/// What is asked and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Long,
    Stream,
    LongStream,
    Refusal,
}

/// A numbered request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered(pub u64);

impl Numbered {
    fn kind(self) -> Kind {
        [Kind::Plain, Kind::Stream, Kind::Long, Kind::Stream, Kind::LongStream, Kind::Plain, Kind::Refusal]
            [(self.0 % 7) as usize]
    }

    /// The request, for a sidecar.
    #[must_use]
    pub fn request(self) -> Vec<u8> {
        let body = self.body();
        format!(
            "POST {PATH} HTTP/1.1\r\nhost: sidecar\r\ncontent-type: application/json\r\nx-number: {}\r\n\
             x-bursar-workload: n{}\r\ncontent-length: {}\r\n\r\n{body}",
            self.0,
            self.0,
            body.len()
        )
        .into_bytes()
    }

    /// Its body, which no sidecar changes: where it asks for a stream it asks for usage.
    #[must_use]
    pub fn body(self) -> String {
        let streams = match self.kind() {
            Kind::Stream | Kind::LongStream => r#""stream":true,"stream_options":{"include_usage":true},"#,
            _ => "",
        };
        let prompt = "p".repeat(if self.0 % 5 == 3 { 30_000 } else { 30 });
        format!(
            r#"{{"model":"gpt-4o-mini",{streams}"max_tokens":{MOST_OUTPUT},"messages":[{{"role":"user","content":"{prompt}"}}]}}"#
        )
    }

    /// The status that the provider answers with.
    #[must_use]
    pub fn status(self) -> u16 {
        if self.kind() == Kind::Refusal { 429 } else { 200 }
    }

    /// The body that the provider answers with, without its framing.
    #[must_use]
    pub fn answer(self) -> Vec<u8> {
        self.pieces().concat().into_bytes()
    }

    /// Tokens that the answer tells: input and output.
    #[must_use]
    pub fn usage(self) -> Option<(u64, u64)> {
        (self.kind() != Kind::Refusal).then_some((3 + self.0 % 4, 10 + self.0 % 41))
    }

    fn pieces(self) -> Vec<String> {
        let (input, output) = self.usage().unwrap_or_default();
        let usage = format!(
            r#"{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{}}}"#,
            input + output
        );
        let text = |length| "x".repeat(length);
        let plain = |text: &str| {
            format!(
                r#"{{"id":"c{}","object":"chat.completion","model":"gpt-4o-mini","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{usage}}}"#,
                self.0
            )
        };
        let event = |text: &str| {
            format!(
                "data: {{\"id\":\"c{}\",\"model\":\"gpt-4o-mini\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}],\"usage\":null}}\n\n",
                self.0
            )
        };
        let stream = |length| {
            let mut events = vec![event(&text(length)); 8];
            let id = self.0;
            events.push(format!(
                "data: {{\"id\":\"c{id}\",\"model\":\"gpt-4o-mini\",\"choices\":[],\"usage\":{usage}}}\n\n"
            ));
            events.push("data: [DONE]\n\n".to_owned());
            events
        };
        match self.kind() {
            Kind::Plain => vec![plain("Hello.")],
            Kind::Long => vec![plain(&text(40_000))],
            Kind::Stream => stream(20),
            Kind::LongStream => stream(6_000),
            Kind::Refusal => vec![
                r#"{"error":{"message":"too many","type":"requests","code":"rate_limit_exceeded"}}"#
                    .to_owned(),
            ],
        }
    }
}

/// The most output that a request asks for; every answer tells less.
pub const MOST_OUTPUT: u64 = 60;

impl Clerk {
    /// What it was told of each request, by number.
    #[must_use]
    pub fn told(&self) -> BTreeMap<u64, Told> {
        self.0.borrow().clone()
    }

    /// A new connection to it.
    #[must_use]
    pub fn connect(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let clerk = self.clone();
        bursar::tasks::start(async move {
            // A broken pipe only means that the sidecar, or the network, has left.
            let _ = clerk.serve(ours).await;
        });
        theirs
    }

    fn note(&self, number: u64, note: impl FnOnce(&mut Told)) {
        note(self.0.borrow_mut().entry(number).or_default());
    }

    async fn serve(&self, mut io: DuplexStream) -> io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                    break at + 4;
                }
                if io.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            };
            let head = String::from_utf8(buffer.drain(..end).collect()).unwrap();
            let number = header(&head, "x-number").unwrap().parse().unwrap();
            self.note(number, |told| told.begun += 1);
            let length: usize = header(&head, "content-length").unwrap().parse().unwrap();
            while buffer.len() < length {
                if io.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            }
            let body: Vec<u8> = buffer.drain(..length).collect();
            assert_eq!(String::from_utf8(body).unwrap(), Numbered(number).body(), "a body was changed");
            self.note(number, |told| told.asked += 1);
            answer(&mut io, Numbered(number)).await?;
            self.note(number, |told| told.answered = true);
        }
    }
}

async fn answer(io: &mut DuplexStream, request: Numbered) -> io::Result<()> {
    let (status, pieces) = (request.status(), request.pieces());
    if let [whole] = pieces.as_slice() {
        let head = format!(
            "HTTP/1.1 {status} So\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            whole.len()
        );
        return io.write_all(&[head.as_bytes(), whole.as_bytes()].concat()).await;
    }
    io.write_all(crate::provider::SSE_HEAD).await?;
    for piece in &pieces {
        io.write_all(&chunk(piece.as_bytes())).await?;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    io.write_all(b"0\r\n\r\n").await
}
