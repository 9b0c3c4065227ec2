//! What goes wrong, by chance.

use std::collections::BTreeSet;

use soloist_core::command::Role;
use soloist_core::fence::Fences;
use soloist_core::ids::Incarnation;
use soloist_core::operation::Request;
use soloist_core::state::Fleet;
use soloist_core::upgrade::RELEASE;

use super::super::agent::Host;
use super::super::app::{App, HALF_VERSION, NEXT_VERSION, OTHER_VERSION, Phase, Starter, VERSION};
use super::{DOWN_MAX, World};
impl World {
    /// Whether a fault happens now, of those that have this chance in a bad world. In a better one they are rarer, so that longer
    /// plans come to their end.
    pub(super) fn harm(&mut self, permille: u64) -> bool {
        self.chance.permille(permille) && self.chance.permille(self.badness)
    }

    pub(super) fn mischief(&mut self) {
        self.lose_members();
        if self.harm(2) {
            let member = self.chance.index(self.members.len());
            match self.chance.between(0, 4) {
                0 => {
                    self.leader = None;
                    self.no_leader_until = self.now + self.chance.between(300, 9_000);
                    self.note(format!("leader lost until {}", self.no_leader_until));
                }
                1 => {
                    let until = self.now + self.chance.between(500, 9_000);
                    self.members[member].stalled_until = until;
                    self.note(format!("member {member} stalls until {until}"));
                }
                2 => {
                    let jump = i64::try_from(self.chance.between(0, 200_000)).unwrap_or(0) - 100_000;
                    self.members[member].wall_off += jump;
                    self.note(format!("wall clock of member {member} jumps by {jump} ms"));
                }
                3 => {
                    self.members[member].up = false;
                    self.members[member].sessions.clear();
                    self.members[member].contact.clear();
                    self.members[member].clock.demoted();
                    let back = self.now + self.chance.between(500, DOWN_MAX);
                    self.members[member].stalled_until = back;
                    if self.leader == Some(member) {
                        self.leader = None;
                        self.no_leader_until = self.now + self.chance.between(300, 2_000);
                    }
                    self.note(format!("member {member} crashes until {back}"));
                }
                _ => self.members[member].lag_ms = self.chance.between(0, 3_000),
            }
        }
        for member in 0..self.members.len() {
            if !self.members[member].up && self.now >= self.members[member].stalled_until {
                self.members[member].up = true;
                self.members[member].state = self.restores_of.origin.clone();
                self.members[member].applied = 0;
            }
        }
        for at in 0..self.hosts.len() {
            self.host_mischief(at);
        }
        if self.harm(3) {
            let (host, member) = (self.chance.index(self.hosts.len()), self.chance.index(self.members.len()));
            if self.chance.permille(400) {
                for member in 0..self.members.len() {
                    self.cuts.insert((host, member));
                }
            } else {
                self.cuts.insert((host, member));
            }
        }
        if self.chance.permille(8) {
            self.cuts.clear();
        }
        if self.harm(1) && self.chance.permille(250) {
            if let Some(real) = self.hidden.take() {
                self.database = real;
                self.exchanged();
                self.note("the database is back where it was".into());
            } else if self.database.version.is_some()
                && self.hosts.iter().all(Host::idle)
                && !self.database.half
            {
                self.hidden = Some(std::mem::take(&mut self.database));
                self.exchanged();
                self.note("the nodes point at an empty database".into());
            }
        }
        if self.harm(1) && self.chance.permille(300) {
            let (at, processes) = (self.chance.index(self.hosts.len()), self.chance.between(1, 2));
            self.hosts[at].processes = u32::try_from(processes).unwrap_or(1);
            self.note(format!("{} is set to {processes} processes", self.hosts[at].name));
        }
        if self.harm(1) && self.chance.permille(500) {
            let (pid, until) = (self.pid(), self.now + self.chance.between(1_000, 15_000));
            self.database.strangers.push((pid, until));
            self.note(format!("a person uses the database from elsewhere until {until}: session {pid}"));
        }
    }

    /// Another database lies where the nodes look: what users wrote is in the other one, and whoever did that in the middle of an
    /// operation answers for it.
    fn exchanged(&mut self) {
        self.oracle.rows.clone_from(&self.database.rows);
        let current = self.fleet_now().and_then(Fleet::current).map(|operation| operation.id.clone());
        self.given_up.extend(current);
    }

