//! A small deterministic generator (SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
//! OOPSLA 2014). Enough for coins; a dependency would have to be the same in every build for a seed to mean anything.

#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound` (0 when that is 0).
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// True once in `n` times.
    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// How likely things survive in one cut, in sixteenths: the extremes are as frequent as the mixtures.
    pub(super) fn bias(&mut self) -> u64 {
        [0, 1, 4, 8, 8, 12, 15, 16][usize::try_from(self.below(8)).unwrap_or(0)]
    }

    /// True with the given number of sixteenths.
    pub(super) fn biased(&mut self, sixteenths: u64) -> bool {
        self.below(16) < sixteenths
    }
}
