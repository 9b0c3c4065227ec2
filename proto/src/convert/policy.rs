//! What people want of a fleet, and what they decide.

use soloist_core::{
    check::{CHECKS_MAX, Check, Expected, What},
    command::Decision,
    policy::{Fencing, Heal, NODES_MAX, Policy, Traffic, Uploads},
    time::Millis,
};

use super::{FieldError, bound::at_most, each, maybe, name, unknown};
use crate::v1::{self, check::What as Kind};

impl From<Expected> for v1::Expected {
    fn from(expected: Expected) -> Self {
        Self { at: expected.at, is: expected.is }
    }
}

impl TryFrom<v1::Expected> for Expected {
    type Error = FieldError;
    fn try_from(expected: v1::Expected) -> Result<Self, FieldError> {
        Ok(Self { at: expected.at, is: expected.is })
    }
}

impl From<What> for Kind {
    fn from(what: What) -> Self {
        match what {
            What::Http { path, status, header, json } => Kind::Http(v1::HttpCheck {
                path,
                status: status.into(),
                header: header.map(Into::into),
                json: json.map(Into::into),
            }),
            What::Command { command } => Kind::Command(command),
            What::Plugin { plugin } => Kind::Plugin(plugin),
        }
    }
}

impl TryFrom<Kind> for What {
    type Error = FieldError;
    fn try_from(what: Kind) -> Result<Self, FieldError> {
        match what {
            Kind::Http(http) => Ok(What::Http {
                path: http.path,
                status: u16::try_from(http.status)
                    .map_err(|_| FieldError::new("http.status", "is not a status of HTTP"))?,
                header: maybe("http.header", http.header)?,
                json: maybe("http.json", http.json)?,
            }),
            Kind::Command(command) => Ok(What::Command { command }),
            Kind::Plugin(plugin) => Ok(What::Plugin { plugin }),
        }
    }
}

impl From<Check> for v1::Check {
    fn from(check: Check) -> Self {
        let what = Some(check.what.into());
        Self { name: check.name, what, timeout_ms: check.timeout.0, tries: check.tries }
    }
}

impl TryFrom<v1::Check> for Check {
    type Error = FieldError;
    fn try_from(check: v1::Check) -> Result<Self, FieldError> {
        let what = check.what.ok_or_else(|| unknown("what"))?;
        let what = What::try_from(what).map_err(|error| error.within("what"))?;
        let check = Self { name: check.name, what, timeout: Millis(check.timeout_ms), tries: check.tries };
        match check.problem() {
            Some(problem) => Err(FieldError::new("what", problem)),
            None => Ok(check),
        }
    }
}

impl From<Traffic> for v1::policy::Traffic {
    fn from(traffic: Traffic) -> Self {
        match traffic {
            Traffic::Direct => v1::policy::Traffic::Direct,
            Traffic::Ready => v1::policy::Traffic::Ready,
            Traffic::Balancer => v1::policy::Traffic::Balancer,
        }
    }
}

impl TryFrom<v1::policy::Traffic> for Traffic {
    type Error = FieldError;
    fn try_from(traffic: v1::policy::Traffic) -> Result<Self, FieldError> {
        match traffic {
            v1::policy::Traffic::Unspecified => Err(unknown("traffic")),
            v1::policy::Traffic::Direct => Ok(Traffic::Direct),
            v1::policy::Traffic::Ready => Ok(Traffic::Ready),
            v1::policy::Traffic::Balancer => Ok(Traffic::Balancer),
        }
    }
}

impl From<Heal> for v1::policy::Heal {
    fn from(heal: Heal) -> Self {
        match heal {
            Heal::Manual => v1::policy::Heal::Manual,
            Heal::Automatic => v1::policy::Heal::Automatic,
        }
    }
}

impl TryFrom<v1::policy::Heal> for Heal {
    type Error = FieldError;
    fn try_from(heal: v1::policy::Heal) -> Result<Self, FieldError> {
        match heal {
            v1::policy::Heal::Unspecified => Err(unknown("heal")),
            v1::policy::Heal::Manual => Ok(Heal::Manual),
            v1::policy::Heal::Automatic => Ok(Heal::Automatic),
        }
    }
}

impl From<Uploads> for v1::policy::Uploads {
    fn from(uploads: Uploads) -> Self {
        match uploads {
            Uploads::Skip => v1::policy::Uploads::Skip,
            Uploads::Presync => v1::policy::Uploads::Presync,
            Uploads::Include => v1::policy::Uploads::Include,
        }
    }
}

impl TryFrom<v1::policy::Uploads> for Uploads {
    type Error = FieldError;
    fn try_from(uploads: v1::policy::Uploads) -> Result<Self, FieldError> {
        match uploads {
            v1::policy::Uploads::Unspecified => Err(unknown("uploads")),
            v1::policy::Uploads::Skip => Ok(Uploads::Skip),
            v1::policy::Uploads::Presync => Ok(Uploads::Presync),
            v1::policy::Uploads::Include => Ok(Uploads::Include),
        }
    }
}

