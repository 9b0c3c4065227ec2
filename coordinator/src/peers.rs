//! Calls to the other members, beside the log. Every call ends by a deadline.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use soloist_core::{
    Command,
    command::FIRST_LEVEL,
    ids::{FleetId, NodeId},
    members::{Found, MemberSeen},
};
use soloist_proto::{
    errors::{DEADLINE, INTERNAL, Problem, REMOVED, UNREACHABLE, WRONG_MEMBER},
    v1::{self, cluster_service_client::ClusterServiceClient, peer_service_client::PeerServiceClient},
};
use tokio::time::{Instant, timeout_at};
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    raft::{Applied, Member, RaftNode, RaftStatus},
    reader::Extras,
    store::codec::{decode, encode},
};

/// Time to connect.
const CONNECT_DEADLINE: Duration = Duration::from_millis(700);
/// A connection is asked for a sign of life this often, and closed without one.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// For calls that the asked member answers from memory.
pub(crate) const QUICK: Duration = Duration::from_millis(1500);
/// For a change of the members, which waits for its turn and for a majority.
pub(crate) const MEMBERSHIP: Duration = Duration::from_secs(20);

/// The other members.
#[derive(Debug)]
pub(crate) struct Peers {
    cluster: String,
    raft: RaftNode,
    channels: Mutex<BTreeMap<u64, (String, Channel)>>,
}

impl Peers {
    pub(crate) fn new(cluster: String, raft: RaftNode) -> Peers {
        Peers { cluster, raft, channels: Mutex::default() }
    }

