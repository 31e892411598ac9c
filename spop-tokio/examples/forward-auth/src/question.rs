//! What the service is asked: a list of headers, for its request is always the same otherwise.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use spop_tokio::{ArgError, Headers, Request, http::TraceParent};

use crate::header_list::HeaderList;

/// The headers of a question.
///
/// What the service is asked about is in headers that the agent adds, under the names that nginx and Traefik made common; those
/// of a client have no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question(pub(crate) HeaderMap);

/// What is asked for a request.
#[derive(Debug)]
pub(crate) enum Asked {
    Question(Question),
    /// The service cannot be asked about exactly this request, so it must not pass, whatever the failure policy is: a client could
    /// choose the failure.
    Unusable(&'static str),
}

/// The headers of clients that go out.
#[derive(Clone, Debug)]
pub(crate) struct Forwarded {
    pub(crate) list: HeaderList,
    /// Those that the service gives to the application. A list of all does not have them: the service could believe the client.
    pub(crate) trusted: HeaderList,
}

/// Headers that are never those of the client: of one connection, of a body that is not sent, of the length of the answer, the
/// one that names the service, the one that names the caller in a trace, and conditions, by which a client would choose the answer 304
/// or 412.
const NOT_FORWARDED: [HeaderName; 21] = [
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::RANGE,
    header::TE,
    TRACEPARENT,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Names the caller in a trace. It is no part of a question, because it differs in each.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The trace of a request: that of its header, or else of the argument of the same name.
pub(crate) fn trace(request: &Request) -> Option<TraceParent> {
    let headers: Headers<'_> = request.arg("hdrs").ok()?;
    let of_client = headers.get(TRACEPARENT.as_str()).and_then(TraceParent::parse);
    of_client.or_else(|| TraceParent::parse(request.arg(TRACEPARENT.as_str()).ok()?))
}

/// A request in a line of the log: its method, its path and its client. A query may have secrets.
pub(crate) fn describe(request: &Request) -> String {
    const MAX: usize = 100;
    let text = |name| request.arg::<Option<&[u8]>>(name).ok().flatten().unwrap_or_default();
    let (method, uri) = (text("method"), text("uri"));
    let whole = uri.split(|byte| *byte == b'?').next().unwrap_or_default();
    let path = whole.get(..MAX).unwrap_or(whole);
    let more = if path.len() < whole.len() { "…" } else { "" };
    let method = method.get(..20).unwrap_or(method);
    let client: Option<IpAddr> = request.arg("src").ok().flatten();
    let client = client.map_or_else(|| "an unknown client".to_owned(), |client| client.to_string());
    format!("{} {}{more} of {client}", method.escape_ascii(), path.escape_ascii())
}

impl Asked {
    /// The question for this message:
    ///
    /// ```text
    /// spoe-message check-request
    ///     args method=method uri=pathq tls=ssl_fc src=src hdrs=req.hdrs_bin traceparent=unique-id
    /// ```
    ///
    /// # Errors
    /// An argument is missing: the configuration of HAProxy is wrong.
    pub(crate) fn of(request: &Request, forward: &Forwarded) -> Result<Self, ArgError> {
        let method: &[u8] = request.arg("method")?;
        let uri: Option<&[u8]> = request.arg("uri")?;
        let headers: Headers<'_> = request.arg("hdrs")?;
        let tls: Option<bool> = request.arg("tls")?;
        let client: Option<IpAddr> = request.arg("src")?;
        // `OPTIONS *` and CONNECT have none.
        let Some(uri) = uri else { return Ok(Self::Unusable("it has no path")) };

        let mut question = HeaderMap::new();
        for (name, value) in &headers {
            // HAProxy passes on what `connection` names, so the service gets it as well: it must see what the application sees.
            let forwarded = match HeaderName::from_bytes(name) {
                Ok(name) => forward.contains(&name).then_some(name),
                Err(_) if forward.list == HeaderList::All => {
                    return Ok(Self::Unusable("the name of a header is invalid"));
                }
                Err(_) => None,
            };
            let Some(name) = forwarded else { continue };
            let Ok(value) = HeaderValue::from_bytes(value) else {
                return Ok(Self::Unusable("a header has a control character"));
            };
            if question.try_append(name, value).is_err() {
                return Ok(Self::Unusable("it has too many headers"));
            }
        }

        let host = headers.get("host").unwrap_or_default();
        let scheme: &[u8] = if tls == Some(true) { b"https" } else { b"http" };
        let url = if host.is_empty() { Vec::new() } else { [scheme, b"://", host, uri].concat() };
        let client = client.map(|client| client.to_string()).unwrap_or_default();
        for (name, value) in [
            ("x-original-method", method),
            ("x-original-uri", uri),
            ("x-original-url", &url),
            ("x-forwarded-method", method),
            ("x-forwarded-proto", scheme),
            ("x-forwarded-host", host),
            ("x-forwarded-uri", uri),
            ("x-forwarded-for", client.as_bytes()),
        ] {
            match HeaderValue::from_bytes(value) {
                Ok(value) if !value.is_empty() => {
                    if question.try_insert(HeaderName::from_static(name), value).is_err() {
                        return Ok(Self::Unusable("it has too many headers"));
                    }
                }
                Ok(_) => {}
                Err(_) => return Ok(Self::Unusable("its method, path or host has a control character")),
            }
        }
        Ok(Self::Question(Question(question)))
    }
}

impl Forwarded {
    /// Whether a header of this name goes out as the client sent it.
    pub(crate) fn contains(&self, name: &HeaderName) -> bool {
        let text = name.as_str();
        let of_proxies = is_of_agent(name) || ["forwarded", "x-real-ip"].contains(&text);
        // To many frameworks `x_forwarded_for` is the same as `x-forwarded-for`.
        let doubtful = text.contains('_') || self.trusted.contains(name);
        let listed = match self.list {
            HeaderList::All => !doubtful,
            HeaderList::Some(_) => self.list.contains(name),
        };
        listed && !of_proxies && !NOT_FORWARDED.contains(name)
    }

    /// Whether some question has a header of this name, be it the client's or the agent's.
    pub(crate) fn may_ask_with(&self, name: &HeaderName) -> bool {
        is_of_agent(name) || self.contains(name)
    }
}

/// Whether the agent adds headers of such names.
fn is_of_agent(name: &HeaderName) -> bool {
    let text = name.as_str();
    text.starts_with("x-forwarded-") || text.starts_with("x-original-")
}

#[cfg(test)]
mod tests {
    use spop_tokio::{MessageList, spop_core::wire::put_headers, testing::TestRequest};

    use super::*;

    fn message(uri: Option<&str>, tls: bool, headers: &[(&str, &[u8])]) -> Request {
        let mut list = Vec::new();
        put_headers(&mut list, headers.iter().copied()).unwrap();
        of_list(uri, tls, &list)
    }

    fn of_list(uri: Option<&str>, tls: bool, list: &[u8]) -> Request {
        let mut messages = MessageList::new();
        messages
            .message("check-request")
            .arg("method", "POST")
            .arg("uri", uri)
            .arg("tls", tls)
            .arg("src", IpAddr::from([192, 0, 2, 1]))
            .arg("hdrs", list);
        TestRequest::of(&messages).into()
    }

    fn forwarded(list: &str) -> Forwarded {
        Forwarded { list: list.parse().unwrap(), trusted: "remote-user,remote-groups".parse().unwrap() }
    }

    fn question(request: &Request, forward: &str) -> Vec<String> {
        match Asked::of(request, &forwarded(forward)).unwrap() {
            Asked::Question(Question(headers)) => {
                let lines = headers.iter();
                lines.map(|(name, value)| format!("{name}: {}", value.as_bytes().escape_ascii())).collect()
            }
            Asked::Unusable(why) => vec![format!("unusable: {why}")],
        }
    }

    const ADDED: [&str; 8] = [
        "x-original-method: POST",
        "x-original-uri: /a?b=c",
        "x-original-url: https://example.org/a?b=c",
        "x-forwarded-method: POST",
        "x-forwarded-proto: https",
        "x-forwarded-host: example.org",
        "x-forwarded-uri: /a?b=c",
        "x-forwarded-for: 192.0.2.1",
    ];

    #[test]
    fn listed_headers_go_out_and_what_is_asked_about_is_added() {
        let request = message(
            Some("/a?b=c"),
            true,
            &[("host", b"example.org"), ("cookie", b"a"), ("x-other", b"1"), ("cookie", b"b")],
        );
        let expected = [&["cookie: a", "cookie: b"], ADDED.as_slice()].concat();
        assert_eq!(question(&request, "cookie,authorization"), expected);
    }

    #[test]
    fn a_client_cannot_speak_for_the_proxy_and_nothing_of_its_connection_goes_out() {
        let request = message(
            Some("/a?b=c"),
            true,
            &[
                ("host", b"example.org"),
                ("x-forwarded-for", b"10.0.0.1"),
                ("x-forwarded-user", b"root"),
                ("x-original-uri", b"/public"),
                ("x_original_uri", b"/public"),
                ("forwarded", b"for=10.0.0.1"),
                ("x-real-ip", b"10.0.0.1"),
                ("connection", b"x-role, close"),
                ("transfer-encoding", b"chunked"),
                ("content-length", b"5"),
                ("expect", b"100-continue"),
                ("proxy-authorization", b"Basic"),
                ("te", b"trailers"),
                ("upgrade", b"websocket"),
                ("if-none-match", b"*"),
                ("if-match", b"\"a\""),
                ("if-modified-since", b"Thu, 01 Jan 1970 00:00:00 GMT"),
                ("if-unmodified-since", b"Thu, 01 Jan 1970 00:00:00 GMT"),
                ("if-range", b"\"a\""),
                ("remote-user", b"root"),
                ("remote_user", b"root"),
                ("x-role", b"seen by the application too"),
            ],
        );
        let expected = [&["x-role: seen by the application too"], ADDED.as_slice()].concat();
        assert_eq!(question(&request, "*"), expected);
        let listed =
            "x-forwarded-for,x-original-uri,content-length,transfer-encoding,expect,connection,if-none-match";
        assert_eq!(question(&request, listed), ADDED);
    }

    #[test]
    fn without_a_host_there_is_no_url() {
        let request = message(Some("/"), false, &[]);
        let expected = [
            "x-original-method: POST",
            "x-original-uri: /",
            "x-forwarded-method: POST",
            "x-forwarded-proto: http",
            "x-forwarded-uri: /",
            "x-forwarded-for: 192.0.2.1",
        ];
        assert_eq!(question(&request, "*"), expected);
    }

    #[test]
    fn a_request_that_cannot_be_asked_about_is_none() {
        let request = message(None, false, &[]);
        assert_eq!(question(&request, "*"), ["unusable: it has no path"]);
        let request = message(Some("/\x01"), false, &[]);
        assert_eq!(question(&request, "*"), ["unusable: its method, path or host has a control character"]);
        let request = of_list(Some("/"), false, b"\x06cookie\x01\x01\x00\x00");
        assert_eq!(question(&request, "cookie"), ["unusable: a header has a control character"]);
        assert_eq!(question(&request, "accept").len(), 6, "one that is not forwarded does not matter");
        let request = of_list(Some("/"), false, b"\x03a b\x01a\x00\x00");
        assert_eq!(question(&request, "*"), ["unusable: the name of a header is invalid"]);
        assert_eq!(question(&request, "accept").len(), 6);
        let many: Vec<_> = (0..40_000).map(|n| format!("x-{n}")).collect();
        let request = message(
            Some("/"),
            false,
            &many.iter().map(|name| (name.as_str(), b"".as_slice())).collect::<Vec<_>>(),
        );
        assert_eq!(question(&request, "*"), ["unusable: it has too many headers"]);
    }

    #[test]
    fn a_line_of_the_log_has_no_query_and_no_control_character() {
        let described = |uri| describe(&message(uri, true, &[]));
        assert_eq!(described(Some("/a?token=b")), "POST /a of 192.0.2.1");
        assert_eq!(described(Some("/\n")), "POST /\\n of 192.0.2.1");
        assert_eq!(described(None), "POST  of 192.0.2.1");
        let long = "/".repeat(101);
        assert_eq!(described(Some(&long)), format!("POST {}… of 192.0.2.1", &long[1..]));
        assert_eq!(describe(&TestRequest::new("check-request").into()), "  of an unknown client");
    }

    #[test]
    fn a_wrong_configuration_is_an_error() {
        let request = TestRequest::new("check-request method=string:GET uri=string:/").into();
        let error = Asked::of(&request, &forwarded("*")).unwrap_err();
        assert!(error.to_string().contains("hdrs"), "{error}");
    }
}
