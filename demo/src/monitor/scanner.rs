//! One look at `/proc` after another, cheap enough for fifty a second.
//!
//! Listing the process ids is cheap, reading a command line of each is not, so what was read is kept per process:
//!
//! | process | looked at again |
//! |---|---|
//! | matches | at every sample: does it still run, is it still the same |
//! | young (first seen less than [`YOUNG_SAMPLES`] samples ago) | at every sample, because a fork is usually followed by an exec |
//! | other | at every [`RECHECK_SAMPLES`]th sample, a part of them each time |
//! | of the kernel | at every [`RECHECK_KERNEL_SAMPLES`]th |

use std::collections::{BTreeMap, HashMap, HashSet};
use std::{fs, io};

use super::matcher::{Labeller, Matcher, Process};
use crate::procfs;

/// For so many samples a new process is read every time.
const YOUNG_SAMPLES: u64 = 25;
/// A process that does not match is read again after so many samples.
pub(super) const RECHECK_SAMPLES: u64 = 8;
/// Kernel threads never become the app; only their ids may be given to other processes.
const RECHECK_KERNEL_SAMPLES: u64 = 64;
/// The parent of all kernel threads.
const KERNEL_PARENT: u32 = 2;
/// Deeper chains of parents are not followed.
const MAX_DEPTH: usize = 64;

/// What names one process within one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) pid: u32,
    pub(super) start_ticks: u64,
}

/// The root of one app process tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) label: String,
    pub(super) command: String,
}

#[derive(Debug)]
struct Known {
    start_ticks: u64,
    first_seen: u64,
    last_seen: u64,
    matches: bool,
    kernel: bool,
}

/// The table of known processes.
pub(super) struct Scanner {
    matcher: Matcher,
    labeller: Labeller,
    known: HashMap<u32, Known>,
    /// Described once, when first seen as a root.
    roots: BTreeMap<Key, Tree>,
    sample: u64,
}

impl Scanner {
    pub(super) fn new(matcher: Matcher, labeller: Labeller) -> Self {
        Self { matcher, labeller, known: HashMap::new(), roots: BTreeMap::new(), sample: 0 }
    }

    /// Looks once, and returns the trees that run now.
    pub(super) fn sample(&mut self) -> io::Result<&BTreeMap<Key, Tree>> {
        self.sample += 1;
        for entry in fs::read_dir("/proc")? {
            if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
                self.look_at(pid);
            }
        }
        let sample = self.sample;
        self.known.retain(|_, known| known.last_seen == sample);
        self.find_roots();
        Ok(&self.roots)
    }

    fn look_at(&mut self, pid: u32) {
        let sample = self.sample;
        if let Some(known) = self.known.get_mut(&pid) {
            let period = if known.kernel { RECHECK_KERNEL_SAMPLES } else { RECHECK_SAMPLES };
            // Spread by process id, so that each sample reads an equal part.
            let due = (u64::from(pid) + sample).is_multiple_of(period);
            let young = !known.kernel && sample - known.first_seen < YOUNG_SAMPLES;
            // One file is enough to see that it still is not the app; that a killed or renewed process id is behind it
            // does not matter until it is.
            if !known.matches && (!(young || due) || !(self.matcher)(&procfs::arguments(pid))) {
                known.last_seen = sample;
                return;
            }
        }
        let Some(stat) = procfs::stat(pid).filter(|stat| !stat.dead) else {
            self.known.remove(&pid);
            return;
        };
        let same = self.known.get(&pid).filter(|known| known.start_ticks == stat.start_ticks);
        let first_seen = same.map_or(sample, |known| known.first_seen);
        let arguments = procfs::arguments(pid);
        let kernel = arguments.is_empty() && stat.parent == KERNEL_PARENT;
        let matches = (self.matcher)(&arguments);
        let known = Known { start_ticks: stat.start_ticks, first_seen, last_seen: sample, matches, kernel };
        self.known.insert(pid, known);
    }

    /// A root matches and has no ancestor that matches.
    fn find_roots(&mut self) {
        let mut keys = HashSet::new();
        for (&pid, known) in self.known.iter().filter(|(_, known)| known.matches) {
            if !self.has_matching_ancestor(pid) {
                keys.insert(Key { pid, start_ticks: known.start_ticks });
            }
        }
        // The table is read from one end to the other while the world goes on: a root that died meanwhile would stand beside its
        // own orphan. Asked after the parents, it can not: whoever lost its parent did so before this.
        keys.retain(|key| procfs::runs(key.pid, key.start_ticks));
        self.roots.retain(|key, _| keys.contains(key));
        for key in keys {
            if !self.roots.contains_key(&key) {
                let tree = self.describe(key.pid);
                self.roots.insert(key, tree);
            }
        }
    }

    /// Parents are read anew: an orphan's parent changes.
    fn has_matching_ancestor(&self, pid: u32) -> bool {
        let mut child = pid;
        for _ in 0..MAX_DEPTH {
            let Some(parent) = procfs::stat(child).map(|stat| stat.parent).filter(|parent| *parent > 1)
            else {
                return false;
            };
            if self.known.get(&parent).is_some_and(|known| known.matches) {
                return true;
            }
            child = parent;
        }
        false
    }

    fn describe(&self, pid: u32) -> Tree {
        let process = Process {
            pid,
            arguments: procfs::arguments(pid),
            environment: procfs::environment(pid),
            folder: procfs::working_folder(pid),
        };
        Tree { label: (self.labeller)(&process), command: process.arguments.join(" ") }
    }
}
