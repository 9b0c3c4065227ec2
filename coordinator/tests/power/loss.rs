//! What a power cut takes.

use rand::{Rng, rngs::SmallRng};

/// Sectors in a page of the page cache.
const PAGE_SECTORS: u64 = 8;

/// How much of what was not synced is left, drawn once for each cut. Operations are known by their place in the order of all.
#[derive(Debug, Clone)]
pub(crate) enum Loss {
    /// All of it, as after the death of the process alone.
    Nothing,
    /// None of it.
    Everything,
    /// What came before this operation, and a part of this one: a disk that writes in order.
    From(u64),
    /// Whole operations, in any order, each with this probability.
    Operations(f64),
    /// Pages of 4 KiB, in any order: a write may be torn.
    Pages(f64),
    /// Sectors of 512 bytes, in any order: the worst that an honest disk does.
    Sectors(f64),
}

impl Loss {
    /// Draws one, for a cut after this many operations, of which those from `synced` on may be unsynced.
    pub(crate) fn draw(rng: &mut SmallRng, operations: std::ops::RangeInclusive<u64>) -> Loss {
        let probability = [0.1, 0.5, 0.9][rng.random_range(0..3)];
        match rng.random_range(0..12) {
            0 => Loss::Nothing,
            1 => Loss::Everything,
            2 | 3 => Loss::From(rng.random_range(operations)),
            4 | 5 => Loss::Operations(probability),
            6..=8 => Loss::Pages(probability),
            _ => Loss::Sectors(probability),
        }
    }

    /// Whether a folder's operation is left.
    pub(crate) fn keeps(&self, at: u64, rng: &mut SmallRng) -> bool {
        match self {
            Loss::Nothing => true,
            Loss::Everything => false,
            Loss::From(first) => at < *first,
            Loss::Operations(p) | Loss::Pages(p) | Loss::Sectors(p) => rng.random_bool(*p),
        }
    }

    /// How many of a file's changes have had their effect on its size.
    pub(crate) fn sizes(&self, changes: impl ExactSizeIterator<Item = u64>, rng: &mut SmallRng) -> usize {
        match self {
            Loss::Nothing => changes.len(),
            Loss::Everything => 0,
            Loss::From(first) => changes.take_while(|at| at < first).count(),
            Loss::Operations(_) | Loss::Pages(_) | Loss::Sectors(_) => rng.random_range(0..=changes.len()),
        }
    }

    /// Decides about the sectors of one write.
    pub(crate) fn choice(&self, at: u64) -> Choice<'_> {
        Choice { loss: self, at, last: None }
    }
}

/// What is left of one write, asked for its sectors in their order.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    loss: &'a Loss,
    at: u64,
    /// The last group of sectors that share their fate, and whether they are left.
    last: Option<(u64, bool)>,
}

impl Choice<'_> {
    /// Whether a sector is left.
    pub(crate) fn keeps(&mut self, sector: u64, rng: &mut SmallRng) -> bool {
        let group = match self.loss {
            Loss::Pages(_) => sector / PAGE_SECTORS,
            Loss::Sectors(_) => sector,
            Loss::From(first) if *first == self.at => return self.torn(rng),
            Loss::Nothing | Loss::Everything | Loss::From(_) | Loss::Operations(_) => 0,
        };
        match self.last {
            Some((known, kept)) if known == group => kept,
            _ => {
                let kept = self.loss.keeps(self.at, rng);
                self.last = Some((group, kept));
                kept
            }
        }
    }

    /// The sectors up to some point are left, the others are not.
    fn torn(&mut self, rng: &mut SmallRng) -> bool {
        let kept = self.last.is_none_or(|(_, kept)| kept) && rng.random_bool(0.8);
        self.last = Some((0, kept));
        kept
    }
}
