//! Upgrades of the real thing, and the ways back.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use soloist_tests::harness::head;

use crate::evidence;
use crate::releases::{BROKEN, Balancer, GOOD, time};
use crate::scenarios::last_index;
use crate::world::{NODES, Seen, VERSION, World};

/// A load balancer keeps users out until a node is verified.
pub(crate) const READY: &str = "traffic = \"ready\"\n";
/// A check that only the old version passes, and one by a program of each node.
const OLD: &str = "[[checks]]\nname = \"the version\"\ntries = 2\n\
                   http = { path = \"/api/app:getInfo\", json = { at = \"/data/version\", is = \"2.2.15\" } }\n";
const SMOKE: &str = "[[checks]]\nname = \"smoke\"\ncommand = \"smoke\"\ntries = 2\n";

/// A whole fleet with the old version, both releases, this policy, and a row of a user.
pub(crate) fn begin(world: &mut World, policy: &str) -> u64 {
    world.ensure_whole();
    world.add_releases();
    world.policy(policy);
    world.table("before");
    last_index(world)
}

/// Both witnesses: from the grant to `until` nothing ran but node-1, and one process had the right to upgrade, or none.
pub(crate) fn one_migrated(world: &World, from: u64, until: &str, migrated: usize) {
    migrated_alone(world, &world.seen(), from, until, migrated);
}

/// The same, of what was seen.
pub(crate) fn migrated_alone(world: &World, seen: &Seen, from: u64, until: &str, migrated: usize) {
    let window = seen.window(time(world, from, "granted"), time(world, from, until));
    if migrated == 0 {
        seen.agree();
        assert!(
            seen.sessions.nodes(window).is_empty(),
            "database sessions of {:?}",
            seen.sessions.nodes(window)
        );
    } else {
        seen.alone(window, Some("node-1"));
    }
    let after = seen.window(time(world, from, "asked for: upgrade"), 0).from;
    let migrating = seen.processes.intervals.iter();
    let migrating = migrating.filter(|found| found.start >= after && found.command.contains("--quickstart"));
    let labels: Vec<&str> = migrating.map(|found| found.label.as_str()).collect();
    assert_eq!(labels, vec!["node-1"; migrated], "who had the right to upgrade");
}

/// The parts of an outage are its whole.
fn adds_up(operation: &Value) {
    let outage = &operation["outage"];
    let took = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{outage} has no length in it"));
    let parts = outage["parts"].as_array().unwrap_or_else(|| panic!("{operation} has no outage"));
    let sum: u64 = parts.iter().map(|part| took(&part[1])).sum();
    assert_eq!((sum, outage["over"].as_bool()), (took(&outage["took"]), Some(true)), "{outage}");
}

