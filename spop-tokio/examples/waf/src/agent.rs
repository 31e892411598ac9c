//! From a message of HAProxy to the answer.

use std::{fs, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use spop_tokio::{
    Actions, OnFailure, Request, Route, Router, ServerConfig, Swap, spop_core::Clock, spop_server::LogLimit,
};
use tokio::{sync::Semaphore, task::spawn_blocking};
use tracing::{field::display, info};

use crate::{
    counts::Counts,
    findings::{Direction, Findings, Policy},
    message::Message,
    options::Options,
    rules::Rules,
    store::{Noted, Store},
};

/// The handlers, whose rules can be replaced.
#[derive(Clone, Debug)]
pub(crate) struct Waf {
    current: Swap<Router<Inspector>>,
    options: Options,
    shared: Arc<Shared>,
}

/// What the handlers need.
#[derive(Clone, Debug)]
pub(crate) struct Inspector {
    rules: Arc<Rules>,
    policy: Policy,
    shared: Arc<Shared>,
}

/// What stays when rules are replaced.
#[derive(Debug)]
struct Shared {
    store: Store,
    counts: Counts,
    clock: Clock,
    /// Lines that clients can cause.
    log: LogLimit,
    /// Patterns are matched outside of the threads that serve connections, which would not notice otherwise that a request is
    /// late.
    workers: Arc<Semaphore>,
}

impl Waf {
    /// With the rules of the options.
    ///
    /// # Errors
    /// Options that do not go together, or a bad rule.
    pub(crate) fn new(options: Options) -> anyhow::Result<Self> {
        options.check()?;
        let shared = Arc::new(Shared {
            store: Store::new(u64::from(options.keep_size) << 20, options.keep),
            counts: Counts::default(),
            clock: Clock::start(),
            log: LogLimit::new(20, Duration::from_millis(50)),
            workers: Arc::new(Semaphore::new(options.workers())),
        });
        let rules = read(&options)?;
        info!(rules = rules.len(), "rules were read");
        let current = Swap::new(router(rules, &options, &shared));
        Ok(Self { current, options, shared })
    }

    /// The handler.
    pub(crate) fn handler(&self) -> Swap<Router<Inspector>> {
        self.current.clone()
    }

    /// Reads the rules again. Requests in progress end with those that they began with.
    ///
    /// # Errors
    /// The rules stay as they are.
    pub(crate) fn reload(&self) -> anyhow::Result<()> {
        if self.options.rules.is_none() {
            program::nothing_to_reload();
            return Ok(());
        }
        let rules = read(&self.options)?;
        let count = rules.len();
        self.current.replace(router(rules, &self.options, &self.shared));
        // Not before: the log must not announce rules that are not in use yet.
        info!(rules = count, "rules were read again");
        Ok(())
    }

    /// Sets the counts as metrics.
    pub(crate) fn publish_counts(&self) {
        self.shared.counts.publish(&self.shared.store);
    }

    /// Writes the counts to the log.
    pub(crate) fn log_counts(&self) {
        self.shared.counts.log(&self.shared.store);
    }
}

fn read(options: &Options) -> anyhow::Result<Rules> {
    let Some(path) = &options.rules else {
        return Rules::parse(include_bytes!("../rules.txt")).context("the built-in rules");
    };
    let text = fs::read(path).with_context(|| path.display().to_string())?;
    parse(&text).with_context(|| path.display().to_string())
}

/// Reads a file that somebody may just be writing.
fn parse(text: &[u8]) -> anyhow::Result<Rules> {
    ensure!(text.ends_with(b"\n") || text.is_empty(), "the last line has no end: it may be a part of a file");
    Rules::parse(text)
}

fn router(rules: Rules, options: &Options, shared: &Arc<Shared>) -> Router<Inspector> {
    let policy = Policy::new(options);
    let with_policy = |route: Route<Inspector>, direction| {
        route
            .timeout(options.timeout)
            .max_in_flight(options.max_in_flight as usize)
            .on_failure(policy.failed(direction))
    };
    let inspector = Inspector { rules: Arc::new(rules), policy, shared: Arc::clone(shared) };
    Router::with_state(inspector)
        .route("check-request", with_policy(Route::new(check_request), Direction::Request))
        .route("check-response", with_policy(Route::new(check_response), Direction::Response))
}

/// The configuration of the server.
pub(crate) fn server_config(options: &Options) -> ServerConfig {
    let policy = Policy::new(options);
    let mut config = options.server.config(options.processing);
    // For requests that do not come to a route, because of a limit of the server: of either message.
    let mut failed = policy.failed(Direction::Request);
    failed.append(&policy.failed(Direction::Response));
    config.agent.on_failure = OnFailure::Answer(failed);
    config
}

async fn check_request(inspector: &Inspector, request: Request) -> anyhow::Result<Actions> {
    inspector.work(request, Inspector::request).await
}

async fn check_response(inspector: &Inspector, request: Request) -> anyhow::Result<Actions> {
    inspector.work(request, Inspector::response).await
}

impl Inspector {
    /// Waits for a worker, for as long as the route allows.
    async fn work(
        &self,
        request: Request,
        inspect: fn(&Self, &Request) -> anyhow::Result<Actions>,
    ) -> anyhow::Result<Actions> {
        let permit = Arc::clone(&self.shared.workers).acquire_owned().await?;
        let inspector = self.clone();
        let work = move || {
            // Not before the work has ended, whether the answer is awaited or not.
            let _permit = permit;
            inspect(&inspector, &request)
        };
        spawn_blocking(work).await?
    }

    fn request(&self, request: &Request) -> anyhow::Result<Actions> {
        let message = Message::of_request(request)?;
        let findings = message.inspect(&self.rules);
        let line = message.first_line();
        let answer = self.judge(Direction::Request, request, &message, &findings, &line);
        // The response of one that is refused is HAProxy's own, which is not inspected.
        let awaits_response = self.rules.are_for_responses() && !self.policy.blocks(&findings);
        if let Some(id) = message.id.filter(|_| awaits_response) {
            self.shared.store.put(id, Noted { findings, line });
        }
        Ok(answer)
    }

    fn response(&self, request: &Request) -> anyhow::Result<Actions> {
        let message = Message::of_response(request)?;
        let mut findings = message.inspect(&self.rules);
        let noted = message.id.and_then(|id| self.shared.store.take(id));
        let counts = &self.shared.counts;
        if noted.is_some() { &counts.joined } else { &counts.unjoined }.add();
        // What the request scored counts for the response as well.
        let line = noted.as_ref().map_or("of an unknown request", |noted| {
            findings.join(&noted.findings);
            &noted.line
        });
        Ok(self.judge(Direction::Response, request, &message, &findings, line))
    }

    /// Counts and logs what was found, and answers.
    fn judge(
        &self,
        direction: Direction,
        request: &Request,
        message: &Message<'_>,
        findings: &Findings,
        line: &str,
    ) -> Actions {
        let (counts, blocked) = (&self.shared.counts, self.policy.blocks(findings));
        match direction {
            Direction::Request => &counts.requests,
            Direction::Response => &counts.responses,
        }
        .add();
        for (counter, counts_here) in [
            (&counts.cut, message.cut),
            (&counts.detected, self.policy.detects(findings)),
            (&counts.blocked, blocked),
        ] {
            if counts_here {
                counter.add();
            }
        }
        if !findings.is_empty()
            && let Some(suppressed) = self.shared.log.pass(self.shared.clock.now())
        {
            let id = message.id.unwrap_or_default().escape_ascii();
            let (src, rules) = (message.client.map(display), findings.rules());
            let (score, tags) = (findings.score(), findings.tags());
            info!(%id, ?direction, line, src, ?rules, score, tags, blocked, suppressed, "rules matched");
        }
        self.policy.answer(direction, findings, request.session().max_frame_size)
    }
}
