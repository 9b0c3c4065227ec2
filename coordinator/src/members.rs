//! The leader's side of changes to the cluster: it looks at everybody, asks the core whether the change may be, and has Raft
//! make it.
//!
//! ```text
//!   change ──► its turn ──► a look: Raft's members, the state, an answer of each ──► core: may it be? ──► Raft
//! ```
//!
//! One change at a time: what was seen must still be so when the change is made. Whatever is not decided here on the leader is
//! passed on to it by `grpc::cluster`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::join_all;
use soloist_core::{
    Command,
    members::{ClusterSeen, MemberSeen, Refusal, UsedIds},
};
use soloist_proto::{
    WIRE_VERSION,
    errors::{NOT_LEADER, Problem, UNREACHABLE},
    v1,
};
use tokio::{
    sync::MutexGuard,
    time::{Instant, sleep, timeout},
};
use tonic::Code;

use crate::{
    leader::propose_here,
    peers::seen,
    raft::{HandOver, Member, ReadError, Role},
    shared::Shared,
};

/// How long a change waits for the one before it.
const TURN: Duration = Duration::from_secs(10);
/// How long a leader that was just elected may take to be promoted.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long another member may take to take over.
const HAND_OVER: Duration = Duration::from_secs(3);
/// How long the founder of a cluster waits for all its members, to let it begin at their level.
const FOUNDING: Duration = Duration::from_secs(60);
const FOUNDING_PAUSE: Duration = Duration::from_millis(500);

/// What a leader saw before a change.
struct Look {
    members: Vec<MemberSeen>,
    leader: u64,
    level: u32,
    used: UsedIds,
}

impl Look {
    fn cluster(&self) -> ClusterSeen<'_> {
        let Look { members, leader, level, used } = self;
        ClusterSeen { members, leader: *leader, level: *level, used }
    }
}

/// How far a new member came.
pub(crate) type Progress = v1::AddMemberReply;

/// Takes one step towards taking a member in.
pub(crate) async fn add(shared: &Shared, member: &Member, learner: bool) -> Result<Progress, Problem> {
    let _turn = turn(shared).await?;
    let look = look(shared).await?;
    let found = shared.peers.find(member).await;
    if look.cluster().may_join(member.id, &member.address, &found).map_err(refused)? {
        shared.raft.add_learner(member.id, &member.address).await?;
        tracing::info!(%member, "member added as a learner");
    }
    let status = shared.status();
    let matched = status.peers.get(&member.id).and_then(|peer| peer.matched).unwrap_or(0);
    let progress = |done| Progress { done, matched, last_log: status.last_log.unwrap_or(0) };
    if status.voters.contains_key(&member.id) || member.id == status.member {
        return Ok(progress(true));
    }
    let look = Look { members: look_at(shared, &status.addresses()).await, ..look };
    if learner {
        return Ok(progress(matched > 0));
    }
    if !look.cluster().may_vote(member.id, matched).map_err(refused)? {
        return Ok(progress(false));
    }
    shared.raft.promote(member.id).await?;
    tracing::info!(%member, "member votes");
    Ok(progress(true))
}

/// Takes a member out. `Some` with the one that leads now, if it is this member that is to go: the other takes it out.
pub(crate) async fn remove(shared: &Shared, member: u64) -> Result<Option<Member>, Problem> {
    let _turn = turn(shared).await?;
    look(shared).await?.cluster().may_leave(member).map_err(refused)?;
    if member == shared.raft.id() {
        return match shared.raft.hand_over(HAND_OVER).await {
            HandOver::Nobody => Err(nobody("no other member took the leadership over in time")),
            HandOver::To(_) | HandOver::NotLeading => shared
                .other_leader()
                .map(Some)
                .ok_or_else(|| Problem::new(Code::Unavailable, NOT_LEADER, "the leadership moves", "")),
        };
    }
    shared.raft.remove_member(member).await?;
    tracing::info!(member, "member removed");
    Ok(None)
}

/// Tells everybody where a member is now.
pub(crate) async fn relocate(shared: &Shared, member: &Member) -> Result<(), Problem> {
    let _turn = turn(shared).await?;
    let look = look(shared).await?;
    let found = shared.peers.find(member).await;
    look.cluster().may_move(member.id, &member.address, &found).map_err(refused)?;
    shared.raft.move_member(member.id, &member.address).await?;
    tracing::info!(%member, "member moved");
    Ok(())
}

/// Lets another member lead: the one that is named, else the one that is most up to date. Returns who leads.
pub(crate) async fn transfer(shared: &Shared, member: Option<u64>) -> Result<u64, Problem> {
    let _turn = turn(shared).await?;
    let look = look(shared).await?;
    let handed = match member {
        Some(member) if member == shared.raft.id() => return Ok(member),
        Some(member) => {
            look.cluster().may_lead(member).map_err(refused)?;
            shared.raft.hand_over_to(member, Instant::now() + HAND_OVER).await
        }
        None => shared.raft.hand_over(HAND_OVER).await,
    };
    match handed {
        HandOver::To(leader) if member.is_none_or(|member| member == leader) => Ok(leader),
        HandOver::To(leader) => Err(nobody(&format!("member {leader} was faster, and leads now"))),
        HandOver::NotLeading => Err(Problem::new(Code::Unavailable, NOT_LEADER, "the leadership moves", "")),
        HandOver::Nobody => Err(nobody("nobody took the leadership over in time")),
    }
}

