//! Numbers that look random and are the same in every run.

/// A source of numbers (`SplitMix64`).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The source that this seed gives.
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`; zero when that is zero.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % (end.max(1) as u64)).unwrap_or_default()
    }

    /// How much of `len` bytes comes next: often a few, sometimes all.
    pub fn piece(&mut self, len: usize) -> usize {
        let most = match self.below(4) {
            0 => 1,
            1 => 8,
            2 => 64,
            _ => len,
        };
        (1 + self.below(most)).min(len)
    }
}
