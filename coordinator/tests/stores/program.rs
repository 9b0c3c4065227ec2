//! Members as processes.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use soloist_proto::{
    errors::Problem,
    v1::{
        self, cluster_service_client::ClusterServiceClient, operator_service_client::OperatorServiceClient,
    },
};
use tempfile::TempDir;
use tokio::time::{interval, timeout};
use tonic::transport::Channel;

/// Time for anything to happen.
const DEADLINE: Duration = Duration::from_secs(60);

/// Members of one cluster. What runs is killed when this is dropped.
pub(crate) struct Members {
    pub(crate) temp: TempDir,
    pub(crate) addresses: BTreeMap<u64, String>,
    /// The list that founding members are given.
    founders: Vec<u64>,
    running: BTreeMap<u64, Child>,
}

impl Members {
    /// Addresses and folders for so many founding members; none runs.
    pub(crate) fn of(count: u64) -> Members {
        let temp = TempDir::new().unwrap();
        let mut members = Members {
            temp,
            addresses: BTreeMap::new(),
            founders: (1..=count).collect(),
            running: BTreeMap::new(),
        };
        let listeners: Vec<_> = (0..count + 3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        for (id, listener) in (1..).zip(&listeners) {
            members.addresses.insert(id, listener.local_addr().unwrap().to_string());
        }
        members
    }

    /// The same, running and with a leader.
    pub(crate) async fn start(count: u64) -> Members {
        let mut members = Members::of(count);
        (1..=count).for_each(|id| members.run(id, &[]));
        members.leader().await;
        members
    }

    pub(crate) fn folder(&self, id: u64) -> PathBuf {
        self.temp.path().join(format!("member-{id}"))
    }

    pub(crate) fn log(&self, id: u64) -> String {
        fs::read_to_string(self.temp.path().join(format!("member-{id}.log"))).unwrap_or_default()
    }

    /// The program with the flags of a member.
    pub(crate) fn command(&self, id: u64) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_soloist-coordinator"));
        let (id_text, at) = (id.to_string(), self.addresses[&id].as_str());
        command.args(["--id", &id_text, "--listen", at, "--http", "none", "--cluster", "test", "--data"]);
        command.arg(self.folder(id)).stdin(Stdio::null());
        command
    }

    /// Runs a founding member, or, with other flags than a list of members, any other.
    pub(crate) fn run(&mut self, id: u64, flags: &[&str]) {
        let mut command = self.command(id);
        if flags.is_empty() {
            for founder in &self.founders {
                command.arg("--member").arg(format!("{founder}={}", self.addresses[founder]));
            }
        }
        self.spawn(id, command.args(flags));
    }

    pub(crate) fn spawn(&mut self, id: u64, command: &mut Command) {
        let log = File::create(self.temp.path().join(format!("member-{id}.log"))).unwrap();
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.running.insert(id, child);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, id: u64) {
        let mut child = self.running.remove(&id).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn stop(&mut self, id: u64) {
        let pid = Pid::from_raw(i32::try_from(self.running[&id].id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        self.ended(id).await;
    }

    /// Waits for the end of a member.
    pub(crate) async fn ended(&mut self, id: u64) -> ExitStatus {
        let mut child = self.running.remove(&id).unwrap();
        let mut status = None;
        eventually("a member has ended", async || {
            status = child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    /// Waits for the end of a member that refuses to run, and returns what it said.
    pub(crate) async fn refused(&mut self, id: u64) -> String {
        let status = self.ended(id).await;
        let log = self.log(id);
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(!log.contains("panicked"), "{log}");
        log
    }

    fn channel(&self, id: u64) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.addresses[&id])).unwrap();
        endpoint.connect_timeout(Duration::from_secs(2)).connect_lazy()
    }

    pub(crate) fn membership(&self, id: u64) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel(id))
    }

    /// Takes a running member in, through another one, until it votes.
    pub(crate) async fn take_in(&self, through: u64, id: u64) {
        let add = v1::AddMemberRequest {
            member: id,
            address: self.addresses[&id].clone(),
            ..v1::AddMemberRequest::default()
        };
        eventually("a member is taken in", async || {
            let added = self.membership(through).add_member(add.clone()).await;
            added.is_ok_and(|reply| reply.into_inner().done)
        })
        .await;
    }

    pub(crate) async fn status(&self, id: u64) -> Option<v1::MemberInfo> {
        let mut client = self.membership(id);
        let asked = timeout(Duration::from_secs(2), client.member_status(v1::MemberStatusRequest {})).await;
        asked.ok()?.ok()?.into_inner().info
    }

    /// Waits for a leader that all running members agree on.
    pub(crate) async fn leader(&self) -> u64 {
        let mut leader = None;
        eventually("the members agree on a leader", async || {
            let mut named = Vec::new();
            for id in self.running.keys() {
                named.push(self.status(*id).await.and_then(|info| info.leader));
            }
            leader = named.first().copied().flatten();
            leader.is_some_and(|id| self.running.contains_key(&id)) && named.iter().all(|one| *one == leader)
        })
        .await;
        leader.unwrap()
    }

    /// Has something written through a member: the refusal of a fleet that nobody knows goes through the log. Whether that was confirmed.
    pub(crate) async fn write(&self, id: u64) -> bool {
        let mut client = OperatorServiceClient::new(self.channel(id));
        let request = v1::FreezeRequest {
            fleet: "none".into(),
            length_ms: None,
            by: "a test".into(),
            reason: "x".repeat(20_000),
        };
        let answer = timeout(Duration::from_secs(10), client.freeze(request)).await;
        matches!(answer, Ok(Err(status)) if Problem::from(&status).reason == "unknown_fleet")
    }

    pub(crate) async fn writes(&self, id: u64, count: usize) {
        for _ in 0..count {
            eventually("something is written", async || self.write(id).await).await;
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let mut ticks = interval(Duration::from_millis(50));
    let wait = async {
        while !holds().await {
            ticks.tick().await;
        }
    };
    assert!(timeout(DEADLINE, wait).await.is_ok(), "it takes too long until {what}");
}

pub(crate) fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
