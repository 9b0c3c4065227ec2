//! Members: election, the log, timers, and what they send by themselves.

use super::World;
use super::network::Message;
use soloist_core::command::FEATURE_LEVEL;
use soloist_core::due::{due, witness};
use soloist_core::invariants::invariants;
use soloist_core::restore::is_served;
use soloist_core::rule::Rule;
use soloist_core::{Command, Entry, Outcome, apply};
impl World {
    pub(super) fn elect(&mut self) -> Result<(), String> {
        if let Some(leader) = self.leader {
            let gone = self.now + 3_000 < self.members[leader].stalled_until;
            if gone && self.chance.permille(100) {
                self.note(format!("member {leader} is deposed"));
                self.leader = None;
            }
        }
        let up: Vec<usize> = (0..self.members.len())
            .filter(|at| self.members[*at].up && self.members[*at].stalled_until <= self.now)
            .collect();
        if self.leader.is_none() && self.now >= self.no_leader_until && up.len() >= 2 {
            let leader = up[self.chance.index(up.len())];
            self.leader = Some(leader);
            for (at, member) in self.members.iter_mut().enumerate() {
                if at != leader {
                    member.clock.demoted();
                    member.contact.clear();
                }
            }
            self.members[leader].clock.demoted();
            self.members[leader].contact.clear();
            self.note(format!("member {leader} leads"));
        }
        Ok(())
    }

    pub(super) fn catch_up(&mut self, at: usize) {
        let (leads, base) = (self.leader == Some(at), self.restores_of.base);
        let member = &mut self.members[at];
        if !member.up || (member.stalled_until > self.now && !leads) {
            return;
        }
        while member.applied < self.log.len() {
            let (time, entry) = &self.log[member.applied];
            if !leads && *time + member.lag_ms > self.now {
                break;
            }
            member.applied += 1;
            apply(&mut member.state, base + member.applied as u64, entry);
        }
    }

    pub(super) fn lead(&mut self) -> Result<(), String> {
        let Some(at) = self.leader else { return Ok(()) };
        if self.members[at].stalled_until > self.now || !self.now.is_multiple_of(100) {
            return Ok(());
        }
        let elapsed = self.members[at].elapsed(self.now);
        if self.members[at].clock.tick(elapsed) {
            let command = Command::Promote { member: at as u64 };
            self.commit(at, command)?;
            let now = self.master.now;
            let elapsed = self.members[at].elapsed(self.now);
            self.members[at].clock.promoted(now, elapsed);
            // In some runs a person never raises it, in some only after a while.
            if self.master.level < FEATURE_LEVEL && !self.seed.is_multiple_of(4) {
                self.commit(at, Command::Raise { level: FEATURE_LEVEL, by: "operator".into() })?;
            }
            return Ok(());
        }
        let wall = self.members[at].wall(self.now);
        let Some(time) = self.members[at].clock.stamp(elapsed, wall) else { return Ok(()) };
        for command in due(&self.members[at].state, &self.members[at].contact, time) {
            self.propose(command)?;
        }
        Ok(())
    }

    /// Proposes a command through the leader; `None` if there is none.
    pub(super) fn propose(&mut self, mut command: Command) -> Result<Option<Outcome>, String> {
        let Some(at) = self.leader else { return Ok(None) };
        if self.members[at].stalled_until > self.now {
            return Ok(None);
        }
        let elapsed = self.members[at].elapsed(self.now);
        let wall = self.members[at].wall(self.now);
        let Some(time) = self.members[at].clock.stamp(elapsed, wall) else { return Ok(None) };
        witness(&mut command, &self.members[at].state, &self.members[at].contact, time);
        self.commit(at, command).map(Some)
    }

    pub(super) fn commit(&mut self, at: usize, command: Command) -> Result<Outcome, String> {
        let elapsed = self.members[at].elapsed(self.now);
        let wall_ms = self.members[at].wall(self.now);
        let time = self.members[at].clock.stamp(elapsed, wall_ms).unwrap_or(self.master.now);
        let entry = Entry { time, wall_ms, feature_level: self.master.stamp_level(&command), command };
        let index = self.last_index() + 1;
        self.note(format!("#{index} {entry}"));
        self.log.push((self.now, entry.clone()));
        match &entry.command {
            Command::Report { node, incarnation, sequence, observed, .. } => {
                let run = self.runs.get(incarnation).copied().unwrap_or(0);
                self.oracle.reported(node, run, *sequence, observed);
            }
            Command::Promote { .. } => self.oracle.promoted(self.now),
            _ => {}
        }
        let renews = matches!(entry.command, Command::Renew { .. });
        let held = self.fleet_now().and_then(|fleet| fleet.lock.holder()).cloned();
        let outcome = apply(&mut self.master, index, &entry);
        if renews && outcome.reply.is_ok() {
            self.oracle.renewed(self.now);
        }
        if let Err(rejection) = &outcome.reply {
            self.note(format!("    refused: {rejection}"));
        }
        for (id, event) in &outcome.events {
            let on = event.node.as_ref().map(ToString::to_string).unwrap_or_default();
            self.note(format!("    {on} {}", event.kind));
            if let Some(fleet) = self.master.fleets.get(id) {
                self.oracle.happened(event, fleet, &self.hosts, &self.policy, self.now)?;
            }
        }
        self.freed(held.as_ref())?;
        invariants(&self.master).map_err(|violation| violation.to_string())?;
        // Every replica must come to the same state: the leader applies its own copy at once.
        self.catch_up(at);
        if self.members[at].applied == self.log.len() && self.members[at].state != self.master {
            return Err("two replicas differ after the same entries".into());
        }
        Ok(outcome)
    }

    /// What members send by themselves: assignments until they are acknowledged.
    pub(super) fn serve(&mut self) {
        for at in 0..self.members.len() {
            if !self.members[at].up
                || self.members[at].stalled_until > self.now
                || self.members[at].last_served + 300 > self.now
            {
                continue;
            }
            self.members[at].last_served = self.now;
            let sessions: Vec<_> = self.members[at].sessions.clone().into_iter().collect();
            for (name, (incarnation, registered)) in sessions {
                let known = registered
                    .is_some_and(|index| self.restores_of.base + self.members[at].applied as u64 >= index);
                if !known && Rule::RegisterFirst.holds() {
                    continue;
                }
                let fleet = self.members[at].state.fleets.get(&self.fleet);
                let Some(node) = fleet.filter(|fleet| is_served(fleet)).and_then(|fleet| fleet.agent(&name))
                else {
                    continue;
                };
                if node.acknowledged() && node.incarnation == incarnation {
                    continue;
                }
                let assignment = Box::new(node.assignment.clone());
                if let Some(host) = self.hosts.iter().position(|host| host.name == name) {
                    self.send(Message::Assign { node: host, member: at, incarnation, assignment });
                }
            }
        }
    }
}
