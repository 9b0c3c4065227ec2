//! The leader's whole timer duty: which deadlines have passed.

use std::collections::BTreeMap;

use crate::advance::{AUTOMATIC, Now, settled};
use crate::apply::sign::frozen;
use crate::assignment::{Needs, Run};
use crate::command::{Command, Timer};
use crate::condition::{Condition, condition};
use crate::fence::{choose, needed};
use crate::ids::{FleetId, NodeId};
use crate::operation::{Blocked, Operation, Request, Status, Step};
use crate::policy::{Fencing, HEAL_PAUSE, Heal};
use crate::state::{Desired, Fleet, Lock, Node, State};
use crate::time::{Millis, Time};

/// The leader's memory of who was heard, by the state's time. Not replicated: a new leader begins empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contact {
    heard: BTreeMap<(FleetId, NodeId), Time>,
    progress: BTreeMap<(FleetId, NodeId), String>,
}

impl Contact {
    /// Notes that a node was heard at `now`, in a session of the run of its agent that is registered.
    pub fn hear(&mut self, fleet: &FleetId, node: &NodeId, now: Time) {
        self.heard.insert((fleet.clone(), node.clone()), now);
    }

    /// Notes what a node's app says of its own progress; empty ends it.
    pub fn note(&mut self, fleet: &FleetId, node: &NodeId, progress: &str) {
        let key = (fleet.clone(), node.clone());
        if progress.is_empty() {
            self.progress.remove(&key);
        } else {
            self.progress.insert(key, progress.to_owned());
        }
    }

    /// What a node's app last said of its own progress.
    pub fn progress(&self, fleet: &FleetId, node: &NodeId) -> Option<String> {
        self.progress.get(&(fleet.clone(), node.clone())).cloned()
    }

    /// When a node was last heard.
    pub fn last(&self, fleet: &FleetId, node: &NodeId) -> Option<Time> {
        self.heard.get(&(fleet.clone(), node.clone())).copied()
    }

    /// Whether a node counts as out of contact. One that was never heard counts from the leader's promotion.
    pub fn lost(&self, fleet: &FleetId, node: &NodeId, state: &State, now: Time) -> bool {
        let Some(found) = state.fleets.get(fleet) else { return true };
        let last = self.last(fleet, node).unwrap_or(state.promoted);
        now.since(last) >= found.policy.contact_timeout
    }

    /// Forgets everything: this member no longer leads.
    pub fn clear(&mut self) {
        self.heard.clear();
        self.progress.clear();
    }
}

/// Adds to a command what only the leader knows. Called by the leader for every command that it proposes.
pub fn witness(command: &mut Command, state: &State, contact: &Contact, now: Time) {
    if let Command::AssumeStopped { fleet, node, heard, .. } = command {
        *heard = !contact.lost(fleet, node, state, now);
    }
    if let Command::Fence { fleet, heard, .. } | Command::Unfence { fleet, heard, .. } = command {
        *heard = those_heard(state, fleet, contact, now);
    }
    if let Command::Register { fleet, node, registration, rival, .. } = command {
        let known = state.fleets.get(fleet).and_then(|fleet| fleet.agent(node));
        let other = known.is_some_and(|known| known.incarnation != registration.incarnation);
        *rival = other && !contact.lost(fleet, node, state, now);
    }
}

/// The agents of a fleet that are heard.
fn those_heard(state: &State, id: &FleetId, contact: &Contact, now: Time) -> Vec<NodeId> {
    let agents = state.fleets.get(id).into_iter().flat_map(Fleet::agents).map(|(name, _)| name);
    agents.filter(|name| !contact.lost(id, name, state, now)).cloned().collect()
}

/// Most nodes in one `Heard` command, so that it stays far below the largest command that a log takes (64 KiB); the rest
/// follows with the next tick.
const HEARD_MAX: usize = 64;

