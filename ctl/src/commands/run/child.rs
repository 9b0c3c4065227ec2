//! The command's processes.
//!
//! They are known in three ways: the child itself, its process group, and the marker that `run` puts into the environment. A
//! process that leaves the group (a daemon) still carries the marker; one that hides both is not found.

use std::{
    collections::HashSet, ffi::OsString, fs, io, os::unix::process::ExitStatusExt as _, path::PathBuf,
    process::ExitStatus, time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::{process, time::Instant};

use crate::error::{CtlError, Kind, Result, signal_code};

/// Between SIGTERM and SIGKILL, at most.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// After SIGKILL, processes are gone within moments, unless the kernel holds them.
const KILLED: Duration = Duration::from_secs(3);
/// Between two looks at what still runs: there is nothing to wait on for processes that are not children.
const LOOK: Duration = Duration::from_millis(40);

/// A command that can be started.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    program: PathBuf,
    name: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    /// Whether it gets a process group of its own.
    group: bool,
}

impl Command {
    pub(super) fn new(program: PathBuf, name: OsString, arguments: Vec<OsString>) -> Command {
        // A process group of its own would be in the background of a terminal, and could not read from it.
        let group = !io::IsTerminal::is_terminal(&io::stdin());
        Command { program, name, arguments, environment: Vec::new(), group }
    }

    /// Puts a variable into the environment, over what is there.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts it.
    pub(super) fn spawn(&self) -> Result<Child> {
        let mut command = process::Command::new(&self.program);
        command.as_std_mut().args(&self.arguments);
        std::os::unix::process::CommandExt::arg0(command.as_std_mut(), &self.name);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if self.group {
            command.process_group(0);
        }
        let child = command.spawn().map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::NotFound => Kind::NotFound,
                _ => Kind::NotExecutable,
            };
            CtlError::new(kind, format!("{} cannot be started: {error}", self.program.display()))
        })?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let markers = ["SOLOIST_OPERATION", "SOLOIST_FENCING_TOKEN"];
        let marker = self.environment.iter().filter(|(name, _)| markers.contains(&name.as_str()));
        let marker = marker.map(|(name, value)| format!("{name}={value}").into_bytes()).collect();
        Ok(Child { child, pid, group: self.group, marker })
    }
}

/// A command that runs.
#[derive(Debug)]
pub(super) struct Child {
    child: process::Child,
    /// `None` if it had ended before it could be asked.
    pid: Option<Pid>,
    group: bool,
    /// Entries of the environment that only its processes have; empty for a command under somebody else's lock.
    marker: Vec<Vec<u8>>,
}

impl Child {
    /// Waits for its end. Cancel-safe.
    pub(super) async fn wait(&mut self) -> Result<ExitStatus> {
        self.child
            .wait()
            .await
            .map_err(|error| CtlError::failed(format!("cannot wait for the command: {error}")))
    }

    /// Passes a signal on.
    pub(super) fn forward(&self, signal: i32) {
        // Without a group of its own, the terminal has sent its interrupt to the command as well.
        let interrupt = signal == Signal::INT.as_raw();
        if let Some(signal) = Signal::from_named_raw(signal).filter(|_| self.group || !interrupt) {
            self.signal(signal);
        }
    }

    fn signal(&self, signal: Signal) {
        // Who is gone already needs no signal.
        match self.pid {
            Some(pid) if self.group => drop(kill_process_group(pid, signal)),
            // Its id belongs to it until it was waited for.
            Some(pid) if self.child.id().is_some() => drop(kill_process(pid, signal)),
            _ => {}
        }
    }

    /// Its processes that still run.
    fn alive(&mut self) -> Vec<Pid> {
        // Takes a dead child off the process table.
        let _ = self.child.try_wait();
        let group = self.pid.filter(|_| self.group).map(|pid| pid.as_raw_nonzero().get());
        processes(|pid, seen| {
            Some(seen.group) == group || self.child.id() == Some(pid) || carries(pid, &self.marker)
        })
    }

