//! Warnings about names of variables that HAProxy drops: one per name, so that an agent that sets such a variable in each answer
//! does not fill the log.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

/// The number of names that are warned about.
const MAX_NAMES: usize = 64;
/// How much of a name is remembered; HAProxy takes 63 characters at most.
const MAX_LEN: usize = 64;

/// The names of variables that a server has warned about.
///
/// It is asked when an answer has a name that HAProxy drops, which [`Actions::dropped_names`] tells, and at no other time:
///
/// ```
/// use spop_core::{Actions, Scope};
/// use spop_server::NameWarnings;
///
/// let warnings = NameWarnings::default(); // one for the server
/// let mut actions = Actions::new();
/// actions.set_var(Scope::Session, "ip-score", 77_i32);
/// let mut warned = 0;
/// for _ in 0..1000 {
///     for dropped in actions.dropped_names().filter(|dropped| warnings.is_new(dropped.name())) {
///         println!("HAProxy drops a variable: {}", dropped.error());
///         warned += 1;
///     }
/// }
/// assert_eq!(warned, 1);
/// ```
///
/// [`Actions::dropped_names`]: spop_core::Actions::dropped_names
#[derive(Debug, Default)]
pub struct NameWarnings {
    warned: Mutex<HashSet<Box<[u8]>>>,
}

impl NameWarnings {
    /// Whether there was no warning about this name yet; the next time there was. After 64 names there are no more warnings: an
    /// agent that makes names of what a client sends would warn without end. Names that begin with the same 64 bytes are one.
    pub fn is_new(&self, name: &[u8]) -> bool {
        let name = name.get(..MAX_LEN).unwrap_or(name);
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        warned.len() < MAX_NAMES && !warned.contains(name) && warned.insert(name.into())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_name_is_new_once_for_all_threads() {
        let warnings = NameWarnings::default();
        let new = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope
                        .spawn(|| (0..100).filter(|_| warnings.is_new(b"a-b") | warnings.is_new(b"")).count())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert!((1..=2).contains(&new), "{new}");
        assert!(!warnings.is_new(b"a-b") && !warnings.is_new(b"") && warnings.is_new(b"b-a"));
    }

    #[test]
    fn names_are_remembered_up_to_a_bound() {
        let warnings = NameWarnings::default();
        let new = (0..1000).filter(|number| warnings.is_new(format!("a-{number}").as_bytes())).count();
        assert_eq!(new, MAX_NAMES);
        let warnings = NameWarnings::default();
        assert!(warnings.is_new(&vec![b'x'; 100_000]) && !warnings.is_new(&vec![b'x'; 100_001]));
        let kept = warnings.warned.lock().unwrap();
        assert!(kept.iter().all(|name| name.len() <= MAX_LEN));
    }
}