/// The commands that the leader must propose at `now`.
pub fn due(state: &State, contact: &Contact, now: Time) -> Vec<Command> {
    let mut commands = Vec::new();
    let mut heard = Vec::new();
    for (id, fleet) in &state.fleets {
        for (name, node) in fleet.agents() {
            if node.heard < state.promoted
                && contact.last(id, name).is_some_and(|at| at >= state.promoted)
                && heard.len() < HEARD_MAX
            {
                heard.push((id.clone(), name.clone()));
            }
        }
        let mut timers = Vec::new();
        of_queue(fleet, now, &mut timers);
        if let Some(operation) = fleet.current() {
            of_current(state, id, fleet, operation, contact, now, &mut timers);
        }
        let is_heard = |name: &NodeId| {
            contact.last(id, name).is_some_and(|at| now.since(at) < fleet.policy.contact_timeout)
        };
        if auto_start(fleet) && fleet.nodes.iter().any(|(name, node)| waits(node) && is_heard(name)) {
            timers.push(Timer::AutoStart);
        }
        if auto_heal(fleet, now) {
            timers.push(Timer::AutoHeal);
        }
        of_fences(state, id, fleet, contact, now, &mut timers, &mut commands);
        commands.extend(timers.into_iter().map(|timer| Command::Timer { fleet: id.clone(), timer }));
    }
    if !heard.is_empty() {
        commands.push(Command::Heard { nodes: heard });
    }
    commands
}

/// Fences that the fleet puts up by itself, and those whose carrier is not heard.
fn of_fences(
    state: &State,
    id: &FleetId,
    fleet: &Fleet,
    contact: &Contact,
    now: Time,
    timers: &mut Vec<Timer>,
    commands: &mut Vec<Command>,
) {
    let heard = those_heard(state, id, contact, now);
    for (name, node) in &fleet.nodes {
        for (covers, fence) in &node.fences {
            let other = choose(fleet, name, *covers, &heard).is_some_and(|(found, _)| found == *covers);
            let carried = fence.up && fence.holds || heard.contains(&fence.carrier);
            if other && !carried {
                timers.push(Timer::Carry(name.clone(), *covers, heard.clone()));
            }
        }
    }
    let Some(operation) = fleet.current().filter(|_| fleet.policy.fence == Fencing::Automatic) else {
        return;
    };
    let Status::Blocked(Blocked::Unreachable(missing)) = &operation.status else { return };
    let needed = needed(fleet, operation);
    for name in missing {
        let Some(node) = fleet.nodes.get(name) else { continue };
        let silent = now.since(contact.last(id, name).unwrap_or(state.promoted));
        let asked = node.fences.iter().any(|(covers, fence)| *covers >= needed && fence.up);
        let may = node.assignment.spec.run == Run::Stop || operation.granted.is_none();
        if !asked
            && may
            && operation.solo.as_ref() != Some(name)
            && silent.0 >= fleet.policy.contact_timeout.0 + fleet.policy.fence_after.0
            && choose(fleet, name, needed, &heard).is_some()
        {
            let (fleet, node, heard, by) = (id.clone(), name.clone(), heard.clone(), AUTOMATIC.to_owned());
            let reason = format!("{} waits for it, and it is out of contact", operation.id);
            commands.push(Command::Fence { fleet, node, covers: None, heard, by, reason });
        }
    }
}

fn of_queue(fleet: &Fleet, now: Time, timers: &mut Vec<Timer>) {
    for id in &fleet.queue {
        let Some(operation) = fleet.operation(id) else { continue };
        if let Status::Confirming(until) = operation.status
            && until <= now
        {
            timers.push(Timer::Confirm(id.clone()));
        } else if operation.grant_by.is_some_and(|by| by <= now) {
            timers.push(Timer::Grant(id.clone()));
        }
    }
}

