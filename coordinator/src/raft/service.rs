//! The server for calls from the other members.

use std::{fmt::Display, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream::BoxStream};
use openraft::raft::AppendEntriesRequest;
use serde::{Serialize, de::DeserializeOwned};
use soloist_core::command::FEATURE_LEVEL;
use soloist_proto::v1::{
    RaftAnswer, RaftEnvelope, RollCallReply, RollCallRequest, SnapshotPart, raft_service_server as server,
    snapshot_part::Part,
};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    gate::Gate,
    status::with_sources,
    types::{Raft, Snapshot, TypeConfig},
    wire::{MAX_MESSAGE_BYTES, SnapshotHeader},
};
use crate::store::{
    MAX_SNAPSHOT_BYTES, StoreError,
    codec::{append_level, checksum, decode, encode},
};

/// Snapshots that come in at a time: each is held in memory until it is whole.
const SNAPSHOTS_MAX: usize = 1;
/// The next part of a snapshot comes within so long, else its place is free again.
const PART_MAX: Duration = Duration::from_secs(10);

/// Answers the other members' calls. Made by [`RaftNode::service`](super::RaftNode::service).
#[derive(Clone)]
pub struct RaftService {
    cluster: String,
    member: u64,
    raft: Raft,
    /// Set when the leader sends what only a later release can read.
    unread: watch::Sender<Option<Arc<StoreError>>>,
    gate: Arc<Gate>,
    /// Places for snapshots that come in.
    snapshots: Arc<Semaphore>,
    /// Ends the streams, which would otherwise keep a server from shutting down.
    closing: CancellationToken,
}

