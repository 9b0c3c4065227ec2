//! Hosts: agents by the real decisions, and abstract keepers, apps and children.

use soloist_core::agent::{
    Action, AppSeen, Checked, Facts, Health, Ledger, Seen, accept, observe, reconcile, to_fence,
};
use soloist_core::assignment::{DatabaseFacts, Foreign, Observed, RunMode, TaskResult};
use soloist_core::command::{Registration, Role};
use soloist_core::fence::{Covers, FenceOffer, FenceOrder, FenceSeen, Fences};
use soloist_core::ids::{Incarnation, Launch, Version};
use soloist_core::policy::Policy;
use soloist_core::{Command, Reply};

use crate::steps::{Step, Steps, node};
use crate::world::{
    App, Client, Config, Database, Late, NOW, Run, World, Wrong, boot, fleet, machine, name, place,
};

const LAUNCH: Launch = Launch(1);

/// What an agent sees.
pub(crate) fn seen(config: &Config, world: &World, at: usize) -> Seen {
    let host = &world.hosts[at];
    let version = |installed: bool| installed.then(|| Version("1".into()));
    let app = match &host.app {
        Some(app) if app.stopping => AppSeen::Stopping,
        Some(app) => {
            let health = match (app.serves, world.shut_out(host)) {
                (_, true) => Health::Failed("the database lets nobody in".into()),
                (true, false) => Health::Serving,
                (false, false) => Health::Starting,
            };
            AppSeen::Running { launched: None, health }
        }
        None if host.keeper.is_some() && host.ledger.may_exec(LAUNCH, &boot(at, host.boot)) => {
            AppSeen::Launching
        }
        None if host.ended => AppSeen::Ended("exit status 1".into()),
        None => AppSeen::Gone,
    };
    let facts = Facts {
        code: Some(Version("1".into())),
        processes: Some(1),
        database: (!world.shut_out(host)).then(|| DatabaseFacts {
            identity: "db".into(),
            version: version(world.database == Database::Installed),
            empty: world.database == Database::Empty,
        }),
        ..Facts::default()
    };
    let foreign = Foreign { pid: 1, owner: "admin".into(), command: "node".into() };
    let run = host.run.as_ref();
    let checked = run.and_then(|run| run.checked.clone());
    let works = world.clients.iter().filter_map(|client| client.work()).filter(|_| at == config.holders_on);
    Seen {
        boot: boot(at, host.boot),
        app,
        facts: Some(facts),
        foreign: if host.foreign { vec![foreign] } else { Vec::new() },
        holders: works.collect(),
        busy: host.child.clone(),
        checked: checked.map(|key| Checked { key, result: TaskResult::Done, output: Default::default() }),
        registered: run.is_some_and(|run| run.registered) && host.connected(),
        fences: fences(config, world, at),
        may_restart: true,
        ..Seen::default()
    }
}

/// What the agent would report.
pub(crate) fn observed(config: &Config, world: &World, at: usize) -> Observed {
    observe(&world.hosts[at].ledger, &seen(config, world, at))
}

fn fences(config: &Config, world: &World, at: usize) -> Fences {
    let host = &world.hosts[at];
    let others = (0..config.nodes).filter(|other| *other != host.node);
    let offers = others.flat_map(|other| {
        config.covers.iter().map(move |covers| FenceOffer {
            node: name(other),
            covers: *covers,
            unarmed: None,
        })
    });
    let orders = to_fence(&host.ledger, &boot(at, host.boot)).iter();
    let seen = orders.map(|order| FenceSeen {
        node: order.node.clone(),
        covers: order.covers,
        generation: order.generation,
        done: is_done(world, at, order),
        trouble: None,
    });
    Fences { offers: offers.collect(), seen: seen.collect() }
}

fn is_done(world: &World, at: usize, order: &FenceOrder) -> bool {
    let target = place(&order.node);
    let acted = world.hosts[at].run.as_ref().is_some_and(|run| run.acted.contains(order));
    acted
        && match order.covers {
            Covers::Machine => world.hosts.iter().all(|host| host.node != target || !host.up),
            Covers::Database => {
                let door = &world.doors[target];
                soloist_core::agent::is_done(order, door.locked, usize::from(door.inside))
            }
        }
}

/// The calls that an agent would make now.
pub(crate) fn to_call(world: &World, at: usize) -> Vec<FenceOrder> {
    let host = &world.hosts[at];
    let Some(run) = host.run.as_ref() else { return Vec::new() };
    let orders = to_fence(&host.ledger, &boot(at, host.boot)).iter();
    let waits = |order: &FenceOrder| {
        let mine = |call: &crate::world::Call| call.carrier == at && call.order == *order;
        world.calls.iter().any(mine)
    };
    let again = |order: &FenceOrder| order.covers == Covers::Machine && !is_done(world, at, order);
    orders.filter(|order| !waits(order) && (!run.acted.contains(order) || again(order))).cloned().collect()
}

