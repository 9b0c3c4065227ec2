//! What must be true on the real thing, a scenario each.

use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use soloist_tests::harness::load::Load;
use soloist_tests::harness::{get, get_json, head, marked};

use crate::world::{NODES, VERSION, World, wait, wall_ms};

/// One node installs; the others start only after it serves; the database is that of a clean single-node install.
pub(crate) fn first_start(world: &mut World) {
    world.start_soloist();
    let plan = world.cli.run(&["plan", "start", "--install"]).expect(0).stdout;
    assert!(plan.contains("with the right to install"), "{plan}");
    world.install();
    world.until_whole();
    for at in 0..NODES {
        assert_eq!(get(world.app_port(at), "/api/__health_check").map(|(status, _)| status), Some(200));
        assert_eq!(head(world.agent_port(at), "/ready"), Some(200));
    }
    assert_eq!(world.sql("nocobase", "select count(*) from \"systemSettings\""), "1");
    assert_eq!(world.sql("nocobase", "select value from \"applicationVersion\""), VERSION);

    // The second tree begins after the first one served.
    let events = world.events();
    let served = wall(&events, |event| event["text"] == "app serving");
    let seen = world.seen();
    seen.agree();
    let mut starts: Vec<_> =
        seen.processes.intervals.iter().map(|interval| (interval.start, interval.label.clone())).collect();
    starts.sort();
    let first_serves = seen.window(served, served).from;
    assert_eq!(starts.len(), NODES, "{starts:?}");
    assert!(starts[1].0 >= first_serves, "{starts:?}, but the first node served at {first_serves:?}");

    // The same rows as one node alone makes.
    compare_with_single_install(world);
}

fn compare_with_single_install(world: &World) {
    world.lab_run(&world.server.create("single"));
    let (lab, port) = (world.lab.display(), 13098 + world.server.offset);
    let env = world.by_hand(port, "single");
    world.lab_run(&format!(
        "lab_node_folder '{lab}/nodes/node-1/current' '{lab}/single' && lab_env_file '{lab}/single/.env' '{lab}/single-fleet' {env} && \
         lab_node_start single '{lab}/single' --quickstart >&2 && lab_node_wait {port} 180 >&2 && lab_stop single >&2"
    ));
    let schema = world.server.schema();
    let tables = format!("select count(*) from information_schema.tables where table_schema = {schema}");
    let queries = [
        &*tables,
        "select count(*) from \"systemSettings\"",
        "select count(*) from attachments",
        "select count(*) from migrations",
        "select count(*) from \"applicationPlugins\"",
        "select count(*) from \"applicationPlugins\" where enabled",
        "select count(*) from roles",
        "select count(*) from users",
        "select count(*) from collections",
        "select count(*) from fields",
    ];
    for query in queries {
        assert_eq!(world.sql("nocobase", query), world.sql("single", query), "{query}");
    }
    world.lab_run(&world.server.remove("single"));
}

