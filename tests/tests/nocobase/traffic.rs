//! The real thing behind a real load balancer, with users all the time.

use std::process::Stdio;

use serde_json::Value;
use soloist_tests::harness::balancer::{Balancer, Behind, Kind};
use soloist_tests::harness::crowd::Crowd;
use soloist_tests::harness::users::{Got, Story, Users};

use crate::releases::GOOD;
use crate::upgrades::begin;
use crate::world::{NODES, VERSION, World};

/// Tabs are cut at the deadline.
pub(crate) const BALANCED: &str = "traffic = \"balancer\"\ndrain_timeout = \"5s\"\n";

/// A path that reaches the database, and what NocoBase answers there.
pub(crate) const INFO: (&str, &str) = ("/api/app:getInfo", "\"version\"");

/// Behind HAProxy.
pub(crate) fn haproxy(world: &mut World) {
    the_app_or_the_page(world, Kind::Haproxy);
}

/// Behind nginx.
pub(crate) fn nginx(world: &mut World) {
    the_app_or_the_page(world, Kind::Nginx);
}

/// An upgrade and its way back show users the app or the maintenance page; a restart shows them nothing but the app.
#[expect(clippy::print_stdout, reason = "what users got is worth seeing")]
fn the_app_or_the_page(world: &mut World, kind: Kind) {
    let balancer = in_front(world, kind);

    let users = Users::start(balancer.port, INFO.0, INFO.1);
    let _ = world.cli.run(&["upgrade", "--to", GOOD, "--on", "node-1"]).expect(0);
    world.serves(GOOD);
    let story = users.stop();
    println!("    upgrade: {story}");
    clean(&story, [VERSION, GOOD]);
    let upgrade = world.last_operation();
    assert_eq!(upgrade["status"], "succeeded", "{upgrade}");

    let crowd = Crowd::start(&balancer, &world.cli, INFO);
    restart(world, &balancer, &crowd);
    let _ = world.cli.run(&["run", "--solo", "--", "true"]).expect(0);
    world.serves(GOOD);
    println!("    restart, solo: {}", crowd.nobody_has_noticed(&balancer, &world.cli, NODES));

    let users = Users::start(balancer.port, INFO.0, INFO.1);
    let backup = upgrade["id"].as_str().expect("an operation has an id");
    let _ = world.cli.run(&["rollback", "--confirm", backup]).expect(0);
    world.serves(VERSION);
    let story = users.stop();
    println!("    rollback: {story}");
    clean(&story, [GOOD, VERSION]);
    world.is_back("before");
    world.policy("");
}

/// A load balancer that gives users every node, in place of the one that there was before.
pub(crate) fn in_front(world: &mut World, kind: Kind) -> Balancer {
    world.ensure_whole();
    let nodes = (0..NODES).map(|at| (world.app_port(at), world.agent_port(at))).collect();
    let behind = Behind {
        fleet: world.server.fleet.into(),
        coordinators: world.cli.endpoints.split(',').map(str::to_owned).collect(),
        nodes,
    };
    let balancer = Balancer::start(kind, &world.lab.join("edge"), &behind);
    world.until("the balancer with every node in", 30, |status| {
        let edge = &status["balancers"][0];
        let all_in = |servers: &serde_json::Map<String, Value>| {
            servers.len() == NODES && servers.values().all(|seen| seen == "in")
        };
        edge["acknowledged"] == true && edge["servers"].as_object().is_some_and(all_in)
    });
    let _ = begin(world, BALANCED);
    balancer
}

/// In the first drain somebody reloads the load balancer.
fn restart(world: &World, balancer: &Balancer, crowd: &Crowd) {
    let mut command = world.cli.command(&["restart"]);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be started");
    world.until("the first drain", 60, |status| {
        let steps = status["current"]["steps"].as_array().cloned().unwrap_or_default();
        let drains = |step: &Value| step["step"].as_str().is_some_and(|step| step.starts_with("drain"));
        steps.iter().any(|step| step["state"] == "now" && drains(step))
    });
    crowd.reload(balancer);
    let output = command.wait_with_output().expect("the command line ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn clean(story: &Story, versions: [&str; 2]) {
    let counts = story.counts();
    assert!(story.is_clean(), "{counts:?}");
    assert!(counts[&Got::App] > 10 && counts[&Got::Page] > 10, "{counts:?}");
    assert_eq!(story.versions(), versions, "the version before does not come back");
}
