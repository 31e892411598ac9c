//! The guide to servers, for `spop-tokio` and `spop-mio`. Differences between them are marked.
//!
//! # Which adapter
//!
//! Both are the same server, with the same configuration, limits, listeners, events and metrics. Take `spop-tokio` for handlers that
//! await something, and `spop-mio` for handlers that compute their answers at once. From one to the other:
//!
//! | | spop-tokio | spop-mio |
//! |---|---|---|
//! | handler | an async function of [`Request`](crate::Request) with its own bytes; `&self`, shared by all connections | a function of [`Request`](crate::Request) that borrows the input; `&mut self`, a clone for each worker |
//! | several messages | `Router` of handlers, with state, extractors, timeouts and limits | `Router` of functions from a message to a `Result` ([`agent::Router`](spop_core::agent::Router)) |
//! | an answer from another thread | `Deferred`, with a request and a `Responder` | [`Request::defer`](crate::Request::defer), with a [`Responder`](crate::Responder) that has the request |
//! | to give it | `Responder::reply` | [`Responder::reply`](crate::Responder::reply) |
//! | to learn that it is not needed | `Responder::cancelled`, [`Request::cancellation`](crate::Request::cancellation); the future is dropped | [`Responder::is_cancelled`](crate::Responder::is_cancelled), [`Request::cancellation`](crate::Request::cancellation) |
//! | replaced at run time | `Swap::replace`, `Swap::current` | [`Swap::replace`](crate::Swap::replace), [`Swap::current`](crate::Swap::current) |
//! | listening | `bind(…).await?`, also listeners of tokio | `bind(…)?` |
//! | serving | `serve().await?` on any runtime | `serve()?` on `workers(n)` threads, one of which is the caller's |
//! | shutdown | [`ServerHandle`](crate::ServerHandle), or `serve_until(future)` | [`ServerHandle`](crate::ServerHandle), from another thread |
//! | connections without a listener | `Service` | [`Driver`](crate::Driver) |
//! | HAProxy's side | `Engine` | |
//!
//! # When a handler fails
//!
//! If a handler returns an error, panics, drops its responder, takes longer than
//! [`Timeouts::message`](spop_core::config::Timeouts::message), or answers with more than HAProxy accepts, its request fails,
//! and no other. HAProxy gets the reply of [`AgentConfig::on_failure`](spop_core::AgentConfig::on_failure) at once: an empty
//! answer, an answer that sets a variable, or a disconnect, which also loses the other requests in flight on the connection.
//! The same happens to a request that a limit of the server refuses. The event `request_failed` has the
//! [kind](crate::FailureKind), the route, and the error with its causes. Errors of `anyhow` and `Box<dyn Error + Send + Sync>` are
//! taken as they are.
//!
//! A `Route` of a router has an answer of its own for its failures: `Route::new(handler).on_failure(…)`. In a NOTIFY of several messages
//! the others are answered then; without it the NOTIFY fails as a whole. **spop-tokio**: a route also has a timeout and a limit
//! of calls in progress.
//!
//! ```
//! use std::time::Duration;
//! use spop_core::{Actions, AgentConfig, Scope, agent::OnFailure};
//!
//! let mut config = AgentConfig::default();
//! config.on_failure = OnFailure::Answer(Actions::new().set(Scope::Session, "failed", true));
//! // Shorter than HAProxy's `timeout processing`, or the answer comes too late.
//! config.timeouts.message = Some(Duration::from_millis(80));
//! // spop_tokio::Server::with_config(handler, config)?, or that of spop_mio.
//! ```
//!
//! The default of `timeouts.message` is 30 s, longer than HAProxy waits: set it, or the answer for failures does not reach HAProxy
//! when a handler is slow.
//!
//! # Open or closed
//!
//! HAProxy continues without an answer, and the variables are not set then: a rule that denies what the agent has objected to lets
//! everything pass while the agent is down. For a check that must not be passed, let the rule demand that the agent has allowed it:
//!
//! ```text
//! http-request deny unless { var(txn.auth.allowed) -m bool }
//! ```
//!
//! It covers an agent that is down or slow, a handler that fails, and a message whose name has no route, which a router skips by
//! default. `on_failure` can set a variable for what fails in the agent only, as `failed` above. `option continue-on-error` of the
//! `spoe-agent` decides whether HAProxy sends the messages of later events after a failure.
//!
//! **spop-mio**: the timeout ends requests that were deferred. A handler that blocks its worker's thread also blocks the timers
//! of the connections on it, until it returns.
//!
//! # Listeners
//!
//! `Server::bind` takes addresses, `(host, port)`, paths of unix sockets, and open listeners; **spop-tokio** also those of tokio.
//! An [`Endpoint`](crate::Endpoint) has the options of one: permissions of a socket file, taking it over from the process before, `SO_REUSEPORT`, keepalive. With the feature
//! `systemd`, `Endpoint::from_systemd` returns the sockets that a supervisor has opened.
//!
//! Before its session a connection passes the accept stage of its listener, a list of steps: rules on source addresses, a
//! PROXY header (feature `proxy`), a monitor that answers probes, and TLS (feature `tls`), in the order that you add them. One
//! timeout covers all of them. A connection that does not pass is closed, counted ([`Stats::rejected`](crate::Stats::rejected))
//! and logged.
//!
//! ```
//! use spop_core::accept::{AcceptConfig, Monitor, Policy, SourceRules};
//! use spop_server::Endpoint;
//!
//! let inside = SourceRules::new(Policy::Deny).allow("10.0.0.0/8".parse()?);
//! let health = Monitor::new("GET /health ", "HTTP/1.0 200 OK\r\n\r\n");
//! let config = AcceptConfig::new().with(inside)?.with(health)?;
//! let public = Endpoint::from("0.0.0.0:12345").accept(config);
//! let local = Endpoint::from("/run/agent.sock").mode(0o660);
//! # drop((public, local));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With `.with(ExpectProxy::new())` HAProxy's `send-proxy-v2` announces the client's address:
//! [`Request::source`](crate::Request::source) returns it, and [`Request::peer`](crate::Request::peer) is still the peer of
//! the connection. HAProxy 3.3 and later ignore `send-proxy` for agents, and such a listener refuses their connections.
//!
//! # TLS
//!
//! With the feature `tls`, for HAProxy's `server … ssl verify required ca-file … crt …`:
//!
#![cfg_attr(feature = "tls", doc = "```no_run")]
#![cfg_attr(not(feature = "tls"), doc = "```ignore")]
//! use spop_server::{Endpoint, tls::{Tls, TlsFiles}};
//!
//! # fn serve() -> std::io::Result<()> {
//! let tls = Tls::from_files(TlsFiles::new("agent.crt", "agent.key").require_clients_of("haproxy-ca.crt"))?;
//! let endpoint = Endpoint::from("0.0.0.0:12345").tls(&tls);
//! # drop(endpoint);
//! // When the files have changed. Open connections continue.
//! tls.reload()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//!
//! [`AgentConfig::limits`](spop_core::config::Limits) bounds one connection, and
//! [`AgentConfig::timeouts`](spop_core::config::Timeouts) how long things may take. [`ServerConfig`](crate::ServerConfig) bounds
//! all connections together:
//!
//! | limit | default | at the limit | counted in |
//! |---|---|---|---|
//! | [`max_connections`], [`max_connections_per_source`] | 10,000; none | A new connection is closed at once. | [`Stats::refused`] |
//! | [`max_in_flight`] | none | A new request fails with `overloaded`, and its handler is not called. | [`Stats::failures`] |
//! | [`max_request_bytes`] | 128 MiB | The same, on connections with 24 KiB or more of the bytes. | [`Stats::failures`] |
//! | [`max_buffered_bytes`] | 128 MiB | A connection that grows, and has more than 32 KiB of the bytes, is disconnected with status 13. | the event `connection_failed`, `spop_closed_total` |
//!
//! A request counts until its handler has ended and the request is dropped. So cancelled work must stop: **spop-tokio** drops the
//! handler's future; a [`Responder`](crate::Responder) in a queue, and a request that spawned work keeps, must be dropped by
//! the application. To size the limits and the memory of a server, see SECURITY.md in the repository.
//!
//! # HAProxy's settings and the agent's
//!
//! | HAProxy | agent | how they go together |
//! |---|---|---|
//! | `timeout processing` of the `spoe-agent` | [`AgentConfig::processing`], default 500 ms | Set the agent's to HAProxy's, or a little more. HAProxy does not say when it abandons a request. The agent counts later answers ([`Stats::late`]) and warns. On a connection at its limit of requests or payload bytes in flight it fails the oldest request once it is older than this (`overdue` in [`Stats::failures`]). |
//! | `maxconn` on the server line | [`ServerConfig::max_connections`] | HAProxy 3.1 and later have one request at a time on a connection, so `maxconn` bounds the concurrent requests as well. Leave it out, or set it to the number of requests that the agent can process at once. |
//! | `tune.bufsize` | [`AgentConfig::max_frame_size`], default 1 MiB | HAProxy 3.1 and later never fragment: a request that is longer than its buffer, or than the agent's frame size, fails with error 259 (256 + 3). 2.6 and 3.0 send it in fragments, up to [`Limits::max_payload`](spop_core::config::Limits::max_payload). |
//! | `timeout processing` | [`Timeouts::message`](spop_core::config::Timeouts::message), default 30 s | Shorter, if `on_failure` is to reach HAProxy in time. |
//! | `option redispatch 1` | two agents or more | A refused connection costs HAProxy 3.1 and later a second. |
//! | `timeout idle`; `pool-purge-delay` since 3.1 | [`Timeouts::idle`](spop_core::config::Timeouts::idle), default 10 min | The agent's is longer, so that HAProxy closes first. |
//! | `check inter … fall …` and `option spop-check` | [`ServerConfig::lame_duck`] | At least `inter` times `fall`, and a little more: then a restart loses no request. |
//! | global `maxconn`, `tune.pool-low-fd-ratio` since 3.1 | – | See below: enough for the connections to the agent, or they are closed after each request. |
//! | `max-waiting-frames` of 2.6 and 3.0, default 20 | [`AgentConfig::max_waiting_frames`] | The same number. |
//!
//! Pipelining is offered to HAProxy 2.6 and 3.0. Later versions stop reading for good when unread answers fill their buffer.
//! [`PipeliningPolicy::Always`] offers it to them as well, for answers of up to 780 bytes.
//!
//! Without pipelining HAProxy has a connection for each request at a time, and keeps it for the next, unless it uses more than a
//! fifth of its file descriptors (`tune.pool-low-fd-ratio`): then it closes most connections after each request. With 512
//! clients at once and `maxconn 2000` it asked 7,000 times a second, and 19,000 times with the ratio raised to 90. Its global
//! `maxconn` should be five times the concurrent requests, or the ratio higher.
//!
//! With the `async` capability ([`AgentConfig::capabilities`]) an answer takes another connection of the same engine if its own
//! is gone, or if its peer has not read earlier answers. The handlers of a lost connection continue while another connection
//! of its engine is open, for [`Timeouts::message`](spop_core::config::Timeouts::message) at most. A connection that drains stays
//! open for their answers, until its drain timeout.
//!
//! # Shutdown
//!
//! [`ServerHandle::drain`](crate::ServerHandle::drain) ends a server gracefully, in two stages. *Lame duck*: for
//! [`ServerConfig::lame_duck`], health checks and monitors are refused and everything else is served, so that HAProxy takes the
//! server out. *Drain*: the listeners close, and each connection is served until all its requests are answered, for
//! [`Timeouts::drain`](spop_core::config::Timeouts::drain) at most. [`ServerHandle::stop`](crate::ServerHandle::stop) ends it at
//! once. **spop-tokio**: `Server::serve_until` drains when its future is ready.
//!
//! Without health checks and a lame duck stage, HAProxy 3.1 and later lose a few requests in a restart. A request whose
//! connection is refused waits a second before HAProxy tries another server, longer than most processing timeouts. A request
//! that crosses the agent's DISCONNECT fails with 257. Measured under load: 0 to 6 of 23,000 in a rolling restart of two
//! agents, and none with a lame duck stage.
//!
//! ```text
//! backend agents
//!     mode spop                      # tcp before HAProxy 3.1
//!     option spop-check              # a plain check only connects, and does not notice a lame duck
//!     option redispatch 1
//!     default-server check inter 200ms fall 2
//!     server a1 10.0.0.1:12345
//!     server a2 10.0.0.2:12345       # agents with a lame duck stage of 500 ms
//! ```
//!
//! With the feature `systemd` the server sends systemd `READY=1` when it serves and `STOPPING=1` when its shutdown begins, for
//! units of `Type=notify`. Without `NOTIFY_SOCKET` it sends nothing. A program with several servers is ready when the first is.
//! `TimeoutStopSec=` must exceed the sum of lame duck, drain and about 15 s.
//!
//! A malicious peer can delay the end for longer: by [`AcceptConfig::timeout`](spop_core::accept::AcceptConfig::timeout) before
//! its session begins, and after it by some twelve times [`Timeouts::linger`](spop_core::config::Timeouts::linger), by reading a
//! little at a time. With the defaults everything ends within half a minute.
//!
//! To replace a process, start the new one beside it, on a shared TCP port ([`Endpoint::reuse_port`](crate::Endpoint::reuse_port)),
//! a socket of systemd, or the same path ([`Endpoint::take_over`](crate::Endpoint::take_over)). Then drain the old one, without a lame
//! duck stage: on a shared listener it would refuse health checks that the new one should answer.
//!
//! # Observability
//!
//! [`ServerHandle::stats`](crate::ServerHandle::stats) returns the counters of a server: its connections, requests, answers, and
//! failures by kind. [`ServerHandle::connections`](crate::ServerHandle::connections) returns its open connections, each with its
//! listener, peer, source, engine-id, requests and idle time. Neither needs a feature.
//!
//! With the feature `metrics`, the recorder of the `metrics` facade that is installed when the server begins to serve gets:
//!
//! | name | what |
//! |---|---|
//! | `spop_connections` | connections with a session: a gauge, with the label `listener` |
//! | `spop_connections_total`, `spop_connections_refused_total`, `spop_connections_rejected_total`, `spop_probes_total` | connections that began a session, were refused for a limit, did not pass the accept stage, or were a monitor's; with the label `listener` |
//! | `spop_closed_total` | sessions that have ended, with the labels `by` (the side that ended it) and `status` |
//! | `spop_requests_in_flight` | requests whose handlers have not ended: a gauge. **spop-mio**: only those that were deferred |
//! | `spop_handler_seconds` | how long handlers take: a histogram with the label `message`, the name of the first message. Peers choose the names: the first 64 are labels, cut after 30 bytes, and the others are `other` |
//! | `spop_notifies_total`, `spop_acks_total` (`spop_late_acks_total` of them late), `spop_failures_total`, `spop_cancelled_total`, `spop_aborted_total` | requests; the result of each, one of three; and requests that were dropped before they were complete or for their size, which are in none of the others. `spop_failures_total` has the label `kind`, a [`FailureKind`](crate::FailureKind) |
//! | `spop_received_bytes_total`, `spop_sent_bytes_total` | bytes of sessions |
//!
//! The label `listener` is an address as the event `listening` has it, or `none` for a connection that no listener accepted.
//!
//! Whether a histogram has buckets is up to the recorder. That of `metrics-exporter-prometheus` makes a summary of
//! `spop_handler_seconds` unless it is given buckets, such as [`HANDLER_SECONDS_BUCKETS`](crate::HANDLER_SECONDS_BUCKETS):
//!
//! ```ignore
//! use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
//! use spop_server::HANDLER_SECONDS_BUCKETS;
//!
//! let seconds = Matcher::Full("spop_handler_seconds".to_owned());
//! PrometheusBuilder::new().set_buckets_for_metric(seconds, &HANDLER_SECONDS_BUCKETS)?.install()?;
//! // Then serve.
//! ```
//!
//! Events go to [`tracing`]. Their names are in the metadata, which a JSON subscriber or one of your own shows; the default text format
//! has a message that says the same:
//!
//! | name | level | what |
//! |---|---|---|
//! | `listening` | info | the server serves on this `listener`, with or without `tls` and `proxy` headers: one for each |
//! | `lame_duck` | info | a shutdown began with a lame duck stage of this `time`; `connections` that are open, unanswered `requests` |
//! | `draining` | info | the drain began; `connections`, `requests` |
//! | `stopping` | info | the server was stopped; `connections`, `requests` |
//! | `drained` | info | the server has ended; the time it `took` since the drain or the stop began, the connections that were `cut` at the deadline or by a stop, and the requests that were `lost` with them |
//! | `request_failed` | warn | a request without an answer of its handler; the field `what` is the [`FailureKind`](crate::FailureKind) |
//! | `request_refused` | warn | a request that exceeds a limit of its session, or the frame timeout; the field `why` is the [`Abort`](spop_core::agent::Abort) |
//! | `message_unknown` | warn | **spop-tokio**: a message for which the `Router` has no route |
//! | `watch_panicked` | warn | a panic of [`Handler::watch`](crate::Handler::watch); the request continues |
//! | `answered_late` | warn | an answer later than [`AgentConfig::processing`] |
//! | `request_abandoned` | warn | a request that HAProxy 3.1 or later abandoned while its handler ran |
//! | `variable_dropped` | warn | a variable that HAProxy drops for its name: once for each name |
//! | `frame_size_reduced` | warn | a session in which HAProxy fails long requests with 259 |
//! | `not_spop` | warn | a client of another protocol: one line, then a count a minute |
//! | `descriptor_limit` | warn | the hard limit on open files is too low for [`ServerConfig::max_connections`] |
//! | `service_manager` | warn | a message to systemd could not be sent |
//! | `connection_failed` | warn | a session that ended by a violation of the protocol, a timeout or a limit |
//! | `stream_faulty` | warn | a stream that claims to have written more than it was given |
//! | `not_accepted` | warn | a connection that was refused for a limit, did not pass the accept stage, or could not be accepted |
//! | `connection_panicked` | error | **spop-tokio**: a bug of this library |
//! | `connection_opened`, `session_established`, `connection_closed` (with the `error` of the transport, if it failed), `request_cancelled`, `payload_dropped`, `descriptor_limit_raised` | debug | no fault: for following a connection |
//!
//! Warnings that a peer can cause are limited in rate; the field `suppressed` is the number of those left out. An event about a
//! request has the `peer` and the number of the `connection`, the STREAM-ID and FRAME-ID (`ids`), and in `messages` the name of
//! the first message, up to 30 bytes of it, with the number of the others. Connections run in a span `connection` and handlers in
//! a span `request`, both of level debug: with the filter `info,spop_server::spans=debug` every line that a handler logs names
//! its request.
//!
//! [`AgentConfig::processing`]: spop_core::AgentConfig::processing
//! [`AgentConfig::max_frame_size`]: spop_core::AgentConfig::max_frame_size
//! [`AgentConfig::max_waiting_frames`]: spop_core::AgentConfig::max_waiting_frames
//! [`AgentConfig::capabilities`]: spop_core::AgentConfig::capabilities
//! [`PipeliningPolicy::Always`]: spop_core::agent::PipeliningPolicy::Always
//! [`ServerConfig::max_connections`]: crate::ServerConfig::max_connections
//! [`ServerConfig::lame_duck`]: crate::ServerConfig::lame_duck
//! [`Stats::late`]: crate::Stats::late
//! [`Stats::failures`]: crate::Stats::failures
//! [`Stats::refused`]: crate::Stats::refused
//! [`max_connections`]: crate::ServerConfig::max_connections
//! [`max_connections_per_source`]: crate::ServerConfig::max_connections_per_source
//! [`max_in_flight`]: crate::ServerConfig::max_in_flight
//! [`max_request_bytes`]: crate::ServerConfig::max_request_bytes
//! [`max_buffered_bytes`]: crate::ServerConfig::max_buffered_bytes
