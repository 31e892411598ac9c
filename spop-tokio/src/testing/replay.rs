//! Transcripts against async handlers.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use spop_core::{
    EngineConfig,
    config::Checked,
    testing::{
        Conditions, ReplayError,
        replay::{Player, Todo, Way, parse},
    },
};
use spop_server::{
    Agent, ServerConfig,
    testing::{FailureRecord, LIMIT},
};
use tokio::{
    task::{JoinSet, yield_now},
    time::{Instant, sleep_until, timeout},
};

use super::link::Link;
use crate::{Handler, Peer, Service};

/// In this time a server has done what it can do at once. With a paused clock that is certain: it passes when all tasks wait.
const SETTLED: Duration = Duration::from_millis(1);

/// How often other tasks have their turns until the server has read what was sent to it: one that does not read is not awaited.
const TURNS: usize = 100;

/// Runs a [transcript](mod@spop_core::testing::replay) against handlers that `make` makes, one for each connection, with all policies
/// of a server. With a paused clock the time of `wait` is virtual, to the millisecond. An answer is awaited for [`LIMIT`].
///
/// ```
/// use std::time::Duration;
/// use spop_tokio::{Actions, Request, Router, Scope, ServerConfig, testing};
///
/// async fn check(_: Request) -> Actions {
///     tokio::time::sleep(Duration::from_millis(20)).await;
///     let mut actions = Actions::new();
///     actions.set_var(Scope::Transaction, "ok", true);
///     actions
/// }
///
/// // #[tokio::test(start_paused = true)]
/// async fn answers_in_20_ms() -> Result<(), testing::ReplayError> {
///     let transcript = "
///         > NOTIFY fin 5 1 check
///         > NOTIFY fin 6 1 other
///         < ACK fin 6 1
///         * wait 19ms
///         < ACK fin 5 1 set txn ok=bool:true
///     ";
///     testing::replay(transcript, ServerConfig::default(), || Router::new().on("check", check)).await
/// }
/// # let mut runtime = tokio::runtime::Builder::new_current_thread();
/// # runtime.enable_all().start_paused(true).build().unwrap().block_on(answers_in_20_ms())?;
/// # Ok::<(), testing::ReplayError>(())
/// ```
///
/// # Errors
/// The first line that does not parse, or whose frame the agent does not send.
///
/// # Panics
/// If the configuration is invalid, and outside of a runtime.
#[expect(clippy::panic, reason = "a test with a configuration like this has no other way to go on")]
pub async fn replay<H: Handler>(
    text: &str,
    config: impl Into<ServerConfig>,
    mut make: impl FnMut() -> H,
) -> Result<(), ReplayError> {
    let config = config.into();
    for scenario in parse(text)? {
        for way in Way::all() {
            let service = Service::new(make(), config.clone())
                .unwrap_or_else(|error| panic!("the configuration of the server: {error}"));
            let link = Link::new(Checked::<EngineConfig>::default(), Conditions::default());
            let mut connection = JoinSet::new();
            connection.spawn(service.serve_connection(link.stream(), Peer::Other("a transcript".into())));
            let run = Run { link, agent: Arc::clone(service.agent()), time: Instant::now() };
            run.play(&mut Player::new(&scenario, way)).await?;
        }
    }
    Ok(())
}

struct Run {
    link: Link,
    agent: Arc<Agent>,
    /// The time of the transcript.
    time: Instant,
}

impl Run {
    async fn play(mut self, player: &mut Player<'_>) -> Result<(), ReplayError> {
        let failures = FailureRecord::begin(&self.agent);
        while let Some(todo) = player.next_todo()? {
            let mut arrives = true;
            match todo {
                Todo::Send(bytes) => self.send(&bytes).await,
                Todo::Shut => {
                    let now = self.link.now();
                    let mut state = self.link.lock();
                    state.engine.out().shut(now);
                    state.wake_agent();
                }
                Todo::Wait(time) => {
                    self.time += time;
                    sleep_until(self.time).await;
                }
                Todo::Receive => {
                    arrives = timeout(LIMIT, self.arrives()).await.unwrap_or(false);
                    self.time = Instant::now();
                }
                Todo::Settle => sleep_until(self.time + SETTLED).await,
            }
            let failures = failures.take().into_iter();
            player.failures.extend(failures.map(|(ids, failure)| (ids, (&failure).into())));
            if !arrives {
                return Err(player.nothing_comes());
            }
            player.receive(self.link.lock().out.take());
        }
        Ok(())
    }

    /// Sends bytes, and lets the server read them before others follow.
    async fn send(&self, bytes: &[u8]) {
        let now = self.link.now();
        {
            let mut state = self.link.lock();
            state.engine.out().put(now, bytes);
            state.wake_agent();
        }
        for _ in 0..TURNS {
            if self.link.lock().is_read() {
                break;
            }
            yield_now().await;
        }
    }

    /// Waits until the server has sent something; false if it closes the connection instead.
    async fn arrives(&self) -> bool {
        poll_fn(|cx| {
            let mut state = self.link.lock();
            // What it has sent is taken after each step: the next is bytes, or the end.
            if state.out.is_empty() && !state.out.is_shut() {
                state.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(!state.out.is_empty())
        })
        .await
    }
}
