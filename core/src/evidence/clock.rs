//! How far an agent's clock and the coordinators' may be apart.
//!
//! ```text
//!   agent      b1 ──ping──►                    ──pong── b2        (time since its boot)
//!   member            w: the leader's wall clock, between lo and hi
//!
//!   leader's clock less time since boot:   between lo - b2 and hi - b1
//! ```
//!
//! All readings of a stretch of time together give a hull; what was between two readings is taken to lie in it. A change of the
//! leader, or of a clock, makes the hull wider, and so the bound that is told.

use serde::{Deserialize, Serialize};

/// The leader's wall clock less the agent's time since boot is between these, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// At least.
    pub lo_ms: i64,
    /// At most.
    pub hi_ms: i64,
}

impl Reading {
    /// From one round trip: when the agent sent and received, since boot, and between what the leader's wall clock was.
    #[must_use]
    pub fn new(sent_ms: u64, received_ms: u64, lo_wall_ms: u64, hi_wall_ms: u64) -> Reading {
        Reading { lo_ms: less(lo_wall_ms, received_ms), hi_ms: less(hi_wall_ms, sent_ms) }
    }

    /// Both together.
    #[must_use]
    pub fn or(self, other: Reading) -> Reading {
        Reading { lo_ms: self.lo_ms.min(other.lo_ms), hi_ms: self.hi_ms.max(other.hi_ms) }
    }
}

fn less(a: u64, b: u64) -> i64 {
    signed(a).saturating_sub(signed(b))
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// All readings of a stretch of time; without any, nothing can be said about its moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hull(Option<Reading>);

impl Hull {
    /// Takes another reading in.
    pub fn add(&mut self, reading: Reading) {
        self.0 = Some(self.0.map_or(reading, |hull| hull.or(reading)));
    }

    /// Half of its width, rounded up, in milliseconds: a moment is known to within this, either way.
    #[must_use]
    pub fn bound_ms(self) -> Option<u64> {
        let width = self.0.map(|hull| hull.hi_ms.saturating_sub(hull.lo_ms).max(0))?;
        u64::try_from(width).ok().map(|width| width.div_ceil(2))
    }

    /// The earliest time by the coordinators' clock that a moment of the agent may have been at.
    pub(super) fn earliest(self, boot_ms: u64) -> Option<u64> {
        self.0.map(|hull| moved(boot_ms, hull.lo_ms))
    }

    /// The latest.
    pub(super) fn latest(self, boot_ms: u64) -> Option<u64> {
        self.0.map(|hull| moved(boot_ms, hull.hi_ms))
    }

    /// Whether a moment was certainly before a time of the coordinators.
    pub(super) fn before(self, boot_ms: u64, wall_ms: u64) -> bool {
        self.latest(boot_ms).is_some_and(|latest| latest < wall_ms)
    }

    /// Whether it was certainly after.
    pub(super) fn after(self, boot_ms: u64, wall_ms: u64) -> bool {
        self.earliest(boot_ms).is_some_and(|earliest| earliest > wall_ms)
    }
}

fn moved(boot_ms: u64, by: i64) -> u64 {
    u64::try_from(signed(boot_ms).saturating_add(by)).unwrap_or(0)
}
