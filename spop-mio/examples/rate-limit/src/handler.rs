//! Messages, and what HAProxy is told.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use spop_mio::{
    Actions, ArgError, BoxError, Handler, Outcome, Request, Scope,
    spop_core::frame::{FromValue as _, Message, Messages},
};

use crate::{
    counts::{Counters, Counts},
    limit::{Limit, Spec},
    rate::{Nanos, Taken},
};

/// How often the log says that the table of a limit is full.
const WARN_EACH: Duration = Duration::from_secs(60);

/// All limits, for the workers to share.
pub(crate) struct Limits {
    start: Instant,
    all: Vec<Limit>,
    counts: Counts,
}

impl Limits {
    pub(crate) fn new(specs: Vec<Spec>) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            all: specs.into_iter().map(Limit::from).collect(),
            counts: Counts::default(),
        })
    }

    pub(crate) fn now(&self) -> Nanos {
        // Five hundred years.
        self.start.elapsed().as_nanos() as Nanos
    }

    /// Sets what was counted as metrics, which have the names of the log.
    #[expect(clippy::cast_precision_loss, reason = "fewer slots than 2^52")]
    pub(crate) fn publish(&self) {
        for (number, limit) in self.all.iter().enumerate() {
            self.counts.totals(number).publish("rate_limit", &[("limit", &limit.name)]);
            let (used, slots) = limit.table.used(self.now());
            for (name, count) in [("rate_limit_slots_used", used), ("rate_limit_slots", slots)] {
                metrics::gauge!(name, "limit" => limit.name.clone()).set(count as f64);
            }
        }
    }

    /// Logs what was counted.
    pub(crate) fn report(&self) {
        for (number, limit) in self.all.iter().enumerate() {
            let (counts, (used, slots)) = (self.counts.totals(number), limit.table.used(self.now()));
            let limit = &limit.name;
            tracing::info!(name: "counts", "{used} of {slots} slots are in use limit={limit:?} {counts}");
        }
    }

    #[cold]
    fn warn_full(&self, number: usize, limit: &Limit, now: Nanos) {
        let next = now + WARN_EACH.as_nanos() as Nanos;
        let due = |at| (at <= now).then_some(next);
        if limit.warn_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due).is_ok() {
            tracing::warn!(
                name: "table_full",
                limit = limit.name,
                forgotten = self.counts.sum(number, |counters| &counters.forgotten),
                refused = self.counts.sum(number, |counters| &counters.refused),
                "more keys than there is memory for: raise keys="
            );
        }
    }
}

/// The handler of a worker.
pub(crate) struct RateLimit {
    limits: Arc<Limits>,
    counts: Arc<[Counters]>,
}

impl RateLimit {
    pub(crate) fn new(limits: Arc<Limits>) -> Self {
        let counts = limits.counts.begin(limits.all.len());
        Self { limits, counts }
    }
}

/// A clone is for another worker.
impl Clone for RateLimit {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.limits))
    }
}

impl Handler for RateLimit {
    fn handle(&mut self, request: Request<'_>) -> Outcome {
        self.decide(request.messages(), self.limits.now()).into()
    }
}

/// What a message asks for.
struct Ask {
    /// The hash of its key, if it has one.
    key: Option<u64>,
    cost: u64,
}

/// The answer to all messages of a request.
#[derive(Default)]
struct Answer<'a> {
    limited: bool,
    /// Of the limit that has the least.
    remaining: Option<u64>,
    /// Of the limit that takes the longest.
    wait: Nanos,
    /// The name of that limit.
    limit: &'a str,
}

impl RateLimit {
    /// Takes the tokens of all messages. One that cannot be answered fails the request, unless another is limited.
    fn decide(&self, messages: Messages<'_>, now: Nanos) -> Result<Actions, BoxError> {
        let mut answer = Answer::default();
        let mut failed = None;
        for message in messages {
            if let Err(error) = self.take(&message, now, &mut answer) {
                failed = Some(error);
            }
        }
        match failed {
            Some(error) if answer.limited => {
                tracing::debug!(name: "message_failed", %error, "limited by another message");
                Ok(answer.into())
            }
            Some(error) => Err(error),
            None => Ok(answer.into()),
        }
    }

