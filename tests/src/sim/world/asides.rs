//! What people do beside operations: they click in the app, put up signs, and find machines that are gone.

use soloist_core::Command;
use soloist_core::agent::Ledger;
use soloist_core::ids::NodeId;
use soloist_core::time::Millis;

use super::super::agent::Host;
use super::super::app::Phase;
use super::World;

impl World {
    /// Somebody finds a machine off and says so.
    pub(super) fn find_off(&mut self) -> Result<(), String> {
        let fleet = self.fleet.clone();
        let until = self.now + self.chance.between(5_000, 15_000);
        let Some(host) = self.hosts.iter_mut().find(|host| !host.up) else { return Ok(()) };
        host.off_until = host.off_until.max(until);
        let node = host.name.clone();
        let (by, reason) = ("operator".to_owned(), "it is off".to_owned());
        self.propose(Command::AssumeStopped { fleet, node, heard: true, by, reason }).map(|_| ())
    }

    /// Whoever has removed a node lets its machine join anew, with an empty data folder.
    pub(super) fn join_anew(&mut self) {
        let Some(fleet) = self.fleet_now() else { return };
        let removed: Vec<NodeId> = fleet.removed.keys().cloned().collect();
        for at in 0..self.hosts.len() {
            let host = &mut self.hosts[at];
            let idle = host.agent_up && host.idle() && host.child.is_none();
            if idle && removed.contains(&host.name) {
                host.ledger = Ledger::default();
                self.note(format!("the data folder of {} is deleted", self.hosts[at].name));
                self.start_agent(at);
            }
        }
    }

    /// Somebody on a host whose agent is not answered starts the app by hand: one that was to run in this boot, and that nobody calls off.
    pub(super) fn break_glass(&mut self) {
        let fleet = self.fleet_now();
        let may = |host: &Host| {
            let said = host.ledger.assignment.as_ref().filter(|_| host.ledger.boot == host.boot_id());
            let was_to_run = said.is_some_and(|assignment| assignment.spec.run.plainly());
            let node = fleet.and_then(|fleet| fleet.nodes.get(&host.name));
            let called_off = node.is_none_or(|node| node.assumed.is_some() || !node.fences.is_empty());
            host.agent_up && !host.answered && host.by_hand.is_none() && was_to_run && !called_off
        };
        let Some(at) = self.hosts.iter().position(may) else { return };
        self.hosts[at].by_hand = Some(self.hosts[at].boot_id());
        self.note(format!("somebody starts {} by hand", self.hosts[at].name));
    }

    /// Whoever started an app by hand lets the coordinators decide again.
    pub(super) fn follow_again(&mut self) {
        for host in &mut self.hosts {
            host.by_hand.take_if(|_| host.answered);
        }
    }

    /// Somebody puts a sign up, or takes it down: no new operations for a while, no users for a node.
    pub(super) fn sign(&mut self) -> Result<(), String> {
        let (fleet, by, reason) = (self.fleet.clone(), "operator".to_owned(), "a sign".to_owned());
        let command = if self.chance.permille(300) {
            let length = self.chance.permille(700).then(|| Millis(self.chance.between(500, 6_000)));
            Command::Freeze { fleet, length, by, reason }
        } else {
            let node = self.hosts[self.chance.index(self.hosts.len())].name.clone();
            Command::Drain { fleet, node, drained: self.chance.permille(600), by, reason }
        };
        self.propose(command).map(|_| ())
    }

    /// Somebody changes a plugin in the app's own interface, on one node and behind everybody's back.
    pub(super) fn click(&mut self) {
        let at = self.chance.index(self.hosts.len());
        let plugin = format!("plugin-{}", self.chance.between(1, 2));
        let host = &mut self.hosts[at];
        let name = host.name.clone();
        let app = host.own_mut().filter(|app| app.phase == Phase::Serving && app.stops_at.is_none());
        let Some(app) = app else { return };
        if self.database.plugins.remove(&plugin) {
            app.plugins.remove(&plugin);
        } else {
            self.database.plugins.insert(plugin.clone());
            app.plugins.insert(plugin.clone());
        }
        self.note(format!("somebody changes {plugin} on {name}"));
    }
}
