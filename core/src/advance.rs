//! Moving the operation that holds the lock forward, as far as the state allows.
//!
//! ```text
//!  Queued ──► (Confirming) ──► Running ──► … ──► Succeeded
//!                                │  ▲
//!                         stuck  ▼  │ condition true again, retry
//!                              Blocked ──abort──► Aborting ──► Aborted
//! ```

use crate::apply::gone::{left_out, unfit};
use crate::assign::renumber;
use crate::assignment::AppState;
use crate::condition::{Condition, condition, standing};
use crate::event::EventKind;
use crate::fence::is_out;
use crate::finish::{close, finish, turn};
use crate::ids::{BackupId, Generation, NodeId, OperationId, Right, Token};
use crate::journal::Journal;
use crate::operation::{
    Blocked, Bring, Course, HoldMode, Holder, Operation, PluginChange, Request, Status, Step, StepRecord,
};
use crate::outage::note_outage;
use crate::plan::{order_start, plan};
use crate::policy::TASK_ATTEMPTS_MAX;
use crate::quiet;
use crate::remember::{remember_backups, remember_database, told};
use crate::rule::Rule;
use crate::single;
use crate::state::{Desired, Fleet, Lock};
use crate::time::Time;
use crate::upgrade::exposes;

/// Circumstances of one entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Its log index.
    pub(crate) index: u64,
    /// The state's time.
    pub(crate) time: Time,
    /// The wall clock, for people.
    pub(crate) wall_ms: u64,
    /// When the last leader was promoted.
    pub(crate) promoted: Time,
    /// The feature level.
    pub(crate) level: u32,
}

/// Whether every node was heard since the last promotion, or has been given the time for it.
pub(crate) fn settled(fleet: &Fleet, now: Now) -> bool {
    fleet.nodes.values().all(|node| node.heard >= now.promoted)
        || now.time.since(now.promoted) >= fleet.policy.contact_timeout
}

/// Moves on until nothing more can be done in this entry.
pub(crate) fn advance(fleet: &mut Fleet, now: Now, journal: &mut Journal) {
    loop {
        renumber(fleet, now.index);
        if fleet.current().is_none() {
            if !next(fleet, now, journal) {
                return;
            }
            continue;
        }
        if !step(fleet, now, journal) {
            return;
        }
    }
}

/// Lets the head of the queue begin; says whether anything changed.
fn next(fleet: &mut Fleet, now: Now, journal: &mut Journal) -> bool {
    let Some(id) = fleet.queue.front().cloned() else { return false };
    let confirm_timeout = fleet.policy.confirm_timeout;
    let Some(operation) = fleet.operation_mut(&id) else {
        fleet.queue.pop_front();
        return true;
    };
    match operation.status {
        Status::Queued if operation.waited && operation.by != AUTOMATIC => {
            operation.status = Status::Confirming(now.time + confirm_timeout);
            false
        }
        Status::Queued => {
            begin(fleet, &id, now, journal);
            true
        }
        Status::Confirming(_) => false,
        Status::Running
        | Status::Blocked(_)
        | Status::Aborting
        | Status::Succeeded
        | Status::Aborted(_)
        | Status::RolledBack(_) => {
            fleet.queue.pop_front();
            true
        }
    }
}

/// Who asks for the starts that a fleet makes by itself.
pub const AUTOMATIC: &str = "soloist";

/// Gives the lock to an operation and fixes its plan.
pub(crate) fn begin(fleet: &mut Fleet, id: &OperationId, now: Now, journal: &mut Journal) {
    fleet.queue.retain(|queued| queued != id);
    let Some(operation) = fleet.operation(id).cloned() else { return };
    let (steps, solo) = match plan(fleet, &operation) {
        Ok(planned) => planned,
        Err(why) => {
            close(fleet, id, Status::Aborted(why), now, journal);
            return;
        }
    };
    let left_out = left_out(fleet, &operation);
    if let Some(why) = solo.as_ref().and_then(|solo| unfit(fleet, solo, &left_out)) {
        close(fleet, id, Status::Aborted(why), now, journal);
        return;
    }
    let token = Token(now.index);
    fleet.lock = Lock::Held { operation: id.clone(), token, since: now.time, since_wall_ms: now.wall_ms };
    match operation.request {
        Request::Start { install, .. } => {
            if fleet.desired == Desired::Stop {
                // From a stop, every node waits for its turn.
                fleet.nodes.values_mut().for_each(|node| node.admitted = false);
            }
            fleet.desired = Desired::Run;
            fleet.active |= !install;
        }
        Request::AcceptDatabase => fleet.half_restored = None,
        // See `stop_desired`.
        Request::Stop
        | Request::Hold { .. }
        | Request::Plugin { .. }
        | Request::Backup { .. }
        | Request::Restore { .. }
        | Request::RemoveBackup { .. }
        | Request::Upgrade { .. }
        | Request::Packages { .. }
        | Request::Migrate { .. }
        | Request::Prepare { .. }
        | Request::Verify
        | Request::Restart { .. }
        | Request::Heal
        | Request::Remove { .. } => {}
    }
    let from = fleet.database.as_ref().and_then(|database| database.version.clone());
    let pre_grant = fleet.policy.pre_grant_timeout;
    // A new number for every agent: its acknowledgement proves that it can be reached.
    for node in fleet.nodes.values_mut().chain(fleet.balancers.values_mut()) {
        node.assignment.generation = Generation(now.index);
        node.assignment.token = Some(token);
    }
    if let Some(operation) = fleet.operation_mut(id) {
        operation.status = Status::Running;
        operation.token = Some(token);
        operation.began = Some(Generation(now.index));
        operation.from = from;
        operation.plan = steps;
        operation.left_out = left_out;
        operation.solo = solo;
        operation.since = now.time;
        operation.entered = now.time;
        operation.grant_by = Some(operation.grant_by.map_or(now.time + pre_grant, |by| by));
    }
    stop_desired(fleet);
    journal.operation(id, EventKind::LockTaken(token));
}

