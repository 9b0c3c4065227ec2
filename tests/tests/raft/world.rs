//! The clockwork of a run: a safety phase with faults, then a phase without, in which everything must come together.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex},
};

use openraft::async_runtime::WatchReceiver;
use soloist_coordinator::raft::Compaction;

use crate::{
    Flaw,
    chance::Chance,
    clients::Clients,
    disk::{Disk, Mood},
    faults::Faults,
    member::{Member, Setup},
    oracle::{Notes, Oracle},
    wire::{Weather, Wire},
};

/// Step of the world's time in milliseconds.
pub(crate) const STEP: u64 = 5;

/// How long after the last fault everything must have come together, in milliseconds of the world's time.
const LIVENESS_MAX: u64 = 20_000;

/// How many trace lines a failure shows.
const TRACE_MAX: usize = 60;

/// A promise that was found broken.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) what: String,
    at_ms: u64,
    trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seed, after) = (self.seed, self.seed + 1);
        writeln!(f, "seed {seed} at {} ms: {}", self.at_ms, self.what)?;
        for line in &self.trace {
            writeln!(f, "  {line}")?;
        }
        write!(
            f,
            "reproduce: RAFT_SEEDS={seed}..{after} RAFT_TRACE=1 cargo test -p soloist-tests --test raft \
             seeds_keep_every_promise -- --nocapture"
        )
    }
}

/// Figures of a run that ended well: they show that it was not idle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) entries: u64,
    pub(crate) acknowledged: u64,
    pub(crate) reads: u64,
    pub(crate) grants: u64,
    pub(crate) leaderships: u64,
    pub(crate) crashes: u64,
    pub(crate) lost_writes: u64,
    pub(crate) failed_disks: u64,
    pub(crate) stalls: u64,
    pub(crate) cuts: u64,
    pub(crate) transfers: u64,
    pub(crate) joined: u64,
    pub(crate) left: u64,
    pub(crate) installed: u64,
    /// The longest time to come together, in milliseconds.
    pub(crate) slowest_ms: u64,
    /// A sum over every message: equal for equal runs.
    pub(crate) sum: u64,
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Summary) {
        self.entries += other.entries;
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        self.grants += other.grants;
        self.leaderships += other.leaderships;
        self.crashes += other.crashes;
        self.lost_writes += other.lost_writes;
        self.failed_disks += other.failed_disks;
        self.stalls += other.stalls;
        self.cuts += other.cuts;
        self.transfers += other.transfers;
        self.joined += other.joined;
        self.left += other.left;
        self.installed += other.installed;
        self.slowest_ms = self.slowest_ms.max(other.slowest_ms);
        self.sum ^= other.sum;
    }
}

/// One simulated run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) now: u64,
    pub(crate) chance: Chance,
    pub(crate) wire: Wire,
    pub(crate) setup: Setup,
    pub(crate) members: Vec<Member>,
    clients: Clients,
    oracle: Oracle,
    pub(crate) faults: Faults,
    pub(crate) summary: Summary,
    trace: VecDeque<String>,
    tracing: bool,
}

impl World {
    /// The world of a seed, before its first moment.
    pub(crate) fn new(seed: u64, flaw: Option<Flaw>, tracing: bool) -> World {
        let mut chance = Chance::new(seed, 1);
        let weather = Weather {
            latency_ms: chance.between(2, 30),
            lost: chance.between(0, 30),
            doubled: chance.between(0, 20),
            late: chance.between(0, 20),
        };
        let wire = Wire::new(weather, Chance::new(seed, 2));
        let notes = Arc::new(Mutex::new(Notes::default()));
        let founders: Vec<u64> = (1..=if chance.permille(200) { 5 } else { 3 }).collect();
        let compaction =
            Compaction { snapshot_every: chance.between(10, 100), keep_entries: chance.between(0, 30) };
        let setup = Setup { compaction, flaw, founders, wire: wire.clone(), notes: notes.clone() };
        let faults = Faults::new(&mut chance);
        let mut world = World {
            seed,
            now: 0,
            wire,
            members: Vec::new(),
            clients: Clients::new(Chance::new(seed, 3)),
            oracle: Oracle::new(notes),
            faults,
            summary: Summary::default(),
            trace: VecDeque::new(),
            tracing,
            chance,
            setup,
        };
        for id in world.setup.founders.clone() {
            world.add(id);
        }
        world
    }

    /// One more member, with an empty disk.
    pub(crate) fn add(&mut self, id: u64) {
        let mood = Mood { sync_ms: self.chance.between(1, 15), fails: false };
        let disk = Disk::new(mood, Chance::new(self.seed, 1000 + id));
        let drift = i64::try_from(self.chance.between(0, 100)).expect("a small number") - 50;
        self.members.push(Member::new(id, disk, drift));
    }

