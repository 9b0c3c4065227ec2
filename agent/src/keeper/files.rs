//! The files by which agent and keeper know of each other. They outlive both, so each carries a version, and a
//! reader ignores fields that it does not know.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use soloist_core::ids::{BootId, Generation, Launch};

use crate::host::{Marker, ProcessId, durable, lock};
use crate::ledger::LedgerFile;

/// Version of all files here.
pub(crate) const VERSION: u32 = 1;
/// How long a keeper or an agent waits for the exec lock. It is held for one scan, two small writes and one exec.
pub const EXEC_PATIENCE: Duration = Duration::from_secs(10);
/// How long a new keeper waits for the one before it, which ends right after its app.
const KEEPER_PATIENCE: Duration = Duration::from_secs(2);
/// Largest file that is read, in bytes: a launch file holds an environment.
const FILE_MAX: u64 = 8 * 1024 * 1024;

/// Bounds of the app's log: `app.log`, `app.log.1`, … `app.log.<keep>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBounds {
    /// A file of this size is rotated away, in bytes.
    pub max_bytes: u64,
    /// How many old files are kept, at least one.
    pub keep: u32,
}

impl Default for LogBounds {
    fn default() -> Self {
        Self { max_bytes: 8 * 1024 * 1024, keep: 1 }
    }
}

/// What a keeper is to start; written by the agent, readable by its user only, removed by the keeper.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchFile {
    /// File version.
    pub v: u32,
    /// The launch, as in the ledger's ticket.
    pub launch: Launch,
    /// Generation of the assignment that asked for it, for the records.
    #[serde(default)]
    pub generation: Option<Generation>,
    /// Value of the node's marker; it is also in `env`.
    pub marker: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The complete environment.
    pub env: BTreeMap<String, String>,
    /// Working folder.
    pub cwd: PathBuf,
    /// Time between SIGTERM and what follows, when the keeper itself is told to end, in milliseconds.
    pub grace_ms: u64,
    /// Bounds of the log.
    #[serde(default)]
    pub log: LogBounds,
    /// File with the boot id.
    pub boot_id_path: PathBuf,
}

impl std::fmt::Debug for LaunchFile {
    // The environment holds passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaunchFile")
            .field("launch", &self.launch)
            .field("argv", &self.argv)
            .finish_non_exhaustive()
    }
}

/// Which app a keeper runs; written before and again after its exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperRecord {
    /// File version.
    pub v: u32,
    /// The launch that is used up by this record.
    pub launch: Launch,
    /// Generation of the assignment that asked for it.
    #[serde(default)]
    pub generation: Option<Generation>,
    /// The boot in which the processes live.
    pub boot: BootId,
    /// The keeper.
    pub keeper: ProcessId,
    /// The app's main process; `None` between the two writes.
    #[serde(default)]
    pub app: Option<ProcessId>,
    /// Wall clock at exec, in milliseconds since 1970.
    pub started_unix_ms: u64,
}

/// How an app ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitHow {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody saw it: its keeper was gone, or the host went down.
    Unseen,
}

impl std::fmt::Display for ExitHow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ExitHow::Code(code) => write!(f, "exit status {code}"),
            ExitHow::Signal(signal) => write!(f, "signal {signal}"),
            ExitHow::Unseen => f.write_str("unknown exit status (nobody saw it end)"),
        }
    }
}

/// The end of an app's main process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitInfo {
    /// File version.
    pub v: u32,
    /// The launch that ended.
    pub launch: Launch,
    /// The boot in which it ran.
    pub boot: BootId,
    /// How.
    pub how: ExitHow,
    /// Whether a stop had been asked for.
    #[serde(default)]
    pub asked: bool,
    /// Wall clock, in milliseconds since 1970; 0 if nobody saw it.
    #[serde(default)]
    pub ended_unix_ms: u64,
}

/// A refused launch, for people.
#[derive(Serialize)]
struct Refusal<'a> {
    v: u32,
    launch: Launch,
    reason: &'a str,
    at_unix_ms: u64,
}

