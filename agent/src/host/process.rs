//! One process as `/proc` shows it.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::{fs, io};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// Most bytes read of a command line; the kernel allows megabytes.
const CMDLINE_MAX: u64 = 64 * 1024;
/// Most bytes read of an environment; the kernel allows megabytes.
const ENVIRON_MAX: u64 = 4 * 1024 * 1024;

/// A process of the current boot: its id alone may be used again, id and start time together are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_time_ticks: u64,
}

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) id: ProcessId,
    pub(crate) parent: u32,
    state: u8,
}

impl Stat {
    /// Whether it can still execute anything.
    pub(crate) fn alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }
}

impl ProcessId {
    /// The process that has this id now, if any.
    pub fn of(pid: u32) -> Option<ProcessId> {
        stat(pid).map(|stat| stat.id)
    }

    /// The calling process.
    pub fn own() -> io::Result<ProcessId> {
        Self::of(std::process::id()).ok_or_else(|| io::Error::other("/proc does not show this process"))
    }

    /// Whether exactly this process lives (a zombie does not).
    pub fn alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.id == self && stat.alive())
    }

    /// A descriptor of exactly this process that becomes readable when it ends; `None` if it has ended.
    pub fn open(self) -> io::Result<Option<rustix::fd::OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // Looked at after opening: from then on the descriptor cannot mean another process.
            Ok(fd) => Ok(self.alive().then_some(fd)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a signal to exactly this process; `false` if it has ended.
    pub fn signal(self, signal: Signal) -> io::Result<bool> {
        let Some(fd) = self.open()? else { return Ok(false) };
        match pidfd_send_signal(fd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Ids of all processes that `/proc` lists now.
pub(crate) fn pids() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// State, parent and start time of a process; `None` if there is none.
pub(crate) fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name (field 2) may hold spaces and brackets: everything after the last bracket is regular.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(text.get(end + 1..)?).ok()?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let start_time_ticks = fields.nth(17)?.parse().ok()?;
    Some(Stat { id: ProcessId { pid, start_time_ticks }, parent, state })
}

/// The entries of a process's environment as it was at exec; `None` where it may not be read.
pub(crate) fn environ(pid: u32) -> Option<Vec<Vec<u8>>> {
    read_list(pid, "environ", ENVIRON_MAX)
}

/// A process's arguments; empty for kernel threads.
pub(crate) fn cmdline(pid: u32) -> Vec<String> {
    let list = read_list(pid, "cmdline", CMDLINE_MAX).unwrap_or_default();
    list.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
}

/// A process's working folder, where it may be read.
pub(crate) fn cwd(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// Name of the user that owns a process, or the user's number.
pub(crate) fn owner(pid: u32) -> String {
    let Ok(meta) = fs::metadata(format!("/proc/{pid}")) else { return "?".into() };
    let uid = meta.uid().to_string();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    named.unwrap_or(uid)
}

/// The value of `key` in an environment.
pub(crate) fn env_value<'a>(environ: &'a [Vec<u8>], key: &str) -> Option<&'a OsStr> {
    environ.iter().find_map(|entry| {
        let value = entry.strip_prefix(key.as_bytes())?.strip_prefix(b"=")?;
        Some(OsStr::from_bytes(value))
    })
}

fn read_list(pid: u32, file: &str, max: u64) -> Option<Vec<Vec<u8>>> {
    let mut bytes = Vec::new();
    fs::File::open(format!("/proc/{pid}/{file}")).ok()?.take(max).read_to_end(&mut bytes).ok()?;
    let list = bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty());
    Some(list.map(<[u8]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_itself_and_not_a_successor() {
        let own = ProcessId::own().unwrap();
        assert!(own.alive());
        let other = ProcessId { start_time_ticks: own.start_time_ticks + 1, ..own };
        assert!(!other.alive());
        assert!(!other.signal(Signal::KILL).unwrap(), "a later process with the same id is not touched");
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let begun = std::time::Instant::now();
        while ProcessId::of(child.id()).is_some_and(ProcessId::alive) {
            assert!(begun.elapsed().as_secs() < 5);
            std::thread::yield_now();
        }
        assert!(stat(child.id()).is_some(), "still listed until it is reaped");
        child.wait().unwrap();
    }

    #[test]
    fn owners_have_names() {
        assert!(!owner(std::process::id()).is_empty());
    }
}
