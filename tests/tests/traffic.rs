//! A whole fleet behind a real HAProxy or nginx: users get the app or the maintenance page, and nothing else.

use std::process::{Child, Stdio};

use serde_json::Value;
use soloist_tests::harness::balancer::{Balancer, Kind, NAME};
use soloist_tests::harness::crowd::Crowd;
use soloist_tests::harness::sockets::Sockets;
use soloist_tests::harness::users::{Got, Users};
use soloist_tests::harness::{Fleet, FleetOptions};

const OLD: &str = "1.0.0";
const NEW: &str = "1.1.0";
/// What users ask for, and what stands in the stand-in's answer.
const INFO: (&str, &str) = ("/api/app:getInfo", "version");

const POLICY: &str = "traffic = \"balancer\"\ndrain_timeout = \"3s\"\nstart_timeout = \"30s\"\nstop_timeout = \"20s\"\n\
                      task_timeout = \"2m\"\ncontact_timeout = \"4s\"\ngather_timeout = \"5s\"\npre_grant_timeout = \"60s\"\n";
const TABLES: &str = r#"
[backup.external]
create = ["/bin/sh", "-c", "cp DATABASE DATABASE.$SOLOIST_BACKUP"]
check = ["/bin/sh", "-c", "test -s DATABASE.$SOLOIST_BACKUP"]
restore = ["/bin/sh", "-c", "cp DATABASE.$SOLOIST_BACKUP DATABASE"]
remove = ["/bin/rm", "-f", "DATABASE.none"]
"#;

fn world(kind: Kind) -> (Fleet, Balancer) {
    let options = FleetOptions {
        agent_tables: TABLES.into(),
        releases: [OLD, NEW].map(String::from).into(),
        policy: POLICY.into(),
        ..FleetOptions::default()
    };
    let fleet = Fleet::start(&options);
    let balancer = Balancer::before(kind, &fleet);
    let _ = fleet.cli().run(&["start", "--install"]).expect(0);
    fleet.until_whole();
    (fleet, balancer)
}

/// The step that is under way.
fn step_now(status: &Value) -> Option<String> {
    let steps = status["current"]["steps"].as_array()?;
    let now = steps.iter().find(|step| step["state"] == "now")?;
    Some(now["step"].as_str()?.to_owned())
}

fn is_at(status: &Value, kind: &str) -> bool {
    step_now(status).is_some_and(|step| step.starts_with(kind))
}

