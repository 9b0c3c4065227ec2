//! Hosts: agents, keepers and apps as they act.

use std::collections::{BTreeMap, BTreeSet};

use soloist_core::agent::{Action, is_over, observe, reconcile, restart_delay};
use soloist_core::assignment::{Needs, Observed, RunMode, TaskPhase, TaskResult};
use soloist_core::command::{Registration, Role};
use soloist_core::ids::{Generation, Launch};
use soloist_core::operation::PluginChange;
use soloist_core::restore::is_served;
use soloist_core::time::Millis;
use soloist_core::upgrade::VERIFY;

use super::super::agent::{Busy, Keeper};
use super::super::app::{App, Change, HALF_VERSION, Phase, Starter};
use super::super::oracle::Oracle;
use super::World;
use super::network::Message;
impl World {
    pub(super) fn run_host(&mut self, at: usize) -> Result<(), String> {
        if !self.hosts[at].up {
            return Ok(());
        }
        self.run_apps(at)?;
        self.run_child(at)?;
        self.run_keepers(at)?;
        let now = self.now;
        self.hosts[at].holders.retain(|(_, until)| *until > now);
        if self.hosts[at].agent_up && now >= self.hosts[at].next_step {
            self.hosts[at].next_step = now + self.chance.between(40, 300);
            match self.hosts[at].role {
                Role::App => self.run_agent(at)?,
                Role::Balancer => self.run_balancer(at),
            }
        }
        Ok(())
    }

