//! A member's store that is not what was written: the member must refuse it, and a new one takes its place.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::SmallRng;
use soloist_proto::v1;
use soloist_proto::v1::cluster_service_client::ClusterServiceClient;
use tonic::transport::Channel;

use super::nemesis::{empty, member_up};
use super::scene::Scene;
use crate::harness::{CLIENT, get, until};

/// What is done to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// Its end is missing.
    Truncate,
    /// A bit is another.
    Flip,
    /// All of it is as it was before.
    Swap,
}

/// How long a member may take to refuse its store.
const REFUSE_MAX: Duration = Duration::from_secs(30);
/// How long a change of the membership may take.
const JOIN_MAX: Duration = Duration::from_secs(60);

fn config(scene: &Scene, at: usize) -> std::path::PathBuf {
    scene.fleet.folder.join(format!("coordinator-{}.toml", at + 1))
}

fn folder(scene: &Scene, at: usize) -> std::path::PathBuf {
    scene.fleet.folder.join(format!("member-{}", at + 1))
}

/// Stops a member, harms its store, and starts it: it must end by itself. Gives what it said.
///
/// # Panics
/// When it works with a store like that.
pub fn spoil(scene: &mut Scene, at: usize, harm: Harm, rng: &mut SmallRng) -> String {
    if let Some(mut daemon) = scene.fleet.members[at].take() {
        daemon.kill();
    }
    let log = folder(scene, at).join("log.redb");
    match harm {
        Harm::Truncate => shorten(&log, rng),
        Harm::Flip => flip(&log, rng),
        Harm::Swap => {
            let old = scene.fleet.folder.join("older-log");
            fs::copy(&log, &old).expect("a store can be copied");
            scene.fleet.start_member(at);
            remembers_more(scene, at);
            if let Some(mut daemon) = scene.fleet.members[at].take() {
                daemon.kill();
            }
            fs::rename(&old, &log)
                .or_else(|_| fs::copy(&old, &log).map(drop))
                .expect("a store can be replaced");
        }
    }
    scene.fleet.start_member(at);
    let daemon = scene.fleet.members[at].as_mut().expect("it was started");
    let status = daemon.wait(REFUSE_MAX);
    let said = daemon.log();
    assert!(!status.success(), "a member ends well although its store was harmed: {harm:?}\n{said}");
    scene.fleet.members[at] = None;
    let words = ["damaged", "holds less", "checksum", "refuse", "does not match", "corrupt", "missing"];
    let line = said.lines().rev().find(|line| words.iter().any(|word| line.contains(word)));
    line.or_else(|| said.lines().next_back()).unwrap_or_default().to_owned()
}

/// Waits until the member has in its state what it had not when it was started, and so has acknowledged more than it had.
fn remembers_more(scene: &Scene, at: usize) {
    let port = scene.fleet.http[at];
    let place = scene.fleet.place(&format!("m{}", at + 1));
    let applied = || {
        let (_, text) = place.within(|| get(port, "/metrics"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("soloist_coordinator_applied_index "))?;
        line.trim().parse::<u64>().ok().filter(|applied| *applied > 0)
    };
    let state = || scene.fleet.logs();
    let first = until("a started member", REFUSE_MAX, state, applied);
    let _ = scene.fleet.cli().run(&["freeze", "--for", "1s", "--reason", "something to remember"]);
    let more = || applied().filter(|applied| *applied > first + 1);
    until("a member that follows", REFUSE_MAX, state, more);
    // The entries of a moment ago may still be on their way to its disk.
    std::thread::sleep(Duration::from_secs(1));
}

fn shorten(path: &Path, rng: &mut SmallRng) {
    let file = fs::File::options().write(true).open(path).expect("a member has a log");
    let length = file.metadata().map_or(0, |meta| meta.len());
    file.set_len(length * rng.random_range(1..10) / 16).expect("a file can be shortened");
}

/// Changes a bit in every page, so that it is not one of those that hold nothing.
fn flip(path: &Path, rng: &mut SmallRng) {
    let mut bytes = fs::read(path).expect("a member has a log");
    for page in bytes.chunks_mut(4096).skip(1) {
        let used: Vec<usize> = (0..page.len()).filter(|at| page[*at] != 0).collect();
        if !used.is_empty() {
            page[used[rng.random_range(0..used.len())]] ^= 1 << rng.random_range(0..8);
        }
    }
    fs::write(path, bytes).expect("a file can be written");
}

/// Takes the member out, and a new one with an empty folder and an id of its own in at the same place.
///
/// # Panics
/// When the others do not take it in.
pub fn rejoin(scene: &mut Scene, at: usize) {
    let old = scene.fleet.member_id(at);
    let new = (0..scene.fleet.members.len()).map(|at| scene.fleet.member_id(at)).max().unwrap_or(0) + 1;
    change(scene, at, "the member to leave", move |mut client| async move {
        client.remove_member(v1::RemoveMemberRequest { member: old, forwarded: false }).await.map(drop)
    });
    empty(&folder(scene, at));
    let text = fs::read_to_string(config(scene, at)).expect("a member has a configuration");
    let (top, rest) = text.split_once("[members]").unwrap_or((&text, ""));
    let defaults = rest.split_once("[fleet_defaults]").map_or_else(
        || top.split_once("[fleet_defaults]").map_or("", |(_, defaults)| defaults),
        |(_, defaults)| defaults,
    );
    let top = top.split("[fleet_defaults]").next().unwrap_or_default();
    let top = top.replace(&format!("id = {old}\n"), &format!("id = {new}\n"));
    let join = if top.contains("join = true") { "" } else { "join = true\n" };
    fs::write(config(scene, at), format!("{top}{join}[fleet_defaults]\n{defaults}"))
        .expect("a file can be written");
    member_up(scene, at);
    let address = scene.fleet.member_address(at).to_string();
    change(scene, at, "the new member to be taken in", move |mut client| {
        let address = address.clone();
        async move {
            let ask = v1::AddMemberRequest { member: new, address, forwarded: false, learner: false };
            let reply = client.add_member(ask).await?.into_inner();
            if reply.done { Ok(()) } else { Err(tonic::Status::unavailable(format!("so far: {reply:?}"))) }
        }
    });
}

/// Has another member change the membership; asking twice is asking once.
fn change<F>(scene: &Scene, at: usize, what: &str, call: impl Fn(ClusterServiceClient<Channel>) -> F + Sync)
where
    F: Future<Output = Result<(), tonic::Status>>,
{
    let others: Vec<_> = (0..scene.fleet.members.len()).filter(|other| *other != at).collect();
    let addresses: Vec<String> =
        others.iter().map(|other| format!("http://{}", scene.fleet.member_address(*other))).collect();
    let said = std::sync::Mutex::new(String::new());
    let attempt = |address: &String| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let done = runtime.block_on(async {
            let channel = Channel::from_shared(address.clone()).expect("an address").connect().await;
            let client = ClusterServiceClient::new(channel.map_err(|error| error.to_string())?);
            let limit = tokio::time::timeout(Duration::from_secs(20), call(client));
            limit.await.map_err(|error| error.to_string())?.map_err(|status| status.to_string())
        });
        done.map_err(|why| *said.lock().expect("it is whole") = why).ok()
    };
    let state = || format!("{}\n{}", said.lock().expect("it is whole"), scene.fleet.logs());
    scene.fleet.place(CLIENT).within(|| until(what, JOIN_MAX, state, || addresses.iter().find_map(attempt)));
}
