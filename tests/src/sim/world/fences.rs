//! Fences: what they do to the database server and to machines, and the agents that carry them.
//!
//! A call is on its way for a while, sometimes twice, and arrives also when the agent that made it has died.

use std::collections::BTreeMap;

use soloist_core::Command;
use soloist_core::agent::{is_done, may_act, to_fence};
use soloist_core::command::Role;
use soloist_core::fence::{Covers, FenceOffer, FenceOrder, FenceSeen, Fences};
use soloist_core::ids::{Generation, Incarnation, NodeId};
use soloist_core::operation::{Blocked, Status};
use soloist_core::policy::{Fencing, Policy};
use soloist_core::state::Fleet;
use soloist_core::time::Millis;

use super::World;

/// How long an agent waits for the answer to a call before it makes another.
const AGAIN_AFTER: u64 = 2_500;

/// One node's way into the database.
#[derive(Debug, Clone, Default)]
struct Door {
    /// Number of the last order that was carried out here.
    last: Option<Generation>,
    locked: bool,
    /// Until then sessions that were open when it was locked go on.
    inside_until: u64,
}

/// A call on its way.
#[derive(Debug, Clone)]
struct Call {
    at: u64,
    carrier: usize,
    run: Incarnation,
    order: FenceOrder,
}

/// Where fences act, in worlds that have some.
#[derive(Debug, Default)]
pub(super) struct Fenced {
    /// What fences of this world cover.
    covers: Vec<Covers>,
    /// Whether hosts are often cut off and calls are often slow: late ones then meet newer fences.
    eager: bool,
    doors: BTreeMap<NodeId, Door>,
    calls: Vec<Call>,
}

impl Fenced {
    /// Every third world has fences; in half of those the fleet puts them up by itself.
    pub(super) fn new(seed: u64, policy: &mut Policy) -> Self {
        if seed % 3 != 1 {
            return Self::default();
        }
        policy.fence = [Fencing::Manual, Fencing::Automatic][usize::from(seed % 2 == 1)];
        policy.fence_after = Millis(1_000);
        let covers = match seed % 5 {
            0 | 1 => vec![Covers::Database],
            2 | 3 => Covers::ALL.to_vec(),
            _ => vec![Covers::Machine],
        };
        Self { covers, eager: seed % 6 == 1, ..Self::default() }
    }

    pub(super) fn any(&self) -> bool {
        !self.covers.is_empty()
    }
}

impl World {
    /// Calls arrive, whoever made them.
    pub(super) fn run_fences(&mut self) {
        let now = self.now;
        let (arrived, on_their_way) =
            std::mem::take(&mut self.fenced.calls).into_iter().partition(|call| call.at <= now);
        self.fenced.calls = on_their_way;
        let arrived: Vec<Call> = arrived;
        for call in arrived {
            self.carry_out(call);
        }
        for host in &mut self.hosts {
            let door = self.fenced.doors.get(&host.name);
            host.locked_out = door.is_some_and(|door| door.locked && door.inside_until <= now);
        }
    }

    fn carry_out(&mut self, call: Call) {
        let Call { carrier, run, order, .. } = call;
        let now = self.now;
        let Some(at) = self.hosts.iter().position(|host| host.name == order.node) else { return };
        match order.covers {
            Covers::Machine => {
                if self.hosts[at].up {
                    self.power_off(at);
                }
                let until = now + self.chance.between(2_000, 15_000);
                self.hosts[at].off_until = self.hosts[at].off_until.max(until);
            }
            Covers::Database => {
                let lingers = if self.hosts[at].apps.is_empty() { 0 } else { self.chance.between(0, 2_500) };
                let door = self.fenced.doors.entry(order.node.clone()).or_default();
                if !may_act(door.last, &order) {
                    return self.note(format!(
                        "fence order {} around {} comes too late",
                        order.generation, order.node
                    ));
                }
                if order.up && !door.locked {
                    door.inside_until = now + lingers;
                }
                (door.last, door.locked) = (Some(order.generation), order.up);
            }
        }
        self.note(format!(
            "fence order {} ({}) around {}: up {}",
            order.generation, order.covers, order.node, order.up
        ));
        let host = &mut self.hosts[carrier];
        if host.agent_up && host.incarnation == run {
            host.acted.insert((order.node, order.covers), order.generation);
        }
    }

