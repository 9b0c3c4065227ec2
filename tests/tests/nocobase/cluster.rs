//! A node whose settings ask for several processes, beside one that only works in the background.

use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use soloist_tests::harness::get;

use crate::scenarios::{exclusive, last_index};
use crate::world::{NODES, World, wall_ms};

/// No other scenario has to do with it.
const PLUGIN: &str = "@nocobase/plugin-multi-keyword-filter";
/// The end of the path of NocoBase's app; pm2 shows it in the titles of its processes, too.
const APP: &str = "@nocobase/app/lib/index.js";
/// The node with several processes, less one.
const AT: usize = 1;
/// The worker, less one.
const WORKER: usize = 2;
/// How many processes it shall have.
const PROCESSES: usize = 2;
/// Between two looks at the process table.
const LOOK: Duration = Duration::from_millis(20);

/// How many processes of the app run on each node.
fn processes(markers: &[String]) -> [usize; NODES] {
    let mut found = [0; NODES];
    for entry in std::fs::read_dir("/proc").expect("there is a process table").flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
            continue;
        }
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let environ = read("environ");
        let has = |marker: &String| environ.split(|byte| *byte == 0).any(|item| item == marker.as_bytes());
        if let Some(at) = markers.iter().position(has)
            && String::from_utf8_lossy(&read("cmdline")).contains(APP)
        {
            found[at] += 1;
        }
    }
    found
}

/// Counts them all the time.
struct Counter {
    stop: Sender<()>,
    thread: JoinHandle<Vec<(u64, [usize; NODES])>>,
}

impl Counter {
    fn start(markers: Vec<String>) -> Self {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut found = Vec::new();
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                found.push((wall_ms(), processes(&markers)));
            }
            found
        });
        Self { stop, thread }
    }

    fn stop(self) -> Vec<(u64, [usize; NODES])> {
        drop(self.stop);
        self.thread.join().expect("it counts")
    }
}

fn markers(world: &World) -> Vec<String> {
    (0..NODES).map(|at| world.marker(at)).collect()
}

/// Whether each of many new connections to a node finds the plugin loaded, or not loaded.
fn loaded_everywhere(world: &World, at: usize, wanted: bool) -> bool {
    (0..10 * PROCESSES).all(|_| {
        let answer = get(world.app_port(at), "/api/app:getLang?locale=en-US");
        let body: Option<Value> = answer.and_then(|(_, body)| serde_json::from_str(&body).ok());
        body.is_some_and(|body| body["data"]["resources"].get(PLUGIN).is_some() == wanted)
    })
}

fn nobody_stale(status: &Value) -> bool {
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    nodes.len() == NODES && nodes.iter().all(|node| node["stale"].as_array().is_none_or(Vec::is_empty))
}

fn settings(world: &World, at: usize) -> PathBuf {
    world.lab.join(format!("nodes/node-{}/.env", at + 1))
}

/// See the module.
pub(crate) fn several(world: &mut World) {
    world.ensure_whole();
    let before = [AT, WORKER].map(|at| {
        let path = settings(world, at);
        let text = std::fs::read_to_string(&path).expect("a node has settings");
        (path, text)
    });
    for ((path, text), more) in
        before.iter().zip([format!("CLUSTER_MODE={PROCESSES}\n"), "WORKER_MODE=*\n".into()])
    {
        std::fs::write(path, format!("{text}\n{more}")).expect("a node's settings can be written");
    }
    let _ = world.cli.run(&["restart"]).expect(0);
    world.until_whole();
    let markers = markers(world);
    assert_eq!(processes(&markers), [1, PROCESSES, 1]);
    assert!(loaded_everywhere(world, AT, false));

    let planned = world.cli.run(&["plan", "plugin", "enable", PLUGIN, "--on", "node-2"]).expect(0).stdout;
    assert!(planned.contains("start node-2 as one process"), "{planned}");
    change(world, "enable");
    change(world, "disable");

    for (path, text) in before {
        std::fs::write(path, text).expect("a node's settings can be written");
    }
    let _ = world.cli.run(&["restart"]).expect(0);
    world.until_whole();
    assert_eq!(processes(&markers), [1, 1, 1]);
    world.until("no stale node", 90, nobody_stale);
    world.seen().agree();
}

/// Enables or disables the plugin on the node with several processes, and looks how many run at each moment.
#[expect(clippy::print_stdout, reason = "how long it took is worth seeing")]
fn change(world: &World, verb: &str) {
    let markers = markers(world);
    let (from, pids) = (last_index(world), world.app_pids(WORKER));
    let counter = Counter::start(markers.clone());
    let began = Instant::now();
    let _ = world.cli.run(&["plugin", verb, PLUGIN, "--on", "node-2"]).expect(0);
    let took = began.elapsed();
    let counted = counter.stop();
    let (grant, end) = exclusive(world, from);
    let alone: Vec<_> = counted.iter().filter(|(at, _)| (grant..=end).contains(at)).collect();
    let mut expected = [0; NODES];
    expected[AT] = 1;
    assert!(!alone.is_empty(), "from {grant} to {end}: {counted:?}");
    assert!(alone.iter().all(|(_, found)| *found == expected), "{alone:?}");
    let seen = world.seen();
    seen.alone(seen.window(grant, end), Some("node-2"));

    world.until_whole();
    assert_eq!(processes(&markers), [1, PROCESSES, 1]);
    assert_ne!(world.app_pids(WORKER), pids, "the worker was restarted");
    for at in 0..NODES {
        assert!(loaded_everywhere(world, at, verb == "enable"), "node-{}", at + 1);
    }
    world.until("no stale node", 90, nobody_stale);
    println!(
        "    {verb}: {:.1} s, alone for {} ms, seen {} times in them",
        took.as_secs_f32(),
        end - grant,
        alone.len()
    );
}