    pub(super) fn host_mischief(&mut self, at: usize) {
        self.cut_off(at);
        if self.hosts[at].up {
            if self.harm(1) && self.chance.permille(300) {
                self.power_off(at);
            }
            if self.hosts[at].agent_up && self.harm(1) {
                self.hosts[at].agent_up = false;
                let lost = self.chance.permille(250);
                if lost {
                    self.hosts[at].ledger = soloist_core::agent::Ledger::default();
                }
                self.note(format!(
                    "agent of {} dies{}",
                    self.hosts[at].name,
                    if lost { ", its ledger is lost" } else { "" }
                ));
            }
            if self.harm(1) && self.hosts[at].own().is_some_and(|app| app.stops_at.is_none()) {
                self.note(format!("app of {} crashes", self.hosts[at].name));
                self.app_ends(at, true);
            }
            if self.harm(1) {
                self.hosts[at].deaf_until = self.now + self.chance.between(1_000, 6_000);
            }
            let deaf = self.hosts[at].deaf_until > self.now;
            if deaf
                && self.chance.permille(15)
                && self.hosts[at].own().is_some_and(|app| app.stops_at.is_none())
            {
                self.note(format!("app of {} crashes while its agent is deaf", self.hosts[at].name));
                self.app_ends(at, true);
            }
            let changing = self.hosts[at].own().is_some_and(|app| app.change.is_some());
            if changing && self.hosts[at].agent_up && self.chance.permille(8) {
                self.hosts[at].agent_up = false;
                self.note(format!("agent of {} dies in the middle of a task", self.hosts[at].name));
            }
            if self.harm(20) && !self.hosts[at].keepers.is_empty() {
                // Its ticket stays in the ledger, and a right that it was to use is spent.
                self.hosts[at].keepers.pop();
                self.note(format!("keeper of {} dies before it has executed the app", self.hosts[at].name));
            }
            if self.hosts[at].role == Role::Balancer {
                if self.harm(2) {
                    self.reload(at);
                }
            } else if self.harm(1) && self.chance.permille(400) {
                self.start_by_hand(at);
            }
            if self.harm(1) && self.chance.permille(60) && self.hosts[at].idle() {
                self.hosts[at].code = if self.hosts[at].code == VERSION { OTHER_VERSION } else { VERSION };
                self.hosts[at].facts = None;
                self.note(format!("code of {} is now {}", self.hosts[at].name, self.hosts[at].code));
            }
        } else if self.chance.permille(4) && self.now >= self.hosts[at].off_until {
            self.power_on(at);
        }
        if self.hosts[at].up && !self.hosts[at].agent_up && self.chance.permille(12) {
            self.start_agent(at);
        }
        // A full power cut.
        if at == 0 && self.harm(1) && self.chance.permille(40) {
            self.note("power cut".into());
            for host in 0..self.hosts.len() {
                self.power_off(host);
            }
        }
    }

    pub(super) fn power_off(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.up = false;
        host.agent_up = false;
        host.apps.clear();
        host.child = None;
        host.keepers.clear();
        host.holders.clear();
        host.lanes.clear();
        host.ended = None;
        let name = host.name.clone();
        for client in self.clients.iter_mut().filter(|client| client.host == at) {
            client.alive = false;
            if let Some(work) = &mut client.work {
                work.ended = true;
            }
        }
        self.note(format!("host of {name} is off"));
    }

    pub(super) fn power_on(&mut self, at: usize) {
        self.hosts[at].up = true;
        self.hosts[at].boot += 1;
        self.note(format!("host of {} is on, boot {}", self.hosts[at].name, self.hosts[at].boot));
        self.start_agent(at);
    }

    pub(super) fn start_agent(&mut self, at: usize) {
        let incarnation = Incarnation(self.chance.unique());
        self.runs.insert(incarnation, self.now);
        let host = &mut self.hosts[at];
        host.ledger = host.ledger.begin_run(incarnation);
        host.agent_up = true;
        host.incarnation = incarnation;
        host.registered = false;
        host.session = None;
        host.sequence = 0;
        host.last = None;
        host.acked = 0;
        host.facts = None;
        host.acted.clear();
        host.called.clear();
        host.fences = Fences::default();
        host.busy = None;
        host.checked = None;
        host.proved = None;
        host.next_step = self.now;
        host.next_scan = self.now;
        self.note(format!("agent of {} starts", self.hosts[at].name));
        // A switch of the code that it finds under way is ended before anything else.
        self.hosts[at].child.take_if(|child| child.task.name == RELEASE);
    }

    pub(super) fn start_by_hand(&mut self, at: usize) {
        let pid = self.pid();
        let app = App {
            pid,
            starter: Starter::Person,
            launched: None,
            processes: 1,
            plain: true,
            phase: Phase::Serving,
            plugins: BTreeSet::new(),
            work: None,
            stops_at: Some(self.now + self.chance.between(1_000, 15_000)),
            change: None,
        };
        self.hosts[at].apps.push(app);
        self.note(format!("a person starts process {pid} on {}", self.hosts[at].name));
    }

    pub(super) fn pid(&mut self) -> u32 {
        self.next_id += 1;
        u32::try_from(self.next_id).unwrap_or(u32::MAX)
    }

    pub(super) fn calm(&mut self) {
        self.note("---- faults end ----".into());
        self.faults = false;
        self.cuts.clear();
        for member in &mut self.members {
            if !member.up {
                member.up = true;
                member.state = self.restores_of.origin.clone();
                member.applied = 0;
            }
            member.stalled_until = 0;
            member.lag_ms = 50;
        }
        if let Some(real) = self.hidden.take() {
            self.database = real;
            self.exchanged();
        }
        let upgrades = self.fleet_now().and_then(Fleet::current).is_some_and(|operation| {
            matches!(operation.request, Request::Upgrade { .. } | Request::Restore { code: true, .. })
        });
        for at in 0..self.hosts.len() {
            self.hosts[at].code = match self.database.version.as_deref() {
                // It knows what it does.
                _ if upgrades => self.hosts[at].code,
                Some(OTHER_VERSION) => OTHER_VERSION,
                Some(NEXT_VERSION) => NEXT_VERSION,
                Some(HALF_VERSION) => self.hosts[at].code,
                _ => VERSION,
            };
            self.hosts[at].releases = vec![VERSION, NEXT_VERSION];
            self.hosts[at].facts = None;
            self.hosts[at].deaf_until = 0;
            self.hosts[at].away_until = 0;
            if !self.hosts[at].up {
                self.power_on(at);
            } else if !self.hosts[at].agent_up {
                self.start_agent(at);
            }
        }
    }
}
