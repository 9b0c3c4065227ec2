//! Clients, operators, and where fences act.

use soloist_core::agent::may_act;
use soloist_core::command::Submission;
use soloist_core::fence::Covers;
use soloist_core::ids::MachineId;
use soloist_core::{Command, Reply};

use crate::steps::{Step, Steps, by, node};
use crate::world::{Call, Client, fleet, machine, operation, place};

impl Steps<'_> {
    pub(crate) fn person(&mut self, step: Step) -> Option<()> {
        let fleet = fleet();
        let reason = || "because".to_owned();
        match step {
            Step::Submit(at) => {
                let machine = if at == 0 { machine(0) } else { MachineId::default() };
                let submission = Submission { by: by(), reason: String::new(), wait: None, machine };
                let request = self.config.operations[at].clone();
                let command = Command::Submit { fleet, operation: operation(at), request, submission };
                self.propose(command).ok()?;
                self.world.clients[at] = Client::Asked;
            }
            Step::Confirm(at) => {
                self.propose(Command::Confirm { fleet, operation: operation(at) }).ok()?;
            }
            Step::Accept(at) => {
                let token = self.world.fleet()?.operation(&operation(at))?.token?;
                let renew = Command::Renew { fleet, operation: operation(at), token };
                self.propose(renew).ok()?;
                self.world.clients[at] = Client::Works(token);
                self.world.passed = false;
            }
            Step::Renew(at) => {
                let token = self.world.clients[at].work()?;
                let renew = Command::Renew { fleet, operation: operation(at), token };
                // Whoever is refused ends its work: another step.
                self.propose(renew).ok()?;
                self.world.passed = false;
            }
            Step::EndWork(at) => {
                let client = self.world.clients[at];
                self.world.clients[at] = match client {
                    Client::Works(token) => Client::Done(token),
                    _ => Client::Gone,
                };
            }
            Step::Release(at) => {
                let Client::Done(token) = self.world.clients[at] else { return None };
                self.world.clients[at] = Client::Gone;
                let outcome = "exit status 0".to_owned();
                // Refused or not, it has nothing more to say.
                let _ = self.propose(Command::Release { fleet, operation: operation(at), token, outcome });
            }
            Step::Vanish(at) => {
                self.world.left.vanishes -= 1;
                self.world.clients[at] = Client::Orphan(self.world.clients[at].work()?);
            }
            Step::GiveUp(at) => {
                self.world.left.vanishes -= 1;
                self.world.clients[at] = Client::Gone;
            }
            Step::Abort(at) => {
                self.world.left.aborts -= 1;
                let abort =
                    Command::Abort { fleet, operation: operation(at), by: by(), reason: String::new() };
                self.propose(abort).ok()?;
            }
            Step::Retry => {
                self.world.left.retries -= 1;
                let current = self.world.fleet()?.current()?;
                let (operation, attempt) = (current.id.clone(), current.attempt);
                self.propose(Command::Retry { fleet, operation, attempt, by: by() }).ok()?;
            }
            Step::Force => {
                self.world.left.forces -= 1;
                let token = self.world.fleet()?.lock.token()?;
                self.propose(Command::ForceRelease { fleet, token, by: by(), reason: reason() }).ok()?;
            }
            Step::Fence(at) => {
                self.world.left.fences -= 1;
                let (covers, heard) = (None, Vec::new());
                let fence =
                    Command::Fence { fleet, node: node(at), covers, heard, by: by(), reason: reason() };
                if self.propose(fence).ok()? == Reply::Unchanged {
                    return None;
                }
            }
            Step::Unfence(at) => {
                self.propose(Command::Unfence { fleet, node: node(at), heard: Vec::new(), by: by() }).ok()?;
            }
            Step::Assume(at) => {
                let assume =
                    Command::AssumeStopped { fleet, node: node(at), heard: true, by: by(), reason: reason() };
                self.propose(assume).ok()?;
            }
            _ => return None,
        }
        Some(())
    }

    pub(crate) fn fence(&mut self, step: Step) {
        match step {
            Step::Call(at, order) => {
                let Some(run) = self.world.hosts[at].run.as_ref().map(|run| run.incarnation) else { return };
                self.world.calls.push(Call { carrier: at, run, order });
            }
            Step::Reach { call, again } => {
                let made = if again {
                    self.world.left.repeats -= 1;
                    self.world.calls[call].clone()
                } else {
                    self.world.calls.remove(call)
                };
                self.carry_out(&made);
            }
            Step::Leave(at) => self.world.doors[at].inside = false,
            _ => {}
        }
    }

    fn carry_out(&mut self, call: &Call) {
        let target = place(&call.order.node);
        match call.order.covers {
            Covers::Machine => {
                for at in 0..self.world.hosts.len() {
                    if self.world.hosts[at].node == target && self.world.hosts[at].up {
                        self.power_off(at);
                    }
                }
            }
            Covers::Database => {
                let runs = self.world.hosts.iter().any(|host| host.node == target && host.app.is_some());
                let door = &mut self.world.doors[target];
                if !may_act(door.last, &call.order) {
                    return;
                }
                if call.order.up && !door.locked {
                    door.inside = runs;
                }
                if !call.order.up {
                    door.inside = false;
                }
                (door.last, door.locked) = (Some(call.order.generation), call.order.up);
            }
        }
        let run = self.world.hosts[call.carrier].run.as_mut().filter(|run| run.incarnation == call.run);
        if let Some(run) = run
            && !run.acted.contains(&call.order)
        {
            // What came before counts no longer.
            run.acted.retain(|order| (&order.node, order.covers) != (&call.order.node, call.order.covers));
            run.acted.push(call.order.clone());
        }
    }
}
