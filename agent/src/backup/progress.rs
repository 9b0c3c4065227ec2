//! How far the work is.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::error::size;

/// How often progress is told at most, but for a change of the stage.
const EVERY: Duration = Duration::from_millis(250);

/// What is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// Looking at programs, database and space.
    #[default]
    Preparing,
    /// Writing the dump of the database.
    Dump,
    /// Packing the kept paths of the storage.
    Storage,
    /// Copying uploads.
    Uploads,
    /// Reading everything back.
    Reading,
    /// Waiting for other sessions on the database to end.
    Sessions,
    /// Removing what the database holds.
    Clearing,
    /// Loading the dump.
    Load,
    /// Putting the storage back.
    Unpack,
    /// All is done.
    Done,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// What is under way.
    pub stage: Stage,
    /// Bytes that passed in this stage.
    pub bytes: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.stage {
            Stage::Preparing => "looking at programs, database and space",
            Stage::Dump => "dumping the database",
            Stage::Storage => "packing the storage",
            Stage::Uploads => "copying uploads",
            Stage::Reading => "reading the backup back",
            Stage::Sessions => "waiting for database sessions to end",
            Stage::Clearing => "clearing the database",
            Stage::Load => "loading the dump",
            Stage::Unpack => "putting the storage back",
            Stage::Done => "done",
        };
        f.write_str(what)?;
        if self.bytes == 0 { Ok(()) } else { write!(f, ", {}", size(self.bytes)) }
    }
}

/// Tells progress at a bounded rate. Copies share one state.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    to: watch::Sender<Progress>,
    state: Arc<Mutex<(Progress, Instant)>>,
}

impl Meter {
    pub(super) fn new(to: &watch::Sender<Progress>) -> Self {
        Self { to: to.clone(), state: Arc::new(Mutex::new((Progress::default(), Instant::now()))) }
    }

    /// A new stage begins.
    pub(super) fn stage(&self, stage: Stage) {
        let mut state = self.lock();
        *state = (Progress { stage, bytes: 0 }, Instant::now());
        self.to.send_replace(state.0);
    }

    /// More bytes have passed.
    pub(super) fn add(&self, bytes: usize) {
        let mut state = self.lock();
        state.0.bytes = state.0.bytes.saturating_add(bytes as u64);
        if state.1.elapsed() >= EVERY {
            state.1 = Instant::now();
            self.to.send_replace(state.0);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Progress, Instant)> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_told_at_once_and_bytes_seldom() {
        let (to, mut from) = watch::channel(Progress::default());
        let meter = Meter::new(&to);
        meter.stage(Stage::Dump);
        assert_eq!(*from.borrow_and_update(), Progress { stage: Stage::Dump, bytes: 0 });
        (0..100).for_each(|_| meter.add(10));
        assert!(!from.has_changed().unwrap(), "all within {EVERY:?}");
        meter.stage(Stage::Done);
        assert_eq!(from.borrow_and_update().stage, Stage::Done);
    }
}
