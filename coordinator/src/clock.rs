//! The only file that reads time.
//!
//! Decisions are made by the elapsed time that the log moves (see `soloist_core::time`); this clock only feeds it on the
//! leader, and measures how long something was not heard.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use soloist_core::time::Millis;

/// This process's clock. Clones show the same time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// How long it has been running. Never goes back, and does not follow the wall clock.
    pub(crate) fn elapsed(&self) -> Millis {
        Millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Whether `at`, an earlier [`Clock::elapsed`], is no longer ago than `length`.
    pub(crate) fn within(&self, at: Millis, length: Duration) -> bool {
        u128::from(self.elapsed().0.saturating_sub(at.0)) <= length.as_millis()
    }

    /// The wall clock in milliseconds since 1970, for people; 0 before that.
    pub(crate) fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
