//! NOTIFYs, ACKs and their fragments.

use std::time::Duration;

use spop_core::{
    frame::{AckActions, Capabilities, Header, Messages},
    link::{Side, Verdict},
};

use super::{Checked, Happened, Session};
use crate::watch::{
    event::{About, Names, What, names},
    flights::{Answered, Begun},
    fragments::Joined,
};

impl Session {
    /// A frame with a payload, or a part of one. Returns what it has of an answer, and the messages it is about.
    pub(super) fn payload(
        &mut self,
        verdict: Verdict,
        frame: &Checked<'_>,
        out: &mut Happened,
    ) -> (Option<Duration>, Names) {
        let ids = frame.header.ids;
        match verdict {
            Verdict::Whole => return self.whole(frame, frame.payload, true, out),
            Verdict::First => {
                self.check_fragmentation(frame, out);
                if !self.half(frame.side).fragments.begin(frame.header, frame.payload) {
                    frame.note(out, "too many unfinished payloads: the oldest is not joined");
                }
                if frame.side == Side::Engine {
                    let begun = self.flights.begin(ids, frame.time, Names::default(), false);
                    self.check_begun(frame, begun, out);
                }
            }
            Verdict::More | Verdict::Last => {
                let last = verdict == Verdict::Last;
                match self.half(frame.side).fragments.join(ids, frame.payload, last) {
                    Joined::Whole(header, payload, fragments) => {
                        return self.joined(frame, header, payload, fragments, out);
                    }
                    Joined::TooLong => frame.note(out, "the fragments are too long: they are not joined"),
                    Joined::Unknown if self.is_whole => {
                        frame.violation(out, "it continues no payload");
                    }
                    Joined::Kept | Joined::Unknown => {}
                }
            }
            Verdict::Abort => {
                self.half(frame.side).fragments.drop(ids);
                match frame.side {
                    Side::Engine => self.flights.abort(ids),
                    Side::Agent => return self.answered(frame, true, out),
                }
            }
            _ => {}
        }
        (None, Names::default())
    }

    /// A payload in one frame, or one that was joined.
    fn whole(
        &mut self,
        frame: &Checked<'_>,
        payload: &[u8],
        in_one: bool,
        out: &mut Happened,
    ) -> (Option<Duration>, Names) {
        // The offset in a payload that was joined is not one in the stream.
        let malformed = |out: &mut Happened, error: &spop_core::DecodeError| {
            if in_one {
                frame.malformed(out, error);
            } else {
                frame.violation(out, format_args!("the joined payload, {error}"));
            }
        };
        match frame.side {
            Side::Engine => {
                let names = match Messages::decode(payload) {
                    Ok(messages) => names(messages),
                    Err(error) => {
                        malformed(out, &error);
                        Names::default()
                    }
                };
                if in_one {
                    let begun = self.flights.begin(frame.header.ids, frame.time, names.clone(), true);
                    self.check_begun(frame, begun, out);
                } else {
                    self.flights.complete(frame.header.ids, frame.time, names.clone());
                }
                (None, names)
            }
            Side::Agent => {
                if let Err(error) = AckActions::decode(payload) {
                    malformed(out, &error);
                }
                self.answered(frame, false, out)
            }
        }
    }

    fn joined(
        &mut self,
        frame: &Checked<'_>,
        header: Header,
        payload: Vec<u8>,
        fragments: u32,
        out: &mut Happened,
    ) -> (Option<Duration>, Names) {
        let shown = out.len();
        let (latency, names) = self.whole(frame, &payload, false, out);
        let about = About { names: names.clone(), ..About::header(header) };
        let what = What::Joined { at: frame.at, header, payload, fragments };
        out.insert(shown, (what, about));
        (latency, names)
    }

    fn check_fragmentation(&self, frame: &Checked<'_>, out: &mut Happened) {
        let receiver = match frame.side {
            Side::Engine => self.agent.hello,
            Side::Agent => self.engine.hello,
        };
        let announced = receiver.is_none_or(|hello| hello.capabilities.contains(Capabilities::FRAGMENTATION));
        if !announced {
            frame.violation(out, "a fragment, and its receiver has not announced fragmentation");
        }
    }

    fn check_begun(&mut self, frame: &Checked<'_>, begun: Begun, out: &mut Happened) {
        if self.only.is_some() {
            return;
        }
        if begun.superseded {
            frame.note(out, "the same ids again before the answer: HAProxy gave the older request up");
        } else if let Some(other) = begun.other
            && self.agreed.is_some_and(|agreed| !agreed.pipelining)
        {
            frame.note(
                out,
                format_args!(
                    "before the answer to {other}, without pipelining: HAProxy has given that request up"
                ),
            );
        }
        if begun.forgotten {
            self.is_whole = false;
        }
    }

    fn answered(
        &mut self,
        frame: &Checked<'_>,
        is_abort: bool,
        out: &mut Happened,
    ) -> (Option<Duration>, Names) {
        if self.only.is_some() {
            return (None, Names::default());
        }
        match self.flights.answer(frame.header.ids, frame.time) {
            Answered::Request { latency, names, late, complete } => {
                if late && self.agreed.is_some_and(|agreed| !agreed.pipelining) {
                    frame.violation(out, "out of order, without pipelining");
                }
                if !complete && !is_abort {
                    frame.violation(out, "it answers before the last fragment of the request");
                }
                return (Some(latency), names);
            }
            Answered::Again => frame.violation(out, "it answers a second time"),
            Answered::Unknown if self.agreed.is_some_and(|agreed| agreed.is_async) => {
                frame.note(out, "it answers a request of another connection (async)");
            }
            Answered::Unknown if self.is_whole => frame.violation(out, "it answers no request"),
            Answered::Unknown => {}
        }
        (None, Names::default())
    }
}
