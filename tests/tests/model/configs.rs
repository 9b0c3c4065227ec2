//! The configurations: one concern each, with its bounds.

use std::sync::Arc;

use soloist_core::command::FEATURE_LEVEL;
use soloist_core::fence::Covers;
use soloist_core::operation::{HoldMode, Request};
use soloist_core::policy::Policy;
use soloist_core::state::State;

use crate::Reached;
use crate::canon::{canonical, length};
use crate::host::acts;
use crate::steps::{Step, Steps};
use crate::world::{Client, Config, Database, Door, Host, Left, NOW, World, fleet, name};

fn hold(mode: HoldMode) -> Request {
    Request::Hold { mode, on: Some(name(0)) }
}

fn base(concern: &'static str, operations: Vec<Request>, left: Left, reached: Vec<Reached>) -> Config {
    Config {
        name: concern,
        nodes: 2,
        operations,
        runs: true,
        left,
        overdue: false,
        eager: true,
        covers: Vec::new(),
        assumes: false,
        holders_on: 0,
        reached,
    }
}

/// Apps that end by themselves before and after a grant.
pub(crate) fn crash() -> Config {
    let left = Left { crashes: 1, ..Left::default() };
    base("crash", vec![hold(HoldMode::Solo)], left, vec![Reached::Succeeds])
}

/// A report from the past.
pub(crate) fn report() -> Config {
    let left = Left { delays: 1, ..Left::default() };
    base("report", vec![hold(HoldMode::Solo)], left, vec![Reached::Succeeds])
}

/// An assignment from the past.
pub(crate) fn assignment() -> Config {
    let left = Left { lags: 1, ..Left::default() };
    base("assignment", vec![hold(HoldMode::Solo)], left, vec![Reached::Succeeds])
}

/// An agent that starts anew.
pub(crate) fn restart() -> Config {
    let left = Left { restarts: 1, ..Left::default() };
    base("restart", vec![hold(HoldMode::Solo)], left, vec![Reached::Succeeds])
}

/// A process that a person starts.
pub(crate) fn foreign() -> Config {
    let left = Left { foreign: 1, ..Left::default() };
    base("foreign", vec![hold(HoldMode::Solo)], left, vec![Reached::Succeeds, Reached::Breached])
}

/// A lease over a leader change, a holder that dies, a lock that is taken away, and an abort.
pub(crate) fn lease() -> Config {
    let left = Left { promotes: 1, vanishes: 1, forces: 1, aborts: 1, ..Left::default() };
    let reached = vec![Reached::Succeeds, Reached::HolderLost, Reached::Sought, Reached::Aborted];
    base("lease", vec![hold(HoldMode::Solo)], left, reached)
}

/// The same without the leader change, and the holder works on the node that rests.
pub(crate) fn taken() -> Config {
    let left = Left { promotes: 0, ..lease().left };
    Config { name: "taken", left, holders_on: 1, ..lease() }
}

/// The machine of a lost holder may be cut off or lose power, and a person says so.
pub(crate) fn gone() -> Config {
    let left = Left { vanishes: 1, forces: 1, powers: 1, ..Left::default() };
    let reached = vec![Reached::Succeeds, Reached::HolderLost, Reached::Sought];
    Config { assumes: true, holders_on: 1, ..base("gone", vec![hold(HoldMode::Solo)], left, reached) }
}

/// A ledger that is copied to another machine, which takes over or is refused.
pub(crate) fn successor() -> Config {
    let left = Left { clones: 1, ..Left::default() };
    base("successor", vec![hold(HoldMode::Solo)], left, vec![Reached::Succeeds])
}

/// An agent that starts without its ledger.
pub(crate) fn ledger() -> Config {
    let left = Left { ledgers: 1, ..Left::default() };
    base("ledger", vec![hold(HoldMode::Solo)], left, vec![Reached::Succeeds])
}

/// A fence of the machine around a node that is cut off.
pub(crate) fn machine() -> Config {
    let left = Left { cuts: 1, fences: 1, ..Left::default() };
    let reached = vec![Reached::Succeeds, Reached::Unreachable, Reached::Fenced, Reached::FencedGrant];
    let covers = vec![Covers::Machine];
    Config { covers, ..base("machine", vec![hold(HoldMode::Solo)], left, reached) }
}

/// Another attempt at a task whose node is cut off, or whose agent starts anew.
pub(crate) fn retry() -> Config {
    let left = Left { cuts: 1, retries: 1, restarts: 1, ..Left::default() };
    let reached = vec![Reached::Succeeds, Reached::Unreachable];
    base("retry", vec![Request::Backup { on: Some(name(0)) }], left, reached)
}

/// An operation that is ended early.
pub(crate) fn abort() -> Config {
    let left = Left { aborts: 1, ..Left::default() };
    base("abort", vec![hold(HoldMode::Solo)], left, vec![Reached::Succeeds, Reached::Aborted])
}

/// Two operations, one after the other.
pub(crate) fn two() -> Config {
    let operations = vec![hold(HoldMode::AllStopped), hold(HoldMode::Solo)];
    base("two", operations, Left::default(), vec![Reached::BothSucceed])
}

