//! nginx: drains, cuts, what needs no reload, and the page.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};
use soloist_agent::balancer::{Balancer, BalancerConfig, NginxConfig, Seen};
use soloist_tests::harness::proxy::{Group, deploy};
use soloist_tests::harness::{free_ports, nginx};

use crate::client::{Asker, Upgraded, ask, get, idle, slow};
use crate::node::Node;
use crate::{IN, LONG, SHORT, drive_until, drive_while, id, until, until_or, wanted};

/// nginx in front of two nodes.
pub(crate) struct World {
    pub(crate) one: Node,
    pub(crate) two: Node,
    pub(crate) page: Option<Node>,
    pub(crate) port: u16,
    status: u16,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) nginx: Option<Group>,
}

impl World {
    /// Nothing runs yet but the nodes.
    pub(crate) async fn prepare() -> Self {
        let (one, two) = (Node::start("node-1").await, Node::start("node-2").await);
        let page = Some(Node::page(0).await);
        let ports = free_ports(2);
        let folder = tempfile::tempdir().unwrap();
        let world = Self { one, two, page, port: ports[0], status: ports[1], folder, nginx: None };
        nginx::write(world.folder.path(), world.port);
        world
    }

    /// As on a new host: the agent writes its file, and nginx is started then.
    pub(crate) async fn start(options: &[&str]) -> (Self, Balancer) {
        let mut world = Self::prepare().await;
        let mut balancer = world.balancer(options);
        let error = balancer.drive(&wanted(IN, IN)).await.unwrap_err().to_string();
        assert!(error.contains("nginx was not reloaded") && error.contains("is it running?"), "{error}");
        world.launch().await;
        let mut balancer = world.balancer(options);
        drive_until(&mut balancer, &wanted(IN, IN), Seen::In, Seen::In).await;
        (world, balancer)
    }

