//! Tests of handlers. Feature `testing`.
//!
//! [`call`] runs a handler with a request made by hand, and waits for an answer that comes from another thread:
//!
//! ```
//! use std::{collections::HashMap, net::IpAddr, sync::mpsc, thread};
//! use spop_mio::{Actions, ArgError, Request, Responder, Scope, testing::{self, TestRequest}};
//!
//! // The handler under test: it asks a database on another thread, for which the test has a map.
//! fn look_up(responder: Responder, database: &HashMap<IpAddr, u32>) {
//!     let answer = responder.arg::<IpAddr>("ip").map(|ip| {
//!         let mut actions = Actions::new();
//!         actions.set_var(Scope::Session, "ip_score", database.get(&ip).copied().unwrap_or(50));
//!         actions
//!     });
//!     responder.reply(answer);
//! }
//!
//! let database = HashMap::from([([203, 0, 113, 7].into(), 99)]);
//! let (queue, work) = mpsc::channel();
//! thread::spawn(move || work.iter().for_each(|responder| look_up(responder, &database)));
//! let mut handler = move |request: Request<'_>| request.defer(|responder| drop(queue.send(responder)));
//!
//! let outcome = testing::call(&mut handler, TestRequest::new("check-ip ip=ipv4:203.0.113.7"));
//! assert_eq!(outcome.sentence(), "set sess ip_score=uint32:99");
//! let outcome = testing::call(&mut handler, TestRequest::new("check-ip"));
//! assert!(outcome.failure().is_some_and(|why| why.contains("ip")), "{outcome:?}");
//! ```
//!
//! [`replay`] runs a transcript of what HAProxy and the agent exchange, through the whole server, with every way to cut it, in
//! virtual time: see [`spop_core::testing::replay`](mod@spop_core::testing::replay).
//!
//! ```
//! use spop_mio::{Router, Scope, ServerConfig, testing};
//!
//! testing::replay(
//!     "
//!     > NOTIFY fin 5 1 check-ip ip=ipv4:203.0.113.7
//!     < ACK fin 5 1 set sess ip_score=int32:50
//!     ",
//!     ServerConfig::default(),
//!     || Router::new().on("check-ip", |_| Ok((Scope::Session, "ip_score", 50))),
//! )?;
//! # Ok::<(), testing::ReplayError>(())
//! ```
//!
//! [`spop_core::testing::Pair`] has a connection with HAProxy's side, for handlers that answer from the messages alone.

pub use spop_core::{
    EngineConfig, MessageList,
    haproxy::{Sample, VarRules},
    testing::{Outcome, ReplayError},
};
pub use spop_server::testing::{Canceller, LIMIT, TestRequest, call, replay};
