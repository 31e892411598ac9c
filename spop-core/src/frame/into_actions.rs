//! Answers in one expression: what converts into a list of actions.

use alloc::vec::Vec;

use super::{Actions, Scope};
use crate::wire::ToValue;

/// No actions: an empty ACK.
impl From<()> for Actions {
    #[inline]
    fn from((): ()) -> Self {
        Self::new()
    }
}

/// One SET-VAR: scope, name and value.
impl<N: AsRef<[u8]>, V: ToValue> From<(Scope, N, V)> for Actions {
    #[inline]
    fn from((scope, name, value): (Scope, N, V)) -> Self {
        Self::new().set(scope, name, value)
    }
}

/// `None` is no actions.
impl<T: Into<Self>> From<Option<T>> for Actions {
    #[inline]
    fn from(actions: Option<T>) -> Self {
        actions.map_or_else(Self::new, Into::into)
    }
}

/// The actions of each, in order.
impl<T: Into<Self>, const N: usize> From<[T; N]> for Actions {
    fn from(actions: [T; N]) -> Self {
        actions.into_iter().collect()
    }
}

/// The actions of each, in order.
impl<T: Into<Self>> From<Vec<T>> for Actions {
    fn from(actions: Vec<T>) -> Self {
        actions.into_iter().collect()
    }
}

/// The actions of each, in order.
impl<T: Into<Self>> FromIterator<T> for Actions {
    fn from_iter<I: IntoIterator<Item = T>>(actions: I) -> Self {
        let mut all = Self::new();
        for one in actions {
            all.append(&one.into());
        }
        all
    }
}

macro_rules! tuples {
    ($(($first:ident $(, $more:ident)+))*) => {$(
        /// The actions of each, in order.
        impl<$first: Into<Self> $(, $more: Into<Self>)+> From<($first, $($more),+)> for Actions {
            #[allow(non_snake_case)] // The fields are named as their types.
            fn from(($first, $($more),+): ($first, $($more),+)) -> Self {
                let mut all: Self = $first.into();
                $(all.append(&$more.into());)+
                all
            }
        }
    )*};
}

tuples! { (A, B) (A, B, C) (A, B, C, D) }

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn variables_are_answers() {
        let (a, b) = ((Scope::Session, "a", 1), (Scope::Transaction, "b", "x"));
        let both = Actions::new().set(Scope::Session, "a", 1).set(Scope::Transaction, "b", "x");
        assert_eq!(Actions::from((a, b)), both);
        assert_eq!(Actions::from(((), a, b)), both);
        assert_eq!(Actions::from((a, (), Some(b), None::<()>)), both);
        let one = Actions::new().set(Scope::Session, "a", 1);
        assert_eq!(Actions::from(a), one);
        assert_eq!(Actions::from([a]), one);
        assert_eq!(Actions::from(vec![Some(a), None]), one);
        assert_eq!([(), ()].into_iter().collect::<Actions>(), Actions::new());
        assert!(Actions::from(()).is_empty() && Actions::from(None::<Actions>).is_empty());
    }
}
