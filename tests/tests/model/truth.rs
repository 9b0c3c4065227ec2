//! What must never be: judged by what truly runs, not by what the core believes.

use soloist_core::State;
use soloist_core::assignment::RunMode;
use soloist_core::ids::{NodeId, Token};
use soloist_core::invariants::invariants;
use soloist_core::operation::{Bring, Course, HoldMode, Operation, Request, Step as Planned};

use crate::steps::Steps;
use crate::world::{Host, World, Wrong, fleet, name, operation, place};

/// The node whose app may run beside what the operation does.
fn alone(operation: &Operation) -> Option<&NodeId> {
    match operation.request {
        Request::Hold { mode: HoldMode::AllStopped, .. } | Request::Stop => None,
        _ => operation.solo.as_ref(),
    }
}

/// Whether the operation may change more than the database.
fn files(operation: &Operation) -> bool {
    matches!(operation.request, Request::Hold { .. } | Request::Stop)
}

fn reaches(world: &World, host: &Host, operation: &Operation) -> bool {
    host.app.is_some() && (files(operation) || !world.shut_out(host))
}

fn stranger(world: &World, operation: &Operation) -> bool {
    let may = alone(operation).map(place);
    world.hosts.iter().any(|host| Some(host.node) != may && reaches(world, host, operation))
}

impl Steps<'_> {
    fn wrong(&mut self, wrong: Wrong) {
        self.world.wrong.get_or_insert(wrong);
    }

    /// Looks at the state as it is.
    pub(crate) fn judge(&mut self) {
        if invariants(&self.world.core).is_err() {
            self.wrong(Wrong::Invariant);
        }
        let world = &self.world;
        let runs =
            |node: usize| world.hosts.iter().filter(|host| host.node == node && host.app.is_some()).count();
        let twice = (0..self.config.nodes).any(|node| runs(node) > 1);
        let migrates = |host: &&Host| {
            host.app.as_ref().is_some_and(|app| !app.serves && matches!(app.mode, RunMode::Migrate(_)))
        };
        let apps = world.hosts.iter().filter(|host| host.app.is_some() && !world.shut_out(host)).count();
        let beside = world.hosts.iter().any(|host| migrates(&host)) && apps > 1;
        let solo = world.fleet().and_then(|fleet| fleet.current()).is_some_and(|operation| {
            operation.exclusive() && operation.course == Course::Forward && stranger(world, operation)
        });
        let works = self.works_beside();
        if twice {
            self.wrong(Wrong::Twice);
        }
        if beside {
            self.wrong(Wrong::Migrate);
        }
        if solo || works {
            self.wrong(Wrong::Solo);
        }
        self.successor();
    }

    /// Whether an app runs beside a holder's work.
    fn works_beside(&self) -> bool {
        let world = &self.world;
        world.clients.iter().zip(&self.config.operations).any(|(client, request)| {
            let Request::Hold { mode, on } = request else { return false };
            let may = on.as_ref().filter(|_| *mode == HoldMode::Solo).map(place);
            client.work().is_some()
                && world.hosts.iter().any(|host| Some(host.node) != may && host.app.is_some())
        })
    }

    /// Whether a machine that has taken over is assigned to run while another one of its node runs.
    fn successor(&mut self) {
        let world = &self.world;
        let Some(fleet) = world.fleet() else { return };
        let told = world.hosts.iter().enumerate().any(|(at, host)| {
            let Some(known) = fleet.nodes.get(&name(host.node)) else { return false };
            let speaks = host.run.as_ref().is_some_and(|run| run.incarnation == known.incarnation);
            let runs = known.assignment.spec.run.mode().is_some();
            let elder = |(other, elder): (usize, &Host)| {
                other != at && elder.node == host.node && (elder.app.is_some() || elder.keeper.is_some())
            };
            speaks && runs && world.hosts.iter().enumerate().any(elder)
        });
        if told {
            self.wrong(Wrong::Successor);
        }
    }

    /// The lock is granted.
    pub(crate) fn at_grant(&mut self, token: Token) {
        if token <= self.world.granted {
            self.wrong(Wrong::Token);
        }
        self.world.granted = token;
        let operation = self.world.fleet().and_then(|fleet| fleet.current()).cloned();
        let Some(operation) = operation else { return self.wrong(Wrong::Token) };
        if stranger(&self.world, &operation) {
            self.wrong(Wrong::Solo);
        }
        let out = |node: usize| self.world.hosts.iter().all(|host| host.node != node || !host.up);
        if (0..self.config.nodes).any(|node| self.world.told[node] && !out(node)) {
            self.wrong(Wrong::Foreign);
        }
    }

    /// A holder is lost.
    pub(crate) fn at_loss(&mut self) {
        if !self.world.passed {
            self.wrong(Wrong::Lease);
        }
    }

    /// An app is executed.
    pub(crate) fn at_exec(&mut self, at: usize, mode: RunMode) {
        let Some(fleet) = self.world.fleet() else { return };
        let current = fleet.current();
        if let RunMode::Migrate(right) = mode {
            let asked = current.is_some_and(|operation| {
                matches!(operation.request, Request::Start { install: true, .. })
                    || operation.request.goes_back()
            });
            if self.world.rights.contains(&right.0) || !asked {
                self.wrong(Wrong::Migrate);
            }
            self.world.rights.push(right.0);
            return;
        }
        // In a start from a stop one node serves before the second starts.
        let starts = current.is_some_and(|operation| {
            matches!(operation.request, Request::Start { .. })
                && operation.course == Course::Forward
                && matches!(operation.step(), Some(Planned::Serving { bring: Bring::Plain, .. }))
        });
        let starting = |(other, host): (usize, &Host)| {
            other != at && host.app.as_ref().is_some_and(|app| !app.serves && !app.stopping)
        };
        if starts
            && !self.world.served
            && !self.config.runs
            && self.world.hosts.iter().enumerate().any(starting)
        {
            self.wrong(Wrong::First);
        }
    }

    /// An entry was applied to `before`.
    pub(crate) fn compare(&mut self, before: &State) {
        let Some(held) = before.fleets.get(&fleet()).and_then(|fleet| fleet.current()) else { return };
        let freed = self.world.fleet().is_some_and(|fleet| fleet.lock.holder() != Some(&held.id));
        let at = (0..self.world.clients.len()).find(|at| operation(*at) == held.id);
        if let Some(at) = at.filter(|_| freed)
            && self.world.clients[at].work().is_some()
        {
            self.wrong(Wrong::Freed);
        }
    }
}
