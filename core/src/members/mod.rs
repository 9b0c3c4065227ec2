//! The coordinators' own cluster: who may come, go and move, when the feature level may rise, and what is dangerous.
//!
//! The members themselves are Raft's; here is what the leader decides before it asks Raft for a change, from what it sees of
//! everybody at that moment. What must outlast the members is in the state: the ids that were used.
//!
//! | change | only if |
//! |---|---|
//! | a learner comes | it runs, for this cluster and under this id, with an empty log; id and address are free; it can follow |
//! | a learner becomes a voter | it has caught up, and every voter answers: the dead are removed before the new are added |
//! | a voter goes | it is not the last one, and a majority of the others answers |
//! | a member moves | it answers at its new address, with the log that it had |
//! | the level rises | every member answers and knows it |

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use self::refusal::Refusal;
use crate::command::{FIRST_LEVEL, MEMBERS_LEVEL};
use crate::state::State;

mod danger;
mod refusal;

pub use danger::{Danger, dangers};

/// Ids of removed members that are remembered one by one; a cluster sees a few in its life. Beyond, the lowest are remembered
/// as "everything up to here".
pub const REMOVED_MEMBERS_MAX: usize = 256;

/// How far a new member's log may be behind the leader's when it becomes a voter, in entries: what is sent in a moment.
pub const CATCH_UP_LAG: u64 = 200;

/// Ids that must not be used again, since whoever had them may have voted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct UsedIds {
    /// Members that were removed.
    pub removed: BTreeSet<u64>,
    /// Every id up to this one counts as used, unless it belongs to a member.
    pub up_to: u64,
}

impl UsedIds {
    /// Whether nothing is remembered yet.
    pub fn is_empty(&self) -> bool {
        *self == UsedIds::default()
    }

    /// Whether an id belonged to a member that was removed.
    pub fn contains(&self, id: u64) -> bool {
        id <= self.up_to || self.removed.contains(&id)
    }

    fn add(&mut self, id: u64) {
        self.removed.insert(id);
        while self.removed.len() > REMOVED_MEMBERS_MAX {
            self.up_to = self.removed.pop_first().unwrap_or_default().max(self.up_to);
        }
    }
}

/// Notes in the state that the members have changed: called by every replica when it applies a change of the members.
pub fn changed(state: &mut State, before: &BTreeSet<u64>, after: &BTreeSet<u64>) {
    if state.level < MEMBERS_LEVEL {
        return;
    }
    for id in before.difference(after) {
        state.used_ids.add(*id);
    }
}

/// A member as it was seen just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSeen {
    /// Its id.
    pub id: u64,
    /// Where the others reach it.
    pub address: String,
    /// Whether it votes.
    pub voter: bool,
    /// Whether it answers; the fields below are known only if it does.
    pub answers: bool,
    /// Whether it leads, in its own eyes.
    pub leads: bool,
    /// Index of the last entry in its log.
    pub last_log: u64,
    /// The highest feature level that it can follow.
    pub level_max: u32,
    /// Its version, for people.
    pub version: String,
}

/// A process that was looked for at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nobody answers there; why.
    Nobody(String),
    /// A coordinator of another cluster, or another member.
    Other {
        /// Its cluster.
        cluster: String,
        /// Its id.
        member: u64,
    },
    /// The member that was looked for.
    Member(MemberSeen),
}

/// The cluster, as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSeen<'a> {
    /// The members, by id.
    pub members: &'a [MemberSeen],
    /// The leader.
    pub leader: u64,
    /// The feature level of the state.
    pub level: u32,
    /// Ids that were used.
    pub used: &'a UsedIds,
}