/// A fleet that is to be stopped should be stopped from the step on that stops it, and not while users are being kept away.
fn stop_desired(fleet: &mut Fleet) {
    let stops = |operation: &Operation| {
        operation.request == Request::Stop
            && operation.course == Course::Forward
            && matches!(operation.step(), Some(Step::Stopped { .. }))
    };
    if fleet.current().is_some_and(stops) {
        fleet.desired = Desired::Stop;
    }
}

/// Looks at the current step; says whether anything changed.
fn step(fleet: &mut Fleet, now: Now, journal: &mut Journal) -> bool {
    let Some(operation) = fleet.current() else { return false };
    if operation.step().is_none() {
        let id = operation.id.clone();
        finish(fleet, &id, now, journal);
        return true;
    }
    if let Some((node, what)) = standing(fleet, operation) {
        let task_runs = matches!(operation.step(), Some(Step::Task { .. } | Step::Released));
        note_breach(fleet, &node, &what, journal);
        if !task_runs {
            block(fleet, Blocked::Breach(node, what), journal);
            return false;
        }
        // What already runs is judged by its end; what comes next is blocked.
        let Some(operation) = fleet.current() else { return false };
        if condition(fleet, operation, settled(fleet, now)) == Condition::Met {
            block(fleet, Blocked::Breach(node, what), journal);
            return false;
        }
    }
    if clear(fleet) {
        return true;
    }
    grant_right(fleet, now);
    note_exposure(fleet, now, journal);
    renumber(fleet, now.index);
    let Some(operation) = fleet.current() else { return false };
    match condition(fleet, operation, settled(fleet, now)) {
        Condition::Met => {
            met(fleet, now, journal);
            true
        }
        Condition::Wait(_) => {
            unblock(fleet, journal);
            false
        }
        Condition::Stuck(blocked) => {
            if goes_back(fleet, operation, &blocked) {
                let id = operation.id.clone();
                let why =
                    if blocked == Blocked::Approval { "it was rejected".into() } else { blocked.to_string() };
                if operation.exposed_wall_ms.is_some() && Rule::WritesAreKept.holds() {
                    block(fleet, Blocked::WritesAtStake(why), journal);
                    return false;
                }
                turn(fleet, &id, Course::Rollback, false, &why, now, journal);
                return true;
            }
            block(fleet, blocked, journal);
            end_waiting_abort(fleet, now, journal)
        }
        Condition::Again => again(fleet, now, journal),
        Condition::Hopeless(why) => {
            let id = operation.id.clone();
            turn(fleet, &id, Course::Restore, false, &why, now, journal);
            true
        }
    }
}

/// Whether an operation that is stuck here goes back by itself, if it may.
fn goes_back(fleet: &Fleet, operation: &Operation, blocked: &Blocked) -> bool {
    if let (Request::Plugin { change: PluginChange::Enable, .. }, Blocked::TaskFailed(node, _)) =
        (&operation.request, blocked)
    {
        // The app cannot be asked to disable it again.
        let seen = fleet.nodes.get(node).and_then(|node| node.observed.as_ref());
        let broken = seen.is_some_and(|seen| matches!(seen.app, AppState::Failed(_)));
        return operation.course == Course::Forward && broken;
    }
    let refused = operation.step() == Some(&Step::Approved) && operation.approved == Some(false);
    operation.request.goes_back()
        && operation.course == Course::Forward
        && operation.granted.is_some()
        && (blocked.can_roll_back() || refused)
}