    /// Stops whatever of it still runs: SIGTERM, then SIGKILL after the grace. `true` once all of it is gone.
    pub(super) async fn stop(&mut self, grace: Duration) -> bool {
        for (signal, patience) in [(Signal::TERM, grace), (Signal::KILL, KILLED)] {
            let deadline = Instant::now() + patience;
            let mut told: HashSet<Pid> = HashSet::new();
            loop {
                let alive = self.alive();
                if alive.is_empty() {
                    return true;
                }
                // Once each; what was forked in the meantime as well.
                for pid in alive.into_iter().filter(|pid| told.insert(*pid)) {
                    let _ = kill_process(pid, signal);
                }
                if Instant::now() >= deadline {
                    break;
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        false
    }

    /// Whether the command has left processes behind.
    pub(super) fn left_over(&mut self) -> bool {
        !self.alive().is_empty()
    }
}

/// The exit code that says how a command ended.
pub(super) fn code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
        (None, Some(signal)) => signal_code(signal),
        (None, None) => u8::MAX,
    }
}

/// How a command ended, in words.
pub(super) fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// What is read of a process.
struct Seen {
    group: i32,
}

/// Live processes that are wanted. A dead one that nobody takes off the process table is not alive.
fn processes(wanted: impl Fn(u32, &Seen) -> bool) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let live = pids.filter(|pid| look(*pid).is_some_and(|seen| wanted(*pid, &seen)));
    live.filter_map(|pid| i32::try_from(pid).ok().and_then(Pid::from_raw)).collect()
}

fn look(pid: u32) -> Option<Seen> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the bracket may hold anything. Then: state, parent, group.
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    let dead = matches!(fields.next()?, "Z" | "X");
    let group = fields.nth(1)?.parse().ok()?;
    (!dead).then_some(Seen { group })
}

/// Whether a process's environment has all these entries.
fn carries(pid: u32, marker: &[Vec<u8>]) -> bool {
    if marker.is_empty() {
        return false;
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    marker.iter().all(|wanted| environment.split(|byte| *byte == 0).any(|entry| entry == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, tag: &str) -> Command {
        let arguments = ["-c", script].map(OsString::from).to_vec();
        let mut command = Command::new("/bin/sh".into(), "sh".into(), arguments);
        command.group = true;
        command.set("SOLOIST_OPERATION", tag);
        command.set("SOLOIST_FENCING_TOKEN", "1");
        command
    }

    /// Waits until the command has written something there.
    async fn written(path: &std::path::Path) {
        let wait = async {
            while fs::metadata(path).unwrap().len() == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap();
    }

    fn tag(name: &str) -> String {
        format!("test-{name}-{}", std::process::id())
    }

    #[tokio::test]
    async fn the_status_is_passed_on() {
        let mut child = sh("exit 7", &tag("status")).spawn().unwrap();
        assert_eq!(code(child.wait().await.unwrap()), 7);
        let mut child = sh("kill -9 $$", &tag("kill")).spawn().unwrap();
        let status = child.wait().await.unwrap();
        assert_eq!((code(status), words(status).as_str()), (137, "ended by signal 9"));
    }

    #[tokio::test]
    async fn the_environment_is_set_last() {
        let tag = tag("environment");
        let script = format!("test \"$SOLOIST_OPERATION\" = {tag} && test \"$SOLOIST_FENCING_TOKEN\" = 1");
        let mut child = sh(&script, &tag).spawn().unwrap();
        assert_eq!(code(child.wait().await.unwrap()), 0);
    }

    #[tokio::test]
    async fn signals_reach_the_whole_group() {
        let ready = tempfile::NamedTempFile::new().unwrap();
        let at = ready.path().display();
        // Not SIGINT: whoever runs this in the background may have it ignored, and a shell cannot change that.
        let script = format!("trap 'exit 42' TERM; sleep 60 & echo ready > {at}; wait; wait; wait");
        let mut child = sh(&script, &tag("signal")).spawn().unwrap();
        written(ready.path()).await;
        child.forward(15);
        let status = tokio::time::timeout(GRACE, child.wait()).await.unwrap().unwrap();
        assert_eq!(code(status), 42);
        assert!(child.stop(Duration::from_millis(500)).await);
    }

    #[tokio::test]
    async fn what_left_the_group_is_found_and_stopped() {
        let tag = tag("left");
        let ready = tempfile::NamedTempFile::new().unwrap();
        let at = ready.path().display();
        let inner = format!("trap \"\" TERM; echo ready > {at}; sleep 60; sleep 60");
        let wait = format!("until [ -s {at} ]; do sleep 0.02; done; exit 3");
        let script = format!("setsid sh -c '{inner}' >/dev/null 2>&1 & {wait}");
        let mut child = sh(&script, &tag).spawn().unwrap();
        assert_eq!(code(child.wait().await.unwrap()), 3);
        assert!(child.left_over());
        assert!(child.stop(Duration::from_millis(300)).await);
        let marker = [format!("SOLOIST_OPERATION={tag}").into_bytes()];
        assert!(processes(|pid, _| carries(pid, &marker)).is_empty());
    }
}
