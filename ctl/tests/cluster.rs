//! `soloist cluster add` while the new member does not get on.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{net::SocketAddr, process::Output, thread, time::Duration};

use assert_cmd::Command;
use soloist_proto::v1::{
    self,
    cluster_service_server::{ClusterService, ClusterServiceServer},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// A leader whose newcomer has some of the log, and gets no more of it.
struct Stuck;

#[tonic::async_trait]
impl ClusterService for Stuck {
    async fn add_member(
        &self,
        request: Request<v1::AddMemberRequest>,
    ) -> Result<Response<v1::AddMemberReply>, Status> {
        assert_eq!((request.get_ref().member, request.get_ref().forwarded), (4, false));
        Ok(Response::new(v1::AddMemberReply { done: false, matched: 1200, last_log: 5000 }))
    }

    async fn members(&self, _: Request<v1::MembersRequest>) -> Result<Response<v1::MembersReply>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn member_status(
        &self,
        _: Request<v1::MemberStatusRequest>,
    ) -> Result<Response<v1::MemberStatusReply>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn remove_member(
        &self,
        _: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberReply>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn move_member(
        &self,
        _: Request<v1::MoveMemberRequest>,
    ) -> Result<Response<v1::MoveMemberReply>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn transfer_leader(
        &self,
        _: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderReply>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    type BackupStream = tokio_stream::Empty<Result<v1::BackupPart, Status>>;

    async fn backup(&self, _: Request<v1::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn resume(&self, _: Request<v1::ResumeRequest>) -> Result<Response<v1::ResumeReply>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn finalize(&self, _: Request<v1::FinalizeRequest>) -> Result<Response<v1::FinalizeReply>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
}

/// Serves until the test's process ends.
fn serve() -> SocketAddr {
    let (to, address) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            to.send(listener.local_addr().unwrap()).unwrap();
            let server = Server::builder().add_service(ClusterServiceServer::new(Stuck));
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
    });
    address.recv().unwrap()
}

fn soloist(arguments: &[&str]) -> Output {
    let mut command = Command::cargo_bin("soloist").unwrap();
    command.env("SOLOIST_ENDPOINTS", serve().to_string());
    command.args(arguments).timeout(Duration::from_secs(30)).output().unwrap()
}

#[test]
fn a_learner_that_does_not_catch_up_in_time_is_told_how_far_it_came() {
    let output = soloist(&["cluster", "add", "4", "10.0.0.4:7401", "--wait", "1s"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("member 4 has 1200 of 5000 entries\n"), "progress, once: {said}");
    assert!(
        said.contains("member 4 has 1200 of 5000 entries after 1s: it did not catch up, and stays a learner"),
        "{said}"
    );
    assert!(said.contains("the same command again") && said.contains("soloist cluster remove 4"), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn ids_begin_with_one_and_removal_is_confirmed() {
    assert_eq!(soloist(&["cluster", "add", "0", "10.0.0.4:7401"]).status.code(), Some(64));
    let unsure = soloist(&["cluster", "remove", "3"]);
    assert_eq!(unsure.status.code(), Some(64));
    let said = String::from_utf8_lossy(&unsure.stderr).into_owned();
    assert!(said.contains("neither its data folder nor its id") && said.contains("--confirm 3"), "{said}");
}
