//! Request and response bodies that record whether the connection waits for the client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::activity::{ActiveRequest, WaitingFor};

/// Maximum size of a response chunk in bytes. Bounds the memory buffered for a client that does not read to a few
/// chunks.
const CHUNK: usize = 64 << 10;

/// The connection was evicted in favour of another client before the body was complete.
#[derive(Debug, thiserror::Error)]
#[error("the connection was closed in favour of another client before the request body was complete")]
pub(in crate::api) struct Evicted;

/// The body of a request.
pub(super) struct RequestBody {
    body: Incoming,
    active: Arc<ActiveRequest>,
    evicted: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl RequestBody {
    /// A body that fails with [`Evicted`] when the connection is evicted.
    pub fn new(body: Incoming, active: Arc<ActiveRequest>, evicted: WaitForCancellationFutureOwned) -> Self {
        Self { body, active, evicted: Box::pin(evicted) }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            // Waits for the client until the end of the body, however many small chunks it sends.
            self.active.set(WaitingFor::RequestBody);
            ready!(self.evicted.as_mut().poll(context));
            self.active.set(WaitingFor::Server);
            return Poll::Ready(Some(Err(Evicted.into())));
        };
        if !matches!(&frame, Some(Ok(_))) || self.body.is_end_stream() {
            self.active.set(WaitingFor::Server);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        // The handler stopped reading.
        if self.active.waiting_for() == WaitingFor::RequestBody {
            self.active.set(WaitingFor::Server);
        }
    }
}

/// The body of a response, sent in chunks.
pub(super) struct ResponseBody {
    body: Body,
    /// Rest of the last frame of the inner body.
    rest: Bytes,
    active: Arc<ActiveRequest>,
}

impl ResponseBody {
    /// The body of the response to a request.
    pub fn new(body: Body, active: Arc<ActiveRequest>) -> Self {
        Self { body, rest: Bytes::new(), active }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.active.set(WaitingFor::Server);
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return Poll::Ready(other),
            }
        }
        let size = self.rest.len().min(CHUNK);
        let chunk = self.rest.split_to(size);
        // Polled again as soon as the socket accepts more.
        self.active.set(WaitingFor::ClientRead);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(inner.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use http_body_util::BodyExt;

    use super::super::activity::Activity;
    use super::*;

    #[tokio::test]
    async fn a_response_is_sent_in_chunks_and_complete() {
        let activity = Arc::new(Activity::new());
        let text: Bytes = (0..3 * CHUNK + 1).map(|n| n as u8).collect();
        let mut sent = ResponseBody::new(Body::from(text.clone()), Arc::new(ActiveRequest::new(Arc::clone(&activity))));
        assert_eq!(sent.size_hint().exact(), Some(text.len() as u64));
        let first = sent.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((first.len(), sent.size_hint().exact()), (CHUNK, Some((text.len() - CHUNK) as u64)));
        assert!(activity.waiting_for_client_since().is_some(), "waits for the client to read");
        let rest = sent.collect().await.unwrap().to_bytes();
        assert_eq!([first, rest].concat(), text);
    }
}
