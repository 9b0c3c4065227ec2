//! What the model's state is made of: the real core state, and abstract hosts, clients and fences around it.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::Serialize;
use soloist_core::State;
use soloist_core::agent::Ledger;
use soloist_core::assignment::{Assignment, Observed, RunMode, Task, TaskKey};
use soloist_core::fence::{Covers, FenceOrder};
use soloist_core::ids::{BootId, FleetId, Generation, Incarnation, MachineId, NodeId, OperationId, Token};
use soloist_core::operation::Request;
use soloist_core::state::Fleet;
use soloist_core::time::{Millis, Time};

/// The one length of time: every timeout that passes at all is this long, and time moves by it.
pub(crate) const TICK: Millis = Millis(10_000);
/// The present, in every state of the model.
pub(crate) const NOW: Time = Time(1_000_000);
/// A timeout that never passes.
pub(crate) const NEVER: Millis = Millis(500_000);

/// How often each thing may still happen. Whatever is not named here may happen without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Left {
    /// Leader changes.
    pub(crate) promotes: u8,
    /// Apps that end by themselves.
    pub(crate) crashes: u8,
    /// Agents that start anew with their ledger.
    pub(crate) restarts: u8,
    /// Agents that start anew without it.
    pub(crate) ledgers: u8,
    /// Hosts that lose power.
    pub(crate) powers: u8,
    /// Hosts that are cut off.
    pub(crate) cuts: u8,
    /// Reports that are stuck on their way.
    pub(crate) delays: u8,
    /// Assignments that are stuck in a member that lags behind.
    pub(crate) lags: u8,
    /// Registrations whose answer is lost.
    pub(crate) unheard: u8,
    /// Ledgers that are copied to another machine.
    pub(crate) clones: u8,
    /// Aborts.
    pub(crate) aborts: u8,
    /// Attempts that a person begins.
    pub(crate) retries: u8,
    /// Times that the lock is taken away.
    pub(crate) forces: u8,
    /// Holders that die while their work goes on.
    pub(crate) vanishes: u8,
    /// Fences that a person asks for.
    pub(crate) fences: u8,
    /// Calls of fences that arrive once more.
    pub(crate) repeats: u8,
    /// Processes that a person starts by hand.
    pub(crate) foreign: u8,
    /// Starts that the fleet makes by itself.
    pub(crate) autos: u8,
}

/// What truly is in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Database {
    /// Nothing.
    Empty,
    /// Some tables: an install has begun and not ended.
    Half,
    /// An installed app.
    Installed,
}

/// A promise that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Wrong {
    /// Somebody who is not named by the exclusive operation can reach what it changes.
    Solo,
    /// Two machines run the app of one node.
    Twice,
    /// A right to migrate was used twice, without intent, or beside another app.
    Migrate,
    /// A second node was started before the first served.
    First,
    /// A token was granted after an equal or a higher one.
    Token,
    /// A grant beside a foreign process that was reported.
    Foreign,
    /// A lease was lost before its length had passed.
    Lease,
    /// The lock went from a holder that was lost or works to nobody.
    Freed,
    /// A second attempt of a task began while the first may have an effect.
    Attempt,
    /// A machine that took over was told to run while its predecessor may.
    Successor,
    /// An invariant of the core.
    Invariant,
}

impl Wrong {
    /// All of them with the name of the property that excludes them.
    pub(crate) const ALL: [(Wrong, &'static str); 11] = [
        (Wrong::Solo, "an exclusive step is alone with the data"),
        (Wrong::Twice, "one node's app runs on one machine"),
        (Wrong::Migrate, "a right to migrate is used once, as asked for, and alone"),
        (Wrong::First, "the first node serves before the second starts"),
        (Wrong::Token, "tokens rise"),
        (Wrong::Foreign, "no grant beside a process that nobody knows"),
        (Wrong::Lease, "a lease lasts its length"),
        (Wrong::Freed, "a lost lease frees nothing"),
        (Wrong::Attempt, "an attempt begins when the last one has ended"),
        (Wrong::Successor, "a successor runs nothing while its predecessor may"),
        (Wrong::Invariant, "the core's invariants"),
    ];
}

/// An app process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct App {
    pub(crate) mode: RunMode,
    pub(crate) serves: bool,
    pub(crate) stopping: bool,
}

/// One run of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Run {
    pub(crate) incarnation: Incarnation,
    pub(crate) registered: bool,
    pub(crate) sequence: u64,
    pub(crate) checked: Option<TaskKey>,
    /// Fence orders that it knows to be carried out.
    pub(crate) acted: Vec<FenceOrder>,
}

/// A report on its way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Late {
    pub(crate) incarnation: Incarnation,
    pub(crate) sequence: u64,
    pub(crate) observed: Observed,
}

/// One machine with what runs there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Host {
    /// The node that it is, as a place among the names.
    pub(crate) node: usize,
    pub(crate) up: bool,
    pub(crate) boot: u8,
    /// How many runs of its agent there were.
    pub(crate) runs: u8,
    pub(crate) cut: bool,
    pub(crate) ledger: Ledger,
    pub(crate) run: Option<Run>,
    /// A keeper that has not executed its app yet.
    pub(crate) keeper: Option<RunMode>,
    pub(crate) app: Option<App>,
    /// Whether the last app ended by itself.
    pub(crate) ended: bool,
    pub(crate) foreign: bool,
    pub(crate) child: Option<Task>,
    pub(crate) late: Option<Late>,
    /// An assignment in a member that lags behind.
    pub(crate) lagged: Option<Assignment>,
}

