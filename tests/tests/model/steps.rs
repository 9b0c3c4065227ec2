//! What may happen in a state, and what comes of it.

use soloist_core::command::{FEATURE_LEVEL, Timer};
use soloist_core::due::{Contact, due, witness};
use soloist_core::event::EventKind;
use soloist_core::fence::FenceOrder;
use soloist_core::ids::NodeId;
use soloist_core::operation::Status;
use soloist_core::rule::Rule;
use soloist_core::{Command, Entry, Rejection, Reply, apply};

use crate::canon::canonical;
use crate::world::{Client, Config, NOW, TICK, World, fleet, name, operation};

/// One thing that happens.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    // The coordinators.
    Tick,
    Promote,
    Hear(usize),
    Due(Box<Command>),
    // Clients and people, by the operation or the node.
    Submit(usize),
    Confirm(usize),
    Accept(usize),
    Renew(usize),
    EndWork(usize),
    Release(usize),
    Vanish(usize),
    GiveUp(usize),
    Abort(usize),
    Retry,
    Force,
    Fence(usize),
    Unfence(usize),
    Assume(usize),
    // Between a host and the coordinators.
    Register { host: usize, answered: bool },
    Report(usize),
    Delay(usize),
    Arrive(usize),
    Serve(usize),
    Lag(usize),
    ServeLagged(usize),
    // On a host.
    Act(usize),
    Exec(usize),
    Up(usize),
    Down(usize),
    EndTask(usize),
    Crash(usize),
    Foreign(usize),
    EndForeign(usize),
    Restart { host: usize, ledger: bool },
    PowerOff(usize),
    PowerOn(usize),
    Cut(usize),
    Mend(usize),
    Clone { from: usize, to: usize },
    // Where fences act.
    Call(usize, FenceOrder),
    Reach { call: usize, again: bool },
    Leave(usize),
}

/// What happens in one state, to come to the next.
pub(crate) struct Steps<'a> {
    pub(crate) config: &'a Config,
    pub(crate) world: World,
}

/// Everything that may happen.
pub(crate) fn possible(config: &Config, world: &World) -> Vec<Step> {
    let mut steps = Vec::new();
    if world.wrong.is_some() {
        return steps;
    }
    of_coordinators(config, world, &mut steps);
    of_people(config, world, &mut steps);
    for host in 0..world.hosts.len() {
        of_host(config, world, host, &mut steps);
    }
    for (call, made) in world.calls.iter().enumerate() {
        steps.push(Step::Reach { call, again: false });
        if world.left.repeats > 0 && made.order.covers == soloist_core::fence::Covers::Database {
            steps.push(Step::Reach { call, again: true });
        }
    }
    let left = world.doors.iter().enumerate().filter(|(_, door)| door.locked && door.inside);
    steps.extend(left.map(|(node, _)| Step::Leave(node)));
    steps
}

fn contact(world: &World) -> Contact {
    let mut contact = Contact::default();
    for (node, heard) in world.heard.iter().enumerate() {
        if let Some(at) = heard {
            contact.hear(&fleet(), &name(node), *at);
        }
    }
    contact
}

fn of_coordinators(config: &Config, world: &World, steps: &mut Vec<Step>) {
    steps.push(Step::Tick);
    if world.left.promotes > 0 {
        steps.push(Step::Promote);
    }
    for (node, heard) in world.heard.iter().enumerate() {
        if heard.is_none() && speaker(world, node).is_some() {
            steps.push(Step::Hear(node));
        }
    }
    for command in due(&world.core, &contact(world), NOW) {
        let rings = match &command {
            Command::Timer { timer: Timer::AutoStart, .. } => world.left.autos > 0,
            Command::Timer { timer: Timer::Step(..) | Timer::Grant(_), .. } => config.overdue,
            _ => true,
        };
        if rings {
            steps.push(Step::Due(Box::new(command)));
        }
    }
}

/// The host whose agent speaks for a node.
pub(crate) fn speaker(world: &World, node: usize) -> Option<usize> {
    let known = world.fleet()?.nodes.get(&name(node))?;
    let speaks = |host: &crate::world::Host| {
        let run = host.run.as_ref().filter(|_| host.connected());
        host.node == node && run.is_some_and(|run| run.registered && run.incarnation == known.incarnation)
    };
    world.hosts.iter().position(speaks)
}

