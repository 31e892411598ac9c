//! The HTTP server of a status page.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{interval, sleep, timeout},
};
use tracing::{debug, warn};

use super::{PERIOD, Shared, report::Report};
use crate::{ACCEPT_BACK_OFF, LogLimit, Stage, is_of_connection};

/// Connections at a time. A further one is closed.
const CONNECTIONS: usize = 32;
/// How long a connection may take, from accept to close, and to send its request.
const TIME: Duration = Duration::from_secs(10);
const HEADER_TIME: Duration = Duration::from_secs(5);
/// The longest head of a request.
const HEAD: usize = 16 * 1024;

const DASHBOARD: &str = include_str!("dashboard.json");

/// Serves for ever.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
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
            Ok((stream, _)) => {
                if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move {
                        connection(stream, shared).await;
                        drop(place);
                    });
                }
            }
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

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let answer = service_fn(|request| {
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
    match (request.uri().path(), &shared.recorder) {
        ("/", _) => {
            response(StatusCode::OK, "text/html; charset=utf-8", Report::of(shared).page().into_string())
        }
        ("/status.json", _) => {
            response(StatusCode::OK, "application/json", Report::of(shared).json().to_string())
        }
        ("/metrics", Some(recorder)) => {
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
