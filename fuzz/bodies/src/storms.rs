//! Random sequences of events.

use proptest::{collection, prelude::*, sample::select};
use spop_core::link::Side;

use crate::{
    pair::{INJECTED, Setup, Step, storm},
    strategies::{capabilities, conditions, frame_size, profile},
};

fn step() -> impl Strategy<Value = Step> {
    let side = || select(vec![Side::Engine, Side::Agent]);
    let kind = prop_oneof![30 => 0_u32..5, 1 => Just(9_u32)];
    prop_oneof![
        40 => (kind, 0_u32..3_000, 0_u32..5_000_000, 0_usize..3_000)
            .prop_map(|(kind, answer, micros, body)| Step::Ask { kind, answer, micros, body }),
        5 => Just(Step::Again),
        30 => (0_u64..3_000_000).prop_map(Step::Pass),
        1 => Just(Step::DrainAgent),
        1 => Just(Step::DrainEngine),
        1 => Just(Step::DisconnectAgent),
        1 => Just(Step::DisconnectEngine),
        1 => side().prop_map(Step::HalfClose),
        1 => Just(Step::Lose),
        1 => (side(), 0_u64..20_000).prop_map(|(side, bytes)| Step::LoseAfter(side, bytes)),
        2 => (side(), 0..INJECTED.len()).prop_map(|(side, what)| Step::Say(side, what)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 500 }))]

    #[test]
    fn every_request_ends_once_and_every_connection_ends(
        profile in profile(),
        agent_can in capabilities(),
        size in frame_size(),
        conditions in conditions(),
        way_back in conditions(),
        lost_within in prop_oneof![4 => Just(None), 1 => (1_u64..50_000).prop_map(Some)],
        slow: bool,
        refuse_at in 0_usize..4_000,
        max_in_flight in 1_usize..40,
        max_outgoing in select(vec![100_usize, 10_000, 1 << 20]),
        steps in collection::vec(step(), 1..60),
    ) {
        let mut conditions = conditions;
        conditions.lost_within = lost_within;
        if slow {
            // Requests time out while they are sent in fragments.
            conditions.bandwidth = Some(2_000);
        }
        storm(
            Setup {
                engine: profile.config(),
                agent_can,
                size,
                conditions,
                way_back,
                refuse_at,
                max_in_flight,
                max_outgoing,
            },
            &steps,
        );
    }
}
