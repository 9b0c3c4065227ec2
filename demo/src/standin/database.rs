//! The JSON file that plays the fleet's shared database.
//!
//! A change is read, made and written under one file lock (`FILE.lock`), and lands by rename: a reader never sees half of it,
//! and a process killed in between leaves the old content. A file `FILE.down` makes every access fail, as a database
//! server that is down would.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::procfs;

/// How long an access waits for the others. A process stopped while it holds the lock must not hang the rest for ever.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// How often a waiting access tries again.
const LOCK_RETRY: Duration = Duration::from_millis(2);
/// The oldest entries of a list go when it grows beyond this: a loop of restarts must not fill the disk.
const MAX_ROWS: usize = 1000;

/// Everything in the database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Content {
    /// Made when the database is; a dropped and recreated database has another.
    pub identity: String,
    /// The version that installed or last upgraded it; `None` until an install is through.
    pub version: Option<String>,
    /// The singleton row of the system's settings. More than one row is damage.
    pub system_settings: Vec<SettingsRow>,
    /// Plugins by short name.
    pub plugins: BTreeMap<String, PluginRow>,
    /// Finished steps of installs and upgrades, oldest first.
    pub migrations: Vec<String>,
    /// The processes that are connected, plus entries of processes that were killed.
    pub processes: Vec<ProcessRow>,
    /// What went wrong, in words, oldest first. Empty as long as everything was sequenced.
    pub damage: Vec<String>,
}

/// One row of the system's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsRow {
    /// The number of the row.
    pub id: u64,
    /// The node that wrote it.
    pub by: String,
}

/// One plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PluginRow {
    /// The full name, such as `@nocobase/plugin-map`.
    pub package_name: String,
    /// Whether nodes load it when they start.
    pub enabled: bool,
}

/// One connected process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessRow {
    /// Its process id.
    pub pid: u32,
    /// Its start time in clock ticks since boot.
    pub start_ticks: u64,
    /// The node that it runs for.
    pub node: String,
    /// Whether it installs or upgrades right now.
    pub migrating: bool,
}

impl ProcessRow {
    /// This process.
    pub(super) fn own(node: &str) -> anyhow::Result<Self> {
        let pid = std::process::id();
        let stat = procfs::stat(pid).context("cannot read this process's entry in /proc")?;
        Ok(Self { pid, start_ticks: stat.start_ticks, node: node.to_owned(), migrating: false })
    }

    fn is(&self, other: &Self) -> bool {
        // The node counts too, so that tests can play several nodes within one process.
        self.pid == other.pid && self.start_ticks == other.start_ticks && self.node == other.node
    }
}

impl Content {
    /// Whether nothing was ever installed. A half install is not empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.version.is_none() && self.migrations.is_empty() && self.plugins.is_empty()
    }

    /// The short names of the enabled plugins.
    #[must_use]
    pub fn enabled(&self) -> Vec<String> {
        self.plugins.iter().filter(|(_, row)| row.enabled).map(|(name, _)| name.clone()).collect()
    }

    /// Registers `own` (or changes its entry), drops entries of dead processes, and writes down what must not be.
    pub(super) fn register(&mut self, own: &ProcessRow) -> Vec<String> {
        self.processes.retain(|row| !row.is(own) && procfs::runs(row.pid, row.start_ticks));
        let mut found = Vec::new();
        for other in &self.processes {
            let (a, b) =
                (format!("{} (pid {})", own.node, own.pid), format!("{} (pid {})", other.node, other.pid));
            match (own.migrating, other.migrating) {
                (true, true) => found.push(format!("{a} and {b} install or upgrade at the same time")),
                (true, false) => found.push(format!("{a} installs or upgrades while {b} runs")),
                (false, true) => found.push(format!("{a} runs while {b} installs or upgrades")),
                (false, false) => {}
            }
        }
        self.processes.push(own.clone());
        // The same overlap is met again at every step: once is enough.
        found.retain(|text| !self.damage.iter().any(|known| known.ends_with(text.as_str())));
        self.add_damage(&found)
    }

    /// Writes damage down with the time, and returns the lines as written.
    pub(super) fn add_damage(&mut self, texts: &[String]) -> Vec<String> {
        let lines: Vec<String> = texts.iter().map(|text| format!("{}: {text}", unix_seconds())).collect();
        self.damage.extend(lines.iter().cloned());
        lines
    }

    /// Drops the entry of a process that ends in an orderly way.
    pub(super) fn unregister(&mut self, own: &ProcessRow) {
        self.processes.retain(|row| !row.is(own));
    }

    fn trim(&mut self) {
        trim(&mut self.migrations);
        trim(&mut self.damage);
        trim(&mut self.processes);
        trim(&mut self.system_settings);
    }
}

