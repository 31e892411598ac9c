//! Drains: when the DISCONNECT is sent.

use core::time::Duration;

use super::AgentReactor;
use crate::{
    ConnectionId, Status, Timestamp,
    link::{CloseReason, Timer},
};

/// When a drain sends its DISCONNECT, so that no NOTIFY is in transit at that time.
///
/// HAProxy sends NOTIFY frames until it has read the DISCONNECT, and then fails the unanswered ones. The reactor therefore
/// sends the DISCONNECT when HAProxy is least likely to send: in one write with the last outstanding answers, because
/// HAProxy reads them all before it sends again; or, if no answer is outstanding, on a connection that has been idle for
/// some time.
///
/// Measured with HAProxy 2.6 and 3.0, 16 clients, without pipelining: without this timing up to 45 of 100,000 requests were lost in 20
/// restarts of the agent; with it, 7 of 29,000 restarts lost one or two. HAProxy had used a connection after a long time, in the moment in
/// which its DISCONNECT was in transit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainTiming {
    /// How long answers are held at most, to be sent together with the DISCONNECT. Default 15 ms.
    pub hold: Duration,
    /// While answers are held: how long no frame must have arrived before the DISCONNECT. Applied with pipelining or async: without
    /// either the peer sends nothing before it has its answer. Default 5 ms.
    pub silence: Duration,
    /// Without held answers, or before the HELLO: how long the connection must have been idle before the DISCONNECT.
    /// Default 100 ms.
    pub idle: Duration,
}

impl Default for DrainTiming {
    fn default() -> Self {
        Self {
            hold: Duration::from_millis(15),
            silence: Duration::from_millis(5),
            idle: Duration::from_millis(100),
        }
    }
}

/// How long the driver has for the read that `read_now` asks for before the DISCONNECT is sent anyway.
const READ_WITHIN: Duration = Duration::from_millis(20);

/// The shortest pause between two drains for `max_age`, if the connection was too busy for the first.
const AGE_RETRY: Duration = Duration::from_secs(1);

/// The message of the DISCONNECT after a drain.
pub(super) const DRAINED: &str = "the agent takes no more requests here";