/// Raises the feature level to the highest that all members know. Returns the level, and whether it was another before.
pub(crate) async fn finalize(shared: &Shared, by: String) -> Result<(u32, bool), Problem> {
    let _turn = turn(shared).await?;
    let look = look(shared).await?;
    let Some(level) = look.cluster().may_finalize().map_err(refused)? else { return Ok((look.level, false)) };
    let applied = propose_here(shared, Command::Raise { level, by: by.clone() }, PATIENCE).await?;
    applied.reply.map_err(|rejection| Problem::from(&rejection))?;
    tracing::info!(level, by, "the feature level is raised");
    Ok((level, true))
}

/// Lets a cluster that this member has just founded begin at the level of its members: there is no way back to keep open. Gives up
/// when they do not all answer in time; then a person finalizes.
pub(crate) async fn founding(shared: Arc<Shared>) {
    let found = async {
        shared.leadership.founded().await;
        let end = Instant::now() + FOUNDING;
        while Instant::now() < end
            && finalize(&shared, "the founding of the cluster".to_owned()).await.is_err()
        {
            sleep(FOUNDING_PAUSE).await;
        }
    };
    // Cancel-safe: a proposal that is cut off is decided by the log.
    tokio::select! {
        () = shared.stop.cancelled() => {}
        () = found => {}
    }
}

/// This member's view of itself.
pub(crate) fn own(shared: &Shared) -> v1::MemberInfo {
    let status = shared.status();
    v1::MemberInfo {
        member: status.member,
        address: shared.advertise.clone(),
        role: word(status.role).to_owned(),
        leader: status.leader.map(|leader| leader.id),
        term: status.term,
        last_log: status.last_log.unwrap_or(0),
        applied: status.applied.unwrap_or(0),
        voter: status.voters.contains_key(&status.member),
        reachable: true,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        sessions: u32::try_from(shared.hearing.sessions()).unwrap_or(u32::MAX),
        http: shared.http.clone(),
        feature_level: shared.raft.storage().read(|state, _| state.level),
        feature_level_max: shared.raft.max_level(),
        wire_version: WIRE_VERSION,
    }
}

/// How every member is, by id, with the address that the cluster has for it; one that does not answer is `unknown`.
pub(crate) async fn ask_all(shared: &Shared, addresses: &BTreeMap<u64, String>) -> Vec<v1::MemberInfo> {
    let voters = shared.status().voters;
    let ask = |(id, address): (&u64, &String)| {
        let (member, voter) = (Member { id: *id, address: address.clone() }, voters.contains_key(id));
        async move {
            let answer = if member.id == shared.raft.id() {
                Some(own(shared))
            } else {
                shared.peers.member_status(&member).await.ok().and_then(|reply| reply.info)
            };
            let silent = || v1::MemberInfo {
                member: member.id,
                role: "unknown".to_owned(),
                ..v1::MemberInfo::default()
            };
            v1::MemberInfo { voter, address: member.address.clone(), ..answer.unwrap_or_else(silent) }
        }
    };
    join_all(addresses.iter().map(ask)).await
}

async fn look_at(shared: &Shared, addresses: &BTreeMap<u64, String>) -> Vec<MemberSeen> {
    ask_all(shared, addresses).await.iter().map(seen).collect()
}

/// Looks at everybody, once this member's state includes all that was ever decided.
async fn look(shared: &Shared) -> Result<Look, Problem> {
    shared.raft.ensure_linearizable().await.map_err(unread)?;
    let (level, used) = shared.raft.storage().read(|state, _| (state.level, state.used_ids.clone()));
    let members = look_at(shared, &shared.status().addresses()).await;
    Ok(Look { members, leader: shared.raft.id(), level, used })
}

async fn turn(shared: &Shared) -> Result<MutexGuard<'_, ()>, Problem> {
    timeout(TURN, shared.changing.lock()).await.map_err(|_| {
        let text = "another change of the cluster's members is under way";
        Problem::new(Code::Unavailable, UNREACHABLE, text, "try again in a moment")
    })
}

fn refused(refusal: Refusal) -> Problem {
    Problem::new(Code::FailedPrecondition, refusal.reason(), refusal.to_string(), refusal.hint())
}

fn nobody(text: &str) -> Problem {
    Problem::new(
        Code::FailedPrecondition,
        "not_taken_over",
        text,
        "see soloist cluster status, and try again",
    )
}

fn unread(error: ReadError) -> Problem {
    let text = error.to_string();
    match error {
        ReadError::NotLeader { .. } => Problem::new(Code::Unavailable, NOT_LEADER, text, "ask the leader"),
        ReadError::Unavailable { .. } | ReadError::Fatal { .. } => {
            Problem::new(Code::Unavailable, UNREACHABLE, text, "see soloist cluster status")
        }
    }
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
        Role::Learner => "learner",
        Role::Stopped => "stopped",
    }
}
