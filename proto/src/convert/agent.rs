//! Registrations, and shorthands for the messages of a session.

use soloist_core::{
    agent::LINEAGE_MAX,
    assignment::{Assignment, Observed},
    command::Registration,
    ids::{BootId, FleetId, Incarnation, MachineId, NodeId},
};

use super::{
    FieldError,
    bound::{at_most, text, word},
    name, nested,
};
use crate::v1;

impl From<Registration> for v1::Registration {
    fn from(registration: Registration) -> Self {
        Self {
            incarnation: registration.incarnation.0,
            lineage: registration.lineage.into_iter().map(|run| run.0).collect(),
            fresh: registration.fresh,
            machine: registration.machine.0,
            boot: registration.boot.0,
            address: registration.address,
            role: v1::registration::Role::from(registration.role).into(),
        }
    }
}

impl TryFrom<v1::Registration> for Registration {
    type Error = FieldError;
    fn try_from(registration: v1::Registration) -> Result<Self, FieldError> {
        let role = registration.role().into();
        let lineage = at_most(2 * LINEAGE_MAX, "lineage", registration.lineage)?;
        Ok(Self {
            role,
            incarnation: Incarnation(registration.incarnation),
            lineage: lineage.into_iter().map(Incarnation).collect(),
            fresh: registration.fresh,
            machine: MachineId(word("machine", registration.machine)?),
            boot: BootId(word("boot", registration.boot)?),
            address: word("address", registration.address)?,
        })
    }
}

/// A parsed [`v1::Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// The agent's fleet.
    pub fleet: FleetId,
    /// Its node.
    pub node: NodeId,
    /// Who it is and what it remembers.
    pub registration: Registration,
    /// Its own version.
    pub version: String,
    /// The cluster whose members it remembers; empty if it remembers none.
    pub cluster: String,
}

impl From<Greeting> for v1::Hello {
    fn from(greeting: Greeting) -> Self {
        Self {
            fleet: greeting.fleet.into(),
            node: greeting.node.into(),
            registration: Some(greeting.registration.into()),
            version: greeting.version,
            cluster: greeting.cluster,
        }
    }
}

impl TryFrom<v1::Hello> for Greeting {
    type Error = FieldError;
    fn try_from(hello: v1::Hello) -> Result<Self, FieldError> {
        Ok(Self {
            fleet: name("fleet", hello.fleet)?,
            node: name("node", hello.node)?,
            registration: nested("registration", hello.registration)?,
            version: text(hello.version),
            cluster: text(hello.cluster),
        })
    }
}

impl From<v1::agent_message::Message> for v1::AgentMessage {
    fn from(message: v1::agent_message::Message) -> Self {
        Self { message: Some(message) }
    }
}

impl From<v1::coordinator_message::Message> for v1::CoordinatorMessage {
    fn from(message: v1::coordinator_message::Message) -> Self {
        Self { message: Some(message) }
    }
}

impl From<Greeting> for v1::AgentMessage {
    fn from(greeting: Greeting) -> Self {
        v1::agent_message::Message::Hello(greeting.into()).into()
    }
}

impl From<v1::Beat> for v1::AgentMessage {
    fn from(beat: v1::Beat) -> Self {
        v1::agent_message::Message::Beat(beat).into()
    }
}

impl From<Assignment> for v1::CoordinatorMessage {
    fn from(assignment: Assignment) -> Self {
        v1::coordinator_message::Message::Assignment(assignment.into()).into()
    }
}

impl v1::AgentMessage {
    /// A report with its number.
    pub fn report(sequence: u64, observed: Observed) -> Self {
        let observed = Some(observed.into());
        v1::agent_message::Message::Report(v1::Report { sequence, observed }).into()
    }
}