/// Marks the end of clearing: every node of the last attempt is proven stopped.
fn clear(fleet: &mut Fleet) -> bool {
    let Some(operation) = fleet.current() else { return false };
    let stopped = |name: &NodeId| fleet.nodes.get(name).is_none_or(|node| is_out(fleet, operation, node));
    if operation.clearing.is_empty() || !operation.clearing.iter().all(stopped) {
        return false;
    }
    if let Some(operation) = fleet.current_mut() {
        operation.clearing.clear();
    }
    true
}

/// Makes the right to install, once, when the step that uses it may begin.
fn grant_right(fleet: &mut Fleet, now: Now) {
    let ready = settled(fleet, now);
    let Some(operation) = fleet.current_mut() else { return };
    let asks = matches!(operation.step(), Some(Step::Serving { bring: Bring::Migrate, .. }));
    if asks && operation.right.is_none() && operation.clearing.is_empty() && ready {
        operation.right = Some(Right(now.index));
        operation.migrated = true;
    }
}

/// The step's condition is true: record it and go to the next one.
fn met(fleet: &mut Fleet, now: Now, journal: &mut Journal) {
    unblock(fleet, journal);
    let accept_timeout = fleet.policy.accept_timeout;
    let Some(operation) = fleet.current() else { return };
    let (id, done) = (operation.id.clone(), operation.step().cloned());
    match &done {
        Some(Step::Serving { nodes, .. }) => {
            if let Some(first) = nodes.first().cloned() {
                remember_database(fleet, &first, journal);
            }
        }
        Some(Step::Reachable { absent_ok: true, .. }) => {
            let rest = order_start(fleet, operation);
            if let Some(operation) = fleet.operation_mut(&id) {
                operation.plan.truncate(1);
                operation.plan.extend(rest);
            }
        }
        Some(Step::Reachable { absent_ok: false, .. }) => single::learn(fleet, &id),
        _ => {}
    }
    record(fleet, &id, now, true);
    let Some(operation) = fleet.operation_mut(&id) else { return };
    if let Some(done) = &done {
        journal.operation(&id, EventKind::StepDone(done.to_string()));
    }
    match done {
        Some(Step::Granted) => {
            operation.exclusive_until = None;
            // On the way back it is granted again, by the same token.
            if operation.granted.replace(now.time).is_none()
                && let Some(token) = operation.token
            {
                journal.operation(&id, EventKind::Granted(token));
            }
        }
        Some(Step::Task { .. }) => operation.changed = Some(Generation(now.index)),
        Some(Step::Checked { .. } | Step::Quiet { .. }) => {
            let took = now.time.since(operation.entered);
            operation.grant_by = operation.grant_by.map(|by| by + took);
        }
        _ => {}
    }
    if let Some(Step::Task { nodes, task }) = &done
        && let [node] = nodes.as_slice()
    {
        remember_backups(fleet, &id, node, task, now, journal);
    }
    let Some(operation) = fleet.operation_mut(&id) else { return };
    enter(operation, operation.cursor + 1, now, accept_timeout);
    stop_desired(fleet);
    let Some(operation) = fleet.operation(&id) else { return };
    if let Some(backup) = restores(operation).filter(|_| Rule::HalfRestoreStops.holds()) {
        fleet.half_restored = Some(backup);
    }
    if end_waiting_upgrade(fleet, now, journal) {
        return;
    }
    note_exposure(fleet, now, journal);
    note_outage(fleet, now.time);
}

/// Keeps what became of the current step.
pub(crate) fn record(fleet: &mut Fleet, id: &OperationId, now: Now, done: bool) {
    let Some(operation) = fleet.operation(id) else { return };
    let Some(step) = operation.step() else { return };
    let record = StepRecord {
        step: step.to_string(),
        kind: step.kind(),
        began: operation.entered,
        ended: now.time,
        done,
        attempts: operation.attempt,
        found: told(fleet, step).into_iter().chain(quiet::found(fleet, operation, step)).collect(),
    };
    if let Some(operation) = fleet.operation_mut(id) {
        operation.records.push(record);
    }
}

/// The backup that the current step restores.
pub(crate) fn restores(operation: &Operation) -> Option<BackupId> {
    let Some(Step::Task { task, .. }) = operation.step() else { return None };
    (task.name == "restore").then(|| BackupId::new(task.params.get("backup")?.as_str()).ok())?
}

/// From now on users may write to what an upgrade made.
fn note_exposure(fleet: &mut Fleet, now: Now, journal: &mut Journal) {
    let Some(operation) = fleet.current() else { return };
    if operation.exposed_wall_ms.is_some() || !exposes(fleet, operation) {
        return;
    }
    let id = operation.id.clone();
    if let Some(operation) = fleet.operation_mut(&id) {
        operation.exposed_wall_ms = Some(now.wall_ms);
    }
    journal.operation(&id, EventKind::Exposed);
}

