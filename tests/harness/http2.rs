//! A client and a provider that speak HTTP/2, over in-memory streams.
//!
//! Not here: HTTP/1.1, where tests decide every byte (`client`, `provider`).

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::DuplexStream;

type Frames = Pin<Box<dyn futures_util::Stream<Item = Result<Frame<Bytes>, io::Error>>>>;
type FramesBody = StreamBody<Frames>;

/// A connection that many requests can share.
#[derive(Clone)]
pub struct Http2Client {
    sender: http2::SendRequest<FramesBody>,
}

impl std::fmt::Debug for Http2Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Http2Client")
    }
}

/// A reply as it came.
#[derive(Clone, Debug)]
pub struct Http2Reply {
    /// Status and headers.
    pub head: Response<()>,
    /// The body.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Option<HeaderMap>,
    /// Whether the stream ended by itself.
    pub whole: bool,
}

impl Http2Client {
    /// Says hello over `io`.
    pub async fn new(io: DuplexStream) -> Self {
        let executor = bursar::tasks::WorkerExecutor;
        let (sender, connection) = http2::handshake(executor, TokioIo::new(io)).await.unwrap();
        bursar::tasks::start(async move {
            // What goes wrong reaches the requests, too.
            let _ = connection.await;
        });
        Self { sender }
    }

    /// Sends a request and returns the head of its reply, with the body still to come.
    ///
    /// # Errors
    /// When the stream or the connection breaks before.
    pub async fn open(&mut self, request: Request<Vec<Frame<Bytes>>>) -> hyper::Result<Response<Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request.map(|all| frames(all, false))).await
    }

    /// Sends a request and reads its reply.
    pub async fn send(&mut self, request: Request<Vec<Frame<Bytes>>>) -> Http2Reply {
        let (head, mut body) = self.open(request).await.unwrap().into_parts();
        let head = Response::from_parts(head, ());
        let mut reply = Http2Reply { head, body: Vec::new(), trailers: None, whole: true };
        while let Some(frame) = body.frame().await {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => reply.body.extend_from_slice(&data),
                Ok(Err(other)) => reply.trailers = other.into_trailers().ok(),
                Err(_) => {
                    reply.whole = false;
                    break;
                }
            }
        }
        reply
    }
}

/// A request with a JSON body.
#[must_use]
pub fn post(path: &str, headers: &[(&str, &str)], body: &str) -> Request<Vec<Frame<Bytes>>> {
    let mut request = Request::post(format!("http://sidecar{path}")).version(Version::HTTP_2);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(vec![Frame::data(Bytes::from(body.to_owned()))]).unwrap()
}

/// What an HTTP/2 provider answers.
#[derive(Debug)]
pub struct Answer {
    /// Status and headers.
    pub head: Response<()>,
    /// Data and trailers.
    pub frames: Vec<Frame<Bytes>>,
    /// Whether the stream is reset after the frames.
    pub breaks: bool,
}

/// What an HTTP/2 provider received.
#[derive(Clone, Debug)]
pub struct Http2Request {
    /// Method, URI, headers.
    pub head: Request<()>,
    /// The body.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Option<HeaderMap>,
}

/// A provider that speaks HTTP/2 and answers in the order of its script.
#[derive(Clone, Debug, Default)]
pub struct Http2Provider(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    answers: RefCell<VecDeque<Answer>>,
    received: RefCell<Vec<Http2Request>>,
    connections: Cell<u32>,
    open: Cell<u32>,
}

impl Http2Provider {
    /// Answers the next request so.
    pub fn answer(&self, answer: Answer) {
        self.0.answers.borrow_mut().push_back(answer);
    }

    /// The requests received so far.
    #[must_use]
    pub fn received(&self) -> Vec<Http2Request> {
        self.0.received.borrow().clone()
    }

    /// How many connections were made.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.0.connections.get()
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.0.open.get()
    }

    /// A new connection to the provider.
    #[must_use]
    pub fn connect(&self) -> DuplexStream {
        self.0.connections.set(self.0.connections.get() + 1);
        self.0.open.set(self.0.open.get() + 1);
        let closing = self.clone();
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let provider = self.clone();
        let service = hyper::service::service_fn(move |request| provider.clone().serve(request));
        bursar::tasks::start(async move {
            let http = hyper::server::conn::http2::Builder::new(bursar::tasks::WorkerExecutor);
            // A broken connection only means that the sidecar has left.
            let _ = http.serve_connection(TokioIo::new(ours), service).await;
            closing.0.open.set(closing.0.open.get() - 1);
        });
        theirs
    }

    async fn serve(self, request: Request<Incoming>) -> Result<Response<FramesBody>, Infallible> {
        let (head, body) = request.into_parts();
        let whole = body.collect().await.unwrap();
        let trailers = whole.trailers().cloned();
        let request =
            Http2Request { head: Request::from_parts(head, ()), body: whole.to_bytes().to_vec(), trailers };
        self.0.received.borrow_mut().push(request);
        let answer = self.0.answers.borrow_mut().pop_front().expect("asked more often than scripted");
        Ok(answer.head.map(|()| frames(answer.frames, answer.breaks)))
    }
}

fn frames(all: Vec<Frame<Bytes>>, breaks: bool) -> FramesBody {
    let all = futures_util::stream::iter(all.into_iter().map(Ok));
    if !breaks {
        return StreamBody::new(Box::pin(all));
    }
    let broken = futures_util::stream::once(async {
        // A reset overtakes data that was not sent yet.
        tokio::time::sleep(Duration::from_millis(1)).await;
        Err(io::Error::other("scripted"))
    });
    StreamBody::new(Box::pin(all.chain(broken)))
}
