//! `ClusterService`: the coordinators' own cluster.

use std::sync::Arc;

use futures::future::join_all;
use soloist_proto::{
    errors::Problem,
    v1::{self, cluster_service_server::ClusterService},
};
use tonic::{Request, Response, Status};

use crate::{
    raft::{Member, Role},
    shared::Shared,
};

/// Serves those who look after the cluster.
pub(crate) struct Cluster {
    shared: Arc<Shared>,
}

impl Cluster {
    pub(crate) fn new(shared: Arc<Shared>) -> Cluster {
        Cluster { shared }
    }

    fn own(&self) -> v1::MemberInfo {
        let status = self.shared.status();
        v1::MemberInfo {
            member: status.member,
            address: self.shared.advertise.clone(),
            role: word(status.role).to_owned(),
            leader: status.leader.map(|leader| leader.id),
            term: status.term,
            last_log: status.last_log.unwrap_or(0),
            applied: status.applied.unwrap_or(0),
            voter: status.voters.contains_key(&status.member),
            reachable: true,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sessions: u32::try_from(self.shared.hearing.sessions()).unwrap_or(u32::MAX),
            http: self.shared.http.clone(),
        }
    }

    /// The leader, if it is another member and the call has not been passed on yet.
    fn elsewhere(&self, forwarded: bool) -> Option<Member> {
        self.shared.status().leader.filter(|leader| !forwarded && leader.id != self.shared.raft.id())
    }

    async fn ask(&self, id: u64, address: String, voter: bool) -> v1::MemberInfo {
        if id == self.shared.raft.id() {
            return v1::MemberInfo { voter, ..self.own() };
        }
        let member = Member { id, address };
        match self.shared.peers.member_status(&member).await {
            Ok(v1::MemberStatusReply { info: Some(info), .. }) => v1::MemberInfo { voter, ..info },
            _ => v1::MemberInfo {
                member: id,
                address: member.address,
                role: "unknown".to_owned(),
                voter,
                ..v1::MemberInfo::default()
            },
        }
    }
}

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn members(&self, _: Request<v1::MembersRequest>) -> Result<Response<v1::MembersReply>, Status> {
        let status = self.shared.status();
        let known = status.voters.iter().map(|member| (member, true));
        let known = known.chain(status.learners.iter().map(|member| (member, false)));
        let mut members = join_all(known.map(|((id, at), voter)| self.ask(*id, at.clone(), voter))).await;
        members.sort_by_key(|info| info.member);
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
        Ok(Response::new(v1::MemberStatusReply { cluster, info: Some(self.own()) }))
    }

    async fn add_member(
        &self,
        request: Request<v1::AddMemberRequest>,
    ) -> Result<Response<v1::AddMemberReply>, Status> {
        let v1::AddMemberRequest { member, address, forwarded } = request.into_inner();
        match self.elsewhere(forwarded) {
            Some(leader) => self.shared.peers.add_member(&leader, member, address).await?,
            None => {
                self.shared.raft.add_member(member, &address).await.map_err(Problem::from)?;
                tracing::info!(member, address, "member added");
            }
        }
        Ok(Response::new(v1::AddMemberReply {}))
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberReply>, Status> {
        let v1::RemoveMemberRequest { member, forwarded } = request.into_inner();
        match self.elsewhere(forwarded) {
            Some(leader) => self.shared.peers.remove_member(&leader, member).await?,
            None => {
                self.shared.raft.remove_member(member).await.map_err(Problem::from)?;
                tracing::info!(member, "member removed");
            }
        }
        Ok(Response::new(v1::RemoveMemberReply {}))
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