impl RaftService {
    /// The service of one member, with the message sizes that members use among themselves.
    pub(crate) fn server(
        cluster: String,
        member: u64,
        raft: Raft,
        unread: watch::Sender<Option<Arc<StoreError>>>,
        gate: Arc<Gate>,
        closing: CancellationToken,
    ) -> server::RaftServiceServer<RaftService> {
        let snapshots = Arc::new(Semaphore::new(SNAPSHOTS_MAX));
        let service = RaftService { cluster, member, raft, unread, gate, snapshots, closing };
        server::RaftServiceServer::new(service)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Reads a request, if it is for this member of this cluster.
    fn open<T: DeserializeOwned>(&self, envelope: &RaftEnvelope) -> Result<T, Status> {
        self.address(envelope)?;
        self.gate.pass(envelope.from, envelope.passport.as_ref())?;
        decode(&envelope.payload).map_err(|error| {
            if let Some(found) = append_level(&envelope.payload).filter(|level| *level > FEATURE_LEVEL) {
                let what = "what the leader sent".to_owned();
                let error = StoreError::TooNew { what, found, max: FEATURE_LEVEL };
                self.unread.send_replace(Some(Arc::new(error)));
            }
            Status::invalid_argument(with_sources(&error))
        })
    }

    /// Whether a request is for this member of this cluster.
    fn address(&self, envelope: &RaftEnvelope) -> Result<(), Status> {
        let RaftEnvelope { cluster, from, to, .. } = envelope;
        if *cluster != self.cluster || *to != self.member {
            return Err(Status::failed_precondition(format!(
                "member {from} called member {to} of cluster {cluster:?}, and this is member {} of cluster {:?}; one \
                 of the two has a wrong address for the other",
                self.member, self.cluster
            )));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl server::RaftService for RaftService {
    async fn vote(&self, request: Request<RaftEnvelope>) -> Result<Response<RaftAnswer>, Status> {
        let request = self.open(request.get_ref())?;
        self.answer(&self.raft.vote(request).await.map_err(stopped)?)
    }

    async fn pre_vote(&self, request: Request<RaftEnvelope>) -> Result<Response<RaftAnswer>, Status> {
        let request = self.open(request.get_ref())?;
        self.answer(&self.raft.pre_vote(request).await.map_err(stopped)?)
    }

    async fn transfer_leader(&self, request: Request<RaftEnvelope>) -> Result<Response<RaftAnswer>, Status> {
        let request = self.open(request.get_ref())?;
        self.answer(&self.raft.handle_transfer_leader(request).await.map_err(stopped)?)
    }

    async fn append_entries(&self, request: Request<RaftEnvelope>) -> Result<Response<RaftAnswer>, Status> {
        let request = self.open(request.get_ref())?;
        self.answer(&self.raft.append_entries(request).await.map_err(stopped)?)
    }

    type StreamAppendStream = BoxStream<'static, Result<RaftAnswer, Status>>;

    async fn stream_append(
        &self,
        request: Request<Streaming<RaftEnvelope>>,
    ) -> Result<Response<Self::StreamAppendStream>, Status> {
        let requests = self.clone().appends(request.into_inner());
        let answers = self.raft.stream_append(requests.boxed());
        let service = self.clone();
        let answers = answers.map(move |answer| service.answer_body(&answer.map_err(stopped)?));
        let answers = answers.take_until(self.closing.clone().cancelled_owned());
        Ok(Response::new(answers.boxed()))
    }

    async fn roll_call(&self, request: Request<RollCallRequest>) -> Result<Response<RollCallReply>, Status> {
        let request = request.into_inner();
        self.address(request.envelope.as_ref().unwrap_or(&RaftEnvelope::default()))?;
        let reply = self.gate.answer(&request, &self.raft);
        reply.map(Response::new).map_err(|error| Status::internal(with_sources(&error)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotPart>>,
    ) -> Result<Response<RaftAnswer>, Status> {
        let mut parts = request.into_inner();
        let first = next(&mut parts).await?.and_then(|first| first.part);
        let Some(Part::Header(envelope)) = first else {
            return Err(Status::invalid_argument("a snapshot must begin with its header"));
        };
        let header: SnapshotHeader = self.open(&envelope)?;
        // The sender tries again after a moment, as whenever it is refused.
        let _place = self.snapshots.try_acquire().map_err(|_| {
            Status::resource_exhausted("this member is taking another snapshot: wait until it has it")
        })?;
        let snapshot = receive(&header, parts).await?;
        let snapshot = Snapshot { meta: header.meta, snapshot };
        self.answer(&self.raft.install_full_snapshot(header.vote, snapshot).await.map_err(stopped)?)
    }
}

impl RaftService {
    fn answer<T: Serialize>(&self, value: &T) -> Result<Response<RaftAnswer>, Status> {
        self.answer_body(value).map(Response::new)
    }

    fn answer_body<T: Serialize>(&self, value: &T) -> Result<RaftAnswer, Status> {
        let payload = encode(value).map_err(|error| Status::internal(with_sources(&error)))?;
        Ok(RaftAnswer { payload, passport: Some(self.gate.passport()) })
    }

    /// The appends of a stream, up to the first that cannot be read: the ones after it would leave a hole.
    fn appends(
        self,
        incoming: Streaming<RaftEnvelope>,
    ) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static {
        incoming.scan(self, |service, envelope| {
            let request = envelope.and_then(|envelope| service.open(&envelope));
            if let Err(status) = &request {
                tracing::debug!(%status, "a stream of appends ended");
            }
            std::future::ready(request.ok())
        })
    }
}

/// Collects a snapshot's bytes, never more than it announced.
async fn receive(header: &SnapshotHeader, mut parts: Streaming<SnapshotPart>) -> Result<Vec<u8>, Status> {
    if header.bytes > MAX_SNAPSHOT_BYTES {
        return Err(Status::resource_exhausted(format!(
            "a snapshot of {} bytes is larger than the {MAX_SNAPSHOT_BYTES} that a member takes",
            header.bytes
        )));
    }
    let mut snapshot = Vec::new();
    while let Some(part) = next(&mut parts).await? {
        let Some(Part::Data(data)) = part.part else {
            return Err(Status::invalid_argument("after a snapshot's header, only data may come"));
        };
        if (snapshot.len() + data.len()) as u64 > header.bytes {
            return Err(Status::invalid_argument("a snapshot is longer than its header says"));
        }
        snapshot.extend_from_slice(&data);
    }
    if snapshot.len() as u64 != header.bytes || checksum(SnapshotHeader::KEY, &snapshot) != header.checksum {
        return Err(Status::data_loss("a snapshot did not arrive as it was sent"));
    }
    Ok(snapshot)
}

async fn next(parts: &mut Streaming<SnapshotPart>) -> Result<Option<SnapshotPart>, Status> {
    let silent = |_| Status::deadline_exceeded(format!("no part of a snapshot in {} s", PART_MAX.as_secs()));
    timeout(PART_MAX, parts.message()).await.map_err(silent)?
}

/// The library only fails once it has stopped.
fn stopped(error: impl Display) -> Status {
    Status::unavailable(format!("this member has stopped: {error}"))
}
