//! The agent's side: from looks at the app to the facts that are recorded.

use super::{Ended, Fact, KnownBy, Launching, Record, Run};
use crate::ids::{BootId, Generation, Launch};

/// What a look at the app saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// A process tree of it runs; what the tracker knows of its launch is filled in.
    Runs(Run),
    /// Nothing of it runs.
    Gone {
        /// The last end of its main process that its keeper recorded.
        exit: Option<Exit>,
        /// Whether a launch may still be on its way.
        launching: bool,
    },
}

/// The end of a main process, as its keeper recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The launch.
    pub launch: Launch,
    /// The boot in which it ran.
    pub boot: BootId,
    /// When it ended, in milliseconds since boot; `None` if that is not known.
    pub ended_ms: Option<u64>,
}

/// What is known of the node's process trees. Nothing of it must survive: it is found again in the records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tracker {
    open: Option<Open>,
    pending: Option<(Launching, BootId, u64)>,
    resting: Option<Generation>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    run: Run,
    boot: BootId,
    /// It was last seen then, since boot.
    seen_ms: u64,
}

impl Tracker {
    /// What the records of an agent's earlier runs leave open.
    #[must_use]
    pub fn recall<'a>(records: impl IntoIterator<Item = &'a Record>) -> Tracker {
        let mut tracker = Tracker::default();
        for record in records {
            match &record.fact {
                Fact::Began(run) => {
                    let (boot, seen_ms) = (record.boot.clone(), record.at.boot_ms);
                    tracker.open = Some(Open { run: run.clone(), boot, seen_ms });
                    tracker.pending = None;
                }
                Fact::Ended(_) => tracker.open = None,
                Fact::Launching(launching) => {
                    tracker.pending = Some((launching.clone(), record.boot.clone(), record.at.boot_ms));
                }
                Fact::Unlaunched { .. } => tracker.pending = None,
                // A new run of the agent looks by itself whether nothing runs.
                Fact::Opened { .. } | Fact::Resting { .. } | Fact::Watched(_) => {}
            }
        }
        tracker
    }

    /// The record before a launch.
    pub fn launching(&mut self, launching: Launching, boot: &BootId, now_ms: u64) -> Fact {
        self.pending = Some((launching.clone(), boot.clone(), now_ms));
        self.resting = None;
        Fact::Launching(launching)
    }

    /// The record before the coordinators are told that nothing runs; once for each generation.
    pub fn resting(&mut self, generation: Generation) -> Option<Fact> {
        let new = self.open.is_none() && self.pending.is_none() && self.resting != Some(generation);
        new.then(|| {
            self.resting = Some(generation);
            Fact::Resting { generation }
        })
    }

    /// What follows from a look at `now_ms` since this boot, in order.
    pub fn look(&mut self, sight: Sight, boot: &BootId, now_ms: u64) -> Vec<Fact> {
        let mut facts = Vec::new();
        if let Some(open) = self.open.take_if(|open| open.boot != *boot) {
            facts.push(open.ended(None, KnownBy::Boot));
        }
        match sight {
            Sight::Runs(run) => self.runs(run, boot, now_ms, &mut facts),
            Sight::Gone { exit, launching } => self.gone(exit, launching, boot, now_ms, &mut facts),
        }
        facts
    }

    fn runs(&mut self, mut run: Run, boot: &BootId, now_ms: u64, facts: &mut Vec<Fact>) {
        if let Some(open) = self.open.as_mut().filter(|open| same(&open.run, &run)) {
            open.seen_ms = now_ms;
            return;
        }
        if let Some(open) = self.open.take() {
            facts.push(open.ended(Some(now_ms.min(run.began_ms.max(open.seen_ms))), KnownBy::ProcessTable));
        }
        if let Some((launching, _, _)) = self.pending.take() {
            if run.launch == Some(launching.launch) {
                run.token = launching.token;
                run.generation = run.generation.or(Some(launching.generation));
            } else {
                facts.push(Fact::Unlaunched { launch: launching.launch });
            }
        }
        facts.push(Fact::Began(run.clone()));
        self.resting = None;
        self.open = Some(Open { run, boot: boot.clone(), seen_ms: now_ms });
    }

    fn gone(
        &mut self,
        exit: Option<Exit>,
        launching: bool,
        boot: &BootId,
        now_ms: u64,
        facts: &mut Vec<Fact>,
    ) {
        if let Some(mut open) = self.open.take() {
            let exit = exit.filter(|exit| Some(exit.launch) == open.run.launch && exit.boot == *boot);
            // Its keeper saw it alive until then.
            let ended = exit.and_then(|exit| exit.ended_ms).filter(|ended| *ended <= now_ms);
            let by = if ended.is_some() { KnownBy::Keeper } else { KnownBy::ProcessTable };
            open.seen_ms = open.seen_ms.max(ended.unwrap_or(0));
            facts.push(open.ended(Some(now_ms), by));
            return;
        }
        let pending =
            self.pending.take_if(|(launching, _, _)| ended(exit.as_ref(), launching.launch).is_some());
        if let Some((launching, begun_in, begun_ms)) = pending {
            // It began and ended between two looks.
            let ended_ms = ended(exit.as_ref(), launching.launch).and_then(|exit| exit.ended_ms);
            let here = begun_in == *boot;
            let run = Run {
                launch: Some(launching.launch),
                generation: Some(launching.generation),
                token: launching.token,
                pid: 0,
                start_ticks: 0,
                began_ms: begun_ms,
            };
            let seen_ms = ended_ms.filter(|_| here).unwrap_or(begun_ms);
            let open = Open { run: run.clone(), boot: begun_in, seen_ms };
            facts.push(Fact::Began(run));
            facts.push(if here {
                open.ended(Some(now_ms), KnownBy::Keeper)
            } else {
                open.ended(None, KnownBy::Boot)
            });
        } else if !launching && let Some((launching, _, _)) = self.pending.take() {
            facts.push(Fact::Unlaunched { launch: launching.launch });
        }
    }
}

fn ended(exit: Option<&Exit>, launch: Launch) -> Option<&Exit> {
    exit.filter(|exit| exit.launch == launch)
}

impl Open {
    fn ended(&self, not_after_ms: Option<u64>, known_by: KnownBy) -> Fact {
        Fact::Ended(Ended {
            launch: self.run.launch,
            pid: self.run.pid,
            boot: self.boot.clone(),
            not_before_ms: self.seen_ms.max(self.run.began_ms),
            not_after_ms: not_after_ms.map(|ms| ms.max(self.seen_ms)),
            known_by,
        })
    }
}

/// Whether two looks saw the same tree. Its main process may have ended in between.
fn same(a: &Run, b: &Run) -> bool {
    match (a.launch, b.launch) {
        (Some(a), Some(b)) => a == b,
        _ => a.pid == b.pid && a.start_ticks == b.start_ticks,
    }
}
