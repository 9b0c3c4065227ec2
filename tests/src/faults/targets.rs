//! Whom something is done to: processes of a scene, held so that no other one is ever hit.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::scene::Scene;
use crate::harness::marked;

/// How long a slow member stands still, and runs, in turn.
const HALT: Duration = Duration::from_millis(180);
const RUN: Duration = Duration::from_millis(40);

/// One process, and never another that was given its id later.
#[derive(Debug)]
pub struct Target {
    /// Its process id.
    pub pid: u32,
    handle: OwnedFd,
}

impl Target {
    /// The process that has this id now.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        Some(Self { pid, handle: pidfd_open(number, PidfdFlags::empty()).ok()? })
    }

    /// Signals it, if it still runs.
    pub fn signal(&self, signal: Signal) {
        // It may have ended by itself.
        let _ = pidfd_send_signal(&self.handle, signal);
    }
}

/// Processes of clients that work now.
#[derive(Debug, Clone, Default)]
pub struct Clients(Arc<Mutex<Vec<u32>>>);

impl Clients {
    fn open(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One begins.
    pub fn begins(&self, pid: u32) {
        self.open().push(pid);
    }

    /// It has ended. Called before its id may be given to another process.
    pub fn ends(&self, pid: u32) {
        self.open().retain(|known| *known != pid);
    }

    /// Signals one of them, under the lock, so that it is still the same process.
    pub(super) fn signal(&self, signal: Signal, choice: usize) -> Option<Target> {
        let list = self.open();
        let target = Target::of(*list.get(choice.checked_rem(list.len())?)?)?;
        target.signal(signal);
        Some(target)
    }
}

/// Stops a process most of the time, until it is dropped.
#[derive(Debug)]
pub(super) struct Pulse {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pulse {
    pub(super) fn start(target: Target) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                target.signal(Signal::STOP);
                std::thread::sleep(HALT);
                target.signal(Signal::CONT);
                std::thread::sleep(RUN);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The argument vector of a process.
fn arguments(pid: u32) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The processes of a node's app.
#[must_use]
pub fn apps(scene: &Scene, at: usize) -> Vec<Target> {
    let is_app = |pid: &u32| soloist_demo::monitor::is_standin(&arguments(*pid));
    marked(&scene.fleet.marker(at)).into_iter().filter(is_app).filter_map(Target::of).collect()
}

/// The app keepers of a node: they are started with the agent's data folder.
#[must_use]
pub fn keepers(scene: &Scene, at: usize) -> Vec<Target> {
    let folder = scene.fleet.folder.join(format!("agent-{}", at + 1)).to_string_lossy().into_owned();
    let Ok(list) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = list.flatten().filter_map(|item| item.file_name().to_str()?.parse::<u32>().ok());
    let is_keeper = |pid: &u32| {
        let words = arguments(*pid);
        words.iter().any(|word| word == "keep") && words.iter().any(|word| word.starts_with(&folder))
    };
    pids.filter(is_keeper).filter_map(Target::of).collect()
}
