//! What the database witness saw. All times count from its start.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use soloist_demo::monitor::Window;

/// A watch of many hours stays within memory; what comes later is counted, not kept.
const MAX_INTERVALS: usize = 100_000;
/// A longer time without an answer is kept as a time of blindness.
const BLIND_AFTER: Duration = Duration::from_millis(500);
/// Sessions of an agent itself: it looks at the database also while its app is stopped.
const AGENT_PREFIX: &str = "soloist-agent-";
/// Sessions of an app under an agent.
const APP_PREFIX: &str = "soloist-";

/// The sessions of one application name, from the first look that saw one to the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sessions {
    /// The `application_name`; empty when the client gave none.
    pub application: String,
    /// The first look that saw a session.
    pub start: Duration,
    /// The last look that saw one.
    pub end: Duration,
    /// The most sessions at one look.
    pub peak: usize,
}

impl Sessions {
    /// The node whose app this is, after the naming `soloist-NODE`. `None` for an agent's own session and for anybody else.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        if self.application.starts_with(AGENT_PREFIX) {
            return None;
        }
        self.application.strip_prefix(APP_PREFIX)
    }

    /// Whether this is neither an app nor an agent of the fleet.
    #[must_use]
    pub fn is_stranger(&self) -> bool {
        !self.application.starts_with(APP_PREFIX)
    }

    fn touches(&self, window: Window) -> bool {
        self.start <= window.to && self.end >= window.from
    }
}

/// Everything that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sightings {
    /// The instant from which all times count.
    pub epoch: Instant,
    /// How long the watch lasted.
    pub duration: Duration,
    /// By the time they were first seen.
    pub sessions: Vec<Sessions>,
    /// Times without an answer, longer than half a second: nothing is known of them.
    pub blind: Vec<Window>,
    /// How many times it looked.
    pub samples: u64,
    /// The longest time from one answer to the next.
    pub longest_gap: Duration,
    /// Intervals that found no room. Sightings with any prove nothing.
    pub dropped: u64,
}

impl Sightings {
    /// The nodes that had a session in the window.
    #[must_use]
    pub fn nodes(&self, window: Window) -> BTreeSet<&str> {
        self.sessions.iter().filter(|sessions| sessions.touches(window)).filter_map(Sessions::node).collect()
    }

    /// Sessions of neither an app nor an agent of the fleet in the window.
    #[must_use]
    pub fn strangers(&self, window: Window) -> Vec<&Sessions> {
        self.sessions.iter().filter(|sessions| sessions.touches(window) && sessions.is_stranger()).collect()
    }

    /// Whether nothing is known about some part of the window.
    #[must_use]
    pub fn is_blind_in(&self, window: Window) -> bool {
        self.blind.iter().any(|blind| blind.from < window.to && blind.to > window.from)
    }
}

/// Collects looks into intervals.
#[derive(Debug, Default)]
pub(super) struct Watch {
    open: BTreeMap<String, Sessions>,
    closed: Vec<Sessions>,
    blind: Vec<Window>,
    samples: u64,
    last_sample: Duration,
    longest_gap: Duration,
    dropped: u64,
}

impl Watch {
    pub(super) fn sample(&mut self, at: Duration, seen: &BTreeMap<String, usize>) {
        self.samples += 1;
        let gap = Window { from: self.last_sample, to: at };
        self.longest_gap = self.longest_gap.max(at.saturating_sub(gap.from));
        if at.saturating_sub(gap.from) > BLIND_AFTER && self.blind.len() < MAX_INTERVALS {
            self.blind.push(gap);
        }
        self.last_sample = at;
        let gone: Vec<String> = self.open.keys().filter(|name| !seen.contains_key(*name)).cloned().collect();
        self.closed.extend(gone.iter().filter_map(|name| self.open.remove(name)));
        for (application, count) in seen {
            if let Some(sessions) = self.open.get_mut(application) {
                sessions.end = at;
                sessions.peak = sessions.peak.max(*count);
            } else if self.open.len() + self.closed.len() < MAX_INTERVALS {
                let sessions =
                    Sessions { application: application.clone(), start: at, end: at, peak: *count };
                self.open.insert(application.clone(), sessions);
            } else {
                self.dropped += 1;
            }
        }
    }

    pub(super) fn sightings(&self, epoch: Instant, now: Duration) -> Sightings {
        let mut sessions: Vec<Sessions> = self.closed.iter().chain(self.open.values()).cloned().collect();
        sessions.sort_by(|a, b| (a.start, &a.application).cmp(&(b.start, &b.application)));
        let mut blind = self.blind.clone();
        let unseen = now.saturating_sub(self.last_sample);
        if unseen > BLIND_AFTER {
            blind.push(Window { from: self.last_sample, to: now });
        }
        Sightings {
            epoch,
            duration: now,
            sessions,
            blind,
            samples: self.samples,
            longest_gap: self.longest_gap.max(unseen),
            dropped: self.dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn looks_become_intervals_and_silence_becomes_blindness() {
        let both = BTreeMap::from([("soloist-node-1".to_owned(), 3), ("soloist-agent-node-1".to_owned(), 1)]);
        let one = BTreeMap::from([("soloist-node-1".to_owned(), 5), ("psql".to_owned(), 1)]);
        let mut watch = Watch::default();
        watch.sample(ms(20), &both);
        watch.sample(ms(40), &one);
        watch.sample(ms(2000), &one);
        let seen = watch.sightings(Instant::now(), ms(2010));
        assert_eq!(seen.sessions.len(), 3);
        let whole = Window { from: ms(0), to: ms(2010) };
        assert_eq!(seen.nodes(whole), BTreeSet::from(["node-1"]));
        assert_eq!(
            seen.strangers(whole).iter().map(|s| s.application.as_str()).collect::<Vec<_>>(),
            ["psql"]
        );
        assert_eq!(seen.strangers(Window { from: ms(0), to: ms(30) }).len(), 0);
        assert_eq!(seen.blind, [Window { from: ms(40), to: ms(2000) }]);
        assert!(seen.is_blind_in(Window { from: ms(100), to: ms(101) }));
        assert!(!seen.is_blind_in(Window { from: ms(0), to: ms(40) }));
        let app = seen.sessions.iter().find(|s| s.node().is_some()).unwrap();
        assert_eq!((app.start, app.end, app.peak), (ms(20), ms(2000), 5));
    }
}
