//! What the monitor saw, and questions to it. All times count from the start of the monitor.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::scanner::{Key, Tree};

/// A watch of many hours with a crash loop in it stays within memory; what comes later is counted, not kept.
const MAX_INTERVALS: usize = 100_000;
/// The same for marks.
const MAX_MARKS: usize = 10_000;

/// One app process tree, from the first sample that saw it to the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    /// The node, as the labeller named it.
    pub label: String,
    /// The process id of the tree's root.
    pub pid: u32,
    /// The root's start time in clock ticks since boot.
    pub start_ticks: u64,
    /// The root's command line when it was first seen.
    pub command: String,
    /// The first sample that saw it.
    pub start: Duration,
    /// The last sample that saw it.
    pub end: Duration,
    /// Whether a later sample saw it gone; otherwise it still ran when the recording ended.
    pub ended: bool,
}

/// An event that the observer was told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// When.
    pub at: Duration,
    /// What.
    pub text: String,
}

/// A stretch of time, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its beginning.
    pub from: Duration,
    /// Its end.
    pub to: Duration,
}

/// Everything that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The instant from which all times count.
    pub epoch: Instant,
    /// How long the watch lasted.
    pub duration: Duration,
    /// The trees, by the time they were first seen.
    pub intervals: Vec<Interval>,
    /// The marks, in the order they were made.
    pub marks: Vec<Mark>,
    /// How many times it looked.
    pub samples: u64,
    /// The longest time from one look to the next: what lived shorter may have been missed.
    pub longest_gap: Duration,
    /// Trees and marks that found no room. A recording with any proves nothing.
    pub dropped: u64,
}

/// How long one label's trees ran within a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The node.
    pub label: String,
    /// How many trees it had, one after another or at once.
    pub trees: usize,
    /// Their time within the window, added up.
    pub time: Duration,
}

/// What ran within a window, as a sentence: `while the lock was held: 1 app process, node-1, 12.4 s`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What the window was.
    pub title: String,
    /// The largest number of trees at one moment.
    pub max_concurrent: usize,
    /// Who ran, in the order of first appearance.
    pub shares: Vec<Share>,
}

/// Collects samples into intervals.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    open: BTreeMap<Key, Interval>,
    closed: Vec<Interval>,
    marks: Vec<Mark>,
    samples: u64,
    last_sample: Duration,
    longest_gap: Duration,
    dropped: u64,
}

impl Recorder {
    pub(super) fn sample(&mut self, at: Duration, trees: &BTreeMap<Key, Tree>) {
        self.samples += 1;
        self.longest_gap = self.longest_gap.max(at.saturating_sub(self.last_sample));
        self.last_sample = at;
        let gone: Vec<Key> = self.open.keys().filter(|key| !trees.contains_key(key)).copied().collect();
        for interval in gone.iter().filter_map(|key| self.open.remove(key)) {
            self.closed.push(Interval { ended: true, ..interval });
        }
        for (key, tree) in trees {
            if let Some(interval) = self.open.get_mut(key) {
                interval.end = at;
            } else if self.open.len() + self.closed.len() < MAX_INTERVALS {
                self.open.insert(*key, first_seen(*key, tree, at));
            } else {
                self.dropped += 1;
            }
        }
    }

    pub(super) fn mark(&mut self, at: Duration, text: String) {
        if self.marks.len() < MAX_MARKS {
            self.marks.push(Mark { at, text });
        } else {
            self.dropped += 1;
        }
    }

    pub(super) fn recording(&self, epoch: Instant, now: Duration) -> Recording {
        let mut intervals: Vec<Interval> = self.closed.iter().chain(self.open.values()).cloned().collect();
        intervals.sort_by_key(|interval| (interval.start, interval.pid));
        Recording {
            epoch,
            duration: now,
            intervals,
            marks: self.marks.clone(),
            samples: self.samples,
            longest_gap: self.longest_gap.max(now.saturating_sub(self.last_sample)),
            dropped: self.dropped,
        }
    }
}

fn first_seen(key: Key, tree: &Tree, at: Duration) -> Interval {
    Interval {
        label: tree.label.clone(),
        pid: key.pid,
        start_ticks: key.start_ticks,
        command: tree.command.clone(),
        start: at,
        end: at,
        ended: false,
    }
}

