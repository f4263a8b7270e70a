//! A TCP connection that notes whether its client reads.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::turn::Turn;

/// The connection.
pub(super) struct Observed {
    stream: TcpStream,
    turn: Arc<Turn>,
}

impl Observed {
    /// Notes in `turn` what becomes of the bytes that are written.
    pub fn new(stream: TcpStream, turn: Arc<Turn>) -> Self {
        Self { stream, turn }
    }

    fn note(&self, written: Poll<Result<usize>>, all: usize) -> Poll<Result<usize>> {
        match &written {
            Poll::Pending => self.turn.blocked(),
            Poll::Ready(Ok(bytes)) => self.turn.wrote(*bytes, *bytes == all),
            Poll::Ready(Err(_)) => {}
        }
        written
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        // What a client does not read would stay in the operating system's memory for minutes.
        if self.turn.is_blocked()
            && let Err(error) = self.stream.set_zero_linger()
        {
            tracing::debug!(%error, "an unread answer is kept");
        }
    }
}

impl AsyncRead for Observed {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Observed {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(written, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.note(written, parts.iter().map(|part| part.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