    pub(super) fn app_ends(&mut self, at: usize, crashed: bool) {
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

    pub(super) fn run_apps(&mut self, at: usize) -> Result<(), String> {
        let now = self.now;
        self.begin_work(at);
        let stopped = self.hosts[at].own().and_then(|app| app.stops_at).is_some_and(|stops| stops <= now);
        if stopped {
            let cut = self.hosts[at].work(now);
            if !cut.is_empty() && self.hosts[at].agent_up {
                self.oracle.summary.cut_off += 1;
                self.hosts[at].ledger = self.hosts[at].ledger.with_cut(cut);
            }
            self.note(format!("app of {} has stopped", self.hosts[at].name));
            self.app_ends(at, false);
        }
        self.hosts[at]
            .apps
            .retain(|app| app.starter != Starter::Person || app.stops_at.is_none_or(|stops| stops > now));
        let code = self.hosts[at].code;
        let locked_out = self.hosts[at].locked_out;
        let mut lines = Vec::new();
        for app in &mut self.hosts[at].apps {
            match app.phase {
                Phase::Starting(_) | Phase::Migrating(..) if locked_out => {
                    app.phase = Phase::Failed("the database lets nobody in".into());
                }
                Phase::Starting(until) if until <= now => {
                    app.plugins = self.database.plugins.clone();
                    app.phase = if self.database.version.as_deref() == Some(code) {
                        Phase::Serving
                    } else {
                        Phase::Failed("APP_ERROR".into())
                    };
                }
                Phase::Migrating(until, true) if until <= now => {
                    app.phase = Phase::Failed("the migration failed half-way".into());
                    lines.push("a migration fails half-way".to_owned());
                }
                Phase::Migrating(until, false) if until <= now => {
                    self.database.version = Some(code.to_owned());
                    app.plugins = self.database.plugins.clone();
                    app.phase = Phase::Serving;
                    lines.push(format!("the database has version {code}"));
                }
                _ => {}
            }
            if let Some(change) = app.change.clone().filter(|change| change.until <= now) {
                app.change = None;
                if change.fails && change.enable && self.chance.permille(400) {
                    // It is enabled, and breaks the app that loads it.
                    self.database.plugins.insert(change.plugin.clone());
                    app.phase = Phase::Failed("a plugin cannot be loaded".into());
                    lines.push(format!("{} breaks an app", change.plugin));
                }
                if !change.fails && !locked_out {
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

    /// Now and then something begins inside the app by itself.
    fn begin_work(&mut self, at: usize) {
        let now = self.now;
        let serves = |app: &App| app.phase == Phase::Serving && app.stops_at.is_none();
        let idle = self.hosts[at].work(now).is_empty() && self.hosts[at].own().is_some_and(serves);
        if idle && self.chance.permille(3) {
            let until = now + self.chance.between(200, 4_000);
            if let Some(app) = self.hosts[at].own_mut() {
                app.work = Some((now, until));
            }
        }
    }

    /// The agent looks what is under way inside the app, while it is asked; not at each of its steps.
    fn look_inside(&mut self, at: usize) {
        let now = self.now;
        let looks = self.chance.permille(400);
        let host = &mut self.hosts[at];
        if !host.is_asked() {
            host.asked = None;
            return;
        }
        let found = looks.then(|| host.work(now));
        let asked = host.asked.get_or_insert((now, None));
        asked.1 = found.or_else(|| asked.1.take());
    }

    pub(super) fn run_keepers(&mut self, at: usize) -> Result<(), String> {
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
            Oracle::whole_database(&self.hosts[at], self.database.half)?;
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
                RunMode::Plain | RunMode::Single => Phase::Starting(now + self.chance.between(800, 4_000)),
                RunMode::Migrate(_) => {
                    self.database.tables = true;
                    let upgrades = self.database.version.is_some();
                    if upgrades {
                        self.database.version = Some(HALF_VERSION.to_owned());
                    }
                    let fails = upgrades && self.faults && self.chance.permille(250);
                    Phase::Migrating(now + self.chance.between(1_500, 5_000), fails)
                }
            };
            let pid = self.pid();
            self.hosts[at].ended = None;
            self.hosts[at].apps.push(App {
                pid,
                starter: Starter::Keeper(keeper.launch),
                launched: Some(keeper.generation),
                processes: keeper.processes,
                plain: keeper.mode == RunMode::Plain,
                phase,
                plugins: BTreeSet::new(),
                stops_at: None,
                work: None,
                change: None,
            });
        }
        Ok(())
    }

    pub(super) fn run_agent(&mut self, at: usize) -> Result<(), String> {
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
        self.carry_fences(at);
        self.talk(at);
        let held = !self.hosts[at].ready();
        self.hosts[at].held_since = held.then(|| self.hosts[at].held_since.unwrap_or(now));
        self.look_inside(at);
        self.finish_task(at);
        let member = self.hosts[at].session.filter(|_| self.hosts[at].registered);
        self.hosts[at].answered = member.is_some_and(|member| self.reaches(at, member));
        let seen = self.hosts[at].seen(now);
        if is_over(&self.hosts[at].ledger, &seen) {
            self.hosts[at].by_hand = None;
            self.note(format!("the start of {} by hand is over", self.hosts[at].name));
        }
        let seen = self.hosts[at].seen(now);
        for action in reconcile(&self.hosts[at].ledger, &seen) {
            self.act(at, action)?;
        }
        let seen = self.hosts[at].seen(now);
        let observed = observe(&self.hosts[at].ledger, &seen);
        self.tell(at, observed);
        Ok(())
    }

    /// Reports what is new, and now and then what was not acknowledged.
    pub(super) fn tell(&mut self, at: usize, observed: Observed) {
        let host = &mut self.hosts[at];
        if !host.registered {
            return;
        }
        if host.last.as_ref() != Some(&observed) {
            host.sequence += 1;
            host.last = Some(observed.clone());
            self.report(at, observed);
        } else if host.acked < host.sequence && self.chance.permille(150) {
            self.report(at, observed);
        }
    }

    pub(super) fn report(&mut self, at: usize, observed: Observed) {
        let host = &self.hosts[at];
        let Some(member) = host.session else { return };
        let (incarnation, sequence) = (host.incarnation, host.sequence);
        self.send(Message::Report { node: at, member, incarnation, sequence, observed: Box::new(observed) });
    }

    pub(super) fn talk(&mut self, at: usize) {
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
                role: host.role,
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
                self.master.fleets.get(&self.fleet).and_then(|fleet| fleet.agent(&self.hosts[at].name));
            let have = self.hosts[at]
                .ledger
                .assignment
                .as_ref()
                .map_or(Generation(0), |assignment| assignment.generation);
            let served = self.fleet_now().is_some_and(is_served);
            let behind = served && current.is_some_and(|node| node.assignment.generation > have);
            let since = self.waits.entry((at, member)).or_insert(now);
            if !behind {
                *since = now;
            } else if now - *since > 3_000 {
                self.waits.remove(&(at, member));
                self.hosts[at].session = None;
            }
        }
    }

    pub(super) fn act(&mut self, at: usize, action: Action) -> Result<(), String> {
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
                host.ledger = host.ledger.with_launch(launch, mode, &boot, Some(host.processes));
                let processes = if mode == RunMode::Plain { host.processes } else { 1 };
                host.keepers.push(Keeper { launch, mode, processes, generation, exec_at: now + delay });
            }
            Action::Check(task) => {
                let until = now + self.chance.between(50, 300);
                self.hosts[at].busy = Some(Busy { task, until, recovers: false });
            }
            Action::RunTask(task) if task.needs != Needs::Serving => self.begin_copy(at, task)?,
            Action::RunTask(task) if task.name == VERIFY => {
                let until = now + self.chance.between(200, 2_000);
                self.hosts[at].ledger = self.hosts[at].ledger.with_task(task.key.clone());
                self.hosts[at].busy = Some(Busy { task, until, recovers: false });
            }
            Action::RunTask(task) => {
                let until = now + self.chance.between(300, 5_000);
                let broken = self.hosts[at].own().is_some_and(|app| matches!(app.phase, Phase::Failed(_)));
                let fails = broken || self.faults && self.chance.permille(100);
                let name = self.hosts[at].name.clone();
                let host = &mut self.hosts[at];
                host.ledger = host.ledger.with_task(task.key.clone());
                let enable = task.name == PluginChange::Enable.task();
                let plugin = task.params.get("plugin").cloned().unwrap_or_default();
                let under_way = host.own().and_then(|app| app.change.as_ref());
                if under_way.is_some_and(|change| change.key == task.key) {
                    // It has lost its ledger, and waits until the app is at rest.
                    host.busy = Some(Busy { task, until: now, recovers: true });
                    return Ok(());
                }
                if let Some(app) = host.own_mut() {
                    self.oracle.changes(&name, app)?;
                    app.change = Some(Change { key: task.key.clone(), until, plugin, enable, fails });
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

    pub(super) fn finish_task(&mut self, at: usize) {
        let now = self.now;
        let Some(busy) = self.hosts[at].busy.clone() else { return };
        // The app must be quiet before anything is said about the end of an attempt.
        let quiet = self.hosts[at].own().is_none_or(|app| app.change.is_none());
        if now < busy.until || (busy.recovers && !quiet) {
            return;
        }
        if busy.task.needs != Needs::Serving {
            return self.finish_copy(at, busy);
        }
        self.hosts[at].busy = None;
        let name = busy.task.name.as_str();
        if name == VERIFY {
            let serves = self.hosts[at].own().is_some_and(|app| app.phase == Phase::Serving);
            let good = serves && !(self.faults && self.chance.permille(150));
            let result = match (good, busy.recovers) {
                (_, true) => TaskResult::Interrupted,
                (true, false) => TaskResult::Done,
                (false, false) => TaskResult::Failed("a check fails".into()),
            };
            let host = &mut self.hosts[at];
            match busy.task.phase {
                TaskPhase::Check => host.has_checked(busy.task.key, result, &[]),
                TaskPhase::Run => {
                    host.ledger = host.ledger.with_result(busy.task.key, result, BTreeMap::new());
                }
            }
            return;
        }
        match busy.task.phase {
            TaskPhase::Check => self.hosts[at].has_checked(busy.task.key, TaskResult::Done, &[]),
            TaskPhase::Run => {
                if !quiet {
                    self.hosts[at].busy = Some(Busy { until: now, ..busy });
                    return;
                }
                let plugin = busy.task.params.get("plugin").cloned().unwrap_or_default();
                let enable = busy.task.name == PluginChange::Enable.task();
                let has = |plugins: &BTreeSet<String>| plugins.contains(&plugin) == enable;
                let loaded = self.hosts[at].own().is_some_and(|app| has(&app.plugins));
                let done = has(&self.database.plugins) && loaded;
                let result = match (done, busy.recovers) {
                    (true, _) => TaskResult::Done,
                    (false, true) => TaskResult::Interrupted,
                    (false, false) => TaskResult::Failed("the app refused".into()),
                };
                let host = &mut self.hosts[at];
                host.ledger = host.ledger.with_result(busy.task.key, result, BTreeMap::new());
            }
        }
    }
}
