//! The keeper's life: start, wait, reap, answer, stop, end.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitOptions, WaitStatus};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use soloist_core::ids::{BootId, Launch};

use super::exec::{self, Refusal};
use super::files::{ExitHow, ExitInfo, KeeperFiles, LaunchFile, VERSION, unix_ms};
use super::log::AppLog;
use super::protocol::{Cmd, KeeperState, PIDS_MAX, PROTOCOL, Reply, Request};
use super::socket::Socket;
use super::stop::{Stop, everything};
use crate::host::{Host, ProcessId, scan_marked};

/// How often the log's size is looked at, and processes that escaped from the tree.
const TICK: Duration = Duration::from_secs(1);

/// Starts the app of `launch` and stays until nothing of it is left.
pub(super) fn keep(files: &KeeperFiles, launch: Launch, tell: fn(&super::Started)) -> Result<(), Refusal> {
    // Fails where the keeper leads a session already; that is as good.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| Refusal::io("adopt orphaned processes")(error.into()))?;
    let lock =
        files.keeper_lock().map_err(Refusal::io("take the keeper lock"))?.ok_or(Refusal::SecondKeeper)?;
    let plan = files.read_launch().map_err(Refusal::io("read the launch file"))?;
    let plan = plan.filter(|plan| plan.launch == launch).ok_or(Refusal::OtherLaunch(launch))?;
    if plan.v != VERSION {
        return Err(Refusal::Version(plan.v));
    }
    let boot = Host { boot_id: plan.boot_id_path.clone(), ..Host::default() }.boot_id()?;
    let signals = Signals::catch().map_err(Refusal::io("catch signals"))?;
    let socket = Socket::bind(files.folder()).map_err(Refusal::io("open the socket"))?;
    let log = AppLog::open(&files.log(), plan.log).map_err(Refusal::io("open the log"))?;
    let started = exec::exec(files, &plan, boot, &log)?;
    tell(&super::Started::Running { app: started.app });
    let mut keeper = Keeper {
        files,
        // The environment is not needed any more and may be large.
        plan: LaunchFile { env: Default::default(), ..plan },
        boot: started.boot,
        main: Some(started.app),
        childless: false,
        stop: None,
        log,
    };
    keeper.run(signals, socket);
    // Still under the lock, so it cannot be the next keeper's.
    let _ = std::fs::remove_file(files.folder().join(super::protocol::SOCKET));
    drop(lock);
    Ok(())
}

struct Keeper<'a> {
    files: &'a KeeperFiles,
    plan: LaunchFile,
    boot: BootId,
    /// The app's main process until it is reaped.
    main: Option<ProcessId>,
    /// No child is left. As everything orphaned becomes a child of this process, the whole tree is then empty.
    childless: bool,
    stop: Option<Stop>,
    log: AppLog,
}

impl Keeper<'_> {
    fn run(&mut self, mut signals: Signals, mut socket: Socket) {
        loop {
            self.reap();
            // A process that left the tree (it was adopted elsewhere) still carries the marker.
            if self.childless && scan_marked(&self.plan.marker()).is_ok_and(|left| left.is_empty()) {
                return;
            }
            if signals.terminated() {
                self.begin_stop(Duration::from_millis(self.plan.grace_ms), false);
            }
            self.go_on_stopping();
            // A full disk must not end the keeper; the next tick tries again.
            let _ = self.log.rotate();
            let sleep = self.stop.as_ref().map_or(TICK, |stop| stop.sleep().min(TICK));
            let mut fds: Vec<PollFd<'_>> = std::iter::once(signals.wake.as_fd())
                .chain(socket.fds())
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            let timeout =
                Timespec { tv_sec: sleep.as_secs().cast_signed(), tv_nsec: sleep.subsec_nanos().into() };
            if poll(&mut fds, Some(&timeout)).is_err() {
                // Interrupted by a signal, which is what the next round looks at; anything else must not spin.
                std::thread::sleep(Duration::from_millis(1));
            }
            drop(fds);
            signals.drain();
            socket.serve(|line| self.answer(line));
        }
    }

    /// Takes the exit status of everything that ended.
    fn reap(&mut self) {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let ended = pid.as_raw_nonzero().get().cast_unsigned();
                    if self.main.is_some_and(|main| main.pid == ended) {
                        self.main_ended(status);
                    }
                }
                Ok(None) => return,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    self.childless = true;
                    return;
                }
            }
        }
    }

    fn main_ended(&mut self, status: WaitStatus) {
        self.main = None;
        let how = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExitHow::Code(code),
            (None, Some(signal)) => ExitHow::Signal(signal),
            (None, None) => ExitHow::Unseen,
        };
        let exit = ExitInfo {
            v: VERSION,
            launch: self.plan.launch,
            boot: self.boot.clone(),
            how,
            asked: self.stop.is_some(),
            ended_unix_ms: unix_ms(),
        };
        // Without the file the end counts as unseen, which is the truth for the reader.
        let _ = self.files.write_exit(&exit);
    }

    fn everything(&self) -> Vec<ProcessId> {
        everything(std::process::id(), &self.plan.marker()).unwrap_or_default()
    }

    fn begin_stop(&mut self, grace: Duration, kill: bool) {
        match &mut self.stop {
            Some(stop) => stop.tighten(grace, kill),
            None => {
                let rest = if self.main.is_none() { self.everything() } else { Vec::new() };
                self.stop = Some(Stop::begin(self.main, &rest, grace, kill));
            }
        }
    }

    fn go_on_stopping(&mut self) {
        let Some(mut stop) = self.stop.take() else { return };
        if stop.step(self.main, || self.everything()) {
            self.stop = Some(stop);
        }
    }

    fn answer(&mut self, line: &[u8]) -> Vec<u8> {
        let error = match serde_json::from_slice::<Request>(line) {
            Ok(Request { v: PROTOCOL, cmd: Cmd::Status }) => None,
            Ok(Request { v: PROTOCOL, cmd: Cmd::Stop { grace_ms, kill } }) => {
                self.begin_stop(Duration::from_millis(grace_ms), kill);
                None
            }
            Ok(Request { v, .. }) => {
                Some(format!("protocol version {v} is not known, this keeper speaks {PROTOCOL}"))
            }
            Err(why) => Some(format!("not understood: {why}")),
        };
        let mut pids: Vec<u32> = self.everything().iter().map(|id| id.pid).collect();
        pids.truncate(PIDS_MAX);
        let state = match (&self.stop, self.main) {
            (Some(_), _) => KeeperState::Stopping,
            (None, Some(_)) => KeeperState::Running,
            (None, None) => KeeperState::Lingering,
        };
        let reply = Reply { v: PROTOCOL, launch: self.plan.launch, state, app: self.main, pids, error };
        serde_json::to_vec(&reply).unwrap_or_default()
    }
}

/// Signals as bytes in a socket pair, so that one `poll` waits for everything.
struct Signals {
    wake: UnixStream,
    terminate: Arc<AtomicBool>,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let (wake, signalled) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let terminate = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGTERM, Arc::clone(&terminate))?;
        for signal in [SIGTERM, SIGCHLD, SIGHUP, SIGINT] {
            // Caught, not ignored: an ignored signal would stay ignored in the app.
            signal_hook::low_level::pipe::register(signal, signalled.try_clone()?)?;
        }
        Ok(Self { wake, terminate })
    }

    fn terminated(&self) -> bool {
        self.terminate.swap(false, Ordering::AcqRel)
    }

    fn drain(&mut self) {
        let mut buffer = [0; 64];
        while matches!(self.wake.read(&mut buffer), Ok(n) if n > 0) {}
    }
}
