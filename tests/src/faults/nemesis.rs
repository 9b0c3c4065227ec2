//! Breaks things on purpose, and mends them again.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, seq::IndexedRandom as _, seq::SliceRandom as _};
use rustix::process::{Pid, Signal, kill_process};

use super::disks::{Filler, Mount};
use super::record::wall_ms;
use super::scene::Scene;
use super::store;
use crate::harness::marked;

/// What can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A member is killed.
    KillMember,
    /// The leader is killed.
    KillLeader,
    /// The leader is told to stop, and hands over.
    StopLeader,
    /// A member stands still: its process, its disk, its state.
    PauseMember,
    /// The leader stands still, and goes on later as if nothing had been.
    PauseLeader,
    /// An agent is killed.
    KillAgent,
    /// An agent stands still.
    PauseAgent,
    /// An app keeper is killed.
    KillKeeper,
    /// An app keeper stands still.
    PauseKeeper,
    /// An app is killed.
    KillApp,
    /// An app stands still.
    PauseApp,
    /// A client is killed in the middle of what it asked for.
    KillClient,
    /// A client stands still.
    PauseClient,
    /// Two hosts do not hear each other.
    CutPair,
    /// One host does not hear another.
    CutOneWay,
    /// The hosts fall into two halves.
    CutHalves,
    /// The leader hears agents and clients, but no other member.
    CutLeaderFromMembers,
    /// The leader is not heard by the other members, but hears them.
    MuteLeader,
    /// The leader hears the members, but no agent.
    CutLeaderFromAgents,
    /// A node's host is switched off and on.
    Reboot,
    /// An agent's ledger is lost.
    LoseLedger,
    /// The disk of an agent is full.
    FillAgentDisk,
    /// The disk of a member is full.
    FillMemberDisk,
    /// The shared storage hangs.
    HangStorage,
    /// A member's store is shortened.
    TruncateStore,
    /// A bit of a member's store is another.
    FlipStore,
    /// A member's store is replaced by an older one.
    SwapStore,
    /// The database does not answer.
    DatabaseDown,
    /// The database is replaced by a copy that is a second older.
    DatabaseBack,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 29] = [
        Fault::KillMember,
        Fault::KillLeader,
        Fault::StopLeader,
        Fault::PauseMember,
        Fault::PauseLeader,
        Fault::KillAgent,
        Fault::PauseAgent,
        Fault::KillKeeper,
        Fault::PauseKeeper,
        Fault::KillApp,
        Fault::PauseApp,
        Fault::KillClient,
        Fault::PauseClient,
        Fault::CutPair,
        Fault::CutOneWay,
        Fault::CutHalves,
        Fault::CutLeaderFromMembers,
        Fault::MuteLeader,
        Fault::CutLeaderFromAgents,
        Fault::Reboot,
        Fault::LoseLedger,
        Fault::FillAgentDisk,
        Fault::FillMemberDisk,
        Fault::HangStorage,
        Fault::TruncateStore,
        Fault::FlipStore,
        Fault::SwapStore,
        Fault::DatabaseDown,
        Fault::DatabaseBack,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{self:?}");
        for (at, letter) in text.chars().enumerate() {
            if at > 0 && letter.is_uppercase() {
                f.write_str("-")?;
            }
            write!(f, "{}", letter.to_lowercase())?;
        }
        Ok(())
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
    fn signal(&self, signal: Signal, choice: usize) -> Option<u32> {
        let list = self.open();
        let pid = list.get(choice.checked_rem(list.len())?).copied()?;
        send(pid, signal);
        Some(pid)
    }
}

/// How it is mended.
#[derive(Debug)]
enum Mend {
    Nothing,
    Members(Vec<usize>),
    Agent(usize),
    Continue(Vec<u32>),
    Cuts(Vec<(String, String)>),
    Room(Filler, Option<usize>),
    Unmount(Mount),
    Remove(PathBuf),
}

/// One who breaks things.
#[derive(Debug)]
pub struct Nemesis {
    clients: Clients,
    broken: Vec<(Fault, String, u64, Mend)>,
}

/// SIGKILL and the like to a process that may be gone.
pub(super) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

impl Nemesis {
    /// One who also knows the clients.
    #[must_use]
    pub fn new(clients: Clients) -> Self {
        Self { clients, broken: Vec::new() }
    }

    /// Breaks something. `false` if there is nothing to be broken in this way.
    pub fn strike(&mut self, fault: Fault, scene: &mut Scene, rng: &mut SmallRng) -> bool {
        let from_ms = wall_ms();
        let done = self.hit(fault, scene, rng);
        if let Some((what, mend)) = done {
            self.broken.push((fault, what, from_ms, mend));
            return true;
        }
        false
    }

