//! Members as real servers in this process, on addresses of their own.

#![allow(dead_code, reason = "each test program uses a part")]

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use futures::future::join_all;
use soloist_coordinator::{Config, Coordinator, config::LogFormat, raft::Role};
use soloist_core::{command::FEATURE_LEVEL, policy::Policy};
use soloist_proto::v1::{
    cluster_service_client::ClusterServiceClient, operator_service_client::OperatorServiceClient,
};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    time::{interval, timeout},
};
use tonic::transport::Channel;

/// Time for anything to happen. Nothing here needs a tenth of it on an idle machine.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) type Operator = OperatorServiceClient<Channel>;

/// Members of one cluster, by id.
pub(crate) struct Cluster {
    pub(crate) members: BTreeMap<u64, Coordinator>,
    pub(crate) addresses: BTreeMap<u64, SocketAddr>,
    pub(crate) http: BTreeMap<u64, SocketAddr>,
    _folders: Vec<TempDir>,
}

impl Cluster {
    pub(crate) async fn start(count: u64) -> Cluster {
        let addresses = free(count).await;
        let list: BTreeMap<u64, String> = addresses.iter().map(|(id, at)| (*id, at.to_string())).collect();
        let mut cluster =
            Cluster { members: BTreeMap::new(), http: BTreeMap::new(), _folders: Vec::new(), addresses };
        for id in list.keys() {
            let folder = TempDir::new().unwrap();
            let config = config(*id, &list, folder.path().to_owned());
            let member = within(Coordinator::start(config)).await.unwrap();
            cluster.http.insert(*id, member.http().unwrap());
            cluster.members.insert(*id, member);
            cluster._folders.push(folder);
        }
        cluster
    }

    /// Starts one more member, which waits to be taken in.
    pub(crate) async fn join(&mut self, id: u64) {
        let address = *free(1).await.values().next().unwrap();
        let folder = TempDir::new().unwrap();
        let own = BTreeMap::from([(id, address.to_string())]);
        let config = Config { members: BTreeMap::new(), ..config(id, &own, folder.path().to_owned()) };
        let member = within(Coordinator::start(config)).await.unwrap();
        self.addresses.insert(id, address);
        self.http.insert(id, member.http().unwrap());
        self.members.insert(id, member);
        self._folders.push(folder);
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = u64> + '_ {
        self.members.keys().copied()
    }

    /// Waits until the running members agree on a leader among them.
    pub(crate) async fn leader(&self) -> u64 {
        let mut leader = None;
        eventually("the members agree on a leader", async || {
            let mut named =
                self.members.values().map(|member| member.raft().leader().map(|leader| leader.id));
            let first = named.next().flatten();
            leader = first.filter(|first| {
                named.all(|other| other == Some(*first))
                    && self
                        .members
                        .get(first)
                        .is_some_and(|member| member.raft().status().borrow().role == Role::Leader)
            });
            leader.is_some()
        })
        .await;
        leader.unwrap()
    }

    pub(crate) fn term(&self, id: u64) -> u64 {
        self.members[&id].raft().status().borrow().term
    }

    pub(crate) async fn operator(&self, id: u64) -> Operator {
        within(Operator::connect(format!("http://{}", self.addresses[&id]))).await.unwrap()
    }

    pub(crate) async fn membership(&self, id: u64) -> ClusterServiceClient<Channel> {
        within(ClusterServiceClient::connect(format!("http://{}", self.addresses[&id]))).await.unwrap()
    }

    pub(crate) async fn halt(&mut self, id: u64) {
        within(self.members.remove(&id).unwrap().halt()).await;
    }

    pub(crate) async fn ready(&self, id: u64) -> u16 {
        self.get(id, "/readyz").await.0
    }

    /// A plain HTTP request.
    pub(crate) async fn get(&self, id: u64, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let work = async {
            let mut stream = tokio::net::TcpStream::connect(self.http[&id]).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = within(work).await;
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }

    pub(crate) async fn stop(self) {
        within(join_all(self.members.into_values().map(Coordinator::halt))).await;
    }
}

pub(crate) fn config(id: u64, members: &BTreeMap<u64, String>, data: PathBuf) -> Config {
    Config {
        id,
        cluster: "test".into(),
        data,
        listen: members[&id].clone(),
        advertise: members[&id].clone(),
        http: Some("127.0.0.1:0".into()),
        members: members.clone(),
        fleet_defaults: Policy::default(),
        max_feature_level: FEATURE_LEVEL,
        log: "info".into(),
        log_format: LogFormat::Human,
    }
}

/// Addresses that were free a moment ago.
pub(crate) async fn free(count: u64) -> BTreeMap<u64, SocketAddr> {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    listeners.iter().zip(1..).map(|(listener, id)| (id, listener.local_addr().unwrap())).collect()
}

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(DEADLINE, work).await.expect("it takes too long")
}

pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let mut ticks = interval(Duration::from_millis(20));
    let wait = async {
        while !holds().await {
            ticks.tick().await;
        }
    };
    assert!(timeout(DEADLINE, wait).await.is_ok(), "it takes too long until {what}");
}
