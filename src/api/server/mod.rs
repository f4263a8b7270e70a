//! Connections: accepting them, bounding them, ending them.
//!
//! Every connection is accepted. What is bounded is how many stay: see [`Registry::admit`].

mod bodies;
mod registry;
mod stream;
mod turn;

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

pub(super) use bodies::Displaced;
use bodies::{Received, Sent};
use registry::{Place, Registry};
use stream::Observed;
use turn::Exchange;

use super::client::{Arrival, ClientKey};
use super::guard::ROOM;
use super::problem::{Kind, MEDIA_TYPE, Problem};
use crate::config::Config;

/// An HTTP/1.1 and HTTP/2 server that listens.
pub struct Server {
    address: SocketAddr,
    accepting: JoinHandle<()>,
    connections: TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
}

/// Bytes of answers that the operating system keeps for a client that does not read. Left to itself it takes some megabytes
/// for each, and with a few hundred such clients there is no memory left for any connection of the machine.
const SEND_BUFFER: u32 = 256 << 10;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Listens on an address.
///
/// # Errors
/// When the address is taken or not this machine's.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted server gets its address back at once; elsewhere than on Unix this would let two servers share it.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Server {
    /// Answers the connections of `listener` with `router`, bounded as `config` says.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn start(listener: TcpListener, router: Router, config: &Config) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
        let connections = TaskTracker::new();
        let acceptor = Acceptor {
            router,
            patience: config.request_timeout,
            registry: Arc::new(Registry::new(config.max_connections, config.max_connections_per_client)),
            trusted: config.trusted_proxy.clone(),
            farewells: Arc::new(Semaphore::new(FAREWELLS)),
            connections: connections.clone(),
            stop: stop.clone(),
            abort: abort.clone(),
        };
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

/// Connections at a time that are given time to read why they have to go.
const FAREWELLS: usize = 64;

/// That time.
const FAREWELL: Duration = Duration::from_secs(1);

/// Requests that one HTTP/2 connection may have open at a time.
const STREAMS: u32 = 64;

struct Acceptor {
    router: Router,
    /// Time that a client has for its turn.
    patience: Duration,
    registry: Arc<Registry>,
    trusted: Vec<crate::config::Network>,
    farewells: Arc<Semaphore>,
    connections: TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
}

impl Acceptor {
    async fn run(self, listener: TcpListener) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(async {
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => self.admit(stream, peer),
                    Err(error) => self.failed(&error).await,
                }
            }
        })
        .await;
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let address = peer.ip().to_canonical();
        let trusted = self.trusted.iter().any(|network| network.contains(address));
        let client = (!trusted).then(|| ClientKey::new(address));
        match self.registry.admit(client) {
            Some(place) => self.serve(stream, peer, place),
            None => self.refuse(stream),
        }
    }

    /// A failed accept concerns one connection, or the process has run out of file descriptors and needs some back.
    async fn failed(&self, error: &std::io::Error) {
        use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
            return;
        }
        let pause = match self.registry.make_room() {
            true => Duration::from_millis(5),
            false => Duration::from_secs(1),
        };
        tracing::error!(%error, "a connection could not be accepted");
        tokio::time::sleep(pause).await;
    }

    /// Answers a connection for which there is no place at all, without reading what it asks.
    fn refuse(&self, mut stream: TcpStream) {
        let Ok(permit) = Arc::clone(&self.farewells).try_acquire_owned() else { return };
        let abort = self.abort.clone();
        let document = Problem::new(Kind::Overloaded, "there are too many connections; try again later").document("");
        let mut answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {ROOM}\r\nConnection: close\r\nX-Content-Type-Options: nosniff\r\nContent-Type: {MEDIA_TYPE}\r\n\
             Content-Length: {}\r\n\r\n",
            document.len()
        )
        .into_bytes();
        answer.extend(document);
        self.connections.spawn(async move {
            let _permit = permit;
            let farewell = async {
                stream.write_all(&answer).await?;
                stream.shutdown().await?;
                // A connection that is closed with something unread is reset, and the answer with it.
                let mut rest = [0; 4096];
                while stream.read(&mut rest).await? > 0 {}
                std::io::Result::Ok(())
            };
            let _ = abort.run_until_cancelled(tokio::time::timeout(FAREWELL, farewell)).await;
        });
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr, place: Place) {
        // Answers are written whole; waiting for more to send would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let (turn, leave, reserve) = (Arc::clone(&place.turn), place.leave.clone(), place.reserve);
        let retire = CancellationToken::new();
        let stream = Observed::new(stream, Arc::clone(&turn));
        let service = {
            let (router, turn, leave, retire) = (self.router.clone(), Arc::clone(&turn), leave.clone(), retire.clone());
            service_fn(move |mut request: Request<Incoming>| {
                let exchange = Arc::new(Exchange::new(Arc::clone(&turn)));
                let arrival = Arrival { peer: peer.ip().to_canonical(), at: Instant::now(), reserve };
                request.extensions_mut().insert(arrival);
                answer(router.clone(), request, exchange, leave.clone(), reserve.then(|| retire.clone()))
            })
        };
        let (stop, abort, patience) = (self.stop.clone(), self.abort.clone(), self.patience);
        let farewells = Arc::clone(&self.farewells);
        self.connections.spawn(async move {
            let _place = place;
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(patience);
            builder.http2().timer(TokioTimer::new()).keep_alive_interval(patience).keep_alive_timeout(patience);
            builder.http2().max_concurrent_streams(STREAMS);
            let service = TowerToHyperService::new(service);
            let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
            let ended = tokio::select! {
                // A request that has arrived is seen before anything ends the connection.
                biased;
                ended = connection.as_mut() => ended,
                () = retire.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::time::timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
                }
                () = turn.overdue(patience) => {
                    metrics::counter!("proxygrad_http_connections_overdue_total").increment(1);
                    Ok(())
                }
                () = leave.cancelled() => match (turn.is_receiving(), farewells.try_acquire()) {
                    // Who is in the middle of a request is told.
                    (true, Ok(_permit)) => {
                        connection.as_mut().graceful_shutdown();
                        tokio::time::timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
                    }
                    _ => Ok(()),
                },
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

/// The answer to a request; both note whose turn it is.
async fn answer(
    router: Router,
    request: Request<Incoming>,
    exchange: Arc<Exchange>,
    leave: CancellationToken,
    reserve: Option<CancellationToken>,
) -> Result<Response<Sent>, Infallible> {
    let version = request.version();
    let receiving = Arc::clone(&exchange);
    let request = request.map(|body| Body::new(Received::new(body, receiving, leave.cancelled_owned())));
    let mut response = router.oneshot(request).await?;
    // A connection of the reserve is one for probes as long as it lives: who comes back comes on another.
    if let Some(retire) = reserve.filter(|_| response.status() == StatusCode::SERVICE_UNAVAILABLE) {
        match version {
            Version::HTTP_2 => retire.cancel(),
            _ => _ = response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close")),
        }
    }
    Ok(response.map(|body| Sent::new(body, exchange)))
}
