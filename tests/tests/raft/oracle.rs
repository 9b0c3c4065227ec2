//! What must hold at every moment, judged by a log and a state of its own.
//!
//! What any member applies is put into one reference log, once and for ever; the reference state is that log applied by the
//! core. Every member must agree with both wherever it stands.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use futures::FutureExt;
use openraft::{EntryPayload, async_runtime::WatchReceiver};
use soloist_core::{
    Command, Rejection, Reply, State, apply,
    ids::{FleetId, Token},
    invariants::invariants,
};

use crate::{
    member::Member,
    types::{LogEntry, LogId},
};

/// Between two states of the reference that are kept, in entries: any other is computed from the one before it.
const CHECKPOINT: u64 = 64;

/// What members note while they run.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    entries: BTreeMap<LogId, LogEntry>,
    refused: BTreeSet<u64>,
    last: u64,
    broken: Option<String>,
}

impl Notes {
    /// A number that was not given before.
    pub(crate) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// An entry is appended to some member's log: one log id has one payload, for ever.
    pub(crate) fn appended(&mut self, entry: &LogEntry) {
        let known = self.entries.entry(entry.log_id).or_insert_with(|| entry.clone());
        if known != entry && self.broken.is_none() {
            self.broken = Some(format!("two payloads under log id {}: {known}, and {entry}", entry.log_id));
        }
    }

    /// Whoever proposed this was told that it has no effect.
    pub(crate) fn refused(&mut self, number: u64) {
        self.refused.insert(number);
    }
}

/// The judge of one run.
#[derive(Debug)]
pub(crate) struct Oracle {
    notes: Arc<Mutex<Notes>>,
    /// The reference log; the position of an entry is its index.
    log: Vec<LogEntry>,
    replies: Vec<Option<Result<Reply, Rejection>>>,
    pub(crate) state: State,
    checkpoints: BTreeMap<u64, State>,
    /// Numbers of proposals that were applied.
    applied: BTreeSet<u64>,
    tokens: BTreeMap<FleetId, Token>,
    /// Where each member stood when it was last looked at: its run, its index, and the reference's state there.
    seen: BTreeMap<u64, (u64, u64, State)>,
    /// Who was seen to lead under each term and candidate.
    leaders: BTreeMap<(u64, u64), u64>,
    /// How many answers to proposals there were.
    pub(crate) acknowledged: u64,
    /// How often a lock was granted.
    pub(crate) grants: u64,
    /// How often a snapshot was installed.
    pub(crate) installed: u64,
}

impl Oracle {
    /// A judge before the first entry.
    pub(crate) fn new(notes: Arc<Mutex<Notes>>) -> Oracle {
        Oracle {
            notes,
            log: Vec::new(),
            replies: Vec::new(),
            state: State::default(),
            checkpoints: BTreeMap::new(),
            applied: BTreeSet::new(),
            tokens: BTreeMap::new(),
            seen: BTreeMap::new(),
            leaders: BTreeMap::new(),
            acknowledged: 0,
            grants: 0,
            installed: 0,
        }
    }

    /// How many entries are known to be committed.
    pub(crate) fn entries(&self) -> u64 {
        self.log.len() as u64
    }

