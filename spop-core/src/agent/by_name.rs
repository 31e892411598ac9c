//! Values by the names of messages.

use alloc::{boxed::Box, vec::Vec};
use core::{cmp::Ordering, fmt};

/// Among so few names, a comparison of each length takes fewer instructions than a binary search.
const FEW: usize = 8;

/// Values by the names of messages, for routers: sorted by length and name, so that most comparisons are those of two numbers.
#[derive(Clone)]
pub struct ByName<T>(Vec<(Box<str>, T)>);

impl<T> ByName<T> {
    /// No values.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The value of this name, and the name.
    #[inline]
    pub fn get(&self, name: &[u8]) -> Option<(&str, &T)> {
        self.at(self.position(name)?)
    }

    /// Where the value of this name is, for [`at`](Self::at), until the next [`insert`](Self::insert).
    #[doc(hidden)]
    #[inline]
    pub fn position(&self, name: &[u8]) -> Option<usize> {
        if self.0.len() <= FEW {
            return self.0.iter().position(|(known, _)| is_same(known.as_bytes(), name));
        }
        self.find(name).ok()
    }

    /// The name and the value at a [`position`](Self::position).
    #[doc(hidden)]
    #[inline]
    pub fn at(&self, position: usize) -> Option<(&str, &T)> {
        self.0.get(position).map(|(name, value)| (&**name, value))
    }

    /// Inserts a value, and returns the one of the same name that it replaces.
    pub fn insert(&mut self, name: impl Into<Box<str>>, value: T) -> Option<T> {
        let name = name.into();
        match self.find(name.as_bytes()) {
            Ok(index) => self.0.get_mut(index).map(|(_, old)| core::mem::replace(old, value)),
            Err(index) => {
                self.0.insert(index, (name, value));
                None
            }
        }
    }

    /// The names, and their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    /// Not `binary_search_by` of a slice: that compares the name it finds twice.
    #[inline]
    fn find(&self, name: &[u8]) -> Result<usize, usize> {
        let (mut start, mut end) = (0, self.0.len());
        while start < end {
            let middle = start.midpoint(end);
            let Some((known, _)) = self.0.get(middle) else { break };
            let order = match known.len().cmp(&name.len()) {
                Ordering::Equal => known.as_bytes().cmp(name),
                unequal => unequal,
            };
            match order {
                Ordering::Equal => return Ok(middle),
                Ordering::Less => start = middle + 1,
                Ordering::Greater => end = middle,
            }
        }
        Err(start)
    }
}

/// Most names have 8 to 16 bytes: their first and last 8 are compared without a call of `memcmp`.
#[inline]
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let ends = |name: &[u8]| Some((*name.first_chunk::<8>()?, *name.last_chunk::<8>()?));
    one.len() == other.len()
        && match (ends(one), ends(other)) {
            (Some(one_ends), Some(other_ends)) if one.len() <= 16 => one_ends == other_ends,
            _ => one == other,
        }
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// The names.
impl<T> fmt::Debug for ByName<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_by_any_byte() {
        for len in 0..=24 {
            let name = alloc::vec![b'a'; len];
            assert!(is_same(&name, &name.clone()) && !is_same(&name, &[&*name, b"a"].concat()));
            for index in 0..len {
                let mut other = name.clone();
                other[index] = b'b';
                assert!(!is_same(&name, &other) && !is_same(&other, &name), "{index} of {len}");
            }
        }
    }

    #[test]
    fn each_name_has_its_last_value() {
        let names = ["check-request", "log", "a", "", "b", "check-response", "gol", "lgo", "d"];
        assert!(names.len() > FEW);
        let mut values = ByName::new();
        for (value, name) in names.into_iter().enumerate() {
            assert_eq!(values.insert(name, value), None);
            assert_eq!(values.get(name.as_bytes()), Some((name, &value)));
        }
        for (value, name) in names.into_iter().enumerate() {
            assert_eq!(values.get(name.as_bytes()), Some((name, &value)));
        }
        assert_eq!((values.get(b"c"), values.get(b"check-respons"), values.get(b"\xff")), (None, None, None));
        assert_eq!((values.insert("log", 9), values.get(b"log")), (Some(1), Some(("log", &9))));
        assert_eq!(alloc::format!("{values:?}").matches('"').count(), 2 * names.len());
    }
}