    /// A connection to a member, made when it is first used and again after it broke.
    fn channel(&self, member: &Member) -> Result<Channel, Problem> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((address, channel)) = channels.get(&member.id)
            && *address == member.address
        {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{}", member.address)).map_err(|error| {
            let hint = "correct the member's address";
            Problem::new(
                Code::Unavailable,
                UNREACHABLE,
                format!("{member} has no usable address: {error}"),
                hint,
            )
        })?;
        let channel = endpoint
            .connect_timeout(CONNECT_DEADLINE)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .connect_lazy();
        channels.insert(member.id, (member.address.clone(), channel.clone()));
        Ok(channel)
    }

    fn envelope(&self, to: u64) -> Option<v1::PeerEnvelope> {
        let (cluster, from, era) = (self.cluster.clone(), self.raft.id(), self.raft.era());
        Some(v1::PeerEnvelope { cluster, from, to, era })
    }

    /// Whether a call was meant for this member, and comes from one that still belongs to the cluster. If not, that is no answer to what
    /// the caller's own client wants: any other member can give one, so the code tells it to go on.
    pub(crate) fn check(
        &self,
        envelope: Option<&v1::PeerEnvelope>,
        status: &RaftStatus,
    ) -> Result<(), Status> {
        match envelope {
            Some(found)
                if found.cluster == self.cluster
                    && found.to == self.raft.id()
                    && found.era == self.raft.era() =>
            {
                if status.belongs(found.from) {
                    return Ok(());
                }
                let text = format!("member {} does not belong to the cluster any more", found.from);
                let hint = "stop it; to come back it needs an empty data folder and another id";
                Err(Problem::new(Code::Unavailable, REMOVED, text, hint).into())
            }
            _ => Err(Problem::new(
                Code::Unavailable,
                WRONG_MEMBER,
                format!(
                    "this is member {} of cluster {:?}, and the call is for another",
                    self.raft.id(),
                    self.cluster
                ),
                "one of the two members has a wrong address for the other",
            )
            .into()),
        }
    }

    /// Has a command written by the leader.
    pub(crate) async fn propose(
        &self,
        leader: &Member,
        command: &Command,
        deadline: Instant,
    ) -> Result<Applied, Problem> {
        let broken =
            |error: &dyn std::fmt::Display| Problem::new(Code::Internal, INTERNAL, error.to_string(), "");
        let command = encode(command).map_err(|error| broken(&error))?;
        let request = v1::ProposeRequest { envelope: self.envelope(leader.id), command };
        let mut client = PeerServiceClient::new(self.channel(leader)?);
        let reply = within(deadline, leader, client.propose(request)).await?;
        Ok(Applied { index: reply.index, reply: decode(&reply.reply).map_err(|error| broken(&error))? })
    }

    /// Tells the leader who was heard.
    pub(crate) async fn hear(
        &self,
        leader: &Member,
        nodes: Vec<v1::HeardNode>,
    ) -> Result<v1::HearReply, Problem> {
        let request = v1::HearRequest { envelope: self.envelope(leader.id), nodes };
        let mut client = PeerServiceClient::new(self.channel(leader)?);
        within(Instant::now() + QUICK, leader, client.hear(request)).await
    }

    /// Asks the leader how far a state must be, and what it remembers.
    pub(crate) async fn read(
        &self,
        leader: &Member,
        fleet: String,
        extras: Extras,
    ) -> Result<v1::ReadReply, Problem> {
        let Extras { inventories, facts, ask_facts } = extras;
        let envelope = self.envelope(leader.id);
        let request = v1::ReadRequest { envelope, fleet, inventories, facts, ask_facts };
        let mut client = PeerServiceClient::new(self.channel(leader)?);
        within(Instant::now() + QUICK, leader, client.read(request)).await
    }

    /// Has another member keep records of an agent.
    pub(crate) async fn keep_records(
        &self,
        member: &Member,
        (fleet, node): (&FleetId, &NodeId),
        records: Vec<String>,
    ) -> Result<(), Problem> {
        let (fleet, node) = (fleet.to_string(), node.to_string());
        let request = v1::KeepRecordsRequest { envelope: self.envelope(member.id), fleet, node, records };
        let mut client = PeerServiceClient::new(self.channel(member)?);
        within(Instant::now() + QUICK, member, client.keep_records(request)).await.map(drop)
    }

    /// The records of a node that another member has.
    pub(crate) async fn get_records(
        &self,
        member: &Member,
        (fleet, node): (&FleetId, &NodeId),
    ) -> Result<Vec<String>, Problem> {
        let deadline = Instant::now() + QUICK;
        let (fleet, node) = (fleet.to_string(), node.to_string());
        let request = v1::GetRecordsRequest { envelope: self.envelope(member.id), fleet, node };
        let mut client = PeerServiceClient::new(self.channel(member)?);
        let mut parts = within(deadline, member, client.get_records(request)).await?;
        let mut records = Vec::new();
        let late =
            || Problem::new(Code::DeadlineExceeded, DEADLINE, format!("{member} did not answer in time"), "");
        while let Some(part) = timeout_at(deadline, parts.message())
            .await
            .map_err(|_| late())?
            .map_err(|status| Problem::from(&status))?
        {
            records.extend(part.records);
        }
        Ok(records)
    }

    /// How a member is.
    pub(crate) async fn member_status(&self, member: &Member) -> Result<v1::MemberStatusReply, Problem> {
        let reply = self.status_at(member).await?;
        let right =
            reply.cluster == self.cluster && reply.info.as_ref().is_some_and(|info| info.member == member.id);
        right.then_some(reply).ok_or_else(|| {
            let text = format!("another process answers where {member} should");
            Problem::new(Code::Unavailable, UNREACHABLE, text, "correct the member's address")
        })
    }

    async fn status_at(&self, member: &Member) -> Result<v1::MemberStatusReply, Problem> {
        let mut client = ClusterServiceClient::new(self.channel(member)?);
        let status = client.member_status(v1::MemberStatusRequest {});
        within(Instant::now() + QUICK, member, status).await
    }

    /// Looks for a member at an address, where somebody else may be, or nobody.
    pub(crate) async fn find(&self, member: &Member) -> Found {
        match self.status_at(member).await {
            Err(problem) => Found::Nobody(problem.message),
            Ok(v1::MemberStatusReply { cluster, info }) => {
                let info = info.unwrap_or_default();
                if cluster == self.cluster && info.member == member.id {
                    return Found::Member(seen(&info));
                }
                Found::Other { cluster, member: info.member }
            }
        }
    }

    /// A client for the leader, to which a call about the cluster is passed on.
    pub(crate) fn leader(&self, leader: &Member) -> Result<ClusterServiceClient<Channel>, Problem> {
        Ok(ClusterServiceClient::new(self.channel(leader)?))
    }

    /// The voters that answer, this member included.
    pub(crate) async fn answering(&self, status: &RaftStatus) -> BTreeSet<u64> {
        let asked = status.voters.iter().map(|(id, address)| async move {
            let member = Member { id: *id, address: address.clone() };
            (*id == self.raft.id() || self.member_status(&member).await.is_ok()).then_some(*id)
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

/// A member that has answered.
pub(crate) fn seen(info: &v1::MemberInfo) -> MemberSeen {
    MemberSeen {
        id: info.member,
        address: info.address.clone(),
        voter: info.voter,
        answers: info.reachable,
        leads: info.role == "leader",
        last_log: info.last_log,
        level_max: info.feature_level_max.max(FIRST_LEVEL),
        version: info.version.clone(),
    }
}

/// A call to a member, with a deadline.
pub(crate) async fn within<T>(
    deadline: Instant,
    member: &Member,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Problem> {
    match timeout_at(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => {
            let problem = Problem::from(&status);
            if problem.reason == UNREACHABLE {
                let message = format!("{member} cannot be reached: {}", problem.message);
                return Err(Problem { message, ..problem });
            }
            Err(problem)
        }
        Err(_) => {
            let text = format!("{member} did not answer in time");
            Err(Problem::new(Code::DeadlineExceeded, DEADLINE, text, "try again in a moment"))
        }
    }
}
