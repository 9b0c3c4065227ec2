//! The gate between this member and the others: nothing passes before it is clear with which memory either side speaks.
//!
//! ```text
//!   a store that took part before ──► asks the others, briefly ─────────┐
//!   a new one of a new cluster ─────► asks until all have answered ─────┼──► open
//!   a new one that waits to be taken in ──► invited by the leader ──────┘
//!                                  any of them knows better ──► refused: the member ends and says what to do
//! ```
//!
//! A new store must hear all the others because it cannot know whether it is new: the id may have voted with a folder that was
//! lost, and only whom it voted for can tell. A store that took part before has its own memory, so the others only confirm that it is the newest
//! copy; who does not answer is not waited for, or a cluster could not start without all of its members.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use openraft::async_runtime::WatchReceiver as _;
use soloist_proto::{
    errors::Problem,
    v1::{self, RaftEnvelope, RollCallReply, RollCallRequest, raft_service_client::RaftServiceClient},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tonic::{Code, Status};

use super::{
    error::{Member, ProposeError},
    network::connect,
    types::Raft,
};
use crate::store::{Passport, Roll, StoreError, Stranger};

/// How long a store that took part before waits for the others' answers.
const CONFIRMATION: Duration = Duration::from_secs(1);
/// Time for one answer.
const ANSWER: Duration = Duration::from_secs(1);
/// Between two questions to a member that did not answer.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two notes of who is waited for.
const NOTE: Duration = Duration::from_secs(10);

/// The gate of one member. Shared behind an `Arc`.
#[derive(Debug)]
pub(crate) struct Gate {
    cluster: String,
    member: u64,
    roll: Arc<Roll>,
    /// Index of the last entry in the log when it was opened.
    last: Option<u64>,
    /// Whether it is to be taken in by a cluster that does not know it yet.
    joins: bool,
    open: watch::Sender<bool>,
    refused: watch::Sender<Option<String>>,
}

/// What a member says about this one.
enum Verdict {
    Fine,
    Against(String),
    Silent,
}

impl Gate {
    pub(crate) fn new(cluster: String, member: u64, roll: Arc<Roll>, last: Option<u64>, joins: bool) -> Gate {
        let (open, refused) = (watch::Sender::new(false), watch::Sender::new(None));
        Gate { cluster, member, roll, last, joins, open, refused }
    }

    /// Why this member must not take part, once that is known.
    pub(crate) fn refused(&self) -> watch::Receiver<Option<String>> {
        self.refused.subscribe()
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    pub(crate) fn era(&self) -> u64 {
        self.roll.own().era
    }

    /// What this member shows with each message.
    pub(crate) fn passport(&self) -> v1::Passport {
        to_wire(self.roll.own())
    }

    pub(crate) fn envelope(&self, to: u64, payload: Vec<u8>) -> RaftEnvelope {
        let (cluster, from) = (self.cluster.clone(), self.member);
        RaftEnvelope { cluster, from, to, payload, passport: Some(self.passport()) }
    }

    /// Whether a message of another member may be looked at. Who was never met is remembered first, on the disk.
    pub(crate) fn pass(&self, from: u64, shown: Option<&v1::Passport>) -> Result<(), Status> {
        if !self.is_open() {
            if self.joins && !self.roll.begun() {
                // Nobody calls one that was never taken in: this id had another folder.
                self.refuse(against(self.member, &self.cluster, Stranger::OtherStore));
            }
            let text = format!("member {} does not take part yet", self.member);
            return Err(Status::unavailable(text));
        }
        let met = self.roll.meet(from, shown.map(from_wire).unwrap_or_default());
        let met = met.map_err(|error| Status::internal(super::status::with_sources(&error)))?;
        met.map_err(|stranger| {
            let text = format!("member {} does not take the word of member {from}", self.member);
            let hint = against(from, &self.cluster, stranger);
            Problem::new(Code::FailedPrecondition, word(stranger), text, hint).into()
        })
    }

    /// Looks at another member's refusal: if it knows this member with another memory, this one must end.
    pub(crate) fn heed(&self, status: &Status) {
        if status.code() != Code::FailedPrecondition {
            return;
        }
        let problem = Problem::from(status);
        // Of another era, either may be the old one; that is found out when one starts.
        if [word(Stranger::OtherStore), word(Stranger::OlderCopy)].contains(&problem.reason.as_str()) {
            self.refuse(problem.hint);
        }
    }

    /// Ends this member, with the reason.
    pub(crate) fn refuse(&self, why: String) {
        // The first reason explains the others.
        self.refused.send_if_modified(|known| {
            let news = known.is_none();
            known.get_or_insert(why);
            news
        });
    }

    /// Answers another member's roll call.
    pub(crate) fn answer(&self, request: &RollCallRequest, raft: &Raft) -> Result<RollCallReply, StoreError> {
        let (from, shown) = match &request.envelope {
            Some(envelope) => (envelope.from, envelope.passport.as_ref().map(from_wire).unwrap_or_default()),
            None => (0, Passport::default()),
        };
        if request.invite && !self.roll.begun() {
            self.roll.begin(shown.era)?;
            self.open.send_replace(true);
            tracing::info!(by = from, "invited to take part");
        }
        let begun = self.roll.begun();
        // Who has not begun has met nobody, and belongs to no era yet.
        let doubt = self.roll.doubt(from, shown).filter(|_| begun).map_or("", word);
        let metrics = raft.metrics().borrow_watched().clone();
        let mut members = metrics.membership_config.nodes().map(|(id, _)| *id).peekable();
        // One that has just begun knows of no cluster yet.
        let listed = members.peek().is_none() || members.any(|id| id == from);
        let matched = metrics.replication.as_ref().and_then(|known| known.get(&from).copied().flatten());
        Ok(RollCallReply {
            passport: Some(self.passport()),
            begun,
            listed,
            doubt: doubt.to_owned(),
            matched: matched.map(|id| id.index),
        })
    }

    /// Finds out whether this store may take part, and opens the gate. Returns when it is open or refused; for one that waits to be
    /// taken in, at once. `others` are the members it knows of, `founding` says that it is to found a cluster with them.
    pub(crate) async fn admit(&self, others: &BTreeMap<u64, String>, founding: bool) {
        if self.roll.begun() {
            if timeout(CONFIRMATION, self.ask_all(others, Instant::now() + CONFIRMATION)).await.is_err() {
                tracing::debug!("not all members answered the roll call");
            }
        } else if founding {
            self.ask_all(others, Instant::now() + Duration::from_secs(u64::from(u32::MAX))).await;
        } else {
            return;
        }
        if self.refused.borrow().is_some() {
            return;
        }
        let era = self.era();
        match self.roll.begin(era) {
            Ok(()) => drop(self.open.send_replace(true)),
            Err(error) => self.refuse(super::status::with_sources(&error)),
        }
    }

    /// Asks all others until each has answered, one speaks against this member, or it is too late.
    async fn ask_all(&self, others: &BTreeMap<u64, String>, until: Instant) {
        let mut noted = Instant::now();
        let mut waiting = others.clone();
        while !waiting.is_empty() && Instant::now() < until {
            let mut asked: FuturesUnordered<_> =
                waiting.iter().map(|(id, at)| async move { (*id, self.ask(*id, at).await) }).collect();
            let mut heard = Vec::new();
            while let Some((id, verdict)) = asked.next().await {
                match verdict {
                    Verdict::Fine => heard.push(id),
                    Verdict::Against(why) => return self.refuse(why),
                    Verdict::Silent => {}
                }
            }
            drop(asked);
            waiting.retain(|id, _| !heard.contains(id));
            if !waiting.is_empty() {
                if noted.elapsed() >= NOTE {
                    noted = Instant::now();
                    tracing::warn!(missing = ?waiting, "a new store takes part once all members of its list have answered. If this member \
                        had another data folder, do not wait: remove its id from the cluster, and let it join under a new one");
                }
                sleep(PAUSE).await;
            }
        }
    }

    /// Those of these members that answer and belong to another era of this cluster.
    pub(crate) async fn living(&self, members: &BTreeMap<u64, String>) -> Vec<Member> {
        let era = self.era();
        let asked = members.iter().map(|(id, address)| async move {
            let reply = self.call(*id, address, false).await.ok()?;
            let other = reply.begun && reply.passport.is_some_and(|passport| passport.era != era);
            other.then(|| Member { id: *id, address: address.clone() })
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    async fn ask(&self, id: u64, address: &str) -> Verdict {
        let Ok(reply) = self.call(id, address, false).await else { return Verdict::Silent };
        let shown = reply.passport.as_ref().map(from_wire).unwrap_or_default();
        let own = self.roll.own();
        let verdict = |stranger| Verdict::Against(against(self.member, &self.cluster, stranger));
        match reply.doubt.as_str() {
            "" => {}
            // A member of the time before the restore; it is the one that must go.
            _ if shown.era < own.era => return Verdict::Fine,
            "other_era" => return verdict(Stranger::OtherEra),
            "other_store" => return verdict(Stranger::OtherStore),
            _ => return verdict(Stranger::OlderCopy),
        }
        if reply.matched.is_some_and(|matched| self.last.is_none_or(|last| last < matched)) {
            return verdict(if self.roll.begun() { Stranger::OlderCopy } else { Stranger::OtherStore });
        }
        if reply.begun && !reply.listed && !self.roll.begun() {
            return Verdict::Against(format!(
                "member {id} at {address} belongs to cluster {:?}, which does not know member {}: it was removed, or never belonged to it. {}",
                self.cluster,
                self.member,
                steps(self.member)
            ));
        }
        Verdict::Fine
    }

    /// Asks one that is no member yet who it is, and invites it to take part if nothing speaks against it. Only for the leader that takes
    /// it in.
    pub(crate) async fn invite(&self, id: u64, address: &str, until: Instant) -> Result<(), ProposeError> {
        let reply = loop {
            match self.call(id, address, false).await {
                Ok(reply) => break reply,
                Err(reason) if Instant::now() >= until => {
                    let reason = format!("member {id} at {address} does not answer: {reason}");
                    return Err(ProposeError::Unavailable { reason });
                }
                Err(_) => sleep(PAUSE).await,
            }
        };
        let mut shown = reply.passport.as_ref().map(from_wire).unwrap_or_default();
        if !reply.begun {
            // It takes on the era of whoever invites it.
            shown.era = self.era();
        }
        if let Some(stranger) = self.roll.doubt(id, shown) {
            return Err(ProposeError::Refused { reason: against(id, &self.cluster, stranger) });
        }
        if !reply.begun {
            let invited = self.call(id, address, true).await;
            invited.map_err(|reason| ProposeError::Unavailable { reason })?;
        }
        Ok(())
    }

    async fn call(&self, id: u64, address: &str, invite: bool) -> Result<RollCallReply, String> {
        let request = RollCallRequest { envelope: Some(self.envelope(id, Vec::new())), invite };
        let mut client = RaftServiceClient::new(connect(address)?);
        match timeout_at(Instant::now() + ANSWER, client.roll_call(request)).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(status.message().to_owned()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }
}

fn word(stranger: Stranger) -> &'static str {
    match stranger {
        Stranger::OtherEra => "other_era",
        Stranger::OtherStore => "other_store",
        Stranger::OlderCopy => "older_copy",
        Stranger::TooMany => "too_many_members",
    }
}

/// What speaks against a member, and what to do.
fn against(member: u64, cluster: &str, stranger: Stranger) -> String {
    let found = match stranger {
        Stranger::OtherEra => format!(
            "cluster {cluster:?} was restored from a backup, and the data folder of member {member} is not of it"
        ),
        Stranger::OtherStore => format!(
            "member {member} of cluster {cluster:?} is known with another data folder: what it promised with that one is not in this one"
        ),
        Stranger::OlderCopy => format!(
            "the data folder of member {member} of cluster {cluster:?} is an older copy: it has forgotten what the others were promised"
        ),
        Stranger::TooMany => {
            return format!("cluster {cluster:?} has had too many members to remember member {member} too");
        }
    };
    format!("{found}. {}", steps(member))
}

/// How a member whose memory is lost comes back.
fn steps(member: u64) -> String {
    format!(
        "It must not take part. Stop it; take the id out with \"soloist cluster remove {member}\"; wipe its data folder; give it an id that \
         was never used and \"join = true\" in place of a list of members; start it; and take it in with \"soloist cluster add NEW-ID \
         HOST:PORT\""
    )
}

fn to_wire(passport: Passport) -> v1::Passport {
    let Passport { era, store, run, draw } = passport;
    v1::Passport { era, store, run, draw }
}

fn from_wire(passport: &v1::Passport) -> Passport {
    let v1::Passport { era, store, run, draw } = *passport;
    Passport { era, store, run, draw }
}
