//! What people are told.

use std::collections::BTreeMap;

use soloist_core::{
    condition::Wait,
    ids::{MachineId, Token, Version},
    preview::PlannedStep,
    restore::Restored,
    state::{DatabaseRecord, Desired, Freeze},
    time::{Millis, Time},
    view::{FleetView, LockView, NodeView, OperationView, OutageView, StepView},
};

use super::{FieldError, each, maybe, maybe_name, name, nested, unknown};
use crate::v1;

impl From<Desired> for v1::Desired {
    fn from(desired: Desired) -> Self {
        match desired {
            Desired::Run => v1::Desired::Run,
            Desired::Stop => v1::Desired::Stop,
        }
    }
}

impl TryFrom<v1::Desired> for Desired {
    type Error = FieldError;
    fn try_from(desired: v1::Desired) -> Result<Self, FieldError> {
        match desired {
            v1::Desired::Unspecified => Err(unknown("desired")),
            v1::Desired::Run => Ok(Desired::Run),
            v1::Desired::Stop => Ok(Desired::Stop),
        }
    }
}

impl From<DatabaseRecord> for v1::DatabaseRecord {
    fn from(record: DatabaseRecord) -> Self {
        Self { identity: record.identity, version: record.version.map(|version| version.0) }
    }
}

impl TryFrom<v1::DatabaseRecord> for DatabaseRecord {
    type Error = FieldError;
    fn try_from(record: v1::DatabaseRecord) -> Result<Self, FieldError> {
        Ok(Self { identity: record.identity, version: record.version.map(Version) })
    }
}

impl From<FleetView> for v1::FleetView {
    fn from(view: FleetView) -> Self {
        Self {
            fleet: view.fleet.into(),
            active: view.active,
            desired: v1::Desired::from(view.desired).into(),
            database: view.database.map(Into::into),
            now_ms: view.now.0,
            lock: Some(view.lock.into()),
            nodes: view.nodes.into_iter().map(Into::into).collect(),
            current: view.current.map(Into::into),
            queue: view.queue.into_iter().map(Into::into).collect(),
            policy_version: view.policy_version,
            balancers: view.balancers.into_iter().map(Into::into).collect(),
            freeze: view.freeze.map(Into::into),
            restored: view.restored.map(|Restored { index, wall_ms, resumed }| v1::Restored {
                index,
                wall_ms,
                resumed,
            }),
        }
    }
}

impl TryFrom<v1::FleetView> for FleetView {
    type Error = FieldError;
    fn try_from(view: v1::FleetView) -> Result<Self, FieldError> {
        Ok(Self {
            desired: view.desired().try_into()?,
            fleet: name("fleet", view.fleet)?,
            active: view.active,
            database: maybe("database", view.database)?,
            now: Time(view.now_ms),
            lock: nested("lock", view.lock)?,
            nodes: each("nodes", view.nodes)?,
            current: maybe("current", view.current)?,
            queue: each("queue", view.queue)?,
            policy_version: view.policy_version,
            balancers: each("balancers", view.balancers)?,
            freeze: maybe("freeze", view.freeze)?,
            restored: view.restored.map(|v1::Restored { index, wall_ms, resumed }| Restored {
                index,
                wall_ms,
                resumed,
            }),
        })
    }
}

impl From<Freeze> for v1::Freeze {
    fn from(freeze: Freeze) -> Self {
        let Freeze { by, reason, until, until_wall_ms } = freeze;
        Self { by, reason, until_ms: until.0, until_wall_ms }
    }
}

impl TryFrom<v1::Freeze> for Freeze {
    type Error = FieldError;
    fn try_from(freeze: v1::Freeze) -> Result<Self, FieldError> {
        let v1::Freeze { by, reason, until_ms, until_wall_ms } = freeze;
        Ok(Self { by, reason, until: Time(until_ms), until_wall_ms })
    }
}

impl From<LockView> for v1::LockView {
    fn from(lock: LockView) -> Self {
        Self {
            held: lock.held,
            operation: lock.operation.map(Into::into),
            token: lock.token.map(|token| token.0),
            age_ms: lock.age.map(|age| age.0),
            since_wall_ms: lock.since_wall_ms,
            by: lock.by,
            reason: lock.reason,
        }
    }
}

impl TryFrom<v1::LockView> for LockView {
    type Error = FieldError;
    fn try_from(lock: v1::LockView) -> Result<Self, FieldError> {
        Ok(Self {
            held: lock.held,
            operation: maybe_name("operation", lock.operation)?,
            token: lock.token.map(Token),
            age: lock.age_ms.map(Millis),
            since_wall_ms: lock.since_wall_ms,
            by: lock.by,
            reason: lock.reason,
        })
    }
}

impl From<NodeView> for v1::NodeView {
    fn from(node: NodeView) -> Self {
        Self {
            node: node.node.into(),
            machine: node.machine.0,
            address: node.address,
            wanted: node.wanted,
            app: node.app,
            detail: node.detail,
            proven_stopped: node.proven_stopped,
            acknowledged: node.acknowledged,
            heard_ms: node.heard.map(|heard| heard.0),
            lost: node.lost,
            code: node.code,
            foreign: node.foreign,
            drained: node.drained,
            assumed: node.assumed,
            fences: node.fences.into_iter().map(Into::into).collect(),
            stale: node.stale,
            stale_wall_ms: node.stale_wall_ms,
        }
    }
}

