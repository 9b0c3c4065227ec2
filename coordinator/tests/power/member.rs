//! A member in a process of its own, which writes to its folder until the power goes off.
//!
//! It uses the store as the consensus library does: appends that are acknowledged later and in groups, votes that are waited
//! for, truncations by a new leader, snapshots built beside the appends and coming in from elsewhere, and purges behind them.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::Path,
    process,
    sync::{Arc, Mutex},
};

use openraft::{
    EntryPayload, RaftLogReader, RaftSnapshotBuilder,
    entry::RaftEntry,
    storage::{IOFlushed, RaftLogStorage, RaftStateMachine},
    type_config::{TypeConfigExt, alias::SnapshotMetaOf},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde::Serialize;
use soloist_coordinator::{
    raft::types::TypeConfig,
    store::{LogStore, Machine, Store},
};
use soloist_core::{Command, Entry, ids::FleetId, time::Time};
use tokio::task::JoinSet;

use super::event::{Contents, Event, Id, LogEntry, Step, Vote};

/// The longest text in a command, in bytes: below what a leader accepts.
const TEXT_MAX_BYTES: usize = 60 * 1024;

/// How many appends wait for the disk at most.
const WAITING_MAX: usize = 32;

/// Opens the folder and writes to it until something fails, which ends the process.
pub(crate) async fn run(folder: &Path, seed: u64) -> ! {
    let store = match Store::open(folder, "power", 1) {
        Ok(store) => store,
        Err(error) => stop(Event::Refused(chain(&error))),
    };
    let mut member = Member::new(store, seed).await.unwrap_or_else(|error| fail(&error));
    loop {
        if let Err(error) = member.step().await {
            fail(&error);
        }
    }
}

/// The last words. Nothing is closed, as when the power goes off.
fn stop(event: Event) -> ! {
    event.tell();
    process::exit(0);
}

fn fail(error: &io::Error) -> ! {
    stop(Event::Failed(chain(error)))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

struct Member {
    log: LogStore,
    machine: Machine,
    random: SmallRng,
    /// Who leads: the term and the node.
    leader: (u64, u64),
    last: Option<Id>,
    purged: Option<Id>,
    applied: Option<Id>,
    /// The newest snapshot, with the digest of its state.
    snapshot: Arc<Mutex<Option<Stored>>>,
    waiting: JoinSet<io::Result<()>>,
    building: JoinSet<io::Result<()>>,
    /// Whether it mostly writes large entries, so that it fills segments of the database.
    heavy: bool,
}

#[derive(Debug, Clone)]
struct Stored {
    meta: SnapshotMetaOf<TypeConfig>,
    state: Vec<u8>,
    digest: u64,
}

impl Member {
    async fn new(store: Store, seed: u64) -> io::Result<Member> {
        let Store { mut log, mut machine, .. } = store;
        let state = log.get_log_state().await?;
        let vote = log.read_vote().await?;
        let entries = log.try_get_log_entries(..).await?;
        let digest = machine.handle().read(|state, _| digest_of(state));
        let stored = machine.get_current_snapshot().await?;
        let snapshot = stored.map(|stored| Stored { meta: stored.meta, state: stored.snapshot, digest });
        let applied = machine.applied_state().await?.0;
        Event::Opened(Contents {
            vote,
            purged: state.last_purged_log_id,
            entries: entries.iter().map(|entry| (entry.log_id, digest_of(entry))).collect(),
            snapshot: applied.map(|last| (last, digest)),
        })
        .tell();
        let mut random = SmallRng::seed_from_u64(seed);
        let heavy = random.random_bool(0.5);
        let mut member = Member {
            log,
            machine,
            random,
            leader: vote.map_or((0, 1), |vote| (vote.leader_id.term, vote.leader_id.node_id)),
            last: state.last_log_id,
            purged: state.last_purged_log_id,
            applied,
            snapshot: Arc::new(Mutex::new(snapshot)),
            waiting: JoinSet::new(),
            building: JoinSet::new(),
            heavy,
        };
        // As the consensus library does after a snapshot came in and the log was not purged any more.
        if let Some(applied) = applied
            && member.last < Some(applied)
        {
            member.purge(applied).await?;
        }
        member.elect().await?;
        Ok(member)
    }

    async fn step(&mut self) -> io::Result<()> {
        match self.random.random_range(0..100) {
            0..60 => self.append().await,
            60..72 => self.wait().await,
            72..79 => self.apply().await,
            79..85 => self.build().await,
            85..91 => self.purge_some().await,
            91..96 => self.elect().await,
            96..98 => self.install().await,
            _ => self.log.save_committed(self.applied).await,
        }
    }

    async fn append(&mut self) -> io::Result<()> {
        if self.waiting.len() >= WAITING_MAX {
            self.wait().await?;
        }
        let count = self.random.random_range(1..=8);
        let entries: Vec<LogEntry> = (0..count).map(|_| self.entry()).collect();
        let step = Step::Append(entries.iter().map(|entry| (entry.log_id, digest_of(entry))).collect());
        Event::Began(step.clone()).tell();
        let (done, result) = TypeConfig::oneshot();
        self.log.append(entries, IOFlushed::signal(done)).await?;
        self.waiting.spawn(async move {
            result.await.map_err(io::Error::other)??;
            Event::Acknowledged(step).tell();
            Ok(())
        });
        Ok(())
    }

    fn entry(&mut self) -> LogEntry {
        let index = self.last.map_or(0, |last| last.index + 1);
        let longest = if self.heavy || self.random.random_bool(0.05) { TEXT_MAX_BYTES } else { 1500 };
        let length = self.random.random_range(0..longest);
        let letter = self.random.random_range('a'..='z');
        let command = Command::Freeze {
            fleet: FleetId::new("power").unwrap(),
            length: None,
            by: format!("{:x}", self.random.random::<u64>()),
            reason: letter.to_string().repeat(length),
        };
        let entry = Entry { time: Time(index), wall_ms: self.random.random(), feature_level: 1, command };
        let (term, node_id) = self.leader;
        let id = Id { leader_id: openraft::impls::leader_id_adv::LeaderId { term, node_id }, index };
        self.last = Some(id);
        LogEntry::new(id, EntryPayload::Normal(entry))
    }

    /// Waits for every append.
    async fn wait(&mut self) -> io::Result<()> {
        while let Some(result) = self.waiting.join_next().await {
            result??;
        }
        Ok(())
    }

    /// Applies some of what was acknowledged.
    async fn apply(&mut self) -> io::Result<()> {
        self.wait().await?;
        let (Some(last), next) = (self.last, self.applied.map_or(0, |applied| applied.index + 1)) else {
            return Ok(());
        };
        if next > last.index {
            return Ok(());
        }
        let end = self.random.random_range(next..=last.index);
        let entries = self.log.try_get_log_entries(next..=end).await?;
        self.applied = entries.last().map(|entry| entry.log_id);
        self.machine.apply(futures::stream::iter(entries.into_iter().map(|entry| Ok((entry, None))))).await
    }

    /// Begins to build a snapshot, beside what else is done.
    async fn build(&mut self) -> io::Result<()> {
        while let Some(result) = self.building.join_next().await {
            result??;
        }
        let Some(last) = self.applied else { return Ok(()) };
        let digest = self.machine.handle().read(|state, _| digest_of(state));
        let step = Step::Snapshot(last, digest);
        Event::Began(step.clone()).tell();
        let mut builder = self.machine.get_snapshot_builder().await;
        let newest = self.snapshot.clone();
        self.building.spawn(async move {
            let built = builder.build_snapshot().await?;
            Event::Acknowledged(step).tell();
            replace(&newest, Stored { meta: built.meta, state: built.snapshot, digest });
            Ok(())
        });
        Ok(())
    }

    /// Takes in a snapshot that reaches further than the log, and purges the log as the consensus library does then.
    async fn install(&mut self) -> io::Result<()> {
        self.wait().await?;
        let Some(mut stored) = self.snapshot.lock().unwrap().clone() else { return Ok(()) };
        let (term, node_id) = self.leader;
        let index = self.last.map_or(0, |last| last.index) + self.random.random_range(1..20);
        let last = Id { leader_id: openraft::impls::leader_id_adv::LeaderId { term, node_id }, index };
        stored.meta.last_log_id = Some(last);
        let step = Step::Snapshot(last, stored.digest);
        Event::Began(step.clone()).tell();
        self.machine.install_snapshot(&stored.meta, stored.state.clone()).await?;
        Event::Acknowledged(step).tell();
        replace(&self.snapshot, stored);
        self.applied = Some(last);
        self.purge(last).await
    }

    /// Purges a part of what the newest snapshot holds.
    async fn purge_some(&mut self) -> io::Result<()> {
        let reach = self.snapshot.lock().unwrap().as_ref().and_then(|stored| stored.meta.last_log_id);
        let first = self.purged.map_or(0, |purged| purged.index + 1);
        let Some(reach) = reach.filter(|reach| reach.index > first) else { return Ok(()) };
        let end = self.random.random_range(first..reach.index);
        let entries = self.log.try_get_log_entries(end..=end).await?;
        match entries.first() {
            Some(entry) => self.purge(entry.log_id).await,
            None => Ok(()),
        }
    }

    async fn purge(&mut self, to: Id) -> io::Result<()> {
        Event::Began(Step::Purge(to)).tell();
        self.log.purge(to).await?;
        Event::Acknowledged(Step::Purge(to)).tell();
        self.purged = Some(to);
        self.last = self.last.max(self.purged);
        Ok(())
    }

    /// A new leader: a vote, perhaps the end of the log that it does not have, and the vote again once it leads.
    async fn elect(&mut self) -> io::Result<()> {
        self.leader = (self.leader.0 + 1, self.random.random_range(1..=3));
        let (term, node) = self.leader;
        self.vote(Vote::new(term, node)).await?;
        if self.random.random_bool(0.5) {
            self.truncate().await?;
        }
        self.vote(Vote::new_committed(term, node)).await
    }

    async fn vote(&mut self, vote: Vote) -> io::Result<()> {
        Event::Began(Step::Vote(vote)).tell();
        self.log.save_vote(&vote).await?;
        Event::Acknowledged(Step::Vote(vote)).tell();
        Ok(())
    }

    /// Only what was not applied is ever truncated.
    async fn truncate(&mut self) -> io::Result<()> {
        let (Some(applied), Some(last)) = (self.applied.max(self.purged), self.last) else { return Ok(()) };
        if applied >= last {
            return Ok(());
        }
        let first = applied.index.max(last.index.saturating_sub(40));
        let keep = self.random.random_range(first..last.index);
        let entries = self.log.try_get_log_entries(keep..=keep).await?;
        let keep = entries.first().map_or(applied, |entry| entry.log_id);
        Event::Began(Step::Truncate(keep)).tell();
        self.log.truncate_after(Some(keep)).await?;
        Event::Acknowledged(Step::Truncate(keep)).tell();
        self.last = Some(keep);
        Ok(())
    }
}

/// A snapshot that was built may be older than one that came in meanwhile.
fn replace(newest: &Mutex<Option<Stored>>, stored: Stored) {
    let mut newest = newest.lock().unwrap();
    let index = |stored: &Stored| stored.meta.last_log_id.map(|last| last.index);
    if newest.as_ref().is_none_or(|newest| index(newest) <= index(&stored)) {
        *newest = Some(stored);
    }
}

fn digest_of<T: Serialize>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_vec(value).unwrap().hash(&mut hasher);
    hasher.finish()
}
