//! Arguments as types of the `http` crate, for agents that ask other HTTP services (feature `http`). The types are re-exported here, and
//! this module by `spop-tokio` and `spop-mio`: an agent needs no dependency on `http`.
//!
//! [`HeaderMap`], [`Method`], [`Uri`], [`Version`] and [`StatusCode`] are types of arguments:
//!
//! ```
//! use spop_core::{Actions, Scope, frame::Message, wire::HeaderError};
//! use spop_core::http::{HeaderMap, HeaderValue, Method, remove_hop_by_hop_and_body};
//!
//! // spoe-message check-request
//! //     args method=method url=url hdrs=req.hdrs_bin
//! /// The headers of a GET without a body, which asks a service whether HAProxy may forward the client's request.
//! fn forward(message: &Message<'_>) -> Result<HeaderMap, Box<dyn std::error::Error>> {
//!     let (method, url): (Method, &[u8]) = (message.arg("method")?, message.arg("url")?);
//!     let mut headers: HeaderMap = message.arg("hdrs")?;
//!     remove_hop_by_hop_and_body(&mut headers);
//!     // What the service trusts comes last: it replaces what the client has sent.
//!     headers.insert("x-original-method", method.as_str().parse()?);
//!     headers.insert("x-original-uri", HeaderValue::from_bytes(url)?);
//!     Ok(headers)
//! }
//!
//! // http-request set-headers-bin var(txn.my_agent.headers)      # HAProxy 3.4 and later
//! fn back(headers: &HeaderMap) -> Result<Actions, HeaderError> {
//!     let mut actions = Actions::new();
//!     actions.set_headers(Scope::Transaction, "headers", headers)?;
//!     Ok(actions)
//! }
//! ```
//!
//! [`TraceParent`] joins an agent to a distributed trace.
//!
//! | type | argument |
//! |---|---|
//! | [`HeaderMap`] | `req.hdrs_bin`, `res.hdrs_bin` |
//! | [`Method`] | `method` |
//! | [`Uri`] | `url`, `pathq`, `path` |
//! | [`Version`] | `req.ver`, `res.ver`: `1.1`, also with `HTTP/` in front |
//! | [`StatusCode`] | `status` |
//!
//! A client can send URIs and methods that these types refuse, but HAProxy does not. If the handler returns that error, there is no
//! answer, and by default HAProxy continues without one: decide in the handler what such a request gets. Headers are accepted as
//! they come: a byte of a value that [`HeaderValue`] does not allow becomes a space (RFC 9110, section 5.5). A [`HeaderMap`] takes
//! up to 30 times the bytes of the argument.

use alloc::vec::Vec;

use ::http::header;
pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};

pub use crate::trace_parent::TraceParent;
use crate::{
    frame::{FromValue, Unusable},
    wire::{Headers, Value},
};

/// Removes the headers that must not be in a request to another service that is made of a client's request, without its body:
///
/// - those of one connection (RFC 9110, section 7.6.1): `connection`, `keep-alive`, `proxy-authenticate`, `proxy-authorization`,
///   `proxy-connection`, `te`, `trailer`, `transfer-encoding` and `upgrade`;
/// - those that announce a body: `content-length` and `expect`. With them the service would wait for a body that does not come, and
///   take what follows on the connection for it.
///
/// Other headers that `connection` names stay. HAProxy passes them on, so the application gets them, and a service that is asked about the
/// request must see the same: a client could hide a header from it otherwise.
///
/// nginx's `auth_request` sends the others too, with method GET, whatever the method of the client was. `host` stays: set it where the
/// service is found by its name. `range` and conditions such as `if-none-match` stay: remove them if the service could answer with 206 or
/// 304. If a body is sent, set a `content-length` of it: HTTP clients do. Set headers that the service trusts after this call, so that they
/// replace the client's.
///
/// ```
/// use spop_core::http::{HeaderMap, HeaderValue, remove_hop_by_hop_and_body};
///
/// let mut headers = HeaderMap::new();
/// headers.insert("host", HeaderValue::from_static("example.org"));
/// headers.insert("content-length", HeaderValue::from_static("5"));
/// headers.insert("connection", HeaderValue::from_static("close"));
/// headers.insert("te", HeaderValue::from_static("trailers"));
/// remove_hop_by_hop_and_body(&mut headers);
/// assert_eq!((headers.len(), &headers["host"]), (1, &HeaderValue::from_static("example.org")));
/// ```
pub fn remove_hop_by_hop_and_body(headers: &mut HeaderMap) {
    for name in [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::EXPECT,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ] {
        headers.remove(name);
    }
}

