//! Verdicts that are used again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, response::Parts};
use moka::{Expiry, future::Cache as Entries};

use crate::{
    header_list::HeaderList,
    options::StatusRange,
    question::{Forwarded, Question},
    verdict::Verdict,
};

/// Memory of an entry besides its key and its actions, counted generously.
const ENTRY: usize = 512;

/// Verdicts by question. Equal questions at the same time share one reply of the service.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: Entries<Arc<[u8]>, Kept>,
    lifetimes: Vec<(StatusRange, Duration)>,
    key: HeaderList,
    forward: Forwarded,
}

#[derive(Clone, Debug)]
struct Kept {
    verdict: Verdict,
    lifetime: Duration,
}

/// Why a call has no verdict to share with others.
#[derive(Debug)]
enum NotShared {
    /// The reply is for its question alone.
    Private,
    Failed(anyhow::Error),
}

struct Lifetime;

impl Expiry<Arc<[u8]>, Kept> for Lifetime {
    fn expire_after_create(&self, _: &Arc<[u8]>, kept: &Kept, _: Instant) -> Option<Duration> {
        Some(kept.lifetime)
    }
}

impl Cache {
    /// A cache of so many bytes for replies with a lifetime.
    pub(crate) fn new(
        lifetimes: Vec<(StatusRange, Duration)>,
        key: HeaderList,
        forward: Forwarded,
        bytes: u64,
    ) -> Self {
        let weigh = |key: &Arc<[u8]>, kept: &Kept| {
            u32::try_from(key.len() + kept.verdict.bytes() + ENTRY).unwrap_or(u32::MAX)
        };
        let entries = Entries::builder().max_capacity(bytes).weigher(weigh).expire_after(Lifetime).build();
        Self { entries, lifetimes, key, forward }
    }

    /// The verdict on an equal question; or that of `ask`, which is kept if its reply allows that.
    ///
    /// # Errors
    /// Those of `ask`, also if another question has it called.
    pub(crate) async fn get<Call>(
        &self,
        question: Question,
        ask: impl Fn(Question) -> Call,
    ) -> anyhow::Result<Verdict>
    where
        Call: Future<Output = anyhow::Result<(Parts, Verdict)>>,
    {
        let mut own = None;
        let shared = async {
            let (reply, verdict) = ask(question.clone()).await.map_err(NotShared::Failed)?;
            match self.lifetime(&reply) {
                Some(lifetime) => Ok(Kept { verdict, lifetime }),
                None => {
                    own = Some(verdict);
                    Err(NotShared::Private)
                }
            }
        };
        let shared = self.entries.try_get_with(self.key(&question), shared).await;
        match (shared, own) {
            (Ok(kept), _) => Ok(kept.verdict),
            (Err(_), Some(verdict)) => Ok(verdict),
            (Err(error), None) => match &*error {
                NotShared::Private => ask(question).await.map(|(_, verdict)| verdict),
                NotShared::Failed(error) => Err(anyhow::anyhow!("{error:#}")),
            },
        }
    }

    /// The headers on which the reply depends, as bytes: neither a name nor a value has a line end.
    fn key(&self, Question(headers): &Question) -> Arc<[u8]> {
        let mut key = Vec::new();
        for (name, value) in headers.iter().filter(|(name, _)| self.key.contains(name)) {
            key.extend([name.as_str().as_bytes(), b":", value.as_bytes(), b"\n"].concat());
        }
        key.into()
    }

    /// How long a reply may be used for equal questions; not at all if it was for one client, or the service forbids it.
    fn lifetime(&self, reply: &Parts) -> Option<Duration> {
        let lifetime = self.lifetime_of(reply.status)?;
        if reply.headers.contains_key(header::SET_COOKIE) || self.varies(&reply.headers) {
            return None;
        }
        let allowed =
            directives(&reply.headers, header::CACHE_CONTROL).try_fold(lifetime, |lifetime, directive| {
                let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
                match name.trim().to_ascii_lowercase().as_str() {
                    "no-store" | "no-cache" | "private" => None,
                    "max-age" | "s-maxage" => {
                        // What is no number allows nothing.
                        let seconds = value.trim().trim_matches('"').parse().unwrap_or(0);
                        Some(lifetime.min(Duration::from_secs(seconds)))
                    }
                    _ => Some(lifetime),
                }
            });
        allowed.filter(|lifetime| !lifetime.is_zero())
    }

    /// That of the status, or of its class.
    fn lifetime_of(&self, status: StatusCode) -> Option<Duration> {
        let of =
            |wanted| self.lifetimes.iter().find(|(range, _)| *range == wanted).map(|(_, lifetime)| *lifetime);
        of(StatusRange::One(status)).or_else(|| of(StatusRange::Class(status.as_u16() / 100)))
    }

    /// Whether the reply depends on a header that is not part of the key. This question need not have it: another, equal in the
    /// key, may.
    fn varies(&self, reply: &HeaderMap) -> bool {
        directives(reply, header::VARY).any(|name| match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => name.as_str() == "*" || self.forward.may_ask_with(&name) && !self.key.contains(&name),
            Err(_) => true,
        })
    }
}

/// The parts of a list in a header, which may come several times. A value that is no text counts as `*`.
fn directives(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().map(|value: &HeaderValue| value.to_str().unwrap_or("*"));
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|part| !part.is_empty())
}
