//! The service that decides.

use std::{num::NonZero, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Uri, response::Parts};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use program::connector::{Connector, connector};
use spop_tokio::http::TraceParent;
use tokio::time::timeout;

use crate::{
    options::Options,
    question::{Question, TRACEPARENT},
};

/// How long a connection is kept for the next question. Shorter than the servers of most services keep theirs (Node.js 5 s): a
/// question that crosses their close would fail.
const IDLE: Duration = Duration::from_secs(4);

/// The body of a reply is not used. Its end is awaited for this long, so that the connection can be used again.
const BODY_TIME: Duration = Duration::from_millis(10);
/// And read to this length.
const BODY_BYTES: usize = 64 * 1024;

/// The longest head of a reply, up to a read more.
const HEAD_BYTES: usize = 64 * 1024;

/// A pool of connections to the service.
#[derive(Debug)]
pub(crate) struct Upstream {
    client: Client<Connector, Empty<Bytes>>,
    uri: Uri,
}

impl Upstream {
    /// # Errors
    /// Those of [`connector`].
    pub(crate) fn new(options: &Options) -> anyhow::Result<Self> {
        let uri = options.upstream.clone();
        let connector = connector(&uri, options.upstream_ca.as_deref(), options.connect_timeout)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(options.max_in_flight as usize)
            .http1_max_buf_size(HEAD_BYTES)
            .build(connector);
        Ok(Self { client, uri })
    }

    /// Asks, with a span of its own in the trace. A caller that waits no longer drops the future, and with it the connection.
    ///
    /// # Errors
    /// There is no reply.
    pub(crate) async fn ask(&self, question: Question, trace: Option<TraceParent>) -> anyhow::Result<Parts> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = question.0;
        if let (Some(trace), Some(span_id)) = (trace, NonZero::new(fastrand::u64(1..))) {
            request.headers_mut().insert(TRACEPARENT, trace.child(span_id).to_string().try_into()?);
        }
        let reply = self.client.request(request).await;
        let (head, body) = reply.with_context(|| format!("no reply of {}", self.uri))?.into_parts();
        // A body that is too long or too slow ends its connection.
        let _ = timeout(BODY_TIME, Limited::new(body, BODY_BYTES).collect()).await;
        Ok(head)
    }
}