    /// How many leaderships there were.
    pub(crate) fn leaderships(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// A client was told that its command was applied at this index with this reply.
    pub(crate) fn acknowledge(
        &mut self,
        command: &Command,
        index: u64,
        reply: &Result<Reply, Rejection>,
    ) -> Result<(), String> {
        self.acknowledged += 1;
        let at = usize::try_from(index).expect("a run is short");
        let payload = self.log.get(at).map(|entry| &entry.payload);
        let there = matches!(payload, Some(EntryPayload::Normal(entry)) if same(&entry.command, command));
        if !there {
            return Err(format!("acknowledged entry {index} is not what was acknowledged: {payload:?}"));
        }
        if self.replies[at].as_ref() != Some(reply) {
            return Err(format!("entry {index} was answered with {reply:?}, not {:?}", self.replies[at]));
        }
        Ok(())
    }

    /// Looks at all members.
    pub(crate) fn watch(&mut self, members: &[Member]) -> Result<(), String> {
        if let Some(broken) = self.notes.lock().expect("nobody panics while noting").broken.take() {
            return Err(broken);
        }
        for member in members {
            self.member(member)?;
            member.disk.platter().purged.clear();
        }
        Ok(())
    }

    fn member(&mut self, member: &Member) -> Result<(), String> {
        let Some(node) = member.node() else { return Ok(()) };
        let id = member.id;
        let broken = member.disk.platter().broken;
        {
            let mut metrics = node.raft.metrics();
            // The end of the metrics is the end of the library's main task: it has panicked.
            if matches!(metrics.changed().now_or_never(), Some(Err(_))) && !broken {
                return Err(format!("member {id} has stopped by itself, in a panic"));
            }
            let metrics = metrics.borrow_watched();
            if let Err(fatal) = &metrics.running_state
                && !broken
            {
                return Err(format!("member {id} has stopped by itself: {fatal}"));
            }
            if metrics.state.is_leader() {
                let under = metrics.vote.leader_id;
                let leader = *self.leaders.entry((under.term, under.node_id)).or_insert(id);
                if leader != id || under.node_id != id {
                    return Err(format!("members {leader} and {id} lead as {under}"));
                }
            }
        }
        let index = node.state.read(|_, index| index);
        let before = self.seen.get(&id).filter(|(run, ..)| *run == member.run).map_or(0, |seen| seen.1);
        if index == before {
            return Ok(());
        }
        if index < before {
            return Err(format!("member {id} went back from entry {before} to {index}"));
        }
        self.entries_of(member, before, index)?;
        self.state_of(member, index)
    }

    /// What a member has applied since the last look is what the reference log has, or comes next there.
    fn entries_of(&mut self, member: &Member, before: u64, index: u64) -> Result<(), String> {
        let entries: BTreeMap<u64, Arc<LogEntry>> = {
            let platter = member.disk.platter();
            let from = if before == 0 { 0 } else { before + 1 };
            let both = platter.purged.range(from..=index).chain(platter.volatile.log.range(from..=index));
            both.map(|(index, entry)| (*index, entry.clone())).collect()
        };
        // Without the last one, it has installed a snapshot: what else there is may never have been committed.
        let installed = !entries.contains_key(&index);
        self.installed += u64::from(installed && before > 0);
        let entries = entries.into_values().filter(|_| !installed);
        for entry in entries {
            let (at, next) = (entry.log_id.index, self.entries());
            if at == next {
                self.commit(&entry)?;
            } else if at < next {
                let known = &self.log[usize::try_from(at).expect("a run is short")];
                if *known != *entry {
                    let id = member.id;
                    return Err(format!("member {id} applied {entry}, and {known} was committed before"));
                }
            }
        }
        if self.entries() <= index {
            let (id, next) = (member.id, self.entries());
            return Err(format!("member {id} is at entry {index}, and nobody has seen entry {next} applied"));
        }
        Ok(())
    }

    /// The state of a member is the reference's at the same index.
    fn state_of(&mut self, member: &Member, index: u64) -> Result<(), String> {
        let seen = self.seen.remove(&member.id).filter(|seen| seen.1 <= index);
        let (mut at, mut state) = match seen {
            Some((_, at, state)) => (at, state),
            None => match self.checkpoints.range(..=index).next_back() {
                Some((at, state)) => (*at, state.clone()),
                None => (0, State::default()),
            },
        };
        while at < index {
            at += 1;
            if let EntryPayload::Normal(entry) =
                &self.log[usize::try_from(at).expect("a run is short")].payload
            {
                apply(&mut state, at, entry);
            }
        }
        let node = member.node().ok_or("a member that was just there has gone")?;
        let agrees = node.state.read(|found, at| at == index && *found == state);
        self.seen.insert(member.id, (member.run, index, state));
        if agrees {
            return Ok(());
        }
        Err(format!("the state of member {} at entry {index} is not what the log makes of it", member.id))
    }

    /// The next entry of the reference log.
    fn commit(&mut self, entry: &LogEntry) -> Result<(), String> {
        let (index, before) = (entry.log_id.index, self.log.last().map(|last| last.log_id));
        if before.is_some_and(|before| before.leader_id > entry.log_id.leader_id) {
            return Err(format!("{entry} follows an entry of a later leader, {before:?}"));
        }
        let mut reply = None;
        if let EntryPayload::Normal(command) = &entry.payload {
            if !self.applied.insert(command.wall_ms) {
                return Err(format!("entry {index} is a proposal that was applied before: {command}"));
            }
            reply = Some(apply(&mut self.state, index, command).reply);
            invariants(&self.state).map_err(|violation| violation.to_string())?;
            self.tokens(index)?;
        }
        self.log.push(entry.clone());
        self.replies.push(reply);
        if index.is_multiple_of(CHECKPOINT) {
            self.checkpoints.insert(index, self.state.clone());
        }
        Ok(())
    }

    /// A new fencing token is the index of the entry that gave it, and higher than all before it.
    fn tokens(&mut self, index: u64) -> Result<(), String> {
        for (id, fleet) in &self.state.fleets {
            let Some(token) = fleet.lock.token() else { continue };
            let before = self.tokens.insert(id.clone(), token);
            if before == Some(token) {
                continue;
            }
            self.grants += 1;
            if before > Some(token) || token.0 != index {
                return Err(format!("fleet {id} has token {token} at entry {index}, after {before:?}"));
            }
        }
        Ok(())
    }

    /// Whether all of these members have applied the last entry.
    pub(crate) fn together(&self, members: &[&Member]) -> bool {
        let last = self.entries().checked_sub(1);
        members.iter().all(|member| {
            let seen = self.seen.get(&member.id).filter(|(run, ..)| *run == member.run);
            seen.map(|(_, index, _)| *index) == last
        })
    }

    /// What can only be told when nothing is under way any more.
    pub(crate) fn finish(&self) -> Result<(), String> {
        let notes = self.notes.lock().expect("nobody panics while noting");
        match notes.refused.intersection(&self.applied).next() {
            Some(number) => Err(format!("the proposal with number {number} was refused, and applied")),
            None => Ok(()),
        }
    }
}

/// Whether a command was proposed as this, but for what only the leader knows and adds.
fn same(found: &Command, proposed: &Command) -> bool {
    let plain = |command: &Command| {
        let mut command = command.clone();
        if let Command::Register { rival, .. } = &mut command {
            *rival = false;
        }
        command
    };
    plain(found) == plain(proposed)
}
