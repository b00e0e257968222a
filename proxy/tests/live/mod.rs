//! A running sidecar with streams that the test holds: an upstream that waits to be told, clients of both
//! versions of HTTP, slow and fast, and the processes between them.
//!
//! Invariants
//! - Nothing waits for time: tests wait for a line, a byte, an exit. [`run`] ends what hangs.
//! - What a test starts ends with it.
//!
//! Not here: what is expected of them (the tests that share this).
#![allow(dead_code, reason = "not every test that shares this file uses all of it")]

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::Request;
use serde_json::Value;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;

/// After this a test that hangs fails. Nothing is expected to take so long.
const WATCHDOG: Duration = Duration::from_secs(180);

/// The path of chat requests behind the route `/openai`.
pub(crate) const CHAT_PATH: &str = "/openai/v1/chat/completions";
/// A plain request.
pub(crate) const CHAT: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;
/// A request for a stream.
pub(crate) const CHAT_STREAM: &str =
    r#"{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
/// The reply to a plain one: 1,000 tokens in, 500 out.
pub(crate) const CHAT_REPLY: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Hello."},"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":500,"total_tokens":1500}}"#;

const EVENTS: [&str; 4] = [
    "data: {\"id\":\"c\",\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}],\"usage\":null}\n\n",
    "data: {\"id\":\"c\",\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo.\"},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n",
    "data: {\"id\":\"c\",\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":500,\"total_tokens\":1500}}\n\n",
    "data: [DONE]\n\n",
];

/// The prompt of a slow reader.
const SLOW: &str = "slowly, please";

/// What a slow reader is sent between the first event and the second: more than lies between the two ends
/// of an HTTP/2 stream, and in HTTP/1.1 in many small reads.
const PADDING: usize = 192 * 1024;

/// Runs `test` on this thread. Fails when it does not end.
pub(crate) fn run<Fut: Future<Output = ()>>(test: Fut) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(WATCHDOG, test).await.expect("the test hangs");
    });
}

// === the upstream

/// How far every stream may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The first event.
    First,
    /// The second.
    Second,
    /// To the end.
    End,
}

/// An upstream whose streams go as far as the test says. Plain requests are answered at once.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    stage: watch::Sender<Stage>,
    asked: Rc<Cell<u64>>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stage, _) = watch::channel(Stage::First);
        let asked = Rc::new(Cell::new(0));
        let (sender, counter) = (stage.clone(), Rc::clone(&asked));
        spawn_local(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (stage, counter) = (sender.subscribe(), Rc::clone(&counter));
                // The sidecar may leave whenever it likes.
                spawn_local(async move { drop(provide(socket, stage, &counter).await) });
            }
        });
        Self { address, stage, asked }
    }

    /// Lets all streams go on.
    pub(crate) fn go_to(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    /// How many requests came.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.get()
    }
}

