//! Time as the state knows it: milliseconds of an elapsed-time clock that only log entries move.

use std::fmt;
use std::ops::Add;

use serde::{Deserialize, Serialize};

use crate::rule::Rule;

/// A length of time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// A length given in seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1000)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            write!(f, "{} s", self.0 / 1000)
        } else {
            write!(f, "{} ms", self.0)
        }
    }
}

/// A point of the state's own time. It never goes back, and it stands still while there is no leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Time) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Millis> for Time {
    type Output = Time;
    fn add(self, length: Millis) -> Time {
        Time(self.0.saturating_add(length.0))
    }
}

/// The longest pause between two ticks of a leader that does not count as a gap.
pub const TICK_GAP: Millis = Millis::from_secs(2);

/// How a leader stamps entries.
///
/// It starts where the state stood when the leader's own `Promote` was applied and goes on by that member's monotonic
/// clock: no wall clock can move it, and the time in which nobody led is not in it. After a gap in its own ticking (a
/// stalled disk, a stopped process) the leader proposes `Promote` anew, so that what nobody could renew is not expired.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaderClock {
    promoted: Option<(Time, Millis)>,
    last_tick: Millis,
}

impl LeaderClock {
    /// A clock that stamps nothing until it is promoted.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that this member's `Promote` was applied: `now` is the state's time, `elapsed` the member's monotonic clock.
    pub fn promoted(&mut self, now: Time, elapsed: Millis) {
        self.promoted = Some((now, elapsed));
        self.last_tick = elapsed;
    }

    /// Forgets the promotion: this member no longer leads.
    pub fn demoted(&mut self) {
        self.promoted = None;
    }

    /// The time to stamp an entry with; `None` until promoted, and after a gap until promoted again.
    pub fn stamp(&self, elapsed: Millis, wall_ms: u64) -> Option<Time> {
        let (base, at) = self.promoted?;
        if !Rule::ElapsedTime.holds() {
            return Some(Time(wall_ms));
        }
        Some(base + Millis(elapsed.0.saturating_sub(at.0)))
    }

    /// Called at every tick: whether this member must propose `Promote` before it may expire anything.
    pub fn tick(&mut self, elapsed: Millis) -> bool {
        if Rule::ElapsedTime.holds() && elapsed.0.saturating_sub(self.last_tick.0) > TICK_GAP.0 {
            self.promoted = None;
        }
        self.last_tick = elapsed;
        self.promoted.is_none()
    }
}
