//! One node: its host, its agent with the ledger, its keepers, and the apps that run there.

use std::collections::BTreeMap;

use soloist_core::agent::{AppSeen, ByHand, Checked, Facts, Hand, Health, Ledger, Seen};
use soloist_core::assignment::{
    DatabaseFacts, DbSession, Foreign, Observed, Proof, RunMode, Task, TaskKey, TaskResult,
};
use soloist_core::command::Role;
use soloist_core::fence::{Covers, Fences};
use soloist_core::ids::{
    BackupId, BootId, Generation, Incarnation, Launch, MachineId, NodeId, OperationId, Token, Version,
};

use super::app::{App, Database, Phase, Starter};

/// A keeper that has not executed its app yet.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    pub(crate) launch: Launch,
    pub(crate) mode: RunMode,
    pub(crate) processes: u32,
    pub(crate) generation: Generation,
    pub(crate) exec_at: u64,
}

/// What an agent does in the background.
#[derive(Debug, Clone)]
pub(crate) struct Busy {
    pub(crate) task: Task,
    pub(crate) until: u64,
    pub(crate) recovers: bool,
}

/// A child of an agent that makes, restores or removes a backup. It outlives its agent, and ends with the host.
#[derive(Debug, Clone)]
pub(crate) struct Child {
    pub(crate) task: Task,
    pub(crate) until: u64,
    pub(crate) fails: bool,
    /// The database when it began: that is what a backup holds.
    pub(crate) copy: Database,
}

/// What a load balancer truly does with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    In,
    Draining(u64),
    Out,
}

/// One node, or a load balancer.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: NodeId,
    pub(crate) role: Role,
    pub(crate) machine: MachineId,
    pub(crate) up: bool,
    /// Until then it stays off once it is.
    pub(crate) off_until: u64,
    pub(crate) boot: u64,
    pub(crate) code: &'static str,
    // On disk.
    pub(crate) ledger: Ledger,
    /// In how many processes its app runs when it runs plainly.
    pub(crate) processes: u32,
    /// Versions of the code that lie ready on its disk.
    pub(crate) releases: Vec<&'static str>,
    /// The operation whose packages lie on its disk; none if they are those of before.
    pub(crate) packages: Option<OperationId>,
    /// Backups, with their age.
    pub(crate) backups: BTreeMap<BackupId, (u64, Database)>,
    // The agent's process.
    pub(crate) agent_up: bool,
    pub(crate) incarnation: Incarnation,
    pub(crate) registered: bool,
    /// Whether a coordinator answers it.
    pub(crate) answered: bool,
    /// The boot in which somebody has started the app by hand.
    pub(crate) by_hand: Option<BootId>,
    pub(crate) session: Option<usize>,
    pub(crate) session_since: u64,
    pub(crate) sequence: u64,
    pub(crate) last: Option<Observed>,
    pub(crate) acked: u64,
    pub(crate) facts: Option<(Generation, u64, Facts)>,
    /// Whether its app had not loaded what the database says when that was read.
    pub(crate) stale: bool,
    pub(crate) busy: Option<Busy>,
    pub(crate) checked: Option<Checked>,
    pub(crate) proved: Option<Proof>,
    pub(crate) restart_at: u64,
    pub(crate) next_step: u64,
    // Its children.
    pub(crate) keepers: Vec<Keeper>,
    pub(crate) apps: Vec<App>,
    pub(crate) child: Option<Child>,
    /// How the last app of the keeper ended, unless it was asked to.
    pub(crate) ended: Option<String>,
    /// Tokens of holders' processes, with their end.
    pub(crate) holders: Vec<(Token, u64)>,
    /// Foreign processes and holders as the last scan saw them.
    pub(crate) scanned: (Vec<Foreign>, Vec<Token>),
    pub(crate) next_scan: u64,
    /// Until then nothing reaches its agent, although what it sends arrives: a link that is cut one way.
    pub(crate) deaf_until: u64,
    /// Since when its agent keeps users away.
    pub(crate) held_since: Option<u64>,
    /// Since when its agent is asked what is under way, and what it found when it looked last.
    pub(crate) asked: Option<(u64, Option<Vec<String>>)>,
    /// The fences that its agent has to do with.
    pub(crate) fences: Fences,
    /// Fence orders that this run of its agent knows to be carried out.
    pub(crate) acted: BTreeMap<(NodeId, Covers), Generation>,
    /// Fence orders that this run of its agent has called for, and when.
    pub(crate) called: BTreeMap<(NodeId, Covers), (Generation, u64)>,
    /// Whether the database lets nobody of it in, and nobody of it is left inside.
    pub(crate) locked_out: bool,
    /// Until then nothing reaches it, and nothing of it reaches anybody but the database.
    pub(crate) away_until: u64,
    /// Of a load balancer: what it does with each node, and whether a reload has made it forget what its agent said.
    pub(crate) lanes: BTreeMap<NodeId, (Lane, bool)>,
}