impl Recording {
    /// The whole watch.
    #[must_use]
    pub fn whole(&self) -> Window {
        Window { from: Duration::ZERO, to: self.duration }
    }

    /// The same recording with only those trees for which `keep` says so: on a machine where other fleets run too. What is left out is
    /// no longer evidence of anything.
    #[must_use]
    pub fn only(&self, keep: impl Fn(&Interval) -> bool) -> Self {
        let intervals = self.intervals.iter().filter(|interval| keep(interval)).cloned().collect();
        Self { intervals, ..self.clone() }
    }

    /// From the first mark that reads `from` to the next after it that reads `to`.
    #[must_use]
    pub fn between(&self, from: &str, to: &str) -> Option<Window> {
        let first = self.marks.iter().position(|mark| mark.text == from)?;
        let (start, later) = self.marks.get(first..)?.split_first()?;
        let end = later.iter().find(|mark| mark.text == to)?;
        Some(Window { from: start.at, to: end.at })
    }

    /// The largest number of trees at one moment of the window.
    #[must_use]
    pub fn max_concurrent(&self, window: Window) -> usize {
        self.max_concurrent_widened(window, Duration::ZERO)
    }

    /// The same with every interval taken longer by `slack` on both sides: the worst that the unseen time between two samples could
    /// hide. [`Recording::longest_gap`] is the slack that leaves no doubt.
    #[must_use]
    pub fn max_concurrent_widened(&self, window: Window, slack: Duration) -> usize {
        max_concurrent(self.intervals.iter().map(|i| (i.start.saturating_sub(slack), i.end + slack)), window)
    }

    /// The labels that had a tree in the window, sorted.
    #[must_use]
    pub fn labels(&self, window: Window) -> Vec<&str> {
        let mut labels: Vec<&str> = self.within(window).map(|interval| interval.label.as_str()).collect();
        labels.sort_unstable();
        labels.dedup();
        labels
    }

    /// The intervals that touch the window.
    pub fn within(&self, window: Window) -> impl Iterator<Item = &Interval> {
        self.intervals.iter().filter(move |i| i.start <= window.to && i.end >= window.from)
    }

    /// Says what ran within a window.
    #[must_use]
    pub fn verdict(&self, title: impl Into<String>, window: Window) -> Verdict {
        let mut shares: Vec<Share> = Vec::new();
        for interval in self.within(window) {
            let time = interval.end.min(window.to).saturating_sub(interval.start.max(window.from));
            match shares.iter_mut().find(|share| share.label == interval.label) {
                Some(share) => {
                    share.trees += 1;
                    share.time += time;
                }
                None => shares.push(Share { label: interval.label.clone(), trees: 1, time }),
            }
        }
        Verdict { title: title.into(), max_concurrent: self.max_concurrent(window), shares }
    }

    /// How closely it was looked: `1234 samples, the longest gap 27 ms`.
    #[must_use]
    pub fn resolution(&self) -> String {
        let mut text =
            format!("{} samples, the longest gap {} ms", self.samples, self.longest_gap.as_millis());
        if self.dropped > 0 {
            text.push_str(&format!(", INCOMPLETE: {} entries found no room", self.dropped));
        }
        text
    }
}

