//! Random engines, agents, and connections between them.

// The fuzz target `pair` also compiles this module: no path may begin with `crate`.

use alloc::vec;
use core::time::Duration;

use proptest::{prelude::*, sample::select};

use spop_core::{
    frame::Capabilities,
    testing::{Conditions, Cuts},
};

use super::echo::Profile;

pub(crate) fn capabilities() -> impl Strategy<Value = Capabilities> {
    any::<[bool; 3]>().prop_map(|wanted| {
        [Capabilities::FRAGMENTATION, Capabilities::PIPELINING, Capabilities::ASYNC]
            .into_iter()
            .zip(wanted)
            .filter(|(_, wanted)| *wanted)
            .fold(Capabilities::NONE, |all, (one, _)| all | one)
    })
}

pub(crate) fn profile() -> impl Strategy<Value = Profile> {
    select(&Profile::ALL)
}

pub(crate) fn frame_size() -> impl Strategy<Value = u32> {
    select(vec![256, 257, 300, 1_024, 16_380])
}

prop_compose! {
    pub(crate) fn conditions()(
        cuts in prop_oneof![
            select(vec![Cuts::Whole, Cuts::Each, Cuts::Random]),
            prop::collection::vec(0_usize..300, 0..6).prop_map(Cuts::Lengths),
        ],
        latency in select(vec![0_u64, 1, 40_000]),
        bandwidth in select(vec![None, Some(1_u64 << 20), Some(1 << 24)]),
        buffer in select(vec![100_usize, 1 << 16]),
        seed: u64,
    ) -> Conditions {
        let mut conditions = Conditions::default();
        (conditions.cuts, conditions.latency) = (cuts, Duration::from_micros(latency));
        (conditions.bandwidth, conditions.buffer) = (bandwidth, buffer);
        (conditions.seed, conditions.record) = (seed, true);
        conditions
    }
}
