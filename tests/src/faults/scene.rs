//! A fleet on hosts of its own, watched by the independent monitor, with a book in which everybody writes down what happens.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use soloist_demo::monitor::{Interval, Monitor, MonitorOptions, Process, is_standin};

use super::disks::Mount;
use super::record::{Alive, Calm, Record, STRAY, Told, Trouble, Work, wall_ms};
use crate::harness::{CLIENT, Cli, Fleet, FleetOptions, Net, whole};

/// How often the coordinators are asked for what has happened; they remember 300 events.
const GATHER_EVERY: Duration = Duration::from_millis(1500);
/// The host of agents without hosts of their own.
pub const CROWD: &str = "s";
/// Room on the disk of each member and of each agent.
const MEMBER_MIB: u32 = 48;
const AGENT_MIB: u32 = 8;

/// What is written down by whoever takes part.
#[derive(Debug, Clone, Default)]
pub struct Book(Arc<Mutex<Record>>);

impl Book {
    /// Opens it.
    pub fn open(&self) -> MutexGuard<'_, Record> {
        // Each entry is whole in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down a command of a client.
    pub fn work(&self, what: &str, from_ms: u64, code: i32, said: &str) {
        let said = said.trim_end().lines().next_back().unwrap_or_default().to_owned();
        self.open().works.push(Work { what: what.to_owned(), from_ms, to_ms: wall_ms(), code, said });
    }

    /// Writes down a fault that is over.
    pub fn trouble(&self, kind: &str, what: &str, from_ms: u64) {
        let (kind, what) = (kind.to_owned(), what.to_owned());
        self.open().troubles.push(Trouble { kind, what, from_ms, to_ms: wall_ms() });
    }
}

/// All of it. Everything ends when it is dropped.
#[derive(Debug)]
pub struct Scene {
    gatherer: Gatherer,
    // Taken away before the folder is, in which they are mounted.
    _disks: Vec<Mount>,
    /// The fleet.
    pub fleet: Fleet,
    /// The book.
    pub book: Book,
    monitor: Monitor,
    began: (Instant, u64),
}

impl Scene {
    /// A fleet that serves: installed, on hosts of its own, each with a small disk.
    ///
    /// # Panics
    /// When it does not come up: this needs root.
    #[must_use]
    pub fn start(title: &str, seed: Option<u64>, options: FleetOptions) -> Self {
        let mut scene = Self::prepare(title, seed, options);
        scene.bring_up();
        scene
    }

    /// The same with nothing started yet.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn prepare(title: &str, seed: Option<u64>, mut options: FleetOptions) -> Self {
        let mut hosts: Vec<String> = (1..=options.members).map(|id| format!("m{id}")).collect();
        hosts.extend((1..=options.nodes).map(|number| format!("n{number}")));
        hosts.extend([CLIENT, CROWD].map(str::to_owned));
        options.net = Some(Arc::new(Net::new(&hosts)));
        let fleet = Fleet::prepare(&options);
        let disk = |kind: &str, number: usize, mib| {
            Mount::small(&fleet.folder.join(format!("{kind}-{number}")), mib)
        };
        let members = (1..=options.members).map(|number| disk("member", number, MEMBER_MIB));
        let disks =
            members.chain((1..=options.nodes).map(|number| disk("agent", number, AGENT_MIB))).collect();
        let began = (Instant::now(), wall_ms());
        let monitor = watch(&fleet);
        let book = Book::default();
        {
            let mut record = book.open();
            (record.title, record.seed, record.from_ms) = (title.to_owned(), seed, began.1);
        }
        let gatherer = Gatherer::start(fleet.cli(), book.clone());
        Self { gatherer, _disks: disks, fleet, book, monitor, began }
    }

    /// Starts and installs it.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn bring_up(&mut self) {
        (0..self.fleet.members.len()).for_each(|at| self.fleet.start_member(at));
        (0..self.fleet.agents.len()).for_each(|at| self.fleet.start_agent(at));
        let count = self.fleet.apps.len();
        self.fleet.until("the enrolment of every agent", 60, |status| {
            status["nodes"].as_array().is_some_and(|nodes| nodes.len() == count)
        });
        let _ = self.fleet.cli().run(&["start", "--install"]).expect(0);
        self.fleet.until_whole();
    }

    /// The network.
    ///
    /// # Panics
    /// Never: a scene has one.
    #[must_use]
    pub fn net(&self) -> Arc<Net> {
        self.fleet.net.clone().expect("a scene has a network")
    }

    /// Whether the monitor has seen the app run on this node, by its marker or as [`STRAY`].
    #[must_use]
    pub fn has_seen(&self, node: &str) -> bool {
        self.monitor.so_far().intervals.iter().any(|interval| interval.label == node)
    }

    /// The file in which commands under the lock write that they are alive.
    #[must_use]
    pub fn signs(&self) -> PathBuf {
        self.fleet.folder.join("alive")
    }

    /// How many signs of life there are.
    #[must_use]
    pub fn sign_count(&self) -> usize {
        std::fs::read_to_string(self.signs()).unwrap_or_default().lines().count()
    }

    /// A command of a shell that writes a sign of life of whoever holds the lock.
    #[must_use]
    pub fn sign(&self, mode: &str) -> String {
        let sign = "$SOLOIST_FENCING_TOKEN ${SOLOIST_SOLO_NODE:-none} $(date +%s%3N)";
        format!("echo \"{mode} {sign}\" >>'{}'", self.signs().display())
    }

    /// A command to be run under the lock: it writes a sign of life ten times a second, `tenths` times.
    #[must_use]
    pub fn holder(&self, mode: &str, tenths: u32) -> Vec<String> {
        let script = format!("for i in $(seq {tenths}); do {}; sleep 0.1; done", self.sign(mode));
        vec!["sh".into(), "-c".into(), script]
    }

    /// Waits until every node serves and the lock is free, writes down how long that took, and says whether it came in time.
    pub fn calm(&self, limit: Duration) -> bool {
        let (cli, count, from_ms, began) =
            (self.fleet.cli(), self.fleet.apps.len(), wall_ms(), Instant::now());
        let well = |status: &Value| whole(status, count) && status["desired"] == "run";
        let mut reached = false;
        while !reached && began.elapsed() < limit {
            reached = cli.status().is_some_and(|status| well(&status));
            std::thread::sleep(Duration::from_millis(200));
        }
        let state = if reached { String::new() } else { cli.run(&["status"]).stdout };
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.book.open().calms.push(Calm { from_ms, took_ms, reached, state });
        reached
    }

    /// Ends the watch, and gives everything that was written down.
    #[must_use]
    pub fn end(self) -> Record {
        self.gatherer.stop();
        gather(&self.fleet.cli(), &self.book, true);
        let (signs, began, seen) = (self.signs(), self.began, self.monitor.stop());
        let mut record = self.book.open().clone();
        let offset = seen.epoch.duration_since(began.0);
        let wall = |at: Duration| began.1 + u64::try_from((offset + at).as_millis()).unwrap_or(u64::MAX);
        record.trees = seen.intervals.iter().map(|interval| tree(interval, &wall)).collect();
        record.samples = seen.samples;
        record.longest_gap_ms = u64::try_from(seen.longest_gap.as_millis()).unwrap_or(u64::MAX);
        record.dropped = seen.dropped;
        record.to_ms = wall_ms();
        let signs = std::fs::read_to_string(signs).unwrap_or_default();
        record.alive = signs.lines().filter_map(alive).collect();
        let damage = self.fleet.folder.join("database.json.damage");
        let damage = std::fs::read_to_string(damage).unwrap_or_default();
        record.damage = damage.lines().map(str::to_owned).collect();
        record
    }
}

