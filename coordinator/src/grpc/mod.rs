//! The gRPC services. They parse, ask the rest of the coordinator, and answer; no decision is made here.

mod agent;
mod backup;
mod cluster;
mod operator;
mod peer;
mod preflight;
mod session;

use std::{sync::Arc, time::Duration};

use rustix::process::{Resource, getrlimit};
use soloist_proto::{
    FILE_DESCRIPTOR_SET,
    door::{Calls, STUCK_MAX, Terms},
    v1::{
        agent_service_server::AgentServiceServer, cluster_service_server::ClusterServiceServer,
        operator_service_server::OperatorServiceServer, peer_service_server::PeerServiceServer,
    },
};
use tonic::transport::{Server, server::Router};
use tonic_health::server::HealthReporter;
use tower::layer::util::{Identity, Stack};

use crate::shared::Shared;

/// A connection is asked for a sign of life this often, and closed without one: a client that vanished with its host
/// must not look connected.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The longest message from an agent or a client, in bytes. The members' own service has its own limit.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Calls and streams of one connection.
const STREAMS_MAX: u32 = 256;
/// Calls of one connection that are being taken or worked on; more wait, unread. Whoever sends half a message holds as much
/// memory as the whole may have.
const CALLS_MAX: usize = 64;
/// A call is answered, or its stream begun, within so long, else it ends: twice what a snapshot may take, the longest of all.
const CALL_MAX: Duration = Duration::from_secs(120);
/// Most connections: the sessions that a member serves, and as much again for people and members as they can ever need.
const CONNECTIONS_MAX: usize = 6_000;
/// Of the files that the process may open, so many are not for connections of agents and clients.
const FILES_KEPT: usize = 256;
/// How long a client may take for the first bytes of HTTP/2 …
const GREETING_MAX: Duration = Duration::from_secs(5);
/// … of which there are so many.
const GREETING_BYTES: usize = 24;
/// A connection without any call is closed after so long; clients connect anew when they have something to ask.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// What holds for connections of agents, clients and members.
pub(crate) fn terms() -> Terms {
    let files = getrlimit(Resource::Nofile).current;
    let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    Terms {
        port: "grpc",
        connections_max: files.saturating_sub(FILES_KEPT).clamp(FILES_KEPT, CONNECTIONS_MAX),
        greeting_max: GREETING_MAX,
        greeting_bytes: GREETING_BYTES,
        idle_max: IDLE_MAX,
        stuck_max: STUCK_MAX,
    }
}

/// All services of a member, and the switch of its health.
pub(crate) async fn router(shared: &Arc<Shared>) -> (Router<Stack<Calls, Identity>>, HealthReporter) {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<AgentServiceServer<agent::Agents>>().await;
    reporter.set_serving::<OperatorServiceServer<operator::Operators>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    let reflection = reflection.inspect_err(|error| tracing::warn!(%error, "no gRPC reflection")).ok();
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .max_concurrent_streams(STREAMS_MAX)
        .concurrency_limit_per_connection(CALLS_MAX)
        .timeout(CALL_MAX)
        .layer(Calls)
        .add_service(shared.raft.service())
        .add_service(PeerServiceServer::new(peer::Peer::new(shared.clone())))
        .add_service(ClusterServiceServer::new(cluster::Cluster::new(shared.clone())))
        .add_service(
            AgentServiceServer::new(agent::Agents::new(shared.clone()))
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(
            OperatorServiceServer::new(operator::Operators::new(shared.clone()))
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(health)
        .add_optional_service(reflection);
    (router, reporter)
}

/// Tells those who ask that this member is going.
pub(crate) async fn unhealthy(reporter: &HealthReporter) {
    reporter.set_not_serving::<AgentServiceServer<agent::Agents>>().await;
    reporter.set_not_serving::<OperatorServiceServer<operator::Operators>>().await;
    reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
}
