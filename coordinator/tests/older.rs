//! Agents of the release before are served: their messages, byte for byte, through a real session.

#![allow(clippy::unwrap_used)] // in a test a panic is the answer

#[path = "support/cluster.rs"]
mod cluster;

use std::path::Path;

use cluster::{Cluster, within};
use prost::Message as _;
use soloist_proto::v1::{
    AgentMessage, agent_service_client::AgentServiceClient, coordinator_message::Message,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// A message as the first release wrote it.
fn golden(name: &str) -> AgentMessage {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../proto/golden/v1/{name}.bin"));
    let bytes = std::fs::read(&path).unwrap();
    let message = AgentMessage::decode(&*bytes).unwrap();
    assert_eq!(message.encode_to_vec(), bytes, "it goes over the wire as it was written");
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_of_the_first_wire_version_is_served() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.leader().await;
    let mut client =
        within(AgentServiceClient::connect(format!("http://{}", cluster.addresses[&leader]))).await.unwrap();
    let (to, messages) = mpsc::channel(16);
    to.send(golden("hello")).await.unwrap();
    let mut from = within(client.session(ReceiverStream::new(messages))).await.unwrap().into_inner();
    let (mut registered, mut assigned, mut acknowledged) = (false, false, false);
    while !(registered && assigned && acknowledged) {
        let message = within(from.message()).await.unwrap().expect("the session goes on");
        match message.message.unwrap() {
            Message::Registered(message) => {
                assert!(!registered && message.floor > 0);
                registered = true;
                to.send(golden("report")).await.unwrap();
                to.send(golden("facts")).await.unwrap();
            }
            Message::Assignment(_) => assigned = true,
            Message::ReportAck(ack) => {
                assert_eq!(ack.sequence, 12);
                acknowledged = true;
            }
            Message::Contact(_) | Message::Clock(_) | Message::EvidenceAck(_) => {}
            Message::Refused(refused) => panic!("{refused:?}"),
        }
    }
    drop((to, from));
    cluster.stop().await;
}
