//! From a message of HAProxy to the answer.

use anyhow::Context as _;
use http::response::Parts;
use spop_tokio::{Actions, OnFailure, Request, Route, Router, ServerConfig, http::TraceParent};
use tracing::{Instrument as _, debug, info_span};

use crate::{
    cache::Cache,
    options::Options,
    question::{Asked, Forwarded, Question, trace},
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
}

/// A handler for the message `check-request`.
///
/// # Errors
/// Options that do not go together.
pub(crate) fn router(options: &Options) -> anyhow::Result<Router<Agent>> {
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
    let mut config = ServerConfig::default();
    config.agent.processing = Some(options.processing);
    // For requests that do not come to the route, because of a limit of the server.
    config.agent.on_failure = OnFailure::Answer(failed(options.on_failure));
    config.lame_duck = options.lame_duck;
    config
}

async fn check(agent: &Agent, request: Request) -> anyhow::Result<Actions> {
    let Some(trace) = trace(&request) else { return agent.decide(request, None).await };
    // In each line of the log, and in the error that the server logs.
    let id = format!("{:032x}", trace.trace_id());
    let decided = agent.decide(request, Some(trace)).instrument(info_span!("check", trace_id = id)).await;
    decided.with_context(|| format!("trace_id {id}"))
}

impl Agent {
    async fn decide(&self, request: Request, trace: Option<TraceParent>) -> anyhow::Result<Actions> {
        let max_frame_size = request.session().max_frame_size;
        let asked = Asked::of(&request, &self.forward)?;
        // Its bytes are not needed any more.
        drop(request);
        let verdict = match asked {
            Asked::Question(question) => self.verdict(question, trace).await?,
            Asked::Unusable(why) => {
                debug!(why, "a request was denied unasked");
                Verdict::unusable()
            }
        };
        verdict.answer(max_frame_size)
    }

    async fn verdict(&self, question: Question, trace: Option<TraceParent>) -> anyhow::Result<Verdict> {
        match &self.cache {
            Some(cache) => cache.get(question, |question| self.ask(question, trace)).await,
            None => self.ask(question, trace).await.map(|(_, verdict)| verdict),
        }
    }

    async fn ask(&self, question: Question, trace: Option<TraceParent>) -> anyhow::Result<(Parts, Verdict)> {
        let reply = self.upstream.ask(question, trace).await?;
        debug!(status = %reply.status, "the service has answered");
        let verdict = Verdict::of(&reply, &self.lists)?;
        Ok((reply, verdict))
    }
}
