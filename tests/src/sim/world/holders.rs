//! Holders at work, and people who take the lock away from them.

use soloist_core::Command;
use soloist_core::command::HOLDER_LEVEL;
use soloist_core::ids::{OperationId, Token};
use soloist_core::operation::{Blocked, Status, Step};
use soloist_core::state::Fleet;

use super::super::agent::Host;
use super::super::clients::Client;
use super::World;

impl World {
    pub(super) fn holder_is_lost(&self) -> bool {
        let lost = Status::Blocked(Blocked::HolderLost);
        self.fleet_now().and_then(Fleet::current).is_some_and(|operation| operation.status == lost)
    }

    /// A person takes the lock away: after making sure that the work has ended, unless agents will look for it themselves.
    pub(super) fn take_away(&mut self) -> Result<(), String> {
        let Some(operation) = self.fleet_now().and_then(Fleet::current) else { return Ok(()) };
        let token = operation.token.unwrap_or_default();
        if self.works(token) && !self.can_be_found(token) {
            return Ok(());
        }
        let (fleet, by) = (self.fleet.clone(), "operator".to_owned());
        let force = Command::ForceRelease { fleet, token, by, reason: "the job is gone".into() };
        self.propose(force).map(|_| ())
    }

    /// The operation that waits for the end of a lost holder's work.
    pub(super) fn sought(&self) -> Option<OperationId> {
        let operation = self.fleet_now().and_then(Fleet::current)?;
        (operation.step() == Some(&Step::HolderGone)).then(|| operation.id.clone())
    }

    /// The lock that an operation had is not its own any more: nobody works under it where an agent could see that.
    pub(super) fn freed(&self, held: Option<&OperationId>) -> Result<(), String> {
        let now = self.fleet_now().and_then(|fleet| fleet.lock.holder());
        let Some(held) = held.filter(|held| now != Some(*held)) else { return Ok(()) };
        let mut clients = self.clients.iter().filter(|client| client.operation == *held);
        let work = clients.find_map(|client| client.work.as_ref().filter(|work| !work.ended));
        match work.map(|work| work.token).filter(|token| self.can_be_found(*token)) {
            Some(token) => Err(format!("the lock is freed while the holder of token {token} works")),
            None => Ok(()),
        }
    }

    /// Whether a holder works on a node's host, where its agent finds it before the lock is free.
    fn can_be_found(&self, token: Token) -> bool {
        let here = |client: &&Client| client.work.as_ref().is_some_and(|work| work.token == token);
        let host = self.clients.iter().find(here).map(|client| &self.hosts[client.host]);
        let node = |host: &Host| self.fleet_now().is_some_and(|fleet| fleet.nodes.contains_key(&host.name));
        self.master.level >= HOLDER_LEVEL && host.is_some_and(node)
    }

    pub(super) fn works(&self, token: Token) -> bool {
        self.clients
            .iter()
            .any(|client| client.work.as_ref().is_some_and(|work| work.token == token && !work.ended))
    }

    pub(super) fn work(&mut self, at: usize) -> Result<(), String> {
        let now = self.now;
        let Some(work) = self.clients[at].work.clone().filter(|work| !work.ended) else { return Ok(()) };
        let host = self.clients[at].host;
        if let Some(until) = work.orphan_until {
            if now >= until {
                self.end_work(at, host, work.token);
            }
            return Ok(());
        }
        if self.clients[at].will_crash && self.chance.permille(8) {
            self.clients[at].alive = false;
            let until = now + self.chance.between(0, 15_000);
            if let Some(work) = &mut self.clients[at].work {
                work.orphan_until = Some(until);
            }
            self.note(format!("holder of token {} dies, its work goes on until {until}", work.token));
            return Ok(());
        }
        if now >= work.deadline {
            // The holder's own deadline: it ends its work before anybody could think that the lease is over.
            self.end_work(at, host, work.token);
        }
        let done = now >= work.until;
        if done {
            self.end_work(at, host, work.token);
        }
        let fleet = self.fleet.clone();
        let operation = self.clients[at].operation.clone();
        let ended = self.clients[at].work.as_ref().is_some_and(|work| work.ended);
        if ended {
            let command =
                Command::Release { fleet, operation, token: work.token, outcome: "exit status 0".into() };
            if self.propose(command)?.is_none()
                && let Some(work) = &mut self.clients[at].work
            {
                work.orphan_until = None;
                self.clients[at].done = false;
            }
            return Ok(());
        }
        if now >= work.next_renewal {
            let sent = now;
            let answered = self.propose(Command::Renew { fleet, operation, token: work.token })?;
            if let Some(work) = &mut self.clients[at].work {
                work.next_renewal = now + 1_000;
                match answered.map(|outcome| outcome.reply) {
                    Some(Ok(_)) => work.deadline = sent + self.policy.lease.0 * 9 / 10,
                    Some(Err(_)) => work.deadline = now,
                    None => {}
                }
            }
        }
        Ok(())
    }

    pub(super) fn end_work(&mut self, at: usize, host: usize, token: Token) {
        if let Some(work) = &mut self.clients[at].work {
            work.ended = true;
        }
        self.hosts[host].holders.retain(|(held, _)| *held != token);
        self.note(format!("work of token {token} has ended"));
    }
}