    /// Mends everything.
    pub fn mend(&mut self, scene: &mut Scene) {
        for (fault, what, from_ms, mend) in self.broken.drain(..) {
            match mend {
                Mend::Nothing => {}
                Mend::Members(list) => list.into_iter().for_each(|at| member_up(scene, at)),
                Mend::Agent(at) => agent_up(scene, at),
                Mend::Continue(pids) => pids.into_iter().for_each(|pid| send(pid, Signal::CONT)),
                Mend::Cuts(cuts) => cuts.iter().for_each(|(from, to)| scene.net().heal(from, to)),
                Mend::Room(filler, member) => {
                    drop(filler);
                    member.into_iter().for_each(|at| member_up(scene, at));
                }
                Mend::Unmount(mount) => drop(mount),
                Mend::Remove(file) => drop(std::fs::remove_file(file)),
            }
            scene.book.trouble(&fault.to_string(), &what, from_ms);
        }
        // Whoever ended by itself, as a member does whose disk was full, is started again as its service would.
        (0..scene.fleet.members.len()).for_each(|at| member_up(scene, at));
        (0..scene.fleet.agents.len()).for_each(|at| agent_up(scene, at));
    }

    fn busy(&self) -> bool {
        !self.broken.is_empty()
    }

    #[expect(clippy::too_many_lines, reason = "one line or two for each fault")]
    fn hit(&self, fault: Fault, scene: &mut Scene, rng: &mut SmallRng) -> Option<(String, Mend)> {
        let (members, nodes) = (scene.fleet.members.len(), scene.fleet.agents.len());
        let (m, n) = (rng.random_range(0..members), rng.random_range(0..nodes));
        let member = |at: usize| format!("m{}", at + 1);
        let node = |at: usize| format!("n{}", at + 1);
        match fault {
            Fault::KillMember | Fault::KillLeader => {
                let at = if fault == Fault::KillMember { m } else { leader(scene)? };
                scene.fleet.members[at].take()?.kill();
                Some((member(at), Mend::Members(vec![at])))
            }
            Fault::StopLeader => {
                let at = leader(scene)?;
                let mut daemon = scene.fleet.members[at].take()?;
                daemon.signal(Signal::TERM);
                let _ = daemon.wait(Duration::from_secs(30));
                Some((member(at), Mend::Members(vec![at])))
            }
            Fault::PauseMember | Fault::PauseLeader => {
                let at = if fault == Fault::PauseMember { m } else { leader(scene)? };
                let pid = scene.fleet.members[at].as_ref()?.pid();
                send(pid, Signal::STOP);
                Some((member(at), Mend::Continue(vec![pid])))
            }
            Fault::KillAgent => {
                scene.fleet.agents[n].take()?.kill();
                Some((node(n), Mend::Agent(n)))
            }
            Fault::PauseAgent => {
                let pid = scene.fleet.agents[n].as_ref()?.pid();
                send(pid, Signal::STOP);
                Some((node(n), Mend::Continue(vec![pid])))
            }
            Fault::KillKeeper | Fault::PauseKeeper => {
                let pids = keepers(scene, n);
                pid_fault(fault == Fault::KillKeeper, pids, node(n))
            }
            Fault::KillApp | Fault::PauseApp => {
                let pids = apps(scene, n);
                pid_fault(fault == Fault::KillApp, pids, node(n))
            }
            Fault::KillClient => {
                let pid = self.clients.signal(Signal::KILL, rng.random_range(0..1000))?;
                Some((format!("pid {pid}"), Mend::Nothing))
            }
            Fault::PauseClient => {
                let pid = self.clients.signal(Signal::STOP, rng.random_range(0..1000))?;
                Some((format!("pid {pid}"), Mend::Continue(vec![pid])))
            }
            Fault::CutPair | Fault::CutOneWay => {
                let hosts: Vec<String> = scene.net().hosts().map(str::to_owned).collect();
                let pair: Vec<&String> = hosts.choose_multiple(rng, 2).collect();
                let [one, other] = pair.as_slice() else { return None };
                let mut cuts = vec![((*one).clone(), (*other).clone())];
                if fault == Fault::CutPair {
                    cuts.push(((*other).clone(), (*one).clone()));
                }
                Some(cut(scene, cuts, format!("{one}, {other}")))
            }
            Fault::CutHalves => {
                let mut hosts: Vec<String> = scene.net().hosts().map(str::to_owned).collect();
                hosts.shuffle(rng);
                let (one, other) = hosts.split_at(hosts.len() / 2);
                let text = format!("{} | {}", one.join(" "), other.join(" "));
                Some(cut(scene, both(one, other), text))
            }
            Fault::CutLeaderFromMembers | Fault::MuteLeader | Fault::CutLeaderFromAgents => {
                let at = leader(scene)?;
                let others: Vec<String> = match fault {
                    Fault::CutLeaderFromAgents => (0..nodes).map(node).collect(),
                    _ => (0..members).filter(|other| *other != at).map(member).collect(),
                };
                let mut cuts = both(&[member(at)], &others);
                if fault == Fault::MuteLeader {
                    cuts.retain(|(from, _)| *from == member(at));
                }
                Some(cut(scene, cuts, member(at)))
            }
            Fault::Reboot => {
                scene.fleet.cut_power(n);
                Some((node(n), Mend::Agent(n)))
            }
            Fault::LoseLedger => {
                scene.fleet.agents[n].take()?.kill();
                empty(&scene.fleet.folder.join(format!("agent-{}", n + 1)));
                Some((node(n), Mend::Agent(n)))
            }
            Fault::FillAgentDisk => {
                let filler = Filler::new(&scene.fleet.folder.join(format!("agent-{}", n + 1)));
                Some((node(n), Mend::Room(filler, None)))
            }
            Fault::FillMemberDisk => {
                let filler = Filler::new(&scene.fleet.folder.join(format!("member-{}", m + 1)));
                Some((member(m), Mend::Room(filler, Some(m))))
            }
            Fault::HangStorage => {
                let mount = Mount::hanging(&scene.fleet.folder.join("storage"));
                Some(("storage".into(), Mend::Unmount(mount)))
            }
            Fault::TruncateStore | Fault::FlipStore | Fault::SwapStore => {
                // With one member gone for good, no other may be away.
                if self.busy() {
                    return None;
                }
                let at = (leader(scene)? + 1) % members;
                let how = match fault {
                    Fault::TruncateStore => store::Harm::Truncate,
                    Fault::FlipStore => store::Harm::Flip,
                    _ => store::Harm::Swap,
                };
                let refused = store::spoil(scene, at, how, rng);
                store::rejoin(scene, at);
                Some((format!("{}: {refused}", member(at)), Mend::Nothing))
            }
            Fault::DatabaseDown => {
                let file = scene.fleet.folder.join("database.json.down");
                std::fs::write(&file, "").expect("a file in a temporary folder can be written");
                Some(("database".into(), Mend::Remove(file)))
            }
            Fault::DatabaseBack => {
                let path = scene.fleet.folder.join("database.json");
                let older = path.with_extension("older");
                std::fs::copy(&path, &older).ok()?;
                std::thread::sleep(Duration::from_secs(1));
                std::fs::rename(older, path).ok()?;
                Some(("database".into(), Mend::Nothing))
            }
        }
    }
}

