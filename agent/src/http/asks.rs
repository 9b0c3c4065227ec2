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
    /// Since when whoever asks is told to send nobody, as `last`; 0 while users may come.
    away_since: AtomicU64,
}

impl Default for Asks {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            last: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            away_since: AtomicU64::new(0),
        }
    }
}

impl Asks {
    /// Somebody asks, and is told to send nobody here if `away`.
    pub(super) fn note(&self, away: bool) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let now = now.saturating_add(1);
        self.last.store(now, Ordering::Relaxed);
        if away {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
            // The first time counts; whoever comes second at the same moment changes nothing.
            let _ = self.away_since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        } else {
            self.away_since.store(0, Ordering::Relaxed);
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
        self.ago(&self.last)
    }

    /// How long whoever asks has been told to send nobody here; `None` while users may come, or nobody has asked since.
    #[must_use]
    pub fn away_for(&self) -> Option<Duration> {
        self.ago(&self.away_since)
    }

    fn ago(&self, at: &AtomicU64) -> Option<Duration> {
        let at = at.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.began.elapsed().saturating_sub(Duration::from_millis(at)))
    }
}