impl ClusterSeen<'_> {
    fn member(&self, id: u64) -> Option<&MemberSeen> {
        self.members.iter().find(|member| member.id == id)
    }

    fn known(&self, id: u64) -> Result<&MemberSeen, Refusal> {
        let known = || self.members.iter().map(|member| member.id).collect();
        self.member(id).ok_or_else(|| Refusal::Unknown { id, known: known() })
    }

    fn last_log(&self) -> u64 {
        self.member(self.leader).map_or(0, |leader| leader.last_log)
    }

    /// Whether a process may be taken in as a learner. `Ok(false)` if it is a member already.
    ///
    /// # Errors
    ///
    /// With what stands in the way.
    pub fn may_join(&self, id: u64, address: &str, found: &Found) -> Result<bool, Refusal> {
        if let Some(member) = self.member(id).filter(|member| member.address != address) {
            return Err(Refusal::IdTaken { id, address: member.address.clone() });
        }
        if let Some(other) = self.members.iter().find(|member| member.id != id && member.address == address) {
            return Err(Refusal::AddressTaken { address: address.to_owned(), id: other.id });
        }
        if self.member(id).is_none() && self.used.contains(id) {
            let next = self.members.iter().map(|member| member.id).chain(self.used.removed.iter().copied());
            return Err(Refusal::IdUsed { id, free: next.max().unwrap_or(0).max(self.used.up_to) + 1 });
        }
        let newcomer = there(id, address, found)?;
        if newcomer.level_max < self.level {
            let (version, level_max) = (newcomer.version.clone(), newcomer.level_max);
            return Err(Refusal::TooOld { id, version, level_max, level: self.level });
        }
        match self.member(id) {
            None if newcomer.last_log > 0 => Err(Refusal::NotEmpty { id, address: address.to_owned() }),
            None => Ok(true),
            // It voted once, and its log is gone: it must not vote again.
            Some(member) if member.voter && newcomer.last_log == 0 && self.last_log() > 0 => {
                Err(Refusal::LostLog { id })
            }
            Some(_) => Ok(false),
        }
    }

    /// Whether a learner whose log equals the leader's up to `matched` may vote from now on. `Ok(false)` while it has not caught
    /// up.
    ///
    /// # Errors
    ///
    /// With what stands in the way.
    pub fn may_vote(&self, id: u64, matched: u64) -> Result<bool, Refusal> {
        self.known(id)?;
        let silent: Vec<u64> = self
            .members
            .iter()
            .filter(|member| member.voter && !member.answers)
            .map(|member| member.id)
            .collect();
        if !silent.is_empty() {
            return Err(Refusal::DeadFirst { id, silent });
        }
        Ok(matched > 0 && matched + CATCH_UP_LAG >= self.last_log())
    }

    /// Whether a member may be removed.
    ///
    /// # Errors
    ///
    /// With what stands in the way.
    pub fn may_leave(&self, id: u64) -> Result<(), Refusal> {
        if !self.known(id)?.voter {
            return Ok(());
        }
        let left: Vec<&MemberSeen> =
            self.members.iter().filter(|member| member.voter && member.id != id).collect();
        if left.is_empty() {
            return Err(Refusal::LastVoter { id });
        }
        let (silent, needed) = (silent(&left), left.len() / 2 + 1);
        let answering = left.len() - silent.len();
        if answering < needed {
            return Err(Refusal::NoQuorum { id, answering, needed, silent });
        }
        Ok(())
    }

    /// Whether the others may be told that a member is at another address.
    ///
    /// # Errors
    ///
    /// With what stands in the way.
    pub fn may_move(&self, id: u64, address: &str, found: &Found) -> Result<(), Refusal> {
        self.known(id)?;
        if let Some(other) = self.members.iter().find(|member| member.id != id && member.address == address) {
            return Err(Refusal::AddressTaken { address: address.to_owned(), id: other.id });
        }
        if there(id, address, found)?.last_log == 0 && self.last_log() > 0 {
            return Err(Refusal::LostLog { id });
        }
        Ok(())
    }

    /// Whether a member may lead.
    ///
    /// # Errors
    ///
    /// With what stands in the way.
    pub fn may_lead(&self, id: u64) -> Result<(), Refusal> {
        let member = self.known(id)?;
        if !member.voter {
            return Err(Refusal::Learner { id });
        }
        if !member.answers {
            let (address, why) = (member.address.clone(), "it does not answer".to_owned());
            return Err(Refusal::NotRunning { id, address, why });
        }
        Ok(())
    }

    /// The level to which the cluster may be raised; `None` if no member knows a higher one.
    ///
    /// # Errors
    ///
    /// With who does not answer, or cannot follow.
    pub fn may_finalize(&self) -> Result<Option<u32>, Refusal> {
        let silent = silent(&self.members.iter().collect::<Vec<_>>());
        if !silent.is_empty() {
            return Err(Refusal::Unheard { silent });
        }
        let level = self.members.iter().map(|member| member.level_max).max().unwrap_or(FIRST_LEVEL);
        if level <= self.level {
            return Ok(None);
        }
        let behind: Vec<_> = self.members.iter().filter(|member| member.level_max < level).collect();
        if behind.is_empty() {
            return Ok(Some(level));
        }
        let members =
            behind.iter().map(|member| (member.id, member.version.clone(), member.level_max)).collect();
        Err(Refusal::CannotFollow { level, members })
    }
}

fn silent(members: &[&MemberSeen]) -> Vec<u64> {
    members.iter().filter(|member| !member.answers).map(|member| member.id).collect()
}

fn there<'a>(id: u64, address: &str, found: &'a Found) -> Result<&'a MemberSeen, Refusal> {
    let address = address.to_owned();
    match found {
        Found::Nobody(why) => Err(Refusal::NotRunning { id, address, why: why.clone() }),
        Found::Other { cluster, member } => {
            Err(Refusal::Stranger { id, address, cluster: cluster.clone(), member: *member })
        }
        Found::Member(member) => Ok(member),
    }
}

#[cfg(test)]
mod tests;