    /// Takes the tokens of one message.
    #[inline]
    fn take<'a>(
        &'a self,
        message: &Message<'_>,
        now: Nanos,
        answer: &mut Answer<'a>,
    ) -> Result<(), BoxError> {
        let name = message.get("limit").and_then(|value| value.as_bytes()).unwrap_or(message.name());
        let mut limits = self.limits.all.iter().zip(self.counts.iter()).enumerate();
        let found = limits.find(|(_, (limit, _))| limit.name.as_bytes() == name);
        let (number, (limit, counters)) =
            found.ok_or_else(|| format!("there is no limit \"{}\"", name.escape_ascii()))?;
        let Ask { key, cost } = limit.read(message)?;
        let Some(key) = key else {
            counters.without_key.add();
            return Ok(());
        };
        let (taken, is_full) = limit.take(key, now, cost, counters);
        answer.add(&limit.name, taken);
        if is_full {
            self.limits.warn_full(number, limit, now);
        }
        Ok(())
    }
}

impl Limit {
    #[inline]
    fn read(&self, message: &Message<'_>) -> Result<Ask, ArgError> {
        let (mut key, mut cost) = (self.keys.begin(), 1);
        for (name, value) in message.args() {
            match name {
                b"key" => key.add(value),
                b"cost" => {
                    let given = Option::<u64>::from_value(value)
                        .map_err(|why| ArgError::new(String::from_utf8_lossy(message.name()), "cost", why))?;
                    cost = given.unwrap_or(1);
                }
                _ => {}
            }
        }
        Ok(Ask { key: key.hash(), cost })
    }

    /// Takes the tokens of one message. Whether there was no slot for its key, too.
    #[inline]
    fn take(&self, key: u64, now: Nanos, cost: u64, counters: &Counters) -> (Taken, bool) {
        let Some(slot) = self.table.slot(key, now) else {
            counters.limited.add();
            counters.refused.add();
            return (Taken { limited: true, remaining: 0, wait: 0 }, true);
        };
        let (taken, full_at) = self.rate.take(slot.full_at(), now, cost);
        // A full bucket needs no slot.
        let is_full = slot.occupied && full_at > now;
        if full_at > now {
            slot.set(full_at);
        }
        if taken.limited { &counters.limited } else { &counters.passed }.add();
        if is_full {
            counters.forgotten.add();
        }
        (taken, is_full)
    }
}

impl<'a> Answer<'a> {
    #[inline]
    fn add(&mut self, limit: &'a str, taken: Taken) {
        self.remaining = Some(self.remaining.map_or(taken.remaining, |least| least.min(taken.remaining)));
        if taken.limited && (!self.limited || taken.wait > self.wait) {
            *self = Self { limited: true, wait: taken.wait, limit, ..*self };
        }
    }
}

