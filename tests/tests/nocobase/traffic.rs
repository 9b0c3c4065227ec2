//! The real thing behind a real load balancer, with users all the time.

use soloist_tests::harness::haproxy::{Behind, Haproxy};
use soloist_tests::harness::users::{Got, Story, Users};

use crate::releases::GOOD;
use crate::upgrades::begin;
use crate::world::{NODES, VERSION, World};

const BALANCED: &str = "traffic = \"balancer\"\ndrain_timeout = \"10s\"\n";

/// A path that reaches the database, and what NocoBase answers there.
const INFO: (&str, &str) = ("/api/app:getInfo", "\"version\"");

/// An upgrade and its way back show users the app or the maintenance page; a restart shows them nothing but the app.
#[expect(clippy::print_stdout, reason = "what users got is worth seeing")]
pub(crate) fn haproxy(world: &mut World) {
    world.ensure_whole();
    let nodes = (0..NODES).map(|at| (world.app_port(at), world.agent_port(at))).collect();
    let behind = Behind {
        fleet: world.server.fleet().into(),
        coordinators: world.cli.endpoints.split(',').map(str::to_owned).collect(),
        nodes,
    };
    let haproxy = Haproxy::start(&world.lab.join("haproxy"), &behind);
    world.until("the enrolment of the balancer", 30, |status| status["balancers"][0]["acknowledged"] == true);
    let _ = begin(world, BALANCED);

    let users = Users::start(haproxy.port, INFO.0, INFO.1);
    let _ = world.cli.run(&["upgrade", "--to", GOOD, "--on", "node-1"]).expect(0);
    world.serves(GOOD);
    let story = users.stop();
    println!("    upgrade: {:?}", story.counts());
    clean(&story);
    let upgrade = world.last_operation();
    assert_eq!(upgrade["status"], "succeeded", "{upgrade}");

    let users = Users::start(haproxy.port, INFO.0, INFO.1);
    let _ = world.cli.run(&["restart"]).expect(0);
    let _ = world.cli.run(&["run", "--solo", "--", "true"]).expect(0);
    world.serves(GOOD);
    let story = users.stop();
    println!("    restart, solo: {:?}", story.counts());
    let counts = story.counts();
    assert_eq!(counts.keys().collect::<Vec<_>>(), [&Got::App], "{counts:?}");

    let users = Users::start(haproxy.port, INFO.0, INFO.1);
    let backup = upgrade["id"].as_str().expect("an operation has an id");
    let _ = world.cli.run(&["rollback", "--confirm", backup]).expect(0);
    world.serves(VERSION);
    let story = users.stop();
    println!("    rollback: {:?}", story.counts());
    clean(&story);
    world.is_back("before");
    world.policy("");
}

fn clean(story: &Story) {
    let counts = story.counts();
    assert!(story.is_clean(), "{counts:?}");
    assert!(counts[&Got::App] > 10 && counts[&Got::Page] > 10, "{counts:?}");
}