/// A release fails in the middle of its upgrade: everything goes back by itself, although the leader is killed in the restore.
pub(crate) fn broken(world: &mut World) {
    let from = begin(world, READY);
    let command = world
        .cli
        .command(&["upgrade", "--to", BROKEN, "--on", "node-1"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    world.until("the restore under way", 120, |status| {
        let steps = status["current"]["steps"].as_array().cloned().unwrap_or_default();
        steps.iter().any(|step| step["state"] == "now" && step["step"] == "restore on node-1")
    });
    let leader = world.leader();
    drop(world.members[leader].take());
    let output = command.wait_with_output().expect("the command line ends");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("this release fails half-way"), "{stderr}");
    world.start_members(&[0, 1, 2]);
    world.is_back("before");
    let operation = world.last_operation();
    assert_eq!(operation["status"], "rolled_back", "{operation}");
    let id = operation["id"].as_str().expect("an operation has an id").to_owned();
    assert!(world.backups().contains(&id), "{:?} has no {id}", world.backups());
    adds_up(&operation);
    one_migrated(world, from, "being ended early", 1);
}

/// A release upgrades well and fails a check, or a person refuses it: everything goes back, and no user was let in.
pub(crate) fn refused(world: &mut World) {
    let from = begin(world, &format!("{READY}{OLD}"));
    let balancer = Balancer::start(world);
    let output = world.cli.run(&["upgrade", "--to", GOOD, "--on", "node-1"]).expect(1);
    assert!(output.stderr.contains("the version"), "the check is named: {}", output.stderr);
    world.is_back("before");
    let operation = world.last_operation();
    assert_eq!(operation["status"], "rolled_back", "{operation}");
    assert!(operation["writes_since_wall_ms"].is_null(), "{operation}");
    adds_up(&operation);
    one_migrated(world, from, "being ended early", 1);
    balancer.stop().kept_out(time(world, from, "granted"), time(world, from, "being ended early"));

    world.policy(READY);
    let from = last_index(world);
    let balancer = Balancer::start(world);
    let asks = world.cli.run(&["upgrade", "--to", GOOD, "--on", "node-1", "--approve"]).expect(1);
    assert!(asks.stderr.contains("soloist operation approve"), "{}", asks.stderr);
    let operation = world.last_operation();
    assert_eq!((&operation["status"], &operation["cause"]), (&"blocked".into(), &"approval".into()));
    assert_eq!(head(world.agent_port(0), "/ready"), Some(503), "nobody has approved");
    let id = operation["id"].as_str().expect("an operation has an id");
    let _ = world.cli.run(&["operation", "reject", id, "--reason", "not what was asked for"]).expect(0);
    let operation = world.until_ended(id);
    assert_eq!(operation["status"], "rolled_back", "{operation}");
    world.is_back("before");
    one_migrated(world, from, "being ended early", 1);
    balancer.stop().kept_out(time(world, from, "granted"), time(world, from, "being ended early"));
}

/// A good release, approved, with the leader killed while the database is migrated.
pub(crate) fn good(world: &mut World) {
    let from = begin(world, &format!("{READY}{SMOKE}"));
    let balancer = Balancer::start(world);
    let command = world
        .cli
        .command(&["upgrade", "--to", GOOD, "--on", "node-1", "--approve"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    world.until_migrating();
    let leader = world.leader();
    drop(world.members[leader].take());
    let asks = command.wait_with_output().expect("the command line ends");
    let asks = String::from_utf8_lossy(&asks.stderr).into_owned();
    assert!(asks.contains("soloist operation approve"), "{asks}");
    world.start_members(&[0, 1, 2]);
    let operation = world.last_operation();
    let id = operation["id"].as_str().expect("an operation has an id");
    let _ = world.cli.run(&["operation", "approve", id]).expect(0);
    let operation = world.until_ended(id);
    assert_eq!(operation["status"], "succeeded", "{operation}");
    world.serves(GOOD);
    assert_eq!((world.words().as_str(), world.migrations().as_str()), ("before", "1"));
    assert_eq!(world.sql("nocobase", "select count(*) from \"systemSettings\""), "1");
    adds_up(&operation);
    one_migrated(world, from, "done: wait for approval", 1);
    let looks = balancer.stop();
    looks.kept_out(time(world, from, "granted"), time(world, from, "done: wait for approval"));
    world.write("after");

    // Again there is nothing to do, and an older version is refused.
    let at = Instant::now();
    let again = world.cli.run(&["upgrade", "--to", GOOD]).expect(0);
    assert!(at.elapsed() < Duration::from_secs(5), "{again:?}");
    let older = world.cli.run(&["upgrade", "--to", VERSION]);
    assert!(older.code != 0 && older.stderr.contains("soloist rollback"), "{older:?}");
    assert_eq!(world.migrations(), "1");
    world.serves(GOOD);
}

/// A good release that nobody needs to approve.
pub(crate) fn plain(world: &mut World) {
    let from = begin(world, READY);
    let _ = world.cli.run(&["upgrade", "--to", GOOD, "--on", "node-1"]).expect(0);
    world.serves(GOOD);
    assert_eq!((world.words().as_str(), world.migrations().as_str()), ("before", "1"));
    assert_eq!(world.sql("nocobase", "select count(*) from \"systemSettings\""), "1");
    let operation = world.last_operation();
    assert_eq!(operation["status"], "succeeded", "{operation}");
    adds_up(&operation);
    let seen = world.seen();
    migrated_alone(world, &seen, from, "done: verify on node-1", 1);
    evidence::proves(world, &seen, "node-1");
}

/// The way back from an upgrade that stands, by hand.
pub(crate) fn rollback(world: &mut World) {
    world.ensure_whole();
    if world.sql("nocobase", "select value from \"applicationVersion\"") != GOOD {
        begin(world, READY);
        let _ = world.cli.run(&["upgrade", "--to", GOOD, "--on", "node-1"]).expect(0);
        world.write("after");
    }
    world.serves(GOOD);
    assert_eq!(world.words(), "after,before");
    let unconfirmed = world.cli.run(&["rollback"]);
    assert!(unconfirmed.code == 64 && unconfirmed.stderr.contains("will be lost"), "{unconfirmed:?}");
    let operations = world.cli.run(&["operation", "list", "-o", "json"]).expect(0).json();
    let operations = operations["operations"].as_array().cloned().unwrap_or_default();
    let upgrade = operations.iter().find(|operation| {
        operation["request"] == format!("upgrade --to {GOOD}") && operation["status"] == "succeeded"
    });
    let backups = world.backups();
    let made = |operation: &&Value| backups.iter().any(|backup| operation["id"] == backup.as_str());
    let upgrade = upgrade.into_iter().chain(&operations).find(made).expect("an upgrade with a backup");
    let backup = upgrade["id"].as_str().expect("an operation has an id");
    let _ = world.cli.run(&["rollback", "--confirm", backup]).expect(0);
    world.is_back("before");
    assert_eq!(world.app_pids(0).len() + world.app_pids(1).len() + world.app_pids(2).len(), NODES);
    world.seen().agree();
}
