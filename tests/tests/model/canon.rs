//! One state for all that are alike: numbers count by their order only, times by what has passed, texts not at all.
//!
//! The core compares log indexes with each other and lengths of time with a fleet's timeouts; it never reads a number for what it
//! is. So the indexes of a state are replaced by their ranks, and times by how long ago they were, up to the one timeout. What no
//! decision reads (events, records, texts, ended operations) is dropped.

use std::sync::Arc;

use soloist_core::agent::Ledger;
use soloist_core::assignment::{Observed, Run, RunMode, Spec};
use soloist_core::ids::{Generation, Launch, OperationId};
use soloist_core::operation::{Blocked, Status, Step};
use soloist_core::state::{Fleet, Lock, Node, State};
use soloist_core::time::{Millis, Time};

use crate::world::{Client, NEVER, NOW, TICK, World, fleet, operation};

/// Brings a state to the form that it shares with all that are alike.
pub(crate) fn canonical(world: &mut World, overdue: bool) {
    let mut core = (*world.core).clone();
    let now = core.now;
    let old = now.since(core.promoted) >= TICK;
    for heard in &mut world.heard {
        *heard = heard.map(|at| past(at, now)).filter(|at| !(old && NOW.since(*at) >= TICK));
    }
    if let Some(fleet) = core.fleets.get_mut(&fleet()) {
        close(fleet, &mut world.clients);
        forget(fleet);
        times(fleet, now, overdue, core.promoted, old);
    }
    core.promoted = past(core.promoted, now);
    core.now = NOW;
    core.wall_ms = 0;
    for host in &mut world.hosts {
        trim(&mut host.ledger, host.keeper.is_some() || host.app.is_some());
    }
    sequences(world, &mut core);
    world.calls.sort_by_key(|call| (call.carrier, call.run, call.order.clone()));
    world.rights.sort_unstable();
    rank(world, &mut core);
    world.core = Arc::new(core);
}

fn past(at: Time, now: Time) -> Time {
    Time(NOW.0 - now.since(at).0.min(TICK.0))
}

fn ahead(until: Time, now: Time) -> Time {
    if until <= now {
        NOW
    } else if until.since(now) > TICK {
        NOW + NEVER
    } else {
        NOW + TICK
    }
}

/// Ended operations are remembered by their clients only.
fn close(fleet: &mut Fleet, clients: &mut [Client]) {
    for (at, client) in clients.iter_mut().enumerate() {
        let ended = fleet.operation(&operation(at)).filter(|operation| operation.status.ended());
        if let Some(ended) = ended {
            // Its work may go on.
            if client.work().is_none() {
                *client = Client::Ended(ended.status == Status::Succeeded);
            }
        } else if fleet.operation(&operation(at)).is_none()
            && matches!(client, Client::Done(_) | Client::Gone)
        {
            *client = Client::Ended(false);
        }
    }
    fleet.operations.retain(|operation| !operation.status.ended());
}

fn forget(fleet: &mut Fleet) {
    fleet.events.clear();
    let auto = OperationId::new("auto").expect("a plain name");
    let numbered = |id: &OperationId| id.as_str().starts_with("start-");
    if let Lock::Held { operation, since, since_wall_ms, .. } = &mut fleet.lock {
        (*since, *since_wall_ms) = (NOW, 0);
        if numbered(operation) {
            *operation = auto.clone();
        }
    }
    fleet.queue.iter_mut().filter(|id| numbered(id)).for_each(|id| *id = auto.clone());
    for operation in &mut fleet.operations {
        if numbered(&operation.id) {
            operation.id = auto.clone();
        }
        operation.records.clear();
        operation.breached = None;
        let passed = usize::try_from(operation.cursor).expect("a short plan");
        let mut to_come = operation.plan.iter().skip(passed);
        // Nothing reads it afterwards.
        operation.sought = operation.sought.filter(|_| to_come.any(|step| *step == Step::HolderGone));
        operation.aborting = operation.aborting.take().map(|_| String::new());
        operation.left_out.values_mut().for_each(String::clear);
        if let Status::Blocked(Blocked::Breach(_, text)) = &mut operation.status {
            text.clear();
        }
    }
    for node in fleet.nodes.values_mut() {
        node.assignment.token = None;
        node.stop_evidence = node.stop_evidence.map(|_| Generation(0));
        if let Some(seen) = &mut node.observed {
            seen.launched = None;
        }
    }
}

