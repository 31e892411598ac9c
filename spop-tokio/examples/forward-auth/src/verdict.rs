//! What a reply of the service means to HAProxy.

use anyhow::{Context as _, bail};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, response::Parts};
use spop_tokio::{Actions, HeaderError, Scope, Value};

use crate::{
    header_list::{HeaderList, MAX_VALUES, variable},
    options::OnFailure,
};

/// A decision, as the variables that HAProxy's rules look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) allowed: bool,
    pub(crate) status: StatusCode,
    actions: Actions,
}

/// The headers that go on from a reply.
#[derive(Clone, Debug)]
pub(crate) struct HeaderLists {
    /// To the request.
    pub(crate) request: HeaderList,
    /// To the client.
    pub(crate) reply: HeaderList,
}

/// What is in an ACK besides the actions, and some.
const FRAME_OVERHEAD: usize = 64;

/// HAProxy 3.1 and later stall when an answer fills their receive buffer, which can be longer than a frame.
const LONGEST_ANSWER: usize = 16_000;

impl Verdict {
    /// The decision of a reply: 2xx allows; a redirect with a location and 4xx deny.
    ///
    /// # Errors
    /// It decides nothing.
    pub(crate) fn of(reply: &Parts, lists: &HeaderLists) -> anyhow::Result<Self> {
        let status = reply.status;
        let allowed = match status.as_u16() {
            200..=299 => true,
            300..=399 if reply.headers.contains_key(header::LOCATION) => false,
            400..=499 => false,
            _ => bail!("the service answered {status}"),
        };
        let mut verdict = Self::bare(allowed, status);
        verdict.add_headers(lists, &reply.headers).context("a header of the service's reply")?;
        Ok(verdict)
    }

    /// A denial of a request that the service cannot be asked about.
    pub(crate) fn unusable() -> Self {
        Self::bare(false, StatusCode::BAD_REQUEST)
    }

    fn bare(allowed: bool, status: StatusCode) -> Self {
        let actions = Actions::new().set(Scope::Transaction, "allowed", allowed).set(
            Scope::Transaction,
            "status",
            i32::from(status.as_u16()),
        );
        Self { allowed, status, actions }
    }

    fn add_headers(&mut self, lists: &HeaderLists, headers: &HeaderMap) -> Result<(), HeaderError> {
        if self.allowed {
            let of_request = lists.request.names().iter();
            let joined = of_request.filter_map(|name| Some((name.clone(), joined(headers, name)?)));
            self.add("request", lists.request.names(), &joined.collect())?;
        }
        // To a request that is allowed the application replies. A session may have been renewed.
        let reply = lists.reply.names().iter().filter(|name| !self.allowed || **name == header::SET_COOKIE);
        let reply: Vec<_> = reply.cloned().collect();
        self.add("reply", &reply, headers)
    }

    /// A variable for each value, and one with all of them, which HAProxy 3.4 and later take as a list of headers.
    fn add(&mut self, group: &str, names: &[HeaderName], headers: &HeaderMap) -> Result<(), HeaderError> {
        let values = |name| headers.get_all(name).iter().take(MAX_VALUES).map(move |value| (name, value));
        let list: Vec<_> = names.iter().flat_map(values).collect();
        if list.is_empty() {
            return Ok(());
        }
        for name in names {
            for ((_, value), number) in values(name).zip(1..) {
                let variable = variable(group, name, number);
                self.actions.set_var(Scope::Transaction, variable, Value::String(value.as_bytes()));
            }
        }
        self.actions.set_headers(Scope::Transaction, format!("{group}_headers"), list)?;
        Ok(())
    }

    /// The memory that it takes, apart from its own size.
    pub(crate) fn bytes(&self) -> usize {
        self.actions.as_bytes().len()
    }

    /// The answer, if HAProxy accepts one that long. A denial goes without headers otherwise.
    ///
    /// # Errors
    /// The request is allowed, and the application would miss headers of it.
    pub(crate) fn answer(self, max_frame_size: u32) -> anyhow::Result<Actions> {
        let max = (max_frame_size as usize).saturating_sub(FRAME_OVERHEAD).min(LONGEST_ANSWER);
        match self.bytes() {
            bytes if bytes <= max => Ok(self.actions),
            bytes if self.allowed => {
                bail!("the headers of the reply take {bytes} bytes, and an answer has {max}")
            }
            _ => Ok(Self::bare(false, self.status).actions),
        }
    }
}

/// All values of a header as one: HAProxy sets a header of the request, where several would replace each other.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let values: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    // Parts of valid values, with valid text between them.
    (!values.is_empty()).then(|| HeaderValue::from_bytes(&values.join(&b", "[..])).ok())?
}

/// The answer when the service does not decide.
pub(crate) fn failed(policy: OnFailure) -> Actions {
    let verdict = Verdict::bare(policy == OnFailure::Allow, StatusCode::SERVICE_UNAVAILABLE);
    verdict.actions.set(Scope::Transaction, "failed", true)
}