fn of_people(config: &Config, world: &World, steps: &mut Vec<Step>) {
    let Some(fleet) = world.fleet() else { return };
    let left = &world.left;
    for (at, client) in world.clients.iter().enumerate() {
        let asked = fleet.operation(&operation(at));
        match client {
            Client::Before => steps.push(Step::Submit(at)),
            Client::Asked => {
                if asked.is_some_and(|asked| matches!(asked.status, Status::Confirming(_))) {
                    steps.push(Step::Confirm(at));
                }
                if asked.and_then(|asked| asked.holder.as_ref()).is_some_and(|holder| !holder.accepted) {
                    // It works where it runs, which is not where the power is off.
                    if world.hosts[config.holders_on].up {
                        steps.push(Step::Accept(at));
                    }
                    if left.vanishes > 0 {
                        steps.push(Step::GiveUp(at));
                    }
                }
                if left.aborts > 0 {
                    steps.push(Step::Abort(at));
                }
            }
            Client::Works(_) => {
                steps.extend([Step::Renew(at), Step::EndWork(at)]);
                if left.vanishes > 0 {
                    steps.push(Step::Vanish(at));
                }
                if left.aborts > 0 {
                    steps.push(Step::Abort(at));
                }
            }
            Client::Orphan(_) => steps.push(Step::EndWork(at)),
            Client::Done(_) => {
                steps.push(Step::Release(at));
                if left.vanishes > 0 {
                    steps.push(Step::GiveUp(at));
                }
            }
            Client::Gone | Client::Ended(_) => {}
        }
    }
    let Some(operation) = fleet.current() else { return };
    if left.retries > 0 && matches!(operation.status, Status::Blocked(_)) {
        steps.push(Step::Retry);
    }
    if left.forces > 0 && matches!(operation.status, Status::Blocked(_)) {
        steps.push(Step::Force);
    }
    for (known, node) in &fleet.nodes {
        let at = crate::world::place(known);
        if left.fences > 0 && !config.covers.is_empty() && operation.solo.as_ref() != Some(known) {
            steps.push(Step::Fence(at));
        }
        if !node.fences.is_empty() {
            steps.push(Step::Unfence(at));
        }
        let off = world.hosts.iter().all(|host| host.node != at || !host.up);
        if config.assumes && off && node.assumed.is_none() && node.stop_evidence.is_none() {
            steps.push(Step::Assume(at));
        }
    }
}

fn of_host(config: &Config, world: &World, at: usize, steps: &mut Vec<Step>) {
    let host = &world.hosts[at];
    let left = &world.left;
    if left.clones > 0 && host.runs > 0 {
        let free = world.hosts.iter().position(|other| other.node == host.node && other.runs == 0);
        steps.extend(free.map(|to| Step::Clone { from: at, to }));
    }
    if !host.up {
        if host.runs > 0 {
            steps.push(Step::PowerOn(at));
        }
        if host.late.is_some() {
            steps.push(Step::Arrive(at));
        }
        return;
    }
    let known = world.fleet().and_then(|fleet| fleet.nodes.get(&name(host.node)));
    if let Some(run) = host.run.as_ref() {
        let current = run.registered && known.is_some_and(|known| known.incarnation == run.incarnation);
        if host.connected() {
            if !current {
                steps.push(Step::Register { host: at, answered: true });
                if left.unheard > 0 {
                    steps.push(Step::Register { host: at, answered: false });
                }
            }
            if run.registered {
                let observed = crate::host::observed(config, world, at);
                let news = known.is_none_or(|known| known.observed.as_ref() != Some(&observed))
                    || world.heard[host.node] != Some(NOW);
                if news && current {
                    steps.push(Step::Report(at));
                }
                if left.delays > 0 && host.late.is_none() {
                    steps.push(Step::Delay(at));
                }
            }
            let served = if Rule::RegisterFirst.holds() { current } else { true };
            if let Some(known) = known.filter(|_| served)
                && (host.ledger.assignment.as_ref().map(|have| have.generation)
                    != Some(known.assignment.generation)
                    || host.ledger.boot != crate::world::boot(at, host.boot))
            {
                steps.push(Step::Serve(at));
            }
            if host.lagged.is_some() && (run.registered || !Rule::RegisterFirst.holds()) {
                steps.push(Step::ServeLagged(at));
            }
        }
        if left.lags > 0 && host.lagged.is_none() && known.is_some() {
            steps.push(Step::Lag(at));
        }
        if crate::host::acts(config, world, at) {
            steps.push(Step::Act(at));
        }
    }
    if host.late.is_some() {
        steps.push(Step::Arrive(at));
    }
    if host.keeper.is_some() {
        steps.push(Step::Exec(at));
    }
    if let Some(app) = &host.app {
        if app.stopping {
            steps.push(Step::Down(at));
        } else {
            if !app.serves && !world.shut_out(host) {
                steps.push(Step::Up(at));
            }
            if left.crashes > 0 {
                steps.push(Step::Crash(at));
            }
        }
    }
    if host.child.is_some() {
        steps.push(Step::EndTask(at));
    }
    if left.foreign > 0 && !host.foreign {
        steps.push(Step::Foreign(at));
    }
    if host.foreign {
        steps.push(Step::EndForeign(at));
    }
    if left.restarts > 0 {
        steps.push(Step::Restart { host: at, ledger: true });
    }
    if left.ledgers > 0 {
        steps.push(Step::Restart { host: at, ledger: false });
    }
    if left.powers > 0 {
        steps.push(Step::PowerOff(at));
    }
    if host.cut {
        steps.push(Step::Mend(at));
    } else if left.cuts > 0 {
        steps.push(Step::Cut(at));
    }
    for order in crate::host::to_call(world, at) {
        steps.push(Step::Call(at, order));
    }
}

