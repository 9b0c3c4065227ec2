//! HAProxy: drains, cuts, reloads, and the page.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use soloist_agent::balancer::{Balancer, BalancerConfig, HaproxyConfig, Seen, Want};
use soloist_tests::harness::free_ports;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::client::{Asker, Upgraded, ask, get, idle, slow};
use crate::node::Node;
use crate::{IN, LONG, SHORT, drive_until, drive_while, id, until, until_or, wanted};
use soloist_tests::harness::proxy::{Group, changed, deploy, program};

const ONE: &str = "SOLOIST=app1";
const TWO: &str = "SOLOIST=app2";
const CUT_AT_ONCE: Want = Want::Out { within: std::time::Duration::ZERO };

/// HAProxy in front of two nodes.
pub(crate) struct World {
    pub(crate) one: Node,
    pub(crate) two: Node,
    page: Option<Node>,
    pub(crate) port: u16,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) haproxy: Option<Group>,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| String::new()).await
    }

    /// With more in its configuration.
    async fn start_with(more: impl Fn(&Self) -> String) -> Self {
        let (one, two) = (Node::start("node-1").await, Node::start("node-2").await);
        let page = Node::page(0).await;
        let port = free_ports(1)[0];
        let folder = tempfile::tempdir().unwrap();
        let mut world = Self { one, two, page: Some(page), port, folder, haproxy: None };
        world.write_config(&more(&world));
        world.launch().await;
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_config(&self, more: &str) {
        let address = |node: &Node| format!("127.0.0.1:{}", node.port);
        let (one, two) = (address(&self.one), address(&self.two));
        let page = address(self.page.as_ref().unwrap());
        let text = changed(
            "haproxy/haproxy.cfg",
            &[
                ("bind :80", &format!("bind 127.0.0.1:{}", self.port)),
                (
                    "10.0.0.1:13000 cookie app1 port 7411",
                    &format!("{one} cookie app1 port {}", self.one.port),
                ),
                (
                    "10.0.0.2:13000 cookie app2 port 7411",
                    &format!("{two} cookie app2 port {}", self.two.port),
                ),
                ("127.0.0.1:7410", &page),
                (
                    "/run/haproxy/admin.sock mode 660 group haproxy",
                    &format!("{} mode 660", self.path("admin.sock").display()),
                ),
                ("/var/lib/haproxy/soloist.state", &self.path("soloist.state").display().to_string()),
                (
                    "/usr/share/soloist/maintenance.http",
                    &deploy("maintenance/maintenance.http").display().to_string(),
                ),
                // Only root can change these.
                ("    chroot /var/lib/haproxy\n    user haproxy\n    group haproxy\n", ""),
            ],
        );
        fs::write(self.path("haproxy.cfg"), text + more).unwrap();
    }

    /// Starts it as a service does: one process that starts workers.
    pub(crate) async fn launch(&mut self) {
        let (config, workers) = (self.path("haproxy.cfg"), self.path("workers.sock"));
        let args = ["-W", "-S", workers.to_str().unwrap(), "-f", config.to_str().unwrap()];
        self.haproxy = Some(Group::start(&program("haproxy"), &args, &self.path("haproxy.log")));
        let (port, group) = (self.port, self.haproxy.as_ref().unwrap());
        let answers = async || (get(port, "/").await.status == 200).then_some(());
        until_or("HAProxy's start", || group.daemon.log(), answers).await;
    }

    pub(crate) fn config(&self) -> HaproxyConfig {
        let servers = [("node-1", "app1"), ("node-2", "app2")];
        let config = HaproxyConfig {
            socket: self.path("admin.sock"),
            workers: Some(self.path("workers.sock")),
            backends: vec!["nocobase".to_owned()],
            servers: servers.iter().map(|(node, server)| (id(node), (*server).to_owned())).collect(),
            state_file: Some(self.path("soloist.state")),
        };
        assert_eq!(BalancerConfig::Haproxy(config.clone()).problem(), None);
        config
    }

    pub(crate) fn balancer(&self) -> Balancer {
        Balancer::new(&BalancerConfig::Haproxy(self.config()))
    }

    /// A reload as a service does it, until the new worker answers.
    async fn reload(&self) {
        let before = self.worker().await;
        self.haproxy.as_ref().unwrap().signal(Signal::USR2);
        until("the reload", async || (self.worker().await != before).then_some(())).await;
    }

    /// Process id of the worker that answers at the socket.
    pub(crate) async fn worker(&self) -> Option<u32> {
        let info = self.ask("show info").await?;
        info.lines().find_map(|line| line.strip_prefix("Pid: ")?.parse().ok())
    }

    pub(crate) async fn ask(&self, command: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.path("admin.sock")).await.ok()?;
        stream.write_all(format!("{command}\n").as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    }

    /// The administrative state of app1, as HAProxy writes it.
    async fn admin(&self) -> String {
        let state = self.ask("show servers state").await.unwrap_or_default();
        let line = state.lines().find(|line| line.contains(" app1 ")).unwrap_or_default().to_owned();
        line.split(' ').nth(6).unwrap_or_default().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_drain_waits_for_what_is_under_way_and_nobody_notices() {
    let world = World::start().await;
    let mut balancer = world.balancer();
    drive_until(&mut balancer, &wanted(IN, IN), Seen::In, Seen::In).await;
    let anyone = Asker::start(world.port, "", false);
    let sticky = Asker::start(world.port, ONE, true);
    let kept = idle(world.port, ONE).await;
    let request = slow(world.port, ONE);
    until("the slow request", async || (world.one.slow() == 1).then_some(())).await;

    let out = wanted(LONG, IN);
    let draining = |seen| matches!(seen, (Seen::Draining { in_flight: 1.. }, Seen::In));
    drive_while(&mut balancer, &out, draining).await;
    for _ in 0..20 {
        assert!(draining(drive_while(&mut balancer, &out, |_| true).await[0]));
    }
    world.one.release();
    assert_eq!(request.await.unwrap().body, "node-1");
    let seen = drive_until(&mut balancer, &out, Seen::Out { cut: 0 }, Seen::In).await;
    assert!(!seen.iter().any(|(one, _)| *one == Seen::In), "{seen:?}");

    // The kept connection is idle: it counts for nothing, and its next request goes elsewhere. So does the client with the cookie.
    drop(kept);
    let before = world.one.requests();
    until("requests to node-2", async || (world.two.requests() > 50).then_some(())).await;
    assert_eq!(world.one.requests(), before, "nothing comes to a node that is out");
    assert_eq!(sticky.all_well().await.last().unwrap(), "node-2");

    drive_until(&mut balancer, &wanted(IN, IN), Seen::In, Seen::In).await;
    until("requests to node-1", async || (world.one.requests() > before).then_some(())).await;
    anyone.all_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_left_at_the_deadline_is_cut_and_counted() {
    let world = World::start().await;
    let mut balancer = world.balancer();
    drive_until(&mut balancer, &wanted(IN, IN), Seen::In, Seen::In).await;
    let mut here = Upgraded::open(world.port, ONE).await;
    let mut there = Upgraded::open(world.port, TWO).await;
    let request = slow(world.port, ONE);
    until("the slow request", async || (world.one.slow() == 1).then_some(())).await;

    let seen = drive_until(&mut balancer, &wanted(SHORT, IN), Seen::Out { cut: 2 }, Seen::In).await;
    assert!(seen.contains(&(Seen::Draining { in_flight: 2 }, Seen::In)), "{seen:?}");
    assert!(!here.echoes().await && there.echoes().await);
    assert_ne!(request.await.unwrap().status, 200);
    // It stays out, and the number stays.
    drive_until(&mut balancer, &wanted(SHORT, IN), Seen::Out { cut: 2 }, Seen::In).await;
    // An agent that was restarted knows only that it is out.
    let mut again = world.balancer();
    drive_until(&mut again, &wanted(SHORT, IN), Seen::Out { cut: 0 }, Seen::In).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reload_in_the_middle_of_a_drain_changes_nothing() {
    let world = World::start().await;
    let mut config = world.config();
    config.state_file = None;
    let mut balancer = Balancer::new(&BalancerConfig::Haproxy(config));
    let anyone = Asker::start(world.port, "", false);
    let mut upgraded = Upgraded::open(world.port, ONE).await;
    let request = slow(world.port, ONE);
    until("the slow request", async || (world.one.slow() == 1).then_some(())).await;
    let out = wanted(LONG, IN);
    drive_until(&mut balancer, &out, Seen::Draining { in_flight: 2 }, Seen::In).await;

    world.reload().await;
    assert_eq!(world.admin().await, "0", "HAProxy has forgotten it");
    let counted = (Seen::Draining { in_flight: 2 }, Seen::In);
    let seen = drive_while(&mut balancer, &out, |seen| seen == counted).await;
    assert!(!seen.iter().any(|(one, _)| matches!(one, Seen::Out { .. })), "{seen:?}");
    drive_while(&mut balancer, &out, |seen| seen == counted).await;
    until("maintenance in the new worker", async || {
        assert!(drive_while(&mut balancer, &out, |_| true).await[0] == counted);
        (world.admin().await == "1").then_some(())
    })
    .await;
    world.one.release();
    assert_eq!(request.await.unwrap().status, 200, "an earlier worker finishes it");
    drive_until(&mut balancer, &out, Seen::Draining { in_flight: 1 }, Seen::In).await;
    assert!(upgraded.echoes().await);
    drive_until(&mut balancer, &wanted(CUT_AT_ONCE, IN), Seen::Out { cut: 1 }, Seen::In).await;
    assert!(!upgraded.echoes().await);
    anyone.all_well().await;

    // Out, and a reload: in again for a moment, and never said to be out while it is not.
    world.reload().await;
    let seen = drive_until(&mut balancer, &out, Seen::Out { cut: 0 }, Seen::In).await;
    assert!(matches!(seen[0].0, Seen::Draining { .. }), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_the_state_file_a_reload_or_restart_forgets_nothing() {
    let mut world = World::start().await;
    let mut balancer = world.balancer();
    drive_until(&mut balancer, &wanted(LONG, IN), Seen::Out { cut: 0 }, Seen::In).await;
    world.reload().await;
    assert_eq!(world.admin().await, "1");
    let before = world.one.requests();
    drop(world.haproxy.take());
    world.launch().await;
    assert_eq!(world.admin().await, "1");
    drive_until(&mut balancer, &wanted(LONG, IN), Seen::Out { cut: 0 }, Seen::In).await;
    assert_eq!(world.one.requests(), before);
    drive_until(&mut balancer, &wanted(IN, IN), Seen::In, Seen::In).await;
    let state = fs::read_to_string(world.path("soloist.state")).unwrap();
    assert!(state.lines().any(|line| line.contains(" app1 127.0.0.1 2 0 ")), "{state}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_every_node_out_there_is_a_page() {
    let mut world = World::start().await;
    let mut balancer = world.balancer();
    let out = Seen::Out { cut: 0 };
    drive_until(&mut balancer, &wanted(LONG, LONG), out, out).await;
    let answer = get(world.port, "/").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("7")), "{answer:?}");
    assert_eq!(answer.body, "page");

    let page = world.page.take().unwrap().port;
    let port = world.port;
    let answer = until("the static page", async || {
        Some(get(port, "/").await).filter(|answer| answer.body.contains("We will be right back"))
    })
    .await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("30")), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.body, fs::read_to_string(deploy("maintenance/maintenance.html")).unwrap());

    world.page = Some(Node::page(page).await);
    drive_until(&mut balancer, &wanted(IN, LONG), Seen::In, out).await;
    assert_eq!(get(world.port, "/").await.body, "node-1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_was_being_answered_by_a_process_that_died_reads_the_page() {
    let world = World::start().await;
    let all = || world.one.requests() + world.two.requests();
    let before = all();
    for method in ["POST", "GET"] {
        let answer = ask(world.port, method, "/die", "").await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("30")), "{answer:?}");
        assert!(answer.body.contains("We will be right back"), "{answer:?}");
    }
    assert_eq!(all(), before + 2, "what may have arrived is sent once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_is_in_only_when_its_checks_say_so() {
    let world = World::start().await;
    let mut balancer = world.balancer();
    world.one.set_ready(false);
    drive_until(&mut balancer, &wanted(IN, IN), Seen::Out { cut: 0 }, Seen::In).await;
    world.one.set_ready(true);
    drive_until(&mut balancer, &wanted(IN, IN), Seen::In, Seen::In).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_backends_count_as_one_and_others_are_left_alone() {
    let port = free_ports(1)[0];
    let world = World::start_with(|world| {
        let (one, two) = (world.one.port, world.two.port);
        format!(
            "frontend more\n    bind 127.0.0.1:{port}\n    default_backend more\nbackend more\n    balance first\n    \
             server app1 127.0.0.1:{one}\n    server app2 127.0.0.1:{two}\n    server other 127.0.0.1:{two}\n"
        )
    })
    .await;
    let mut config = world.config();
    config.backends.push("more".into());
    let mut balancer = Balancer::new(&BalancerConfig::Haproxy(config));
    world.ask("set server more/other state drain").await.unwrap();
    let request = slow(port, "");
    until("the slow request", async || (world.one.slow() == 1).then_some(())).await;
    drive_until(&mut balancer, &wanted(LONG, IN), Seen::Draining { in_flight: 1 }, Seen::In).await;
    world.one.release();
    drive_until(&mut balancer, &wanted(LONG, IN), Seen::Out { cut: 0 }, Seen::In).await;
    assert_eq!(request.await.unwrap().status, 200);
    assert_eq!(
        (get(port, "/").await.body, get(world.port, "/").await.body),
        ("node-2".into(), "node-2".into())
    );
    // Nobody speaks of node-1 any more: it stays out. And what is not ours stays as it is.
    let mut two = wanted(LONG, IN);
    two.servers.remove(&id("node-1"));
    assert_eq!(balancer.drive(&two).await.unwrap(), [(id("node-2"), Seen::In)].into());
    assert_eq!(world.admin().await, "1");
    let state = world.ask("show servers state more").await.unwrap();
    assert!(state.lines().any(|line| line.contains(" other 127.0.0.1 2 8 ")), "{state}");
}
