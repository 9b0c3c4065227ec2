//! What truly ran, and what must never be.

use std::collections::{BTreeMap, BTreeSet};

use soloist_core::AUTOMATIC;
use soloist_core::assignment::{Observed, Run, RunMode, Task};
use soloist_core::command::Role;
use soloist_core::event::{Event, EventKind};
use soloist_core::ids::{Generation, NodeId, OperationId, Right, Token};
use soloist_core::operation::{HoldMode, Operation, Request, Status, Step};
use soloist_core::packages::{PACKAGES, PACKAGES_BACK};
use soloist_core::policy::{Policy, Traffic};
use soloist_core::state::Fleet;
use soloist_core::time::Millis;

use super::Summary;
use super::agent::{Host, Lane};
use super::app::{App, Phase};

/// What is promised of a fleet that heals by itself: once in ten minutes, by members' clocks that may run a twentieth too fast.
const HEALS_APART: u64 = 540_000;

/// The oracle's own memory; it believes nothing that the state says of the world.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// The newest report of each node by the order in which it was sent.
    newest: BTreeMap<NodeId, (u64, u64, Observed)>,
    rights: BTreeSet<Right>,
    /// Operations during which some app has served, from their beginning on.
    served: BTreeSet<OperationId>,
    /// True time of the last renewal or promotion that was applied.
    /// The step that waits for quiet, and since when in truth.
    quiet: Option<(OperationId, u32, u64)>,
    last_renewal: u64,
    last_promote: u64,
    /// When the fleet last began to heal by itself, in truth.
    healed: Option<u64>,
    tokens: BTreeSet<Token>,
    /// What users have written and nobody gave up.
    pub(crate) rows: BTreeSet<u64>,
    pub(crate) summary: Summary,
}

impl Oracle {
    /// An entry with a report was applied: `run` orders the runs of the node's agent, `sequence` the reports in one.
    pub(crate) fn reported(&mut self, node: &NodeId, run: u64, sequence: u64, observed: &Observed) {
        let newer = self.newest.get(node).is_none_or(|(r, s, _)| (run, sequence) > (*r, *s));
        if newer {
            self.newest.insert(node.clone(), (run, sequence, observed.clone()));
        }
    }

    /// The members of before are gone, and with them what waited for quiet, and when the fleet was healed.
    pub(crate) fn members_are_lost(&mut self) {
        self.quiet = None;
        self.healed = None;
    }

    pub(crate) fn renewed(&mut self, now: u64) {
        self.last_renewal = now;
    }

    pub(crate) fn promoted(&mut self, now: u64) {
        self.last_promote = now;
    }

    /// Looks at an event of an entry that was just applied.
    pub(crate) fn happened(
        &mut self,
        event: &Event,
        fleet: &Fleet,
        hosts: &[Host],
        policy: &Policy,
        now: u64,
    ) -> Result<(), String> {
        let operation = event.operation.as_ref().and_then(|id| fleet.operation(id));
        match &event.kind {
            EventKind::LockTaken(_) => operation.map_or(Ok(()), |operation| self.heals(operation, now)),
            EventKind::Granted(token) => {
                self.summary.grants += 1;
                if !self.tokens.insert(*token)
                    || self
                        .tokens
                        .range((std::ops::Bound::Excluded(*token), std::ops::Bound::Unbounded))
                        .next()
                        .is_some()
                {
                    return Err(format!("token {token} was granted after an equal or higher one"));
                }
                self.at_grant(fleet, hosts)
            }
            EventKind::HolderLost => {
                self.summary.leases_lost += 1;
                let since = now.saturating_sub(self.last_renewal.max(self.last_promote));
                // The members' clocks may run a twentieth too fast.
                if since < policy.lease.0 * 9 / 10 {
                    return Err(format!(
                        "a lease was lost {since} ms after its last renewal or the last promotion"
                    ));
                }
                Ok(())
            }
            EventKind::Breach(_) => {
                self.summary.breaches += 1;
                Ok(())
            }
            EventKind::StepDone(step) => {
                drained(step, fleet, hosts)?;
                self.quiet(step, fleet, hosts, now)
            }
            EventKind::Ended(how) => {
                self.summary.succeeded += u64::from(how == "succeeded");
                self.summary.rolled_back += u64::from(how.starts_with("rolled back"));
                operation.map_or(Ok(()), |operation| exchanged(operation, hosts))
            }
            _ => Ok(()),
        }
    }

