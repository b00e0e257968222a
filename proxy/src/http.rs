//! The concrete HTTP types of the proxy.
//!
//! Not here: what is done with them (`layers`), how they are framed (hyper).

use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;

/// A request as hyper hands it over: the body is still on its way.
pub type Request = http::Request<hyper::body::Incoming>;

/// A reply on its way to the client.
pub type Response = http::Response<crate::reply::ReplyBody>;

/// Any error that ends a body early.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A future of one worker: workers are single-threaded, so nothing here is `Send`.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// One frame of a body.
pub type Frame = http_body::Frame<Bytes>;
