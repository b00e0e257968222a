//! The request path: every layer in order, outermost first, each with its reason.
//!
//! Not here: what the layers do (`layers`).

use crate::app::App;
use crate::aws::Signer;
use crate::call::Call;
use crate::credentials::tokens::TokenCache;
use crate::failure::{Failure, FailureKind};
use crate::guard::{self, BodyPresence, Upgrade};
use crate::http::{LocalFuture, Request, Response};
use crate::ids::IdSource;
use crate::layers::identify::{self, IdentityCache};
use crate::layers::route::RouteCache;
use crate::layers::{admit, authenticate, meter, respond, route, upgrade};
use crate::upstream::Pool;
use futures_util::future::{Either, Ready, ready};
use http_body::Body;
use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower::layer::layer_fn;
use tower::{Layer, Service, ServiceBuilder, service_fn};

/// The whole path of a request, boxed once per worker and shared by its connections.
pub(crate) type Stack = Rc<dyn Fn(Request) -> LocalFuture<Result<Response, Infallible>>>;

/// The whole path of a request through one worker.
pub(crate) fn stack(app: &Arc<App>, pool: &Rc<Pool>, ids: &Rc<IdSource>) -> Stack {
    let (app, pool, ids) = (Arc::clone(app), Rc::clone(pool), Rc::clone(ids));
    let (for_respond, for_check, for_route, for_identify, for_admit) =
        (app.clone(), app.clone(), app.clone(), app.clone(), app.clone());
    let for_ids = Rc::clone(&ids);
    let paths = Rc::new(RefCell::new(RouteCache::default()));
    let signer = Rc::new(Signer::new(pool.connector().clone()));
    let identities = Rc::new(RefCell::new(IdentityCache::default()));
    let tokens = Rc::new(RefCell::new(TokenCache::default()));
    let service = ServiceBuilder::new()
        // Outermost, so that whatever fails below becomes a reply in the provider's shape.
        .layer(layer_fn(move |inner| Respond { app: for_respond.clone(), inner }))
        // Nothing that is not strict HTTP may choose a route.
        .layer(step(move |request| check(&for_check, request)))
        // The route fixes provider, upstream and error shape; identity and rules depend on it.
        .layer(step(move |request| {
            let id = for_ids.next(for_route.now());
            let call = route::route(&for_route, &mut paths.borrow_mut(), id, request)?;
            // Only some APIs may leave HTTP.
            upgrade::check(call)
        }))
        // Who pays must be known before anything is decided: by a credential of ours, which is taken out of
        // the request here, and else by configuration and headers.
        .layer(step(move |call| identified(&for_identify, &tokens, &identities, call)))
        // The last moment at which nothing has been spent.
        .layer(step(move |call| admit::admit(&for_admit, call)))
        // Innermost: from here on the request reaches the upstream and leaves a record.
        .service(service_fn(move |call: Box<Call>| -> LocalFuture<_> {
            // Boxed here, so that the layers above pass a pointer and not the whole exchange.
            if upgrade::is_asked(&call) {
                return Box::pin(upgrade::upgrade(Arc::clone(&app), Rc::clone(&pool), Rc::clone(&ids), call));
            }
            Box::pin(meter::meter(Arc::clone(&app), Rc::clone(&pool), Rc::clone(&signer), call))
        }));
    let service = RefCell::new(service);
    Rc::new(move |request| service.borrow_mut().call(request))
}

/// Refuses what the byte guard rejected, and what HTTP/2 let through.
fn check(app: &App, request: Request) -> Result<Request, Failure> {
    let (mut head, body) = request.into_parts();
    let presence = if body.is_end_stream() { BodyPresence::Empty } else { BodyPresence::Present };
    let verdict = match guard::rejection_of(&head.method, &head.uri, head.version) {
        Some(rejection) => Err(FailureKind::Rejected(rejection)),
        None => match guard::check_request(&head, presence, &app.guard_limits) {
            Ok(checked) => Ok(checked.upgrade),
            Err(rejection) => Err(FailureKind::Rejected(rejection)),
        },
    };
    match verdict {
        Ok(upgrade) => {
            if upgrade == Upgrade::WebSocket {
                head.extensions.insert(upgrade);
            }
            Ok(Request::from_parts(head, body))
        }
        Err(kind) => Err(Failure { kind, dialect: route::guess_dialect(head.uri.path()), request: None }),
    }
}

fn identified(
    app: &App,
    tokens: &RefCell<TokenCache>,
    cache: &RefCell<IdentityCache>,
    mut call: Box<Call>,
) -> Result<Box<Call>, Failure> {
    authenticate::authenticate(app, &mut tokens.borrow_mut(), &mut call)?;
    let credential = call.credential.as_deref();
    match cache.borrow_mut().identify(&call.head.headers, &app.config(), credential) {
        Ok((identity, trace, anomalies)) => {
            call.identity = Some(identity);
            call.trace = trace;
            if app.telemetry.has_spans() && trace.is_some() {
                call.caller = identify::caller(&call.head.headers);
            }
            call.anomalies.extend(anomalies);
            Ok(call)
        }
        Err(error) => Err(Failure {
            kind: FailureKind::Identity(error),
            dialect: call.error_dialect(),
            request: Some(call.id),
        }),
    }
}

/// A layer that checks or enriches a request by a plain function.
fn step<F: Clone, S>(apply: F) -> impl Layer<S, Service = Step<F, S>> {
    layer_fn(move |inner| Step { apply: apply.clone(), inner })
}

/// A service that checks or enriches a request by a plain function.
#[derive(Clone, Debug)]
struct Step<F, S> {
    apply: F,
    inner: S,
}

impl<A, B, F, S> Service<A> for Step<F, S>
where
    F: Fn(A) -> Result<B, Failure>,
    S: Service<B, Response = Response, Error = Failure>,
{
    type Response = Response;
    type Error = Failure;
    type Future = Either<S::Future, Ready<Result<Response, Failure>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: A) -> Self::Future {
        match (self.apply)(request) {
            Ok(request) => Either::Left(self.inner.call(request)),
            Err(failure) => Either::Right(ready(Err(failure))),
        }
    }
}

/// Turns failures into replies and counts the refusals among them.
#[derive(Clone, Debug)]
struct Respond<S> {
    app: Arc<App>,
    inner: S,
}

impl<S> Service<Request> for Respond<S>
where
    S: Service<Request, Response = Response, Error = Failure>,
    S::Future: 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = LocalFuture<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let future = self.inner.call(request);
        let app = Arc::clone(&self.app);
        Box::pin(async move {
            Ok(match future.await {
                Ok(response) => response,
                Err(failure) => {
                    tracing::info!(failure = %failure.kind, "request failed");
                    if let Some(reason) = failure.kind.refusal() {
                        app.metrics.refused(reason);
                        app.remember(&failure, reason);
                    }
                    respond::respond(&failure)
                }
            })
        })
    }
}
