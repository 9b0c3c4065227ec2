//! Load balancers, and the agents beside them.

use std::collections::BTreeMap;

use soloist_core::agent::{observe_balancer, to_steer};
use soloist_core::command::Role;
use soloist_core::ids::NodeId;
use soloist_core::traffic::ServerSeen;

use super::super::agent::{Host, Lane};
use super::World;

impl World {
    /// The agent beside a load balancer looks at it, does what it must, and reports what it found.
    pub(super) fn run_balancer(&mut self, at: usize) {
        self.talk(at);
        let now = self.now;
        let boot = self.hosts[at].boot_id();
        let wanted = to_steer(&self.hosts[at].ledger, &boot).cloned();
        let mut found = BTreeMap::new();
        for (name, given) in wanted.iter().flat_map(|spec| &spec.servers) {
            let end = now + self.chance.between(50, self.policy.drain_timeout.0);
            let (lane, excused) = self.hosts[at].lanes.entry(name.clone()).or_insert((Lane::In, true));
            let seen = match lane {
                Lane::In => ServerSeen::In,
                Lane::Draining(_) => ServerSeen::Draining,
                Lane::Out => ServerSeen::Out { cut: 0 },
            };
            found.insert(name.clone(), seen);
            match (given, &lane) {
                (true, _) => (*lane, *excused) = (Lane::In, false),
                (false, Lane::In) => *lane = Lane::Draining(end),
                (false, Lane::Draining(until)) if *until <= now => (*lane, *excused) = (Lane::Out, false),
                (false, Lane::Draining(_) | Lane::Out) => {}
            }
        }
        self.carry_fences(at);
        let observed = observe_balancer(&self.hosts[at].ledger, &boot, found, None, &self.hosts[at].fences);
        self.tell(at, observed);
    }

    /// A reload that forgets what the agent has said: every server is given to users again.
    pub(super) fn reload(&mut self, at: usize) {
        for lane in self.hosts[at].lanes.values_mut() {
            *lane = (Lane::In, true);
        }
        self.note(format!("{} is reloaded and forgets what it was told", self.hosts[at].name));
    }

    /// Whether some load balancer sends users to a node.
    pub(super) fn given(&self, name: &NodeId) -> bool {
        let gives = |host: &Host| host.lanes.get(name).is_none_or(|(lane, _)| *lane == Lane::In);
        self.hosts.iter().any(|host| host.role == Role::Balancer && host.up && gives(host))
    }
}