/// Whether the agent has something to do.
pub(crate) fn acts(config: &Config, world: &World, at: usize) -> bool {
    !reconcile(&world.hosts[at].ledger, &seen(config, world, at)).is_empty()
}

impl Steps<'_> {
    pub(crate) fn message(&mut self, step: Step) -> Option<()> {
        match step {
            Step::Register { host: at, answered } => self.register(at, answered)?,
            Step::Report(at) => {
                let observed = observed(self.config, &self.world, at);
                let run = self.world.hosts[at].run.as_mut()?;
                run.sequence += 1;
                let late = Late { incarnation: run.incarnation, sequence: run.sequence, observed };
                self.report(at, late);
            }
            Step::Delay(at) => {
                self.world.left.delays -= 1;
                let observed = observed(self.config, &self.world, at);
                let host = &mut self.world.hosts[at];
                let run = host.run.as_mut()?;
                run.sequence += 1;
                host.late = Some(Late { incarnation: run.incarnation, sequence: run.sequence, observed });
            }
            Step::Arrive(at) => {
                let late = self.world.hosts[at].late.take()?;
                self.report(at, late);
            }
            Step::Serve(at) => {
                let assignment =
                    self.world.fleet()?.nodes.get(&name(self.world.hosts[at].node))?.assignment.clone();
                self.take_on(at, &assignment);
            }
            Step::Lag(at) => {
                self.world.left.lags -= 1;
                let host = &self.world.hosts[at];
                let assignment = self.world.fleet()?.nodes.get(&name(host.node))?.assignment.clone();
                self.world.hosts[at].lagged = Some(assignment);
            }
            Step::ServeLagged(at) => {
                let assignment = self.world.hosts[at].lagged.take()?;
                self.take_on(at, &assignment);
            }
            _ => {}
        }
        Some(())
    }

    fn register(&mut self, at: usize, answered: bool) -> Option<()> {
        let host = &self.world.hosts[at];
        let incarnation = host.run.as_ref()?.incarnation;
        let registration = Registration {
            incarnation,
            lineage: host.ledger.lineage.clone(),
            fresh: host.ledger.fresh(),
            machine: machine(at),
            boot: boot(at, host.boot),
            address: String::new(),
            role: Role::App,
        };
        let at_node = host.node;
        if !answered {
            self.world.left.unheard -= 1;
        }
        let policy = Policy::default();
        let command =
            Command::Register { fleet: fleet(), node: node(at_node), registration, policy, rival: false };
        match self.propose(command) {
            Ok(Reply::Registered { floor }) => {
                if answered {
                    let host = &mut self.world.hosts[at];
                    host.ledger = host.ledger.confirmed(incarnation, floor);
                    host.run.as_mut()?.registered = true;
                }
                Some(())
            }
            // It asks again later.
            _ => None,
        }
    }

    fn report(&mut self, at: usize, late: Late) {
        let node_at = self.world.hosts[at].node;
        let speaks = self.world.fleet().and_then(|fleet| fleet.nodes.get(&name(node_at)));
        if let Some(known) = speaks.filter(|known| known.incarnation == late.incarnation) {
            let newest = late.sequence > known.sequence;
            self.world.heard[node_at] = Some(NOW);
            if newest {
                self.world.told[node_at] = !late.observed.foreign.is_empty();
            }
        }
        let Late { incarnation, sequence, observed } = late;
        let observed = Box::new(observed);
        let command =
            Command::Report { fleet: fleet(), node: node(node_at), incarnation, sequence, observed };
        let superseded = self.propose(command).is_err();
        if superseded
            && let Some(run) = self.world.hosts[at].run.as_mut()
            && run.incarnation == incarnation
        {
            run.registered = false;
        }
    }

    fn take_on(&mut self, at: usize, assignment: &soloist_core::assignment::Assignment) {
        let host = &mut self.world.hosts[at];
        let registered = host.run.as_ref().is_some_and(|run| run.registered);
        if let Ok(Some(ledger)) = accept(&host.ledger, assignment, &boot(at, host.boot), registered) {
            host.ledger = ledger;
            if self.config.eager {
                self.act(at);
            }
        }
    }

    fn act(&mut self, at: usize) {
        let seen = seen(self.config, &self.world, at);
        for action in reconcile(&self.world.hosts[at].ledger, &seen) {
            let host = &mut self.world.hosts[at];
            match action {
                Action::Stop { .. } => {
                    host.ledger = host.ledger.without_launch();
                    host.ended = false;
                    host.keeper = None;
                    if let Some(app) = &mut host.app {
                        app.stopping = true;
                    }
                }
                Action::Launch { mode, .. } => {
                    host.ledger = host.ledger.with_launch(LAUNCH, mode, &boot(at, host.boot), Some(1));
                    host.keeper = Some(mode);
                }
                Action::Check(task) => {
                    if let Some(run) = &mut host.run {
                        run.checked = Some(task.key);
                    }
                }
                Action::RunTask(task) => {
                    host.ledger = host.ledger.with_task(task.key.clone());
                    host.child = Some(task);
                    let runs = self.world.hosts.iter().filter(|host| host.child.is_some()).count();
                    if runs > 1 {
                        self.world.wrong.get_or_insert(Wrong::Attempt);
                    }
                }
                Action::RecoverTask(task) => {
                    host.ledger =
                        host.ledger.with_result(task.key, TaskResult::Interrupted, Default::default());
                }
                Action::Prove(_) => {}
            }
        }
    }

    pub(crate) fn on_host(&mut self, step: Step) -> Option<()> {
        match step {
            Step::Act(at) => self.act(at),
            Step::Exec(at) => self.exec(at),
            Step::Up(at) => {
                if matches!(self.world.hosts[at].app.as_ref()?.mode, RunMode::Migrate(_)) {
                    self.world.database = Database::Installed;
                }
                self.world.hosts[at].app.as_mut()?.serves = true;
                self.world.served = true;
            }
            Step::Down(at) => {
                self.world.hosts[at].app = None;
                self.empty(at);
            }
            Step::EndTask(at) => {
                let host = &mut self.world.hosts[at];
                let task = host.child.take()?;
                host.ledger = host.ledger.with_result(task.key, TaskResult::Done, Default::default());
            }
            Step::Crash(at) => {
                self.world.left.crashes -= 1;
                let host = &mut self.world.hosts[at];
                host.app = None;
                host.ended = true;
                self.empty(at);
            }
            Step::Foreign(at) => {
                self.world.left.foreign -= 1;
                self.world.hosts[at].foreign = true;
            }
            Step::EndForeign(at) => self.world.hosts[at].foreign = false,
            Step::Restart { host: at, ledger } => {
                if ledger {
                    self.world.left.restarts -= 1;
                } else {
                    self.world.left.ledgers -= 1;
                    self.world.hosts[at].ledger = Ledger::default();
                }
                self.begin_run(at);
            }
            Step::PowerOff(at) => {
                self.world.left.powers -= 1;
                self.power_off(at);
            }
            Step::PowerOn(at) => {
                self.world.hosts[at].up = true;
                self.world.hosts[at].boot += 1;
                self.begin_run(at);
            }
            Step::Cut(at) => {
                self.world.left.cuts -= 1;
                self.world.hosts[at].cut = true;
            }
            Step::Mend(at) => self.world.hosts[at].cut = false,
            Step::Clone { from, to } => {
                self.world.left.clones -= 1;
                self.world.hosts[to].ledger = self.world.hosts[from].ledger.clone();
                self.world.hosts[to].up = true;
                self.begin_run(to);
            }
            _ => return None,
        }
        Some(())
    }

    /// The agent's process begins anew.
    pub(crate) fn begin_run(&mut self, at: usize) {
        let host = &mut self.world.hosts[at];
        host.runs += 1;
        let incarnation = Incarnation(at as u64 * 100 + u64::from(host.runs));
        host.ledger = host.ledger.begin_run(incarnation);
        host.run =
            Some(Run { incarnation, registered: false, sequence: 0, checked: None, acted: Vec::new() });
    }

    pub(crate) fn power_off(&mut self, at: usize) {
        let host = &mut self.world.hosts[at];
        host.up = false;
        (host.run, host.keeper, host.app, host.child) = (None, None, None, None);
        (host.ended, host.foreign) = (false, false);
        self.empty(at);
        if at == self.config.holders_on {
            // A holder's work ends with its host.
            for client in &mut self.world.clients {
                if client.work().is_some() {
                    *client = Client::Gone;
                }
            }
        }
    }

    /// Nobody of this host has sessions in the database any more.
    fn empty(&mut self, at: usize) {
        let node = self.world.hosts[at].node;
        if self.world.hosts.iter().all(|host| host.node != node || host.app.is_none()) {
            self.world.doors[node].inside = false;
        }
    }

    fn exec(&mut self, at: usize) {
        let Some(mode) = self.world.hosts[at].keeper.take() else { return };
        let host = &self.world.hosts[at];
        if !host.ledger.may_exec(LAUNCH, &boot(at, host.boot)) || host.app.is_some() {
            return;
        }
        self.at_exec(at, mode);
        if matches!(mode, RunMode::Migrate(_)) && self.world.database == Database::Empty {
            self.world.database = Database::Half;
        }
        self.world.hosts[at].app = Some(App { mode, serves: false, stopping: false });
        self.world.hosts[at].ended = false;
    }
}
