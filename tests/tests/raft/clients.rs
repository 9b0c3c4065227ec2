//! Agents that register and report, people who ask for operations and hold them, and readers: whoever proposes, to
//! whichever member says that it leads. After an unknown outcome they propose the same again.

use soloist_core::{
    Command, Rejection, Reply, State,
    assignment::{AppState, DatabaseFacts, Observed, Run, TaskResult},
    command::{Registration, Role, Submission},
    ids::{BootId, FleetId, Incarnation, MachineId, NodeId, OperationId, Version},
    operation::{HoldMode, Request, Status, Step},
    policy::Policy,
    state::Desired,
    time::Millis,
};

use crate::{chance::Chance, oracle::Oracle, wire};

/// How long a client waits for an answer, in milliseconds.
const PATIENCE: u64 = 700;

/// What a client does.
#[derive(Debug)]
enum Kind {
    Agent { fleet: FleetId, node: NodeId, runs: Vec<Incarnation>, sequence: u64, registered: bool },
    Person { fleet: FleetId, operation: Option<OperationId>, number: u64 },
    Reader,
}

/// What a client has asked and not heard of.
#[derive(Debug)]
struct Pending {
    call: u64,
    since: u64,
    /// `None` for a read.
    command: Option<Command>,
    /// The highest index that anybody had been told when it was asked.
    told: u64,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u64,
    kind: Kind,
    /// The member it asks next.
    at: u64,
    next: u64,
    pending: Option<Pending>,
    /// Asked once without an answer: to be asked again.
    again: Option<Command>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) all: Vec<Client>,
    /// The highest index that any of them was told.
    told: u64,
    /// Whether they only finish what they have begun.
    pub(crate) resting: bool,
    pub(crate) reads: u64,
    chance: Chance,
}

impl Clients {
    /// Two fleets with two agents and a person each, and a reader.
    pub(crate) fn new(mut chance: Chance) -> Clients {
        let fleet = |number: u64| FleetId::new(format!("fleet-{number}")).expect("a plain name");
        let node = |number: u64| NodeId::new(format!("node-{number}")).expect("a plain name");
        let agents = [(1, 1), (1, 2), (2, 1), (2, 2)].into_iter().map(|(of, number)| Kind::Agent {
            fleet: fleet(of),
            node: node(number),
            runs: Vec::new(),
            sequence: 0,
            registered: false,
        });
        let people = [1, 2].map(|of| Kind::Person { fleet: fleet(of), operation: None, number: 0 });
        let kinds = agents.chain(people).chain([Kind::Reader]);
        let all = kinds.zip(wire::CLIENTS..).map(|(kind, id)| Client {
            id,
            kind,
            at: chance.between(1, 3),
            next: chance.between(500, 1500),
            pending: None,
            again: None,
        });
        Clients { all: all.collect(), told: 0, resting: false, reads: 0, chance }
    }

    /// Whether nobody waits for anything.
    pub(crate) fn idle(&self) -> bool {
        self.all.iter().all(|client| client.pending.is_none() && client.again.is_none())
    }

    /// Has a person ask for something once more: whether the cluster still works.
    pub(crate) fn probe(&mut self) {
        let fleet = FleetId::new("fleet-probe").expect("a plain name");
        let node = NodeId::new("node-probe").expect("a plain name");
        if let Some(client) = self.all.last_mut() {
            client.again = Some(register(fleet, node, &[Incarnation(1)]));
        }
    }

    /// What each client does now: who asks whom.
    pub(crate) fn step(&mut self, now: u64, members: &[u64], state: &State, wire: &wire::Wire) {
        for client in &mut self.all {
            if client.pending.as_ref().is_some_and(|pending| now >= pending.since + PATIENCE) {
                let pending = client.pending.take();
                client.again = pending.and_then(|pending| pending.command);
                client.at = self.chance.pick(members).unwrap_or(client.at);
            }
            if client.pending.is_some() || now < client.next {
                continue;
            }
            let again = client.again.take();
            if again.is_none() && self.resting {
                continue;
            }
            client.next = now + self.chance.between(10, 150);
            let command = match again {
                Some(command) => Some(command),
                None => match client.compose(state, &mut self.chance) {
                    Some(command) => Some(command),
                    None if matches!(client.kind, Kind::Reader) => None,
                    None => continue,
                },
            };
            let request = command.clone().map_or(wire::Request::Read, wire::Request::Propose);
            let call = wire.ask_for_client(client.id, client.at, request);
            client.pending = Some(Pending { call, since: now, command, told: self.told });
        }
    }

    /// An answer has arrived.
    pub(crate) fn hear(
        &mut self,
        (to, call, answer): (u64, u64, wire::Answer),
        members: &[u64],
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        let Some(client) = self.all.iter_mut().find(|client| client.id == to) else { return Ok(()) };
        let Some(pending) = client.pending.take_if(|pending| pending.call == call) else { return Ok(()) };
        match (answer, pending.command) {
            (wire::Answer::Applied(applied), Some(command)) => {
                oracle.acknowledge(&command, applied.index, &applied.reply)?;
                self.told = self.told.max(applied.index);
                client.told(&applied.reply);
            }
            (wire::Answer::State(index), None) => {
                self.reads += 1;
                if index < pending.told {
                    let told = pending.told;
                    return Err(format!("a current read found entry {index}, after {told} was acknowledged"));
                }
                self.told = self.told.max(index);
            }
            (wire::Answer::NotLeader(leader), command) => {
                client.again = command;
                client.at = leader.or_else(|| self.chance.pick(members)).unwrap_or(client.at);
            }
            (_, command) => {
                client.again = command;
                client.at = self.chance.pick(members).unwrap_or(client.at);
            }
        }
        Ok(())
    }
}

