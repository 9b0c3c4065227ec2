//! Where every random choice comes from.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A seeded source of choices.
#[derive(Debug)]
pub(crate) struct Chance(SmallRng);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high)
    }

    /// True in `permille` of 1000 cases.
    pub(crate) fn permille(&mut self, permille: u64) -> bool {
        self.0.random_range(0..1000) < permille
    }

    /// An index below `len`, which must not be zero.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.0.random_range(0..len)
    }

    /// A fresh number that is practically unique.
    pub(crate) fn unique(&mut self) -> u64 {
        self.0.random()
    }
}