fn leader(scene: &Scene) -> Option<usize> {
    let status = scene.fleet.cli().status()?;
    let id = status["freshness"]["leader"].as_u64()?;
    store::place_of(scene, id)
}

/// Starts a member that does not run.
pub(super) fn member_up(scene: &mut Scene, at: usize) {
    let runs = scene.fleet.members[at].as_mut().is_some_and(crate::harness::Daemon::runs);
    if !runs {
        scene.fleet.start_member(at);
    }
}

fn agent_up(scene: &mut Scene, at: usize) {
    let runs = scene.fleet.agents[at].as_mut().is_some_and(crate::harness::Daemon::runs);
    if !runs {
        scene.fleet.start_agent(at);
    }
}

fn pid_fault(kill: bool, pids: Vec<u32>, what: String) -> Option<(String, Mend)> {
    if pids.is_empty() {
        return None;
    }
    let signal = if kill { Signal::KILL } else { Signal::STOP };
    pids.iter().for_each(|pid| send(*pid, signal));
    Some((what, if kill { Mend::Nothing } else { Mend::Continue(pids) }))
}

/// The argument vector of a process.
fn arguments(pid: u32) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The processes of a node's app.
#[must_use]
pub fn apps(scene: &Scene, at: usize) -> Vec<u32> {
    let is_app = |pid: &u32| soloist_demo::monitor::is_standin(&arguments(*pid));
    marked(&scene.fleet.marker(at)).into_iter().filter(is_app).collect()
}

/// The app keepers of a node: they are started with the agent's data folder.
#[must_use]
pub fn keepers(scene: &Scene, at: usize) -> Vec<u32> {
    let folder = scene.fleet.folder.join(format!("agent-{}", at + 1)).to_string_lossy().into_owned();
    let Ok(list) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = list.flatten().filter_map(|item| item.file_name().to_str()?.parse::<u32>().ok());
    let is_keeper = |pid: &u32| {
        let words = arguments(*pid);
        words.iter().any(|word| word == "keep") && words.iter().any(|word| word.starts_with(&folder))
    };
    pids.filter(is_keeper).collect()
}

fn both(one: &[String], other: &[String]) -> Vec<(String, String)> {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (a.clone(), b.clone())));
    pairs.flat_map(|(a, b)| [(a.clone(), b.clone()), (b, a)]).collect()
}

fn cut(scene: &Scene, cuts: Vec<(String, String)>, what: String) -> (String, Mend) {
    cuts.iter().for_each(|(from, to)| scene.net().cut(from, to));
    (what, Mend::Cuts(cuts))
}

/// Empties a folder that something is mounted at.
pub(super) fn empty(folder: &std::path::Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // What is in use stays for a moment, and does no harm.
        let _ = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
    }
}