impl From<Fencing> for v1::policy::Fencing {
    fn from(fence: Fencing) -> Self {
        match fence {
            Fencing::Manual => v1::policy::Fencing::Manual,
            Fencing::Automatic => v1::policy::Fencing::Automatic,
        }
    }
}

impl From<v1::policy::Fencing> for Fencing {
    fn from(fence: v1::policy::Fencing) -> Self {
        match fence {
            // A client of before fences says nothing of them.
            v1::policy::Fencing::Unspecified | v1::policy::Fencing::Manual => Fencing::Manual,
            v1::policy::Fencing::Automatic => Fencing::Automatic,
        }
    }
}

impl From<Policy> for v1::Policy {
    fn from(policy: Policy) -> Self {
        Self {
            contact_timeout_ms: policy.contact_timeout.0,
            pre_grant_timeout_ms: policy.pre_grant_timeout.0,
            confirm_timeout_ms: policy.confirm_timeout.0,
            accept_timeout_ms: policy.accept_timeout.0,
            lease_ms: policy.lease.0,
            restore_after_ms: policy.restore_after.0,
            gather_timeout_ms: policy.gather_timeout.0,
            start_timeout_ms: policy.start_timeout.0,
            stop_timeout_ms: policy.stop_timeout.0,
            task_timeout_ms: policy.task_timeout.0,
            backup_timeout_ms: policy.backup_timeout.0,
            keep_backups: policy.keep_backups,
            traffic: v1::policy::Traffic::from(policy.traffic).into(),
            grace_ms: policy.grace.map(|grace| grace.0),
            uploads: policy.uploads.map(|uploads| v1::policy::Uploads::from(uploads).into()),
            checks: policy.checks.into_iter().map(Into::into).collect(),
            max_parallel: policy.max_parallel,
            drain_timeout_ms: policy.drain_timeout.0,
            heal: v1::policy::Heal::from(policy.heal).into(),
            quiet_timeout_ms: policy.quiet_timeout.0,
            fence: v1::policy::Fencing::from(policy.fence).into(),
            fence_after_ms: Some(policy.fence_after.0),
            order: policy.order.into_iter().map(Into::into).collect(),
            commercial_plugins: policy.commercial_plugins,
        }
    }
}

impl TryFrom<v1::Policy> for Policy {
    type Error = FieldError;
    fn try_from(policy: v1::Policy) -> Result<Self, FieldError> {
        let uploads = policy.uploads.map(|_| policy.uploads().try_into()).transpose()?;
        let fence = policy.fence().into();
        Ok(Self {
            contact_timeout: Millis(policy.contact_timeout_ms),
            pre_grant_timeout: Millis(policy.pre_grant_timeout_ms),
            confirm_timeout: Millis(policy.confirm_timeout_ms),
            accept_timeout: Millis(policy.accept_timeout_ms),
            lease: Millis(policy.lease_ms),
            restore_after: Millis(policy.restore_after_ms),
            gather_timeout: Millis(policy.gather_timeout_ms),
            start_timeout: Millis(policy.start_timeout_ms),
            stop_timeout: Millis(policy.stop_timeout_ms),
            task_timeout: Millis(policy.task_timeout_ms),
            backup_timeout: Millis(policy.backup_timeout_ms),
            keep_backups: policy.keep_backups,
            traffic: policy.traffic().try_into()?,
            heal: policy.heal().try_into()?,
            grace: policy.grace_ms.map(Millis),
            uploads,
            checks: each("checks", at_most(CHECKS_MAX, "checks", policy.checks)?)?,
            max_parallel: policy.max_parallel,
            drain_timeout: Millis(policy.drain_timeout_ms),
            quiet_timeout: Millis(policy.quiet_timeout_ms),
            fence,
            fence_after: policy.fence_after_ms.map_or(Policy::default().fence_after, Millis),
            commercial_plugins: policy.commercial_plugins,
            order: at_most(NODES_MAX, "order", policy.order)?
                .into_iter()
                .map(|node| name("order", node))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<Decision> for v1::Decision {
    fn from(decision: Decision) -> Self {
        let (kind, lose_writes) = match decision {
            Decision::Approve => (v1::decision::Kind::Approve, false),
            Decision::Reject => (v1::decision::Kind::Reject, false),
            Decision::Rollback { lose_writes } => (v1::decision::Kind::Rollback, lose_writes),
        };
        Self { kind: kind.into(), lose_writes }
    }
}

impl TryFrom<v1::Decision> for Decision {
    type Error = FieldError;
    fn try_from(decision: v1::Decision) -> Result<Self, FieldError> {
        match decision.kind() {
            v1::decision::Kind::Unspecified => Err(unknown("kind")),
            v1::decision::Kind::Approve => Ok(Decision::Approve),
            v1::decision::Kind::Reject => Ok(Decision::Reject),
            v1::decision::Kind::Rollback => Ok(Decision::Rollback { lose_writes: decision.lose_writes }),
        }
    }
}