/// How long a request takes at most, in milliseconds.
const REQUEST: u64 = 600;

fn session(pid: u32) -> DbSession {
    DbSession { pid, role: "nocobase".into(), client: "10.0.0.9".into(), application: String::new() }
}

impl Host {
    /// A check has ended.
    pub(crate) fn has_checked(&mut self, key: TaskKey, result: TaskResult, found: &[(&str, &str)]) {
        let found = found.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.checked = Some(Checked { key, result, output: found.collect() });
    }

    pub(crate) fn new(name: NodeId, role: Role) -> Self {
        Self {
            role,
            machine: MachineId(format!("machine-of-{name}")),
            name,
            up: true,
            off_until: 0,
            boot: 1,
            code: super::app::VERSION,
            ledger: Ledger::default(),
            processes: 1,
            releases: vec![super::app::VERSION, super::app::NEXT_VERSION],
            packages: None,
            backups: BTreeMap::new(),
            agent_up: false,
            incarnation: Incarnation(0),
            registered: false,
            answered: false,
            by_hand: None,
            session: None,
            session_since: 0,
            sequence: 0,
            last: None,
            acked: 0,
            facts: None,
            stale: false,
            busy: None,
            checked: None,
            proved: None,
            restart_at: 0,
            next_step: 0,
            keepers: Vec::new(),
            apps: Vec::new(),
            child: None,
            ended: None,
            holders: Vec::new(),
            scanned: (Vec::new(), Vec::new()),
            next_scan: 0,
            deaf_until: 0,
            held_since: None,
            asked: None,
            fences: Fences::default(),
            acted: BTreeMap::new(),
            called: BTreeMap::new(),
            locked_out: false,
            away_until: 0,
            lanes: BTreeMap::new(),
        }
    }

    pub(crate) fn boot_id(&self) -> BootId {
        BootId(format!("{}-boot-{}", self.name, self.boot))
    }

    /// The app that a keeper runs.
    pub(crate) fn own(&self) -> Option<&App> {
        self.apps.iter().find(|app| matches!(app.starter, Starter::Keeper(_)))
    }

    /// Whether its agent says that users may come.
    pub(crate) fn ready(&self) -> bool {
        let assignment = self.ledger.assignment.as_ref().filter(|_| self.agent_up);
        assignment.is_some_and(|assignment| !assignment.spec.hold)
    }

    /// What runs inside the app by itself at this moment.
    pub(crate) fn work(&self, now: u64) -> Vec<String> {
        let until =
            self.own().and_then(|app| app.work).filter(|(since, until)| *since <= now && now < *until);
        until.map(|(since, _)| format!("workflow \"Import\" (execution {since})")).into_iter().collect()
    }

    /// Whether its agent is asked what is under way.
    pub(crate) fn is_asked(&self) -> bool {
        self.ledger.assignment.as_ref().is_some_and(|assignment| assignment.spec.quiet)
    }

    /// Whether nothing runs here or is about to.
    pub(crate) fn idle(&self) -> bool {
        self.apps.is_empty() && self.keepers.is_empty()
    }

