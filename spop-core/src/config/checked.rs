//! Validated configurations, and the error of an invalid one.

use alloc::{
    borrow::Cow,
    format,
    string::{String, ToString},
};
use core::{fmt, ops::Deref, time::Duration};

/// A valid configuration, from [`AgentConfig::checked`](crate::AgentConfig::checked) or the method of this name of another
/// configuration.
///
/// It dereferences to the configuration. To change it, take the configuration [out](Self::into_inner) and check it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked<C>(C);

impl<C> Checked<C> {
    /// For the `checked` methods, and for defaults that a test shows to be valid.
    pub(crate) const fn new(config: C) -> Self {
        Self(config)
    }

    /// The configuration.
    pub fn into_inner(self) -> C {
        self.0
    }
}

impl<C> Deref for Checked<C> {
    type Target = C;

    #[inline]
    fn deref(&self) -> &C {
        &self.0
    }
}

/// An invalid configuration: its first field that is out of bounds.
///
/// ```
/// use spop_core::AgentConfig;
///
/// let mut config = AgentConfig::default();
/// config.limits.max_in_flight = 0;
/// let error = config.checked().unwrap_err();
/// assert_eq!(error.field, "limits.max_in_flight");
/// assert_eq!(error.to_string(), "`limits.max_in_flight` is 0, and must be at least 1");
/// ```
///
/// With the feature `std` it converts to an `std::io::Error` of kind `InvalidInput`, whose `get_ref` returns it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is {value}, and must be {bound}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The field's path from the configuration that was checked, for example `limits.max_in_flight`.
    pub field: Cow<'static, str>,
    /// The value of the field.
    pub value: String,
    /// The bound, as the end of a sentence that begins with "it must be".
    pub bound: String,
}

impl ConfigError {
    /// The error of a field with this value and bound.
    pub fn new(
        field: impl Into<Cow<'static, str>>,
        value: impl fmt::Display,
        bound: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), value: value.to_string(), bound: bound.into() }
    }

    /// The same error, with the path of the field prefixed by `outer`.
    pub(crate) fn within(self, outer: &str) -> Self {
        Self { field: format!("{outer}.{}", self.field).into(), ..self }
    }
}

#[cfg(feature = "std")]
impl From<ConfigError> for std::io::Error {
    fn from(error: ConfigError) -> Self {
        Self::new(std::io::ErrorKind::InvalidInput, error)
    }
}

/// Checks that a number is at least `least`.
pub(crate) fn at_least<T>(field: &'static str, value: T, least: T) -> Result<(), ConfigError>
where
    T: Copy + PartialOrd + fmt::Display,
{
    if value < least { Err(ConfigError::new(field, value, format!("at least {least}"))) } else { Ok(()) }
}

/// Checks that a number is at most that of another field.
pub(crate) fn at_most<T>(
    field: &'static str,
    value: T,
    other: &'static str,
    most: T,
) -> Result<(), ConfigError>
where
    T: Copy + PartialOrd + fmt::Display,
{
    let bound = || format!("at most the {most} of `{other}`");
    if value > most { Err(ConfigError::new(field, value, bound())) } else { Ok(()) }
}

/// Checks that a duration is not zero, and at least `least`.
pub(crate) fn lasts(field: &'static str, value: Duration, least: Duration) -> Result<(), ConfigError> {
    if value.is_zero() && least.is_zero() {
        return Err(ConfigError::new(field, "zero", "longer"));
    }
    if value < least {
        return Err(ConfigError::new(field, format_args!("{value:?}"), format!("at least {least:?}")));
    }
    Ok(())
}

/// Checks that a duration is not zero. `none` describes the meaning of `None`, for the message.
pub(crate) fn none_or_lasts(
    field: &'static str,
    value: Option<Duration>,
    none: &str,
) -> Result<(), ConfigError> {
    match value {
        Some(Duration::ZERO) => Err(ConfigError::new(field, "zero", format!("longer; `None` {none}"))),
        _ => Ok(()),
    }
}
