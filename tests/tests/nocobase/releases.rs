//! Releases, the fleet's policy, and users: what the scenarios of upgrades share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use soloist_tests::harness::{get, get_json, head};

use crate::server::Server;
use crate::world::{NODES, TIMEOUTS, VERSION, World, wait, wall_ms};

/// A release that upgrades well.
pub(crate) const GOOD: &str = "2.2.99";
/// A release whose upgrade fails half-way.
pub(crate) const BROKEN: &str = "2.2.98";
/// How long the longest statement of its migration takes.
pub(crate) const STATEMENT: Duration = Duration::from_secs(3);
/// What the good release's own migration does: it leaves a trace each time it runs, and takes a while.
fn migration(server: Server) -> String {
    format!(
        r#"await sql("create table if not exists lab_upgrades (at timestamp)");
await sql("insert into lab_upgrades values (now())");
await sql("select {}({})");"#,
        server.sleep(),
        STATEMENT.as_secs()
    )
}

impl World {
    /// Adds both releases to every node, unless they are there.
    pub(crate) fn add_releases(&self) {
        let (cache, lab) = (self.cache.join("nocobase").join(VERSION), self.lab.display());
        let (from, migration) = (cache.display(), migration(self.server));
        let make = [
            format!("lab_nocobase_next '{from}' '{lab}/code/{GOOD}' {GOOD} '{migration}'"),
            format!("lab_nocobase_broken '{from}' '{lab}/code/{BROKEN}' {BROKEN}"),
        ];
        let all = (1..=NODES).flat_map(|at| [GOOD, BROKEN].map(|version| (at, version)));
        let add = all.map(|(at, version)| {
            format!("lab_node_release '{lab}/code/{version}' '{lab}/nodes/node-{at}' {version}")
        });
        self.lab_run(&make.into_iter().chain(add).collect::<Vec<_>>().join(" && "));
    }

    /// Makes the fleet's policy the test's timeouts and these lines.
    pub(crate) fn policy(&self, lines: &str) {
        let path = self.lab.join("policy.toml");
        let text = format!("{TIMEOUTS}max_parallel = 2\n{lines}");
        std::fs::write(&path, text).expect("the lab can be written");
        let _ = self.cli.run(&["fleet", "apply", &path.to_string_lossy()]).expect(0);
    }

    /// The users' table with one row, and nothing that an earlier upgrade has left.
    pub(crate) fn table(&self, word: &str) {
        self.sql("nocobase", "drop table if exists lab_words; create table lab_words (word text)");
        self.write(word);
    }

    /// A user writes.
    pub(crate) fn write(&self, word: &str) {
        self.sql("nocobase", &format!("insert into lab_words values ('{word}')"));
    }

    /// What users have written.
    pub(crate) fn words(&self) -> String {
        self.sql("nocobase", &format!("select {} from lab_words", self.server.listed("word")))
    }

    /// How often the good release's migration has begun in this database.
    pub(crate) fn migrations(&self) -> String {
        if self.tables("lab_upgrades") == 0 {
            return "0".into();
        }
        self.sql("nocobase", "select count(*) from lab_upgrades")
    }

    fn tables(&self, name: &str) -> usize {
        let query = format!("select count(*) from information_schema.tables where table_name = '{name}'");
        self.sql("nocobase", &query).parse().expect("a count is a number")
    }

    /// Waits until the good release's migration is under way. The fleet's database is not connected to for it.
    pub(crate) fn until_migrating(&self) {
        let query = "select count(*) from pg_stat_activity where datname = 'nocobase' and state = 'active' \
                     and application_name like 'soloist-node-%' and query like '%pg_sleep%'";
        wait("the migration under way", 120, || self.sql("postgres", query) == "1");
    }

    /// Where a node's link to the current release leads.
    pub(crate) fn current(&self, at: usize) -> PathBuf {
        let link = self.lab.join(format!("nodes/node-{}/current", at + 1));
        std::fs::read_link(link).expect("a node has a current release")
    }

    /// Every node serves this version: by its API, its agent, its link; and the database has it.
    pub(crate) fn serves(&self, version: &str) {
        let status = self.until_whole();
        assert_eq!(self.sql("nocobase", "select value from \"applicationVersion\""), version);
        for at in 0..NODES {
            assert!(self.current(at).ends_with(version), "{}", self.current(at).display());
            assert_eq!(status["nodes"][at]["code"], version, "{status}");
            let info = get_json(self.app_port(at), "/api/app:getInfo").unwrap_or_default();
            assert_eq!(info["data"]["version"], version, "node-{}", at + 1);
            wait("a node ready for users", 20, || head(self.agent_port(at), "/ready") == Some(200));
        }
    }

