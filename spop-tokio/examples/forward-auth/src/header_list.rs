//! Lists of header names, as options have them.

use std::{fmt, str::FromStr};

use anyhow::{Context as _, bail};
use http::HeaderName;
use spop_tokio::{Actions, Scope};

/// Some headers, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderList {
    All,
    Some(Vec<HeaderName>),
}

/// The prefix of the variables, as spoe.conf has it.
const VAR_PREFIX: &str = "auth";

impl HeaderList {
    pub(crate) fn contains(&self, name: &HeaderName) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => names.contains(name),
        }
    }

    /// The names; none of a list of all.
    pub(crate) fn names(&self) -> &[HeaderName] {
        match self {
            Self::All => &[],
            Self::Some(names) => names,
        }
    }

    /// Checks that each header can be a variable of HAProxy.
    pub(crate) fn check_variables(&self) -> anyhow::Result<()> {
        if *self == Self::All {
            bail!("HAProxy needs their names");
        }
        for name in self.names() {
            let variable = variable("request", name, MAX_VALUES);
            let no_variable = || format!("no variable of HAProxy can have the name of {name}");
            let mut actions = Actions::new();
            actions.try_set_var(Scope::Transaction, variable, true).with_context(no_variable)?;
            actions.check_names(VAR_PREFIX).with_context(no_variable)?;
        }
        Ok(())
    }
}

/// How many values of one header become variables.
pub(crate) const MAX_VALUES: usize = 4;

/// The variable of a value of a header, counted from 1: `request.remote_user`, and `request.remote_user_2` for the second.
pub(crate) fn variable(group: &str, header: &HeaderName, number: usize) -> String {
    let name = header.as_str().replace('-', "_");
    if number > 1 { format!("{group}.{name}_{number}") } else { format!("{group}.{name}") }
}

impl FromStr for HeaderList {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if text == "*" {
            return Ok(Self::All);
        }
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let names =
            names.map(|name| name.parse().with_context(|| format!("{name:?} is no name of a header")));
        names.collect::<anyhow::Result<_>>().map(Self::Some)
    }
}

impl fmt::Display for HeaderList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Some(names) => {
                f.write_str(&names.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(","))
            }
        }
    }
}