fn of_current(
    state: &State,
    id: &FleetId,
    fleet: &Fleet,
    operation: &Operation,
    contact: &Contact,
    now: Time,
    timers: &mut Vec<Timer>,
) {
    let name = operation.id.clone();
    let waits_for_grant = operation.granted.is_none() && operation.plan.contains(&Step::Granted);
    let forward =
        matches!(operation.status, Status::Running | Status::Blocked(_)) && operation.aborting.is_none();
    if waits_for_grant && forward && !checks(operation) && operation.grant_by.is_some_and(|by| by <= now) {
        timers.push(Timer::Grant(name.clone()));
    }
    if let (Some(Step::Released), Some(holder), Some(token)) =
        (operation.step(), &operation.holder, operation.token)
    {
        if !holder.lost && holder.released.is_none() && holder.deadline <= now {
            timers.push(Timer::Lease(name.clone(), token));
        }
        if holder.lost && holder.ended.is_some_and(|at| at + fleet.policy.restore_after <= now) {
            timers.push(Timer::Restore(name.clone(), token));
        }
    }
    if matches!(operation.step(), Some(Step::Reachable { absent_ok: true, .. }))
        && now.since(operation.since) >= fleet.policy.gather_timeout
    {
        timers.push(Timer::Gather(name.clone()));
    }
    if !operation.overdue
        && step_limit(fleet, operation).is_some_and(|limit| now.since(operation.since) >= limit)
    {
        timers.push(Timer::Step(name.clone(), operation.cursor, operation.attempt));
    }
    let (promoted, level) = (state.promoted, state.level);
    let at = Now { index: 0, time: now, wall_ms: 0, promoted, level };
    let waits = match condition(fleet, operation, settled(fleet, at)) {
        Condition::Wait(waits) => waits,
        Condition::Again => {
            timers.push(Timer::Settled);
            return;
        }
        Condition::Met | Condition::Stuck(_) | Condition::Hopeless(_) => return,
    };
    if settled(fleet, at)
        && waits.iter().any(|wait| wait.node.is_none())
        && operation.step() != Some(&Step::Released)
    {
        timers.push(Timer::Settled);
    }
    let absent: Vec<NodeId> = waits
        .into_iter()
        .filter_map(|wait| wait.node)
        .filter(|node| contact.lost(id, node, state, now) && !operation.absent.contains(node))
        .collect();
    if !absent.is_empty() && !matches!(operation.step(), Some(Step::Reachable { absent_ok: true, .. })) {
        timers.push(Timer::Absent(name, operation.cursor, absent));
    }
}

/// Whether it looks at what could be done, copies ahead, or waits until nodes are quiet: that has a limit of its own, and does not
/// count towards the grant's.
pub(crate) fn checks(operation: &Operation) -> bool {
    matches!(operation.step(), Some(Step::Checked { .. } | Step::Quiet { .. })) && !operation.overdue
}

/// How much longer than its deadline for what is under way a load balancer may take.
const DRAIN_MORE: Millis = Millis::from_secs(30);

/// How long an attempt of the current step may take; `None` where only the grant's own deadline counts.
pub(crate) fn step_limit(fleet: &Fleet, operation: &Operation) -> Option<Millis> {
    match operation.step()? {
        Step::Drained { .. } | Step::InService => Some(Millis(fleet.policy.drain_timeout.0 + DRAIN_MORE.0)),
        // Nobody is blocked by it: the step is done when it passes.
        Step::Quiet { .. } => Some(fleet.policy.quiet_timeout),
        Step::Stopped { .. } => Some(fleet.policy.stop_timeout),
        Step::Serving { .. } | Step::Converted { .. } | Step::Proved { .. } => {
            Some(fleet.policy.start_timeout)
        }
        Step::Task { task, .. } | Step::Checked { task, .. } if task.needs != Needs::Serving => {
            Some(fleet.policy.backup_timeout)
        }
        Step::Task { .. } | Step::Checked { .. } => Some(fleet.policy.task_timeout),
        Step::Reachable { .. }
        | Step::Empty { .. }
        | Step::Granted
        | Step::Released
        | Step::Approved
        | Step::HolderGone => None,
    }
}

/// Whether the fleet should restart stale nodes by itself: it may, nothing else is going on, and the last time is long ago.
pub(crate) fn auto_heal(fleet: &Fleet, now: Time) -> bool {
    let lately = fleet.operations.iter().any(|operation| {
        operation.by == AUTOMATIC
            && operation.request == Request::Heal
            && operation.ended.is_none_or(|ended| now.since(ended) < HEAL_PAUSE)
    });
    fleet.policy.heal == Heal::Automatic
        && fleet.restored.is_none()
        && fleet.active
        && fleet.desired == Desired::Run
        && fleet.lock == Lock::Free
        && fleet.queue.is_empty()
        && frozen(fleet, now).is_none()
        && !lately
        && fleet.nodes.values().any(|node| node.admitted && !node.stale().is_empty())
}

/// Whether the fleet should start nodes by itself: it was started by a person once and should run, some node came
/// back or is new, and nothing else is going on.
pub(crate) fn auto_start(fleet: &Fleet) -> bool {
    let asked = fleet.operations.iter().any(|operation| {
        operation.by == AUTOMATIC
            && !operation.status.ended()
            && matches!(operation.request, Request::Start { .. })
    });
    fleet.restored.is_none()
        && fleet.active
        && fleet.desired == Desired::Run
        && fleet.lock == Lock::Free
        && fleet.queue.is_empty()
        && !asked
        && fleet.nodes.values().any(waits)
}

/// Whether a node waits for a start.
fn waits(node: &Node) -> bool {
    node.returned && !node.admitted && node.fences.is_empty()
}