impl Host {
    pub(crate) fn new(node: usize) -> Self {
        Self {
            node,
            up: false,
            boot: 0,
            runs: 0,
            cut: false,
            ledger: Ledger::default(),
            run: None,
            keeper: None,
            app: None,
            ended: false,
            foreign: false,
            child: None,
            late: None,
            lagged: None,
        }
    }

    /// Whether the agent can talk with the coordinators.
    pub(crate) fn connected(&self) -> bool {
        self.up && !self.cut && self.run.is_some()
    }
}

/// How far the client of an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Client {
    /// It has not asked yet.
    Before,
    /// It waits.
    Asked,
    /// It works under the token.
    Works(Token),
    /// Its work goes on without it.
    Orphan(Token),
    /// Its work is done, and nobody knows.
    Done(Token),
    /// Its work is done, and nobody will tell.
    Gone,
    /// The operation has ended, and succeeded or not.
    Ended(bool),
}

impl Client {
    /// The token of work that is under way.
    pub(crate) fn work(self) -> Option<Token> {
        match self {
            Client::Works(token) | Client::Orphan(token) => Some(token),
            Client::Before | Client::Asked | Client::Done(_) | Client::Gone | Client::Ended(_) => None,
        }
    }
}

/// One node's way into the database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Door {
    pub(crate) last: Option<Generation>,
    pub(crate) locked: bool,
    /// Whether sessions that were open when it was locked go on.
    pub(crate) inside: bool,
}

/// A call of a fence on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Call {
    pub(crate) carrier: usize,
    pub(crate) run: Incarnation,
    pub(crate) order: FenceOrder,
}

/// A state of the model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct World {
    #[serde(skip)]
    pub(crate) core: Arc<State>,
    /// The index of the next entry.
    pub(crate) next: u64,
    /// When the leader has heard each node.
    pub(crate) heard: Vec<Option<Time>>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) clients: Vec<Client>,
    pub(crate) doors: Vec<Door>,
    pub(crate) calls: Vec<Call>,
    pub(crate) database: Database,
    /// The last token that was granted.
    pub(crate) granted: Token,
    /// The rights that were used.
    pub(crate) rights: Vec<u64>,
    /// Whether an app has served since the beginning.
    pub(crate) served: bool,
    /// Whether time has passed since the last renewal or promotion.
    pub(crate) passed: bool,
    /// Nodes whose newest report that arrived named a foreign process.
    pub(crate) told: Vec<bool>,
    pub(crate) left: Left,
    pub(crate) wrong: Option<Wrong>,
}

impl Eq for World {}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = Vec::with_capacity(4096);
        rmp_serde::encode::write(&mut bytes, &*self.core).expect("plain data");
        rmp_serde::encode::write(&mut bytes, self).expect("plain data");
        state.write(&bytes);
    }
}

impl World {
    pub(crate) fn fleet(&self) -> Option<&Fleet> {
        self.core.fleets.get(&fleet())
    }

    /// Whether somebody of this machine could reach the database.
    pub(crate) fn shut_out(&self, host: &Host) -> bool {
        let door = &self.doors[host.node];
        door.locked && !door.inside
    }
}

/// The fleet.
pub(crate) fn fleet() -> FleetId {
    FleetId::new("main").expect("a plain name")
}

/// A node by its place.
pub(crate) fn name(node: usize) -> NodeId {
    NodeId::new(format!("n{node}")).expect("a plain name")
}

/// The place of a node.
pub(crate) fn place(name: &NodeId) -> usize {
    name.as_str()[1..].parse().expect("the model gave it")
}

/// An operation by its place.
pub(crate) fn operation(at: usize) -> OperationId {
    OperationId::new(format!("op{at}")).expect("a plain name")
}

/// A machine by its place among the hosts.
pub(crate) fn machine(at: usize) -> MachineId {
    MachineId(format!("m{at}"))
}

/// The boot of a machine.
pub(crate) fn boot(at: usize, boot: u8) -> BootId {
    BootId(format!("m{at}b{boot}"))
}

/// What a model is about: how big it is, what is asked for, and what may go wrong.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) name: &'static str,
    pub(crate) nodes: usize,
    pub(crate) operations: Vec<Request>,
    /// Whether the fleet runs at the beginning; else nobody has registered and the database is empty.
    pub(crate) runs: bool,
    pub(crate) left: Left,
    /// Whether deadlines of steps and of grants pass.
    pub(crate) overdue: bool,
    /// Whether an agent that accepts an assignment acts on it before anything else happens.
    pub(crate) eager: bool,
    /// What fences cover.
    pub(crate) covers: Vec<Covers>,
    /// Whether a person says of a machine that is off that it is off.
    pub(crate) assumes: bool,
    /// The host on which holders work.
    pub(crate) holders_on: usize,
    /// What must be possible.
    pub(crate) reached: Vec<crate::Reached>,
}
