//! From a message of HAProxy to the answer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::Context as _;
use http::response::Parts;
use spop_tokio::{Actions, OnFailure, Request, Route, Router, ServerConfig, http::TraceParent};
use tracing::{Instrument as _, debug, info_span};

use crate::{
    cache::Cache,
    counts::Counts,
    options::{OnFailure as Policy, Options},
    question::{Asked, Forwarded, Question, describe, trace},
    upstream::Upstream,
    verdict::{HeaderLists, Verdict, failed},
};

/// What the handler needs.
#[derive(Debug)]
pub(crate) struct Agent {
    upstream: Upstream,
    forward: Forwarded,
    lists: HeaderLists,
    cache: Option<Cache>,
    counts: Arc<Counts>,
    on_failure: Policy,
}

/// A request that is not decided. When it is dropped so, for an error or because it took too long, the policy decides.
struct Undecided<'a> {
    request: &'a str,
    policy: Policy,
    is_decided: bool,
}

impl Drop for Undecided<'_> {
    fn drop(&mut self) {
        if !self.is_decided {
            debug!(request = self.request, policy = self.policy.name(), "failed: the policy decides");
        }
    }
}

/// A handler for the message `check-request`.
///
/// # Errors
/// Options that do not go together.
pub(crate) fn router(options: &Options, counts: &Arc<Counts>) -> anyhow::Result<Router<Agent>> {
    options.check()?;
    let max_in_flight = options.max_in_flight as usize;
    let forward =
        Forwarded { list: options.forward_headers.clone(), trusted: options.request_headers.clone() };
    let cache = (!options.cache.is_empty()).then(|| {
        let bytes = u64::from(options.cache_size) << 20;
        Cache::new(options.cache.clone(), options.cache_key.clone(), forward.clone(), bytes)
    });
    let agent = Agent {
        upstream: Upstream::new(options)?,
        forward,
        lists: HeaderLists { request: options.request_headers.clone(), reply: options.reply_headers.clone() },
        cache,
        counts: Arc::clone(counts),
        on_failure: options.on_failure,
    };
    // The server logs and counts failures, and answers with the policy.
    let route = Route::new(check)
        .timeout(options.timeout)
        .max_in_flight(max_in_flight)
        .on_failure(failed(options.on_failure));
    Ok(Router::with_state(agent).route("check-request", route))
}

/// The configuration of the server.
pub(crate) fn server_config(options: &Options) -> ServerConfig {
    let mut config = options.server.config(options.processing);
    // For requests that do not come to the route, because of a limit of the server.
    config.agent.on_failure = OnFailure::Answer(failed(options.on_failure));
    config
}

async fn check(agent: &Agent, request: Request) -> anyhow::Result<Actions> {
    let described = describe(&request);
    let Some(trace) = trace(&request) else {
        return agent.decide(request, &described, None).await.with_context(|| described.clone());
    };
    // In each line of the log, and in the error that the server logs.
    let id = format!("{:032x}", trace.trace_id());
    let decided =
        agent.decide(request, &described, Some(trace)).instrument(info_span!("check", trace_id = id)).await;
    decided.with_context(|| format!("trace_id {id}: {described}"))
}

impl Agent {
    async fn decide(
        &self,
        request: Request,
        described: &str,
        trace: Option<TraceParent>,
    ) -> anyhow::Result<Actions> {
        let mut undecided = Undecided { request: described, policy: self.on_failure, is_decided: false };
        let max_frame_size = request.session().max_frame_size;
        let asked = Asked::of(&request, &self.forward)?;
        // Its bytes are not needed any more.
        drop(request);
        let (verdict, by) = match asked {
            Asked::Question(question) => self.verdict(question, trace).await?,
            Asked::Unusable(why) => (Verdict::unusable(), why),
        };
        let (allowed, status) = (verdict.allowed, verdict.status.as_u16());
        let answer = verdict.answer(max_frame_size)?;
        undecided.is_decided = true;
        if allowed { &self.counts.allowed } else { &self.counts.denied }.add();
        debug!(request = described, allowed, status, by, "decided");
        Ok(answer)
    }

    /// The verdict, and whose it is.
    async fn verdict(
        &self,
        question: Question,
        trace: Option<TraceParent>,
    ) -> anyhow::Result<(Verdict, &'static str)> {
        const SERVICE: &str = "the service";
        let Some(cache) = &self.cache else {
            return self.ask(question, trace).await.map(|(_, verdict)| (verdict, SERVICE));
        };
        let was_asked = AtomicBool::new(false);
        let ask = |question| {
            was_asked.store(true, Ordering::Relaxed);
            self.ask(question, trace)
        };
        let verdict = cache.get(question, ask).await?;
        if was_asked.into_inner() {
            return Ok((verdict, SERVICE));
        }
        self.counts.cached.add();
        Ok((verdict, "the cache"))
    }

    async fn ask(&self, question: Question, trace: Option<TraceParent>) -> anyhow::Result<(Parts, Verdict)> {
        self.counts.asked.add();
        let reply = self.upstream.ask(question, trace).await?;
        let verdict = Verdict::of(&reply, &self.lists)?;
        Ok((reply, verdict))
    }
}