impl Steps<'_> {
    /// The state after a step; `None` if nothing comes of it.
    pub(crate) fn take(mut self, step: Step) -> Option<World> {
        match step {
            Step::Tick => self.tick(),
            Step::Promote => {
                self.world.left.promotes -= 1;
                self.world.heard.fill(None);
                self.world.passed = false;
                self.propose(Command::Promote { member: 1 }).ok()?;
            }
            Step::Hear(node) => self.world.heard[node] = Some(NOW),
            Step::Due(command) => {
                if let Command::Timer { timer: Timer::AutoStart, .. } = &*command {
                    self.world.left.autos -= 1;
                }
                self.propose(*command).ok()?;
            }
            Step::Submit(_)
            | Step::Confirm(_)
            | Step::Accept(_)
            | Step::Renew(_)
            | Step::EndWork(_)
            | Step::Release(_)
            | Step::Vanish(_)
            | Step::GiveUp(_)
            | Step::Abort(_)
            | Step::Retry
            | Step::Force
            | Step::Fence(_)
            | Step::Unfence(_)
            | Step::Assume(_) => self.person(step)?,
            Step::Register { .. }
            | Step::Report(_)
            | Step::Delay(_)
            | Step::Arrive(_)
            | Step::Serve(_)
            | Step::Lag(_)
            | Step::ServeLagged(_) => self.message(step)?,
            Step::Call(..) | Step::Reach { .. } | Step::Leave(_) => self.fence(step),
            _ => self.on_host(step)?,
        }
        self.judge();
        canonical(&mut self.world, self.config.overdue);
        Some(self.world)
    }

    /// A timeout passes; whoever can be heard is.
    fn tick(&mut self) {
        self.world.passed = true;
        let core = std::sync::Arc::make_mut(&mut self.world.core);
        core.now = NOW + TICK;
        for node in 0..self.config.nodes {
            if speaker(&self.world, node).is_some() {
                self.world.heard[node] = Some(NOW + TICK);
            }
        }
    }

    /// Writes a command into the log and applies it.
    pub(crate) fn propose(&mut self, mut command: Command) -> Result<Reply, Rejection> {
        let contact = contact(&self.world);
        let world = &mut self.world;
        witness(&mut command, &world.core, &contact, NOW);
        let index = world.next;
        world.next += 1;
        let entry = Entry { time: NOW, wall_ms: 0, feature_level: FEATURE_LEVEL, command };
        let before = world.core.clone();
        let outcome = apply(std::sync::Arc::make_mut(&mut world.core), index, &entry);
        for (_, event) in &outcome.events {
            match &event.kind {
                EventKind::Granted(token) => self.at_grant(*token),
                EventKind::HolderLost => self.at_loss(),
                _ => {}
            }
        }
        self.compare(&before);
        outcome.reply
    }
}

/// Who asks in the model.
pub(crate) fn by() -> String {
    "op".into()
}

/// A node of the fleet, for commands.
pub(crate) fn node(at: usize) -> NodeId {
    name(at)
}
