//! `OperatorService`: people and programs look, ask, and hold the lock.

use std::sync::Arc;

use futures::{StreamExt as _, stream, stream::BoxStream};
use soloist_core::{
    Command, Rejection, Reply,
    assignment::AppState,
    ids::{FleetId, NodeId, OperationId, Token},
    preview::preview,
    time::Millis,
    view::operation_view,
};
use soloist_proto::{
    convert::{covers, maybe, name, nested, parameters},
    errors::Problem,
    v1::{self, operator_service_server::OperatorService},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use crate::{
    evidence,
    grpc::preflight::{gate, preflight},
    proposer::{refused, unexpected},
    reader::Extras,
    shared::Shared,
    watch::{self, QUEUE},
};

/// Streams that clients may follow at once, at one member.
const STREAMS_MAX: usize = 256;

type Answer<T> = Result<Response<T>, Status>;

/// Serves operators.
pub(crate) struct Operators {
    shared: Arc<Shared>,
    streams: Arc<Semaphore>,
}

impl Operators {
    pub(crate) fn new(shared: Arc<Shared>) -> Operators {
        Operators { shared, streams: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }

    fn stream(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            refused(&Rejection::Full {
                what: "followed streams of this member".into(),
                max: STREAMS_MAX as u64,
            })
        })
    }

    /// Has a command decided that is answered with nothing but success.
    async fn done(&self, command: Command) -> Result<(), Status> {
        self.shared.decide(command).await.map(|_| ())
    }
}

fn fleet(name_: String) -> Result<FleetId, Status> {
    Ok(name("fleet", name_)?)
}

fn operation(name_: String) -> Result<OperationId, Status> {
    Ok(name("operation", name_)?)
}