    pub(crate) fn own_mut(&mut self) -> Option<&mut App> {
        self.apps.iter_mut().find(|app| matches!(app.starter, Starter::Keeper(_)))
    }

    /// Reads code, storage and database anew.
    pub(crate) fn read_facts(&mut self, database: &Database, now: u64) {
        let generation =
            self.ledger.assignment.as_ref().map_or(Generation(0), |assignment| assignment.generation);
        let facts = Facts {
            code: Some(Version(self.code.to_owned())),
            processes: Some(self.processes),
            database: (!self.locked_out).then(|| DatabaseFacts {
                identity: "cluster/noco".into(),
                version: database.version.clone().map(Version),
                empty: !database.tables,
            }),
            sessions: database.strangers.iter().map(|(pid, _)| session(*pid)).collect(),
            upgrading: false,
            problem: None,
        };
        self.facts = Some((generation, now, facts));
        self.stale = self.is_stale(database);
    }

    /// Whether its app serves and has not loaded what the database says.
    pub(crate) fn is_stale(&self, database: &Database) -> bool {
        let differs = |app: &App| app.phase == Phase::Serving && app.plugins != database.plugins;
        !self.locked_out && self.own().is_some_and(differs)
    }

    /// Whether its app serves as one process that was not meant to stay so.
    pub(crate) fn left_single(&self) -> bool {
        self.processes > 1 && self.own().is_some_and(|app| app.phase == Phase::Serving && !app.plain)
    }

    /// Looks at the process table.
    pub(crate) fn scan(&mut self) {
        let person = |app: &&App| app.starter == Starter::Person;
        let foreign = self.apps.iter().filter(person).map(|app| Foreign {
            pid: app.pid,
            owner: "admin".into(),
            command: "node app start".into(),
        });
        let holders = self.holders.iter().map(|(token, _)| *token);
        self.scanned = (foreign.collect(), holders.collect());
    }

    /// What the agent sees, as its decisions read it.
    pub(crate) fn seen(&self, now: u64) -> Seen {
        let generation =
            self.ledger.assignment.as_ref().map_or(Generation(0), |assignment| assignment.generation);
        let facts =
            self.facts.as_ref().filter(|(read, ..)| *read == generation).map(|(_, _, facts)| facts.clone());
        let app = match self.own() {
            Some(app) if app.stops_at.is_some() => AppSeen::Stopping,
            Some(app) => AppSeen::Running {
                launched: app.launched,
                health: match &app.phase {
                    Phase::Starting(_) | Phase::Migrating(..) => Health::Starting,
                    Phase::Serving => Health::Serving,
                    Phase::Failed(why) => Health::Failed(why.clone()),
                },
            },
            None => {
                let waits = |keeper: &Keeper| self.ledger.may_exec(keeper.launch, &self.boot_id());
                match &self.ended {
                    _ if self.keepers.iter().any(waits) => AppSeen::Launching,
                    Some(how) => AppSeen::Ended(how.clone()),
                    None => AppSeen::Gone,
                }
            }
        };
        Seen {
            boot: self.boot_id(),
            app,
            facts,
            foreign: self.scanned.0.clone(),
            holders: self.scanned.1.clone(),
            busy: self.busy.as_ref().map(|busy| busy.task.clone()),
            checked: self.checked.clone(),
            proved: self.proved.clone(),
            unproved: None,
            stale: if self.stale { vec!["what is loaded differs".into()] } else { Vec::new() },
            registered: self.answered,
            by_hand: self.by_hand.clone().map(|boot| ByHand {
                hand: Hand::Start,
                text: "started by hand".into(),
                boot,
            }),
            let_in: None,
            away: self.held_since.is_some_and(|since| now >= since + REQUEST),
            under_way: self.asked.as_ref().and_then(|(_, found)| found.clone()),
            fences: self.fences.clone(),
            may_restart: now >= self.restart_at,
        }
    }
}
