//! A long workflow runs on a node that is to be restarted: it is awaited, or what was cut off is named.

use serde_json::{Value, json};

use crate::api::Person;
use crate::world::{World, wait};

/// The node on which it runs, less one.
const AT: usize = 1;

/// A workflow that begins when a row is added, and then takes so long.
fn workflow(person: &Person, title: &str, collection: &str, secs: u32) {
    let fields = json!([{ "name": "t", "type": "string" }]);
    let _ = person.post("collections:create", &json!({ "name": collection, "fields": fields }));
    let config = json!({ "collection": collection, "mode": 1 });
    let made =
        json!({ "title": title, "type": "collection", "sync": false, "enabled": false, "config": config });
    let id = person.post("workflows:create", &made)["data"]["id"].clone();
    let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
    let sleep = json!({ "dataSource": "main", "sql": format!("select pg_sleep({secs})") });
    let step = json!({ "type": "sql", "title": "wait", "config": sleep });
    let _ = person.post(&format!("workflows/{id}/nodes:create"), &step);
    let _ = person.post(&format!("workflows:update?filterByTk={id}"), &json!({ "enabled": true }));
}

/// How many executions have this status.
fn executions(world: &World, status: i8) -> u32 {
    let count = world.sql("nocobase", &format!("select count(*) from executions where status = {status}"));
    count.trim().parse().expect("a number")
}

fn waits(status: &Value) -> String {
    let waits = status["current"]["waits"].as_array().cloned().unwrap_or_default();
    waits.iter().filter_map(|wait| wait["what"].as_str().map(str::to_owned)).collect::<Vec<_>>().join("; ")
}

/// See the module.
#[expect(clippy::print_stdout, reason = "what was awaited is worth seeing")]
pub(crate) fn workflows(world: &mut World) {
    world.ensure_whole();
    world.policy("quiet_timeout = \"2m\"\n");
    let person = Person::at(world.app_port(AT));
    let done = executions(world, 1);
    workflow(&person, "Nightly import", "lab_slow", 20);
    let _ = person.post("lab_slow:create", &json!({ "t": "x" }));
    wait("the execution", 30, || executions(world, 0) == 1);
    let before = world.app_pids(AT);
    let mut restart = world.cli.command(&["restart", "--nodes", "node-2"]);
    let mut restart = restart.spawn().expect("it can be started");
    let status = world.until("the wait for it", 30, |status| waits(status).contains("Nightly import"));
    println!("    waits for {}", waits(&status));
    assert_eq!(world.app_pids(AT), before, "it goes on running");
    assert!(restart.wait().expect("it ends").success());
    assert_ne!(world.app_pids(AT), before);
    assert_eq!((executions(world, 1), executions(world, 0)), (done + 1, 0), "it ended by itself");

    world.policy("quiet_timeout = \"2s\"\ngrace = \"3s\"\n");
    let person = Person::at(world.app_port(AT));
    workflow(&person, "Endless report", "lab_endless", 600);
    let _ = person.post("lab_endless:create", &json!({ "t": "x" }));
    wait("the execution", 30, || executions(world, 0) == 1);
    let told = world.cli.run(&["restart", "--nodes", "node-2"]).expect(0);
    assert!(told.stderr.contains("cut off: workflow \"Endless report\""), "{told:?}");
    let events = world.cli.run(&["events"]).expect(0).stdout;
    assert!(events.contains("Endless report"), "{events}");
    let _ = world.sql("nocobase", "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid()");
    let _ = world.sql("nocobase", "update executions set status = -3 where status = 0");
    world.policy("");
}