/// The headers of a BINARY from `req.hdrs_bin` or `res.hdrs_bin`. A name that [`HeaderName`] refuses, or more headers than a
/// [`HeaderMap`] holds, are errors.
impl FromValue<'_> for HeaderMap {
    fn from_value(value: Value<'_>) -> Result<Self, Unusable> {
        let list = Headers::from_value(value)?;
        let mut headers = Self::new();
        for (name, value) in &list {
            let name = HeaderName::from_bytes(name)
                .map_err(|_| Unusable::Invalid { expected: "list of HTTP headers" })?;
            let appended = headers.try_append(name, header_value(value));
            appended
                .map_err(|_| Unusable::Invalid { expected: "list of headers that a HeaderMap can hold" })?;
        }
        Ok(headers)
    }
}

fn header_value(bytes: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(bytes).unwrap_or_else(|_| {
        let allowed = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        let bytes: Vec<u8> = bytes.iter().map(|byte| if allowed(*byte) { *byte } else { b' ' }).collect();
        HeaderValue::from_bytes(&bytes).unwrap_or(HeaderValue::from_static(""))
    })
}

impl FromValue<'_> for Method {
    fn from_value(value: Value<'_>) -> Result<Self, Unusable> {
        Self::from_bytes(text(value)?).map_err(|_| Unusable::Invalid { expected: "HTTP method" })
    }
}

impl FromValue<'_> for Uri {
    fn from_value(value: Value<'_>) -> Result<Self, Unusable> {
        Self::try_from(text(value)?).map_err(|_| Unusable::Invalid { expected: "URI" })
    }
}

impl FromValue<'_> for Version {
    fn from_value(value: Value<'_>) -> Result<Self, Unusable> {
        let text = text(value)?;
        match text.strip_prefix(b"HTTP/").unwrap_or(text) {
            b"0.9" => Ok(Self::HTTP_09),
            b"1.0" => Ok(Self::HTTP_10),
            b"1.1" => Ok(Self::HTTP_11),
            b"2.0" => Ok(Self::HTTP_2),
            b"3.0" => Ok(Self::HTTP_3),
            _ => Err(Unusable::Invalid { expected: "version of HTTP" }),
        }
    }
}

impl FromValue<'_> for StatusCode {
    fn from_value(value: Value<'_>) -> Result<Self, Unusable> {
        Self::from_u16(u16::from_value(value)?).map_err(|_| Unusable::Invalid { expected: "HTTP status" })
    }
}