async fn provide(
    mut socket: TcpStream,
    mut stage: watch::Receiver<Stage>,
    asked: &Cell<u64>,
) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(head) = head(&mut socket, &mut buffer).await {
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let Some(body) = exactly(&mut socket, &mut buffer, length).await else { return Ok(()) };
        asked.set(asked.get() + 1);
        if !String::from_utf8_lossy(&body).contains("\"stream\":true") {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
            socket.write_all(format!("{head}{}\r\n\r\n{CHAT_REPLY}", CHAT_REPLY.len()).as_bytes()).await?;
            continue;
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        socket.write_all(head.as_bytes()).await?;
        socket.write_all(&chunk(EVENTS[0])).await?;
        // A sender that is gone means that the test is over.
        drop(stage.wait_for(|stage| *stage >= Stage::Second).await);
        if String::from_utf8_lossy(&body).contains(SLOW) {
            let line = format!(": {}\n\n", "x".repeat(1021));
            for _ in 0..PADDING / 1024 {
                socket.write_all(&chunk(&line)).await?;
            }
        }
        socket.write_all(&chunk(EVENTS[1])).await?;
        drop(stage.wait_for(|stage| *stage >= Stage::End).await);
        socket.write_all(&[chunk(EVENTS[2]), chunk(EVENTS[3]), b"0\r\n\r\n".to_vec()].concat()).await?;
    }
    Ok(())
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

// === bytes

/// The value of a header in the text of a head.
pub(crate) fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// Reads a head off the front of what comes; `None` when the other side is gone.
pub(crate) async fn head(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            return Some(String::from_utf8(buffer.drain(..at + 4).collect()).unwrap());
        }
        if socket.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

pub(crate) async fn exactly(socket: &mut TcpStream, buffer: &mut Vec<u8>, count: usize) -> Option<Vec<u8>> {
    while buffer.len() < count {
        if socket.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    Some(buffer.drain(..count).collect())
}

// === the process

/// A running sidecar. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Sidecar {
    child: std::process::Child,
    pub(crate) proxy: SocketAddr,
    pub(crate) admin: SocketAddr,
    lines: mpsc::UnboundedReceiver<String>,
    seen: Vec<String>,
}

/// What a sidecar is started with.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    /// Where it runs and has its configuration.
    pub(crate) dir: PathBuf,
    /// Its ledger's directory within.
    pub(crate) data: &'static str,
    /// Its addresses, in YAML.
    pub(crate) addresses: String,
    /// Further settings, in YAML.
    pub(crate) settings: String,
    /// Further routes, a line of YAML each.
    pub(crate) routes: Vec<String>,
    /// Environment variables.
    pub(crate) env: Vec<(&'static str, String)>,
}

impl Start {
    /// On free ports.
    pub(crate) fn new(dir: &Path, settings: &str) -> Self {
        Self {
            dir: dir.to_owned(),
            data: "data",
            addresses: "listen: 127.0.0.1:0\nadmin: { listen: 127.0.0.1:0 }".to_owned(),
            settings: settings.to_owned(),
            routes: Vec::new(),
            env: Vec::new(),
        }
    }

    /// With a further route.
    pub(crate) fn with_route(mut self, route: &str) -> Self {
        self.routes.push(format!("  - {{ {route} }}\n"));
        self
    }

    fn configure(&self, upstream: SocketAddr) -> String {
        let file = format!("{}.yaml", self.data);
        let Self { addresses, settings, routes, .. } = self;
        let route = format!("{{ prefix: /openai, upstream: 'http://{upstream}', provider: openai }}");
        let more = routes.concat();
        let text = format!("{addresses}\n{settings}\nbuiltin_routes: false\nroutes:\n  - {route}\n{more}");
        std::fs::write(self.dir.join(&file), text).unwrap();
        file
    }

    /// Starts it.
    pub(crate) async fn sidecar(&self, upstream: SocketAddr) -> Sidecar {
        let file = self.configure(upstream);
        let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
        command.args(["serve", "--config", &file, "--data-dir", self.data]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.watch(command).await
    }

    /// Starts it as systemd does: on sockets that are open already, proxy and admin.
    pub(crate) async fn activated(
        &self,
        upstream: SocketAddr,
        sockets: [&std::net::TcpListener; 2],
    ) -> Sidecar {
        let file = self.configure(upstream);
        let [proxy, admin] = sockets.map(|socket| OwnedFd::from(socket.try_clone().unwrap()));
        // The shell moves them where the protocol wants them; the pid stays when it becomes the sidecar.
        let script = "exec 3<&0 4<&1 </dev/null >/dev/null; \
                      LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=proxy:admin \
                      exec \"$0\" serve --config \"$1\" --data-dir \"$2\"";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_bursar"), &file, self.data]);
        command.stdin(proxy).stdout(admin);
        self.watch(command).await
    }

    async fn watch(&self, mut command: Command) -> Sidecar {
        command.current_dir(&self.dir).env_clear().stderr(Stdio::piped());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().unwrap();
        let errors = std::io::BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in std::io::BufRead::lines(errors).map_while(Result::ok) {
                // The test may have ended.
                let _ = sender.send(line);
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut sidecar = Sidecar { child, proxy: nowhere, admin: nowhere, lines, seen: Vec::new() };
        let ready: Value = serde_json::from_str(&sidecar.line("bursar serves").await).unwrap();
        sidecar.proxy = ready["proxy"].as_str().unwrap().parse().unwrap();
        sidecar.admin = ready["admin"].as_str().unwrap().parse().unwrap();
        sidecar
    }
}

impl Sidecar {
    /// Waits for a line of the log that contains `text`.
    pub(crate) async fn line(&mut self, text: &str) -> String {
        loop {
            let Some(line) = self.lines.recv().await else {
                panic!("the log ended without {text:?}: {:#?}", self.seen);
            };
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end: its exit code, -1 for a signal.
    pub(crate) async fn ended(self) -> i32 {
        self.log().await.0
    }

    /// The same, with all that it logged.
    pub(crate) async fn log(mut self) -> (i32, Vec<String>) {
        // The end of its log is its own end.
        while let Some(line) = self.lines.recv().await {
            self.seen.push(line);
        }
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        (code, std::mem::take(&mut self.seen))
    }

    /// Stops it in the polite way.
    pub(crate) async fn stop(self) {
        self.signal("-TERM");
        assert_eq!(self.ended().await, 0);
    }

    /// What the admin API answers: status and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(self.admin).await.unwrap();
        let ask = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        socket.write_all(ask.as_bytes()).await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Waits until nobody is heard any more where it served.
    pub(crate) async fn refuses(&self) {
        while TcpStream::connect(self.proxy).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until so many exchanges are written down as under way.
    pub(crate) async fn has_open(&self, count: u64) {
        loop {
            let (_, stats) = self.get("/api/v1/ledger/stats").await;
            let stats: Value = serde_json::from_str(&stats).unwrap();
            if stats["open"] == count {
                return;
            }
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command of the binary in `dir` to its end.
pub(crate) fn command(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.args(args).current_dir(dir).env_clear().stdin(Stdio::null()).output().unwrap()
}

/// What the ledger `data` in `dir` holds, by id; no id twice.
pub(crate) fn records(dir: &Path, data: &str) -> BTreeMap<String, Value> {
    let output = command(dir, &["export", "usage", "--format", "jsonl", "--data-dir", data]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut records = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let id = record["id"].as_str().unwrap().to_owned();
        assert!(records.insert(id.clone(), record).is_none(), "{id} twice");
    }
    records
}

// === clients

/// How a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// What comes.
    AtOnce,
    /// Nothing behind the first event until it is asked to, and then a little at a time.
    Slowly,
}

/// A stream under way.
#[derive(Debug)]
pub(crate) enum Reader {
    Http1 { socket: TcpStream, text: Vec<u8>, reads: Reads },
    Http2 { body: RecvStream, text: Vec<u8>, reads: Reads, ended: bool },
}

/// How many bytes a slow reader takes at a time.
const SIP: usize = 1024;

impl Reader {
    pub(crate) fn reads(&self) -> Reads {
        match self {
            Self::Http1 { reads, .. } | Self::Http2 { reads, .. } => *reads,
        }
    }

    /// Reads until `text` has come; whether it did before the end.
    pub(crate) async fn sees(&mut self, wanted: &str) -> bool {
        loop {
            let (Self::Http1 { text, .. } | Self::Http2 { text, .. }) = self;
            if text.windows(wanted.len()).any(|window| window == wanted.as_bytes()) {
                return true;
            }
            if !self.more().await {
                return false;
            }
        }
    }

    /// Reads to the end; whether the stream said everything and ended as it should.
    pub(crate) async fn comes_whole(mut self) -> bool {
        while self.more().await {}
        let done = "data: [DONE]\n\n";
        match self {
            Self::Http1 { text, .. } => text.ends_with(format!("{done}\r\n0\r\n\r\n").as_bytes()),
            Self::Http2 { text, ended, .. } => ended && text.ends_with(done.as_bytes()),
        }
    }

    /// Reads some more; `false` at the end.
    async fn more(&mut self) -> bool {
        match self {
            // Chunked coding has its own end: the connection may stay.
            Self::Http1 { text, .. } if text.ends_with(b"\r\n0\r\n\r\n") => false,
            Self::Http1 { socket, text, reads } => {
                let most = if *reads == Reads::Slowly { SIP } else { 64 * 1024 };
                let mut piece = vec![0; most];
                match socket.read(&mut piece).await {
                    Ok(count) if count > 0 => {
                        text.extend_from_slice(&piece[..count]);
                        true
                    }
                    _ => false,
                }
            }
            Self::Http2 { body, text, ended, .. } => match body.data().await {
                Some(Ok(data)) => {
                    text.extend_from_slice(&data);
                    body.flow_control().release_capacity(data.len()).is_ok()
                }
                Some(Err(_)) => false,
                None => {
                    *ended = true;
                    false
                }
            },
        }
    }
}

/// Opens so many streams, half of them in HTTP/2, a tenth of each read slowly, and waits until each has its
/// first event.
pub(crate) async fn open_streams(sidecar: &Sidecar, count: usize) -> Vec<Reader> {
    let mut readers = Vec::new();
    let mut http2 = None;
    for number in 0..count {
        let reads = if number % 20 < 2 { Reads::Slowly } else { Reads::AtOnce };
        let mut reader = if number % 2 == 0 {
            http1_stream(sidecar.proxy, reads).await
        } else {
            // Fifty streams on each connection.
            if number % 100 == 1 {
                http2 = Some(http2_connect(sidecar.proxy).await);
            }
            http2_stream(http2.clone().unwrap(), sidecar.proxy, reads).await
        };
        assert!(reader.sees("Hel").await, "stream {number} never began");
        readers.push(reader);
    }
    readers
}

/// What a client asks for a stream, and how it will read.
fn ask_for_stream(reads: Reads) -> String {
    match reads {
        Reads::AtOnce => CHAT_STREAM.to_owned(),
        Reads::Slowly => CHAT_STREAM.replace("hi", SLOW),
    }
}

async fn http1_stream(to: SocketAddr, reads: Reads) -> Reader {
    let socket = TcpSocket::new_v4().unwrap();
    if reads == Reads::Slowly {
        socket.set_recv_buffer_size(4096).unwrap();
    }
    let mut socket = socket.connect(to).await.unwrap();
    let body = ask_for_stream(reads);
    socket.write_all(post(to, &body).as_bytes()).await.unwrap();
    Reader::Http1 { socket, text: Vec::new(), reads }
}

fn post(to: SocketAddr, body: &str) -> String {
    let length = body.len();
    format!("POST {CHAT_PATH} HTTP/1.1\r\nhost: {to}\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// Asks once on a connection of its own: status, head, and the body as far as it came.
pub(crate) async fn ask(to: SocketAddr, path: &str, headers: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut socket = TcpStream::connect(to).await.unwrap();
    let length = body.len();
    let ask = format!(
        "POST {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    let (mut reading, mut writing) = socket.split();
    let mut all = Vec::new();
    let send = async {
        // It may answer before it has heard all of it.
        let _ = writing.write_all(&[ask.as_bytes(), body].concat()).await;
    };
    let (_, _) = tokio::join!(send, reading.read_to_end(&mut all));
    let at = all.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8_lossy(&all[..at]).into_owned();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head, all.split_off(at))
}

async fn http2_connect(to: SocketAddr) -> SendRequest<Bytes> {
    try_http2_connect(to).await.unwrap()
}

async fn try_http2_connect(to: SocketAddr) -> Result<SendRequest<Bytes>, String> {
    let socket = TcpStream::connect(to).await.map_err(|error| format!("connect: {error}"))?;
    let mut builder = h2::client::Builder::new();
    // Slow streams must not take the others' room.
    builder.initial_connection_window_size(64 << 20);
    let (sender, connection) = builder.handshake(socket).await.map_err(|error| error.to_string())?;
    spawn_local(async move {
        // What goes wrong reaches the requests, too.
        let _ = connection.await;
    });
    Ok(sender)
}

async fn http2_ask(
    sender: SendRequest<Bytes>,
    to: SocketAddr,
    body: &str,
) -> Result<http::Response<RecvStream>, h2::Error> {
    let mut sender = sender.ready().await?;
    let request = Request::post(format!("http://{to}{CHAT_PATH}")).body(()).unwrap();
    let (reply, mut stream) = sender.send_request(request, false)?;
    stream.send_data(Bytes::from(body.to_owned()), true)?;
    reply.await
}

async fn http2_stream(sender: SendRequest<Bytes>, to: SocketAddr, reads: Reads) -> Reader {
    let reply = http2_ask(sender, to, &ask_for_stream(reads)).await.unwrap();
    assert_eq!(reply.status(), 200);
    Reader::Http2 { body: reply.into_body(), text: Vec::new(), reads, ended: false }
}

// === load

/// How a client of the load uses connections.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Uses {
    /// A new one for each request.
    Fresh,
    /// One for as long as the other side lets it.
    KeptAlive,
    /// One of HTTP/2, likewise.
    Http2,
}

/// What clients under load have seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The ids of requests that were answered.
    pub(crate) ids: Vec<String>,
    /// What went wrong.
    pub(crate) failures: Vec<String>,
    /// Connections that the sidecar said it would end.
    pub(crate) told_to_go: u64,
}

/// Clients that ask and ask until they are told to stop.
#[derive(Debug)]
pub(crate) struct Load {
    clients: Vec<(Rc<Cell<u64>>, tokio::task::JoinHandle<Seen>)>,
    stop: Rc<Cell<bool>>,
}

impl Load {
    /// Begins with these clients.
    pub(crate) fn begin(to: SocketAddr, uses: &[Uses]) -> Self {
        let stop = Rc::new(Cell::new(false));
        let begin = |uses: &Uses| {
            let asked = Rc::new(Cell::new(0));
            let client = (to, *uses, Rc::clone(&asked), Rc::clone(&stop));
            (asked, spawn_local(async move { ask_on(client).await }))
        };
        Self { clients: uses.iter().map(begin).collect(), stop }
    }

    /// Waits until each client has had so many more answers.
    pub(crate) async fn advances(&self, by: u64) {
        for (asked, _) in &self.clients {
            let enough = asked.get() + by;
            while asked.get() < enough {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Lets every client end its request; what all of them have seen.
    pub(crate) async fn end(self) -> Seen {
        self.stop.set(true);
        let mut all = Seen::default();
        for (_, client) in self.clients {
            let Seen { ids, failures, told_to_go } = client.await.unwrap();
            all.ids.extend(ids);
            all.failures.extend(failures);
            all.told_to_go += told_to_go;
        }
        all
    }
}

async fn ask_on((to, uses, asked, stop): (SocketAddr, Uses, Rc<Cell<u64>>, Rc<Cell<bool>>)) -> Seen {
    let mut seen = Seen::default();
    let mut line = Line::default();
    while !stop.get() {
        let answer = match uses {
            Uses::Fresh => Line::default().ask(to, &mut seen).await,
            Uses::KeptAlive => line.ask(to, &mut seen).await,
            Uses::Http2 => line.ask_http2(to, &mut seen).await,
        };
        // Counted either way: a test that fails must end, too.
        asked.set(asked.get() + 1);
        match answer {
            Ok(id) => seen.ids.push(id),
            Err(failure) => seen.failures.push(format!("{uses:?}: {failure}")),
        }
    }
    seen
}

/// The connection that a client keeps.
#[derive(Debug, Default)]
struct Line {
    http1: Option<TcpStream>,
    http2: Option<SendRequest<Bytes>>,
}

impl Line {
    /// Asks once, on the connection that there is, and keeps it unless the reply says that it ends.
    async fn ask(&mut self, to: SocketAddr, seen: &mut Seen) -> Result<String, String> {
        let mut socket = match self.http1.take() {
            Some(socket) => socket,
            None => TcpStream::connect(to).await.map_err(|error| format!("connect: {error}"))?,
        };
        let sent = socket.write_all(post(to, CHAT).as_bytes()).await;
        sent.map_err(|error| format!("send: {error}"))?;
        let mut buffer = Vec::new();
        let head = head(&mut socket, &mut buffer).await.ok_or("the connection ended without a reply")?;
        let length = header(&head, "content-length").ok_or("no length")?.parse().unwrap();
        let body = exactly(&mut socket, &mut buffer, length).await.ok_or("the reply was cut")?;
        if !head.starts_with("HTTP/1.1 200 ") || body != CHAT_REPLY.as_bytes() {
            return Err(format!("{head}{}", String::from_utf8_lossy(&body)));
        }
        if header(&head, "connection") == Some("close") {
            seen.told_to_go += 1;
        } else {
            self.http1 = Some(socket);
        }
        Ok(header(&head, "x-bursar-request-id").ok_or("no id")?.to_owned())
    }

    /// The same in HTTP/2. What the sidecar said it has not looked at is sent again, as every client does.
    async fn ask_http2(&mut self, to: SocketAddr, seen: &mut Seen) -> Result<String, String> {
        loop {
            let sender = match self.http2.take() {
                Some(sender) => sender,
                None => try_http2_connect(to).await?,
            };
            match self.http2_once(sender, to).await {
                Err(error) if is_unprocessed(&error) => seen.told_to_go += 1,
                Err(error) => return Err(error.to_string()),
                Ok((id, 200, body)) if body == CHAT_REPLY.as_bytes() => return Ok(id),
                Ok((_, status, body)) => {
                    return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
                }
            }
        }
    }

    async fn http2_once(
        &mut self,
        sender: SendRequest<Bytes>,
        to: SocketAddr,
    ) -> Result<(String, u16, Vec<u8>), h2::Error> {
        let (head, mut body) = http2_ask(sender.clone(), to, CHAT).await?.into_parts();
        let mut whole = Vec::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            whole.extend_from_slice(&data);
        }
        self.http2 = Some(sender);
        let id = head.headers.get("x-bursar-request-id").map_or("", |id| id.to_str().unwrap());
        Ok((id.to_owned(), head.status.as_u16(), whole))
    }
}

/// Whether the other side says that it has not looked at the request (RFC 9113 §8.7), or the request was
/// never sent because the other side had said good-bye.
fn is_unprocessed(error: &h2::Error) -> bool {
    let is_good_bye = error.is_go_away() && error.reason() == Some(Reason::NO_ERROR);
    is_good_bye || (error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM))
}
