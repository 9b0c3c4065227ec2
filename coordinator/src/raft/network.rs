//! Calls to the other members.
//!
//! Each peer has three connections, because one large message must not delay what keeps the cluster together: one for the
//! log and for votes, one for heartbeats, one for snapshots. Every call ends by a deadline, and a connection that has
//! gone silent is closed by its keep-alive, so a network that comes back is used at once.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt, future::Either, stream};
use openraft::{
    BasicNode, OptionalSend, RaftNetworkFactory,
    base::{BoxFuture, BoxStream},
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{RPCOption, RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use soloist_proto::v1::{
    RaftAnswer, RaftEnvelope, SnapshotPart, raft_service_client::RaftServiceClient, snapshot_part::Part,
};
use tokio::time::timeout;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint},
};

use super::{
    append_stream,
    gate::Gate,
    types::{Snapshot, TypeConfig, Vote},
    wire::{MAX_MESSAGE_BYTES, SNAPSHOT_PART_BYTES, SnapshotHeader},
};
use crate::store::codec::{checksum, decode, encode};

/// Time to connect. A member that needs longer is as good as gone for an election.
const CONNECT_DEADLINE: Duration = Duration::from_millis(500);

/// A connection is asked for a sign of life this often, and closed without one.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// The least a call is given, whatever the library asks for: its own limit for opening a stream of appends is a
/// heartbeat, less than a busy disk may need.
const LEAST_DEADLINE: Duration = Duration::from_millis(300);

type RpcError = RPCError<TypeConfig>;

/// Makes clients for the other members.
#[derive(Debug)]
pub(crate) struct Network {
    gate: Arc<Gate>,
    lines: Arc<Lines>,
}

/// Where the members are, and the connections to them. The library keeps its clients while a member moves, so each call asks
/// here anew.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    inner: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    addresses: BTreeMap<u64, String>,
    channels: BTreeMap<(u64, Lane), (String, Channel)>,
}