    pub(crate) async fn launch(&mut self) {
        self.nginx = Some(nginx::launch(self.folder.path()));
        let (port, group) = (self.port, self.nginx.as_ref().unwrap());
        let answers = async || (get(port, "/").await.status == 200).then_some(());
        until_or("nginx's start", || group.daemon.log(), answers).await;
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn config(&self, options: &[&str]) -> NginxConfig {
        let call = |more: &[&str]| nginx::call(self.folder.path(), more);
        let address = |node: &Node| format!("127.0.0.1:{}", node.port);
        let config = NginxConfig {
            upstream: "nocobase".into(),
            include: self.path("soloist/nocobase.conf"),
            servers: [(id("node-1"), address(&self.one)), (id("node-2"), address(&self.two))].into(),
            options: options.iter().map(|line| (*line).to_owned()).collect(),
            page: ([127, 0, 0, 1], self.page.as_ref().unwrap().port).into(),
            status: ([127, 0, 0, 1], self.status).into(),
            test: call(&["-t"]),
            reload: call(&["-s", "reload"]),
            pid_file: self.path("nginx.pid"),
        };
        assert_eq!(BalancerConfig::Nginx(config.clone()).problem(), None);
        config
    }

    pub(crate) fn balancer(&self, options: &[&str]) -> Balancer {
        Balancer::new(&BalancerConfig::Nginx(self.config(options)))
    }

    /// Process ids of the workers, with whether they take no new connections.
    pub(crate) fn workers(&self) -> BTreeSet<(u32, bool)> {
        let first = self.nginx.as_ref().unwrap().daemon.pid().to_string();
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let of = |pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.to_owned();
            let title = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            let worker = title.starts_with("nginx: worker process");
            (worker && parent == first).then(|| (pid, title.contains("shutting down")))
        };
        pids.filter_map(of).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_drain_waits_for_what_is_under_way_and_nobody_notices() {
    let (world, mut balancer) = World::start(&["keepalive 16", "least_conn"]).await;
    let anyone = Asker::start(world.port, "", false);
    // Both workers keep connections to both nodes, and a client keeps one to nginx.
    let kept = idle(world.port, "").await;
    let mut requests = Vec::new();
    while world.one.slow() == 0 {
        requests.push(slow(world.port, ""));
        let all = requests.len() as u64;
        let arrived = async || (world.one.slow() + world.two.slow() == all).then_some(());
        until("the slow request", arrived).await;
    }
    world.two.release();

    let out = wanted(LONG, IN);
    let draining = |seen| matches!(seen, (Seen::Draining { in_flight: 1 }, Seen::In));
    drive_while(&mut balancer, &out, draining).await;
    let before = world.one.requests();
    for _ in 0..20 {
        assert!(draining(drive_while(&mut balancer, &out, |_| true).await[0]));
    }
    until("requests to node-2", async || (world.two.requests() > 50).then_some(())).await;
    assert_eq!(world.one.requests(), before, "nothing comes to a node that is on its way out");
    world.one.release();
    for request in requests {
        assert_eq!(request.await.unwrap().status, 200);
    }
    drive_until(&mut balancer, &out, Seen::Out { cut: 0 }, Seen::In).await;
    drop(kept);

    // Another assignment with the same servers needs no reload, and an agent that was restarted does none either.
    let workers = world.workers();
    let mut later = out.clone();
    later.number += 1;
    drive_until(&mut balancer, &later, Seen::Out { cut: 0 }, Seen::In).await;
    drive_until(&mut world.balancer(&["keepalive 16", "least_conn"]), &later, Seen::Out { cut: 0 }, Seen::In)
        .await;
    // Nobody speaks of node-1 any more: it stays out.
    later.servers.remove(&id("node-1"));
    assert_eq!(balancer.drive(&later).await.unwrap(), [(id("node-2"), Seen::In)].into());
    assert_eq!(world.workers(), workers);

    drive_until(&mut balancer, &wanted(IN, IN), Seen::In, Seen::In).await;
    until("requests to node-1", async || (world.one.requests() > before).then_some(())).await;
    anyone.all_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_left_at_the_deadline_is_cut_and_counted() {
    let (world, mut balancer) = World::start(&[]).await;
    let anyone = Asker::start(world.port, "", false);
    let mut upgraded = Upgraded::open(world.port, "").await;
    let before = world.workers();
    let seen = drive_until(&mut balancer, &wanted(SHORT, IN), Seen::Out { cut: 1 }, Seen::In).await;
    assert!(seen.contains(&(Seen::Draining { in_flight: 1 }, Seen::In)), "{seen:?}");
    assert!(!upgraded.echoes().await);
    drive_until(&mut balancer, &wanted(SHORT, IN), Seen::Out { cut: 1 }, Seen::In).await;
    let after = world.workers();
    assert!(after.len() == 2 && after.is_disjoint(&before), "{before:?} {after:?}");
    anyone.all_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_agent_that_was_restarted_goes_on_with_a_drain() {
    let (world, mut balancer) = World::start(&[]).await;
    let mut upgraded = Upgraded::open(world.port, "").await;
    let waiting = Seen::Draining { in_flight: 1 };
    drive_until(&mut balancer, &wanted(LONG, IN), waiting, Seen::In).await;
    let finishing = |workers: BTreeSet<(u32, bool)>| workers.iter().any(|(_, finishing)| *finishing);
    until("the title of the worker", async || finishing(world.workers()).then_some(())).await;
    let mut again = world.balancer(&[]);
    drive_until(&mut again, &wanted(LONG, IN), waiting, Seen::In).await;
    assert!(upgraded.echoes().await);
    drop(upgraded);
    drive_until(&mut again, &wanted(LONG, IN), Seen::Out { cut: 0 }, Seen::In).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_that_sticks_to_a_node_moves() {
    let (world, mut balancer) = World::start(&["keepalive 4", "ip_hash"]).await;
    let home = get(world.port, "/").await.body;
    assert_eq!(get(world.port, "/").await.body, home);
    let (out, other) =
        if home == "node-1" { (wanted(LONG, IN), "node-2") } else { (wanted(IN, LONG), "node-1") };
    let sticky = Asker::start(world.port, "", false);
    drive_while(&mut balancer, &out, |seen| {
        matches!(seen, (Seen::Out { cut: 0 }, _) | (_, Seen::Out { cut: 0 }))
    })
    .await;
    until("the move", async || (get(world.port, "/").await.body == other).then_some(())).await;
    assert_eq!(sticky.all_well().await.first().unwrap(), &home);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_every_node_out_there_is_a_page() {
    let (mut world, mut balancer) = World::start(&[]).await;
    let out = Seen::Out { cut: 0 };
    drive_until(&mut balancer, &wanted(LONG, LONG), out, out).await;
    let answer = get(world.port, "/").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("7")), "{answer:?}");
    assert_eq!(answer.body, "page");

    let page = world.page.take().unwrap().port;
    for method in ["GET", "POST"] {
        let answer = ask(world.port, method, "/api/x", "").await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("30")), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.body, fs::read_to_string(deploy("maintenance/maintenance.html")).unwrap());
    }
    world.page = Some(Node::page(page).await);
    drive_until(&mut balancer, &wanted(IN, LONG), Seen::In, out).await;
    assert_eq!(get(world.port, "/").await.body, "node-1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_may_have_arrived_is_sent_once() {
    let (world, _balancer) = World::start(&[]).await;
    let all = || world.one.requests() + world.two.requests();
    let before = all();
    assert_eq!(ask(world.port, "POST", "/die", "").await.status, 503);
    assert_eq!(all(), before + 1, "a POST that broke off is not repeated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_is_in_only_when_every_worker_knows_it() {
    let (world, mut balancer) = World::start(&[]).await;
    let out = Seen::Out { cut: 0 };
    drive_until(&mut balancer, &wanted(IN, LONG), Seen::In, out).await;
    // Workers that hear of the reload late, as on a busy machine.
    let pids: Vec<Pid> = world.workers().iter().filter_map(|(pid, _)| Pid::from_raw(*pid as i32)).collect();
    let signal_all = |signal| pids.iter().for_each(|pid| kill_process(*pid, signal).unwrap());
    signal_all(Signal::STOP);
    for _ in 0..5 {
        // A stopped worker may also get the question, and then nothing is known.
        if let Ok(seen) = balancer.drive(&wanted(IN, IN)).await {
            assert_eq!(seen[&id("node-2")], out);
        }
    }
    signal_all(Signal::CONT);
    let seen = until("node-2 in", async || {
        let seen = balancer.drive(&wanted(IN, IN)).await.ok()?;
        (seen[&id("node-2")] == Seen::In).then_some(seen)
    })
    .await;
    assert_eq!(seen[&id("node-1")], Seen::In);
}
