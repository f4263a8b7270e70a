//! Connections: accepting them, bounding them, ending them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// An HTTP/1.1 and HTTP/2 server that listens.
pub struct Server {
    address: SocketAddr,
    accepting: JoinHandle<()>,
    connections: TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
}

/// How connections are bounded.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most connections at a time; further ones wait in the operating system's queue.
    pub connections: usize,
    /// Time that a client has to send the head of a request; also the longest time that an idle connection stays open.
    pub head: Duration,
}

impl Server {
    /// Answers the connections of `listener` with `router`.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn start(listener: TcpListener, router: Router, bounds: Bounds) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
        let connections = TaskTracker::new();
        let acceptor =
            Acceptor { router, bounds, connections: connections.clone(), stop: stop.clone(), abort: abort.clone() };
        let accepting = tokio::spawn(acceptor.run(listener));
        Ok(Self { address, accepting, connections, stop, abort })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing more; connections end after the request that they are in.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Stops, waits until the last connection has ended, and after `grace` cuts those that have not.
    pub async fn shutdown(self, grace: Duration) {
        self.stop();
        self.connections.close();
        if tokio::time::timeout(grace, self.connections.wait()).await.is_err() {
            tracing::warn!(connections = self.connections.len(), "connections are cut");
            self.abort.cancel();
            self.connections.wait().await;
        }
        if let Err(error) = self.accepting.await {
            tracing::error!(%error, "the acceptor of connections failed");
        }
    }
}

struct Acceptor {
    router: Router,
    bounds: Bounds,
    connections: TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
}

impl Acceptor {
    async fn run(self, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(self.bounds.connections));
        let stop = self.stop.clone();
        stop.run_until_cancelled(async {
            // The semaphore is never closed.
            while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
                match listener.accept().await {
                    Ok((stream, _)) => self.serve(stream, permit),
                    Err(error) => pause(&error).await,
                }
            }
        })
        .await;
    }

    fn serve(&self, stream: TcpStream, permit: OwnedSemaphorePermit) {
        // Answers are written whole; waiting for more to send would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let begun = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&begun);
        let service = self.router.clone().map_request(move |request: axum::http::Request<_>| {
            begins.store(true, Ordering::Relaxed);
            request.map(Body::new)
        });
        let service = TowerToHyperService::new(service);
        let (stop, abort, head) = (self.stop.clone(), self.abort.clone(), self.bounds.head);
        self.connections.spawn(async move {
            let _permit = permit;
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(head);
            builder.http2().timer(TokioTimer::new()).keep_alive_interval(head).keep_alive_timeout(head);
            let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                // Until the first bytes show which HTTP it is, no other clock runs.
                () = silent(head, &begun) => Ok(()),
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = connection => ended,
                        () = abort.cancelled() => Ok(()),
                    }
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }
}

/// Ends when no request has come within `limit`.
async fn silent(limit: Duration, begun: &AtomicBool) {
    tokio::time::sleep(limit).await;
    if begun.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

/// A failed accept concerns one connection, or the process has run out of file descriptors and has to wait for some.
async fn pause(error: &std::io::Error) {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!(%error, "a connection could not be accepted");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
