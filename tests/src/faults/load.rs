//! People and jobs: they use the real command line all the time, and one of them settles what waits for a person.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde_json::Value;

use super::record::wall_ms;
use super::scene::{Book, Scene};
use super::targets::Clients;
use crate::harness::{Cli, kill_marked};

/// A command that takes longer is given up.
const COMMAND_MAX: Duration = Duration::from_secs(180);
/// A person looks so often.
const LOOK: Duration = Duration::from_millis(700);
/// What is blocked for so long does not come by itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same for a node that does not answer: most come back.
const LONG_PATIENCE: Duration = Duration::from_secs(20);

const WORKS: u8 = 0;
const RESTS: u8 = 1;
const ENDS: u8 = 2;

/// All of them. They end when it is dropped.
#[derive(Debug)]
pub struct Load {
    mode: Arc<AtomicU8>,
    threads: Vec<JoinHandle<()>>,
    clients: Clients,
    idle: Arc<AtomicU8>,
    workers: u8,
}

/// One who works.
struct Worker {
    cli: Cli,
    book: Book,
    clients: Clients,
    rng: SmallRng,
    holders: Vec<Vec<String>>,
}

impl Load {
    /// Begins.
    #[must_use]
    pub fn start(scene: &Scene, seed: u64, workers: u8, clients: Clients) -> Self {
        let (mode, idle) = (Arc::new(AtomicU8::new(WORKS)), Arc::new(AtomicU8::new(0)));
        let mut threads = Vec::new();
        for number in 0..workers {
            let holders = vec![scene.holder("solo", 12), scene.holder("all-stopped", 12)];
            let rng = SmallRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(u64::from(number)));
            let (cli, book) = (scene.fleet.cli(), scene.book.clone());
            let mut worker = Worker { cli, book, clients: clients.clone(), rng, holders };
            let (mode, idle) = (Arc::clone(&mode), Arc::clone(&idle));
            threads.push(std::thread::spawn(move || {
                loop {
                    match mode.load(Ordering::SeqCst) {
                        WORKS => worker.work(),
                        RESTS => {
                            idle.fetch_add(1, Ordering::SeqCst);
                            while mode.load(Ordering::SeqCst) == RESTS {
                                std::thread::sleep(Duration::from_millis(50));
                            }
                            idle.fetch_sub(1, Ordering::SeqCst);
                        }
                        _ => return,
                    }
                }
            }));
        }
        let mut person = Person::new(scene.fleet.cli(), scene.book.clone());
        let (ends, count) = (Arc::clone(&mode), scene.fleet.apps.len());
        threads.push(std::thread::spawn(move || {
            while ends.load(Ordering::SeqCst) != ENDS {
                person.look(count, ends.load(Ordering::SeqCst) == RESTS);
                std::thread::sleep(LOOK);
            }
        }));
        Self { mode, threads, clients, idle, workers }
    }

    /// The processes of those who work.
    #[must_use]
    pub fn clients(&self) -> Clients {
        self.clients.clone()
    }

    /// Nobody begins anything new; waits until what was begun has ended. `false` if it has not in time.
    #[must_use]
    pub fn rest(&self, limit: Duration) -> bool {
        self.mode.store(RESTS, Ordering::SeqCst);
        let began = Instant::now();
        while self.idle.load(Ordering::SeqCst) < self.workers {
            if began.elapsed() > limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        true
    }

    /// They go on.
    pub fn resume(&self) {
        self.mode.store(WORKS, Ordering::SeqCst);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.mode.store(ENDS, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // What it has done is in the book.
            let _ = thread.join();
        }
    }
}

impl Worker {
    fn work(&mut self) {
        let on = format!("node-{}", self.rng.random_range(1..=2));
        let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let holder = |mode: &str, command: &[String]| {
            let flag = format!("--{mode}");
            [text(&["run", &flag, "--wait", "60s", "--"]), command.to_vec()].concat()
        };
        let (name, args) = match self.rng.random_range(0..100) {
            0..20 => ("plugin enable", text(&["plugin", "enable", "@nocobase/plugin-map", "--wait", "60s"])),
            20..40 => {
                ("plugin disable", text(&["plugin", "disable", "@nocobase/plugin-map", "--wait", "60s"]))
            }
            40..60 => ("run --solo", holder("solo", &self.holders[0])),
            60..72 => ("run --all-stopped", holder("all-stopped", &self.holders[1])),
            72..80 => ("restart", text(&["restart", "--nodes", &on, "--wait", "60s"])),
            80..86 => ("stop", text(&["stop", "--wait", "60s"])),
            86..92 => ("freeze", text(&["freeze", "--for", "2s", "--reason", "somebody says so"])),
            92..96 => ("abort", self.abort()),
            _ => ("start", text(&["start", "--wait", "60s"])),
        };
        if args.is_empty() {
            return;
        }
        self.run(name, &args);
        if name == "stop" {
            self.run("start", &text(&["start", "--wait", "60s"]));
        }
        std::thread::sleep(Duration::from_millis(self.rng.random_range(100..1500)));
    }

