//! What is inspected: a request or a response, as HAProxy sends it.

use std::{borrow::Cow, net::IpAddr};

use percent_encoding::percent_decode;
use spop_tokio::{ArgError, Headers, Request};

use crate::{
    findings::Findings,
    rules::{Group, Part, Rules},
};

/// The longest unique-id. HAProxy's default is shorter.
const MAX_ID: usize = 128;

/// A message of HAProxy. Text is bytes, as the client or the application sent it: a type that refuses some would let them choose
/// whether they are inspected.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    /// What request and response have in common.
    pub(crate) id: Option<&'a [u8]>,
    /// For the log.
    pub(crate) client: Option<IpAddr>,
    method: &'a [u8],
    path: &'a [u8],
    query: &'a [u8],
    status: Vec<u8>,
    headers: Headers<'a>,
    body: &'a [u8],
    /// HAProxy had less of the body in its buffer than was announced.
    pub(crate) cut: bool,
    is_response: bool,
}

impl<'a> Message<'a> {
    /// Of these arguments:
    ///
    /// ```text
    /// spoe-message check-request
    ///     args id=unique-id src=src method=method path=path query=query hdrs=req.hdrs_bin size=req.body_size body=req.body
    /// ```
    ///
    /// # Errors
    /// One is missing: the configuration of HAProxy is wrong.
    pub(crate) fn of_request(request: &'a Request) -> Result<Self, ArgError> {
        let text = |name| Ok::<_, ArgError>(request.arg::<Option<&[u8]>>(name)?.unwrap_or_default());
        let (method, path, query) = (text("method")?, text("path")?, text("query")?);
        Ok(Self { method, path, query, ..Self::of(request, false)? })
    }

    /// Of these arguments:
    ///
    /// ```text
    /// spoe-message check-response
    ///     args id=unique-id src=src status=status hdrs=res.hdrs_bin size=res.body_size body=res.body
    /// ```
    ///
    /// # Errors
    /// As [`of_request`](Self::of_request).
    pub(crate) fn of_response(request: &'a Request) -> Result<Self, ArgError> {
        let status: u32 = request.arg("status")?;
        Ok(Self { status: status.to_string().into_bytes(), ..Self::of(request, true)? })
    }

    fn of(request: &'a Request, is_response: bool) -> Result<Self, ArgError> {
        let id: Option<&[u8]> = request.arg("id")?;
        let size: Option<i64> = request.arg("size")?;
        let body: Option<&[u8]> = request.arg("body")?;
        let body = body.unwrap_or_default();
        Ok(Self {
            id: id.filter(|id| (1..=MAX_ID).contains(&id.len())),
            client: request.arg("src").ok(),
            method: b"",
            path: b"",
            query: b"",
            status: Vec::new(),
            headers: request.arg("hdrs")?,
            body,
            cut: size.is_some_and(|size| usize::try_from(size).is_ok_and(|size| size > body.len())),
            is_response,
        })
    }

    /// What the rules find in it. Each rule counts once.
    pub(crate) fn inspect(&self, rules: &Rules) -> Findings {
        let mut findings = Findings::default();
        let mut hits = Vec::new();
        for group in rules.groups.iter().filter(|group| group.part.is_of_response() == self.is_response) {
            hits.clear();
            hits.resize(group.rules.len(), false);
            self.match_group(group, &mut hits);
            let found = group.rules.iter().zip(&hits).filter(|(_, hit)| **hit);
            found.for_each(|(rule, _)| findings.add(rule));
        }
        findings
    }

    fn match_group(&self, group: &Group, hits: &mut [bool]) {
        let mut test = |text: &[u8]| {
            for index in &group.patterns.matches(text) {
                if let Some(hit) = hits.get_mut(index) {
                    *hit = true;
                }
            }
        };
        match &group.part {
            Part::Method => test(self.method),
            Part::Path => each_form(self.path, false, test),
            Part::Query => each_form(self.query, true, test),
            Part::Status => test(&self.status),
            Part::Body | Part::ResponseBody => each_form(self.body, true, test),
            Part::Cut | Part::ResponseCut => hits.fill(self.cut),
            Part::Header(name) | Part::ResponseHeader(name) => {
                let name = name.as_ref().map(|name| name.as_bytes());
                for (_, value) in self
                    .headers
                    .iter()
                    .filter(|(is, _)| name.is_none_or(|name| is.eq_ignore_ascii_case(name)))
                {
                    test(value);
                }
            }
        }
    }

    /// The beginning of a request, for the log.
    pub(crate) fn first_line(&self) -> String {
        const MAX: usize = 100;
        let path = self.path.get(..MAX).unwrap_or(self.path);
        let more = if path.len() < self.path.len() { "…" } else { "" };
        let method = self.method.get(..20).unwrap_or(self.method);
        format!("{} {}{more}", method.escape_ascii(), path.escape_ascii())
    }
}

/// A text as it was sent, and as an application reads it.
fn each_form(text: &[u8], is_form: bool, mut test: impl FnMut(&[u8])) {
    test(text);
    let spaces = is_form && text.contains(&b'+');
    let text = if spaces {
        Cow::from(text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect::<Vec<_>>())
    } else {
        Cow::from(text)
    };
    match Cow::from(percent_decode(&text)) {
        Cow::Owned(decoded) => test(&decoded),
        Cow::Borrowed(text) if spaces => test(text),
        Cow::Borrowed(_) => {}
    }
}
