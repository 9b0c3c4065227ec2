//! The world's clockwork.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use soloist_core::agent::{Action, accept, observe, reconcile, restart_delay};
use soloist_core::assignment::{Assignment, Observed, RunMode, TaskPhase, TaskResult};
use soloist_core::command::{FEATURE_LEVEL, Registration, Submission};
use soloist_core::condition;
use soloist_core::due::{due, witness};
use soloist_core::ids::{FleetId, Generation, Incarnation, Launch, MachineId, NodeId, OperationId, Token};
use soloist_core::invariants::invariants;
use soloist_core::operation::{Blocked, HoldMode, PluginChange, Request, Status, Step};
use soloist_core::policy::Policy;
use soloist_core::rule::Rule;
use soloist_core::state::{Desired, Fleet};
use soloist_core::time::Millis;
use soloist_core::{Command, Entry, Outcome, Rejection, Reply, State, apply};

use super::agent::{Busy, Host, Keeper};
use super::app::{App, Change, Database, OTHER_VERSION, Phase, Starter, VERSION};
use super::chance::Chance;
use super::clients::{Client, Work};
use super::member::Member;
use super::oracle::{Oracle, whole};
use super::{Failure, Summary};

/// Step of the world's time in milliseconds.
const STEP: u64 = 20;
/// How many trace lines a failure shows.
const TRACE_MAX: usize = 120;
/// How long the liveness phase may take, in milliseconds.
const LIVENESS_MAX: u64 = 600_000;
/// How long a full host, agent or member stays down at most.
const DOWN_MAX: u64 = 12_000;

/// A message on its way.
#[derive(Debug, Clone)]
enum Message {
    Hello { node: usize, member: usize, registration: Registration },
    Report { node: usize, member: usize, incarnation: Incarnation, sequence: u64, observed: Box<Observed> },
    Beat { node: usize, member: usize },
    Registered { node: usize, member: usize, incarnation: Incarnation, result: Result<Generation, Rejection> },
    Assign { node: usize, member: usize, incarnation: Incarnation, assignment: Box<Assignment> },
    Ack { node: usize, incarnation: Incarnation, sequence: u64 },
    Superseded { node: usize, incarnation: Incarnation },
}

/// One simulated run.
#[derive(Debug)]
pub struct World {
    seed: u64,
    chance: Chance,
    now: u64,
    faults: bool,
    fleet: FleetId,
    policy: Policy,
    log: Vec<(u64, Entry)>,
    master: State,
    members: Vec<Member>,
    leader: Option<usize>,
    no_leader_until: u64,
    hosts: Vec<Host>,
    runs: BTreeMap<Incarnation, u64>,
    database: Database,
    hidden: Option<Database>,
    clients: Vec<Client>,
    wire: BinaryHeap<Reverse<(u64, u64)>>,
    bodies: BTreeMap<u64, Message>,
    sent: u64,
    cuts: BTreeSet<(usize, usize)>,
    oracle: Oracle,
    trace: VecDeque<String>,
    tracing: bool,
    waits: BTreeMap<(usize, usize), u64>,
    next_id: u64,
    person_next: u64,
    stuck_retries: u32,
}

