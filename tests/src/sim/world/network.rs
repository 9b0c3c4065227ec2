//! Messages that are lost, doubled, delayed and reordered.

use std::cmp::Reverse;

use super::World;
use soloist_core::agent::accept;
use soloist_core::assignment::{Assignment, Observed};
use soloist_core::command::Registration;
use soloist_core::ids::{Generation, Incarnation};
use soloist_core::{Command, Rejection, Reply};
/// A message on its way.
#[derive(Debug, Clone)]
pub(super) enum Message {
    Hello { node: usize, member: usize, registration: Registration },
    Report { node: usize, member: usize, incarnation: Incarnation, sequence: u64, observed: Box<Observed> },
    Beat { node: usize, member: usize },
    Registered { node: usize, member: usize, incarnation: Incarnation, result: Result<Generation, Rejection> },
    Assign { node: usize, member: usize, incarnation: Incarnation, assignment: Box<Assignment> },
    Ack { node: usize, incarnation: Incarnation, sequence: u64 },
    Superseded { node: usize, incarnation: Incarnation },
}

impl World {
    pub(super) fn send(&mut self, message: Message) {
        let copies = if self.faults && self.chance.permille(60) { 2 } else { 1 };
        for copy in 0..copies {
            if self.faults && self.chance.permille(40) {
                continue;
            }
            let slow = self.faults && self.chance.permille(60);
            // A copy may come when the first one is long forgotten.
            let delay = match (copy, slow) {
                (0, false) => self.chance.between(1, 60),
                (0, true) => self.chance.between(100, 3_000),
                _ => self.chance.between(1, 9_000),
            };
            self.sent += 1;
            self.wire.push(Reverse((self.now + delay, self.sent)));
            self.bodies.insert(self.sent, message.clone());
        }
    }

    pub(super) fn deliver(&mut self) -> Result<(), String> {
        while let Some(Reverse((time, number))) = self.wire.peek().copied() {
            if time > self.now {
                break;
            }
            self.wire.pop();
            if let Some(message) = self.bodies.remove(&number) {
                self.receive(message)?;
            }
        }
        Ok(())
    }

    pub(super) fn reaches(&self, node: usize, member: usize) -> bool {
        !self.cuts.contains(&(node, member))
            && self.hosts[node].away_until <= self.now
            && self.members[member].up
            && self.members[member].stalled_until <= self.now
    }

    pub(super) fn receive(&mut self, message: Message) -> Result<(), String> {
        match message {
            Message::Hello { node, member, registration } => {
                if !self.reaches(node, member) {
                    return Ok(());
                }
                let name = self.hosts[node].name.clone();
                let incarnation = registration.incarnation;
                self.members[member].sessions.insert(name.clone(), (incarnation, None));
                let command = Command::Register {
                    fleet: self.fleet.clone(),
                    node: name.clone(),
                    registration,
                    policy: self.policy.clone(),
                    rival: false,
                };
                let Some(outcome) = self.propose(command)? else { return Ok(()) };
                let result = match outcome.reply {
                    Ok(Reply::Registered { floor }) => {
                        self.members[member].sessions.insert(name, (incarnation, Some(floor.0)));
                        Ok(floor)
                    }
                    Ok(_) => return Ok(()),
                    Err(rejection) => Err(rejection),
                };
                self.send(Message::Registered { node, member, incarnation, result });
            }
            Message::Report { node, member, incarnation, sequence, observed } => {
                if !self.reaches(node, member) {
                    return Ok(());
                }
                self.hear(node);
                let name = self.hosts[node].name.clone();
                let command = Command::Report {
                    fleet: self.fleet.clone(),
                    node: name,
                    incarnation,
                    sequence,
                    observed,
                };
                match self.propose(command)?.map(|outcome| outcome.reply) {
                    Some(Ok(_)) => self.send(Message::Ack { node, incarnation, sequence }),
                    Some(Err(Rejection::Superseded { .. })) => {
                        self.send(Message::Superseded { node, incarnation })
                    }
                    Some(Err(_)) | None => {}
                }
            }
            Message::Superseded { node, incarnation } => {
                let host = &mut self.hosts[node];
                if host.incarnation == incarnation {
                    host.registered = false;
                    host.session = None;
                }
            }
            Message::Beat { node, member } => {
                if self.reaches(node, member) {
                    self.hear(node);
                }
            }
            Message::Registered { node, member, incarnation, result } => {
                if self.cuts.contains(&(node, member)) {
                    return Ok(());
                }
                let host = &mut self.hosts[node];
                if !host.agent_up || host.incarnation != incarnation || host.registered {
                    return Ok(());
                }
                match result {
                    Ok(floor) => {
                        host.ledger = host.ledger.confirmed(incarnation, floor);
                        host.registered = true;
                    }
                    Err(_) => host.session = None,
                }
            }
            Message::Assign { node, member, incarnation, assignment } => {
                if self.cuts.contains(&(node, member)) || self.hosts[node].deaf_until > self.now {
                    return Ok(());
                }
                let host = &mut self.hosts[node];
                if !host.up || !host.agent_up || host.incarnation != incarnation {
                    return Ok(());
                }
                let boot = host.boot_id();
                if let Ok(Some(ledger)) = accept(&host.ledger, &assignment, &boot, host.registered) {
                    host.ledger = ledger;
                    host.read_facts(&self.database, self.now);
                    // What it reports under a new number it has seen since.
                    host.scan();
                }
            }
            Message::Ack { node, incarnation, sequence } => {
                let host = &mut self.hosts[node];
                if host.incarnation == incarnation {
                    host.acked = host.acked.max(sequence);
                }
            }
        }
        Ok(())
    }

    pub(super) fn hear(&mut self, node: usize) {
        let Some(leader) = self.leader else { return };
        // Only a session of the registered run counts.
        let known = self.fleet_now().and_then(|fleet| fleet.agent(&self.hosts[node].name));
        if known.is_none_or(|known| known.incarnation != self.hosts[node].incarnation) {
            return;
        }
        let elapsed = self.members[leader].elapsed(self.now);
        let wall = self.members[leader].wall(self.now);
        if let Some(time) = self.members[leader].clock.stamp(elapsed, wall) {
            let name = self.hosts[node].name.clone();
            self.members[leader].contact.hear(&self.fleet, &name, time);
        }
    }
}
