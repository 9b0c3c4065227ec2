//! Hostile clients against a real coordinator and a real agent: while they stall, flood, never read and hang up, a client that
//! behaves takes the lock and gives it back in time, a load balancer is answered, and the coordinator's memory stays bounded.

mod attack;
mod raw;
mod snapshots;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use soloist_tests::faults::locks::activate;
use soloist_tests::faults::swarm::{Swarm, fleet_of};
use soloist_tests::harness::{Cli, Fleet, FleetOptions, Place, get, until};

use attack::Attack;

/// Files that the coordinator may open, so that its door is full with few connections.
const FILES: u64 = 500;
/// Connections that stall at a time, spread over three ports: more than that leaves room for.
const STALLED: usize = 1_500;
/// Clients that do what they do as fast as they can: they share the processors with those whom they attack.
const ATTACKERS: usize = 3;
/// How long it may take to take the lock and give it back, on a machine that is busy with attackers too.
const LOCK_MAX: Duration = Duration::from_secs(20);
/// How long a load balancer waits for an answer of `/ready`.
const READY_MAX: Duration = Duration::from_secs(2);
/// Most memory that a coordinator may have at any time, in KiB.
const MEMORY_MAX_KIB: u64 = 200 * 1024;

struct Scene {
    fleet: Fleet,
    cli: Cli,
    _node: Swarm,
}

impl Scene {
    /// One coordinator with few files, an agent, and a fleet of one simulated node whose lock is free.
    fn new() -> Self {
        let all = getrlimit(Resource::Nofile);
        // The programs inherit what holds when they are started.
        setrlimit(Resource::Nofile, Rlimit { current: Some(FILES), ..all })
            .expect("a lower limit is allowed");
        let mut fleet = Fleet::start(&FleetOptions { members: 1, nodes: 1, ..FleetOptions::default() });
        setrlimit(Resource::Nofile, Rlimit { current: all.maximum, ..all }).expect("as much as was allowed");
        assert!(fleet.members[0].as_mut().is_some_and(|member| member.runs()));
        let members = vec![fleet.member_address(0)];
        let node = Swarm::start(Place::default(), members.clone(), "hostile", 1);
        node.until_all(Duration::from_secs(30));
        let name = fleet_of("hostile", 0);
        activate(&Place::default(), &members, &name);
        let cli = Cli { fleet: name, ..fleet.cli() };
        Self { fleet, cli, _node: node }
    }

    fn grpc(&self) -> SocketAddr {
        self.fleet.member_address(0)
    }

    fn pid(&self) -> u32 {
        self.fleet.members[0].as_ref().expect("it runs").pid()
    }

    /// The most memory that the coordinator ever had, in KiB.
    fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak.expect("Linux tells it of a process that runs")
    }

    /// What must hold during and after each attack.
    fn holds(&self, attack: &str) {
        let began = Instant::now();
        let done = self.cli.run(&["run", "--all-stopped", "--reason", "a good client", "--", "true"]);
        let took = began.elapsed();
        assert_eq!(done.code, 0, "{attack}: {}\n{}", done.stderr, self.fleet.logs());
        assert!(took < LOCK_MAX, "{attack}: the lock took {took:?}\n{}", self.fleet.logs());
        let began = Instant::now();
        assert!(get(self.fleet.agent_http[0], "/ready").is_some(), "{attack}: /ready is not answered");
        assert!(get(self.fleet.http[0], "/readyz").is_some_and(|(status, _)| status == 200), "{attack}");
        let answered = began.elapsed();
        assert!(answered < READY_MAX, "{attack}: /ready took {answered:?}");
        let memory = self.memory_kib();
        eprintln!("{attack}: lock {took:?}, /ready {answered:?}, at most {} MiB", memory / 1024);
        assert!(memory < MEMORY_MAX_KIB, "{attack}: {memory} KiB");
    }
}

#[test]
fn a_good_client_is_served_while_others_are_hostile() {
    let scene = Scene::new();
    scene.holds("nobody");
    let ports = [scene.fleet.http[0], scene.fleet.agent_http[0]].map(|port| ([127, 0, 0, 1], port).into());
    let stall = Attack::stall(vec![scene.grpc(), ports[0], ports[1]], STALLED);
    stall.until_done(STALLED);
    scene.holds("stalling");
    let told = "as many connections as may be";
    let log = || scene.fleet.members[0].as_ref().map(|member| member.log()).unwrap_or_default();
    until("the line in the log", Duration::from_secs(5), log, || log().contains(told).then_some(()));
    let count = log().lines().filter(|line| line.contains(told) && line.contains("grpc")).count();
    assert_eq!(count, 1, "it is told once a minute:\n{}", log());
    drop(stall);
    for (what, attack, enough) in [
        ("flooding", Attack::flood as fn(SocketAddr, usize) -> Attack, 5_000),
        ("never reading", Attack::never_read, 2_000),
        ("half messages", Attack::half_messages, 400),
        ("hanging up", Attack::hang_up, 1_000),
    ] {
        let attack = attack(scene.grpc(), ATTACKERS);
        attack.until_done(enough);
        scene.holds(what);
        drop(attack);
    }
    scene.holds("nobody any more");
    assert!(!log().contains("panicked"), "{}", log());
}
