//! What can go wrong with a member, in words of this crate.

use std::{fmt, time::Duration};

use openraft::errors::{
    ChangeMembershipError, ClientWriteError, Fatal, ForwardToLeader, LinearizableReadError, RaftError,
};

use super::types::TypeConfig;
use crate::store::StoreError;

/// A member and where to reach it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its address, `host:port`.
    pub address: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {} at {}", self.id, self.address)
    }
}

/// A member could not be started.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cluster from whose backup this member was made is not gone.
    #[error(
        "this member was restored from a backup, and the cluster of before is alive: {} answers. Two clusters would give orders to the same \
         fleets. Stop those members, see to it that they do not start again, and start this one; or, if they are well, wipe this one's \
         data folder and do without the restore",
        .alive.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    PredecessorLives {
        /// Its members that answer.
        alive: Vec<Member>,
    },
    /// The options make no sense.
    #[error("the cluster options cannot work: {0}")]
    Options(String),
    /// The consensus library refused to start.
    #[error("cannot start this member: {0}")]
    Start(String),
}

/// A proposal was not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Only the leader takes proposals. Nothing was written; ask the one named.
    #[error("this member is not the leader; {}", leader_hint(.leader))]
    NotLeader {
        /// The leader this member knows of, if any.
        leader: Option<Member>,
    },
    /// No majority confirmed it in time. It may still be applied, or may have been: propose the same request again, the
    /// core recognises it.
    #[error("the outcome is unknown: {reason}; repeat the same request")]
    Unavailable {
        /// What happened.
        reason: String,
    },
    /// Another change of the members is not decided yet. Nothing was written.
    #[error("another change of the cluster's members is under way")]
    Changing,
    /// The command is larger than the log takes. Nothing was written.
    #[error("the command has {bytes} bytes, and the log takes at most {limit}; make the request smaller")]
    TooLarge {
        /// Its encoded size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The change of members is not allowed now. Nothing was written.
    #[error("the cluster's members cannot be changed like this: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// This member has stopped and must be restarted; its log says why.
    #[error("this member has stopped: {reason}")]
    Fatal {
        /// Why.
        reason: String,
    },
}

/// A read could not be confirmed to be current. Reading has no effects, so it may simply be tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Only the leader can confirm a read; ask the one named.
    #[error("this member is not the leader; {}", leader_hint(.leader))]
    NotLeader {
        /// The leader this member knows of, if any.
        leader: Option<Member>,
    },
    /// No majority confirmed in time that this member still leads.
    #[error("the read could not be confirmed: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
    /// This member has stopped and must be restarted; its log says why.
    #[error("this member has stopped: {reason}")]
    Fatal {
        /// Why.
        reason: String,
    },
}

fn leader_hint(leader: &Option<Member>) -> String {
    match leader {
        Some(leader) => format!("ask {leader}"),
        None => "no leader is known, an election may be under way".to_owned(),
    }
}

/// The text for a deadline that has passed.
pub(crate) fn no_majority_within(deadline: Duration) -> String {
    format!("no majority of members answered within {} ms", deadline.as_millis())
}

fn leader_of(forward: &ForwardToLeader<TypeConfig>) -> Option<Member> {
    let address = forward.leader_node.as_ref()?.addr.clone();
    Some(Member { id: forward.leader_id?, address })
}

impl From<Fatal<TypeConfig>> for ProposeError {
    fn from(fatal: Fatal<TypeConfig>) -> Self {
        ProposeError::Fatal { reason: fatal.to_string() }
    }
}

impl From<RaftError<TypeConfig, ClientWriteError<TypeConfig>>> for ProposeError {
    fn from(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Self {
        match error {
            RaftError::Fatal(fatal) => fatal.into(),
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                ProposeError::NotLeader { leader: leader_of(&forward) }
            }
            // It was in the log of a leader that was deposed; the new one may have it too.
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
                ProposeError::Unavailable { reason: "this member lost the leadership meanwhile".to_owned() }
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(
                ChangeMembershipError::InProgress(_),
            )) => ProposeError::Changing,
            RaftError::APIError(ClientWriteError::ChangeMembershipError(refusal)) => {
                ProposeError::Refused { reason: refusal.to_string() }
            }
            RaftError::APIError(ClientWriteError::PreconditionFailed(refusal)) => {
                ProposeError::Refused { reason: refusal.to_string() }
            }
        }
    }
}

impl From<RaftError<TypeConfig, LinearizableReadError<TypeConfig>>> for ReadError {
    fn from(error: RaftError<TypeConfig, LinearizableReadError<TypeConfig>>) -> Self {
        match error {
            RaftError::Fatal(fatal) => ReadError::Fatal { reason: fatal.to_string() },
            RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
                ReadError::NotLeader { leader: leader_of(&forward) }
            }
            RaftError::APIError(LinearizableReadError::QuorumNotEnough(missing)) => {
                let members = missing.got.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                ReadError::Unavailable { reason: format!("no majority of members answers, only {members}") }
            }
        }
    }
}