pub(crate) fn enter(operation: &mut Operation, cursor: u32, now: Now, accept_timeout: crate::time::Millis) {
    operation.cursor = cursor;
    operation.attempt = 1;
    operation.since = now.time;
    operation.entered = now.time;
    operation.overdue = false;
    operation.absent.clear();
    operation.clearing.clear();
    let all_stopped = matches!(
        operation.request,
        Request::Hold { mode: HoldMode::AllStopped, .. } | Request::Restore { .. }
    );
    let starts_more = match operation.step() {
        Some(Step::Serving { nodes, bring: Bring::Plain }) => {
            all_stopped
                || single::goes_back(operation)
                || nodes.iter().any(|node| Some(node) != operation.solo.as_ref())
        }
        _ => false,
    };
    if operation.exclusive() && starts_more {
        operation.exclusive_until = Some(now.time);
    }
    if matches!(operation.step(), Some(Step::Released)) {
        operation.holder = Some(Holder {
            accepted: false,
            deadline: now.time + accept_timeout,
            lost: false,
            released: None,
            ended: None,
            seen: false,
        });
    }
}

fn note_breach(fleet: &mut Fleet, node: &NodeId, what: &str, journal: &mut Journal) {
    let Some(operation) = fleet.current_mut() else { return };
    if operation.breached.as_ref().is_some_and(|(at, text)| at == node && text == what) {
        return;
    }
    operation.breached = Some((node.clone(), what.to_owned()));
    let id = operation.id.clone();
    journal.node(Some(&id), node, EventKind::Breach(what.to_owned()));
}

fn block(fleet: &mut Fleet, blocked: Blocked, journal: &mut Journal) {
    let Some(operation) = fleet.current_mut() else { return };
    let status = Status::Blocked(blocked.clone());
    if operation.status != status {
        operation.status = status;
        let id = operation.id.clone();
        journal.operation(&id, EventKind::Blocked(blocked.to_string()));
    }
}

fn unblock(fleet: &mut Fleet, journal: &mut Journal) {
    let Some(operation) = fleet.current_mut() else { return };
    let going = if operation.aborting.is_some() { Status::Aborting } else { Status::Running };
    if matches!(operation.status, Status::Blocked(_)) {
        journal.operation(&operation.id.clone(), EventKind::Unblocked);
    }
    operation.status = going;
}

/// An abort that waited for the end of a task goes on when the task has failed.
fn end_waiting_abort(fleet: &mut Fleet, now: Now, journal: &mut Journal) -> bool {
    let Some(operation) = fleet.current() else { return false };
    let task_failed = matches!(operation.status, Status::Blocked(Blocked::TaskFailed(..)));
    let (Some(why), Course::Forward, true) = (operation.aborting.clone(), operation.course, task_failed)
    else {
        return false;
    };
    let id = operation.id.clone();
    turn(fleet, &id, Course::Restore, false, &why, now, journal);
    true
}

/// An upgrade whose end was asked for while a task ran goes no further when that has ended.
fn end_waiting_upgrade(fleet: &mut Fleet, now: Now, journal: &mut Journal) -> bool {
    let Some(operation) = fleet.current() else { return false };
    let upgrade = operation.request.goes_back() && operation.course == Course::Forward;
    let Some(why) = operation.aborting.clone().filter(|_| upgrade) else { return false };
    let course = if operation.exclusive_until.is_some() { Course::Settle } else { Course::Restore };
    let id = operation.id.clone();
    turn(fleet, &id, course, false, &why, now, journal);
    true
}

/// Another attempt of a task whose agent died in the middle.
fn again(fleet: &mut Fleet, now: Now, journal: &mut Journal) -> bool {
    let ready = settled(fleet, now);
    let Some(operation) = fleet.current_mut() else { return false };
    if let (Some(why), Course::Forward) = (operation.aborting.clone(), operation.course) {
        let id = operation.id.clone();
        turn(fleet, &id, Course::Restore, false, &why, now, journal);
        return true;
    }
    if operation.attempt >= TASK_ATTEMPTS_MAX {
        let why = format!("its agent died in the middle {TASK_ATTEMPTS_MAX} times");
        let node = operation.solo.clone();
        if let Some(node) = node {
            block(fleet, Blocked::TaskFailed(node, why), journal);
        }
        return false;
    }
    if !ready {
        return false;
    }
    operation.attempt += 1;
    operation.since = now.time;
    operation.overdue = false;
    journal.operation(&operation.id.clone(), EventKind::Attempt(operation.attempt));
    true
}
