//! How much time Soloist adds to an operation: its wall time less the app's own on the critical path.
//!
//! `cargo build --release && SOLOIST_BIN=$PWD/target/release cargo bench --profile dev -p soloist-tests --bench overhead`
//!
//! Below each figure stands where the time of its last run went.
//! The app's own times are measured in the same run, without Soloist: start, start with an upgrade, stop. On an idle machine less
//! than 500 ms each is the aim.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use soloist_tests::harness::{Fleet, FleetOptions, bin, free_ports, get, until};

const RUNS: usize = 5;
const LIMIT: Duration = Duration::from_secs(60);
const TABLES: &str = r#"
[backup.external]
create = ["/bin/cp", "DATABASE", "DATABASE.backup"]
check = ["/bin/true"]
restore = ["/bin/cp", "DATABASE.backup", "DATABASE"]
remove = ["/bin/true"]
"#;

fn main() {
    let args = FleetOptions::default().app_args;
    let own = Own::measure(&args);
    println!(
        "the app's own, median of {RUNS}: start {} ms, start with an upgrade {} ms, stop {} ms",
        ms(own.start),
        ms(own.upgrade),
        ms(own.stop)
    );
    let versions: Vec<String> = (0..=RUNS).map(|at| format!("1.{at}.0")).collect();
    let options =
        FleetOptions { releases: versions.clone(), agent_tables: TABLES.into(), ..FleetOptions::default() };
    let fleet = Fleet::start(&options);
    let _ = fleet.cli().run(&["start", "--install"]).expect(0);
    fleet.until_whole();

    // Others stop, the task, then two of three nodes start one after the other.
    let plugin = own.stop + TASK + own.start * 2;
    let changes: Vec<Duration> =
        (0..RUNS).map(|at| took(&fleet, &["plugin", ["enable", "disable"][at % 2], "map"])).collect();
    print("plugin change", changes, plugin);
    steps(&fleet);

    // All stop, one upgrades, two start.
    let upgrade = own.stop + own.upgrade + own.start * 2;
    let upgrades: Vec<Duration> =
        versions.iter().skip(1).map(|to| took(&fleet, &["upgrade", "--to", to])).collect();
    print("upgrade", upgrades, upgrade);
    steps(&fleet);
}

/// How long the stand-in's own task takes: see `FleetOptions`.
const TASK: Duration = Duration::from_millis(500);

fn print(what: &str, mut walls: Vec<Duration>, own: Duration) {
    walls.sort_unstable();
    let wall = walls[walls.len() / 2];
    let over = wall.saturating_sub(own);
    println!(
        "{what}: median of {} {} ms, of it the app's own {} ms, Soloist's {} ms (least {} ms), ratio {:.3}",
        walls.len(),
        ms(wall),
        ms(own),
        ms(over),
        ms(walls[0].saturating_sub(own)),
        over.as_secs_f64() / wall.as_secs_f64(),
    );
}

/// Where the last operation's time went: from each event to the next.
fn steps(fleet: &Fleet) {
    let events = fleet.cli().run(&["events", "-o", "json"]).expect(0).stdout;
    let events: Vec<Value> = events.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let asked = |event: &Value| event["text"].as_str().is_some_and(|text| text.starts_with("asked for"));
    let Some(first) = events.iter().rposition(asked) else { return };
    let wall = |event: &Value| event["wall_ms"].as_u64().unwrap_or_default();
    for pair in events[first..].windows(2) {
        let (node, text) = (pair[1]["node"].as_str().unwrap_or_default(), &pair[1]["text"]);
        println!("{:6} ms  {node} {}", wall(&pair[1]) - wall(&pair[0]), text.as_str().unwrap_or_default());
    }
}

fn ms(time: Duration) -> u128 {
    time.as_millis()
}

/// From the lock to its end, as the coordinators count it.
fn took(fleet: &Fleet, args: &[&str]) -> Duration {
    let output = fleet.cli().run(&[args, &["-o", "json"]].concat()).expect(0);
    fleet.until_whole();
    Duration::from_millis(output.json()["age"].as_u64().expect("an age"))
}

/// The app's own times.
struct Own {
    start: Duration,
    upgrade: Duration,
    stop: Duration,
}

impl Own {
    fn measure(args: &[String]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let _ = one(folder.path(), args, "1.0.0", true);
        let mut starts = Vec::new();
        let (mut upgrades, mut stops) = (Vec::new(), Vec::new());
        for at in 1..=RUNS {
            let (upgrade, stop) = one(folder.path(), args, &format!("1.{at}.0"), true);
            upgrades.push(upgrade);
            stops.push(stop);
            starts.push(one(folder.path(), args, &format!("1.{at}.0"), false).0);
        }
        Self { start: median(starts), upgrade: median(upgrades), stop: median(stops) }
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Runs the app alone, from its start to health, and from SIGTERM to its end.
fn one(folder: &Path, args: &[String], version: &str, quickstart: bool) -> (Duration, Duration) {
    let port = free_ports(1)[0];
    let mut command = Command::new(bin("soloist"));
    command.args(["stand-in", "start", "--port", &port.to_string(), "--code-version", version]);
    command.arg("--database").arg(folder.join("database.json")).arg("--storage").arg(folder).args(args);
    if quickstart {
        command.arg("--quickstart");
    }
    let began = Instant::now();
    let mut app =
        Ended(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the app can be started"));
    until("health", LIMIT, String::new, || {
        get(port, "/api/__health_check").filter(|(status, _)| *status == 200).map(|_| ())
    });
    let start = began.elapsed();
    let began = Instant::now();
    let pid = i32::try_from(app.0.id()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, Signal::TERM).expect("the app can be stopped");
    app.0.wait().expect("the app ends");
    (start, began.elapsed())
}

/// A process that does not outlive the benchmark.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
