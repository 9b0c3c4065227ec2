//! Whether the two witnesses tell the same story.
//!
//! A node has sessions in the database only while a process tree of it runs, and a tree that runs for long enough has sessions. Where
//! the database did not answer, neither is asked.

use std::fmt;
use std::time::{Duration, Instant};

use soloist_demo::monitor::Recording;

use super::Sightings;

/// How far the two may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    /// A tree may run for so long before it has its first session (the app loads its code first: 5 s, and 46 s have been seen where two fleets of
    /// three nodes start on two processors), and for so long after its last one (it closes the database, then exits).
    pub without_sessions: Duration,
    /// Sessions may be seen for so long before the first and after the last sight of the tree: the two do not look at
    /// the same moment, and PostgreSQL takes a moment to notice that a client is gone.
    pub linger: Duration,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { without_sessions: Duration::from_secs(120), linger: Duration::from_secs(1) }
    }
}

/// One thing that only one of the witnesses saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disagreement {
    /// A node had sessions while no process tree of it was seen.
    SessionsWithoutTree {
        /// The node.
        node: String,
        /// When the uncovered time began, since the start of the recording.
        from: Duration,
        /// How long it was.
        length: Duration,
    },
    /// A tree ran for long and its node had no session.
    TreeWithoutSessions {
        /// The node.
        node: String,
        /// When the uncovered time began, since the start of the recording.
        from: Duration,
        /// How long it was.
        length: Duration,
    },
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (node, from, length, text) = match self {
            Self::SessionsWithoutTree { node, from, length } => {
                (node, from, length, "had database sessions and no app process")
            }
            Self::TreeWithoutSessions { node, from, length } => {
                (node, from, length, "had an app process and no database session")
            }
        };
        write!(f, "{node} {text} from {:.1} s on, for {:.1} s", from.as_secs_f64(), length.as_secs_f64())
    }
}

/// A stretch of real time.
type Stretch = (Instant, Instant);

/// Everything on which the witnesses differ by more than the tolerance. The recording's labels must be the names of the nodes;
/// trees of other fleets on the same machine are left out beforehand ([`Recording::only`]).
#[must_use]
pub fn disagreements(
    recording: &Recording,
    sightings: &Sightings,
    tolerance: Tolerance,
) -> Vec<Disagreement> {
    let blind: Vec<Stretch> = sightings
        .blind
        .iter()
        .map(|window| (sightings.epoch + window.from, sightings.epoch + window.to))
        .collect();
    let mut found = Vec::new();
    for sessions in &sightings.sessions {
        let Some(node) = sessions.node() else { continue };
        let mut covers = blind.clone();
        for tree in recording.intervals.iter().filter(|tree| tree.label == node) {
            covers.push(widened(recording.epoch, tree.start, tree.end, tolerance.linger));
        }
        let seen = (sightings.epoch + sessions.start, sightings.epoch + sessions.end);
        for (from, length) in uncovered(seen, covers, Duration::ZERO) {
            let from = from.saturating_duration_since(recording.epoch);
            found.push(Disagreement::SessionsWithoutTree { node: node.to_owned(), from, length });
        }
    }
    for tree in &recording.intervals {
        let mut covers = blind.clone();
        for sessions in sightings.sessions.iter().filter(|sessions| sessions.node() == Some(&tree.label)) {
            covers.push(widened(sightings.epoch, sessions.start, sessions.end, Duration::ZERO));
        }
        let seen = (recording.epoch + tree.start, recording.epoch + tree.end);
        for (from, length) in uncovered(seen, covers, tolerance.without_sessions) {
            let from = from.saturating_duration_since(recording.epoch);
            found.push(Disagreement::TreeWithoutSessions { node: tree.label.clone(), from, length });
        }
    }
    found
}

fn widened(epoch: Instant, start: Duration, end: Duration, by: Duration) -> Stretch {
    (epoch + start.saturating_sub(by), epoch + end + by)
}

