//! Stopping a tree of processes: SIGTERM to the app, grace, SIGKILL to everything, until nothing is left.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::host::{Marker, ProcessId, scan_marked, tree};

/// A stop that is under way in a keeper.
pub(super) struct Stop {
    deadline: Instant,
    kill: bool,
    /// Whether what the main process left behind was asked to end, too.
    rest_asked: bool,
}

impl Stop {
    /// Sends the first SIGTERM: to the main process, or to what it left behind.
    pub(super) fn begin(main: Option<ProcessId>, rest: &[ProcessId], grace: Duration, kill: bool) -> Self {
        match main {
            Some(main) => send(&[main], Signal::TERM),
            None => send(rest, Signal::TERM),
        }
        Self { deadline: Instant::now() + grace, kill, rest_asked: main.is_none() }
    }

    /// A second request: it can shorten the grace and add the kill, never take them back.
    pub(super) fn tighten(&mut self, grace: Duration, kill: bool) {
        self.deadline = self.deadline.min(Instant::now() + grace);
        self.kill |= kill;
    }

    /// Goes on. `false` when the grace is over and nothing may be killed: the stop is given up.
    pub(super) fn step(&mut self, main: Option<ProcessId>, all: impl FnOnce() -> Vec<ProcessId>) -> bool {
        let over = Instant::now() >= self.deadline;
        if over && !self.kill {
            return false;
        }
        if over {
            send(&all(), Signal::KILL);
        } else if main.is_none() && !self.rest_asked {
            send(&all(), Signal::TERM);
            self.rest_asked = true;
        }
        true
    }

    /// How long the keeper may sleep.
    pub(super) fn sleep(&self) -> Duration {
        /// Between two rounds of SIGKILL, for what was forked meanwhile.
        const ROUND: Duration = Duration::from_millis(20);
        self.deadline.saturating_duration_since(Instant::now()).max(ROUND)
    }
}

/// Everything that belongs to the app: descendants of the keeper and all that carry the marker.
pub(crate) fn everything(keeper: u32, marker: &Marker) -> io::Result<Vec<ProcessId>> {
    let mut all = tree(keeper)?;
    for id in scan_marked(marker)? {
        if !all.contains(&id) {
            all.push(id);
        }
    }
    Ok(all)
}

fn send(ids: &[ProcessId], signal: Signal) {
    for id in ids {
        // One that has ended is what is wanted; one that may not be signalled shows up as still running.
        let _ = id.signal(signal);
    }
}
