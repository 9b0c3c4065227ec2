//! Lines of the app's log about executions and async tasks.
//!
//! The log may be rotated while it is read: what is left of the old file is then read from its copy, `app.log.1`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use soloist_core::ids::Launch;

/// Most bytes that are read of one file at once; a file is rotated far below.
const READ_MAX: u64 = 64 * 1024 * 1024;
/// Longest line that is looked at.
const LINE_MAX: usize = 64 * 1024;
/// Most executions and tasks that are remembered.
const IDS_MAX: usize = 200_000;

/// What a log has said since the app's launch, and how far it was read.
#[derive(Debug)]
pub struct WorkLog {
    path: PathBuf,
    mark: String,
    /// Whether the app's settings make it write such lines.
    speaks: bool,
    at: u64,
    /// The old file as it was when it was looked at last.
    old: Option<(u64, SystemTime)>,
    begun: bool,
    /// The beginning of a line.
    rest: Vec<u8>,
    /// Whether the line of the launch was seen.
    whole: bool,
    /// Executions: whether each is open.
    executions: BTreeMap<String, bool>,
    tasks: BTreeSet<String>,
}

/// The line that a keeper writes before it executes the app.
pub(crate) fn mark(launch: Launch) -> String {
    format!("soloist: launch {launch}")
}

impl WorkLog {
    /// A log of which nothing was read yet; `speaks` says whether the app's settings make it write such lines.
    pub fn new(path: &Path, launch: Launch, speaks: bool) -> Self {
        Self {
            path: path.to_owned(),
            mark: mark(launch),
            speaks,
            at: 0,
            old: None,
            begun: false,
            rest: Vec::new(),
            whole: false,
            executions: BTreeMap::new(),
            tasks: BTreeSet::new(),
        }
    }

    /// Reads what is new. Blocks.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(&mut self) -> io::Result<()> {
        let old_path = PathBuf::from(format!("{}.1", self.path.display()));
        let old = std::fs::metadata(&old_path).ok();
        let old = old.and_then(|meta| Some((meta.len(), meta.modified().ok()?)));
        let length = match std::fs::metadata(&self.path) {
            Ok(meta) => meta.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let rotated = self.begun && (length < self.at || old != self.old);
        if (!self.begun || rotated) && old.is_some() {
            self.take(&old_path, self.at)?;
            self.at = 0;
        }
        if rotated {
            self.at = 0;
        }
        (self.old, self.begun) = (old, true);
        if length > self.at {
            self.at = self.take(&self.path.clone(), self.at)?;
        }
        Ok(())
    }

    /// Reads a file from a place on; gives how far it came.
    fn take(&mut self, path: &Path, from: u64) -> io::Result<u64> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = std::mem::take(&mut self.rest);
        let read = file.take(READ_MAX).read_to_end(&mut bytes)?;
        let mut lines = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(line) = lines.next() {
            if lines.peek().is_none() {
                self.rest = line.get(..line.len().min(LINE_MAX)).unwrap_or_default().to_vec();
            } else {
                self.line(line);
            }
        }
        Ok(from + read as u64)
    }

    fn line(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line.get(..line.len().min(LINE_MAX)).unwrap_or_default());
        if line.ends_with(&self.mark) {
            self.whole = true;
            self.executions.clear();
            self.tasks.clear();
        }
        if self.executions.len() + self.tasks.len() >= IDS_MAX {
            self.whole = false;
            return;
        }
        if let Some((id, what)) = execution(&line) {
            let begins = ["starting", "resuming", "rerunning"].iter().any(|word| what.starts_with(word));
            let ends = what.starts_with("finished with status") || what.starts_with("error:");
            let open = self.executions.entry(id.to_owned()).or_insert(false);
            *open = begins || (*open && !ends);
        }
        self.tasks.extend(task(&line).map(str::to_owned));
    }

    /// Whether it tells what began here and what did not.
    pub(super) fn tells(&self) -> bool {
        self.speaks && self.whole
    }

    /// Whether an execution is open; `None` if nothing is said of it.
    pub(super) fn execution(&self, id: &str) -> Option<bool> {
        self.executions.get(id).copied()
    }

    /// Whether a task was made here.
    pub(super) fn made(&self, id: &str) -> bool {
        self.tasks.contains(id)
    }

    /// A log with this text.
    #[cfg(test)]
    pub(super) fn of(text: &str, launch: u64, speaks: bool) -> Self {
        let mut log = Self::new(Path::new("/nowhere"), Launch(launch), speaks);
        text.lines().for_each(|line| log.line(line.as_bytes()));
        log
    }
}