    /// An operation begins: if the fleet heals by itself, that is long after the last time.
    fn heals(&mut self, operation: &Operation, now: u64) -> Result<(), String> {
        if operation.by != AUTOMATIC || operation.request != Request::Heal {
            return Ok(());
        }
        match self.healed.replace(now) {
            Some(last) if now - last < HEALS_APART => {
                Err(format!("the fleet heals by itself again after {} ms", now - last))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A step was done: if it waited for quiet, nothing is under way that was when it began, or it has taken its time.
    fn quiet(&self, done: &str, fleet: &Fleet, hosts: &[Host], now: u64) -> Result<(), String> {
        let Some(operation) = fleet.current() else { return Ok(()) };
        let step =
            operation.plan.iter().find(|step| matches!(step, Step::Quiet { .. }) && step.to_string() == done);
        let Some(Step::Quiet { nodes }) = step else { return Ok(()) };
        let record = operation.records.iter().rev().find(|record| record.step == done);
        let took = record.map_or(Millis(0), |record| record.ended.since(record.began));
        if took >= fleet.policy.quiet_timeout {
            return Ok(());
        }
        // What began later may have come after the look.
        let entered = self.quiet.as_ref().filter(|(id, ..)| *id == operation.id).map_or(now, |(.., at)| *at);
        let busy = |host: &&Host| {
            let waited_for = nodes.contains(&host.name) && operation.takes_part(&host.name) && host.up;
            let began = host.own().and_then(|app| app.work).map(|(since, _)| since);
            waited_for && !host.work(now).is_empty() && began.is_some_and(|since| since < entered)
        };
        match hosts.iter().find(busy) {
            Some(host) => Err(format!("{} counts as quiet, and something is under way there", host.name)),
            None => Ok(()),
        }
    }

    fn at_grant(&self, fleet: &Fleet, hosts: &[Host]) -> Result<(), String> {
        let Some(operation) = fleet.current() else {
            return Err("a grant without a holder of the lock".into());
        };
        let alone = may_run(operation);
        for host in hosts.iter().filter(|host| host.own().is_some() && !harmless(host, operation)) {
            if alone.as_ref() != Some(&host.name) {
                return Err(format!("granted to {} while the app of {} runs", operation.id, host.name));
            }
        }
        // What ran on a machine is gone when that is off.
        let off = |node: &NodeId| {
            // What a person has said of a machine counts more than what it said before.
            let said = fleet.nodes.get(node).is_some_and(|node| node.assumed.is_some());
            said || hosts.iter().any(|host| host.name == *node && (!host.up || harmless(host, operation)))
        };
        for (node, (_, _, observed)) in self.newest.iter().filter(|(node, _)| !off(node)) {
            if let Some(foreign) = observed.foreign.first() {
                return Err(format!(
                    "granted although {node} last reported the foreign process {}",
                    foreign.pid
                ));
            }
            if let Some(session) = observed.sessions.first() {
                return Err(format!(
                    "granted although {node} last reported the database session {}",
                    session.pid
                ));
            }
        }
        Ok(())
    }

    /// A restore has ended, which a person asked for or which an upgrade made by itself.
    pub(crate) fn restored(&mut self, rows: &BTreeSet<u64>, asked: bool) -> Result<(), String> {
        let lost = self.rows.difference(rows).count();
        if lost > 0 && !asked {
            return Err(format!("{lost} rows that users wrote are lost, and nobody gave them up"));
        }
        self.rows.clone_from(rows);
        Ok(())
    }

    /// A keeper is about to execute the app of `hosts[at]` on a database that a restore may have left half.
    pub(crate) fn whole_database(host: &Host, half: bool) -> Result<(), String> {
        if half {
            Err(format!("the app of {} starts on a half-restored database", host.name))
        } else {
            Ok(())
        }
    }

    /// A keeper is about to execute the app of `hosts[at]`.
    pub(crate) fn executes(
        &mut self,
        at: usize,
        mode: RunMode,
        generation: Generation,
        fleet: &Fleet,
        hosts: &[Host],
        version: Option<&str>,
    ) -> Result<(), String> {
        let host = &hosts[at];
        self.summary.launches += 1;
        if host.child.as_ref().is_some_and(|child| child.task.name == "release") {
            return Err(format!("the app of {} starts while its code is switched", host.name));
        }
        let current = fleet.current();
        if let Some(operation) = current.filter(|operation| operation.exclusive())
            && may_run(operation).as_ref() != Some(&host.name)
            && !harmless(host, operation)
        {
            return Err(format!("the app of {} starts while {} is alone", host.name, operation.id));
        }
        match mode {
            RunMode::Migrate(right) => {
                self.summary.migrations += 1;
                let asked = current.is_some_and(|operation| {
                    operation.request.goes_back()
                        || matches!(operation.request, Request::Start { install: true, .. })
                });
                // What the coordinators that were lost had given may be used until the fleet is resumed: nothing else begins before.
                let inherited = fleet.restored.is_some();
                if !asked && !inherited {
                    return Err(format!("{} installs although no operation asked for it", host.name));
                }
                let unsaved = current.is_some_and(|operation| {
                    operation.request.goes_back()
                        && !fleet.backups.keys().any(|backup| backup.as_str() == operation.id.as_str())
                });
                if unsaved {
                    return Err(format!("{} upgrades, and there is no backup", host.name));
                }
                if !self.rights.insert(right) {
                    return Err(format!("{} uses right {right} a second time", host.name));
                }
                let reaches = |other: &&Host| other.own().is_some() && !other.locked_out;
                if let Some(other) = hosts.iter().find(reaches) {
                    return Err(format!("{} installs while the app of {} runs", host.name, other.name));
                }
            }
            RunMode::Plain | RunMode::Single => {
                if version != Some(host.code) && !host.locked_out {
                    return Err(format!(
                        "{} starts plainly with code {} on a database of {version:?}",
                        host.name, host.code
                    ));
                }
            }
        }
        // In a start, the first node serves before the second starts.
        if let Some(operation) = current.filter(|operation| {
            matches!(operation.request, Request::Start { .. })
                && operation.began.is_some_and(|began| generation >= began)
        }) {
            // A node that was out of contact and left out may have begun to start: the others do not wait for it.
            // A node that ran before the operation is started again after a crash whenever that happens.
            let parked = |name: &NodeId| fleet.nodes.get(name).is_some_and(|node| !node.admitted);
            // Neither for one that somebody has started by hand.
            let in_order = |other: &Host| other.by_hand.is_none() && parked(&other.name);
            let counts = |other: &&Host| !operation.left_out.contains_key(&other.name) && in_order(other);
            let waiting = hosts.iter().filter(counts).any(|other| {
                other.own().is_some_and(|app| app.launched >= operation.began && starts(&app.phase))
            });
            let left_out = operation.left_out.contains_key(&host.name) || !parked(&host.name);
            if waiting && !left_out && !self.served.contains(&operation.id) {
                return Err(format!(
                    "{} starts before the first node of {} has served",
                    host.name, operation.id
                ));
            }
        }
        Ok(())
    }

    /// Looks at the world as it is.
    pub(crate) fn watch(
        &mut self,
        fleet: &Fleet,
        hosts: &[Host],
        work: Option<(Token, HoldMode, &NodeId)>,
        now: u64,
    ) -> Result<(), String> {
        self.quiet = fleet.current().and_then(|operation| {
            let key = (operation.id.clone(), operation.cursor);
            let since =
                self.quiet.take().filter(|(id, at, _)| (id, *at) == (&key.0, key.1)).map(|(.., since)| since);
            matches!(operation.step(), Some(Step::Quiet { .. })).then(|| (key.0, key.1, since.unwrap_or(now)))
        });
        if let Some(operation) = fleet.current()
            && hosts.iter().any(|host| host.own().is_some_and(|app| app.phase == Phase::Serving))
        {
            self.served.insert(operation.id.clone());
        }
        if let Some((token, mode, solo)) = work {
            for host in hosts.iter().filter(|host| host.own().is_some()) {
                if mode == HoldMode::AllStopped || host.name != *solo {
                    return Err(format!(
                        "the app of {} runs while the holder of token {token} works",
                        host.name
                    ));
                }
            }
        }
        let changes = |host: &&Host| !host.locked_out && host.own().is_some_and(|app| app.change.is_some());
        let reaches = |host: &&Host| !host.locked_out && host.own().is_some();
        let mut changing = hosts.iter().filter(changes);
        if let Some(first) = changing.next()
            && let Some(other) = hosts.iter().filter(reaches).find(|other| other.name != first.name)
        {
            return Err(format!("the app of {} runs while a plugin changes on {}", other.name, first.name));
        }
        let restores = |host: &&Host| host.child.as_ref().is_some_and(|child| child.task.name == "restore");
        if let Some(host) = hosts.iter().find(restores)
            && let Some(other) = hosts.iter().find(|other| other.own().is_some())
        {
            return Err(format!("the app of {} runs while {} restores", other.name, host.name));
        }
        let migrating: Vec<&Host> = hosts
            .iter()
            .filter(reaches)
            .filter(|host| host.own().is_some_and(|app| matches!(app.phase, Phase::Migrating(..))))
            .collect();
        let running = hosts.iter().filter(reaches).count();
        if !migrating.is_empty() && running > 1 {
            return Err(format!("{running} apps run while {} installs", migrating[0].name));
        }
        Ok(())
    }

    /// A task that copies begins on `host`.
    pub(crate) fn copies(&self, host: &NodeId, hosts: &[Host], task: &Task) -> Result<(), String> {
        if task.name == "release" {
            let runs = hosts.iter().any(|other| other.name == *host && other.own().is_some());
            let text = || format!("the code of {host} is switched while its app runs");
            return if runs { Err(text()) } else { Ok(()) };
        }
        let exchange = |name: &str| [PACKAGES, PACKAGES_BACK].contains(&name);
        if exchange(&task.name) {
            let runs = hosts.iter().find(|other| other.own().is_some());
            let text = |other: &Host| format!("packages are exchanged while the app of {} runs", other.name);
            return runs.map_or(Ok(()), |other| Err(text(other)));
        }
        // A switch of the code concerns nobody but its own host.
        let works = |other: &&Host| other.child.as_ref().is_some_and(|child| child.task.name != "release");
        if let Some(other) = hosts.iter().find(works) {
            return Err(format!("{} begins on {host} while a child of {} works", task.name, other.name));
        }
        match hosts.iter().find(|other| other.own().is_some()) {
            Some(other) if task.name == "restore" => {
                Err(format!("a restore begins on {host} while the app of {} runs", other.name))
            }
            _ => Ok(()),
        }
    }

    /// A plugin change begins in an app.
    pub(crate) fn changes(&self, host: &NodeId, app: &App) -> Result<(), String> {
        if app.change.is_some() {
            return Err(format!("a second attempt changes a plugin on {host} while the first one may run"));
        }
        if app.processes > 1 {
            return Err(format!("a plugin changes in one of the {} processes of {host}", app.processes));
        }
        Ok(())
    }
}

/// An operation has ended: if it was to exchange packages, every node has them, or none where that was taken back.
fn exchanged(operation: &Operation, hosts: &[Host]) -> Result<(), String> {
    if !matches!(operation.request, Request::Packages { .. }) {
        return Ok(());
    }
    let id = &operation.id;
    let has = |host: &&Host| host.packages.as_ref() == Some(id);
    // One that is said to be off is left out, and is stale when it comes back; one that joins meanwhile has nothing to do with it.
    let asked = |host: &Host| {
        let asks = |step: &Step| matches!(step, Step::Reachable { nodes, .. } if nodes.contains(&host.name));
        operation.plan.iter().any(asks)
    };
    let concerned = |host: &&Host| host.role == Role::App && asked(host) && operation.takes_part(&host.name);
    let mut nodes = hosts.iter().filter(concerned);
    let (found, what) = match operation.status {
        Status::Succeeded => (nodes.find(|host| !has(host)), "has succeeded without its packages on"),
        Status::RolledBack(_) => (nodes.find(has), "was taken back, and its packages are still on"),
        _ => return Ok(()),
    };
    found.map_or(Ok(()), |host| Err(format!("{id} {what} {}", host.name)))
}

/// A step was done: if it kept users away from nodes, no load balancer may still send some there.
fn drained(done: &str, fleet: &Fleet, hosts: &[Host]) -> Result<(), String> {
    if fleet.policy.traffic != Traffic::Balancer {
        return Ok(());
    }
    let steps = fleet.current().map(|operation| operation.plan.as_slice()).unwrap_or_default();
    let step = steps.iter().find(|step| matches!(step, Step::Drained { .. }) && step.to_string() == done);
    let Some(Step::Drained { nodes }) = step else { return Ok(()) };
    for host in hosts.iter().filter(|host| host.role == Role::Balancer && host.up) {
        let gives = |name: &&NodeId| {
            let lane = host.lanes.get(*name);
            lane.is_some_and(|(lane, excused)| *lane != Lane::Out && !excused)
        };
        if let Some(node) = nodes.iter().find(gives) {
            return Err(format!("{node} counts as drained, and users of {} are still there", host.name));
        }
    }
    Ok(())
}

/// Whether what runs on a host can do no harm to what the operation changes: it does not reach the database, and nothing else is
/// changed.
fn harmless(host: &Host, operation: &Operation) -> bool {
    let files = matches!(
        operation.request,
        Request::Hold { .. } | Request::Restore { .. } | Request::Packages { .. } | Request::Stop
    );
    host.locked_out && !files
}

fn starts(phase: &Phase) -> bool {
    matches!(phase, Phase::Starting(_) | Phase::Migrating(..))
}

/// The node whose app may run while this operation is exclusive.
fn may_run(operation: &Operation) -> Option<NodeId> {
    match operation.request {
        Request::Hold { mode: HoldMode::AllStopped, .. }
        | Request::Stop
        | Request::Restore { .. }
        | Request::RemoveBackup { .. }
        | Request::Prepare { .. }
        | Request::Verify
        | Request::Restart { .. }
        | Request::Heal
        | Request::Remove { .. }
        | Request::AcceptDatabase => None,
        Request::Hold { mode: HoldMode::Solo, .. }
        | Request::Plugin { .. }
        | Request::Backup { .. }
        | Request::Upgrade { .. }
        | Request::Packages { .. }
        | Request::Migrate { .. }
        | Request::Start { .. } => operation.solo.clone(),
    }
}

/// Whether a fleet is whole: everything runs and nothing is under way.
pub(crate) fn whole(fleet: &Fleet, hosts: &[Host]) -> bool {
    fleet.current().is_none()
        && fleet.queue.is_empty()
        && fleet.active
        && fleet.nodes.len() + fleet.balancers.len() == hosts.len()
        && fleet.nodes.values().all(|node| node.admitted && node.assignment.spec.run == Run::Plain)
        && hosts.iter().all(|host| match host.role {
            Role::App => host.own().is_some_and(|app| app.phase == Phase::Serving && app.stops_at.is_none()),
            Role::Balancer => {
                fleet.nodes.keys().all(|name| host.lanes.get(name).is_some_and(|(lane, _)| *lane == Lane::In))
            }
        })
}