    /// Everything is as it was before an upgrade: version, users' rows, and no trace of a migration.
    pub(crate) fn is_back(&self, words: &str) {
        self.serves(VERSION);
        assert_eq!(self.words(), words, "what users have written");
        assert_eq!((self.tables("lab_half"), self.tables("lab_upgrades")), (0, 0), "tables of a migration");
        assert_eq!(self.sql("nocobase", "select count(*) from migrations where name like '%-lab-%'"), "0");
        assert_eq!(self.sql("nocobase", "select count(*) from \"systemSettings\""), "1");
    }

    /// One operation in full.
    pub(crate) fn operation(&self, id: &str) -> Value {
        self.cli.run(&["operation", "show", id, "-o", "json"]).expect(0).json()
    }

    /// The operation that was asked for last.
    pub(crate) fn last_operation(&self) -> Value {
        let list = self.cli.run(&["operation", "list", "--limit", "1", "-o", "json"]).expect(0).json();
        self.operation(list["operations"][0]["id"].as_str().expect("an operation has an id"))
    }

    /// Waits until an operation has ended.
    pub(crate) fn until_ended(&self, id: &str) -> Value {
        self.until("the end of the operation", 240, |_| self.operation(id)["ended"] == true);
        self.operation(id)
    }

    /// Names of the backups.
    pub(crate) fn backups(&self) -> Vec<String> {
        let list = self.cli.run(&["backup", "list", "-o", "json"]).expect(0).json();
        let list = list.as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|backup| backup["backup"].as_str().map(ToOwned::to_owned)).collect()
    }
}

/// Time of the first event after an index whose text begins like this, by the wall clock.
pub(crate) fn time(world: &World, from: u64, text: &str) -> u64 {
    let events = world.events();
    let mut later = events.iter().filter(|event| event["index"].as_u64().is_some_and(|index| index > from));
    let found = later.find(|event| event["text"].as_str().is_some_and(|found| found.starts_with(text)));
    let found = found.unwrap_or_else(|| panic!("no event \"{text}\" in {events:?}"));
    found["wall_ms"].as_u64().expect("events have a wall clock")
}

/// What a load balancer and a user saw of a node at one moment.
#[derive(Debug, Clone, Copy)]
struct Look {
    wall_ms: u64,
    /// The agent sends traffic there.
    ready: bool,
    /// The app itself would answer.
    healthy: bool,
}

/// A load balancer that looks at every node all the time.
pub(crate) struct Balancer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Look>>>,
}

/// What it saw.
pub(crate) struct Looks(Vec<Look>);

impl Balancer {
    pub(crate) fn start(world: &World) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..NODES).map(|at| {
            let (agent, app, stop) = (world.agent_port(at), world.app_port(at), Arc::clone(&stop));
            std::thread::spawn(move || look(agent, app, &stop))
        });
        Self { threads: threads.collect(), stop }
    }

    pub(crate) fn stop(self) -> Looks {
        self.stop.store(true, Ordering::Relaxed);
        let looks = self.threads.into_iter().map(|thread| thread.join().expect("a balancer ends well"));
        Looks(looks.flatten().collect())
    }
}

fn look(agent: u16, app: u16, stop: &AtomicBool) -> Vec<Look> {
    let mut looks = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let healthy = matches!(get(app, "/api/__health_check"), Some((200, _)));
        // Asked last: what is not ready now was not ready a moment ago, while the app was healthy.
        let wall_ms = wall_ms();
        looks.push(Look { wall_ms, ready: head(agent, "/ready") == Some(200), healthy });
        std::thread::sleep(Duration::from_millis(50));
    }
    looks
}

impl Looks {
    /// No node was given to users in this time, although one would have answered them.
    pub(crate) fn kept_out(&self, from_ms: u64, to_ms: u64) {
        let within: Vec<&Look> =
            self.0.iter().filter(|look| look.wall_ms > from_ms && look.wall_ms < to_ms).collect();
        let let_in: Vec<_> = within.iter().filter(|look| look.ready).collect();
        assert!(let_in.is_empty(), "users were let in between {from_ms} and {to_ms}: {let_in:?}");
        assert!(within.iter().any(|look| look.healthy), "no node would have answered: nothing was shown");
    }
}