/// A plugin is enabled under a steady load, the leader is killed while the others are stopped.
pub(crate) fn plugin_under_load(world: &mut World) {
    world.ensure_whole();
    assert!((0..NODES).all(|at| !world.map_is_loaded(at)), "plugin-map is not loaded yet");
    let ports: Vec<u16> = (0..NODES).map(|at| world.app_port(at)).collect();
    let load = Load::start(&ports, "/api/app:getInfo");
    let from = last_index(world);
    let command = world
        .cli
        .command(&["plugin", "enable", "@nocobase/plugin-map"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command line can be started");
    world.until("the grant", 90, |status| status["current"]["granted"] == true);
    let leader = world.leader();
    let killed = world.members[leader].take();
    drop(killed);
    let output = command.wait_with_output().expect("the command line ends");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    world.start_members(&[0, 1, 2]);
    world.until_whole();
    let seen_by_load = load.stop();
    assert!((0..NODES).all(|at| world.map_is_loaded(at)), "every node has loaded plugin-map");
    report_load(&seen_by_load);
    // The solo node served throughout, but for its own reload; the others waited for that, and then for their own start.
    let gaps = || seen_by_load.iter().map(|node| node.longest_gap);
    let (solo_gap, longest) = (gaps().min().unwrap_or_default(), gaps().max().unwrap_or_default());
    assert!(solo_gap * 2 < longest, "{seen_by_load:?}");
    let (grant, end) = exclusive(world, from);
    let solo = solo(world);
    let seen = world.seen();
    seen.alone(seen.window(grant, end), Some(&solo));
    crate::evidence::proves(world, &seen, &solo);
    tell(&format!(
        "the leader (member {}) was killed; from grant to release {solo} was alone for {} ms",
        leader + 1,
        end - grant
    ));
}

/// `run --solo` with a client of the running app, `run --all-stopped` with NocoBase's own command.
pub(crate) fn holders(world: &mut World) {
    world.ensure_whole();
    let from = last_index(world);
    let first = 13000 + world.server.offset;
    let url = format!("http://127.0.0.1:$(({first} + ${{SOLOIST_SOLO_NODE#node-}}))/api/app:getInfo");
    let script = format!("test -n \"$SOLOIST_FENCING_TOKEN\" && sleep 2 && curl -sf {url}");
    let output = world
        .cli
        .run(&["run", "--solo", "--reason", "a client of the app", "--", "bash", "-c", &script])
        .expect(0);
    assert!(output.stdout.contains(VERSION), "{output:?}");
    world.until_whole();
    let (grant, end) = exclusive(world, from);
    let seen = world.seen();
    seen.alone(seen.window(grant, end), Some(&solo(world)));

    let rows = "select count(*) from \"applicationPlugins\" where name = 'embed'";
    // Only a plugin that was enabled once has a row.
    let _ = world.cli.run(&["plugin", "enable", "@nocobase/plugin-embed"]).expect(0);
    assert_eq!(world.sql("nocobase", rows), "1");
    let from = last_index(world);
    let folder = world.lab.join("nodes/node-1/current").to_string_lossy().into_owned();
    let command = format!("cd '{folder}' && exec node_modules/.bin/nocobase pm remove embed");
    let output = world.cli.run(&["run", "--all-stopped", "--", "bash", "-c", &command]);
    world.until_whole();
    // NocoBase's command line exits with 0 even when it fails: the database is asked.
    assert_eq!(world.sql("nocobase", rows), "0", "{output:?}");
    // It also deletes the package from the release of node-1, and the releases of all nodes must be the same.
    let package = "current/node_modules/@nocobase/plugin-embed";
    world.lab_run(&format!(
        "cd '{}/nodes' && rm -rf node-1/{package} && cp -al node-2/{package} node-1/{package}",
        world.lab.display()
    ));
    let (grant, end) = exclusive(world, from);
    let seen = world.seen();
    seen.agree();
    let window = seen.window(grant, end);
    let others: Vec<&str> =
        seen.processes.labels(window).into_iter().filter(|label| label.starts_with("node-")).collect();
    assert!(
        others.is_empty() && seen.processes.max_concurrent(window) <= 1,
        "{}",
        seen.processes.timeline(window, 80)
    );
}

/// Both again, with the command and its command line killed in the middle.
pub(crate) fn holders_killed(world: &mut World) {
    world.ensure_whole();
    for (mode, running) in [("--solo", 1), ("--all-stopped", 0)] {
        let mut job = world
            .cli
            .command(&["run", mode, "--reason", "dies in the middle", "--", "sleep", "300"])
            .stderr(Stdio::null())
            .spawn()
            .expect("the command line can be started");
        world.until("the holder at work", 120, waits_for_holder);
        kill(job.id());
        let _ = job.wait();
        let token = world.cli.status().expect("the coordinators answer")["lock"]["token"].to_string();
        for pid in marked(&format!("SOLOIST_FENCING_TOKEN={token}")) {
            kill(pid);
        }
        let status = world.until("the lost holder", 60, |status| status["current"]["holder_lost"] == true);
        assert_eq!(status["current"]["status"], "blocked", "{status}");
        assert_eq!(serving(&status), running, "{mode}: the fleet stays as the holder needed it");
        let refused = world.cli.run(&["lock", "release", "--force"]);
        assert_ne!(refused.code, 0, "a forced release asks for a reason: {refused:?}");
        let _ = world.cli.run(&["lock", "release", "--force", "--reason", "the job is gone"]).expect(0);
        world.until_whole();
    }
    world.seen().agree();
}

/// The agent of the solo node is killed in the middle: the app lives on, the operation completes.
pub(crate) fn agent_killed(world: &mut World) {
    world.ensure_whole();
    let from = last_index(world);
    let loaded = world.map_is_loaded(0);
    let change = if loaded { "disable" } else { "enable" };
    let command = world
        .cli
        .command(&["plugin", change, "@nocobase/plugin-map"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command line can be started");
    let status = world.until("the grant", 90, |status| status["current"]["granted"] == true);
    let solo = status["current"]["solo"].as_str().expect("a plugin change has a solo node").to_owned();
    let at = number(&solo);
    let before = world.app_pids(at);
    assert!(!before.is_empty());
    drop(world.agents[at].take());
    assert!(before.iter().all(|pid| PathBuf::from(format!("/proc/{pid}")).exists()), "the app lives on");
    world.start_agent(at);
    let output = command.wait_with_output().expect("the command line ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    world.until_whole();
    assert_eq!(world.app_pids(at), before, "the app of {solo} is the same process");
    assert!((0..NODES).all(|at| world.map_is_loaded(at) != loaded));
    let (grant, end) = exclusive(world, from);
    let seen = world.seen();
    seen.alone(seen.window(grant, end), Some(&solo));
}

/// After a power cut three nodes come back and nothing is migrated; without a quorum nothing starts.
pub(crate) fn power_cut(world: &mut World) {
    world.ensure_whole();
    let migrations = world.sql("nocobase", "select count(*) from migrations");
    let cut = wall_ms();
    world.power_cut();
    world.start_members(&[0, 1, 2]);
    (0..NODES).for_each(|at| world.start_agent(at));
    world.until_whole();
    assert_eq!(world.sql("nocobase", "select count(*) from migrations"), migrations);
    assert_eq!(world.sql("nocobase", "select count(*) from \"systemSettings\""), "1");
    let seen = world.seen();
    let after = seen.window(cut, cut).from;
    let mut later = seen.processes.intervals.iter().filter(|interval| interval.start >= after);
    assert!(
        !later.any(|interval| interval.command.contains("--quickstart")),
        "nothing may migrate after a power cut"
    );

    // The same with two of three coordinators missing for a minute.
    world.power_cut();
    let from = wall_ms();
    world.start_members(&[0]);
    (0..NODES).for_each(|at| world.start_agent(at));
    wait("every agent saying why it waits", 30, || {
        (0..NODES).all(|at| {
            let status = get_json(world.agent_port(at), "/status").unwrap_or_default();
            status["waiting"].as_str().is_some_and(|text| text.contains("nothing is started"))
        })
    });
    let stale = world.cli.run(&["status"]).expect(0);
    assert!(stale.stdout.to_lowercase().contains("stale"), "{stale:?}");
    let refused = world.cli.run(&["--timeout", "5s", "stop"]);
    assert_eq!(refused.code, 69, "{refused:?}");
    // The minute is the point of this scenario: it is watched, not waited for.
    while wall_ms() < from + 60_000 {
        assert!(
            (0..NODES).all(|at| marked(&world.marker(at)).is_empty()),
            "something starts without a quorum"
        );
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    world.start_members(&[1, 2]);
    world.until_whole();
    world.seen().agree();
}

/// An installed fleet that points at an empty database, or has newer code, starts nothing and says so.
pub(crate) fn wrong_database(world: &mut World) {
    world.ensure_whole();
    let _ = world.cli.run(&["stop"]).expect(0);
    world.lab_run("lab_database_create empty >/dev/null");
    edit_env(world, "DB_DATABASE=nocobase", "DB_DATABASE=empty");
    expect_refusal(world, "the database is empty");
    let tables = "select count(*) from information_schema.tables where table_schema = 'public'";
    assert_eq!(world.sql("empty", tables), "0", "nothing was installed");
    edit_env(world, "DB_DATABASE=empty", "DB_DATABASE=nocobase");

    edit_code(world, VERSION, "2.2.99");
    expect_refusal(world, "the code has version 2.2.99, the database 2.2.15");
    edit_code(world, "2.2.99", VERSION);
    let started = world.seen().processes.intervals.iter().any(|interval| !interval.ended);
    assert!(!started, "nothing runs");
    let _ = world.cli.run(&["start"]).expect(0);
    world.until_whole();
    assert_eq!(world.sql("nocobase", "select value from \"applicationVersion\""), VERSION);
}

fn expect_refusal(world: &World, text: &str) {
    let mut start = world.cli.command(&["start"]).stderr(Stdio::piped()).spawn().expect("it can be started");
    let status = world.until("the refusal", 60, |status| status["current"]["status"] == "blocked");
    let detail = status["current"]["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains(text), "{detail}");
    let id = status["current"]["id"].as_str().expect("an operation has an id").to_owned();
    let _ = world.cli.run(&["operation", "abort", &id, "--reason", "seen"]).expect(0);
    world.until("the free lock", 60, |status| status["lock"]["held"] == false);
    let _ = start.wait();
    assert!((0..NODES).all(|at| marked(&world.marker(at)).is_empty()), "nothing was started");
    let _ = world.cli.run(&["stop"]).expect(0);
}

fn edit_env(world: &World, from: &str, to: &str) {
    for at in 1..=NODES {
        let path = world.lab.join(format!("nodes/node-{at}/.env"));
        let text = std::fs::read_to_string(&path).expect("a node has its .env");
        assert!(text.contains(from));
        std::fs::write(&path, text.replace(from, to)).expect("the lab can be written");
    }
}

fn edit_code(world: &World, from: &str, to: &str) {
    for at in 1..=NODES {
        let path =
            world.lab.join(format!("nodes/node-{at}/current/node_modules/@nocobase/server/package.json"));
        let text = std::fs::read_to_string(&path).expect("a node has NocoBase's server");
        let (old, new) = (format!("\"version\": \"{from}\""), format!("\"version\": \"{to}\""));
        assert!(text.contains(&old), "{}", path.display());
        std::fs::write(&path, text.replace(&old, &new)).expect("the lab can be written");
    }
}

/// The counter-example: the same first start by hand, all at once.
pub(crate) fn counter_example(world: &mut World) {
    if world.cli.status().is_some() {
        let _ = world.cli.run(&["stop"]).expect(0);
    }
    world.lab_run(&world.server.create("crowd"));
    let lab = world.lab.display().to_string();
    let port = |at: usize| 13080 + world.server.offset + u16::try_from(at).expect("few nodes");
    for at in 1..=NODES {
        let env = world.by_hand(port(at), "crowd");
        world.lab_run(&format!(
            "lab_node_folder '{lab}/nodes/node-{at}/current' '{lab}/crowd/{at}' && lab_env_file '{lab}/crowd/{at}/.env' '{lab}/crowd-fleet' {env}"
        ));
    }
    for at in 1..=NODES {
        world.lab_run(&format!("lab_node_start crowd-{at} '{lab}/crowd/{at}' --quickstart >&2"));
    }
    let state = |at: usize| match get(port(at), "/api/__health_check") {
        Some((200, _)) => "healthy",
        Some((_, body)) if body.contains("APP_ERROR") => "failed",
        _ => "starting",
    };
    wait("three starts at once settling", 180, || (1..=NODES).all(|at| state(at) != "starting"));
    let failed = (1..=NODES).filter(|at| state(*at) == "failed").count();
    let rows = world.sql("crowd", "select count(*) from \"systemSettings\"");
    tell(&format!("without Soloist: {failed} of {NODES} nodes failed, systemSettings has {rows} rows"));
    for at in 1..=NODES {
        world.lab_run(&format!("lab_stop crowd-{at} >&2"));
    }
    assert!(failed > 0 || rows != "1", "three installs at once went well, so this test cannot show anything");
}

// ---- helpers ----

#[expect(clippy::print_stdout, reason = "figures for whoever reads the test's output")]
fn tell(text: &str) {
    println!("    {text}");
}

fn report_load(seen: &[soloist_tests::harness::load::Seen]) {
    for (at, node) in seen.iter().enumerate() {
        tell(&format!(
            "node-{}: {} of {} requests failed, longest gap {:.1} s",
            at + 1,
            node.failed,
            node.sent,
            node.longest_gap.as_secs_f32()
        ));
    }
}

pub(crate) fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn number(node: &str) -> usize {
    let number: usize = node.trim_start_matches("node-").parse().expect("nodes are numbered");
    number - 1
}

fn serving(status: &Value) -> usize {
    let nodes = status["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    nodes.iter().filter(|node| node["app"] == "serving").count()
}

fn waits_for_holder(status: &Value) -> bool {
    status["current"]["waits"].to_string().contains("holder's work")
}

/// The node of the last operation that had one.
pub(crate) fn solo(world: &World) -> String {
    let list = world.cli.run(&["operation", "list", "-o", "json"]).expect(0).json();
    let operations = list["operations"].as_array().cloned().unwrap_or_default();
    operations
        .iter()
        .find_map(|operation| operation["solo"].as_str().map(ToOwned::to_owned))
        .expect("an operation with a solo node")
}

pub(crate) fn last_index(world: &World) -> u64 {
    world.events().iter().filter_map(|event| event["index"].as_u64()).max().unwrap_or(0)
}

fn wall(events: &[Value], found: impl Fn(&Value) -> bool) -> u64 {
    let event =
        events.iter().find(|event| found(event)).unwrap_or_else(|| panic!("no such event in {events:?}"));
    event["wall_ms"].as_u64().expect("events have a wall clock")
}

/// From grant to the end of the exclusive part of the first operation after `from`, by the wall clock.
pub(crate) fn exclusive(world: &World, from: u64) -> (u64, u64) {
    let events: Vec<Value> = world
        .events()
        .into_iter()
        .filter(|event| event["index"].as_u64().is_some_and(|index| index > from))
        .collect();
    let text = |event: &Value| event["text"].as_str().unwrap_or_default().to_owned();
    let grant = wall(&events, |event| text(event).starts_with("granted"));
    let after: Vec<Value> =
        events.into_iter().skip_while(|event| !text(event).starts_with("granted")).collect();
    let proved = after
        .iter()
        .find(|event| text(event).starts_with("done: prove"))
        .or_else(|| after.iter().find(|event| text(event).starts_with("holder released")))
        .or_else(|| after.iter().find(|event| event["kind"] == "backup"));
    let end = proved.and_then(|event| event["wall_ms"].as_u64()).expect("the exclusive part has ended");
    assert!(end >= grant);
    (grant, end)
}
