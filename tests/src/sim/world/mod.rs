//! The world's clockwork.

mod asides;
mod backups;
mod balancers;
mod faults;
mod fences;
mod holders;
mod hosts;
mod members;
mod network;
mod people;
mod restores;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use soloist_core::command::Role;
use soloist_core::ids::{FleetId, Incarnation, NodeId, OperationId, Token};
use soloist_core::operation::HoldMode;
use soloist_core::policy::{Fencing, Heal, Policy, Traffic};
use soloist_core::time::Millis;
use soloist_core::{Entry, State, condition};

use super::agent::Host;
use super::app::Database;
use super::chance::Chance;
use super::clients::Client;
use super::member::Member;
use super::oracle::{Oracle, whole};
use super::{Failure, Summary};

use fences::Fenced;
use network::Message;
use restores::Restores;

/// Step of the world's time in milliseconds.
const STEP: u64 = 20;
/// How many trace lines a failure shows.
const TRACE_MAX: usize = 120;
/// How long the liveness phase may take, in milliseconds: a full queue of long operations comes to its end.
const LIVENESS_MAX: u64 = 900_000;
/// How long a full host, agent or member stays down at most.
const DOWN_MAX: u64 = 12_000;

/// One simulated run.
#[derive(Debug)]
pub struct World {
    seed: u64,
    /// How many of a thousand possible faults happen.
    badness: u64,
    /// Whether its people mostly make backups and restore them.
    restores: bool,
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
    fenced: Fenced,
    restores_of: Restores,
    next_id: u64,
    person_next: u64,
    stuck_retries: u32,
    /// Operations whose users' writes somebody gave up.
    given_up: BTreeSet<OperationId>,
}

impl World {
    /// The world of a seed, before its first moment.
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let count = usize::try_from(chance.between(2, 4)).unwrap_or(3);
        let traffic = [Traffic::Direct, Traffic::Ready, Traffic::Balancer][chance.index(3)];
        let steered = match traffic {
            Traffic::Balancer => chance.between(1, 3),
            Traffic::Direct | Traffic::Ready => 0,
        };
        let named = |kind: &str, number: u64| NodeId::new(format!("{kind}-{number}")).expect("a plain name");
        let nodes = (1..=count as u64).map(|number| Host::new(named("node", number), Role::App));
        let balancers = (1..=steered).map(|number| Host::new(named("balancer", number), Role::Balancer));
        let mut hosts: Vec<Host> = nodes.chain(balancers).collect();
        hosts.iter_mut().for_each(|host| host.processes = [1, 1, 2][chance.index(3)]);
        let members = (0..3)
            .map(|_| {
                let drift = i64::try_from(chance.between(0, 100)).unwrap_or(0) - 50;
                let wall_off = i64::try_from(chance.between(0, 600_000)).unwrap_or(0) - 300_000;
                Member::new(drift, wall_off, chance.between(0, 400))
            })
            .collect();
        let mut policy = Policy {
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
            backup_timeout: Millis(3_000),
            keep_backups: u32::try_from(chance.between(1, 3)).unwrap_or(1),
            traffic,
            drain_timeout: Millis(1_500),
            heal: [Heal::Manual, Heal::Automatic][chance.index(2)],
            quiet_timeout: Millis([0, 1_000, 2_500][chance.index(3)]),
            max_parallel: u32::try_from(chance.between(1, 2)).unwrap_or(1),
            grace: None,
            uploads: None,
            checks: Vec::new(),
            commercial_plugins: chance.permille(300),
            fence: Fencing::Manual,
            fence_after: Millis(1_000),
            order: Vec::from_iter(chance.permille(500).then(|| named("node", chance.between(1, 4)))),
        };
        let fenced = Fenced::new(seed, &mut policy);
        let restores = chance.permille(100);
        let badness = if chance.permille(500) { 1000 } else { 200 };
        let mut world = Self {
            seed,
            badness,
            restores,
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
            fenced,
            restores_of: Restores::new(seed),
            next_id: 0,
            person_next: 1_500,
            stuck_retries: 0,
            given_up: BTreeSet::new(),
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
        let now = self.now;
        self.database.strangers.retain(|(_, until)| *until > now);
        self.elect()?;
        self.deliver()?;
        for member in 0..self.members.len() {
            self.catch_up(member);
        }
        self.lead()?;
        self.serve();
        self.run_fences();
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
                Some((work.token, work.mode, work.solo.clone()?))
            })
            .collect();
        if work.is_empty() {
            self.oracle.watch(fleet, &self.hosts, None, self.now)?;
        }
        for (token, mode, solo) in &work {
            self.oracle.watch(fleet, &self.hosts, Some((*token, *mode, solo)), self.now)?;
        }
        Ok(())
    }

    fn converged(&self) -> bool {
        self.fleet_now().is_some_and(|fleet| whole(fleet, &self.hosts))
            && !self.stale()
            && self.clients.iter().all(|client| client.work.as_ref().is_none_or(|work| work.ended))
    }

    /// Whether some app has not loaded what the database says, or was left as one process.
    fn stale(&self) -> bool {
        self.hosts.iter().any(|host| host.is_stale(&self.database) || host.left_single())
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