fn times(fleet: &mut Fleet, now: Time, overdue: bool, promoted: Time, old: bool) {
    for operation in &mut fleet.operations {
        operation.submitted = NOW;
        operation.entered = NOW;
        for at in
            [&mut operation.down, &mut operation.up, &mut operation.granted, &mut operation.exclusive_until]
        {
            *at = at.map(|_| NOW);
        }
        operation.since = if overdue { past(operation.since, now) } else { NOW };
        operation.grant_by = operation.grant_by.map(|by| if overdue { ahead(by, now) } else { NOW + NEVER });
        if let Status::Confirming(until) = &mut operation.status {
            *until = ahead(*until, now);
        }
        if let Some(holder) = &mut operation.holder {
            holder.deadline = ahead(holder.deadline, now);
            holder.ended = holder.ended.map(|at| past(at, now));
        }
    }
    for node in fleet.nodes.values_mut() {
        node.heard = if old || node.heard >= promoted { past(promoted, now) } else { Time(0) };
    }
}

fn trim(ledger: &mut Ledger, in_use: bool) {
    if let Some(assignment) = &mut ledger.assignment {
        assignment.token = None;
        if assignment.generation >= ledger.floor {
            ledger.floor = Generation(0);
        }
    }
    if let Some(ticket) = &mut ledger.launch {
        // A ticket without its keeper or app is good for nothing but to be taken away.
        ticket.launch = Launch(u64::from(in_use));
    }
}

/// Reports of a node count by their order.
fn sequences(world: &mut World, core: &mut State) {
    let Some(fleet) = core.fleets.get_mut(&fleet()) else { return };
    for (name, node) in &mut fleet.nodes {
        let at = crate::world::place(name);
        let mut numbers: Vec<&mut u64> = vec![&mut node.sequence];
        for host in world.hosts.iter_mut().filter(|host| host.node == at) {
            numbers.extend(host.run.iter_mut().map(|run| &mut run.sequence));
            numbers.extend(host.late.iter_mut().map(|late| &mut late.sequence));
        }
        to_ranks(&mut numbers);
    }
}

/// Replaces numbers by their ranks; zero stays zero.
fn to_ranks(numbers: &mut [&mut u64]) -> u64 {
    let mut known: Vec<u64> = numbers.iter().map(|number| **number).filter(|number| *number > 0).collect();
    known.sort_unstable();
    known.dedup();
    for number in numbers.iter_mut().filter(|number| ***number > 0) {
        let rank = known.binary_search(&**number).expect("it was collected");
        **number = rank as u64 + 1;
    }
    known.len() as u64
}

fn rank(world: &mut World, core: &mut State) {
    let mut numbers: Vec<&mut u64> = Vec::with_capacity(64);
    if let Some(fleet) = core.fleets.get_mut(&fleet()) {
        of_fleet(fleet, &mut numbers);
    }
    for host in &mut world.hosts {
        of_ledger(&mut host.ledger, &mut numbers);
        if let Some(mode) = &mut host.keeper {
            of_mode(mode, &mut numbers);
        }
        if let Some(app) = &mut host.app {
            of_mode(&mut app.mode, &mut numbers);
        }
        if let Some(late) = &mut host.late {
            of_observed(&mut late.observed, &mut numbers);
        }
        if let Some(lagged) = &mut host.lagged {
            lagged.token = None;
            numbers.push(&mut lagged.generation.0);
            of_spec(&mut lagged.spec, &mut numbers);
        }
        if let Some(run) = &mut host.run {
            numbers.extend(run.acted.iter_mut().map(|order| &mut order.generation.0));
        }
    }
    for client in &mut world.clients {
        match client {
            Client::Works(token) | Client::Orphan(token) | Client::Done(token) => numbers.push(&mut token.0),
            Client::Before | Client::Asked | Client::Gone | Client::Ended(_) => {}
        }
    }
    numbers.extend(world.doors.iter_mut().filter_map(|door| door.last.as_mut()).map(|last| &mut last.0));
    numbers.extend(world.calls.iter_mut().map(|call| &mut call.order.generation.0));
    numbers.push(&mut world.granted.0);
    numbers.extend(world.rights.iter_mut());
    world.next = to_ranks(&mut numbers) + 1;
}