impl World {
    /// The world of a seed, before its first moment.
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let count = usize::try_from(chance.between(2, 4)).unwrap_or(3);
        let hosts: Vec<Host> = (1..=count)
            .map(|number| Host::new(NodeId::new(format!("node-{number}")).expect("a plain name")))
            .collect();
        let members = (0..3)
            .map(|_| {
                let drift = i64::try_from(chance.between(0, 100)).unwrap_or(0) - 50;
                let wall_off = i64::try_from(chance.between(0, 600_000)).unwrap_or(0) - 300_000;
                Member::new(drift, wall_off, chance.between(0, 400))
            })
            .collect();
        let policy = Policy {
            contact_timeout: Millis(4_000),
            pre_grant_timeout: Millis(25_000),
            confirm_timeout: Millis(4_000),
            accept_timeout: Millis(4_000),
            lease: Millis(6_000),
            restore_after: Millis(12_000),
            gather_timeout: Millis(4_000),
            start_timeout: Millis(15_000),
            stop_timeout: Millis(8_000),
            task_timeout: Millis(2_500),
            max_parallel: u32::try_from(chance.between(1, 2)).unwrap_or(1),
        };
        let mut world = Self {
            seed,
            now: 0,
            faults: true,
            fleet: FleetId::new("fleet").expect("a plain name"),
            policy,
            log: Vec::new(),
            master: State::default(),
            members,
            leader: None,
            no_leader_until: 0,
            hosts,
            runs: BTreeMap::new(),
            database: Database::default(),
            hidden: None,
            clients: Vec::new(),
            wire: BinaryHeap::new(),
            bodies: BTreeMap::new(),
            sent: 0,
            cuts: BTreeSet::new(),
            oracle: Oracle::default(),
            trace: VecDeque::new(),
            tracing: false,
            waits: BTreeMap::new(),
            next_id: 0,
            person_next: 1_500,
            stuck_retries: 0,
            chance,
        };
        for at in 0..world.hosts.len() {
            world.start_agent(at);
        }
        world
    }

    /// Prints every trace line as it happens.
    #[must_use]
    pub fn traced(mut self) -> Self {
        self.tracing = true;
        self
    }

    /// Runs both phases.
    pub fn run(mut self) -> Result<Summary, Box<Failure>> {
        let safety = self.chance.between(60_000, 140_000);
        let result = self.phases(safety);
        match result {
            Ok(()) => {
                self.oracle.summary.entries = self.log.len() as u64;
                Ok(self.oracle.summary)
            }
            Err(what) => Err(Box::new(Failure {
                seed: self.seed,
                what,
                at_ms: self.now,
                trace: self.trace.iter().cloned().collect(),
            })),
        }
    }

    fn phases(&mut self, safety: u64) -> Result<(), String> {
        while self.now < safety {
            self.step()?;
        }
        self.calm();
        let limit = self.now + LIVENESS_MAX;
        while !self.converged() {
            if self.now >= limit {
                return Err(format!(
                    "nothing has converged {} s after the last fault: {}",
                    LIVENESS_MAX / 1000,
                    self.stand()
                ));
            }
            self.step()?;
        }
        Ok(())
    }

    fn note(&mut self, line: String) {
        let line = format!("{:>7} {line}", self.now);
        if self.tracing {
            #[expect(
                clippy::print_stderr,
                reason = "the trace of a single seed is for the person who asked for it"
            )]
            {
                eprintln!("{line}");
            }
        }
        if self.trace.len() == TRACE_MAX {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }

    fn step(&mut self) -> Result<(), String> {
        self.now += STEP;
        if self.faults {
            self.mischief();
        }
        self.elect()?;
        self.deliver()?;
        for member in 0..self.members.len() {
            self.catch_up(member);
        }
        self.lead()?;
        self.serve();
        for host in 0..self.hosts.len() {
            self.run_host(host)?;
        }
        self.people()?;
        self.watch()
    }

    fn watch(&mut self) -> Result<(), String> {
        let Some(fleet) = self.master.fleets.get(&self.fleet) else { return Ok(()) };
        let work: Vec<(Token, HoldMode, NodeId)> = self
            .clients
            .iter()
            .filter_map(|client| {
                let work = client.work.as_ref().filter(|work| !work.ended)?;
                let solo = fleet.operation(&client.operation)?.solo.clone()?;
                Some((work.token, work.mode, solo))
            })
            .collect();
        if work.is_empty() {
            self.oracle.watch(fleet, &self.hosts, None)?;
        }
        for (token, mode, solo) in &work {
            self.oracle.watch(fleet, &self.hosts, Some((*token, *mode, solo)))?;
        }
        Ok(())
    }

    // ---- faults ----

    fn mischief(&mut self) {
        if self.chance.permille(2) {
            let member = self.chance.index(self.members.len());
            match self.chance.between(0, 4) {
                0 => {
                    self.leader = None;
                    self.no_leader_until = self.now + self.chance.between(300, 9_000);
                    self.note(format!("leader lost until {}", self.no_leader_until));
                }
                1 => {
                    let until = self.now + self.chance.between(500, 9_000);
                    self.members[member].stalled_until = until;
                    self.note(format!("member {member} stalls until {until}"));
                }
                2 => {
                    let jump = i64::try_from(self.chance.between(0, 200_000)).unwrap_or(0) - 100_000;
                    self.members[member].wall_off += jump;
                    self.note(format!("wall clock of member {member} jumps by {jump} ms"));
                }
                3 => {
                    self.members[member].up = false;
                    self.members[member].sessions.clear();
                    self.members[member].contact.clear();
                    self.members[member].clock.demoted();
                    let back = self.now + self.chance.between(500, DOWN_MAX);
                    self.members[member].stalled_until = back;
                    if self.leader == Some(member) {
                        self.leader = None;
                        self.no_leader_until = self.now + self.chance.between(300, 2_000);
                    }
                    self.note(format!("member {member} crashes until {back}"));
                }
                _ => self.members[member].lag_ms = self.chance.between(0, 3_000),
            }
        }
        for member in 0..self.members.len() {
            if !self.members[member].up && self.now >= self.members[member].stalled_until {
                self.members[member].up = true;
                self.members[member].state = State::default();
                self.members[member].applied = 0;
            }
        }
        for at in 0..self.hosts.len() {
            self.host_mischief(at);
        }
        if self.chance.permille(3) {
            let (host, member) = (self.chance.index(self.hosts.len()), self.chance.index(self.members.len()));
            if self.chance.permille(400) {
                for member in 0..self.members.len() {
                    self.cuts.insert((host, member));
                }
            } else {
                self.cuts.insert((host, member));
            }
        }
        if self.chance.permille(8) {
            self.cuts.clear();
        }
        if self.chance.permille(1) && self.chance.permille(250) {
            if let Some(real) = self.hidden.take() {
                self.database = real;
                self.note("the database is back where it was".into());
            } else if self.database.version.is_some() && self.hosts.iter().all(Host::idle) {
                self.hidden = Some(std::mem::take(&mut self.database));
                self.note("the nodes point at an empty database".into());
            }
        }
    }

    fn host_mischief(&mut self, at: usize) {
        if self.hosts[at].up {
            if self.chance.permille(1) && self.chance.permille(300) {
                self.power_off(at);
            }
            if self.hosts[at].agent_up && self.chance.permille(1) {
                self.hosts[at].agent_up = false;
                let lost = self.chance.permille(250);
                if lost {
                    self.hosts[at].ledger = soloist_core::agent::Ledger::default();
                }
                self.note(format!(
                    "agent of {} dies{}",
                    self.hosts[at].name,
                    if lost { ", its ledger is lost" } else { "" }
                ));
            }
            if self.chance.permille(1) && self.hosts[at].own().is_some_and(|app| app.stops_at.is_none()) {
                self.note(format!("app of {} crashes", self.hosts[at].name));
                self.app_ends(at, true);
            }
            if self.chance.permille(1) && self.chance.permille(400) {
                self.start_by_hand(at);
            }
            if self.chance.permille(1) && self.chance.permille(60) && self.hosts[at].idle() {
                self.hosts[at].code = if self.hosts[at].code == VERSION { OTHER_VERSION } else { VERSION };
                self.hosts[at].facts = None;
                self.note(format!("code of {} is now {}", self.hosts[at].name, self.hosts[at].code));
            }
        } else if self.chance.permille(4) {
            self.power_on(at);
        }
        if self.hosts[at].up && !self.hosts[at].agent_up && self.chance.permille(12) {
            self.start_agent(at);
        }
        // A full power cut.
        if at == 0 && self.chance.permille(1) && self.chance.permille(40) {
            self.note("power cut".into());
            for host in 0..self.hosts.len() {
                self.power_off(host);
            }
        }
    }

    fn power_off(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.up = false;
        host.agent_up = false;
        host.apps.clear();
        host.keepers.clear();
        host.holders.clear();
        host.ended = None;
        let name = host.name.clone();
        for client in self.clients.iter_mut().filter(|client| client.host == at) {
            client.alive = false;
            if let Some(work) = &mut client.work {
                work.ended = true;
            }
        }
        self.note(format!("host of {name} is off"));
    }

    fn power_on(&mut self, at: usize) {
        self.hosts[at].up = true;
        self.hosts[at].boot += 1;
        self.note(format!("host of {} is on, boot {}", self.hosts[at].name, self.hosts[at].boot));
        self.start_agent(at);
    }

    fn start_agent(&mut self, at: usize) {
        let incarnation = Incarnation(self.chance.unique());
        self.runs.insert(incarnation, self.now);
        let host = &mut self.hosts[at];
        host.ledger = host.ledger.begin_run(incarnation);
        host.agent_up = true;
        host.incarnation = incarnation;
        host.registered = false;
        host.session = None;
        host.sequence = 0;
        host.last = None;
        host.acked = 0;
        host.facts = None;
        host.busy = None;
        host.checked = None;
        host.proved = None;
        host.next_step = self.now;
        host.next_scan = self.now;
        self.note(format!("agent of {} starts", self.hosts[at].name));
    }

    fn start_by_hand(&mut self, at: usize) {
        let pid = self.pid();
        let app = App {
            pid,
            starter: Starter::Person,
            launched: None,
            phase: Phase::Serving,
            plugins: BTreeSet::new(),
            stops_at: Some(self.now + self.chance.between(1_000, 15_000)),
            change: None,
        };
        self.hosts[at].apps.push(app);
        self.note(format!("a person starts process {pid} on {}", self.hosts[at].name));
    }

    fn pid(&mut self) -> u32 {
        self.next_id += 1;
        u32::try_from(self.next_id).unwrap_or(u32::MAX)
    }

    fn calm(&mut self) {
        self.note("---- faults end ----".into());
        self.faults = false;
        self.cuts.clear();
        for member in &mut self.members {
            if !member.up {
                member.up = true;
                member.state = State::default();
                member.applied = 0;
            }
            member.stalled_until = 0;
            member.lag_ms = 50;
        }
        if let Some(real) = self.hidden.take() {
            self.database = real;
        }
        for at in 0..self.hosts.len() {
            let installed = self.database.version.as_deref() == Some(OTHER_VERSION);
            self.hosts[at].code = if installed { OTHER_VERSION } else { VERSION };
            self.hosts[at].facts = None;
            if !self.hosts[at].up {
                self.power_on(at);
            } else if !self.hosts[at].agent_up {
                self.start_agent(at);
            }
        }
    }

    // ---- members ----

    fn elect(&mut self) -> Result<(), String> {
        if let Some(leader) = self.leader {
            let gone = self.now + 3_000 < self.members[leader].stalled_until;
            if gone && self.chance.permille(100) {
                self.note(format!("member {leader} is deposed"));
                self.leader = None;
            }
        }
        let up: Vec<usize> = (0..self.members.len())
            .filter(|at| self.members[*at].up && self.members[*at].stalled_until <= self.now)
            .collect();
        if self.leader.is_none() && self.now >= self.no_leader_until && up.len() >= 2 {
            let leader = up[self.chance.index(up.len())];
            self.leader = Some(leader);
            for (at, member) in self.members.iter_mut().enumerate() {
                if at != leader {
                    member.clock.demoted();
                    member.contact.clear();
                }
            }
            self.members[leader].clock.demoted();
            self.members[leader].contact.clear();
            self.note(format!("member {leader} leads"));
        }
        Ok(())
    }

    fn catch_up(&mut self, at: usize) {
        let leads = self.leader == Some(at);
        let member = &mut self.members[at];
        if !member.up || (member.stalled_until > self.now && !leads) {
            return;
        }
        while member.applied < self.log.len() {
            let (time, entry) = &self.log[member.applied];
            if !leads && *time + member.lag_ms > self.now {
                break;
            }
            member.applied += 1;
            apply(&mut member.state, member.applied as u64, entry);
        }
    }

    fn lead(&mut self) -> Result<(), String> {
        let Some(at) = self.leader else { return Ok(()) };
        if self.members[at].stalled_until > self.now || self.now % 100 != 0 {
            return Ok(());
        }
        let elapsed = self.members[at].elapsed(self.now);
        if self.members[at].clock.tick(elapsed) {
            let command = Command::Promote { member: at as u64 };
            self.commit(at, command)?;
            let now = self.master.now;
            let elapsed = self.members[at].elapsed(self.now);
            self.members[at].clock.promoted(now, elapsed);
            return Ok(());
        }
        let wall = self.members[at].wall(self.now);
        let Some(time) = self.members[at].clock.stamp(elapsed, wall) else { return Ok(()) };
        for command in due(&self.members[at].state, &self.members[at].contact, time) {
            self.propose(command)?;
        }
        Ok(())
    }

    /// Proposes a command through the leader; `None` if there is none.
    fn propose(&mut self, mut command: Command) -> Result<Option<Outcome>, String> {
        let Some(at) = self.leader else { return Ok(None) };
        if self.members[at].stalled_until > self.now {
            return Ok(None);
        }
        let elapsed = self.members[at].elapsed(self.now);
        let wall = self.members[at].wall(self.now);
        let Some(time) = self.members[at].clock.stamp(elapsed, wall) else { return Ok(None) };
        witness(&mut command, &self.members[at].state, &self.members[at].contact, time);
        self.commit(at, command).map(Some)
    }

    fn commit(&mut self, at: usize, command: Command) -> Result<Outcome, String> {
        let elapsed = self.members[at].elapsed(self.now);
        let wall_ms = self.members[at].wall(self.now);
        let time = self.members[at].clock.stamp(elapsed, wall_ms).unwrap_or(self.master.now);
        let entry = Entry { time, wall_ms, feature_level: FEATURE_LEVEL, command };
        let index = self.log.len() as u64 + 1;
        self.note(format!("#{index} {entry}"));
        self.log.push((self.now, entry.clone()));
        match &entry.command {
            Command::Report { node, incarnation, sequence, observed, .. } => {
                let run = self.runs.get(incarnation).copied().unwrap_or(0);
                self.oracle.reported(node, run, *sequence, observed);
            }
            Command::Promote { .. } => self.oracle.promoted(self.now),
            _ => {}
        }
        let renews = matches!(entry.command, Command::Renew { .. });
        let outcome = apply(&mut self.master, index, &entry);
        if renews && outcome.reply.is_ok() {
            self.oracle.renewed(self.now);
        }
        if let Err(rejection) = &outcome.reply {
            self.note(format!("    refused: {rejection}"));
        }
        for (id, event) in &outcome.events {
            let on = event.node.as_ref().map(ToString::to_string).unwrap_or_default();
            self.note(format!("    {on} {}", event.kind));
            if let Some(fleet) = self.master.fleets.get(id) {
                self.oracle.happened(&event.kind, fleet, &self.hosts, &self.policy, self.now)?;
            }
        }
        invariants(&self.master).map_err(|violation| violation.to_string())?;
        // Every replica must come to the same state: the leader applies its own copy at once.
        self.catch_up(at);
        if self.members[at].applied == self.log.len() && self.members[at].state != self.master {
            return Err("two replicas differ after the same entries".into());
        }
        Ok(outcome)
    }

    /// What members send by themselves: assignments until they are acknowledged.
    fn serve(&mut self) {
        for at in 0..self.members.len() {
            if !self.members[at].up
                || self.members[at].stalled_until > self.now
                || self.members[at].last_served + 300 > self.now
            {
                continue;
            }
            self.members[at].last_served = self.now;
            let sessions: Vec<_> = self.members[at].sessions.clone().into_iter().collect();
            for (name, (incarnation, registered)) in sessions {
                let known = registered.is_some_and(|index| self.members[at].applied as u64 >= index);
                if !known && Rule::RegisterFirst.holds() {
                    continue;
                }
                let Some(node) =
                    self.members[at].state.fleets.get(&self.fleet).and_then(|fleet| fleet.nodes.get(&name))
                else {
                    continue;
                };
                if node.acknowledged() && node.incarnation == incarnation {
                    continue;
                }
                let assignment = Box::new(node.assignment.clone());
                if let Some(host) = self.hosts.iter().position(|host| host.name == name) {
                    self.send(Message::Assign { node: host, member: at, incarnation, assignment });
                }
            }
        }
    }

    // ---- network ----

    fn send(&mut self, message: Message) {
        let copies = if self.faults && self.chance.permille(60) { 2 } else { 1 };
        for _ in 0..copies {
            if self.faults && self.chance.permille(40) {
                continue;
            }
            let slow = self.faults && self.chance.permille(60);
            let delay = if slow { self.chance.between(100, 3_000) } else { self.chance.between(1, 60) };
            self.sent += 1;
            self.wire.push(Reverse((self.now + delay, self.sent)));
            self.bodies.insert(self.sent, message.clone());
        }
    }

    fn deliver(&mut self) -> Result<(), String> {
        while let Some(Reverse((time, number))) = self.wire.peek().copied() {
            if time > self.now {
                break;
            }
            self.wire.pop();
            if let Some(message) = self.bodies.remove(&number) {
                self.receive(message)?;
            }
        }
        Ok(())
    }

    fn reaches(&self, node: usize, member: usize) -> bool {
        !self.cuts.contains(&(node, member))
            && self.members[member].up
            && self.members[member].stalled_until <= self.now
    }

    fn receive(&mut self, message: Message) -> Result<(), String> {
        match message {
            Message::Hello { node, member, registration } => {
                if !self.reaches(node, member) {
                    return Ok(());
                }
                let name = self.hosts[node].name.clone();
                let incarnation = registration.incarnation;
                self.members[member].sessions.insert(name.clone(), (incarnation, None));
                let command = Command::Register {
                    fleet: self.fleet.clone(),
                    node: name.clone(),
                    registration,
                    policy: self.policy.clone(),
                    rival: false,
                };
                let Some(outcome) = self.propose(command)? else { return Ok(()) };
                let result = match outcome.reply {
                    Ok(Reply::Registered { floor }) => {
                        self.members[member].sessions.insert(name, (incarnation, Some(floor.0)));
                        Ok(floor)
                    }
                    Ok(_) => return Ok(()),
                    Err(rejection) => Err(rejection),
                };
                self.send(Message::Registered { node, member, incarnation, result });
            }
            Message::Report { node, member, incarnation, sequence, observed } => {
                if !self.reaches(node, member) {
                    return Ok(());
                }
                self.hear(node);
                let name = self.hosts[node].name.clone();
                let command = Command::Report {
                    fleet: self.fleet.clone(),
                    node: name,
                    incarnation,
                    sequence,
                    observed: *observed,
                };
                match self.propose(command)?.map(|outcome| outcome.reply) {
                    Some(Ok(_)) => self.send(Message::Ack { node, incarnation, sequence }),
                    Some(Err(Rejection::Superseded { .. })) => {
                        self.send(Message::Superseded { node, incarnation })
                    }
                    Some(Err(_)) | None => {}
                }
            }
            Message::Superseded { node, incarnation } => {
                let host = &mut self.hosts[node];
                if host.incarnation == incarnation {
                    host.registered = false;
                    host.session = None;
                }
            }
            Message::Beat { node, member } => {
                if self.reaches(node, member) {
                    self.hear(node);
                }
            }
            Message::Registered { node, member, incarnation, result } => {
                if self.cuts.contains(&(node, member)) {
                    return Ok(());
                }
                let host = &mut self.hosts[node];
                if !host.agent_up || host.incarnation != incarnation || host.registered {
                    return Ok(());
                }
                match result {
                    Ok(floor) => {
                        host.ledger = host.ledger.confirmed(incarnation, floor);
                        host.registered = true;
                    }
                    Err(_) => host.session = None,
                }
            }
            Message::Assign { node, member, incarnation, assignment } => {
                if self.cuts.contains(&(node, member)) {
                    return Ok(());
                }
                let host = &mut self.hosts[node];
                if !host.up || !host.agent_up || host.incarnation != incarnation {
                    return Ok(());
                }
                let boot = host.boot_id();
                if let Ok(Some(ledger)) = accept(&host.ledger, &assignment, &boot, host.registered) {
                    host.ledger = ledger;
                    host.read_facts(&self.database, self.now);
                }
            }
            Message::Ack { node, incarnation, sequence } => {
                let host = &mut self.hosts[node];
                if host.incarnation == incarnation {
                    host.acked = host.acked.max(sequence);
                }
            }
        }
        Ok(())
    }

    fn hear(&mut self, node: usize) {
        let Some(leader) = self.leader else { return };
        // Only a session of the registered run counts.
        let known = self.fleet_now().and_then(|fleet| fleet.nodes.get(&self.hosts[node].name));
        if known.is_none_or(|known| known.incarnation != self.hosts[node].incarnation) {
            return;
        }
        let elapsed = self.members[leader].elapsed(self.now);
        let wall = self.members[leader].wall(self.now);
        if let Some(time) = self.members[leader].clock.stamp(elapsed, wall) {
            let name = self.hosts[node].name.clone();
            self.members[leader].contact.hear(&self.fleet, &name, time);
        }
    }

    // ---- hosts ----

    fn run_host(&mut self, at: usize) -> Result<(), String> {
        if !self.hosts[at].up {
            return Ok(());
        }
        self.run_apps(at)?;
        self.run_keepers(at)?;
        let now = self.now;
        self.hosts[at].holders.retain(|(_, until)| *until > now);
        if self.hosts[at].agent_up && now >= self.hosts[at].next_step {
            self.hosts[at].next_step = now + self.chance.between(40, 300);
            self.run_agent(at)?;
        }
        Ok(())
    }

    fn app_ends(&mut self, at: usize, crashed: bool) {
        let host = &mut self.hosts[at];
        let Some(position) = host.apps.iter().position(|app| matches!(app.starter, Starter::Keeper(_)))
        else {
            return;
        };
        host.apps.remove(position);
        if crashed {
            host.ended = Some("exit status 1".into());
            let pause = restart_delay(0, 0).unwrap_or(Millis(1_000));
            host.restart_at = self.now + pause.0;
        } else {
            host.ended = None;
        }
    }

    fn run_apps(&mut self, at: usize) -> Result<(), String> {
        let now = self.now;
        let stopped = self.hosts[at].own().and_then(|app| app.stops_at).is_some_and(|stops| stops <= now);
        if stopped {
            self.note(format!("app of {} has stopped", self.hosts[at].name));
            self.app_ends(at, false);
        }
        self.hosts[at]
            .apps
            .retain(|app| app.starter != Starter::Person || app.stops_at.is_none_or(|stops| stops > now));
        let code = self.hosts[at].code;
        let mut lines = Vec::new();
        for app in &mut self.hosts[at].apps {
            match app.phase {
                Phase::Starting(until) if until <= now => {
                    app.plugins = self.database.plugins.clone();
                    app.phase = if self.database.version.as_deref() == Some(code) {
                        Phase::Serving
                    } else {
                        Phase::Failed("APP_ERROR".into())
                    };
                }
                Phase::Migrating(until) if until <= now => {
                    self.database.version = Some(code.to_owned());
                    app.phase = Phase::Serving;
                    lines.push("the database is installed".to_owned());
                }
                _ => {}
            }
            if let Some(change) = app.change.clone().filter(|change| change.until <= now) {
                app.change = None;
                if !change.fails {
                    if change.enable {
                        self.database.plugins.insert(change.plugin.clone());
                        app.plugins.insert(change.plugin);
                    } else {
                        self.database.plugins.remove(&change.plugin);
                        app.plugins.remove(&change.plugin);
                    }
                }
            }
        }
        for line in lines {
            self.note(line);
        }
        Ok(())
    }

    fn run_keepers(&mut self, at: usize) -> Result<(), String> {
        let now = self.now;
        let ready: Vec<Keeper> =
            self.hosts[at].keepers.iter().filter(|keeper| keeper.exec_at <= now).cloned().collect();
        self.hosts[at].keepers.retain(|keeper| keeper.exec_at > now);
        for keeper in ready {
            let boot = self.hosts[at].boot_id();
            // Under the exec lock: the ledger is read anew, and there is one keeper with an app per node.
            if !self.hosts[at].ledger.may_exec(keeper.launch, &boot) || self.hosts[at].own().is_some() {
                self.note(format!("keeper of {} does not execute", self.hosts[at].name));
                continue;
            }
            self.note(format!("app of {} is executed, {:?}", self.hosts[at].name, keeper.mode));
            if let Some(fleet) = self.master.fleets.get(&self.fleet) {
                let version = self.database.version.clone();
                self.oracle.executes(
                    at,
                    keeper.mode,
                    keeper.generation,
                    fleet,
                    &self.hosts,
                    version.as_deref(),
                )?;
            }
            let phase = match keeper.mode {
                RunMode::Plain => Phase::Starting(now + self.chance.between(800, 4_000)),
                RunMode::Migrate(_) => {
                    self.database.tables = true;
                    Phase::Migrating(now + self.chance.between(1_500, 5_000))
                }
            };
            let pid = self.pid();
            self.hosts[at].ended = None;
            self.hosts[at].apps.push(App {
                pid,
                starter: Starter::Keeper(keeper.launch),
                launched: Some(keeper.generation),
                phase,
                plugins: BTreeSet::new(),
                stops_at: None,
                change: None,
            });
        }
        Ok(())
    }

    fn run_agent(&mut self, at: usize) -> Result<(), String> {
        let now = self.now;
        if now >= self.hosts[at].next_scan {
            self.hosts[at].scan();
            self.hosts[at].next_scan = now + 400;
            let age = self.hosts[at].facts.as_ref().map_or(u64::MAX, |(_, read, _)| now - read);
            if age > 1_000 && self.hosts[at].ledger.assignment.is_some() {
                let database = self.database.clone();
                self.hosts[at].read_facts(&database, now);
            }
        }
        self.talk(at);
        self.finish_task(at);
        let seen = self.hosts[at].seen(now);
        for action in reconcile(&self.hosts[at].ledger, &seen) {
            self.act(at, action)?;
        }
        let seen = self.hosts[at].seen(now);
        let observed = observe(&self.hosts[at].ledger, &seen);
        let host = &mut self.hosts[at];
        if !host.registered {
            return Ok(());
        }
        if host.last.as_ref() != Some(&observed) {
            host.sequence += 1;
            host.last = Some(observed.clone());
            self.report(at, observed);
        } else if host.acked < host.sequence && self.chance.permille(150) {
            self.report(at, observed);
        }
        Ok(())
    }

    fn report(&mut self, at: usize, observed: Observed) {
        let host = &self.hosts[at];
        let Some(member) = host.session else { return };
        let (incarnation, sequence) = (host.incarnation, host.sequence);
        self.send(Message::Report { node: at, member, incarnation, sequence, observed: Box::new(observed) });
    }

    fn talk(&mut self, at: usize) {
        let now = self.now;
        // An agent that hears nothing useful for a while moves to another member.
        let host = &self.hosts[at];
        let unsure = host.session.is_some_and(|member| !self.reaches(at, member))
            || (!host.registered && now - host.session_since > 1_500);
        if host.session.is_none() || unsure {
            let member = self.chance.index(self.members.len());
            self.hosts[at].session = Some(member);
            self.hosts[at].session_since = now;
            let host = &self.hosts[at];
            let registration = Registration {
                incarnation: host.incarnation,
                lineage: host.ledger.lineage.clone(),
                fresh: host.ledger.fresh(),
                machine: host.machine.clone(),
                boot: host.boot_id(),
                address: String::new(),
            };
            self.send(Message::Hello { node: at, member, registration });
            return;
        }
        if let Some(member) = self.hosts[at].session
            && self.chance.permille(300)
        {
            self.send(Message::Beat { node: at, member });
            // The leader's own number for the node, carried by contact answers: too old here, so look elsewhere.
            let current =
                self.master.fleets.get(&self.fleet).and_then(|fleet| fleet.nodes.get(&self.hosts[at].name));
            let have = self.hosts[at]
                .ledger
                .assignment
                .as_ref()
                .map_or(Generation(0), |assignment| assignment.generation);
            let behind = current.is_some_and(|node| node.assignment.generation > have);
            let since = self.waits.entry((at, member)).or_insert(now);
            if !behind {
                *since = now;
            } else if now - *since > 3_000 {
                self.waits.remove(&(at, member));
                self.hosts[at].session = None;
            }
        }
    }

    fn act(&mut self, at: usize, action: Action) -> Result<(), String> {
        let now = self.now;
        match action {
            Action::Stop { .. } => {
                let grace = self.chance.between(100, 1_500);
                let host = &mut self.hosts[at];
                host.ledger = host.ledger.without_launch();
                host.ended = None;
                if let Some(app) = host.own_mut() {
                    app.stops_at.get_or_insert(now + grace);
                }
            }
            Action::Launch { mode, generation } => {
                // Facts are read anew right before a launch.
                let database = self.database.clone();
                self.hosts[at].read_facts(&database, now);
                let seen = self.hosts[at].seen(now);
                if !reconcile(&self.hosts[at].ledger, &seen).contains(&Action::Launch { mode, generation }) {
                    return Ok(());
                }
                let launch = Launch(self.chance.unique());
                let slow = self.faults && self.chance.permille(150);
                let delay = if slow { self.chance.between(500, 4_000) } else { self.chance.between(20, 200) };
                let host = &mut self.hosts[at];
                let boot = host.boot_id();
                host.ledger = host.ledger.with_launch(launch, mode, &boot);
                host.keepers.push(Keeper { launch, mode, generation, exec_at: now + delay });
            }
            Action::Check(task) => {
                let until = now + self.chance.between(50, 300);
                self.hosts[at].busy = Some(Busy { task, until, recovers: false });
            }
            Action::RunTask(task) => {
                let until = now + self.chance.between(300, 5_000);
                let fails = self.faults && self.chance.permille(100);
                let name = self.hosts[at].name.clone();
                let host = &mut self.hosts[at];
                host.ledger = host.ledger.with_task(task.key.clone(), None);
                let enable = task.name == PluginChange::Enable.task();
                let plugin = task.params.get("plugin").cloned().unwrap_or_default();
                if let Some(app) = host.own_mut() {
                    self.oracle.changes(&name, app.change.is_some())?;
                    app.change = Some(Change { until, plugin, enable, fails });
                }
                host.busy = Some(Busy { task, until, recovers: false });
                self.note(format!("plugin change begins on {name}"));
            }
            Action::RecoverTask(task) => {
                self.hosts[at].busy = Some(Busy { task, until: now, recovers: true });
            }
            Action::Prove(proof) => {
                let host = &mut self.hosts[at];
                let loaded = host.own().is_some_and(|app| app.plugins.contains(&proof.plugin));
                host.proved = (loaded == proof.loaded).then_some(proof);
            }
        }
        Ok(())
    }

    fn finish_task(&mut self, at: usize) {
        let now = self.now;
        let Some(busy) = self.hosts[at].busy.clone() else { return };
        // The app must be quiet before anything is said about the end of an attempt.
        let quiet = self.hosts[at].own().is_none_or(|app| app.change.is_none());
        if now < busy.until || (busy.recovers && !quiet) {
            return;
        }
        self.hosts[at].busy = None;
        match busy.task.phase {
            TaskPhase::Check => self.hosts[at].checked = Some((busy.task.key, TaskResult::Done)),
            TaskPhase::Run => {
                if !quiet {
                    self.hosts[at].busy = Some(Busy { until: now, ..busy });
                    return;
                }
                let plugin = busy.task.params.get("plugin").cloned().unwrap_or_default();
                let enable = busy.task.name == PluginChange::Enable.task();
                let done = self.database.plugins.contains(&plugin) == enable;
                let result = match (done, busy.recovers) {
                    (true, _) => TaskResult::Done,
                    (false, true) => TaskResult::Interrupted,
                    (false, false) => TaskResult::Failed("the app refused".into()),
                };
                let host = &mut self.hosts[at];
                host.ledger = host.ledger.with_task(busy.task.key, Some(result));
            }
        }
    }

    // ---- people and programs ----

    fn fleet_now(&self) -> Option<&Fleet> {
        self.master.fleets.get(&self.fleet)
    }

    fn submit(&mut self, request: Request, host: usize, wait: Option<Millis>) -> Result<(), String> {
        self.next_id += 1;
        let operation = OperationId::new(format!("op-{}", self.next_id)).expect("a plain name");
        let machine = self.hosts.get(host).map_or(MachineId::default(), |host| host.machine.clone());
        let submission = Submission { by: "operator".into(), reason: String::new(), wait, machine };
        let command = Command::Submit {
            fleet: self.fleet.clone(),
            operation: operation.clone(),
            request: request.clone(),
            submission,
        };
        if let Some(outcome) = self.propose(command)?
            && outcome.reply.is_ok()
        {
            let will_crash = self.faults && self.chance.permille(250);
            self.clients.push(Client {
                operation,
                request,
                alive: true,
                next_poll: self.now,
                work: None,
                will_crash,
                host,
                done: false,
            });
        }
        Ok(())
    }

    fn people(&mut self) -> Result<(), String> {
        for at in 0..self.clients.len() {
            self.client(at)?;
        }
        if self.now < self.person_next {
            return Ok(());
        }
        self.person_next = self.now + self.chance.between(600, 4_000);
        if self.faults { self.meddle() } else { self.mend() }
    }

    /// What people do while things go wrong.
    fn meddle(&mut self) -> Result<(), String> {
        let Some(fleet) = self.fleet_now() else { return Ok(()) };
        let (active, stopped) = (fleet.active, fleet.desired == Desired::Stop);
        let unknown = fleet.database.is_none();
        let host = self.chance.index(self.hosts.len());
        let on = if self.chance.permille(500) { Some(self.hosts[host].name.clone()) } else { None };
        let wait =
            if self.chance.permille(200) { Some(Millis(self.chance.between(1_000, 8_000))) } else { None };
        if !active || (stopped && self.chance.permille(600)) {
            let install = unknown && self.chance.permille(900);
            return self.submit(Request::Start { install, nodes: None }, host, wait);
        }
        match self.chance.between(0, 11) {
            0..=2 => {
                let change =
                    if self.chance.permille(500) { PluginChange::Enable } else { PluginChange::Disable };
                let plugin = format!("plugin-{}", self.chance.between(1, 2));
                self.submit(Request::Plugin { change, plugin, on }, host, wait)
            }
            3 | 4 => self.submit(Request::Hold { mode: HoldMode::Solo, on }, host, wait),
            5 | 6 => self.submit(Request::Hold { mode: HoldMode::AllStopped, on }, host, wait),
            7 if self.chance.permille(300) => self.submit(Request::Stop, host, wait),
            8 => self.submit(Request::Start { install: false, nodes: None }, host, wait),
            9 => self.intervene(),
            10 => self.retry(),
            _ => Ok(()),
        }
    }

    fn intervene(&mut self) -> Result<(), String> {
        let Some(operation) = self.fleet_now().and_then(Fleet::current) else { return Ok(()) };
        let (id, token) = (operation.id.clone(), operation.token.unwrap_or_default());
        let (fleet, by) = (self.fleet.clone(), "operator".to_owned());
        let command = if self.chance.permille(700) {
            Command::Abort { fleet, operation: id, by, reason: "changed my mind".into() }
        } else if !self.works(token) {
            // A person takes the lock away only after making sure that the work has ended.
            Command::ForceRelease { fleet, token, by, reason: "the job is gone".into() }
        } else {
            return Ok(());
        };
        self.propose(command).map(|_| ())
    }

    fn works(&self, token: Token) -> bool {
        self.clients
            .iter()
            .any(|client| client.work.as_ref().is_some_and(|work| work.token == token && !work.ended))
    }

    fn retry(&mut self) -> Result<(), String> {
        let Some(operation) = self.fleet_now().and_then(Fleet::current) else { return Ok(()) };
        let (operation, attempt) = (operation.id.clone(), operation.attempt);
        let command = Command::Retry { fleet: self.fleet.clone(), operation, attempt, by: "operator".into() };
        self.propose(command).map(|_| ())
    }

    /// What people do to bring a fleet back once nothing new goes wrong.
    fn mend(&mut self) -> Result<(), String> {
        self.person_next = self.now + 3_000;
        let Some(fleet) = self.fleet_now() else { return Ok(()) };
        let Some(operation) = fleet.current() else {
            if !fleet.queue.is_empty() {
                return Ok(());
            }
            if self.database.tables
                && self.database.version.is_none()
                && !self.hosts.iter().any(|host| host.own().is_some())
            {
                self.note("a person drops the half-installed database".into());
                self.database = Database::default();
                return Ok(());
            }
            if !whole(fleet, &self.hosts) {
                let install = fleet.database.is_none() && !self.database.tables;
                self.stuck_retries = 0;
                return self.submit(Request::Start { install, nodes: None }, 0, None);
            }
            return Ok(());
        };
        let (id, token, attempt) =
            (operation.id.clone(), operation.token.unwrap_or_default(), operation.attempt);
        let fleet = self.fleet.clone();
        let by = "operator".to_owned();
        match operation.status.clone() {
            Status::Blocked(Blocked::HolderLost) if !self.works(token) => self
                .propose(Command::ForceRelease { fleet, token, by, reason: "the job is gone".into() })
                .map(|_| ()),
            Status::Blocked(_) if self.stuck_retries < 2 => {
                self.stuck_retries += 1;
                self.propose(Command::Retry { fleet, operation: id, attempt, by }).map(|_| ())
            }
            Status::Blocked(_) => {
                self.stuck_retries = 0;
                self.propose(Command::Abort { fleet, operation: id, by, reason: "does not come up".into() })
                    .map(|_| ())
            }
            _ => Ok(()),
        }
    }

    fn client(&mut self, at: usize) -> Result<(), String> {
        let now = self.now;
        if self.clients[at].done {
            return Ok(());
        }
        self.work(at)?;
        if !self.clients[at].alive || now < self.clients[at].next_poll {
            return Ok(());
        }
        self.clients[at].next_poll = now + self.chance.between(100, 500);
        if self.leader.is_none() {
            return Ok(());
        }
        let id = self.clients[at].operation.clone();
        let Some(operation) = self.fleet_now().and_then(|fleet| fleet.operation(&id)).cloned() else {
            return Ok(());
        };
        if operation.status.ended() {
            self.clients[at].alive = false;
            return Ok(());
        }
        let fleet = self.fleet.clone();
        if matches!(operation.status, Status::Confirming(_)) && self.chance.permille(900) {
            return self.propose(Command::Confirm { fleet, operation: id }).map(|_| ());
        }
        let Request::Hold { mode, .. } = self.clients[at].request else { return Ok(()) };
        let granted = matches!(operation.step(), Some(Step::Released))
            && operation.holder.as_ref().is_some_and(|holder| !holder.accepted);
        let (Some(token), None, true) = (operation.token, &self.clients[at].work, granted) else {
            return Ok(());
        };
        let sent = now;
        let renewed = self.propose(Command::Renew { fleet, operation: id, token })?;
        if renewed.is_some_and(|outcome| outcome.reply.is_ok()) {
            let until = now + self.chance.between(500, 12_000);
            let deadline = sent + self.policy.lease.0 * 9 / 10;
            let host = self.clients[at].host;
            self.clients[at].work = Some(Work {
                token,
                mode,
                until,
                deadline,
                next_renewal: now + 2_000,
                orphan_until: None,
                ended: false,
            });
            self.hosts[host].holders.push((token, u64::MAX));
            self.note(format!("holder of token {token} works"));
        }
        Ok(())
    }

    fn work(&mut self, at: usize) -> Result<(), String> {
        let now = self.now;
        let Some(work) = self.clients[at].work.clone().filter(|work| !work.ended) else { return Ok(()) };
        let host = self.clients[at].host;
        if let Some(until) = work.orphan_until {
            if now >= until {
                self.end_work(at, host, work.token);
            }
            return Ok(());
        }
        if self.clients[at].will_crash && self.chance.permille(8) {
            self.clients[at].alive = false;
            let until = now + self.chance.between(0, 15_000);
            if let Some(work) = &mut self.clients[at].work {
                work.orphan_until = Some(until);
            }
            self.note(format!("holder of token {} dies, its work goes on until {until}", work.token));
            return Ok(());
        }
        if now >= work.deadline {
            // The holder's own deadline: it ends its work before anybody could think that the lease is over.
            self.end_work(at, host, work.token);
        }
        let done = now >= work.until;
        if done {
            self.end_work(at, host, work.token);
        }
        let fleet = self.fleet.clone();
        let operation = self.clients[at].operation.clone();
        let ended = self.clients[at].work.as_ref().is_some_and(|work| work.ended);
        if ended {
            let command =
                Command::Release { fleet, operation, token: work.token, outcome: "exit status 0".into() };
            if self.propose(command)?.is_none()
                && let Some(work) = &mut self.clients[at].work
            {
                work.orphan_until = None;
                self.clients[at].done = false;
            }
            return Ok(());
        }
        if now >= work.next_renewal {
            let sent = now;
            let answered = self.propose(Command::Renew { fleet, operation, token: work.token })?;
            if let Some(work) = &mut self.clients[at].work {
                work.next_renewal = now + 1_000;
                match answered.map(|outcome| outcome.reply) {
                    Some(Ok(_)) => work.deadline = sent + self.policy.lease.0 * 9 / 10,
                    Some(Err(_)) => work.deadline = now,
                    None => {}
                }
            }
        }
        Ok(())
    }

    fn end_work(&mut self, at: usize, host: usize, token: Token) {
        if let Some(work) = &mut self.clients[at].work {
            work.ended = true;
        }
        self.hosts[host].holders.retain(|(held, _)| *held != token);
        self.note(format!("work of token {token} has ended"));
    }

    // ---- the end ----

    fn converged(&self) -> bool {
        self.fleet_now().is_some_and(|fleet| whole(fleet, &self.hosts))
            && self.clients.iter().all(|client| client.work.as_ref().is_none_or(|work| work.ended))
    }

    fn stand(&self) -> String {
        let Some(fleet) = self.fleet_now() else { return "there is no fleet".into() };
        match fleet.current() {
            Some(operation) => {
                let condition = condition::condition(fleet, operation, true);
                let step = operation.step().map(ToString::to_string);
                format!("{} is {:?} at {step:?}: {condition:?}", operation.id, operation.status)
            }
            None => {
                let parked: Vec<&NodeId> =
                    fleet.nodes.iter().filter(|(_, node)| !node.admitted).map(|(name, _)| name).collect();
                format!("the lock is free, parked: {parked:?}, active: {}, {:?}", fleet.active, fleet.desired)
            }
        }
    }
}
