//! The service that gets the copies.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use program::connector::{Connector, connector};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    copy::Copy,
    counts::{Counts, Loss},
    options::Options,
};

/// How long a connection is kept for the next copy. Shorter than the servers of most services keep theirs (Node.js 5 s): a copy
/// that crosses their close would fail.
const IDLE: Duration = Duration::from_secs(4);

/// How much of the body of a reply is read, and discarded.
const REPLY_BYTES: usize = 1 << 20;

/// The longest head of a reply, up to a read more.
const HEAD_BYTES: usize = 64 * 1024;

/// Sends copies, a limited number at a time.
#[derive(Debug)]
pub(crate) struct Sender {
    client: Client<Connector, Full<Bytes>>,
    connections: Semaphore,
    timeout: Duration,
    pub(crate) counts: Arc<Counts>,
}

impl Sender {
    /// # Errors
    /// There are no certificates of authorities.
    pub(crate) fn new(options: &Options) -> anyhow::Result<Self> {
        let authorities = options.upstream_ca.as_deref();
        let connector = connector(&options.upstream, authorities, options.connect_timeout)?;
        let connections = usize::from(options.connections);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(connections)
            .http1_max_buf_size(HEAD_BYTES)
            .build(connector);
        Ok(Self {
            client,
            connections: Semaphore::new(connections),
            timeout: options.timeout,
            counts: Arc::new(Counts::new()),
        })
    }

    /// Sends a copy and awaits the reply, and counts what becomes of it.
    ///
    /// One that has waited for a connection has as much time for the reply as any other: with what is left of one time for both, a
    /// service that is slower than the copies come would begin with many, and answer few.
    pub(crate) async fn send(&self, copy: Copy) {
        let Ok(connection) = timeout(self.timeout, self.connections.acquire()).await else {
            return self
                .counts
                .lose(Loss::Waited, format_args!("no connection was free within {:?}", self.timeout));
        };
        let end = Instant::now() + self.timeout;
        match timeout_at(end, self.client.request(copy.request)).await {
            Ok(Ok(reply)) => {
                self.counts.answered.add();
                // A body that is too long or too slow ends its connection.
                let _ = timeout_at(end, discard(reply.into_body())).await;
            }
            Ok(Err(error)) => {
                let error = anyhow::Error::from(error);
                self.counts.lose(Loss::Failed, format_args!("no reply of the service: {error:#}"));
            }
            // The request is dropped, and with it the connection.
            Err(_) => self.counts.lose(Loss::Late, format_args!("no reply within {:?}", self.timeout)),
        }
        drop(connection);
    }
}

/// Reads a body to its end, so that the connection can be used again.
async fn discard(mut body: impl BodyExt<Data = Bytes> + Unpin) {
    let mut left = REPLY_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(less) => left = less,
            None => return,
        }
    }
}