impl TryFrom<v1::NodeView> for NodeView {
    type Error = FieldError;
    fn try_from(node: v1::NodeView) -> Result<Self, FieldError> {
        Ok(Self {
            node: name("node", node.node)?,
            machine: MachineId(node.machine),
            address: node.address,
            wanted: node.wanted,
            app: node.app,
            detail: node.detail,
            proven_stopped: node.proven_stopped,
            acknowledged: node.acknowledged,
            heard: node.heard_ms.map(Millis),
            lost: node.lost,
            code: node.code,
            foreign: node.foreign,
            drained: node.drained,
            assumed: node.assumed,
            fences: each("fences", node.fences)?,
            stale: node.stale,
            stale_wall_ms: node.stale_wall_ms,
        })
    }
}

impl From<StepView> for v1::StepView {
    fn from(step: StepView) -> Self {
        Self {
            step: step.step,
            state: step.state,
            took_ms: step.took.map(|took| took.0),
            expected_ms: step.expected.map(|expected| expected.0),
            found: step.found.into_iter().map(|(node, found)| (node.to_string(), found)).collect(),
        }
    }
}

impl TryFrom<v1::StepView> for StepView {
    type Error = FieldError;
    fn try_from(step: v1::StepView) -> Result<Self, FieldError> {
        Ok(Self {
            step: step.step,
            state: step.state,
            took: step.took_ms.map(Millis),
            expected: step.expected_ms.map(Millis),
            found: step
                .found
                .into_iter()
                .map(|(node, found)| Ok((name("step.found", node)?, found)))
                .collect::<Result<_, FieldError>>()?,
        })
    }
}

impl From<PlannedStep> for v1::PlannedStep {
    fn from(step: PlannedStep) -> Self {
        let expected_ms = step.expected.map(|expected| expected.0);
        Self { step: step.step, waits_for: step.waits_for, expected_ms }
    }
}

impl TryFrom<v1::PlannedStep> for PlannedStep {
    type Error = FieldError;
    fn try_from(step: v1::PlannedStep) -> Result<Self, FieldError> {
        let expected = step.expected_ms.map(Millis);
        Ok(Self { step: step.step, waits_for: step.waits_for, expected })
    }
}

impl From<OutageView> for v1::OutageView {
    fn from(outage: OutageView) -> Self {
        let parts = outage.parts.into_iter();
        Self {
            took_ms: outage.took.0,
            over: outage.over,
            parts: parts.map(|(step, took)| v1::OutagePart { step, took_ms: took.0 }).collect(),
            users_saw: outage.users_saw,
        }
    }
}

impl TryFrom<v1::OutageView> for OutageView {
    type Error = FieldError;
    fn try_from(outage: v1::OutageView) -> Result<Self, FieldError> {
        let parts = outage.parts.into_iter();
        Ok(Self {
            took: Millis(outage.took_ms),
            over: outage.over,
            parts: parts.map(|part| (part.step, Millis(part.took_ms))).collect(),
            users_saw: outage.users_saw,
        })
    }
}

impl From<Wait> for v1::Wait {
    fn from(wait: Wait) -> Self {
        Self { node: wait.node.map(Into::into), what: wait.what }
    }
}

impl TryFrom<v1::Wait> for Wait {
    type Error = FieldError;
    fn try_from(wait: v1::Wait) -> Result<Self, FieldError> {
        Ok(Self { node: maybe_name("node", wait.node)?, what: wait.what })
    }
}

impl From<OperationView> for v1::OperationView {
    fn from(operation: OperationView) -> Self {
        let left_out = operation.left_out.into_iter();
        Self {
            id: operation.id.into(),
            request: operation.request,
            by: operation.by,
            reason: operation.reason,
            status: operation.status,
            detail: operation.detail,
            cause: operation.cause,
            choices: operation.choices,
            waits: operation.waits.into_iter().map(Into::into).collect(),
            steps: operation.steps.into_iter().map(Into::into).collect(),
            attempt: operation.attempt,
            token: operation.token.map(|token| token.0),
            solo: operation.solo.map(Into::into),
            granted: operation.granted,
            holder_lost: operation.holder_lost,
            ended: operation.ended,
            left_out: left_out.map(|(node, reason)| v1::LeftOut { node: node.into(), reason }).collect(),
            submitted_wall_ms: operation.submitted_wall_ms,
            age_ms: operation.age.0,
            outage: operation.outage.map(Into::into),
            writes_since_wall_ms: operation.writes_since_wall_ms,
        }
    }
}

impl TryFrom<v1::OperationView> for OperationView {
    type Error = FieldError;
    fn try_from(operation: v1::OperationView) -> Result<Self, FieldError> {
        let mut left_out = BTreeMap::new();
        for found in operation.left_out {
            left_out.insert(name("left_out", found.node)?, found.reason);
        }
        Ok(Self {
            id: name("id", operation.id)?,
            request: operation.request,
            by: operation.by,
            reason: operation.reason,
            status: operation.status,
            detail: operation.detail,
            cause: operation.cause,
            choices: operation.choices,
            waits: each("waits", operation.waits)?,
            steps: each("steps", operation.steps)?,
            attempt: operation.attempt,
            token: operation.token.map(Token),
            solo: maybe_name("solo", operation.solo)?,
            granted: operation.granted,
            holder_lost: operation.holder_lost,
            ended: operation.ended,
            left_out,
            submitted_wall_ms: operation.submitted_wall_ms,
            age: Millis(operation.age_ms),
            outage: maybe("outage", operation.outage)?,
            writes_since_wall_ms: operation.writes_since_wall_ms,
        })
    }
}
