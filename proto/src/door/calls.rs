//! Which connections have a call under way: from its head to the last of its answer.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Bytes, HttpBody},
    extract::ConnectInfo,
    http::{Extensions, Request, Response},
};
use tower::{Layer, Service};

use super::{Call, Caller};

/// Counts the calls of each connection that came through a [`Door`](super::Door).
#[derive(Debug, Clone, Copy, Default)]
pub struct Calls;

impl<S> Layer<S> for Calls {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Counting<S> {
        Counting { inner }
    }
}

/// A service whose calls are counted.
#[derive(Debug, Clone)]
pub struct Counting<S> {
    inner: S,
}

fn caller(extensions: &Extensions) -> Option<&Caller> {
    let of_axum = || extensions.get::<ConnectInfo<Caller>>().map(|ConnectInfo(caller)| caller);
    extensions.get::<Caller>().or_else(of_axum)
}

impl<S, B, R> Service<Request<B>> for Counting<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let call = caller(request.extensions()).map(Caller::call);
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| Body { body, _call: call })) })
    }
}

/// The body of an answer, with the call that it ends.
#[derive(Debug)]
pub struct Body<R> {
    body: R,
    _call: Option<Call>,
}

impl<R: HttpBody<Data = Bytes> + Unpin> HttpBody for Body<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, R::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