    /// Runs both phases.
    pub(crate) fn run(mut self) -> Result<Summary, Box<Failure>> {
        match self.phases() {
            Ok(()) => {
                let cables = self.wire.cables();
                self.summary.sum = cables.sum;
                self.summary.entries = self.oracle.entries();
                self.summary.acknowledged = self.oracle.acknowledged;
                self.summary.leaderships = self.oracle.leaderships();
                self.summary.grants = self.oracle.grants;
                self.summary.installed = self.oracle.installed;
                self.summary.reads = self.clients.reads;
                Ok(self.summary)
            }
            Err(what) => Err(Box::new(Failure {
                seed: self.seed,
                what,
                at_ms: self.now,
                trace: self.trace.iter().cloned().collect(),
            })),
        }
    }

    fn phases(&mut self) -> Result<(), String> {
        let safety = self.chance.between(8_000, 20_000);
        while self.now < safety {
            self.mischief();
            self.step()?;
        }
        self.calm();
        let limit = self.now + LIVENESS_MAX;
        let mut probed = false;
        loop {
            if self.now >= limit {
                return Err(format!("{} s after the last fault: {}", LIVENESS_MAX / 1000, self.stand()));
            }
            self.step()?;
            if self.clients.idle() && self.leader().is_some() {
                if probed && self.together() {
                    break;
                }
                if !probed {
                    self.clients.probe();
                    probed = true;
                }
            }
        }
        self.summary.slowest_ms = self.now + LIVENESS_MAX - limit;
        self.oracle.finish()
    }

    /// No more faults: everything is mended, and clients begin nothing new.
    fn calm(&mut self) {
        self.note("calm".to_owned());
        self.clients.resting = true;
        {
            let mut cables = self.wire.cables();
            cables.cuts.clear();
            cables.weather = Weather { latency_ms: 10, lost: 0, doubled: 0, late: 0 };
        }
        for member in &mut self.members {
            member.stalled_until = 0;
            member.up_at = 0;
            member.disk.platter().mood = Mood { sync_ms: 10, fails: false };
        }
    }

    fn step(&mut self) -> Result<(), String> {
        self.now += STEP;
        let now = self.now;
        self.wire.cables().now = now;
        for at in 0..self.members.len() {
            self.start_or_end(at);
        }
        let ids: Vec<u64> = self.members.iter().map(|member| member.id).collect();
        for answer in self.wire.deliver() {
            self.clients.hear(answer, &ids, &mut self.oracle)?;
        }
        for member in &mut self.members {
            member.step(STEP, now);
        }
        self.oracle.watch(&self.members)?;
        self.clients.step(now, &ids, &self.oracle.state, &self.wire);
        Ok(())
    }

    fn start_or_end(&mut self, at: usize) {
        let (seed, now) = (self.seed, self.now);
        let member = &mut self.members[at];
        if !member.runs() && now >= member.up_at {
            member.start(seed, &self.setup);
            let (id, run) = (member.id, member.run);
            self.note(format!("member {id} starts its run {run}"));
        } else if member.runs() && member.disk.platter().broken {
            // As in the coordinator: after a failed write the process ends, and may be started again.
            let down = self.chance.between(100, 2_000);
            self.summary.failed_disks += 1;
            self.crash(at, down, "its disk has failed");
        }
    }

    /// Cuts a member's power for so many milliseconds.
    pub(crate) fn crash(&mut self, at: usize, down: u64, why: &str) {
        let member = &mut self.members[at];
        if !member.runs() {
            return;
        }
        let lost = member.crash(&self.wire);
        member.up_at = self.now + down;
        self.summary.crashes += 1;
        self.summary.lost_writes += lost as u64;
        let id = member.id;
        self.note(format!("member {id} is off for {down} ms, {lost} writes are lost: {why}"));
    }

    /// The member that leads under the highest leader id, if any says that it leads.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |member: &Member| {
            let node = member.node()?;
            let metrics = node.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.state.is_leader().then_some(metrics.vote.leader_id)
        };
        let leaders = self.members.iter().enumerate().filter_map(|(at, member)| Some((leads(member)?, at)));
        leaders.max().map(|(_, at)| at)
    }

    /// Whether all members that belong to the cluster have applied everything.
    fn together(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let Some(node) = self.members[leader].node() else { return false };
        let metrics = node.raft.metrics();
        let metrics = metrics.borrow_watched();
        let belong: Vec<u64> = metrics.membership_config.nodes().map(|(id, _)| *id).collect();
        let members: Vec<&Member> =
            self.members.iter().filter(|member| belong.contains(&member.id)).collect();
        members.len() == belong.len() && self.oracle.together(&members)
    }

    fn stand(&self) -> String {
        let mut lines = vec![format!("nothing has come together; {} entries", self.oracle.entries())];
        for member in &self.members {
            match member.node() {
                Some(node) => lines.push(node.raft.metrics().borrow_watched().to_string()),
                None => lines.push(format!("member {} has not come up", member.id)),
            }
        }
        lines.join("\n  ")
    }

    pub(crate) fn note(&mut self, line: String) {
        let line = format!("{:>6} {line}", self.now);
        if self.tracing {
            eprintln!("{line}");
        }
        if self.trace.len() == TRACE_MAX {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }
}
