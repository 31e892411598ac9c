//! The copy of a request.

use std::{borrow::Cow, net::IpAddr};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header, uri::PathAndQuery};
use http_body_util::Full;
use spop_tokio::{Headers, Request};

/// What a copy says about its body.
pub(crate) const BODY: HeaderName = HeaderName::from_static("x-mirror-body");

/// What each copy has of the mirrors that made it: a copy that comes back is not copied again.
pub(crate) const MIRROR: HeaderName = HeaderName::from_static("x-mirror-id");

/// Where copies go.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) upstream: Uri,
    /// The header `host`, if it is not that of the request.
    pub(crate) host: Option<HeaderValue>,
    /// Of this process. Clients do not know it, or they could have requests that are not copied.
    pub(crate) id: HeaderValue,
}

/// A request for the service.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) request: http::Request<Full<Bytes>>,
    /// It has only a part of the body.
    pub(crate) is_cut: bool,
    /// What it takes of the memory for copies.
    pub(crate) bytes: usize,
}

/// What is added for a copy itself.
const OVERHEAD: usize = 4096;

impl Copy {
    /// The copy of the request of this message; none of a request that is a copy, and was sent by this process:
    ///
    /// ```text
    /// spoe-message mirror
    ///     args method=method uri=pathq hdrs=req.hdrs_bin body=req.body size=req.body_size src=src
    /// ```
    ///
    /// # Errors
    /// An argument is missing, or the client has sent something that HAProxy passes on and this program does not.
    pub(crate) fn of(message: &Request, target: &Target) -> anyhow::Result<Option<Self>> {
        let list: Headers<'_> = message.arg("hdrs")?;
        let body = message.arg::<Option<&[u8]>>("body")?.unwrap_or_default();
        let size = message.arg::<Option<u64>>("size")?;
        let client = message.arg::<Option<IpAddr>>("src")?;

        let mut request = http::Request::new(Full::new(Bytes::copy_from_slice(body)));
        let method = message.arg::<Method>("method")?;
        let uri = match message.arg::<Option<&[u8]>>("uri")? {
            // `OPTIONS *` has no path.
            None if method == Method::OPTIONS => b"*",
            uri => uri.context("argument \"uri\" is NULL")?,
        };
        *request.method_mut() = method;
        *request.uri_mut() = self::uri(uri, target)?;
        let mut headers: HeaderMap = message.arg("hdrs")?;
        if headers.get_all(MIRROR).iter().any(|id| *id == target.id) {
            return Ok(None);
        }
        headers.try_append(MIRROR, target.id.clone())?;
        let announced = headers.contains_key(header::CONTENT_LENGTH);
        // The client of HTTP announces the body of this copy.
        spop_tokio::http::remove_hop_by_hop_and_body(&mut headers);
        if let Some(host) = &target.host {
            headers.try_insert(header::HOST, host.clone())?;
        }
        if let Some(client) = client {
            headers.try_append("x-forwarded-for", client.to_string().try_into()?)?;
        }
        let is_cut = size.is_some_and(|size| size > body.len() as u64);
        headers.remove(BODY);
        if let Some(state) = body_state(body.len(), size, announced)? {
            headers.try_insert(BODY, state)?;
        }
        *request.headers_mut() = headers;
        let bytes =
            OVERHEAD + body.len() + list.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        Ok(Some(Self { request, is_cut, bytes }))
    }
}

fn uri(pathq: &[u8], target: &Target) -> anyhow::Result<Uri> {
    let pathq = PathAndQuery::try_from(&*sendable(pathq)).context("argument \"uri\"")?;
    let mut parts = target.upstream.clone().into_parts();
    parts.path_and_query = Some(pathq);
    Ok(Uri::from_parts(parts)?)
}

/// Encodes the bytes that HAProxy passes on, and the client of HTTP does not. What is sent with them is often an attack, which the service
/// shall get.
fn sendable(pathq: &[u8]) -> Cow<'_, [u8]> {
    // A `#` is not refused: what follows it would be left out.
    let refused = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'"' | b'#' | b'<' | b'>' | b'`');
    if PathAndQuery::try_from(pathq).is_ok() && !pathq.contains(&b'#') {
        return pathq.into();
    }
    let mut encoded = Vec::with_capacity(pathq.len() * 3);
    for &byte in pathq {
        if refused(byte) {
            encoded.extend(format!("%{byte:02X}").into_bytes());
        } else {
            encoded.push(byte);
        }
    }
    encoded.into()
}

/// What there is to say about a body. Without `content-length`, HAProxy announces the size of what it has.
fn body_state(length: usize, size: Option<u64>, announced: bool) -> anyhow::Result<Option<HeaderValue>> {
    Ok(match size {
        Some(size) if size > length as u64 => Some(format!("cut; {length} of {size} bytes").try_into()?),
        Some(_) if announced => Some(HeaderValue::from_static("whole")),
        _ if length == 0 => None,
        _ => Some(HeaderValue::from_static("unknown")),
    })
}
