//! Assignments: what a node must be.

use soloist_core::{
    assignment::{Assignment, Needs, Proof, Run, Spec, Task, TaskKey, TaskPhase},
    ids::{Generation, Right, Token, Version},
    time::Millis,
};

use super::{FieldError, bound::word, each, maybe, name, named, nested, parameters, unknown};
use crate::v1::{self, run::Kind};

impl From<Run> for v1::Run {
    fn from(run: Run) -> Self {
        let (kind, right) = match run {
            Run::Stop => (Kind::Stop, None),
            Run::Plain => (Kind::Plain, None),
            Run::Single => (Kind::Single, None),
            Run::Migrate(right) => (Kind::Migrate, Some(right.0)),
        };
        Self { kind: kind.into(), right }
    }
}

impl TryFrom<v1::Run> for Run {
    type Error = FieldError;
    fn try_from(run: v1::Run) -> Result<Self, FieldError> {
        match run.kind() {
            Kind::Unspecified => Err(unknown("kind")),
            Kind::Stop => Ok(Run::Stop),
            Kind::Plain => Ok(Run::Plain),
            Kind::Single => Ok(Run::Single),
            Kind::Migrate => {
                let right = run.right.ok_or_else(|| FieldError::new("right", "is missing"))?;
                Ok(Run::Migrate(Right(right)))
            }
        }
    }
}

impl From<TaskKey> for v1::TaskKey {
    fn from(key: TaskKey) -> Self {
        Self { operation: key.operation.into(), step: key.step, attempt: key.attempt }
    }
}

impl TryFrom<v1::TaskKey> for TaskKey {
    type Error = FieldError;
    fn try_from(key: v1::TaskKey) -> Result<Self, FieldError> {
        Ok(Self { operation: name("operation", key.operation)?, step: key.step, attempt: key.attempt })
    }
}

impl From<TaskPhase> for v1::TaskPhase {
    fn from(phase: TaskPhase) -> Self {
        match phase {
            TaskPhase::Check => v1::TaskPhase::Check,
            TaskPhase::Run => v1::TaskPhase::Run,
        }
    }
}

impl TryFrom<v1::TaskPhase> for TaskPhase {
    type Error = FieldError;
    fn try_from(phase: v1::TaskPhase) -> Result<Self, FieldError> {
        match phase {
            v1::TaskPhase::Unspecified => Err(unknown("phase")),
            v1::TaskPhase::Check => Ok(TaskPhase::Check),
            v1::TaskPhase::Run => Ok(TaskPhase::Run),
        }
    }
}

impl From<Needs> for v1::Needs {
    fn from(needs: Needs) -> Self {
        match needs {
            Needs::Serving => v1::Needs::Serving,
            Needs::Stopped => v1::Needs::Stopped,
            Needs::Nothing => v1::Needs::Nothing,
        }
    }
}

impl From<v1::Needs> for Needs {
    fn from(needs: v1::Needs) -> Self {
        match needs {
            v1::Needs::Unspecified | v1::Needs::Serving => Needs::Serving,
            v1::Needs::Stopped => Needs::Stopped,
            v1::Needs::Nothing => Needs::Nothing,
        }
    }
}

impl From<Task> for v1::Task {
    fn from(task: Task) -> Self {
        Self {
            key: Some(task.key.into()),
            phase: v1::TaskPhase::from(task.phase).into(),
            name: task.name,
            params: parameters(task.params),
            needs: v1::Needs::from(task.needs).into(),
            checks: task.checks.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::Task> for Task {
    type Error = FieldError;
    fn try_from(task: v1::Task) -> Result<Self, FieldError> {
        let (phase, needs) = (task.phase().try_into()?, task.needs().into());
        let params = named("params", task.params)?;
        let checks = each("checks", task.checks)?;
        Ok(Self { key: nested("key", task.key)?, phase, needs, name: task.name, params, checks })
    }
}

impl From<Proof> for v1::Proof {
    fn from(proof: Proof) -> Self {
        Self { plugin: proof.plugin, loaded: proof.loaded, since: proof.since.map(|since| since.0) }
    }
}

impl TryFrom<v1::Proof> for Proof {
    type Error = FieldError;
    fn try_from(proof: v1::Proof) -> Result<Self, FieldError> {
        let plugin = word("plugin", proof.plugin)?;
        Ok(Self { plugin, loaded: proof.loaded, since: proof.since.map(Generation) })
    }
}

impl From<Spec> for v1::Spec {
    fn from(spec: Spec) -> Self {
        Self {
            run: Some(spec.run.into()),
            task: spec.task.map(Into::into),
            proof: spec.proof.map(Into::into),
            target: spec.target.map(|target| target.0),
            hold: spec.hold,
            quiet: spec.quiet,
            grace_ms: spec.grace.map(|grace| grace.0),
            traffic: spec.traffic.map(Into::into),
            fences: spec.fences.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::Spec> for Spec {
    type Error = FieldError;
    fn try_from(spec: v1::Spec) -> Result<Self, FieldError> {
        Ok(Self {
            run: nested("run", spec.run)?,
            task: maybe("task", spec.task)?,
            proof: maybe("proof", spec.proof)?,
            target: spec.target.map(Version),
            hold: spec.hold,
            quiet: spec.quiet,
            grace: spec.grace_ms.map(Millis),
            traffic: maybe("traffic", spec.traffic)?,
            fences: each("fences", spec.fences)?,
        })
    }
}

impl From<Assignment> for v1::Assignment {
    fn from(assignment: Assignment) -> Self {
        Self {
            generation: assignment.generation.0,
            token: assignment.token.map(|token| token.0),
            spec: Some(assignment.spec.into()),
        }
    }
}

impl TryFrom<v1::Assignment> for Assignment {
    type Error = FieldError;
    fn try_from(assignment: v1::Assignment) -> Result<Self, FieldError> {
        Ok(Self {
            generation: Generation(assignment.generation),
            token: assignment.token.map(Token),
            spec: nested("spec", assignment.spec)?,
        })
    }
}
