//! Every combination of negotiable capabilities and frame sizes.

use super::*;
use crate::engine::EngineError;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 300 }))]

    #[test]
    fn what_is_asked_is_answered(
        profile in profile(),
        engine_can in capabilities(),
        agent_can in capabilities(),
        engine_size in frame_size(),
        agent_size in frame_size(),
        conditions in conditions(),
        way_back in conditions(),
        questions in prop::collection::vec((0_u32..5, 0_u32..2_000, 0_u32..3_000, 0_usize..2_000), 1..40),
    ) {
        let mut config = profile.config();
        config.max_frame_size = engine_size;
        // HAProxy's capabilities can be switched off; it never accepts fragments.
        config.capabilities = if profile == Profile::Spec { engine_can } else { config.capabilities & engine_can };
        if way_back.cuts != Cuts::Whole || way_back.buffer < 1_000 || way_back.bandwidth.is_some() {
            // This profile rejects a HELLO that arrives in pieces.
            config.profile.rejects_split_frames = false;
        }
        let pipelined = config.capabilities & agent_can;
        let agent = AgentConfig { max_frame_size: agent_size, capabilities: agent_can, ..AgentConfig::default() };
        let size = engine_size.min(agent_size);
        let mut pair = Pair::with(conditions, config.clone(), agent, handler).with_way_back(way_back);
        prop_assert!(pair.run_handshake());
        prop_assert_eq!(pair.session().unwrap().max_frame_size, size);

        let mut asked = Vec::new();
        for (kind, answer, micros, body) in questions {
            let list = question(&[kind, answer, micros], body);
            loop {
                match pair.notify(None, &list) {
                    Ok(id) => asked.push((id, kind, answer)),
                    Err(NotifyError::Busy) => {
                        while !pair.engine().is_ready() && pair.advance(None) {}
                        continue;
                    }
                    Err(NotifyError::TooBig { size: takes, limit }) => {
                        prop_assert_eq!(limit, size as usize - 32);
                        prop_assert!(takes > limit);
                        let fragments = agent_can.contains(Capabilities::FRAGMENTATION);
                        prop_assert!(!fragments || profile == Profile::New);
                    }
                    // The 2.6 profile without pipelining awaits a late answer until its idle timeout.
                    Err(NotifyError::NoSession) => {
                        prop_assert!(pair.now() >= Timestamp::from_millis(60_000) && profile == Profile::Old);
                        prop_assert_eq!(pipelined, Capabilities::NONE);
                    }
                    Err(error) => prop_assert!(false, "{}", error),
                }
                break;
            }
        }
        pair.run_until_settled();
        prop_assert_eq!(pair.outcomes().len(), asked.len());
        let outcomes: Vec<_> = pair.take_outcomes().collect();
        for (id, kind, answer) in asked {
            let mut found = outcomes.iter().filter(|(settled, _)| *settled == id);
            let outcome = &found.next().unwrap().1;
            prop_assert!(found.next().is_none());
            match outcome.payload() {
                Some(got) if kind < 2 => {
                    let mut actions = Actions::new();
                    actions.set_var(Scope::Transaction, "blob", Value::Binary(&vec![b'y'; answer as usize]));
                    let whole = got == actions.as_bytes();
                    // An answer that does not fit counts as failed, and an empty ACK is sent.
                    prop_assert!(whole || got.is_empty() && actions.as_bytes().len() + 9 > size as usize);
                }
                Some(got) => prop_assert!(kind > 2 && got.is_empty()),
                None => prop_assert!(
                    outcome.error() == Some(EngineError::Timeout) && (kind == 2 || pair.now() > Timestamp::from_millis(2_000)),
                    "{} {}", kind, outcome.sentence()
                ),
            }
        }
        pair.drain_agent();
        pair.run_to_end();
        prop_assert!(pair.is_over());
        check_frames(&pair, size.max(if size < engine_size { 160 } else { 0 }));
    }
}
