//! Breaks things on purpose, and mends them again.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, seq::IndexedRandom as _, seq::SliceRandom as _};
use rustix::process::Signal;

use super::disks::{Filler, Mount, SlowSync};
use super::record::wall_ms;
use super::scene::Scene;
use super::store;
use super::targets::{Clients, Pulse, Target, apps, keepers};

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
    /// A member gets little done, as with a slow disk: it stands still for most of the time.
    SlowMember,
    /// The syncs of a member's disk take long.
    SlowDisk,
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
    pub const ALL: [Fault; 31] = [
        Fault::KillMember,
        Fault::KillLeader,
        Fault::StopLeader,
        Fault::PauseMember,
        Fault::PauseLeader,
        Fault::SlowMember,
        Fault::SlowDisk,
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

/// How it is mended.
#[derive(Debug)]
enum Mend {
    Nothing,
    Members(Vec<usize>),
    Agent(usize),
    Continue(Vec<Target>),
    Quicken(Pulse),
    Sync(SlowSync),
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
                Mend::Continue(list) => list.iter().for_each(|target| target.signal(Signal::CONT)),
                Mend::Quicken(pulse) => drop(pulse),
                Mend::Sync(slow) => drop(slow),
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
        revive(scene);
    }

    fn busy(&self) -> bool {
        !self.broken.is_empty()
    }

    fn hit(&self, fault: Fault, scene: &mut Scene, rng: &mut SmallRng) -> Option<(String, Mend)> {
        let (members, nodes) = (scene.fleet.members.len(), scene.fleet.agents.len());
        let (m, n) = (rng.random_range(0..members), rng.random_range(0..nodes));
        let member = |at: usize| format!("m{}", at + 1);
        let node = |at: usize| format!("n{}", at + 1);
        match fault {
            Fault::KillMember | Fault::KillLeader => {
                let at = if fault == Fault::KillMember { m } else { scene.fleet.known_leader()? };
                scene.fleet.members[at].take()?.kill();
                Some((member(at), Mend::Members(vec![at])))
            }
            Fault::StopLeader => {
                let at = scene.fleet.known_leader()?;
                let mut daemon = scene.fleet.members[at].take()?;
                daemon.signal(Signal::TERM);
                // It may stand still by another fault.
                daemon.signal(Signal::CONT);
                let _ = daemon.wait(Duration::from_secs(30));
                Some((member(at), Mend::Members(vec![at])))
            }
            Fault::PauseMember | Fault::PauseLeader => {
                let at = if fault == Fault::PauseMember { m } else { scene.fleet.known_leader()? };
                let target = Target::of(scene.fleet.members[at].as_ref()?.pid())?;
                target.signal(Signal::STOP);
                Some((member(at), Mend::Continue(vec![target])))
            }
            Fault::SlowMember => {
                let target = Target::of(scene.fleet.members[m].as_ref()?.pid())?;
                Some((member(m), Mend::Quicken(Pulse::start(target))))
            }
            Fault::SlowDisk => {
                let pid = scene.fleet.members[m].as_ref()?.pid();
                let slow = SlowSync::new(pid, &scene.fleet.folder.join(format!("syncs-{pid}")))?;
                Some((member(m), Mend::Sync(slow)))
            }
            Fault::KillAgent => {
                scene.fleet.agents[n].take()?.kill();
                Some((node(n), Mend::Agent(n)))
            }
            Fault::PauseAgent => {
                let target = Target::of(scene.fleet.agents[n].as_ref()?.pid())?;
                target.signal(Signal::STOP);
                Some((node(n), Mend::Continue(vec![target])))
            }
            Fault::KillKeeper | Fault::PauseKeeper => {
                strike_all(fault == Fault::KillKeeper, keepers(scene, n), node(n))
            }
            Fault::KillApp | Fault::PauseApp => strike_all(fault == Fault::KillApp, apps(scene, n), node(n)),
            Fault::KillClient => {
                let target = self.clients.signal(Signal::KILL, rng.random_range(0..1000))?;
                Some((format!("pid {}", target.pid), Mend::Nothing))
            }
            Fault::PauseClient => {
                let target = self.clients.signal(Signal::STOP, rng.random_range(0..1000))?;
                Some((format!("pid {}", target.pid), Mend::Continue(vec![target])))
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
                let text = format!("{} / {}", one.join(" "), other.join(" "));
                Some(cut(scene, both(one, other), text))
            }
            Fault::CutLeaderFromMembers | Fault::MuteLeader | Fault::CutLeaderFromAgents => {
                let at = scene.fleet.known_leader()?;
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
                reboot(scene, n);
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
                let at = (scene.fleet.known_leader()? + 1) % members;
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

/// Switches a node's host off and on: everything of it is killed, and its boot id changes. Its agent is not started again.
pub fn reboot(scene: &mut Scene, at: usize) {
    // An agent would notice the end of its keeper, and a keeper that of its app.
    scene.fleet.agents[at] = None;
    keepers(scene, at).iter().for_each(|keeper| keeper.signal(Signal::KILL));
    scene.fleet.cut_power(at);
}

/// Starts members and agents that ended by themselves, as those do whose disk is full: their services would.
pub fn revive(scene: &mut Scene) {
    (0..scene.fleet.members.len()).for_each(|at| member_up(scene, at));
    (0..scene.fleet.agents.len()).for_each(|at| agent_up(scene, at));
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

fn strike_all(kill: bool, targets: Vec<Target>, what: String) -> Option<(String, Mend)> {
    if targets.is_empty() {
        return None;
    }
    let signal = if kill { Signal::KILL } else { Signal::STOP };
    targets.iter().for_each(|target| target.signal(signal));
    Some((what, if kill { Mend::Nothing } else { Mend::Continue(targets) }))
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