impl From<Answer<'_>> for Actions {
    #[inline]
    fn from(answer: Answer<'_>) -> Self {
        let mut actions = Self::new();
        actions.set_var(Scope::Transaction, "limited", answer.limited);
        if let Some(remaining) = answer.remaining {
            actions.set_var(Scope::Transaction, "remaining", remaining);
        }
        if answer.limited {
            // Whole seconds, as in a header Retry-After.
            let seconds = answer.wait.div_ceil(1_000_000_000).max(1);
            actions.set_var(Scope::Transaction, "retry_after", seconds);
            actions.set_var(Scope::Transaction, "limit", answer.limit);
        }
        actions
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use spop_mio::{
        ServerConfig,
        testing::{self, MessageList, TestRequest},
    };

    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn handler(specs: &[&str]) -> RateLimit {
        RateLimit::new(Limits::new(specs.iter().map(|spec| spec.parse().unwrap()).collect()))
    }

    fn sums(handler: &RateLimit, limit: usize) -> [u64; 5] {
        let totals = handler.limits.counts.totals(limit).0;
        totals.into_iter().map(|(.., count)| count).collect::<Vec<_>>().try_into().unwrap()
    }

    /// The answer at this time, or the error.
    fn ask(handler: &RateLimit, now: Nanos, messages: &str) -> String {
        let mut answer = |request: Request<'_>| handler.decide(request.messages(), now);
        let outcome = testing::call(&mut answer, TestRequest::new(messages));
        outcome.failure().map_or_else(|| outcome.sentence(), ToOwned::to_owned)
    }

    #[test]
    fn a_key_has_its_burst_and_then_waits() {
        let handler = handler(&["login=5/10s,burst=2"]);
        let asked = "login key=ipv4:192.0.2.1";
        assert_eq!(ask(&handler, SECOND, asked), "set txn limited=bool:false ; set txn remaining=uint64:1");
        assert_eq!(ask(&handler, SECOND, asked), "set txn limited=bool:false ; set txn remaining=uint64:0");
        for (now, wait) in [(SECOND, 2), (SECOND + 1, 2), (2 * SECOND, 1), (3 * SECOND - 1, 1)] {
            let limited = format!(
                "set txn limited=bool:true ; set txn remaining=uint64:0 ; set txn retry_after=uint64:{wait} ; \
                 set txn limit=string:login"
            );
            assert_eq!(ask(&handler, now, asked), limited);
        }
        let other = "login key=ipv4:192.0.2.2";
        assert_eq!(ask(&handler, SECOND, other), "set txn limited=bool:false ; set txn remaining=uint64:1");
        assert_eq!(
            ask(&handler, 3 * SECOND, asked),
            "set txn limited=bool:false ; set txn remaining=uint64:0"
        );
        assert_eq!(sums(&handler, 0), [4, 4, 0, 0, 0]);
    }

    #[test]
    fn a_server_answers_so_however_its_input_is_cut() {
        testing::replay(
            "
            > NOTIFY fin 1 1 login key=ipv4:192.0.2.1
            < ACK fin 1 1 set txn limited=bool:false ; set txn remaining=uint64:0
            > NOTIFY fin 3 1 login key=ipv6:::ffff:192.0.2.1
            < ACK fin 3 1 set txn limited=bool:true ; set txn remaining=uint64:0 ; set txn retry_after=uint64:3600 ; set txn limit=string:login
            > NOTIFY fin 5 1 logout key=ipv4:192.0.2.1
            < ACK fin 5 1
            ",
            ServerConfig::default(),
            || handler(&["login=1/1h"]),
        )
        .unwrap();
    }

    #[test]
    fn an_argument_chooses_the_limit_and_the_cost() {
        let handler = handler(&["small=10/1s", "large=100/1s"]);
        let remaining = |limit: &str, cost: &str| {
            ask(&handler, SECOND, &format!("small key=string:{limit} limit={limit} cost={cost}"))
        };
        assert_eq!(
            remaining("string:large", "int64:30"),
            "set txn limited=bool:false ; set txn remaining=uint64:70"
        );
        assert_eq!(
            remaining("string:small", "int64:3"),
            "set txn limited=bool:false ; set txn remaining=uint64:7"
        );
        // NULL is as if it were not there.
        assert_eq!(remaining("null", "null"), "set txn limited=bool:false ; set txn remaining=uint64:9");
    }

    #[test]
    fn of_several_limits_the_strictest_answers() {
        let handler = handler(&["requests=10/1s", "login=1/30s", "slow=1/60s"]);
        let both = "requests key=string:a ; login key=string:a";
        assert_eq!(ask(&handler, SECOND, both), "set txn limited=bool:false ; set txn remaining=uint64:0");
        let limited = |wait, limit| {
            format!(
                "set txn limited=bool:true ; set txn remaining=uint64:0 ; set txn retry_after=uint64:{wait} ; \
                 set txn limit=string:{limit}"
            )
        };
        assert_eq!(ask(&handler, SECOND, both), limited(30, "login"));
        assert_eq!(sums(&handler, 0), [2, 0, 0, 0, 0], "what one refuses counts with the others");
        ask(&handler, SECOND, "slow key=string:a");
        for asked in ["slow key=string:a ; login key=string:a", "login key=string:a ; slow key=string:a"] {
            assert_eq!(ask(&handler, SECOND, asked), limited(60, "slow"), "{asked}");
        }
    }

    #[test]
    fn without_a_key_nothing_is_limited() {
        let handler = handler(&["login=1/1h"]);
        for asked in ["login", "login key=null", "login key=null key=null cost=int64:5"] {
            assert_eq!(ask(&handler, SECOND, asked), "set txn limited=bool:false", "{asked}");
        }
        assert_eq!(sums(&handler, 0), [0, 0, 3, 0, 0]);
    }

    #[test]
    fn what_cannot_be_answered_fails() {
        let handler = handler(&["login=1/1h"]);
        for (asked, error) in [
            ("logout key=string:a", "there is no limit \"logout\""),
            (r#"login key=string:a limit=string:"\x01""#, r#"there is no limit "\x01""#),
            (
                "login key=string:a cost=int64:-1",
                "argument \"cost\" of message \"login\" is -1, which does not fit u64",
            ),
            (
                "login cost=string:x",
                "argument \"cost\" of message \"login\" is of type STRING, not an integer",
            ),
        ] {
            let failure = ask(&handler, SECOND, asked);
            assert!(failure.ends_with(error), "{failure}");
        }
    }

    #[test]
    fn a_message_that_fails_hides_no_limit_of_another() {
        let (asked, failing) = ("requests key=string:a", "login key=string:a cost=int64:-1");
        for both in [format!("{asked} ; {failing}"), format!("{failing} ; {asked}")] {
            let handler = handler(&["requests=1/1h", "login=1/1h"]);
            // What is not limited is not known to pass.
            let failure = ask(&handler, SECOND, &both);
            assert!(failure.contains("does not fit u64"), "{failure}");
            let limited = ask(&handler, SECOND, &both);
            assert!(limited.starts_with("set txn limited=bool:true"), "{both}: {limited}");
            assert_eq!(sums(&handler, 1), [0; 5]);
        }
    }

    #[test]
    fn a_full_table_is_counted() {
        let handler = handler(&["open=1/1h,keys=1", "closed=1/1h,keys=1,full=closed"]);
        let limited = |limit: &str, key: u32| {
            let answer = ask(&handler, SECOND, &format!("{limit} key=uint32:{key}"));
            answer.starts_with("set txn limited=bool:true")
        };
        assert_eq!((0..1_000).filter(|key| limited("open", *key)).count(), 0);
        let [passed, _, _, forgotten, _] = sums(&handler, 0);
        assert_eq!(passed, 1_000);
        let slots = 1_000 - forgotten;
        let refused = (0..1_000).filter(|key| limited("closed", *key)).count() as u64;
        assert_eq!(sums(&handler, 1), [slots, refused, 0, 0, refused]);
        assert_eq!(refused, 1_000 - slots);
    }

    #[test]
    fn workers_share_the_limits() {
        const BURST: u64 = 3_000;
        let handler = handler(&[&format!("requests={BURST}/1d")]);
        thread::scope(|scope| {
            for _ in 0..2 {
                let mut worker = handler.clone();
                scope.spawn(move || {
                    for _ in 0..BURST {
                        let request = TestRequest::new("requests key=string:a");
                        assert_eq!(testing::call(&mut worker, request).failure(), None);
                    }
                });
            }
        });
        assert_eq!(sums(&handler, 0), [BURST, BURST, 0, 0, 0]);
    }

    #[test]
    fn a_request_allocates_nothing() {
        let handler = handler(&["requests=2/1h,keys=1", "login=1/1h"]);
        let mut list = MessageList::new();
        for key in 0..100_u32 {
            list.clear();
            list.message("requests").arg("key", key).arg("cost", 1);
            list.message("login").arg("key", "someone").arg("key", key % 2);
            let messages = Messages::decode(list.as_bytes()).unwrap();
            let taken = allocation_counter::measure(|| drop(handler.decide(messages, SECOND).unwrap()));
            // The log has one line of the full table.
            assert!(taken.count_total == 0 || sums(&handler, 0)[3] == 1, "{taken:?} for key {key}");
        }
        assert!(sums(&handler, 0)[3] > 1 && sums(&handler, 1)[1] > 1, "not all cases");
    }
}
