//! What became of each request, and what may have become of it.

use std::{collections::BTreeMap, time::Duration};

use spop_core::{ConnectionId, Timestamp, engine::EngineError};

/// What a handler does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Now,
    /// With much text.
    Long,
    /// At once, and the handler takes the request and drops it.
    Copy,
    Later,
    /// After HAProxy has given it up.
    Slow,
    /// Later, and the request is kept after that.
    Keep,
    /// Later, and the request is dropped before.
    Guard,
    /// Parts, and then the last.
    Parts,
    Fail,
    /// With an answer for HAProxy.
    FailWith,
    /// With one that is too long.
    FailLong,
    Panic,
    PanicLater,
    Dropped,
    Never,
    Abort,
    Disconnect,
}

impl Decision {
    /// Whether the request waits for its answer.
    pub fn defers(self) -> bool {
        matches!(self, Self::Later | Self::Slow | Self::Never | Self::Keep | Self::Guard)
    }

    /// Whether it gives an answer with actions.
    pub fn answers(self) -> bool {
        matches!(
            self,
            Self::Now
                | Self::Long
                | Self::Copy
                | Self::Later
                | Self::Slow
                | Self::Keep
                | Self::Guard
                | Self::Parts
                | Self::FailWith
        )
    }
}

/// What is known of a request whose handler was called.
#[derive(Clone, Copy, Debug)]
pub struct Handled {
    /// The server.
    pub node: usize,
    pub conn: ConnectionId,
    pub at: Timestamp,
    pub decision: Decision,
    /// When its answer was given.
    pub replied: Option<Timestamp>,
    /// The peer takes no answers of this kind.
    pub unsendable: bool,
    /// Answers of this kind may exceed the queue.
    pub may_exceed: bool,
}

#[derive(Debug)]
pub struct Asked {
    pub engine: usize,
    pub at: Timestamp,
    pub handled: Option<Handled>,
    /// A fault was on its way: it may fail.
    pub excused: bool,
    /// All connections that could send its answer may be full: then it has none.
    pub crowded: bool,
}

/// All requests that have not ended, by number.
#[derive(Debug, Default)]
pub struct Ledger {
    pub open: BTreeMap<u64, Asked>,
    pub asked: u64,
    pub answered: u64,
    pub empty: u64,
    pub failed: u64,
    /// Those that were answered although their connection was lost.
    pub rescued: u64,
    /// Requests asked at or before then may fail if no handler was called.
    pub trouble: Option<Timestamp>,
    /// What handlers have found wrong: their panics are caught.
    pub faults: Vec<String>,
    /// Those that timed out, by number: others may have their identifiers now.
    pub given_up: BTreeMap<u64, Option<Handled>>,
}

impl Ledger {
    pub fn ask(&mut self, engine: usize, at: Timestamp) -> u64 {
        self.asked += 1;
        self.open.insert(self.asked, Asked { engine, at, handled: None, excused: false, crowded: false });
        self.asked
    }

    pub fn handle(&mut self, n: u64, handled: Handled) {
        // It may have ended already: HAProxy has given it up.
        if let Some(asked) = self.open.get_mut(&n) {
            if asked.handled.is_some() {
                self.faults.push(format!("request {n} is handled twice"));
            }
            asked.handled = Some(handled);
        } else if let Some(unknown) = self.given_up.get_mut(&n) {
            *unknown = Some(handled);
        }
    }

    pub fn replied(&mut self, n: u64, at: Timestamp) {
        if let Some(handled) = self.open.get_mut(&n).and_then(|asked| asked.handled.as_mut()) {
            handled.replied = Some(at);
        }
        if let Some(Some(handled)) = self.given_up.get_mut(&n) {
            handled.replied = Some(at);
        }
    }

    /// An answer, with the number that it has, if it has one.
    pub fn answer(&mut self, n: u64, answer: Option<u64>) {
        let asked = self.open.remove(&n).unwrap_or_else(|| panic!("request {n} ends twice"));
        if let Some(answer) = answer {
            self.answered += 1;
            if answer != n {
                // It crossed a request that has the same identifiers, or that went to another server.
                let older = self.given_up.get(&answer).copied().flatten();
                let crossed = older.is_some_and(|older| {
                    asked.handled.is_none_or(|new| older.replied <= Some(new.at) || older.node != new.node)
                });
                assert!(crossed, "{n} has the answer of {answer}: {asked:?}, {older:?}");
                return;
            }
            let handled = asked.handled.expect("answered without its handler");
            assert!(handled.decision.answers() && !handled.unsendable, "{n}: {asked:?}");
            return;
        }
        self.empty += 1;
        // The answer of a failure. Without a handler, the server was overloaded.
        if let Some(handled) = asked.handled {
            assert!(
                !handled.decision.answers()
                    || handled.decision == Decision::Slow
                    || handled.unsendable
                    || handled.may_exceed
                    || asked.excused,
                "{n} lost its answer: {asked:?}"
            );
        }
    }

    pub fn fail(&mut self, n: u64, error: EngineError, now: Timestamp) {
        let asked = self.open.remove(&n).unwrap_or_else(|| panic!("request {n} ends twice"));
        self.failed += 1;
        if error == EngineError::Timeout {
            self.given_up.insert(n, asked.handled);
        }
        let troubled = self.trouble.is_some_and(|at| at >= asked.at);
        let excused = asked.excused
            || asked.crowded
            || match asked.handled {
                Some(handled) => {
                    // It may have been queued for most of its time.
                    let late =
                        error == EngineError::Timeout && now.since(handled.at) < Duration::from_secs(3);
                    late && troubled
                        || matches!(
                            handled.decision,
                            Decision::Never | Decision::Slow | Decision::Disconnect | Decision::Abort
                        )
                }
                // Others that an engine in haste has given up occupy its connections.
                None => {
                    let hasty = error == EngineError::Timeout && now.since(asked.at) < Duration::from_secs(2);
                    troubled || hasty && self.given_up.len() >= 3
                }
            };
        assert!(excused, "request {n} fails with {error:?} at {now}: {asked:?}");
    }

    /// The answers to the requests of a server find all queues full.
    pub fn crowd(&mut self, node: usize) {
        for asked in self.open.values_mut() {
            asked.crowded |= asked.handled.is_some_and(|it| it.node == node && it.replied.is_none());
        }
    }

    /// A fault: requests that it may have hit may fail.
    pub fn excuse(&mut self, mut hit: impl FnMut(&Asked) -> bool) {
        for asked in self.open.values_mut() {
            asked.excused |= hit(asked);
        }
    }
}
