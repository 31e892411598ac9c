//! The guide, for those who write agents and for those who run them beside HAProxy. It applies to `spop-tokio` and `spop-mio`;
//! differences between them are marked.
//!
//! - To begin: [`quick_start`], [`command_line`], [`errors`].
//! - To configure: [`open_or_closed`], [`timeouts`], [`bodies`], [`unix_sockets`], [`tls`], [`several_agents`], [`restarts`], [`limits`],
//!   [`settings`], [`observability`].
//! - To program: [`adapters`], [`failures`], [`listeners`], [`testing`], [`drivers`], [`moving`], [`versions`].
//!
//! Each configuration of HAProxy on these pages is loaded into HAProxy 2.6 and 3.4 by a test, and each command is run by it.

// The pages are in files of their own, where the tests read them. Their examples are tested in `tests/`, which has both adapters.

/// Which adapter to take: `spop-tokio` or `spop-mio`.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/adapters.md"))]
pub mod adapters {}

/// Bodies of requests: what HAProxy sends of them, and how to get all of it.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/bodies.md"))]
pub mod bodies {}

/// The program `spop`: a session of each command.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/command_line.md"))]
pub mod command_line {}

/// Writing a driver: the protocol on another event loop, or in a program of another kind.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/drivers.md"))]
pub mod drivers {}

/// Error numbers: `st=` in HAProxy's log, the variable of `set-on-error`, and the status of a DISCONNECT.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/errors.md"))]
pub mod errors {}

/// When a handler fails.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/failures.md"))]
pub mod failures {}

/// Limits: how much one connection, and all together, may take.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/limits.md"))]
pub mod limits {}

/// Listeners, and what a connection passes before its first frame.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/listeners.md"))]
pub mod listeners {}

/// Moving from the `spop` crate, and from agents in Go and Python.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/moving.md"))]
pub mod moving {}

/// Statistics, metrics and log events.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/observability.md"))]
pub mod observability {}

/// Failing open and failing closed: what happens to a request without an answer.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/open_or_closed.md"))]
pub mod open_or_closed {}

/// Try it with your HAProxy in five minutes.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/quick_start.md"))]
pub mod quick_start {}

/// Restarts that lose no request.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/restarts.md"))]
pub mod restarts {}

/// HAProxy's settings and the agent's: which belong together.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/settings.md"))]
pub mod settings {}

/// Several agents: health checks, load balancing, and more than one SPOE filter.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/several_agents.md"))]
pub mod several_agents {}

/// Testing an agent: a handler alone, the protocol in virtual time, real HAProxy.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/testing.md"))]
pub mod testing {}

/// Timeouts: whose is whose.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/timeouts.md"))]
pub mod timeouts {}

/// TLS between HAProxy and the agent, with certificates of both.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/tls.md"))]
pub mod tls {}

/// Unix sockets, and HAProxy in a chroot.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/unix_sockets.md"))]
pub mod unix_sockets {}

/// Versions of HAProxy: what works where.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = include_str!("guide/versions.md"))]
pub mod versions {}