/// Watches all processes that run the stand-in on this fleet's database, whoever started them.
fn watch(fleet: &Fleet) -> Monitor {
    let database = fleet.folder.join("database.json").to_string_lossy().into_owned();
    let is_app = move |arguments: &[String]| is_standin(arguments) && arguments.contains(&database);
    let prefix = format!("{}/", fleet.name);
    let label = move |process: &Process| {
        let marker = process.variable("SOLOIST_NODE").and_then(|value| value.strip_prefix(&prefix));
        marker.unwrap_or(STRAY).to_owned()
    };
    Monitor::start(MonitorOptions::new(is_app).labelled(label)).expect("the process table can be watched")
}

fn tree(interval: &Interval, wall: &impl Fn(Duration) -> u64) -> super::record::Tree {
    super::record::Tree {
        node: interval.label.clone(),
        pid: interval.pid,
        from_ms: wall(interval.start),
        to_ms: wall(interval.end),
        migrates: interval.command.contains("--quickstart"),
    }
}

fn alive(line: &str) -> Option<Alive> {
    let words: Vec<&str> = line.split(' ').collect();
    let [mode, token, solo, at] = words.as_slice() else { return None };
    let (mode, solo) = ((*mode).to_owned(), (*solo).to_owned());
    Some(Alive { mode, token: token.parse().ok()?, solo, at_ms: at.parse().ok()? })
}

/// Asks the coordinators now and then for what has happened.
#[derive(Debug)]
struct Gatherer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Gatherer {
    fn start(cli: Cli, book: Book) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                gather(&cli, &book, false);
                std::thread::sleep(GATHER_EVERY);
            }
        });
        Self { stop, thread: Some(thread) }
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Gatherer {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // What it has written down is in the book.
            let _ = thread.join();
        }
    }
}

/// `all`: also what only the members' archives remember.
fn gather(cli: &Cli, book: &Book, all: bool) {
    let mut args = vec!["events", "-o", "json", "--timeout", "5s"];
    if all {
        args.push("--all");
    }
    let told = cli.run(&args).stdout;
    let list = cli.run(&["operation", "list", "-o", "json", "--timeout", "5s"]).stdout;
    let list: Value = serde_json::from_str(&list).unwrap_or_default();
    let mut record = book.open();
    let mut events: BTreeSet<Told> = std::mem::take(&mut record.events).into_iter().collect();
    events.extend(told.lines().filter_map(event));
    record.events = events.into_iter().collect();
    for operation in list["operations"].as_array().into_iter().flatten() {
        if let (Some(id), Some(solo)) = (operation["id"].as_str(), operation["solo"].as_str()) {
            record.solo.insert(id.to_owned(), solo.to_owned());
        }
    }
}

fn event(line: &str) -> Option<Told> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    Some(Told {
        index: value["index"].as_u64()?,
        wall_ms: value["wall_ms"].as_u64()?,
        operation: text("operation"),
        node: text("node"),
        kind: text("kind")?,
        text: text("text")?,
    })
}
