//! The ways to cut a transcript. Both runners of transcripts have them; integration tests include the older by its path.

use core::fmt;

/// How the bytes of a scenario are cut into reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Way {
    /// A frame in each read.
    Whole,
    /// All frames up to the next answer in one read.
    Joined,
    /// A byte in each read.
    Bytes,
    /// Cut at random, with this seed.
    Random(u64),
}

impl Way {
    /// All ways to run a scenario. The others must give the results of the first.
    #[doc(hidden)]
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Whole, Self::Joined, Self::Bytes].into_iter().chain((0..8).map(Self::Random))
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("with a frame in each read"),
            Self::Joined => f.write_str("with all frames in one read"),
            Self::Bytes => f.write_str("with a byte in each read"),
            Self::Random(seed) => write!(f, "cut at random (seed {seed})"),
        }
    }
}