/// The age ± 10 %, so that connections opened together do not end together. A hash of the connection's identifier and the
/// time serves as the random number.
pub(super) fn with_jitter(age: Duration, connection: ConnectionId, now: Timestamp) -> Duration {
    // One round of splitmix64.
    let mut mixed = (connection.0 ^ now.as_nanos().rotate_left(32)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    // From 900 to 1100 thousandths.
    (age / 1_000).saturating_mul(900 + (mixed % 201) as u32)
}

/// What is known of the DISCONNECT that a drain will send.
#[derive(Debug, Default)]
pub(super) struct NextDisconnect {
    /// Its time, which the drain timer has announced with `read_now`, and when it did.
    announced: Option<(Timestamp, Timestamp)>,
    /// When it is sent at the earliest.
    pub(super) earliest: Timestamp,
}

impl AgentReactor {
    /// The timing in effect. None after a refused payload, because HAProxy sends nothing more on that connection.
    fn drain_timing(&self) -> Option<DrainTiming> {
        self.config.drain_timing.filter(|_| !self.payload_refused)
    }

    /// Starts a drain for the idle or the age timer.
    pub(super) fn drain_by_timer(&mut self, timer: Timer) {
        self.drained_by = Some(timer);
        self.link.drain(self.link.now() + self.config.timeouts.drain);
        if timer != Timer::Idle {
            self.hold_answers();
        }
    }

    /// Cancels a drain for idleness if the connection was active since.
    pub(super) fn cancel_idle_drain_if_active(&mut self) {
        let Some(idle) = self.config.timeouts.idle else { return };
        if self.drained_by == Some(Timer::Idle) && self.link.now() < self.link.last_active() + idle {
            self.stop_draining();
        }
    }

    /// Cancels a drain that a timer started.
    fn stop_draining(&mut self) {
        self.drained_by = None;
        if let Some(next) = &mut self.next_disconnect {
            next.announced = None;
        }
        self.link.stop_draining();
    }

    /// The drain timeout expired. A drain that a timer started is cancelled and, for `max_age`, tried again later, because
    /// losing requests is worse than a longer connection. False if the session is to end now.
    pub(super) fn postpone_drain(&mut self) -> bool {
        self.cancel_idle_drain_if_active();
        if self.drained_by == Some(Timer::Age) {
            self.stop_draining();
            self.max_age = Some(self.link.now() + self.config.timeouts.drain.max(AGE_RETRY));
        }
        !self.link.is_draining()
    }

    /// In a drain, holds the answers that are queued from now on. Not an AGENT-HELLO: HAProxy sends its first NOTIFY only
    /// after it.
    pub(super) fn hold_answers(&mut self) {
        self.cancel_idle_drain_if_active();
        let answers = self.session.is_some()
            && self.link.nothing_to_send()
            && self.earliest_disconnect() <= self.link.now();
        if self.link.is_draining() && answers && self.drain_timing().is_some() {
            self.link.hold_output(true);
        }
    }

    /// Advances a drain after a read that would block: disconnects if it is time to, or releases answers held for too long.
    pub(super) fn advance_drain(&mut self) {
        self.cancel_idle_drain_if_active();
        let now = self.link.now();
        if self.disconnect_at().is_some_and(|at| at <= now) {
            self.disconnect_drained();
        } else if self.held_until().is_some_and(|until| until <= now) {
            self.link.hold_output(false);
        }
    }

    /// The drain is complete.
    pub(super) fn disconnect_drained(&mut self) {
        let (reason, status, message) = match self.drained_by {
            Some(timer @ Timer::Idle) => {
                (CloseReason::Timeout(timer), Status::TIMEOUT, "the connection was idle too long")
            }
            Some(timer) => (CloseReason::Timeout(timer), Status::NORMAL, DRAINED),
            None => (CloseReason::Drained, Status::NORMAL, DRAINED),
        };
        self.disconnect_for(reason, status, message);
    }

    /// The drain timer expired before the end of the drain. If it is time to disconnect, asks the driver for one more read
    /// (`read_now`); after [`READ_WITHIN`] the timer expires again, and the session is disconnected without it.
    pub(super) fn on_drain_timer(&mut self) {
        let due = self.disconnect_at();
        if let Some(due) = due.filter(|due| *due <= self.link.now())
            && self.announced_disconnect().is_none_or(|(announced, _)| announced != due)
            && self.drain_timing().is_some()
        {
            self.next_disconnect.get_or_insert_default().announced = Some((due, self.link.now()));
        } else {
            self.advance_drain();
        }
    }

    fn earliest_disconnect(&self) -> Timestamp {
        self.next_disconnect.as_ref().map_or(Timestamp::ZERO, |next| next.earliest)
    }

    fn announced_disconnect(&self) -> Option<(Timestamp, Timestamp)> {
        self.next_disconnect.as_ref()?.announced
    }

    /// The next deadline of a drain other than its end.
    pub(super) fn drain_deadline(&self) -> Option<Timestamp> {
        let next = match (self.disconnect_at(), self.announced_disconnect()) {
            // Held answers are sent with the DISCONNECT then.
            (Some(due), Some((announced, at))) if announced == due => at + READ_WITHIN,
            (due, _) => due.into_iter().chain(self.held_until()).min()?,
        };
        Some(next.max(self.link.now()))
    }

    /// Whether the peer is idle and has not ended the input that releases deferred output. The drain does not wait for that
    /// output.
    fn is_idle_with_deferred_output(&self) -> bool {
        self.drained_by == Some(Timer::Idle) && self.link.is_deferred()
    }

    /// Until when answers are held. Under backpressure they are released at once, because reading waits for them to be sent;
    /// likewise while an answer is sent in fragments, of which the next is made when those before it are sent.
    fn held_until(&self) -> Option<Timestamp> {
        let held = self.link.held_since()?;
        let released = self.is_full() || self.link.is_fragmenting();
        Some(if released { self.link.now() } else { held + self.config.drain_timing?.hold })
    }

    /// Whether it is time to disconnect, unless input has arrived.
    #[cold]
    pub(super) fn is_disconnect_due(&self) -> bool {
        self.disconnect_at().is_some_and(|at| at <= self.link.now())
    }

    /// The time of the DISCONNECT, if the connection is draining and no request, fragment, partial frame or queued byte is
    /// outstanding.
    fn disconnect_at(&self) -> Option<Timestamp> {
        // What is still to become fragments cannot leave together with the DISCONNECT.
        let held = self.link.held_since().is_some() && !self.link.is_fragmenting();
        let ready = self.link.is_draining()
            && !self.link.is_closing()
            && self.flight.waiting() == 0
            && self.link.reassembly.len() == 0
            && self.link.partial_bytes() == 0
            && !self.link.is_paused()
            && (held || self.link.nothing_to_send() || self.is_idle_with_deferred_output());
        let quiet = match (self.drain_timing(), &self.session) {
            (Some(timing), _) if !held => timing.idle,
            (Some(timing), Some(session)) if session.capabilities.allow_overlap() => timing.silence,
            _ => Duration::ZERO,
        };
        ready.then(|| (self.link.last_active() + quiet).max(self.earliest_disconnect()))
    }
}
