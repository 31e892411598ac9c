//! The response of a monitor: constant, or made for each probe.

use alloc::{string::String, sync::Arc, vec::Vec};
use core::fmt;

use bytes::Bytes;

/// The response of a [`Monitor`](super::Monitor): constant bytes, or what a function returns for each probe.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU8, Ordering}};
/// use spop_core::accept::{Monitor, Response};
///
/// let percent = Arc::new(AtomicU8::new(100));
/// let read = Arc::clone(&percent);
/// let monitor = Monitor::for_all(Response::from_fn(move || {
///     format!("up {}%\n", read.load(Ordering::Relaxed)).into()
/// }));
/// percent.store(50, Ordering::Relaxed);
/// ```
#[derive(Clone)]
pub struct Response(Kind);

#[derive(Clone)]
enum Kind {
    Fixed(Bytes),
    Made(Arc<dyn Fn() -> Bytes + Send + Sync>),
}

impl Response {
    /// Calls `make` for each probe, on the thread that drives its connection. It must not block.
    pub fn from_fn(make: impl Fn() -> Bytes + Send + Sync + 'static) -> Self {
        Self(Kind::Made(Arc::new(make)))
    }

    pub(super) fn bytes(&self) -> Bytes {
        match &self.0 {
            Kind::Fixed(bytes) => bytes.clone(),
            Kind::Made(make) => make(),
        }
    }
}

impl From<Bytes> for Response {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Fixed(bytes))
    }
}

impl From<&'static str> for Response {
    fn from(text: &'static str) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static [u8]> for Response {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Response {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<Vec<u8>> for Response {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

#[cfg(feature = "std")]
impl From<&SharedResponse> for Response {
    fn from(shared: &SharedResponse) -> Self {
        let shared = shared.clone();
        Self::from_fn(move || shared.get())
    }
}

/// Two are equal if they have the same bytes or the same function.
impl PartialEq for Response {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::Fixed(ours), Kind::Fixed(theirs)) => ours == theirs,
            (Kind::Made(ours), Kind::Made(theirs)) => Arc::ptr_eq(ours, theirs),
            _ => false,
        }
    }
}

impl Eq for Response {}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Fixed(bytes) => bytes.fmt(f),
            Kind::Made(_) => f.write_str("<made for each probe>"),
        }
    }
}

/// The response of a [`Monitor`](super::Monitor) that can be replaced while the server runs: give the monitor a reference and
/// keep the handle. Clones share the response.
///
/// [`Monitor`](super::Monitor) has an example.
#[cfg(feature = "std")]
#[derive(Clone, Debug)]
pub struct SharedResponse(Arc<std::sync::Mutex<Bytes>>);

#[cfg(feature = "std")]
impl SharedResponse {
    /// A handle with a first response.
    pub fn new(response: impl Into<Bytes>) -> Self {
        Self(Arc::new(response.into().into()))
    }

    /// Replaces the response. Later probes get it; a probe that is being answered gets all of the old one.
    pub fn set(&self, response: impl Into<Bytes>) {
        let response = response.into();
        *self.lock() = response;
    }

    /// The current response.
    pub fn get(&self) -> Bytes {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Bytes> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn a_function_is_asked_for_each_probe() {
        let count = core::sync::atomic::AtomicU8::new(0);
        let response = Response::from_fn(move || {
            format!("{}\n", count.fetch_add(1, core::sync::atomic::Ordering::Relaxed)).into()
        });
        assert_eq!((response.bytes(), response.bytes()), ("0\n".into(), "1\n".into()));
        assert_eq!(response, response.clone());
        assert_ne!(response, Response::from_fn(Bytes::new));
        assert_ne!(response, Response::from("2\n"));
        assert_eq!(Response::from("x"), Response::from(b"x".to_vec()));
        assert_eq!(format!("{:?}", Response::from("x\n")), r#"b"x\n""#);
    }

    #[cfg(feature = "std")]
    #[test]
    fn a_shared_response_is_replaced_for_its_monitor() {
        let shared = SharedResponse::new("up\n");
        let response = Response::from(&shared);
        assert_eq!(response.bytes(), "up\n");
        shared.clone().set("drain\n");
        assert_eq!((response.bytes(), shared.get()), ("drain\n".into(), "drain\n".into()));
    }
}