impl Client {
    fn told(&mut self, reply: &Result<Reply, Rejection>) {
        if let Kind::Agent { registered, .. } = &mut self.kind {
            *registered = reply.is_ok();
        }
    }

    fn compose(&mut self, state: &State, chance: &mut Chance) -> Option<Command> {
        match &mut self.kind {
            Kind::Agent { fleet, node, runs, sequence, registered } => {
                let known = state.fleets.get(fleet).and_then(|fleet| fleet.nodes.get(node));
                let current = known.filter(|known| runs.last() == Some(&known.incarnation));
                if let Some(known) = current.filter(|_| *registered && !chance.permille(10)) {
                    *sequence += 1;
                    let observed = Box::new(observed(known));
                    let (fleet, node, incarnation) = (fleet.clone(), node.clone(), known.incarnation);
                    return Some(Command::Report { fleet, node, incarnation, sequence: *sequence, observed });
                }
                runs.push(Incarnation(chance.between(1, u64::MAX)));
                (*sequence, *registered) = (0, false);
                Some(register(fleet.clone(), node.clone(), runs))
            }
            Kind::Person { fleet, operation, number } => person(state, fleet, operation, number, chance),
            Kind::Reader => None,
        }
    }
}

fn register(fleet: FleetId, node: NodeId, runs: &[Incarnation]) -> Command {
    let seconds = Millis::from_secs;
    let policy = Policy {
        contact_timeout: seconds(3),
        pre_grant_timeout: seconds(20),
        confirm_timeout: seconds(3),
        accept_timeout: seconds(3),
        lease: seconds(3),
        restore_after: seconds(2),
        gather_timeout: seconds(2),
        start_timeout: seconds(5),
        stop_timeout: seconds(5),
        quiet_timeout: seconds(1),
        ..Policy::default()
    };
    let registration = Registration {
        incarnation: *runs.last().expect("there is a first run"),
        lineage: runs.iter().rev().take(4).copied().collect(),
        fresh: runs.len() == 1,
        machine: MachineId(node.to_string()),
        boot: BootId("boot".into()),
        address: String::new(),
        role: Role::App,
    };
    Command::Register { fleet, node, registration, policy, rival: false }
}

/// What an agent sees that has done at once what it was assigned.
fn observed(node: &soloist_core::state::Node) -> Observed {
    let spec = node.assignment.spec.clone();
    let app = match spec.run {
        Run::Stop => AppState::Stopped,
        Run::Plain | Run::Single | Run::Migrate(_) => AppState::Serving,
    };
    let version = Some(Version("1.0.0".into()));
    Observed {
        applied: node.assignment.generation,
        app,
        task: spec.task.map(|task| (task.key, task.phase, TaskResult::Done)),
        proved: spec.proof,
        code: version.clone(),
        database: Some(DatabaseFacts { identity: "db".into(), version, empty: false }),
        away: true,
        under_way: Some(Vec::new()),
        ..Observed::default()
    }
}

fn person(
    state: &State,
    fleet: &FleetId,
    operation: &mut Option<OperationId>,
    number: &mut u64,
    chance: &mut Chance,
) -> Option<Command> {
    let known = state.fleets.get(fleet)?;
    let name = fleet.clone();
    let (by, reason) = (|| "somebody".to_owned(), || "for a reason".to_owned());
    if chance.permille(10) {
        let length = chance.permille(500).then_some(Millis(500));
        return Some(Command::Freeze { fleet: name, length, by: by(), reason: reason() });
    }
    let own = operation.as_ref().and_then(|id| known.operation(id)).filter(|own| !own.status.ended());
    let Some(own) = own else {
        *number += 1;
        let id = OperationId::new(format!("operation-{number}")).expect("a plain name");
        *operation = Some(id.clone());
        let mode = if chance.permille(500) { HoldMode::Solo } else { HoldMode::AllStopped };
        let request = match known.desired {
            Desired::Stop => Request::Start { install: false, nodes: None },
            Desired::Run if chance.permille(900) => Request::Hold { mode, on: None },
            Desired::Run => Request::Stop,
        };
        let submission = Submission { by: by(), ..Submission::default() };
        return Some(Command::Submit { fleet: name, operation: id, request, submission });
    };
    let id = own.id.clone();
    if chance.permille(15) || matches!(own.status, Status::Blocked(_)) {
        return Some(Command::Abort { fleet: name, operation: id, by: by(), reason: reason() });
    }
    if matches!(own.status, Status::Confirming(_)) {
        return Some(Command::Confirm { fleet: name, operation: id });
    }
    let token = own.token.filter(|_| own.step() == Some(&Step::Released))?;
    if chance.permille(300) {
        return Some(Command::Release { fleet: name, operation: id, token, outcome: "done".into() });
    }
    Some(Command::Renew { fleet: name, operation: id, token })
}
