//! HTTP server: accept loop, connection limits, timeouts and graceful shutdown.
//!
//! Every connection is accepted; the limits on open connections are enforced by [`ConnectionRegistry::admit`].

mod activity;
mod connection_registry;
mod tracked_bodies;
mod tracked_stream;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{ServiceExt, service_fn};

use activity::ActiveRequest;
use connection_registry::{ConnectionPermit, ConnectionRegistry};
pub(super) use tracked_bodies::Evicted;
use tracked_bodies::{RequestBody, ResponseBody};
use tracked_stream::TrackedStream;

use super::admission::OVERLOAD_RETRY_AFTER;
use super::client::{ClientKey, RequestArrival};
use super::problem::{Kind, MEDIA_TYPE, Problem};
use crate::config::Config;

/// A running HTTP/1.1 and HTTP/2 server.
pub struct Server {
    address: SocketAddr,
    accepting: JoinHandle<()>,
    connections: TaskTracker,
    drain: CancellationToken,
    abort: CancellationToken,
}

/// Socket send buffer in bytes. By default Linux buffers several megabytes for each client that does not read, and a
/// few hundred such clients exhaust the TCP memory of the machine.
const SEND_BUFFER: u32 = 256 << 10;

/// Length of the accept queue.
const BACKLOG: u32 = 1024;

/// Listens on an address.
///
/// # Errors
/// If the address is in use or not local.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Lets a restarted server bind immediately. On other systems this would let two servers share the address.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    // Inherited by accepted connections.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Server {
    /// Serves `router` on `listener` with the limits of `config`.
    ///
    /// # Errors
    /// If the listener has no local address.
    pub fn start(listener: TcpListener, router: Router, config: &Config) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (drain, abort) = (CancellationToken::new(), CancellationToken::new());
        let connections = TaskTracker::new();
        let accept_loop = AcceptLoop {
            router,
            client_timeout: config.request_timeout,
            registry: Arc::new(ConnectionRegistry::new(config.max_connections, config.max_connections_per_client)),
            trusted_proxies: config.trusted_proxy.clone(),
            closing: Arc::new(Semaphore::new(MAX_CLOSING)),
            connections: connections.clone(),
            drain: drain.clone(),
            abort: abort.clone(),
        };
        let accepting = tokio::spawn(accept_loop.run(listener));
        Ok(Self { address, accepting, connections, drain, abort })
    }

    /// The local address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting connections; open ones close after their current request.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Drains the server and waits for open connections to close; aborts those still open after `grace`.
    pub async fn shutdown(self, grace: Duration) {
        self.drain();
        self.connections.close();
        if tokio::time::timeout(grace, self.connections.wait()).await.is_err() {
            tracing::warn!(connections = self.connections.len(), "aborting open connections");
            self.abort.cancel();
            self.connections.wait().await;
        }
        if let Err(error) = self.accepting.await {
            tracing::error!(%error, "accept loop failed");
        }
    }
}

/// Number of rejected connections that may be open to read the 503 response.
const MAX_CLOSING: usize = 64;

/// Time for a closing connection to read its last response.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum number of concurrent streams of an HTTP/2 connection.
const MAX_HTTP2_STREAMS: u32 = 64;

struct AcceptLoop {
    router: Router,
    /// Longest wait for a client.
    client_timeout: Duration,
    registry: Arc<ConnectionRegistry>,
    trusted_proxies: Vec<crate::config::IpRange>,
    closing: Arc<Semaphore>,
    connections: TaskTracker,
    drain: CancellationToken,
    abort: CancellationToken,
}

impl AcceptLoop {
    async fn run(self, listener: TcpListener) {
        let drain = self.drain.clone();
        drain
            .run_until_cancelled(async {
                loop {
                    match listener.accept().await {
                        Ok((stream, peer)) => self.admit(stream, peer),
                        Err(error) => self.accept_failed(&error).await,
                    }
                }
            })
            .await;
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let address = peer.ip().to_canonical();
        let trusted = self.trusted_proxies.iter().any(|range| range.contains(address));
        let client = (!trusted).then(|| ClientKey::new(address));
        match self.registry.admit(client) {
            Some(permit) => self.serve(stream, peer, permit),
            None => self.reject(stream),
        }
    }

