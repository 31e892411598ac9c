//! Each target with random bytes. The corpora of `fuzz/` are better.

use proptest::{collection, prelude::*};

use crate::TARGETS;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 200 }))]

    #[test]
    fn every_target_survives_what_comes(
        bytes in collection::vec(prop_oneof![any::<u8>(), 0..32_u8], 0..600),
        text in "[A-Za-z:=,; 0-9.\"*-]{0,80}",
    ) {
        for (_, target) in TARGETS {
            target(&bytes);
            target(text.as_bytes());
        }
    }
}
