//! Members: each applies the one log at its own pace; one of them leads.

use std::collections::BTreeMap;

use soloist_core::State;
use soloist_core::due::Contact;
use soloist_core::ids::{Incarnation, NodeId};
use soloist_core::time::{LeaderClock, Millis};

/// One coordinator member.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) up: bool,
    /// Ticks nothing until then.
    pub(crate) stalled_until: u64,
    pub(crate) state: State,
    /// How many entries of the log it has applied.
    pub(crate) applied: usize,
    /// How many milliseconds it lags behind the log.
    pub(crate) lag_ms: u64,
    pub(crate) clock: LeaderClock,
    pub(crate) contact: Contact,
    /// Agents that have a session with it: their run, and the log index of its registration once known.
    pub(crate) sessions: BTreeMap<NodeId, (Incarnation, Option<u64>)>,
    /// Its monotonic clock runs at `1000 + drift` per mille of true time.
    pub(crate) drift: i64,
    /// Its wall clock is off by so much, in milliseconds; it jumps.
    pub(crate) wall_off: i64,
    pub(crate) last_served: u64,
}

impl Member {
    pub(crate) fn new(drift: i64, wall_off: i64, lag_ms: u64) -> Self {
        Self {
            up: true,
            stalled_until: 0,
            state: State::default(),
            applied: 0,
            lag_ms,
            clock: LeaderClock::new(),
            contact: Contact::default(),
            sessions: BTreeMap::new(),
            drift,
            wall_off,
            last_served: 0,
        }
    }

    /// Its monotonic clock at true time `now`.
    pub(crate) fn elapsed(&self, now: u64) -> Millis {
        let scaled = i128::from(now) * i128::from(1000 + self.drift) / 1000;
        Millis(u64::try_from(scaled).unwrap_or(0))
    }

    /// Its wall clock at true time `now`.
    pub(crate) fn wall(&self, now: u64) -> u64 {
        let base = 1_700_000_000_000_i64 + i64::try_from(now).unwrap_or(i64::MAX / 2);
        u64::try_from(base + self.wall_off).unwrap_or(0)
    }
}
