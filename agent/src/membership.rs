//! How an agent stands with the coordinators: who it is to them, what it was told last, and what it must remember of that.
//!
//! The ledger is written before anything is done for what it holds.

use std::time::Duration;

use soloist_core::agent::{Ledger, Stale, accept};
use soloist_core::assignment::Assignment;
use soloist_core::command::{Registration, Role};
use soloist_core::evidence::Reading;
use soloist_core::ids::{BootId, Generation, Incarnation, MachineId};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::agent::Alone;
use crate::config::Config;
use crate::ledger::{LedgerError, LedgerFile};
use crate::session::News;

/// A run that never registered and is refused for so long gives up: people must settle who is who.
const REFUSED_MAX: Duration = Duration::from_secs(20);

/// Why an agent cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The ledger cannot be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The coordinators refuse this agent.
    #[error("the coordinators refuse this agent: {0}")]
    Refused(String),
}

/// What an agent has heard that concerns its work.
#[derive(Debug)]
pub enum Heard {
    /// An assignment counts from now on; the ledger has it.
    Assigned(Box<Assignment>),
    /// Somebody waits for facts that answer this number.
    FactsWanted(u64),
    /// The operation that is alone now, if any.
    Alone(Option<Alone>),
    /// How far the coordinators' clock is from the time since boot.
    Clock(Reading),
    /// Nothing new.
    Nothing,
}

/// One run of an agent, as the coordinators know it.
#[derive(Debug)]
pub struct Membership {
    ledger: LedgerFile,
    machine: MachineId,
    boot: BootId,
    role: Role,
    address: String,
    registration: watch::Sender<Registration>,
    registered: bool,
    ever_registered: bool,
    member: Option<u64>,
    lost: String,
    refused_since: Option<Instant>,
}

impl Membership {
    /// A new run; the ledger is written before anyone is told. The receiver is for the session.
    pub fn new(
        config: &Config,
        mut ledger: LedgerFile,
        machine: MachineId,
        boot: BootId,
    ) -> Result<(Self, watch::Receiver<Registration>), LedgerError> {
        let incarnation = Incarnation(rand::random());
        ledger.store(ledger.ledger().begin_run(incarnation))?;
        let (role, address) = (config.role(), config.shown_address());
        let first = registration(ledger.ledger(), incarnation, &machine, &boot, role, &address);
        let (registration, receiver) = watch::channel(first);
        let membership = Self {
            ledger,
            machine,
            boot,
            role,
            address,
            registration,
            registered: false,
            ever_registered: false,
            member: None,
            lost: String::new(),
            refused_since: None,
        };
        Ok((membership, receiver))
    }

    /// What the agent must not forget.
    pub fn ledger(&self) -> &Ledger {
        self.ledger.ledger()
    }

    /// The ledger's file, for whoever writes it under a lock of his own.
    pub(crate) fn ledger_file(&mut self) -> &mut LedgerFile {
        &mut self.ledger
    }

    /// Writes the ledger.
    pub fn store(&mut self, next: Ledger) -> Result<(), LedgerError> {
        self.ledger.store(next)
    }

    /// This run of the agent.
    pub fn incarnation(&self) -> Incarnation {
        self.registration.borrow().incarnation
    }

    /// The boot that the host is in.
    pub fn boot(&self) -> &BootId {
        &self.boot
    }

    /// The assignment that counts: accepted in this boot. After a reboot the agent asks first.
    pub fn assignment(&self) -> Option<&Assignment> {
        self.ledger().assignment.as_ref().filter(|_| self.ledger().boot == self.boot)
    }

    /// Generation of the newest accepted assignment, in whatever boot.
    pub fn generation(&self) -> Generation {
        self.ledger().assignment.as_ref().map_or(Generation(0), |assignment| assignment.generation)
    }

    /// Whether this run has registered.
    pub fn registered(&self) -> bool {
        self.registered
    }

    /// The member that serves the session, if there is one.
    pub fn member(&self) -> Option<u64> {
        self.member
    }

    /// Takes what the session says.
    pub fn hear(&mut self, news: News) -> Result<Heard, MembershipError> {
        match news {
            News::Registered { floor, member } => {
                let incarnation = self.registration.borrow().incarnation;
                let next = self.ledger().confirmed(incarnation, floor);
                if next != *self.ledger() {
                    self.store(next)?;
                }
                if !self.ever_registered {
                    tracing::info!(%member, %floor, "registered");
                }
                self.registered = true;
                self.ever_registered = true;
                self.refused_since = None;
                self.member = Some(member);
                self.lost.clear();
                let (ledger, machine) = (self.ledger.ledger(), &self.machine);
                let next = registration(ledger, incarnation, machine, &self.boot, self.role, &self.address);
                self.registration.send_replace(next);
            }
            News::Assigned(assignment) => {
                return Ok(match self.accept(&assignment)? {
                    Ok(true) => Heard::Assigned(assignment),
                    Ok(false) => Heard::Nothing,
                    Err(stale) => {
                        tracing::debug!(%stale, "assignment refused");
                        Heard::Nothing
                    }
                });
            }
            News::FactsWanted(number) => return Ok(Heard::FactsWanted(number)),
            News::Alone(alone) => return Ok(Heard::Alone(alone)),
            News::Clock(reading) => return Ok(Heard::Clock(reading)),
            News::Acked(_) => {}
            News::Refused { reason, text } => {
                self.registered = false;
                self.member = None;
                let since = *self.refused_since.get_or_insert_with(Instant::now);
                if self.lost != text {
                    tracing::error!(%reason, "{text}");
                }
                self.lost.clone_from(&text);
                let lasting = matches!(
                    reason.as_str(),
                    "other_agent" | "other_machine" | "other_role" | "rival" | "full" | "removed"
                );
                if lasting && !self.ever_registered && since.elapsed() >= REFUSED_MAX {
                    return Err(MembershipError::Refused(text));
                }
            }
            News::Lost(why) => {
                self.member = None;
                if self.refused_since.is_none() {
                    self.lost = format!("no coordinator: {why}");
                }
            }
        }
        Ok(Heard::Nothing)
    }

    fn accept(&mut self, assignment: &Assignment) -> Result<Result<bool, Stale>, LedgerError> {
        match accept(self.ledger(), assignment, &self.boot, self.registered) {
            Ok(Some(next)) => self.store(next).map(|()| Ok(true)),
            Ok(None) => Ok(Ok(false)),
            Err(stale) => Ok(Err(stale)),
        }
    }

    /// Why nothing is done, for people; empty if nothing stands in the way.
    pub fn waiting(&self) -> String {
        match (self.assignment().is_some(), self.member.is_some()) {
            (true, true) => String::new(),
            (true, false) => format!("out of contact, so nothing changes here: {}", self.lost),
            (false, true) => "registered; the coordinators have not assigned anything yet".to_owned(),
            (false, false) => format!(
                "nothing is started before the coordinators were asked, and they do not answer: {}",
                if self.lost.is_empty() { "connecting" } else { &self.lost }
            ),
        }
    }
}

fn registration(
    ledger: &Ledger,
    incarnation: Incarnation,
    machine: &MachineId,
    boot: &BootId,
    role: Role,
    address: &str,
) -> Registration {
    Registration {
        incarnation,
        lineage: ledger.lineage.clone(),
        fresh: ledger.fresh(),
        machine: machine.clone(),
        boot: boot.clone(),
        address: address.to_owned(),
        role,
    }
}
