//! Configurations that were checked, and why one cannot work.

use alloc::{
    borrow::Cow,
    format,
    string::{String, ToString},
};
use core::{fmt, ops::Deref, time::Duration};

/// A configuration that was checked: [`AgentConfig::checked`](crate::AgentConfig::checked) and the methods of this name of
/// the other configurations make it.
///
/// It reads like the configuration that it holds. To change one, take it [out](Self::into_inner) and check it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked<C>(C);

impl<C> Checked<C> {
    /// To be called by the `checked` of a configuration, and for defaults that a test shows to be valid.
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

/// A configuration that cannot work: the first field that is out of its bounds.
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
/// With the feature `std` it turns into an `std::io::Error` of the kind `InvalidInput`, which has it in `get_ref`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is {value}, and must be {bound}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The field's path from the configuration that was checked, for example `limits.max_in_flight`.
    pub field: Cow<'static, str>,
    /// What it was set to.
    pub value: String,
    /// What it must be: a sentence that begins with "it must be" goes on like this.
    pub bound: String,
}

impl ConfigError {
    /// A field, its value, and what it must be.
    pub fn new(
        field: impl Into<Cow<'static, str>>,
        value: impl fmt::Display,
        bound: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), value: value.to_string(), bound: bound.into() }
    }

    /// The same field, as seen from the configuration that has this one in the field `outer`.
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

/// A number that must not be less than `least`.
pub(crate) fn at_least<T>(field: &'static str, value: T, least: T) -> Result<(), ConfigError>
where
    T: Copy + PartialOrd + fmt::Display,
{
    if value < least { Err(ConfigError::new(field, value, format!("at least {least}"))) } else { Ok(()) }
}

/// A number that must not be more than that of another field.
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

/// A time that must not be shorter than `least`, nor zero.
pub(crate) fn lasts(field: &'static str, value: Duration, least: Duration) -> Result<(), ConfigError> {
    if value.is_zero() && least.is_zero() {
        return Err(ConfigError::new(field, "zero", "longer"));
    }
    if value < least {
        return Err(ConfigError::new(field, format_args!("{value:?}"), format!("at least {least:?}")));
    }
    Ok(())
}

/// A time that must not be zero, if there is one; `none` says what it means that there is none.
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
