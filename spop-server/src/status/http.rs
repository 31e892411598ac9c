//! The HTTP server of a status page.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, X_CONTENT_TYPE_OPTIONS,
    },
    http::uri::Authority,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{interval, sleep, timeout},
};
use tracing::{debug, warn};

use super::{PERIOD, Shared, report::Report};
use crate::{ACCEPT_BACK_OFF, LogLimit, Stage, is_of_connection};

/// Connections at a time. A further one takes the place of the oldest that has sent no request, or is closed.
const CONNECTIONS: usize = 32;
/// How long a connection may take, from accept to close, and to send its request.
const TIME: Duration = Duration::from_secs(10);
const HEADER_TIME: Duration = Duration::from_secs(2);
/// The longest head of a request.
const HEAD: usize = 16 * 1024;

const DASHBOARD: &str = include_str!("dashboard.json");

/// Serves for ever.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = Connections::default();
    let mut period = interval(PERIOD);
    let failed = LogLimit::one_a_minute();
    loop {
        let accepted = tokio::select! {
            _ = period.tick() => {
                shared.sample();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => connections.begin(stream, &shared),
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                if let Some(suppressed) = failed.pass(shared.now()) {
                    warn!(name: "status_failed", %error, suppressed, "the status page accepts no connection");
                }
                sleep(ACCEPT_BACK_OFF).await;
            }
        }
    }
}

/// Those that are open, in the order in which they came.
#[derive(Default)]
struct Connections(VecDeque<Open>);

struct Open {
    task: JoinHandle<()>,
    /// Its request has arrived.
    asked: Arc<AtomicBool>,
}

impl Connections {
    fn begin(&mut self, stream: TcpStream, shared: &Arc<Shared>) {
        self.0.retain(|open| !open.task.is_finished());
        if self.0.len() >= CONNECTIONS {
            let silent = self.0.iter().position(|open| !open.asked.load(Ordering::Relaxed));
            let Some(oldest) = silent.and_then(|index| self.0.remove(index)) else { return };
            oldest.task.abort();
        }
        let asked = Arc::<AtomicBool>::default();
        let task = tokio::spawn(connection(stream, Arc::clone(shared), Arc::clone(&asked)));
        self.0.push_back(Open { task, asked });
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, asked: Arc<AtomicBool>) {
    let answer = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        let response = respond(&request, &shared);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(HEAD).keep_alive(false);
    match timeout(TIME, server.serve_connection(TokioIo::new(stream), answer)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(name: "status_connection", %error, "a connection of the status page failed"),
        Err(_) => debug!(name: "status_connection", "a connection of the status page took too long"),
    }
}

fn respond(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return response(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET only\n");
    }
    let path = request.uri().path();
    // What `/healthy` says is no secret, and who checks it has names of its own.
    if path != "/healthy" && !request.headers().get_all(HOST).iter().all(|host| is_own(host, &shared.hosts)) {
        let why = "ask for an IP address, for localhost, or for a name that the program was given\n";
        return response(StatusCode::MISDIRECTED_REQUEST, "text/plain", why);
    }
    match (path, &shared.metrics.recorder) {
        ("/", _) => {
            response(StatusCode::OK, "text/html; charset=utf-8", Report::of(shared).page().into_string())
        }
        ("/status.json", _) => {
            response(StatusCode::OK, "application/json", Report::of(shared).json().to_string())
        }
        ("/metrics", Some(recorder)) => {
            shared.metrics.collect();
            response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", recorder.render())
        }
        ("/dashboard.json", _) => response(StatusCode::OK, "application/json", DASHBOARD),
        ("/healthy", _) if shared.handle.stage() == Stage::Serve => {
            response(StatusCode::OK, "text/plain", "serves\n")
        }
        ("/healthy", _) => response(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "shuts down\n"),
        _ => response(
            StatusCode::NOT_FOUND,
            "text/plain",
            "/, /status.json, /metrics, /dashboard.json or /healthy\n",
        ),
    }
}

/// Whether a header `host` is for this page. A site that a browser shows can have its own name resolve to this address and read what
/// comes (DNS rebinding); it cannot change the header, which has its name.
fn is_own(host: &HeaderValue, hosts: &[String]) -> bool {
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    address.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|own| host.eq_ignore_ascii_case(own))
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}
