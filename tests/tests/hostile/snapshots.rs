//! Snapshots that come in: one at a time, and one that stalls does not keep the place for ever.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use soloist_proto::v1;
use soloist_proto::v1::raft_service_client::RaftServiceClient;
use soloist_tests::harness::{Fleet, FleetOptions, get, until};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Time for anything to happen. Nothing here needs a tenth of it on an idle machine.
const DEADLINE: Duration = Duration::from_secs(30);

fn pack(value: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("it can be written")
}

/// The first part of a snapshot of so many bytes.
fn header(bytes: u64) -> v1::SnapshotPart {
    // magic 8, checksum 4, lengths of the meta and of the state 8 each, the meta.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../coordinator/golden/level-1/state.snapshot");
    let file = std::fs::read(path).expect("the golden snapshot");
    let length = u64::from_le_bytes(*file[12..].first_chunk().expect("a length"));
    let meta = &file[28..28 + usize::try_from(length).expect("a small meta")];
    let vote = json!({ "leader_id": { "term": 0, "node_id": 9 }, "committed": false });
    // A map of four fields.
    let fields =
        [("vote", pack(&vote)), ("meta", meta.to_vec()), ("bytes", pack(&bytes)), ("checksum", pack(&1))];
    let fields = fields.iter().flat_map(|(name, value)| [pack(name), value.clone()].concat());
    let payload = std::iter::once(0x84).chain(fields).collect();
    // A member that nobody has met before.
    let passport = Some(v1::Passport { era: 0, store: 9, run: 1, draw: 1 });
    let envelope = v1::RaftEnvelope { cluster: "soloist".into(), from: 9, to: 1, payload, passport };
    v1::SnapshotPart { part: Some(v1::snapshot_part::Part::Header(envelope)) }
}

/// A transfer whose sender keeps the other end.
async fn transfer(channel: &Channel) -> (mpsc::Sender<v1::SnapshotPart>, tokio::task::JoinHandle<Status>) {
    let (parts, coming) = mpsc::channel(4);
    parts.send(header(1 << 20)).await.expect("there is room");
    let mut client = RaftServiceClient::new(channel.clone());
    let sent = async move { client.install_snapshot(ReceiverStream::new(coming)).await };
    (parts, tokio::spawn(async move { sent.await.expect_err("none of them is whole") }))
}

#[test]
fn one_snapshot_comes_in_at_a_time() {
    let mut fleet = Fleet::prepare(&FleetOptions { members: 1, nodes: 0, ..FleetOptions::default() });
    fleet.start_member(0);
    let ready = || get(fleet.http[0], "/readyz").filter(|(status, _)| *status == 200);
    until("the coordinator", DEADLINE, || fleet.logs(), ready);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let address = format!("http://{}", fleet.member_address(0));
        let channel = Channel::from_shared(address).expect("an address").connect_lazy();
        // Whichever of the two comes first has the place.
        let (first, one) = transfer(&channel).await;
        let (second, two) = transfer(&channel).await;
        let (mut one, mut two) = (one, two);
        let (refused, other, kept) = tokio::select! {
            status = &mut one => (status.expect("it ran"), two, second),
            status = &mut two => (status.expect("it ran"), one, first),
            () = tokio::time::sleep(DEADLINE) => panic!("both are taken"),
        };
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        assert!(refused.message().contains("another snapshot"), "{refused:?}");
        // The other one ends too early, and the next one has the place.
        drop(kept);
        let short = timeout(DEADLINE, other).await.expect("it ends").expect("it ran");
        assert_eq!(short.code(), Code::DataLoss, "{short:?}");
        let (_kept, stalled) = transfer(&channel).await;
        let silent = timeout(DEADLINE, stalled).await.expect("it ends").expect("it ran");
        assert_eq!(silent.code(), Code::DeadlineExceeded, "one that stalls loses its place: {silent:?}");
    });
}
