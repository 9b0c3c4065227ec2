//! Whether the app still has loaded what it should.

use std::time::Duration;

use soloist_core::agent::Health as CoreHealth;
use soloist_core::assignment::{OUTPUT_TEXT_MAX, STALE_MAX};
use tokio::time::Instant;

use crate::profile::{Difference, Drift, Versions};

use super::Agent;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(10);
/// How soon again when something is different: a node that is just reloading its plugins is not stale.
const AGAIN: Duration = Duration::from_secs(2);

/// What is known of the running process.
#[derive(Debug, Default)]
pub(super) struct Staleness {
    /// Versions on the disk when the process was young.
    versions: Option<Versions>,
    /// What the last look found; it counts when the next one finds the same.
    last: Vec<Difference>,
    /// What counts.
    stale: Vec<Difference>,
    looked: Option<Instant>,
    looking: bool,
}

impl Staleness {
    /// What counts, for people, and no more of it than is reported.
    pub(super) fn stale(&self) -> Vec<String> {
        let clip = |found: &Difference| found.text.chars().take(OUTPUT_TEXT_MAX).collect::<String>();
        let all = self.stale.len();
        if all <= STALE_MAX {
            return self.stale.iter().map(clip).collect();
        }
        let named = self.stale.iter().take(STALE_MAX - 1).map(clip);
        named.chain([format!("and {} more", all - STALE_MAX + 1)]).collect()
    }

    fn take(&mut self, drift: Drift) {
        if drift.differences == self.last {
            self.stale.clone_from(&drift.differences);
        }
        self.last = drift.differences;
        self.versions.get_or_insert(drift.versions);
    }
}

impl Agent {
    /// Another process has loaded something else.
    pub(super) fn forget_staleness(&mut self) {
        self.staleness = Staleness { looking: self.staleness.looking, ..Staleness::default() };
    }

    /// Compares from time to time, while nothing else is done with the app.
    pub(super) fn look_for_staleness(&mut self) {
        let known = &self.staleness;
        let pause = if known.last == known.stale { EVERY } else { AGAIN };
        let due = known.looked.is_none_or(|at| at.elapsed() >= pause);
        let calm = self.health == CoreHealth::Serving && self.busy.is_none() && !self.stopping;
        if due && calm && !known.looking {
            self.staleness.looking = true;
            self.parts.jobs.compare(self.staleness.versions.clone(), self.serving_since);
        }
    }

    /// `since` says which process the answer is about.
    pub(super) fn compared(&mut self, since: Option<Instant>, drift: Option<Drift>) {
        self.staleness.looking = false;
        self.staleness.looked = Some(Instant::now());
        if let Some(drift) = drift.filter(|_| since == self.serving_since && self.busy.is_none()) {
            self.staleness.take(drift);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drift(what: &[String]) -> Drift {
        let differs = |text: &String| Difference { package: text.clone(), text: text.clone() };
        Drift { differences: what.iter().map(differs).collect(), versions: Versions::new() }
    }

    #[test]
    fn what_is_found_twice_counts() {
        let drift = |what: &[&str]| drift(&what.iter().copied().map(str::to_owned).collect::<Vec<_>>());
        let mut staleness = Staleness::default();
        staleness.take(drift(&["a"]));
        assert!(staleness.stale().is_empty());
        staleness.take(drift(&["a", "b"]));
        assert!(staleness.stale().is_empty());
        staleness.take(drift(&["a", "b"]));
        assert_eq!(staleness.stale(), ["a", "b"]);
        staleness.take(drift(&[]));
        assert_eq!(staleness.stale(), ["a", "b"]);
        staleness.take(drift(&[]));
        assert!(staleness.stale().is_empty());
    }

    #[test]
    fn only_so_much_is_told() {
        let told = |names: &[String]| {
            let mut staleness = Staleness::default();
            staleness.take(drift(names));
            staleness.take(drift(names));
            staleness.stale()
        };
        let names: Vec<String> = (10..30).map(|at| format!("@a/{at}")).collect();
        assert_eq!(told(&names[..STALE_MAX]), names[..STALE_MAX]);
        let many = told(&names);
        assert_eq!((many.len(), many[STALE_MAX - 1].as_str()), (STALE_MAX, "and 13 more"));
        assert_eq!(told(&["x".repeat(OUTPUT_TEXT_MAX + 1)]), ["x".repeat(OUTPUT_TEXT_MAX)]);
    }
}
