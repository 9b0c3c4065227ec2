//! Where every random choice comes from.

use rand::{Rng, SeedableRng, rngs::SmallRng};

/// A seeded source of choices.
#[derive(Debug)]
pub(crate) struct Chance(SmallRng);

impl Chance {
    /// The source of one part of a run, which draws independently of the other parts.
    pub(crate) fn new(seed: u64, part: u64) -> Chance {
        Chance(SmallRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ part))
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high)
    }

    /// True in `permille` of 1000 cases.
    pub(crate) fn permille(&mut self, permille: u64) -> bool {
        self.0.random_range(0..1000) < permille
    }

    /// One of these; `None` if there is none.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.0.random_range(0..of.len())])
    }
}
