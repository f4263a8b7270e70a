//! Bodies of requests and answers that note whose turn it is.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::turn::{Exchange, Stage};

/// Largest part of an answer that is handed over at a time, in bytes: what lies between the server and a client that does
/// not read is no more than a few of them.
const PART: usize = 64 << 10;

/// The connection is needed for somebody else: the client had its time to send the body.
#[derive(Debug, thiserror::Error)]
#[error("the connection was given to another client before the body had arrived")]
pub(in crate::api) struct Displaced;

/// The body of a request.
pub(super) struct Received {
    body: Incoming,
    exchange: Arc<Exchange>,
    displaced: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Received {
    /// The body, which breaks off when the connection is needed for somebody else.
    pub fn new(body: Incoming, exchange: Arc<Exchange>, displaced: WaitForCancellationFutureOwned) -> Self {
        Self { body, exchange, displaced: Box::pin(displaced) }
    }
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            // From here to the end of the body it is the client's turn, however many small parts it sends.
            self.exchange.waits_for(Stage::Receiving);
            ready!(self.displaced.as_mut().poll(context));
            self.exchange.waits_for(Stage::Working);
            return Poll::Ready(Some(Err(Displaced.into())));
        };
        if !matches!(&frame, Some(Ok(_))) || self.body.is_end_stream() {
            self.exchange.waits_for(Stage::Working);
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

impl Drop for Received {
    fn drop(&mut self) {
        // Whoever read it wants no more of it.
        if self.exchange.stage() == Stage::Receiving {
            self.exchange.waits_for(Stage::Working);
        }
    }
}

/// The body of an answer, handed over in parts.
pub(super) struct Sent {
    body: Body,
    /// What is left of the part that the body gave last.
    rest: Bytes,
    exchange: Arc<Exchange>,
}

impl Sent {
    /// The body of the answer to a request.
    pub fn new(body: Body, exchange: Arc<Exchange>) -> Self {
        Self { body, rest: Bytes::new(), exchange }
    }
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.exchange.waits_for(Stage::Working);
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return Poll::Ready(other),
            }
        }
        let size = self.rest.len().min(PART);
        let part = self.rest.split_to(size);
        // Asked again as soon as there is room for more.
        self.exchange.waits_for(Stage::Held);
        Poll::Ready(Some(Ok(Frame::data(part))))
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

    use super::super::turn::Turn;
    use super::*;

    #[tokio::test]
    async fn an_answer_goes_out_in_parts_and_complete() {
        let turn = Arc::new(Turn::new());
        let text: Bytes = (0..3 * PART + 1).map(|n| n as u8).collect();
        let mut sent = Sent::new(Body::from(text.clone()), Arc::new(Exchange::new(Arc::clone(&turn))));
        assert_eq!(sent.size_hint().exact(), Some(text.len() as u64));
        let first = sent.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((first.len(), sent.size_hint().exact()), (PART, Some((text.len() - PART) as u64)));
        assert!(turn.clients_since().is_some(), "the client has to take it");
        let rest = sent.collect().await.unwrap().to_bytes();
        assert_eq!([first, rest].concat(), text);
    }
}