/// Waits for a command's end, which must be good.
fn finish(command: Child) {
    let output = command.wait_with_output().expect("the command line ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Kills the leader when a step of this kind has begun; it comes back once there is another.
fn kill_leader_at(fleet: &mut Fleet, kind: &str) {
    fleet.until(kind, 60, |status| is_at(status, kind));
    let leader = fleet.leader();
    drop(fleet.members[leader].take());
    let other = |status: &Value| {
        status["freshness"]["leader"].as_u64().is_some_and(|found| found != leader as u64 + 1)
    };
    fleet.until("another leader", 20, other);
    fleet.start_member(leader);
}

/// Whether a step of this kind is done.
fn is_past(status: &Value, kind: &str) -> bool {
    let steps = status["current"]["steps"].as_array().cloned().unwrap_or_default();
    let of = |step: &Value| step["step"].as_str().is_some_and(|step| step.starts_with(kind));
    steps.iter().any(|step| of(step) && step["state"] == "done")
}

fn begin(fleet: &Fleet, args: &[&str]) -> Child {
    let mut command = fleet.cli().command(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command line can be started")
}

#[test]
fn users_behind_haproxy_get_the_app_or_the_page() {
    the_app_or_the_page(Kind::Haproxy);
}

#[test]
fn users_behind_nginx_get_the_app_or_the_page() {
    the_app_or_the_page(Kind::Nginx);
}

fn the_app_or_the_page(kind: Kind) {
    let (fleet, balancer) = world(kind);
    let users = Users::start(balancer.port, INFO.0, INFO.1);
    let _ = fleet.cli().run(&["upgrade", "--to", NEW]).expect(0);
    fleet.until_whole();
    let story = users.stop();
    assert!(story.is_clean(), "{story}\n{}", balancer.log());
    let counts = story.counts();
    assert!(counts[&Got::App] > 10 && counts[&Got::Page] > 10, "{counts:?}");
    assert_eq!(story.versions(), [OLD, NEW], "the old version does not come back");
    assert_eq!(fleet.code(0), NEW);

    let users = Users::start(balancer.port, INFO.0, INFO.1);
    finish(begin(&fleet, &["run", "--solo", "--", "sleep", "1"]));
    fleet.until_whole();
    let story = users.stop();
    assert!(story.is_app_only(), "one node is there all the time: {story}\n{}", balancer.log());
}

#[test]
fn nodes_behind_haproxy_are_restarted_and_nobody_notices() {
    nobody_notices_a_restart(Kind::Haproxy);
}

#[test]
fn nodes_behind_nginx_are_restarted_and_nobody_notices() {
    nobody_notices_a_restart(Kind::Nginx);
}

/// Open tabs are cut at the deadline of each drain and come back. In the first of them somebody reloads the load balancer.
fn nobody_notices_a_restart(kind: Kind) {
    let (fleet, balancer) = world(kind);
    let before: Vec<u64> = (0..3).map(|at| launched(&fleet, at)).collect();
    let crowd = Crowd::start(&balancer, &fleet.cli(), INFO);
    let restart = begin(&fleet, &["restart"]);
    fleet.until("the first drain", 30, |status| is_at(status, "drain"));
    crowd.reload(&balancer);
    finish(restart);
    eprintln!("{kind}: {}", crowd.nobody_has_noticed(&balancer, &fleet.cli(), 3));
    for (at, before) in before.into_iter().enumerate() {
        assert!(launched(&fleet, at) > before, "node-{} is a new process", at + 1);
    }
    let none = fleet.cli().run(&["restart", "--nodes", "node-9"]).expect(77);
    assert!(none.stderr.contains("node-9") && none.stderr.contains("node-1"), "{none:?}");
}

/// Generation under which a node's app was launched.
fn launched(fleet: &Fleet, at: usize) -> u64 {
    fleet.agent_status(at).and_then(|status| status["observed"]["launched"].as_u64()).expect("it runs")
}

#[test]
fn whoever_is_killed_users_behind_haproxy_get_the_app_or_the_page() {
    whoever_is_killed(Kind::Haproxy);
}

#[test]
fn whoever_is_killed_users_behind_nginx_get_the_app_or_the_page() {
    whoever_is_killed(Kind::Nginx);
}

fn whoever_is_killed(kind: Kind) {
    let (mut fleet, mut balancer) = world(kind);
    let users = Users::start(balancer.port, INFO.0, INFO.1);
    // An open tab: the drain lasts until its deadline, and so it is not missed.
    let tab = Sockets::start(balancer.port, 1);
    let upgrade = begin(&fleet, &["upgrade", "--to", NEW]);
    kill_leader_at(&mut fleet, "drain");
    // Bringing the nodes back is over in a moment, unless nobody is there to do it.
    fleet.until("the first node", 60, |status| is_past(status, "turn the right"));
    balancer.agent = None;
    kill_leader_at(&mut fleet, "bring the nodes back");
    balancer.start_agent();
    finish(upgrade);
    assert!(tab.stop().closed > 0, "it was cut");
    fleet.until_whole();

    // The balancer's agent: away before, so that nothing is stopped; then back, and away at the end.
    balancer.agent = None;
    let mut restart = begin(&fleet, &["run", "--solo", "--on", "node-1", "--", "true"]);
    let status = fleet.until("the block", 60, |status| status["current"]["status"] == "blocked");
    assert!(status["current"]["detail"].as_str().is_some_and(|text| text.contains(NAME)), "{status}");
    let serving = |node: &Value| node["app"] == "serving";
    assert!(status["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(serving)), "{status}");
    balancer.start_agent();
    fleet.until("the work", 60, |status| is_at(status, "start"));
    balancer.agent = None;
    let status = fleet.until("the block at the end", 60, |status| status["current"]["status"] == "blocked");
    assert!(status["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(serving)), "{status}");
    assert!(restart.try_wait().expect("it can be asked").is_none(), "it is not done before users are back");
    balancer.start_agent();
    finish(restart);
    let story = users.stop();
    // An agent whose coordinator is killed before it passes the news on shows its page without them.
    let counts = story.counts();
    assert!(counts.keys().all(|got| matches!(got, Got::App | Got::Page | Got::BarePage)), "{counts:?}");
}