impl Lines {
    fn inner(&self) -> MutexGuard<'_, Known> {
        // Nothing under the lock can end half-way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns where members are now.
    pub(crate) fn learn<'a>(&self, addresses: impl IntoIterator<Item = (&'a u64, &'a String)>) {
        let mut known = self.inner();
        for (id, address) in addresses {
            if known.addresses.get(id) != Some(address) {
                known.addresses.insert(*id, address.clone());
            }
        }
    }

    /// A client on the member's connection of this kind; the connection is made when it is first used.
    fn client(&self, id: u64, lane: Lane) -> Result<RaftServiceClient<Channel>, String> {
        let mut known = self.inner();
        let address = known.addresses.get(&id).cloned().unwrap_or_default();
        let cached = known.channels.get(&(id, lane)).filter(|(at, _)| *at == address);
        let channel = match cached {
            Some((_, channel)) => channel.clone(),
            None => {
                let channel = connect(&address)?;
                known.channels.insert((id, lane), (address, channel.clone()));
                channel
            }
        };
        Ok(RaftServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Log,
    Heartbeat,
    Snapshot,
}

impl Network {
    /// Behind this member's gate.
    pub(crate) fn new(gate: Arc<Gate>) -> Network {
        Network { gate, lines: Arc::default() }
    }

    /// Where the members are.
    pub(crate) fn lines(&self) -> Arc<Lines> {
        self.lines.clone()
    }

    /// A client for calls of one kind to a member.
    fn peer(&self, id: u64, node: &BasicNode, lane: Lane) -> Peer {
        self.lines.learn([(&id, &node.addr)]);
        Peer { gate: self.gate.clone(), to: id, lane, lines: self.lines.clone() }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        self.peer(target, node, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        self.peer(target, node, Lane::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        self.peer(target, node, Lane::Snapshot)
    }
}

/// A client for one member.
#[derive(Debug)]
pub(crate) struct Peer {
    gate: Arc<Gate>,
    to: u64,
    lane: Lane,
    lines: Arc<Lines>,
}

impl Peer {
    fn client(&self) -> Result<RaftServiceClient<Channel>, RpcError> {
        if !self.gate.is_open() {
            return Err(unreachable(self.to, "this member does not take part yet"));
        }
        self.lines.client(self.to, self.lane).map_err(|reason| unreachable(self.to, reason))
    }

    /// A request with one answer.
    async fn call<Q, A, F>(
        &self,
        request: &Q,
        option: RPCOption,
        send: impl FnOnce(RaftServiceClient<Channel>, Request<RaftEnvelope>) -> F,
    ) -> Result<A, RpcError>
    where
        Q: Serialize,
        A: DeserializeOwned,
        F: Future<Output = Result<Response<RaftAnswer>, Status>>,
    {
        let deadline = option.soft_ttl();
        let payload = encode(request).map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        let mut request = Request::new(self.gate.envelope(self.to, payload));
        request.set_timeout(deadline);
        let answer = timeout(deadline, send(self.client()?, request)).await;
        let answer = answer
            .map_err(|_| silent(self.to, deadline))?
            .map_err(|status| failed(&self.gate, self.to, &status))?;
        opened(&self.gate, self.to, &answer.into_inner())
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Vec<u8>;

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.call(&request, option, |mut client, request| async move { client.vote(request).await }).await
    }

    // The default would grant every pre-vote without asking.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.call(&request, option, |mut client, request| async move { client.pre_vote(request).await }).await
    }

    // The default cannot reach anyone.
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        self.call(
            &request,
            option,
            |mut client, request| async move { client.transfer_leader(request).await },
        )
        .await
    }

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        self.call(&request, option, |mut client, request| async move { client.append_entries(request).await })
            .await
    }

    // The default waits for each answer before it sends the next request.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let deadline = option.soft_ttl().max(LEAST_DEADLINE);
            let mut client = self.client()?;
            let (gate, to) = (self.gate.clone(), self.to);
            let (requests, answers) = append_stream::split(input, {
                let gate = gate.clone();
                move |payload| gate.envelope(to, payload)
            });
            let opened = timeout(deadline, client.stream_append(requests)).await;
            let incoming = opened
                .map_err(|_| silent(to, deadline))?
                .map_err(|status| failed(&gate, to, &status))?
                .into_inner();
            Ok(answers.read(gate, to, incoming).boxed() as BoxStream<'s, _>)
        })
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let deadline = option.soft_ttl();
        let header = SnapshotHeader {
            vote,
            meta: snapshot.meta,
            bytes: snapshot.snapshot.len() as u64,
            checksum: checksum(SnapshotHeader::KEY, &snapshot.snapshot),
        };
        let payload = encode(&header).map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        let first = SnapshotPart { part: Some(Part::Header(self.gate.envelope(self.to, payload))) };
        let parts = stream::once(async { first }).chain(stream::iter(parts(snapshot.snapshot)));
        let mut client = self.client()?;
        let (gate, to) = (self.gate.clone(), self.to);
        let transfer = timeout(deadline, client.install_snapshot(parts));
        match futures::future::select(Box::pin(transfer), Box::pin(cancel)).await {
            Either::Left((answer, _)) => {
                let answer =
                    answer.map_err(|_| silent(to, deadline))?.map_err(|status| failed(&gate, to, &status))?;
                Ok(opened(&gate, to, &answer.into_inner())?)
            }
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }
}

pub(super) fn connect(address: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| format!("{address:?} is not an address: {error}"))?;
    Ok(endpoint
        .connect_timeout(CONNECT_DEADLINE)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .connect_lazy())
}

/// Cuts a snapshot into messages, one at a time.
fn parts(state: Vec<u8>) -> impl Iterator<Item = SnapshotPart> {
    (0..state.len()).step_by(SNAPSHOT_PART_BYTES).map(move |start| {
        let end = state.len().min(start + SNAPSHOT_PART_BYTES);
        SnapshotPart { part: Some(Part::Data(state[start..end].to_vec())) }
    })
}

/// The library pauses before it tries an unreachable member again, which is right for every failed call.
fn unreachable(member: u64, reason: impl std::fmt::Display) -> RpcError {
    RPCError::Unreachable(Unreachable::from_string(format!("member {member}: {reason}")))
}

/// Reads an answer, if the memory it was given from is the member's.
pub(crate) fn opened<A: DeserializeOwned>(
    gate: &Gate,
    member: u64,
    answer: &RaftAnswer,
) -> Result<A, RpcError> {
    gate.pass(member, answer.passport.as_ref()).map_err(|status| unreachable(member, status.message()))?;
    decode(&answer.payload).map_err(|error| RPCError::Network(NetworkError::new(&error)))
}

pub(crate) fn failed(gate: &Gate, member: u64, status: &Status) -> RpcError {
    gate.heed(status);
    unreachable(member, format_args!("{:?}: {}", status.code(), status.message()))
}

pub(crate) fn silent(member: u64, deadline: Duration) -> RpcError {
    unreachable(member, format_args!("no answer within {} ms", deadline.as_millis()))
}