fn trim<T>(rows: &mut Vec<T>) {
    let surplus = rows.len().saturating_sub(MAX_ROWS);
    rows.drain(..surplus);
}

/// A handle on the database file.
#[derive(Debug, Clone)]
pub struct Database {
    path: PathBuf,
}

impl Database {
    /// A handle; nothing is touched yet. A missing file is an empty database.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Reads everything. The first access to a missing file makes it, because even an empty database has an identity.
    ///
    /// # Errors
    /// When the database is "down", cannot be read, or is not what this module writes.
    pub fn read(&self) -> anyhow::Result<Content> {
        self.check_up()?;
        match self.load()? {
            Some(content) => Ok(content),
            None => self.update(|content| content.clone()),
        }
    }

    /// Changes the content under the lock.
    ///
    /// # Errors
    /// As for [`Database::read`], and when the lock is not free within ten seconds.
    pub fn update<T>(&self, change: impl FnOnce(&mut Content) -> T) -> anyhow::Result<T> {
        self.check_up()?;
        let _lock = self.lock()?;
        let mut content = self.load()?.unwrap_or_default();
        if content.identity.is_empty() {
            content.identity = new_identity()?;
        }
        let known_damage = content.damage.len();
        let result = change(&mut content);
        self.log_damage(content.damage.get(known_damage..).unwrap_or_default())?;
        content.trim();
        let temporary = self.beside(".new");
        fs::write(&temporary, serde_json::to_vec_pretty(&content)?)
            .with_context(|| format!("cannot write {}", temporary.display()))?;
        fs::rename(&temporary, &self.path)
            .with_context(|| format!("cannot replace {}", self.path.display()))?;
        Ok(result)
    }

    /// All damage there ever was: from a log beside the file (`FILE.damage`), so that restoring an older copy of the database
    /// does not hide it.
    ///
    /// # Errors
    /// When the log exists but cannot be read.
    pub fn damage(&self) -> anyhow::Result<Vec<String>> {
        match fs::read_to_string(self.beside(".damage")) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).context("cannot read the damage log"),
        }
    }

    fn log_damage(&self, lines: &[String]) -> anyhow::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut log = OpenOptions::new().create(true).append(true).open(self.beside(".damage"))?;
        for line in lines {
            writeln!(log, "{line}")?;
        }
        Ok(())
    }

    fn load(&self) -> anyhow::Result<Option<Content>> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.path.display())),
        };
        let content = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is not a database of the stand-in", self.path.display()))?;
        Ok(Some(content))
    }

    fn check_up(&self) -> anyhow::Result<()> {
        if self.beside(".down").exists() {
            bail!("the database is down ({} exists)", self.beside(".down").display());
        }
        Ok(())
    }

    fn lock(&self) -> anyhow::Result<File> {
        let path = self.beside(".lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_RETRY),
                Err(TryLockError::WouldBlock) => {
                    bail!("the database is busy: {} stays locked", path.display())
                }
                Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the database"),
            }
        }
    }

    /// `FILE.lock`, `FILE.new` and the like.
    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.file_name().map_or_else(OsString::new, OsString::from);
        name.push(ending);
        self.path.parent().unwrap_or_else(|| Path::new(".")).join(name)
    }
}

/// The kernel makes random ids; no crate is needed for one per database.
fn new_identity() -> anyhow::Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid").context("cannot make an identity")?;
    Ok(id.trim().to_owned())
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
