//! `ClusterService`: the coordinators' own cluster. Whoever is asked passes a change on to the leader.

use std::{sync::Arc, time::Duration};

use soloist_core::Command;
use soloist_proto::{
    convert::name,
    errors::{NOT_LEADER, Problem},
    v1::{self, cluster_service_client::ClusterServiceClient, cluster_service_server::ClusterService},
};
use tokio::time::{Instant, sleep};
use tonic::{Request, Response, Status, transport::Channel};

use super::backup::{Parts, backup};
use crate::{
    members,
    peers::{MEMBERSHIP, QUICK, within},
    raft::Member,
    shared::Shared,
};

/// How long a change follows a leadership that moves.
const FOLLOW: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(200);

/// Serves those who look after the cluster.
pub(crate) struct Cluster {
    shared: Arc<Shared>,
}

type Leader = ClusterServiceClient<Channel>;

impl Cluster {
    pub(crate) fn new(shared: Arc<Shared>) -> Cluster {
        Cluster { shared }
    }

    /// Does something on the leader: here, or where the leader is, while the leadership moves. What another member has passed on is
    /// not passed on again.
    async fn lead<T, H, F>(
        &self,
        forwarded: bool,
        here: impl Fn() -> H + Send,
        there: impl Fn(Leader) -> F + Send,
    ) -> Result<Response<T>, Status>
    where
        H: Future<Output = Result<T, Problem>> + Send,
        F: Future<Output = Result<Response<T>, Status>> + Send,
        T: Send,
    {
        let end = Instant::now() + FOLLOW;
        loop {
            let leader = self.shared.other_leader().filter(|_| !forwarded);
            let result = match leader {
                Some(leader) => self.pass_on(&leader, &there, MEMBERSHIP).await,
                None => here().await,
            };
            match result {
                Ok(reply) => return Ok(Response::new(reply)),
                Err(problem) if problem.reason == NOT_LEADER && !forwarded && Instant::now() < end => {
                    sleep(PAUSE).await;
                }
                Err(problem) if problem.reason == NOT_LEADER && !forwarded => {
                    return Err(self.shared.no_leader(&problem.message).await.into());
                }
                Err(problem) => return Err(problem.into()),
            }
        }
    }

    async fn pass_on<T, F>(
        &self,
        leader: &Member,
        there: &(impl Fn(Leader) -> F + Send),
        limit: Duration,
    ) -> Result<T, Problem>
    where
        F: Future<Output = Result<Response<T>, Status>> + Send,
    {
        within(Instant::now() + limit, leader, there(self.shared.peers.leader(leader)?)).await
    }
}

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn members(
        &self,
        request: Request<v1::MembersRequest>,
    ) -> Result<Response<v1::MembersReply>, Status> {
        // A member that lags, or was removed, does not know who belongs to the cluster.
        if let Some(leader) = self.shared.other_leader().filter(|_| !request.get_ref().forwarded) {
            let ask = |mut leader: Leader| async move {
                leader.members(v1::MembersRequest { forwarded: true }).await
            };
            if let Ok(reply) = self.pass_on(&leader, &ask, 2 * QUICK).await {
                return Ok(Response::new(reply));
            }
        }
        let status = self.shared.status();
        let members = members::ask_all(&self.shared, &status.addresses()).await;
        Ok(Response::new(v1::MembersReply {
            cluster: self.shared.cluster.clone(),
            member: status.member,
            leader: status.leader.map(|leader| leader.id),
            members,
            quorum: u32::try_from(status.voters.len() / 2 + 1).unwrap_or(u32::MAX),
        }))
    }

    async fn member_status(
        &self,
        _: Request<v1::MemberStatusRequest>,
    ) -> Result<Response<v1::MemberStatusReply>, Status> {
        let cluster = self.shared.cluster.clone();
        Ok(Response::new(v1::MemberStatusReply { cluster, info: Some(members::own(&self.shared)) }))
    }

    async fn add_member(
        &self,
        request: Request<v1::AddMemberRequest>,
    ) -> Result<Response<v1::AddMemberReply>, Status> {
        let request = request.into_inner();
        let member = Member { id: request.member, address: request.address.clone() };
        let here = || members::add(&self.shared, &member, request.learner);
        let there = |mut leader: Leader| {
            let request = v1::AddMemberRequest { forwarded: true, ..request.clone() };
            async move { leader.add_member(request).await }
        };
        self.lead(request.forwarded, here, there).await
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberReply>, Status> {
        let v1::RemoveMemberRequest { member, forwarded } = request.into_inner();
        let there = |mut leader: Leader| async move {
            leader.remove_member(v1::RemoveMemberRequest { member, forwarded: true }).await
        };
        let here = || async {
            if let Some(leader) = members::remove(&self.shared, member).await? {
                self.pass_on(&leader, &there, MEMBERSHIP).await?;
            }
            Ok(v1::RemoveMemberReply {})
        };
        self.lead(forwarded, here, there).await
    }

    async fn move_member(
        &self,
        request: Request<v1::MoveMemberRequest>,
    ) -> Result<Response<v1::MoveMemberReply>, Status> {
        let request = request.into_inner();
        let member = Member { id: request.member, address: request.address.clone() };
        let here = || async {
            members::relocate(&self.shared, &member).await?;
            Ok(v1::MoveMemberReply {})
        };
        let there = |mut leader: Leader| {
            let request = v1::MoveMemberRequest { forwarded: true, ..request.clone() };
            async move { leader.move_member(request).await }
        };
        self.lead(request.forwarded, here, there).await
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderReply>, Status> {
        let v1::TransferLeaderRequest { member, forwarded } = request.into_inner();
        let here = || async {
            let member = members::transfer(&self.shared, Some(member).filter(|member| *member > 0)).await?;
            Ok(v1::TransferLeaderReply { member })
        };
        let there = |mut leader: Leader| async move {
            leader.transfer_leader(v1::TransferLeaderRequest { member, forwarded: true }).await
        };
        self.lead(forwarded, here, there).await
    }

    async fn finalize(
        &self,
        request: Request<v1::FinalizeRequest>,
    ) -> Result<Response<v1::FinalizeReply>, Status> {
        let v1::FinalizeRequest { by, forwarded } = request.into_inner();
        let here = || async {
            let (level, raised) = members::finalize(&self.shared, by.clone()).await?;
            Ok(v1::FinalizeReply { level, raised })
        };
        let there = |mut leader: Leader| {
            let request = v1::FinalizeRequest { by: by.clone(), forwarded: true };
            async move { leader.finalize(request).await }
        };
        self.lead(forwarded, here, there).await
    }

    type BackupStream = Parts;

    async fn backup(&self, request: Request<v1::BackupRequest>) -> Result<Response<Parts>, Status> {
        backup(&self.shared, request.into_inner().stale).await.map(Response::new)
    }

    async fn resume(&self, request: Request<v1::ResumeRequest>) -> Result<Response<v1::ResumeReply>, Status> {
        let v1::ResumeRequest { fleet, by, reason } = request.into_inner();
        let fleet = name("fleet", fleet)?;
        let _ = self.shared.decide(Command::Resume { fleet, by, reason }).await?;
        Ok(Response::new(v1::ResumeReply {}))
    }
}
