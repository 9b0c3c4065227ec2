//! What a cluster of coordinators offers beside its main services: members that come and go, health, reflection.

#![allow(clippy::unwrap_used)] // in a test a panic is the answer

#[path = "support/cluster.rs"]
mod cluster;

use cluster::{Cluster, eventually, within};
use soloist_proto::{
    errors::{REMOVED, WRONG_MEMBER, from_status},
    v1::{self, peer_service_client::PeerServiceClient},
};
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_through_any_member() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let followers: Vec<u64> = cluster.running().filter(|id| *id != leader).collect();
    cluster.join(4).await;
    let add = v1::AddMemberRequest {
        member: 4,
        address: cluster.addresses[&4].to_string(),
        ..v1::AddMemberRequest::default()
    };
    // Who is not the leader and got it from another member says so instead of passing it on again.
    let forwarded = v1::AddMemberRequest { forwarded: true, ..add.clone() };
    let refused = cluster.membership(followers[0]).await.add_member(forwarded).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    eventually("the new one has caught up and votes", async || {
        cluster.membership(followers[0]).await.add_member(add.clone()).await.unwrap().into_inner().done
    })
    .await;
    eventually("the new one knows that it belongs to four", async || {
        let reply =
            cluster.membership(4).await.members(v1::MembersRequest::default()).await.unwrap().into_inner();
        let whole = reply.members.iter().all(|info| info.voter && info.reachable);
        reply.quorum == 3 && reply.members.len() == 4 && whole
    })
    .await;

    // A follower that goes is not asked about it.
    let remove = v1::RemoveMemberRequest { member: followers[0], ..v1::RemoveMemberRequest::default() };
    let reply = within(cluster.membership(followers[1]).await.remove_member(remove)).await;
    assert!(reply.is_ok(), "{reply:?}");
    // Its own clients, who cannot know, are told to ask another: a holder's lease does not end with a member.
    let renew = v1::RenewRequest { fleet: "shop".into(), operation: "run-1".into(), token: 1 };
    let refused = within(cluster.operator(followers[0]).await.renew(renew.clone())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    let refused = within(cluster.operator(followers[1]).await.renew(renew)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "an answer about the request: {refused:?}");
    eventually("everybody left knows that it has gone", async || {
        let reply =
            cluster.membership(4).await.members(v1::MembersRequest::default()).await.unwrap().into_inner();
        reply.members.iter().all(|info| info.member != followers[0]) && reply.quorum == 2
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_between_members_counts_only_where_it_was_meant_to_go() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let from = cluster.running().find(|id| *id != leader).unwrap();
    let era = cluster.members[&leader].raft().era();
    let mut client =
        within(PeerServiceClient::connect(format!("http://{}", cluster.addresses[&leader]))).await.unwrap();
    let meant = v1::PeerEnvelope { cluster: "test".into(), from, to: leader, era };
    let hear = |envelope| v1::HearRequest { envelope, ..v1::HearRequest::default() };
    let strayed = [
        (None, WRONG_MEMBER),
        (Some(v1::PeerEnvelope { cluster: "another".into(), ..meant.clone() }), WRONG_MEMBER),
        (Some(v1::PeerEnvelope { to: from, ..meant.clone() }), WRONG_MEMBER),
        (Some(v1::PeerEnvelope { era: era + 1, ..meant.clone() }), WRONG_MEMBER),
        (Some(v1::PeerEnvelope { from: 9, ..meant.clone() }), REMOVED),
    ];
    for (envelope, reason) in strayed {
        let refused = within(client.hear(hear(envelope.clone()))).await.unwrap_err();
        let problem = from_status(&refused);
        assert_eq!(problem.reason, reason, "{envelope:?}: {refused:?}");
        // What a client of the caller wanted is not answered by this: it may go on to another member.
        assert!(problem.is_transient(), "{envelope:?}: {refused:?}");
    }
    eventually("the leader hears what is meant for it", async || {
        client.hear(hear(Some(meant.clone()))).await.is_ok()
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_reflection_answer() {
    let mut cluster = Cluster::start(1).await;
    let address = Endpoint::from_shared(format!("http://{}", cluster.addresses[&1])).unwrap();
    let channel = within(address.connect()).await.unwrap();
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "soloist.v1.AgentService", "soloist.v1.OperatorService"] {
        let request = HealthCheckRequest { service: service.into() };
        let status = within(health.check(request)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let asked = reflection.server_reflection_info(tokio_stream::once(request));
    let reply = within(within(asked).await.unwrap().into_inner().message()).await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = reply.message_response else {
        panic!("{reply:?}")
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["AgentService", "OperatorService", "ClusterService"] {
        assert!(names.iter().any(|found| *found == format!("soloist.v1.{name}")), "{names:?}");
    }

    // Whoever watches hears that the member goes.
    let watch = HealthCheckRequest { service: "soloist.v1.OperatorService".into() };
    let mut watch = within(health.watch(watch)).await.unwrap().into_inner();
    assert_eq!(within(watch.message()).await.unwrap().unwrap().status(), ServingStatus::Serving);
    let stop = tokio::spawn(cluster.members.remove(&1).unwrap().stop());
    assert_eq!(within(watch.message()).await.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop((watch, health, reflection, channel));
    within(stop).await.unwrap();
}
