//! A node whose agent hangs is kept from the database, and the others go on.

use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::scenarios::{exclusive, last_index};
use crate::world::{NODES, World};

/// No other scenario has to do with it.
const PLUGIN: &str = "@nocobase/plugin-multi-keyword-filter";
/// The node that is fenced, less one.
const HANGS: usize = 1;
/// The agents that carry the fence, less one.
const CARRIERS: [usize; 2] = [0, 2];

fn settings(world: &World, at: usize) -> PathBuf {
    world.lab.join(format!("nodes/node-{}/.env", at + 1))
}

fn agent(world: &World, at: usize) -> PathBuf {
    world.lab.join(format!("etc/agent-{}.toml", at + 1))
}

fn read(path: &PathBuf) -> String {
    std::fs::read_to_string(path).expect("the lab has it")
}

fn write(path: &PathBuf, text: &str) {
    std::fs::write(path, text).expect("the lab can be written");
}

/// The state of the fence around the node.
fn fence(status: &Value) -> String {
    status["nodes"][HANGS]["fences"][0]["state"].as_str().unwrap_or_default().to_owned()
}

/// Runs what `deploy/fences` has for PostgreSQL.
fn roles(world: &World) {
    let port = world.server.port().to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/fences/postgresql.sql");
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", "postgres"]);
    let names = [
        "app=nocobase",
        "owner=noco_owner",
        "nodes=noco_1 noco_2 noco_3",
        "fence=soloist_fence",
        "own=soloist",
        "previous=noco",
    ];
    for name in names {
        command.args(["-v", name]);
    }
    let output = command.args(["-f", script]).output().expect("psql can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Restarts the agents that carry the fence, with another configuration.
fn restart_carriers(world: &mut World) {
    for at in CARRIERS {
        world.agents[at].take().expect("the agent runs").stop();
        world.start_agent(at);
    }
}

/// See the module.
pub(crate) fn kept_out(world: &mut World) {
    world.ensure_whole();
    roles(world);
    let env: Vec<(PathBuf, String)> =
        (0..NODES).map(|at| (settings(world, at), read(&settings(world, at)))).collect();
    for (at, (path, text)) in env.iter().enumerate() {
        let own = text.replace("DB_USER=noco\n", &format!("DB_USER=noco_{}\n", at + 1));
        assert_ne!(own, *text, "the settings have a user");
        write(path, &own);
    }
    let told: Vec<(PathBuf, String)> =
        CARRIERS.iter().map(|at| (agent(world, *at), read(&agent(world, *at)))).collect();
    let secret = world.lab.join("fence.password");
    write(&secret, "not asked for\n");
    let table = format!(
        "\n[fences.database]\nserver = \"postgres://soloist_fence@127.0.0.1:{}/soloist\"\npassword_file = \"{}\"\n\
         app_database = \"nocobase\"\nroles = {{ node-1 = \"noco_1\", node-2 = \"noco_2\", node-3 = \"noco_3\" }}\n",
        world.server.port(),
        secret.display()
    );
    told.iter().for_each(|(path, text)| write(path, &(text.clone() + &table)));
    restart_carriers(world);
    world.until("a fence that is not armed", 60, |status| fence(status) == "unarmed");
    let shown = world.cli.run(&["node", "show", "node-2"]).expect(0).stdout;
    assert!(shown.contains("signs in as noco, not as noco_2"), "{shown}");

    // Each signs in as itself, and all of them act as the owner.
    let _ = world.cli.run(&["restart"]).expect(0);
    world.until_whole();
    world.until("an armed fence", 60, |status| fence(status) == "armed");
    let preflight = world.cli.run(&["preflight"]);
    assert!(!preflight.stdout.contains("DB_USER"), "{preflight:?}");

    hangs(world);

    // What one has made, another upgrades.
    let _ = world.cli.run(&["migrate", "--on", "node-2"]).expect(0);
    world.until_whole();
    let owners = "select count(*) from pg_tables where schemaname = 'public' and tableowner <> 'noco_owner'";
    assert_eq!(world.sql("nocobase", owners), "0", "all of it belongs to one owner");

    for (path, text) in env.iter().chain(&told) {
        write(path, text);
    }
    restart_carriers(world);
    let _ = world.cli.run(&["restart"]).expect(0);
    world.until_whole();
}

/// The agent of a node hangs while its app goes on: it is fenced, a plugin is enabled without it, and it comes back.
fn hangs(world: &World) {
    let pids = world.app_pids(HANGS);
    let from = last_index(world);
    world.agents[HANGS].as_ref().expect("the agent runs").signal(Signal::STOP);
    let _ = world.cli.run(&["plugin", "enable", PLUGIN, "--on", "node-1", "--detach"]).expect(0);
    let blocked = world.until("the change to wait", 60, |status| status["current"]["status"] == "blocked");
    let choices = blocked["current"]["choices"].to_string();
    assert!(choices.contains("soloist node fence node-2"), "{choices}");
    let said =
        world.cli.run(&["node", "fence", "node-2", "--reason", "it hangs", "--confirm", "node-2"]).expect(0);
    assert!(said.stdout.contains("node-2 is fenced from the database"), "{said:?}");
    let sessions = "select count(*) from pg_stat_activity where usename = 'noco_2'";
    assert_eq!(world.sql("nocobase", sessions), "0", "nobody of it is inside");
    world.until("the change to end", 180, |status| status["lock"]["held"] == false);
    let last = world.cli.run(&["operation", "list", "-o", "json"]).expect(0).json();
    assert_eq!(last["operations"][0]["status"], "succeeded", "{last}");
    let (grant, end) = exclusive(world, from);
    let seen = world.seen();
    let inside: Vec<&str> = seen.sessions.nodes(seen.window(grant, end)).into_iter().collect();
    assert_eq!(inside, ["node-1"], "who was connected while node-1 was alone");
    assert_eq!(world.sql("nocobase", sessions), "0");

    world.agents[HANGS].as_ref().expect("the agent runs").signal(Signal::CONT);
    world.until_whole();
    assert_ne!(world.app_pids(HANGS), pids, "its app was stopped before it was let in");
    let nobody_stale = |status: &Value| {
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        nodes.len() == NODES && nodes.iter().all(|node| node["stale"].as_array().is_none_or(Vec::is_empty))
    };
    world.until("no stale node", 90, nobody_stale);
    world.until("the fence to be armed again", 60, |status| fence(status) == "armed");
}