/// Counts the overlap of closed intervals within a closed window.
pub(super) fn max_concurrent(intervals: impl Iterator<Item = (Duration, Duration)>, window: Window) -> usize {
    // At one and the same instant, starts (0) come before ends (1).
    let mut edges: Vec<(Duration, u8)> = intervals
        .filter(|(start, end)| *start <= window.to && *end >= window.from)
        .flat_map(|(start, end)| [(start.max(window.from), 0), (end.min(window.to), 1)])
        .collect();
    edges.sort_unstable();
    let (mut now, mut most) = (0_usize, 0);
    for (_, edge) in edges {
        if edge == 0 {
            now += 1;
            most = most.max(now);
        } else {
            now = now.saturating_sub(1);
        }
    }
    most
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trees: usize = self.shares.iter().map(|share| share.trees).sum();
        write!(f, "{}: ", self.title)?;
        match (self.max_concurrent, trees) {
            (0, _) => return f.write_str("no app process"),
            (1, 1) => f.write_str("1 app process")?,
            (1, _) => write!(f, "never more than 1 app process, {trees} one after another")?,
            (most, _) => write!(f, "{most} app processes at once")?,
        }
        for share in &self.shares {
            write!(f, ", {}", share.label)?;
            if share.trees > 1 {
                write!(f, " ({} times)", share.trees)?;
            }
            write!(f, ", {:.1} s", share.time.as_secs_f64())?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::monitor) fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A recording made by hand: (label, first seen, last seen) in milliseconds.
    pub(in crate::monitor) fn recording(
        intervals: &[(&str, u64, u64)],
        marks: &[(u64, &str)],
        end: u64,
    ) -> Recording {
        let interval = |(pid, (label, start, end)): (usize, &(&str, u64, u64))| Interval {
            label: (*label).to_owned(),
            pid: 100 + u32::try_from(pid).unwrap(),
            start_ticks: *start,
            command: "app".to_owned(),
            start: ms(*start),
            end: ms(*end),
            ended: true,
        };
        Recording {
            epoch: Instant::now(),
            duration: ms(end),
            intervals: intervals.iter().enumerate().map(interval).collect(),
            marks: marks.iter().map(|(at, text)| Mark { at: ms(*at), text: (*text).to_owned() }).collect(),
            samples: end / 20,
            longest_gap: ms(20),
            dropped: 0,
        }
    }

    #[test]
    fn overlap_is_counted_within_the_window_only() {
        let seen = recording(&[("a", 0, 1000), ("b", 500, 2000), ("a", 1500, 3000)], &[], 3000);
        let most = |from, to| seen.max_concurrent(Window { from: ms(from), to: ms(to) });
        assert_eq!(most(0, 3000), 2);
        assert_eq!(most(0, 499), 1);
        assert_eq!(most(1001, 1499), 1);
        assert_eq!(most(2001, 3000), 1);
        assert_eq!(most(3001, 4000), 0);
        assert_eq!(seen.labels(Window { from: ms(2001), to: ms(3000) }), ["a"]);
        assert_eq!(seen.only(|interval| interval.label == "a").max_concurrent(seen.whole()), 1);
    }

    #[test]
    fn two_that_follow_each_other_overlap_only_with_slack() {
        let seen = recording(&[("a", 0, 1000), ("b", 1020, 2000)], &[], 2000);
        assert_eq!(seen.max_concurrent(seen.whole()), 1);
        assert_eq!(seen.max_concurrent_widened(seen.whole(), ms(20)), 2);
        let same_sample = recording(&[("a", 0, 1000), ("b", 1000, 2000)], &[], 2000);
        assert_eq!(same_sample.max_concurrent(same_sample.whole()), 2);
    }

    #[test]
    fn verdicts_read_as_sentences() {
        let marks = [(100, "granted"), (12_500, "released"), (13_000, "granted")];
        let seen = recording(&[("node-1", 0, 14_000), ("node-2", 12_900, 14_000)], &marks, 14_000);
        let held = seen.between("granted", "released").unwrap();
        let verdict = seen.verdict("while the lock was held", held);
        assert_eq!(verdict.to_string(), "while the lock was held: 1 app process, node-1, 12.4 s");
        assert_eq!(
            seen.verdict("afterwards", Window { from: held.to, to: ms(14_000) }).to_string(),
            "afterwards: 2 app processes at once, node-1, 1.5 s, node-2, 1.1 s"
        );
        assert_eq!(seen.between("released", "never"), None);
        let none = recording(&[], &[], 100);
        assert_eq!(none.verdict("all the time", none.whole()).to_string(), "all the time: no app process");
    }

    #[test]
    fn samples_become_intervals_and_gaps() {
        let mut recorder = Recorder::default();
        let key = Key { pid: 1, start_ticks: 9 };
        let tree = Tree { label: "n".to_owned(), command: "c".to_owned() };
        let trees = BTreeMap::from([(key, tree)]);
        recorder.sample(ms(0), &BTreeMap::new());
        recorder.sample(ms(20), &trees);
        recorder.sample(ms(90), &trees);
        recorder.sample(ms(110), &BTreeMap::new());
        let seen = recorder.recording(Instant::now(), ms(120));
        assert_eq!((seen.samples, seen.longest_gap), (4, ms(70)));
        assert_eq!(
            (seen.intervals[0].start, seen.intervals[0].end, seen.intervals[0].ended),
            (ms(20), ms(90), true)
        );
        assert_eq!(seen.resolution(), "4 samples, the longest gap 70 ms");
    }
}
