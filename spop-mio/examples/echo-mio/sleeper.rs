//! A thread that sends answers after a delay.

use std::{
    collections::BTreeMap,
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use spop_mio::{Reply, Responder};

/// When this many answers wait, those of cancelled requests are dropped: a peer can have requests cancelled without limit by
/// repeating their identifiers.
const MANY: usize = 1_024;

/// The queue of delayed answers.
#[derive(Clone)]
pub(crate) struct Sleeper(Sender<(Instant, Responder, Reply)>);

impl Sleeper {
    pub(crate) fn start() -> io::Result<Self> {
        let (sender, receiver) = channel();
        thread::Builder::new().name("sleeper".into()).spawn(move || run(&receiver))?;
        Ok(Self(sender))
    }

    pub(crate) fn reply_after(&self, wait: Duration, responder: Responder, reply: Reply) {
        // A time that `Instant` cannot represent never comes: the responder is dropped, and the request fails.
        if let Some(at) = Instant::now().checked_add(wait) {
            let _ = self.0.send((at, responder, reply));
        }
    }
}

fn run(receiver: &Receiver<(Instant, Responder, Reply)>) {
    let mut sleeping = BTreeMap::new();
    let (mut count, mut limit) = (0_u64, MANY);
    loop {
        let next = sleeping.first_key_value().map(|((at, _), _): (&(Instant, u64), _)| *at);
        let wait = next.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()));
        match receiver.recv_timeout(wait) {
            Ok((at, responder, reply)) => {
                count += 1;
                sleeping.insert((at, count), (responder, reply));
                if sleeping.len() >= limit {
                    sleeping.retain(|_, (responder, _)| !responder.is_cancelled());
                    limit = MANY.max(2 * sleeping.len());
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if sleeping.is_empty() => return,
            Err(RecvTimeoutError::Disconnected) => thread::sleep(wait),
        }
        let now = Instant::now();
        while let Some(due) = sleeping.first_entry()
            && due.key().0 <= now
        {
            let (responder, reply) = due.remove();
            responder.reply(reply);
        }
    }
}
