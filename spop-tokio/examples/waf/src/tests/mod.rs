//! The handlers.

mod inspecting;
mod joining;
mod loading;

use clap::Parser as _;
use spop_tokio::{
    MessageList,
    spop_core::wire::put_headers,
    testing::{self, Outcome, TestRequest},
};

use crate::{agent::Waf, options::Options};

/// With these lines for rules.
fn waf(rules: &str, args: &[&str]) -> Waf {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, format!("{rules}\n")).unwrap();
    let path = file.path().to_str().unwrap();
    let args = [&["waf", "--rules", path], args].concat();
    Waf::new(Options::try_parse_from(args).unwrap()).unwrap()
}

/// A message under construction.
struct Message {
    id: Option<&'static str>,
    path: &'static str,
    query: Option<&'static [u8]>,
    status: Option<i64>,
    headers: Vec<(&'static str, &'static [u8])>,
    size: i64,
    body: Vec<u8>,
}

fn request() -> Message {
    Message {
        id: Some("id-1"),
        path: "/",
        query: None,
        status: None,
        headers: vec![("host", b"host")],
        size: 0,
        body: Vec::new(),
    }
}

fn response(status: i64) -> Message {
    Message { status: Some(status), headers: vec![("server", b"app")], ..request() }
}

impl Message {
    fn list(&self) -> MessageList {
        let mut headers = Vec::new();
        put_headers(&mut headers, self.headers.iter().copied()).unwrap();
        let mut messages = MessageList::new();
        let name = if self.status.is_some() { "check-response" } else { "check-request" };
        let mut message = messages.message(name);
        message
            .arg("id", self.id)
            .arg("hdrs", headers.as_slice())
            .arg("size", self.size)
            .arg("body", self.body.as_slice());
        match self.status {
            Some(status) => message.arg("status", status),
            None => message
                .arg("method", "GET")
                .arg("path", self.path)
                .arg("query", self.query.map(spop_tokio::Value::String)),
        };
        messages
    }

    async fn ask(&self, waf: &Waf) -> Outcome {
        testing::call(&waf.handler(), TestRequest::of(&self.list())).await
    }

    /// The score, and the tags.
    async fn found(&self, waf: &Waf) -> String {
        let outcome = self.ask(waf).await;
        assert_eq!(outcome.failure(), None);
        let sentence = outcome.sentence();
        let value = |name: &str| {
            let rest = sentence.split(&format!(".{name}=")).nth(1)?;
            rest.split(" ; ").next()?.split(':').nth(1).map(str::to_owned)
        };
        format!("{} {}", value("score").unwrap(), value("tags").unwrap_or_default())
    }
}