/// An execution's id, and what a line says of it.
fn execution(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once("execution (")?;
    let (id, what) = rest.split_once(')')?;
    let number = !id.is_empty() && id.len() <= 20 && id.bytes().all(|byte| byte.is_ascii_digit());
    number.then_some((id, what.trim_start()))
}

/// The id of an async task that begins here.
fn task(line: &str) -> Option<&str> {
    let says = ["New task of type: ", "Creating worker for task "].iter().find_map(|what| {
        let (_, rest) = line.split_once(what)?;
        Some(rest.split_once(" created as ").map_or(rest, |(_, id)| id))
    })?;
    let id = says.get(..36)?;
    let hex = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    id.bytes().enumerate().all(hex).then_some(id)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn lines_in_each_format() {
        let console = "\u{1b}[32m2026-11-23 13:40:01 [info]  execution (399333756829697) starting...   \u{1b}[39m reqId=1";
        assert_eq!(execution(console).unwrap().0, "399333756829697");
        let json = r#"{"level":"info","message":"execution (12) finished with status: 1","workflowId":3}"#;
        assert!(execution(json).unwrap().1.starts_with("finished with status: 1"));
        assert_eq!(execution("execution (x) starting"), None);
        assert_eq!(execution("execution (12"), None);
        let id = "0d9f3a52-4a2e-4d0c-9a7c-0123456789ab";
        assert_eq!(task(&format!("message=New task of type: export created as {id} module=x")), Some(id));
        assert_eq!(task(&format!("Creating worker for task {id} - path: /x")), Some(id));
        assert_eq!(task("Creating worker for task 12"), None);
    }

    #[test]
    fn open_until_it_ends() {
        let log = |text| WorkLog::of(text, 1, true).execution("5");
        assert_eq!(log("execution (5) starting..."), Some(true));
        assert_eq!(log("execution (5) starting...\nexecution (5) run instruction [sql] for"), Some(true));
        assert_eq!(log("execution (5) starting...\nexecution (5) finished with status: 0"), Some(false));
        assert_eq!(log("execution (5) starting...\nexecution (5) error: boom"), Some(false));
        assert_eq!(log("execution (5) finished with status: 0\nexecution (5) resuming..."), Some(true));
        assert_eq!(log("execution (5) starting...\nsoloist: launch 1"), None, "of an earlier launch");
    }

    #[test]
    fn read_on_over_a_rotation() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("app.log");
        let write = |path: &Path, text: &str| {
            let mut file = File::options().create(true).append(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        let mut log = WorkLog::new(&path, Launch(7), true);
        log.read().unwrap();
        assert!(!log.tells(), "there is no file yet");
        write(
            &path,
            "execution (1) starting...\nsoloist: launch 7\nexecution (2) starting...\nexecution (3) sta",
        );
        log.read().unwrap();
        assert!(log.tells());
        assert_eq!((log.execution("1"), log.execution("2"), log.execution("3")), (None, Some(true), None));
        write(&path, "rting...\nexecution (2) finished with status: 1\nexecution (4) starting...\n");
        std::fs::rename(&path, temp.path().join("app.log.1")).unwrap();
        write(&path, "execution (4) finished with status: 1\n");
        log.read().unwrap();
        assert_eq!(log.execution("2"), Some(false));
        assert_eq!((log.execution("3"), log.execution("4")), (Some(true), Some(false)));
        log.read().unwrap();
        assert!(log.tells());
        // A reader that begins now finds the same in both files.
        let mut other = WorkLog::new(&path, Launch(7), true);
        other.read().unwrap();
        assert_eq!((&other.executions, other.tells()), (&log.executions, true));
    }
}