fn of_fleet<'a>(fleet: &'a mut Fleet, numbers: &mut Vec<&'a mut u64>) {
    if let Lock::Held { token, .. } = &mut fleet.lock {
        numbers.push(&mut token.0);
    }
    for node in fleet.nodes.values_mut() {
        of_node(node, numbers);
    }
    for operation in &mut fleet.operations {
        numbers.extend(operation.token.as_mut().map(|token| &mut token.0));
        numbers.extend(operation.began.as_mut().map(|began| &mut began.0));
        numbers.extend(operation.changed.as_mut().map(|changed| &mut changed.0));
        numbers.extend(operation.sought.as_mut().map(|sought| &mut sought.0));
        numbers.extend(operation.right.as_mut().map(|right| &mut right.0));
    }
}

fn of_node<'a>(node: &'a mut Node, numbers: &mut Vec<&'a mut u64>) {
    numbers.push(&mut node.registered.0);
    numbers.push(&mut node.assignment.generation.0);
    of_spec(&mut node.assignment.spec, numbers);
    numbers.extend(node.stop_since.as_mut().map(|since| &mut since.0));
    numbers.extend(node.fences.values_mut().map(|fence| &mut fence.generation.0));
    if let Some(seen) = &mut node.observed {
        of_observed(seen, numbers);
    }
}

fn of_spec<'a>(spec: &'a mut Spec, numbers: &mut Vec<&'a mut u64>) {
    if let Run::Migrate(right) = &mut spec.run {
        numbers.push(&mut right.0);
    }
    numbers.extend(spec.proof.as_mut().and_then(|proof| proof.since.as_mut()).map(|since| &mut since.0));
    numbers.extend(spec.fences.iter_mut().map(|order| &mut order.generation.0));
}

fn of_mode<'a>(mode: &'a mut RunMode, numbers: &mut Vec<&'a mut u64>) {
    if let RunMode::Migrate(right) = mode {
        numbers.push(&mut right.0);
    }
}

fn of_observed<'a>(seen: &'a mut Observed, numbers: &mut Vec<&'a mut u64>) {
    numbers.push(&mut seen.applied.0);
    numbers.extend(seen.holders.iter_mut().map(|token| &mut token.0));
    numbers.extend(seen.fenced.iter_mut().map(|fenced| &mut fenced.generation.0));
}

fn of_ledger<'a>(ledger: &'a mut Ledger, numbers: &mut Vec<&'a mut u64>) {
    numbers.push(&mut ledger.floor.0);
    numbers.push(&mut ledger.born.0);
    if let Some(assignment) = &mut ledger.assignment {
        numbers.push(&mut assignment.generation.0);
        of_spec(&mut assignment.spec, numbers);
    }
    if let Some(ticket) = &mut ledger.launch {
        of_mode(&mut ticket.mode, numbers);
    }
    numbers.extend(ledger.spent.as_mut().map(|spent| &mut spent.0));
}

/// A fleet's timeouts in the model: those that may pass are one tick long.
pub(crate) fn length(passes: bool) -> Millis {
    if passes { TICK } else { NEVER }
}