/// The same with two leader changes.
pub(crate) fn leaders() -> Config {
    let left = Left { promotes: 2, ..Left::default() };
    Config { name: "leaders", left, ..two() }
}

/// A larger fleet.
pub(crate) fn three() -> Config {
    let operations = vec![hold(HoldMode::Solo)];
    Config { nodes: 3, ..base("three", operations, Left::default(), vec![Reached::Succeeds]) }
}

/// A larger fleet, two operations and two leader changes: hours.
pub(crate) fn large() -> Config {
    Config { name: "large", nodes: 3, ..leaders() }
}

/// A fence of the database around a node that is cut off: too large to be explored to its end in each run.
pub(crate) fn fence() -> Config {
    let left = Left { cuts: 1, fences: 1, ..Left::default() };
    let reached = vec![Reached::Succeeds, Reached::Unreachable, Reached::Fenced, Reached::FencedGrant];
    let covers = vec![Covers::Database];
    Config { covers, ..base("fence", vec![Request::Backup { on: Some(name(0)) }], left, reached) }
}

/// A fence of the database that does not cover what a holder may change.
pub(crate) fn covers() -> Config {
    let left = Left { cuts: 1, fences: 1, ..Left::default() };
    let reached = vec![Reached::Succeeds, Reached::Unreachable];
    let covers = vec![Covers::Database];
    Config { covers, ..base("covers", vec![hold(HoldMode::Solo)], left, reached) }
}

/// The first start of a fleet on an empty database.
pub(crate) fn install() -> Config {
    let left = Left { crashes: 1, ..Left::default() };
    let request = Request::Start { install: true, nodes: None };
    Config {
        runs: false,
        ..base("install", vec![request], left, vec![Reached::Succeeds, Reached::Installed])
    }
}

/// A start of a fleet whose database is installed.
pub(crate) fn start() -> Config {
    let left = Left { crashes: 1, ..Left::default() };
    let request = Request::Start { install: false, nodes: None };
    Config { runs: false, ..base("start", vec![request], left, vec![Reached::Succeeds]) }
}

/// The first state of a configuration.
pub(crate) fn initial(config: &Config) -> World {
    let successors = if config.left.clones > 0 { config.nodes } else { 0 };
    let hosts = (0..config.nodes + successors).map(|at| Host::new(at % config.nodes)).collect();
    let installs =
        config.operations.iter().any(|request| matches!(request, Request::Start { install: true, .. }));
    let mut world = World {
        core: Arc::new(State { now: NOW, promoted: NOW, level: FEATURE_LEVEL, ..State::default() }),
        next: 1,
        heard: vec![None; config.nodes],
        hosts,
        clients: vec![Client::Before; config.operations.len()],
        doors: vec![Door::default(); config.nodes],
        calls: Vec::new(),
        database: if installs { Database::Empty } else { Database::Installed },
        granted: Default::default(),
        rights: Vec::new(),
        served: false,
        passed: false,
        told: vec![false; config.nodes],
        left: Left::default(),
        wrong: None,
    };
    let setup = Config {
        runs: true,
        operations: vec![Request::Start { install: false, nodes: None }],
        ..config.clone()
    };
    for host in 0..config.nodes {
        world = take(&setup, world, Step::PowerOn(host));
        world = take(&setup, world, Step::Register { host, answered: true });
    }
    let core = Arc::make_mut(&mut world.core);
    core.fleets.get_mut(&fleet()).expect("nodes have registered").policy = policy(config);
    if config.runs {
        let asked = std::mem::replace(&mut world.clients, vec![Client::Before]);
        world = take(&setup, world, Step::Submit(0));
        while world.clients[0] == Client::Asked {
            world = obey(&setup, world);
        }
        world.clients = asked;
    }
    world.left = config.left;
    world.served = false;
    world.granted = Default::default();
    canonical(&mut world, config.overdue);
    world
}

fn take(config: &Config, world: World, step: Step) -> World {
    Steps { config, world }.take(step).expect("nothing stands against it")
}

/// Every host does what it is told, and says so.
fn obey(config: &Config, mut world: World) -> World {
    for host in 0..config.nodes {
        world = take(config, world, Step::Serve(host));
        if acts(config, &world, host) {
            world = take(config, world, Step::Act(host));
        }
        if world.hosts[host].keeper.is_some() {
            world = take(config, world, Step::Exec(host));
            world = take(config, world, Step::Up(host));
        }
        world = take(config, world, Step::Report(host));
    }
    world
}

fn policy(config: &Config) -> Policy {
    let (short, long) = (length(true), length(config.overdue));
    Policy {
        contact_timeout: short,
        accept_timeout: short,
        lease: short,
        confirm_timeout: short,
        restore_after: short,
        gather_timeout: short,
        pre_grant_timeout: long,
        start_timeout: long,
        stop_timeout: long,
        task_timeout: long,
        backup_timeout: long,
        quiet_timeout: soloist_core::time::Millis(0),
        ..Policy::default()
    }
}