/// The bytes of a STRING.
fn text(value: Value<'_>) -> Result<&[u8], Unusable> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null => Err(Unusable::Null),
        other => Err(Unusable::WrongType { expected: "STRING", found: other.value_type() }),
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::ToString as _, vec};

    use super::*;
    use crate::{Actions, MessageList, Scope, wire::put_headers};

    fn list(headers: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_headers(&mut bytes, headers.iter().copied()).unwrap();
        bytes
    }

    fn map(headers: &[(&str, &[u8])]) -> HeaderMap {
        HeaderMap::from_value(Value::Binary(&list(headers))).unwrap()
    }

    #[test]
    fn headers_are_taken_and_given_back() {
        let map =
            map(&[("host", b"example.org"), ("cookie", b"a=1"), ("cookie", b"\xff\t"), ("x-empty", b"")]);
        assert_eq!(
            map.get_all("cookie").iter().map(HeaderValue::as_bytes).collect::<Vec<_>>(),
            [b"a=1".as_slice(), b"\xff\t"]
        );
        assert_eq!(
            (map.len(), map["host"].to_str().unwrap(), map["x-empty"].is_empty()),
            (4, "example.org", true)
        );
        let (mut of_map, mut of_list) = (Actions::new(), Actions::new());
        of_map.set_headers(Scope::Transaction, "headers", &map).unwrap();
        let all = [
            ("host", b"example.org".as_slice()),
            ("cookie", b"a=1"),
            ("cookie", b"\xff\t"),
            ("x-empty", b""),
        ];
        of_list.set_headers(Scope::Transaction, "headers", all).unwrap();
        assert_eq!(of_map, of_list);
        let mut messages = MessageList::new();
        messages.message("check").headers("hdrs", &map).unwrap();
        let back: HeaderMap = messages.iter().next().unwrap().arg("hdrs").unwrap();
        assert_eq!(back, map);
    }

    #[test]
    fn what_a_value_may_not_have_becomes_a_space() {
        let mut bytes = b"\x03x-a\x05a\x01b\x7fc\x00\x00".to_vec();
        assert_eq!(HeaderMap::from_value(Value::Binary(&bytes)).unwrap()["x-a"], "a b c");
        bytes[6] = b'\r';
        assert_eq!(HeaderMap::from_value(Value::Binary(&bytes)).unwrap()["x-a"], "a b c");
    }

    #[test]
    fn what_no_map_holds_is_an_error_and_no_panic() {
        let name = HeaderMap::from_value(Value::Binary(b"\x03x a\x00\x00\x00"));
        assert_eq!(name.unwrap_err().to_string(), "is no list of HTTP headers");
        let mut many = Vec::new();
        put_headers(&mut many, (0..40_000).map(|n| (format!("x-{n}"), "1"))).unwrap();
        assert!(matches!(HeaderMap::from_value(Value::Binary(&many)), Err(Unusable::Invalid { .. })));
        for n in [24_575, 24_576] {
            let mut full = Vec::new();
            put_headers(&mut full, (0..n).map(|n| (format!("x-{n}"), "1"))).unwrap();
            let mut full = HeaderMap::from_value(Value::Binary(&full)).unwrap();
            remove_hop_by_hop_and_body(&mut full);
            assert_eq!(full.len(), n);
        }
        let mut same = Vec::new();
        put_headers(&mut same, (0..100_000).map(|_| ("x", ""))).unwrap();
        assert_eq!(HeaderMap::from_value(Value::Binary(&same)).unwrap().len(), 100_000);
    }

    #[test]
    fn methods_uris_versions_and_statuses() {
        assert_eq!(Method::from_value(Value::String(b"PURGE")).unwrap().as_str(), "PURGE");
        let uri = Uri::from_value(Value::String(b"/a?b=c")).unwrap();
        assert_eq!((uri.path(), uri.query()), ("/a", Some("b=c")));
        assert_eq!(
            Uri::from_value(Value::String(b"http://example.org/a")).unwrap().host(),
            Some("example.org")
        );
        for version in [b"2.0".as_slice(), b"HTTP/2.0"] {
            assert_eq!(Version::from_value(Value::String(version)).unwrap(), Version::HTTP_2);
        }
        assert_eq!(StatusCode::from_value(Value::Int64(404)).unwrap(), StatusCode::NOT_FOUND);
        let errors = [
            Method::from_value(Value::String(b"G T")).unwrap_err(),
            Uri::from_value(Value::String(b"/a b")).unwrap_err(),
            Version::from_value(Value::String(b"1.2")).unwrap_err(),
            StatusCode::from_value(Value::Int32(99)).unwrap_err(),
            Uri::from_value(Value::Null).unwrap_err(),
            Method::from_value(Value::Binary(b"GET")).unwrap_err(),
        ];
        let texts = [
            "is no HTTP method",
            "is no URI",
            "is no version of HTTP",
            "is no HTTP status",
            "is NULL",
            "is of type BINARY, not STRING",
        ];
        assert_eq!(errors.map(|error| error.to_string()), texts);
    }

    #[test]
    fn headers_of_one_connection_and_of_a_body_are_removed() {
        let mut headers = map(&[
            ("host", b"example.org"),
            ("connection", b"close, host, X-Hop ,,\xff, te"),
            ("connection", b"x-other"),
            ("x-hop", b"1"),
            ("x-hop", b"2"),
            ("x-other", b"3"),
            ("x-stays", b"4"),
            ("te", b"trailers"),
            ("trailer", b"x"),
            ("keep-alive", b"5"),
            ("proxy-authorization", b"Basic"),
            ("proxy-authenticate", b"Basic"),
            ("proxy-connection", b"close"),
            ("transfer-encoding", b"chunked"),
            ("upgrade", b"websocket"),
            ("content-length", b"5"),
            ("content-length", b"5"),
            ("content-type", b"text/plain"),
            ("expect", b"100-continue"),
        ]);
        remove_hop_by_hop_and_body(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, vec!["content-type", "host", "x-hop", "x-other", "x-stays"]);
    }
}