    /// An agent's turn at the fences that it carries.
    pub(super) fn carry_fences(&mut self, at: usize) {
        if !self.fenced.any() || !self.hosts[at].agent_up {
            return;
        }
        let boot = self.hosts[at].boot_id();
        let orders = to_fence(&self.hosts[at].ledger, &boot).to_vec();
        let others =
            self.hosts.iter().filter(|host| host.role == Role::App && host.name != self.hosts[at].name);
        let covers = &self.fenced.covers;
        let offers = others.flat_map(|host| {
            covers.iter().map(|covers| FenceOffer { node: host.name.clone(), covers: *covers, unarmed: None })
        });
        let offers = offers.collect();
        let mut seen = Vec::new();
        for order in orders {
            let done = self.is_carried_out(at, &order);
            if !done {
                self.call(at, &order);
            }
            let FenceOrder { node, covers, generation, .. } = order;
            seen.push(FenceSeen { node, covers, generation, done, trouble: None });
        }
        self.hosts[at].fences = Fences { offers, seen };
    }

    fn is_carried_out(&self, at: usize, order: &FenceOrder) -> bool {
        let acted = self.hosts[at].acted.get(&(order.node.clone(), order.covers)) == Some(&order.generation);
        let target = self.hosts.iter().find(|host| host.name == order.node);
        acted
            && match order.covers {
                Covers::Machine => target.is_some_and(|host| !host.up),
                Covers::Database => self.fenced.doors.get(&order.node).is_some_and(|door| {
                    is_done(order, door.locked, usize::from(self.now < door.inside_until))
                }),
            }
    }

    fn call(&mut self, at: usize, order: &FenceOrder) {
        let (now, run) = (self.now, self.hosts[at].incarnation);
        let key = (order.node.clone(), order.covers);
        let mine = self.hosts[at].called.get(&key).copied();
        let acted = self.hosts[at].acted.get(&key) == Some(&order.generation);
        let waits = mine
            .is_some_and(|(generation, since)| generation == order.generation && now < since + AGAIN_AFTER);
        // A door that is locked is looked at again until nobody is left; a machine is switched off once.
        if waits || acted && order.covers == Covers::Database {
            return;
        }
        self.hosts[at].called.insert(key, (order.generation, now));
        let copies = if self.faults && self.chance.permille(300) { 2 } else { 1 };
        for _ in 0..copies {
            let slow = self.faults && self.chance.permille(if self.fenced.eager { 600 } else { 300 });
            let delay = if slow { self.chance.between(2_000, 20_000) } else { self.chance.between(20, 600) };
            self.fenced.calls.push(Call { at: now + delay, carrier: at, run, order: order.clone() });
        }
    }

    /// Somebody fences a node that an operation waits for, or just any, or asks for the end of a fence.
    pub(super) fn fence_by_hand(&mut self) -> Result<(), String> {
        let Some(fleet) = self.fleet_now().filter(|_| self.fenced.any()) else { return Ok(()) };
        let missing = fleet.current().and_then(|operation| match &operation.status {
            Status::Blocked(Blocked::Unreachable(nodes)) => nodes.first().cloned(),
            _ => None,
        });
        let (id, by) = (self.fleet.clone(), "operator".to_owned());
        if missing.is_none() && self.chance.permille(300) {
            let fenced = |fleet: &Fleet| {
                let mut nodes = fleet.nodes.iter().filter(|(_, node)| !node.fences.is_empty());
                nodes.next().map(|(name, _)| name.clone())
            };
            let Some(node) = self.fleet_now().and_then(fenced) else { return Ok(()) };
            return self.propose(Command::Unfence { fleet: id, node, heard: Vec::new(), by }).map(|_| ());
        }
        if missing.is_none() && !self.chance.permille(100) {
            return Ok(());
        }
        let node = missing.unwrap_or_else(|| self.hosts[self.chance.index(self.hosts.len())].name.clone());
        let covers = [None, None, Some(Covers::Database), Some(Covers::Machine)][self.chance.index(4)];
        let (heard, reason) = (Vec::new(), "it does not answer".to_owned());
        self.propose(Command::Fence { fleet: id, node, covers, heard, by, reason }).map(|_| ())
    }

    /// Somebody finds a machine that a fence has switched off, and brings it back.
    pub(super) fn switch_on(&mut self) {
        for at in 0..self.hosts.len() {
            if !self.hosts[at].up && self.now >= self.hosts[at].off_until {
                self.power_on(at);
            }
        }
    }

    /// In worlds with fences hosts are cut off for longer than anybody waits.
    pub(super) fn cut_off(&mut self, at: usize) {
        let often = if self.fenced.eager { 4 } else { 1 };
        if self.fenced.any() && self.harm(often) && self.hosts[at].away_until <= self.now {
            let until = self.now + self.chance.between(6_000, 25_000);
            self.hosts[at].away_until = until;
            self.note(format!("{} is cut off until {until}", self.hosts[at].name));
        }
    }
}