/// The parts of `seen` that no stretch of `covers` covers and that are longer than `allowed`.
fn uncovered(seen: Stretch, mut covers: Vec<Stretch>, allowed: Duration) -> Vec<(Instant, Duration)> {
    covers.sort_unstable();
    let mut found = Vec::new();
    let mut covered_to = seen.0;
    for (from, to) in covers.into_iter().chain([(seen.1, seen.1)]) {
        let from = from.min(seen.1);
        let missing = from.saturating_duration_since(covered_to);
        if missing > allowed {
            found.push((covered_to, missing));
        }
        covered_to = covered_to.max(to);
    }
    found
}

#[cfg(test)]
mod tests {
    use soloist_demo::monitor::{Interval, Window};

    use super::super::Sessions;
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The database witness started half a second after the monitor: its times are smaller by 500 ms.
    fn told(trees: &[(&str, u64, u64)], sessions: &[(&str, u64, u64)], blind: &[(u64, u64)]) -> Vec<String> {
        let epoch = Instant::now();
        let tree = |(label, start, end): &(&str, u64, u64)| Interval {
            label: (*label).to_owned(),
            pid: 1,
            start_ticks: *start,
            command: "app".to_owned(),
            start: ms(*start),
            end: ms(*end),
            ended: true,
        };
        let recording = Recording {
            epoch,
            duration: ms(100_000),
            intervals: trees.iter().map(tree).collect(),
            marks: Vec::new(),
            samples: 1,
            longest_gap: ms(20),
            dropped: 0,
        };
        let seen = |(name, start, end): &(&str, u64, u64)| Sessions {
            application: (*name).to_owned(),
            start: ms(*start - 500),
            end: ms(*end - 500),
            peak: 1,
        };
        let sightings = Sightings {
            epoch: epoch + ms(500),
            duration: ms(99_500),
            sessions: sessions.iter().map(seen).collect(),
            blind: blind
                .iter()
                .map(|(from, to)| Window { from: ms(*from - 500), to: ms(*to - 500) })
                .collect(),
            samples: 1,
            longest_gap: ms(20),
            dropped: 0,
        };
        let tolerance = Tolerance { without_sessions: ms(8000), linger: ms(300) };
        disagreements(&recording, &sightings, tolerance).iter().map(ToString::to_string).collect()
    }

    const NONE: [String; 0] = [];

    #[test]
    fn a_normal_life_is_no_disagreement() {
        let trees = [("node-1", 1000, 30_000), ("node-1", 31_000, 60_000), ("node-2", 30_500, 50_000)];
        let sessions = [
            ("soloist-node-1", 6000, 30_200),
            ("soloist-node-1", 36_000, 59_900),
            ("soloist-node-2", 37_000, 50_000),
            ("soloist-agent-node-3", 1000, 90_000),
            ("psql", 1000, 2000),
        ];
        assert_eq!(told(&trees, &sessions, &[]), NONE);
    }

    #[test]
    fn sessions_outside_a_tree_are_told() {
        let found = told(&[("node-1", 1000, 10_000)], &[("soloist-node-1", 2000, 14_000)], &[]);
        assert_eq!(found, ["node-1 had database sessions and no app process from 10.3 s on, for 3.7 s"]);
        let found = told(&[], &[("soloist-node-9", 2000, 3000)], &[]);
        assert_eq!(found, ["node-9 had database sessions and no app process from 2.0 s on, for 1.0 s"]);
    }

    #[test]
    fn a_long_silent_tree_is_told_unless_the_database_was() {
        let tree = [("node-1", 1000, 30_000)];
        let found = told(&tree, &[("soloist-node-1", 2000, 5000)], &[]);
        assert_eq!(found, ["node-1 had an app process and no database session from 5.0 s on, for 25.0 s"]);
        assert_eq!(told(&tree, &[("soloist-node-1", 2000, 5000)], &[(5500, 25_000)]), NONE);
        assert_eq!(told(&[("node-1", 1000, 8000)], &[], &[]), NONE, "it was stopped before it got that far");
    }
}
