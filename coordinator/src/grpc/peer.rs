//! `PeerService`: what the leader does for the other members.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream, stream::BoxStream};
use soloist_core::{
    Command,
    ids::{FleetId, Incarnation, NodeId},
};
use soloist_proto::{
    convert::{FieldError, name},
    errors::{NOT_LEADER, Problem},
    v1::{self, peer_service_server::PeerService},
};
use tonic::{Code, Request, Response, Status};

use crate::{
    contact::NODES_PER_MESSAGE,
    evidence,
    leader::propose_here,
    memory::News,
    reader::Extras,
    shared::Shared,
    store::codec::{decode, encode},
};

/// How long a leader that was just elected may take to be promoted.
const PATIENCE: Duration = Duration::from_secs(1);

/// Serves the other members.
pub(crate) struct Peer {
    shared: Arc<Shared>,
}

impl Peer {
    pub(crate) fn new(shared: Arc<Shared>) -> Peer {
        Peer { shared }
    }
}

fn not_leader() -> Status {
    Problem::new(Code::Unavailable, NOT_LEADER, "this member does not lead, or not yet", "ask the leader")
        .into()
}

#[tonic::async_trait]
impl PeerService for Peer {
    async fn propose(
        &self,
        request: Request<v1::ProposeRequest>,
    ) -> Result<Response<v1::ProposeReply>, Status> {
        let request = request.into_inner();
        self.shared.peers.check(request.envelope.as_ref(), &self.shared.status())?;
        let command: Command = decode(&request.command)
            .map_err(|error| FieldError::new("command", crate::server::chain(&error)))?;
        // Only the leader itself knows when these are due.
        if matches!(
            command,
            Command::Promote { .. } | Command::Heard { .. } | Command::Timer { .. } | Command::Raise { .. }
        ) {
            return Err(FieldError::new("command", "a member does not forward its own duties").into());
        }
        if self.shared.leads().is_none() {
            return Err(not_leader());
        }
        let applied = propose_here(&self.shared, command, PATIENCE).await.map_err(Problem::from)?;
        let reply = encode(&applied.reply).map_err(|error| {
            Problem::new(Code::Internal, soloist_proto::errors::INTERNAL, error.to_string(), "")
        })?;
        Ok(Response::new(v1::ProposeReply { index: applied.index, reply }))
    }

    async fn hear(&self, request: Request<v1::HearRequest>) -> Result<Response<v1::HearReply>, Status> {
        let request = request.into_inner();
        self.shared.peers.check(request.envelope.as_ref(), &self.shared.status())?;
        if request.nodes.len() > NODES_PER_MESSAGE {
            return Err(FieldError::new("nodes", format!("at most {NODES_PER_MESSAGE}")).into());
        }
        let news = request.nodes.into_iter().map(news).collect::<Result<Vec<_>, _>>()?;
        let shared = &self.shared;
        let Some(now) = shared.leadership.stamp_within(shared, PATIENCE).await else {
            return Err(not_leader());
        };
        let Some(term) = shared.leads().filter(|_| shared.has_majority()) else { return Err(not_leader()) };
        shared.memory.enter(term);
        let wall_ms = shared.clock.wall_ms();
        let generations =
            shared.raft.storage().read(|state, _| shared.memory.hear(state, now, wall_ms, news));
        Ok(Response::new(v1::HearReply { generations, term, wall_ms: shared.clock.wall_ms() }))
    }

    async fn keep_records(
        &self,
        request: Request<v1::KeepRecordsRequest>,
    ) -> Result<Response<v1::KeepRecordsReply>, Status> {
        let request = request.into_inner();
        self.shared.peers.check(request.envelope.as_ref(), &self.shared.status())?;
        let (fleet, node) = (name("fleet", request.fleet)?, name("node", request.node)?);
        evidence::store(&self.shared, &fleet, &node, request.records).await;
        Ok(Response::new(v1::KeepRecordsReply {}))
    }

    type GetRecordsStream = BoxStream<'static, Result<v1::GetRecordsReply, Status>>;

    async fn get_records(
        &self,
        request: Request<v1::GetRecordsRequest>,
    ) -> Result<Response<Self::GetRecordsStream>, Status> {
        let request = request.into_inner();
        self.shared.peers.check(request.envelope.as_ref(), &self.shared.status())?;
        let (fleet, node) = (name("fleet", request.fleet)?, name("node", request.node)?);
        let records = evidence::local(&self.shared, &fleet, &node).await;
        let parts = evidence::parts(records).into_iter().map(|records| Ok(v1::GetRecordsReply { records }));
        Ok(Response::new(stream::iter(parts.collect::<Vec<_>>()).boxed()))
    }

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<v1::ReadReply>, Status> {
        let request = request.into_inner();
        self.shared.peers.check(request.envelope.as_ref(), &self.shared.status())?;
        let fleet: Option<FleetId> = match request.fleet.as_str() {
            "" => None,
            _ => Some(name("fleet", request.fleet)?),
        };
        if self.shared.leads().is_none() {
            return Err(not_leader());
        }
        let extras =
            Extras { inventories: request.inventories, facts: request.facts, ask_facts: request.ask_facts };
        let recall = self.shared.recall(fleet.as_ref(), extras).await?;
        Ok(Response::new(v1::ReadReply {
            index: recall.index,
            now_ms: recall.now.0,
            nodes: recall.nodes,
            facts_wanted: recall.facts_wanted,
        }))
    }
}

fn news(heard: v1::HeardNode) -> Result<News, FieldError> {
    let fleet: FleetId = name("fleet", heard.fleet)?;
    let node: NodeId = name("node", heard.node)?;
    Ok(News {
        key: (fleet, node),
        incarnation: Incarnation(heard.incarnation),
        heard: heard.heard,
        progress: heard.progress,
        inventory: heard.inventory,
        facts: heard.facts,
    })
}
