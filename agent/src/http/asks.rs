//! Who asks `/ready`: whoever does decides where users are sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is known of those who ask.
#[derive(Debug)]
pub struct Asks {
    began: Instant,
    /// Milliseconds after that, and one more; 0 for never.
    last: AtomicU64,
    turned_away: AtomicU64,
}

impl Default for Asks {
    fn default() -> Self {
        Self { began: Instant::now(), last: AtomicU64::new(0), turned_away: AtomicU64::new(0) }
    }
}

impl Asks {
    /// Somebody asks, and is told to send nobody here if `away`.
    pub(super) fn note(&self, away: bool) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now.saturating_add(1), Ordering::Relaxed);
        if away {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often somebody was told to send nobody here.
    #[must_use]
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// How long ago somebody asked; `None` if nobody ever has.
    #[must_use]
    pub fn last(&self) -> Option<Duration> {
        let last = self.last.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.began.elapsed().saturating_sub(Duration::from_millis(last)))
    }
}