#[tonic::async_trait]
impl OperatorService for Operators {
    async fn list_fleets(&self, _: Request<v1::ListFleetsRequest>) -> Answer<v1::ListFleetsReply> {
        let reading = self.shared.read(None, Extras::NONE).await;
        let fleets = self.shared.raft.storage().read(|state, _| {
            let each = state.fleets.iter().map(|(name, fleet)| {
                let seen = fleet.nodes.values().filter_map(|node| node.observed.as_ref());
                v1::FleetSummary {
                    fleet: name.to_string(),
                    active: fleet.active,
                    desired: v1::Desired::from(fleet.desired).into(),
                    nodes: u32::try_from(fleet.nodes.len()).unwrap_or(u32::MAX),
                    serving: u32::try_from(seen.filter(|seen| seen.app == AppState::Serving).count())
                        .unwrap_or(u32::MAX),
                    operation: fleet.lock.holder().map(ToString::to_string),
                }
            });
            each.collect()
        });
        Ok(Response::new(v1::ListFleetsReply { fleets, freshness: Some(reading.freshness) }))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Answer<v1::StatusReply> {
        let request = request.into_inner();
        let fleet = fleet(request.fleet)?;
        let reading = if request.local {
            self.shared.local("only this member was asked".to_owned())
        } else {
            self.shared.read(Some(&fleet), Extras::NONE).await
        };
        Ok(Response::new(self.shared.status_reply(&fleet, &reading)?))
    }

    type WatchStream = BoxStream<'static, Result<v1::StatusReply, Status>>;

    async fn watch(&self, request: Request<v1::StatusRequest>) -> Answer<Self::WatchStream> {
        let request = request.into_inner();
        let fleet = fleet(request.fleet.clone())?;
        let permit = self.stream()?;
        let (to, replies) = mpsc::channel(QUEUE);
        let shared = self.shared.clone();
        tokio::spawn(async move {
            watch::statuses(shared, fleet, request.local, to).await;
            drop(permit);
        });
        Ok(Response::new(ReceiverStream::new(replies).boxed()))
    }

    async fn plan(&self, request: Request<v1::PlanRequest>) -> Answer<v1::PlanReply> {
        let request = request.into_inner();
        let fleet = fleet(request.fleet)?;
        let wanted = nested("request", request.request)?;
        let reading = self.shared.read(Some(&fleet), Extras::NONE).await;
        let state = self.shared.project(&fleet, &reading)?;
        let steps = preview(&state, &fleet, &wanted).map_err(|rejection| refused(&rejection))?;
        let steps = steps.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::PlanReply { steps, freshness: Some(reading.freshness) }))
    }

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Answer<v1::SubmitReply> {
        let request = request.into_inner();
        let (fleet, operation) = (fleet(request.fleet)?, operation(request.operation)?);
        let wanted = nested("request", request.request)?;
        if !request.skip_preflight {
            gate(&self.shared, &fleet, &operation, &wanted).await?;
        }
        let submission = maybe("submission", request.submission)?.unwrap_or_default();
        let command = Command::Submit { fleet, operation, request: wanted, submission };
        match self.shared.decide(command).await? {
            Reply::Submitted { operation } => {
                Ok(Response::new(v1::SubmitReply { operation: operation.into() }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn confirm(&self, request: Request<v1::ConfirmRequest>) -> Answer<v1::ConfirmReply> {
        let request = request.into_inner();
        let (fleet, operation) = (fleet(request.fleet)?, operation(request.operation)?);
        self.done(Command::Confirm { fleet, operation }).await?;
        Ok(Response::new(v1::ConfirmReply {}))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Answer<v1::RenewReply> {
        let request = request.into_inner();
        let (fleet, operation) = (fleet(request.fleet)?, operation(request.operation)?);
        let token = Token(request.token);
        match self.shared.decide(Command::Renew { fleet, operation, token }).await? {
            Reply::Renewed { until, lease } => {
                Ok(Response::new(v1::RenewReply { until_ms: until.0, lease_ms: lease.0 }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn release(&self, request: Request<v1::ReleaseRequest>) -> Answer<v1::ReleaseReply> {
        let request = request.into_inner();
        let (fleet, operation) = (fleet(request.fleet)?, operation(request.operation)?);
        let (token, outcome) = (Token(request.token), request.outcome);
        self.done(Command::Release { fleet, operation, token, outcome }).await?;
        Ok(Response::new(v1::ReleaseReply {}))
    }

    async fn abort(&self, request: Request<v1::AbortRequest>) -> Answer<v1::AbortReply> {
        let request = request.into_inner();
        let (fleet, operation) = (fleet(request.fleet)?, operation(request.operation)?);
        let (by, reason) = (request.by, request.reason);
        self.done(Command::Abort { fleet, operation, by, reason }).await?;
        Ok(Response::new(v1::AbortReply {}))
    }

    async fn retry(&self, request: Request<v1::RetryRequest>) -> Answer<v1::RetryReply> {
        let request = request.into_inner();
        let (fleet, operation) = (fleet(request.fleet)?, operation(request.operation)?);
        let (attempt, by) = (request.attempt, request.by);
        self.done(Command::Retry { fleet, operation, attempt, by }).await?;
        Ok(Response::new(v1::RetryReply {}))
    }

    async fn decide(&self, request: Request<v1::DecideRequest>) -> Answer<v1::DecideReply> {
        let request = request.into_inner();
        let (fleet, operation) = (fleet(request.fleet)?, operation(request.operation)?);
        let decision = nested("decision", request.decision)?;
        let (by, reason) = (request.by, request.reason);
        self.done(Command::Decide { fleet, operation, decision, by, reason }).await?;
        Ok(Response::new(v1::DecideReply {}))
    }

    async fn force_release(
        &self,
        request: Request<v1::ForceReleaseRequest>,
    ) -> Answer<v1::ForceReleaseReply> {
        let request = request.into_inner();
        let fleet = fleet(request.fleet)?;
        let (token, by, reason) = (Token(request.token), request.by, request.reason);
        match self.shared.decide(Command::ForceRelease { fleet, token, by, reason }).await? {
            Reply::Released { token } => Ok(Response::new(v1::ForceReleaseReply { token: token.0 })),
            other => Err(unexpected(&other)),
        }
    }

    async fn get_operation(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Answer<v1::GetOperationReply> {
        let request = request.into_inner();
        let (fleet, operation) = (fleet(request.fleet)?, operation(request.operation)?);
        let reading = self.shared.read(Some(&fleet), Extras::NONE).await;
        let state = self.shared.project(&fleet, &reading)?;
        let found = state.fleets.get(&fleet).and_then(|found| {
            found.operation(&operation).map(|operation| operation_view(&state, found, operation))
        });
        match found {
            Some(view) => Ok(Response::new(v1::GetOperationReply {
                operation: Some(view.into()),
                freshness: Some(reading.freshness),
            })),
            None if reading.freshness.stale => {
                let text = format!("this member knows no operation \"{operation}\", and may be out of date");
                Err(Problem::new(
                    Code::Unavailable,
                    soloist_proto::errors::NO_LEADER,
                    text,
                    "ask another member",
                )
                .into())
            }
            None => Err(refused(&Rejection::UnknownOperation { fleet, operation })),
        }
    }

    async fn list_operations(
        &self,
        request: Request<v1::ListOperationsRequest>,
    ) -> Answer<v1::ListOperationsReply> {
        let request = request.into_inner();
        let fleet = fleet(request.fleet)?;
        let reading = self.shared.read(Some(&fleet), Extras::NONE).await;
        let state = self.shared.project(&fleet, &reading)?;
        let limit = match request.limit {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let found = state.fleets.get(&fleet).into_iter();
        let operations = found.flat_map(|found| {
            let newest = found.operations.iter().rev().take(limit);
            newest.map(|operation| operation_view(&state, found, operation).into()).collect::<Vec<_>>()
        });
        let operations = operations.collect();
        Ok(Response::new(v1::ListOperationsReply { operations, freshness: Some(reading.freshness) }))
    }

    type EventsStream = BoxStream<'static, Result<v1::Event, Status>>;

    async fn events(&self, request: Request<v1::EventsRequest>) -> Answer<Self::EventsStream> {
        let v1::EventsRequest { fleet: id, after_index, older, follow } = request.into_inner();
        let fleet = fleet(id)?;
        let permit = self.stream()?;
        let reading = self.shared.read(Some(&fleet), Extras::NONE).await;
        self.shared.project(&fleet, &reading)?;
        let (to, events) = mpsc::channel(QUEUE);
        let shared = self.shared.clone();
        tokio::spawn(async move {
            watch::events(shared, fleet, after_index, (older, follow), to).await;
            drop(permit);
        });
        Ok(Response::new(ReceiverStream::new(events).boxed()))
    }

    type EvidenceStream = BoxStream<'static, Result<v1::EvidencePart, Status>>;

    async fn evidence(&self, request: Request<v1::EvidenceRequest>) -> Answer<Self::EvidenceStream> {
        let request = request.into_inner();
        let (fleet, operation) = (fleet(request.fleet)?, operation(request.operation)?);
        let reading = self.shared.read(Some(&fleet), Extras::NONE).await;
        self.shared.project(&fleet, &reading)?;
        match evidence::gather(&self.shared, &fleet, &operation).await? {
            Some(parts) => Ok(Response::new(stream::iter(parts.into_iter().map(Ok)).boxed())),
            None => Err(refused(&Rejection::UnknownOperation { fleet, operation })),
        }
    }

    async fn backups(&self, request: Request<v1::BackupsRequest>) -> Answer<v1::BackupsReply> {
        let fleet = fleet(request.into_inner().fleet)?;
        let reading = self.shared.read(Some(&fleet), Extras::NONE).await;
        let state = self.shared.project(&fleet, &reading)?;
        let found = state.fleets.get(&fleet).into_iter();
        let mut backups: Vec<v1::BackupInfo> = found
            .flat_map(|found| &found.backups)
            .map(|(name, backup)| v1::BackupInfo {
                backup: name.to_string(),
                node: backup.node.to_string(),
                wall_ms: backup.wall_ms,
                version: backup.version.as_ref().map(ToString::to_string),
                facts: parameters(backup.facts.clone()),
            })
            .collect();
        backups.sort_by_key(|backup| std::cmp::Reverse(backup.wall_ms));
        Ok(Response::new(v1::BackupsReply { backups, freshness: Some(reading.freshness) }))
    }

    async fn plugins(&self, request: Request<v1::PluginsRequest>) -> Answer<v1::PluginsReply> {
        let fleet = fleet(request.into_inner().fleet)?;
        let reading = self.shared.read(Some(&fleet), Extras { inventories: true, ..Extras::NONE }).await;
        let state = self.shared.project(&fleet, &reading)?;
        let found = state.fleets.get(&fleet).into_iter();
        let nodes = found
            .flat_map(|found| found.nodes.keys())
            .map(|node| v1::NodePlugins { node: node.to_string(), inventory: reading.inventory(node) });
        let nodes = nodes.collect();
        Ok(Response::new(v1::PluginsReply { nodes, freshness: Some(reading.freshness) }))
    }

    async fn get_policy(&self, request: Request<v1::GetPolicyRequest>) -> Answer<v1::GetPolicyReply> {
        let fleet = fleet(request.into_inner().fleet)?;
        let reading = self.shared.read(Some(&fleet), Extras::NONE).await;
        let state = self.shared.project(&fleet, &reading)?;
        let found = state.fleets.get(&fleet);
        Ok(Response::new(v1::GetPolicyReply {
            policy: found.map(|found| found.policy.clone().into()),
            version: found.map_or(0, |found| found.policy_version),
            freshness: Some(reading.freshness),
        }))
    }

    async fn set_policy(&self, request: Request<v1::SetPolicyRequest>) -> Answer<v1::SetPolicyReply> {
        let request = request.into_inner();
        let command = Command::SetPolicy {
            fleet: fleet(request.fleet)?,
            policy: nested("policy", request.policy)?,
            seen: request.seen,
            by: request.by,
            reason: request.reason,
            changes: request.changes,
        };
        match self.shared.decide(command).await? {
            Reply::Policy { version } => Ok(Response::new(v1::SetPolicyReply { version })),
            other => Err(unexpected(&other)),
        }
    }

    async fn freeze(&self, request: Request<v1::FreezeRequest>) -> Answer<v1::FreezeReply> {
        let v1::FreezeRequest { fleet: id, length_ms, by, reason } = request.into_inner();
        let length = length_ms.map(Millis);
        let _ = self.shared.decide(Command::Freeze { fleet: fleet(id)?, length, by, reason }).await?;
        Ok(Response::new(v1::FreezeReply {}))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Answer<v1::DrainReply> {
        let v1::DrainRequest { fleet: id, node, drained, by, reason } = request.into_inner();
        let node: NodeId = name("node", node)?;
        let _ = self.shared.decide(Command::Drain { fleet: fleet(id)?, node, drained, by, reason }).await?;
        Ok(Response::new(v1::DrainReply {}))
    }

    async fn assume_stopped(
        &self,
        request: Request<v1::AssumeStoppedRequest>,
    ) -> Answer<v1::AssumeStoppedReply> {
        let v1::AssumeStoppedRequest { fleet: id, node, by, reason } = request.into_inner();
        // The leader knows whether it is heard.
        let (fleet, node, heard) = (fleet(id)?, name("node", node)?, true);
        let _ = self.shared.decide(Command::AssumeStopped { fleet, node, heard, by, reason }).await?;
        Ok(Response::new(v1::AssumeStoppedReply {}))
    }

    async fn fence(&self, request: Request<v1::FenceRequest>) -> Answer<v1::FenceReply> {
        let request = request.into_inner();
        let covers = covers(request.covers());
        let v1::FenceRequest { fleet: id, node, by, reason, .. } = request;
        // The leader knows who is heard.
        let (fleet, node, heard) = (fleet(id)?, name("node", node)?, Vec::new());
        let _ = self.shared.decide(Command::Fence { fleet, node, covers, heard, by, reason }).await?;
        Ok(Response::new(v1::FenceReply {}))
    }

    async fn unfence(&self, request: Request<v1::UnfenceRequest>) -> Answer<v1::UnfenceReply> {
        let v1::UnfenceRequest { fleet: id, node, by } = request.into_inner();
        let (fleet, node, heard) = (fleet(id)?, name("node", node)?, Vec::new());
        let _ = self.shared.decide(Command::Unfence { fleet, node, heard, by }).await?;
        Ok(Response::new(v1::UnfenceReply {}))
    }

    async fn preflight(&self, request: Request<v1::PreflightRequest>) -> Answer<v1::PreflightReply> {
        let fleet = fleet(request.into_inner().fleet)?;
        Ok(Response::new(preflight(&self.shared, &fleet).await?))
    }
}