/// The names of the files in a node's data folder.
#[derive(Debug, Clone)]
pub struct KeeperFiles {
    folder: PathBuf,
}

impl KeeperFiles {
    /// The files in this folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The ledger.
    pub fn ledger(&self) -> PathBuf {
        LedgerFile::path_in(&self.folder)
    }

    /// The app's current log file.
    pub fn log(&self) -> PathBuf {
        self.folder.join("app.log")
    }

    /// Takes the node's exec lock: while it is held, no keeper starts the app.
    pub fn exec_lock(&self) -> io::Result<lock::Held> {
        lock::take(&self.folder.join("exec.lock"), EXEC_PATIENCE)
    }

    /// Takes the lock that a keeper holds for its life; `None` if another keeper stays.
    pub(crate) fn keeper_lock(&self) -> io::Result<Option<lock::Held>> {
        match lock::take(&self.folder.join("keeper.lock"), KEEPER_PATIENCE) {
            Ok(held) => Ok(Some(held)),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes what the next keeper is to start.
    pub fn write_launch(&self, launch: &LaunchFile) -> io::Result<()> {
        self.write("launch.json", launch)
    }

    /// What a keeper is to start.
    pub(crate) fn read_launch(&self) -> io::Result<Option<LaunchFile>> {
        self.read("launch.json")
    }

    /// Removes the launch file, which holds secrets and is used up.
    pub(crate) fn remove_launch(&self) -> io::Result<()> {
        std::fs::remove_file(self.folder.join("launch.json"))
    }

    /// The last record of a keeper.
    pub fn read_keeper(&self) -> io::Result<Option<KeeperRecord>> {
        self.read("keeper.json")
    }

    pub(crate) fn write_keeper(&self, record: &KeeperRecord) -> io::Result<()> {
        self.write("keeper.json", record)
    }

    /// How the app ended last.
    pub fn read_exit(&self) -> io::Result<Option<ExitInfo>> {
        self.read("exit.json")
    }

    pub(crate) fn write_exit(&self, exit: &ExitInfo) -> io::Result<()> {
        self.write("exit.json", exit)
    }

    pub(crate) fn write_refusal(&self, launch: Launch, reason: &str) -> io::Result<()> {
        self.write("refused.json", &Refusal { v: VERSION, launch, reason, at_unix_ms: unix_ms() })
    }

    fn write(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        durable::write(&self.folder.join(name), &serde_json::to_vec(value)?)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        use std::io::Read;
        let path = self.folder.join(name);
        let mut bytes = Vec::new();
        match std::fs::File::open(&path) {
            Ok(file) => file.take(FILE_MAX).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|why| {
            let text = format!(
                "{} is damaged ({why}); move it away once no process of the app runs",
                path.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }
}

impl LaunchFile {
    /// The node's marker.
    pub(crate) fn marker(&self) -> Marker {
        Marker::from_value(self.marker.clone())
    }
}

/// The wall clock for records that people read; nothing is decided by it.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_newer_keepers_are_understood() {
        let temp = tempfile::tempdir().unwrap();
        let files = KeeperFiles::new(temp.path().into());
        assert!(files.read_keeper().unwrap().is_none());
        let text = r#"{"v":1,"launch":5,"boot":"b","keeper":{"pid":1,"start_time_ticks":2},"started_unix_ms":3,"new":4}"#;
        std::fs::write(temp.path().join("keeper.json"), text).unwrap();
        let record = files.read_keeper().unwrap().unwrap();
        assert_eq!((record.launch, record.app, record.generation), (Launch(5), None, None));
        std::fs::write(temp.path().join("exit.json"), "{").unwrap();
        assert!(files.read_exit().unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn secrets_do_not_show() {
        let launch = LaunchFile {
            v: VERSION,
            launch: Launch(1),
            generation: None,
            marker: "f/n".into(),
            argv: vec!["app".into()],
            env: [("DB_PASSWORD".to_owned(), "hush".to_owned())].into(),
            cwd: "/".into(),
            grace_ms: 1,
            log: LogBounds::default(),
            boot_id_path: "/".into(),
        };
        assert!(!format!("{launch:?}").contains("hush"));
    }
}
