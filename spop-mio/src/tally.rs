//! What a worker has counted since it last reported. Reports go to a recorder that all workers share: once for each round,
//! and not for each request.

use std::mem::take;

use spop_server::Metrics;

use crate::ReadBuffer;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) notifies: usize,
    pub(crate) acks: usize,
    pub(crate) failures: usize,
    pub(crate) overloaded: usize,
    pub(crate) cancelled: usize,
    pub(crate) aborted: usize,
}

impl Tally {
    #[inline]
    pub(crate) fn report(&mut self, metrics: &Metrics, buffer: &mut ReadBuffer) {
        let Self { notifies, acks, failures, overloaded, cancelled, aborted } = self;
        let (mut received, mut sent) = buffer.take_moved();
        report(notifies, |n| metrics.notifies(n));
        report(acks, |n| metrics.acks(n));
        report(failures, |n| metrics.failures(n));
        report(overloaded, |n| metrics.overloaded(n));
        report(cancelled, |n| metrics.cancelled(n));
        report(aborted, |n| metrics.aborted(n));
        report(&mut received, |n| metrics.received(n));
        report(&mut sent, |n| metrics.sent(n));
    }
}

fn report(count: &mut usize, to: impl FnOnce(usize)) {
    if *count > 0 {
        to(take(count));
    }
}
