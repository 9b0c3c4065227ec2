//! People and programs that use the fleet.

use soloist_core::command::{Decision, Role, Submission};
use soloist_core::ids::{BackupId, MachineId, NodeId, OperationId, Version};
use soloist_core::operation::{
    Blocked, Course, HoldMode, Operation, PackageChange, PluginChange, Request, Status, Step,
};
use soloist_core::policy::{Heal, Traffic};
use soloist_core::state::{Desired, Fleet};
use soloist_core::time::Millis;
use soloist_core::{AUTOMATIC, Command};

use super::super::app::{Database, HALF_VERSION, NEXT_VERSION, OTHER_VERSION, Phase, VERSION};
use super::super::clients::{Client, Work};
use super::super::oracle::whole;
use super::World;
impl World {
    pub(super) fn fleet_now(&self) -> Option<&Fleet> {
        self.master.fleets.get(&self.fleet)
    }

    pub(super) fn submit(
        &mut self,
        request: Request,
        host: usize,
        wait: Option<Millis>,
    ) -> Result<(), String> {
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

    pub(super) fn people(&mut self) -> Result<(), String> {
        self.users();
        for at in 0..self.clients.len() {
            self.client(at)?;
        }
        if self.now < self.person_next {
            return Ok(());
        }
        self.person_next = self.now + self.chance.between(600, 4_000);
        self.join_anew();
        self.look()?;
        if self.faults && self.chance.permille(500) {
            self.break_glass();
        } else if self.chance.permille(if self.faults { 50 } else { 500 }) {
            self.follow_again();
        }
        if self.faults && self.chance.permille(150) {
            self.click();
        }
        if self.faults && self.chance.permille(200) {
            self.find_off()?;
        }
        if self.fenced.any() && self.faults && self.chance.permille(400) {
            self.fence_by_hand()?;
        }
        if self.faults && self.chance.permille(80) {
            self.sign()?;
        }
        if self.faults { self.meddle() } else { self.mend() }
    }

    /// What people do while things go wrong.
    pub(super) fn meddle(&mut self) -> Result<(), String> {
        let Some(fleet) = self.fleet_now() else { return Ok(()) };
        let (active, stopped) = (fleet.active, fleet.desired == Desired::Stop);
        let unknown = fleet.database.is_none();
        let backups: Vec<BackupId> = fleet.backups.keys().cloned().collect();
        let overdue =
            fleet.current().is_some_and(|operation| operation.status == Status::Blocked(Blocked::Overdue));
        let waits =
            fleet.current().filter(|operation| operation.status == Status::Blocked(Blocked::Approval));
        if let Some(operation) = waits.map(|operation| operation.id.clone()) {
            let decision = if self.chance.permille(700) { Decision::Approve } else { Decision::Reject };
            return self.decide(operation, decision);
        }
        let failed = fleet.current().is_some_and(|operation| {
            matches!(operation.request, Request::Restore { .. })
                && matches!(operation.status, Status::Blocked(Blocked::TaskFailed(..)))
        });
        if failed && self.chance.permille(700) {
            return self.intervene();
        }
        if overdue && self.chance.permille(600) {
            return self.retry();
        }
        if self.holder_is_lost() && self.chance.permille(300) {
            return self.take_away();
        }
        if let Some(operation) = self.sought().filter(|_| self.chance.permille(300)) {
            let (fleet, by) = (self.fleet.clone(), "operator".to_owned());
            let abort = Command::Abort { fleet, operation, by, reason: "it takes too long".into() };
            return self.propose(abort).map(|_| ());
        }
        let host = self.chance.index(self.hosts.len());
        let on = if self.chance.permille(500) {
            Some(self.hosts[host].name.clone()).filter(|_| self.hosts[host].role == Role::App)
        } else {
            None
        };
        let wait =
            if self.chance.permille(200) { Some(Millis(self.chance.between(1_000, 8_000))) } else { None };
        if !active || (stopped && self.chance.permille(600)) {
            let install = unknown && self.chance.permille(900);
            return self.submit(Request::Start { install, nodes: None }, host, wait);
        }
        let backup = (!backups.is_empty()).then(|| backups[self.chance.index(backups.len())].clone());
        if !self.restores && self.chance.permille(200) {
            let approve = self.chance.permille(400);
            let to = Version(NEXT_VERSION.to_owned());
            let request = match self.chance.between(0, 10) {
                0 if self.chance.permille(500) => Request::Heal,
                1 if self.chance.permille(500) => Request::Migrate { on },
                0 => Request::Prepare { to },
                1 => Request::Verify,
                3 | 4 => self.packages(on),
                2 => Request::Restart { nodes: on.map(|node| vec![node]) },
                _ => Request::Upgrade { to, on, approve },
            };
            return self.submit(request, host, wait);
        }
        // Each takes a while, and a restore needs a backup: without some eagerness they would hardly meet.
        let eager = if self.restores { 700 } else { 200 + 100 * u64::from(backup.is_some()) };
        if self.chance.permille(eager) {
            let request = match backup {
                None => Request::Backup { on },
                Some(backup) if self.chance.permille(150) => Request::RemoveBackup { backup },
                Some(_) if self.chance.permille(250) => Request::Backup { on },
                Some(backup) => {
                    let known = self.fleet_now().and_then(|fleet| fleet.backups.get(&backup));
                    let version = known.and_then(|known| known.version.clone());
                    let other = version.as_ref().map(|version| version.0.as_str())
                        != self.database.version.as_deref();
                    Request::Restore {
                        backup,
                        code: version.is_some() && (other || self.chance.permille(200)),
                    }
                }
            };
            return self.submit(request, host, wait);
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
            _ if self.chance.permille(300) => {
                self.submit(Request::Remove { node: self.hosts[host].name.clone() }, host, None)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn intervene(&mut self) -> Result<(), String> {
        let Some(operation) = self.fleet_now().and_then(Fleet::current) else { return Ok(()) };
        let id = operation.id.clone();
        let (fleet, by) = (self.fleet.clone(), "operator".to_owned());
        let command = if self.chance.permille(700) {
            Command::Abort { fleet, operation: id, by, reason: "changed my mind".into() }
        } else {
            return self.take_away();
        };
        self.propose(command).map(|_| ())
    }

    pub(super) fn retry(&mut self) -> Result<(), String> {
        let Some(operation) = self.fleet_now().and_then(Fleet::current) else { return Ok(()) };
        let (operation, attempt) = (operation.id.clone(), operation.attempt);
        let command = Command::Retry { fleet: self.fleet.clone(), operation, attempt, by: "operator".into() };
        self.propose(command).map(|_| ())
    }

    fn decide(&mut self, operation: OperationId, decision: Decision) -> Result<(), String> {
        if decision == (Decision::Rollback { lose_writes: true }) {
            self.given_up.insert(operation.clone());
        }
        let (fleet, by) = (self.fleet.clone(), "operator".to_owned());
        self.propose(Command::Decide { fleet, operation, decision, by, reason: String::new() }).map(|_| ())
    }

    /// A change of packages.
    fn packages(&mut self, on: Option<NodeId>) -> Request {
        let plugin = format!("plugin-{}", self.chance.between(1, 2));
        let change = if self.chance.permille(300) {
            PackageChange::Remove { plugin }
        } else {
            let enable = self.chance.permille(500);
            PackageChange::Put { plugin, source: "npm".into(), version: None, sha256: None, enable }
        };
        Request::Packages { changes: vec![change], on }
    }

    /// Whether the fleet heals by itself, and has not tried yet.
    fn heals_itself(&self) -> bool {
        let tried = |fleet: &Fleet| {
            let tries =
                |operation: &Operation| operation.request == Request::Heal && operation.by == AUTOMATIC;
            fleet.operations.iter().any(tries)
        };
        self.policy.heal == Heal::Automatic && !self.fleet_now().is_some_and(tried)
    }

    /// Users write wherever an app takes what they send.
    fn users(&mut self) {
        for at in 0..self.hosts.len() {
            // An agent that is away, or that has no assignment, does not say that it is ready.
            let ready = self.hosts[at].ready();
            let open = match self.policy.traffic {
                Traffic::Direct => true,
                Traffic::Ready => ready,
                // A load balancer asks the agents too.
                Traffic::Balancer => ready && self.given(&self.hosts[at].name),
            };
            let serves = self.hosts[at].own().is_some_and(|app| app.phase == Phase::Serving);
            let shut = self.database.half || self.hosts[at].locked_out;
            if open && serves && !shut && self.chance.permille(30) {
                let row = self.chance.unique();
                self.database.rows.insert(row);
                self.oracle.rows.insert(row);
            }
        }
    }

    /// What people do to bring a fleet back once nothing new goes wrong.
    pub(super) fn mend(&mut self) -> Result<(), String> {
        self.person_next = self.now + 3_000;
        self.switch_on();
        let Some(fleet) = self.fleet_now() else { return Ok(()) };
        let drained = fleet.nodes.iter().find(|(_, node)| node.drained).map(|(name, _)| name.clone());
        if let Some(node) = drained {
            let (fleet, by, reason) = (self.fleet.clone(), "operator".to_owned(), String::new());
            self.propose(Command::Drain { fleet, node, drained: false, by, reason })?;
        }
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
            if let Some(backup) = fleet.half_restored.clone() {
                let code = fleet.backups.get(&backup).is_some_and(|known| known.version.is_some());
                return self.submit(Request::Restore { backup, code }, 0, None);
            }
            if self.database.version.as_deref() == Some(HALF_VERSION) {
                return self.mend_half();
            }
            if !whole(fleet, &self.hosts) {
                self.mend_code();
                let Some(fleet) = self.fleet_now() else { return Ok(()) };
                let install = fleet.database.is_none() && !self.database.tables;
                self.stuck_retries = 0;
                return self.submit(Request::Start { install, nodes: None }, 0, None);
            }
            if self.stale() && !self.heals_itself() {
                return self.submit(Request::Heal, 0, None);
            }
            return Ok(());
        };
        let (id, token, attempt) =
            (operation.id.clone(), operation.token.unwrap_or_default(), operation.attempt);
        let fleet = self.fleet.clone();
        let by = "operator".to_owned();
        let upgrade = operation.request.goes_back();
        let exposed = upgrade
            && operation.course == Course::Forward
            && operation.granted.is_some()
            && operation.exposed_wall_ms.is_some();
        match operation.status.clone() {
            Status::Blocked(Blocked::Approval) => self.decide(id, Decision::Approve),
            Status::Blocked(_) if exposed && self.stuck_retries >= 2 => {
                self.stuck_retries = 0;
                self.decide(id, Decision::Rollback { lose_writes: true })
            }
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

    /// An upgrade has left half a database: the newest backup is brought back.
    fn mend_half(&mut self) -> Result<(), String> {
        let Some(fleet) = self.fleet_now() else { return Ok(()) };
        let newest = fleet.backups.iter().max_by_key(|(_, backup)| backup.wall_ms);
        match newest.map(|(name, backup)| (name.clone(), backup.version.is_some())) {
            Some((backup, code)) => self.submit(Request::Restore { backup, code }, 0, None),
            None => Err("an upgrade has left half a database and no backup".into()),
        }
    }

    /// A person brings the code of nodes that do not run to the database's version.
    fn mend_code(&mut self) {
        let Some(version) = [VERSION, NEXT_VERSION, OTHER_VERSION]
            .into_iter()
            .find(|version| self.database.version.as_deref() == Some(*version))
        else {
            return;
        };
        for host in self.hosts.iter_mut().filter(|host| host.own().is_none() && host.code != version) {
            host.code = version;
            host.facts = None;
        }
    }

    pub(super) fn client(&mut self, at: usize) -> Result<(), String> {
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
        let (sent, solo) = (now, operation.solo.clone());
        let renewed = self.propose(Command::Renew { fleet, operation: id, token })?;
        if renewed.is_some_and(|outcome| outcome.reply.is_ok()) {
            let until = now + self.chance.between(500, 12_000);
            let deadline = sent + self.policy.lease.0 * 9 / 10;
            let host = self.clients[at].host;
            self.clients[at].work = Some(Work {
                token,
                mode,
                solo,
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
}