    /// To abort whatever runs now.
    fn abort(&self) -> Vec<String> {
        let status = self.cli.status().unwrap_or_default();
        let id = status["current"]["id"].as_str();
        let words =
            |id: &str| ["operation", "abort", id, "--reason", "changed my mind"].map(str::to_owned).to_vec();
        id.map(words).unwrap_or_default()
    }

    fn run(&self, name: &str, args: &[String]) {
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        command(&self.cli, &words, &self.clients, &self.book, name);
    }
}

/// Runs a command of the command line that may be killed at any time.
fn command(cli: &Cli, args: &[&str], clients: &Clients, book: &Book, name: &str) {
    let from_ms = wall_ms();
    let mut command = cli.command(args);
    // A file takes what it says, so that nobody has to read a pipe; what it leaves running may hold it open.
    let said = tempfile::NamedTempFile::new().expect("a temporary file");
    let out = said.reopen().expect("a temporary file can be opened again");
    command.stdout(Stdio::null()).stderr(out);
    let mut child = command.spawn().expect("the command line can be started");
    clients.begins(child.id());
    let began = Instant::now();
    while runs(child.id()) {
        if began.elapsed() > COMMAND_MAX {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    // Once its end is taken, its process id may be another's: the list is told first.
    clients.ends(child.id());
    let code = child.wait().ok().and_then(|status| status.code()).unwrap_or(-1);
    let text = std::fs::read_to_string(said.path()).unwrap_or_default();
    book.work(name, from_ms, code, &text);
}

/// Whether a child runs; its end is not taken.
fn runs(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a child has a process id");
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::Pid(pid), look), Ok(None))
}

/// Somebody who looks at what waits for a person, and decides.
struct Person {
    cli: Cli,
    book: Book,
    /// What is blocked: operation, cause, attempt, since when.
    blocked: Option<(String, String, u64, Instant)>,
    retried: Option<String>,
    resting: Option<Instant>,
}

impl Person {
    fn new(cli: Cli, book: Book) -> Self {
        Self { cli, book, blocked: None, retried: None, resting: None }
    }

    fn look(&mut self, nodes: usize, quiet: bool) {
        let Some(status) = self.cli.status() else { return };
        let current = &status["current"];
        let Some(id) = current["id"].as_str() else {
            self.blocked = None;
            return self.begin(&status, nodes, quiet);
        };
        self.resting = None;
        if current["status"] != "blocked" {
            self.blocked = None;
            return;
        }
        let cause = current["cause"].as_str().unwrap_or_default().to_owned();
        let attempt = current["attempt"].as_u64().unwrap_or(0);
        let since = match &self.blocked {
            Some((known, why, number, since)) if known == id && *why == cause && *number == attempt => *since,
            _ => {
                let now = Instant::now();
                self.blocked = Some((id.to_owned(), cause.clone(), attempt, now));
                now
            }
        };
        let patience =
            if ["unreachable", "breach"].contains(&cause.as_str()) { LONG_PATIENCE } else { PATIENCE };
        if since.elapsed() >= patience {
            self.decide(&status, id, &cause);
            self.blocked = None;
        }
    }

    fn decide(&mut self, status: &Value, id: &str, cause: &str) {
        if cause == "holder_lost" {
            // First the holder's work is ended, as the command says one must.
            let token = status["lock"]["token"].to_string();
            kill_marked(&format!("SOLOIST_FENCING_TOKEN={token}"));
            return self
                .say("lock release", &["lock", "release", "--force", "--reason", "its holder is gone"]);
        }
        let again = ["task_failed", "crashed", "failed", "refused", "overdue"].contains(&cause);
        if again && self.retried.as_deref() != Some(id) {
            self.retried = Some(id.to_owned());
            return self.say("operation retry", &["operation", "retry", id]);
        }
        self.say("operation abort", &["operation", "abort", id, "--reason", "it does not go on"]);
    }

    /// Starts what is stopped while nothing goes on.
    fn begin(&mut self, status: &Value, nodes: usize, quiet: bool) {
        let rests = |node: &Value| node["wanted"] == "stop" && !node["heard"].is_null();
        let list = status["nodes"].as_array().cloned().unwrap_or_default();
        let some = list.len() == nodes && list.iter().any(rests);
        if !some || (!quiet && status["desired"] != "run") {
            self.resting = None;
            return;
        }
        let since = *self.resting.get_or_insert_with(Instant::now);
        if since.elapsed() >= PATIENCE {
            self.resting = None;
            self.say("start", &["start", "--wait", "60s", "--detach"]);
        }
    }

    fn say(&self, name: &str, args: &[&str]) {
        let from_ms = wall_ms();
        let output = self.cli.run(args);
        self.book.work(&format!("person: {name}"), from_ms, output.code, &output.stderr);
    }
}