    /// An accept error concerns a single connection, or the process has run out of file descriptors.
    async fn accept_failed(&self, error: &std::io::Error) {
        use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
            return;
        }
        let pause = match self.registry.evict_longest_idle() {
            true => Duration::from_millis(5),
            false => Duration::from_secs(1),
        };
        tracing::error!(%error, "cannot accept a connection");
        tokio::time::sleep(pause).await;
    }

    /// Answers 503 to a connection beyond all limits, without reading its request.
    fn reject(&self, mut stream: TcpStream) {
        let Ok(permit) = Arc::clone(&self.closing).try_acquire_owned() else { return };
        let abort = self.abort.clone();
        let document = Problem::new(Kind::Overloaded, "there are too many connections; try again later").document("");
        let mut response = format!(
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {OVERLOAD_RETRY_AFTER}\r\nConnection: close\r\nX-Content-Type-Options: nosniff\r\nContent-Type: {MEDIA_TYPE}\r\n\
             Content-Length: {}\r\n\r\n",
            document.len()
        )
        .into_bytes();
        response.extend(document);
        self.connections.spawn(async move {
            let _permit = permit;
            let close = async {
                stream.write_all(&response).await?;
                stream.shutdown().await?;
                // Closing a socket with unread data resets the connection and discards the response.
                let mut rest = [0; 4096];
                while stream.read(&mut rest).await? > 0 {}
                std::io::Result::Ok(())
            };
            let _ = abort.run_until_cancelled(tokio::time::timeout(CLOSE_TIMEOUT, close)).await;
        });
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr, permit: ConnectionPermit) {
        // Responses are written as a whole, so Nagle's algorithm would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let (activity, evicted, reserve) = (Arc::clone(&permit.activity), permit.evicted.clone(), permit.reserve);
        let close_reserve = CancellationToken::new();
        let stream = TrackedStream::new(stream, Arc::clone(&activity));
        let service = {
            let (router, activity, evicted, close_reserve) =
                (self.router.clone(), Arc::clone(&activity), evicted.clone(), close_reserve.clone());
            service_fn(move |mut request: Request<Incoming>| {
                let active = Arc::new(ActiveRequest::new(Arc::clone(&activity)));
                let arrival = RequestArrival { peer: peer.ip().to_canonical(), at: Instant::now(), reserve };
                request.extensions_mut().insert(arrival);
                handle(router.clone(), request, active, evicted.clone(), reserve.then(|| close_reserve.clone()))
            })
        };
        let (drain, abort, client_timeout) = (self.drain.clone(), self.abort.clone(), self.client_timeout);
        let closing = Arc::clone(&self.closing);
        self.connections.spawn(async move {
            let _permit = permit;
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(client_timeout);
            builder
                .http2()
                .timer(TokioTimer::new())
                .keep_alive_interval(client_timeout)
                .keep_alive_timeout(client_timeout);
            builder.http2().max_concurrent_streams(MAX_HTTP2_STREAMS);
            let service = TowerToHyperService::new(service);
            let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
            let ended = tokio::select! {
                // A request that has arrived is handled before the connection is closed.
                biased;
                ended = connection.as_mut() => ended,
                () = close_reserve.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::time::timeout(CLOSE_TIMEOUT, connection).await.unwrap_or(Ok(()))
                }
                () = activity.timed_out(client_timeout) => {
                    metrics::counter!("proxygrad_http_connections_overdue_total").increment(1);
                    Ok(())
                }
                () = evicted.cancelled() => match (activity.is_receiving(), closing.try_acquire()) {
                    // A request whose body is incomplete still gets a response.
                    (true, Ok(_permit)) => {
                        connection.as_mut().graceful_shutdown();
                        tokio::time::timeout(CLOSE_TIMEOUT, connection).await.unwrap_or(Ok(()))
                    }
                    _ => Ok(()),
                },
                () = drain.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = connection => ended,
                        () = abort.cancelled() => Ok(()),
                    }
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection failed");
            }
        });
    }
}

/// Handles a request; its body and the response's body report to the connection's activity.
async fn handle(
    router: Router,
    request: Request<Incoming>,
    active: Arc<ActiveRequest>,
    evicted: CancellationToken,
    reserve: Option<CancellationToken>,
) -> Result<Response<ResponseBody>, Infallible> {
    let version = request.version();
    let request_activity = Arc::clone(&active);
    let request = request.map(|body| Body::new(RequestBody::new(body, request_activity, evicted.cancelled_owned())));
    let mut response = router.oneshot(request).await?;
    // A reserve connection is closed after a 503, so that a retry gets a new connection.
    if let Some(close_reserve) = reserve.filter(|_| response.status() == StatusCode::SERVICE_UNAVAILABLE) {
        match version {
            Version::HTTP_2 => close_reserve.cancel(),
            _ => _ = response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close")),
        }
    }
    Ok(response.map(|body| ResponseBody::new(body, active)))
}
