//! Reports: what an agent saw.

use soloist_core::{
    assignment::{
        AppState, DatabaseFacts, DbSession, Foreign, OUTPUT_TEXT_MAX, Observed, STALE_MAX, TaskKey,
        TaskPhase, TaskResult,
    },
    ids::{BootId, Generation, Token, Version},
    policy::NODES_MAX,
    quiet::bounded,
};

use super::traffic::{seen, servers};
use super::{
    FieldError,
    bound::{LIST_MAX, at_most, cut, text, word},
    each,
    fence::few,
    maybe, named, nested, parameters, unknown,
};
use crate::v1;

impl From<AppState> for v1::AppState {
    fn from(app: AppState) -> Self {
        use v1::app_state::Kind;
        let (kind, detail) = match app {
            AppState::Stopped => (Kind::Stopped, String::new()),
            AppState::Refused(why) => (Kind::Refused, why),
            AppState::Starting => (Kind::Starting, String::new()),
            AppState::Serving => (Kind::Serving, String::new()),
            AppState::Failed(why) => (Kind::Failed, why),
            AppState::Stopping => (Kind::Stopping, String::new()),
            AppState::Crashed(how) => (Kind::Crashed, how),
        };
        Self { kind: kind.into(), detail }
    }
}

impl TryFrom<v1::AppState> for AppState {
    type Error = FieldError;
    fn try_from(app: v1::AppState) -> Result<Self, FieldError> {
        use v1::app_state::Kind;
        Ok(match app.kind() {
            Kind::Unspecified => return Err(unknown("kind")),
            Kind::Stopped => AppState::Stopped,
            Kind::Refused => AppState::Refused(text(app.detail)),
            Kind::Starting => AppState::Starting,
            Kind::Serving => AppState::Serving,
            Kind::Failed => AppState::Failed(text(app.detail)),
            Kind::Stopping => AppState::Stopping,
            Kind::Crashed => AppState::Crashed(text(app.detail)),
        })
    }
}

impl From<DatabaseFacts> for v1::DatabaseFacts {
    fn from(facts: DatabaseFacts) -> Self {
        Self { identity: facts.identity, version: facts.version.map(|version| version.0), empty: facts.empty }
    }
}

impl TryFrom<v1::DatabaseFacts> for DatabaseFacts {
    type Error = FieldError;
    fn try_from(facts: v1::DatabaseFacts) -> Result<Self, FieldError> {
        Ok(Self {
            identity: word("identity", facts.identity)?,
            version: version("version", facts.version)?,
            empty: facts.empty,
        })
    }
}

impl From<Foreign> for v1::Foreign {
    fn from(foreign: Foreign) -> Self {
        Self { pid: foreign.pid, owner: foreign.owner, command: foreign.command }
    }
}

impl TryFrom<v1::Foreign> for Foreign {
    type Error = FieldError;
    fn try_from(foreign: v1::Foreign) -> Result<Self, FieldError> {
        Ok(Self { pid: foreign.pid, owner: text(foreign.owner), command: text(foreign.command) })
    }
}

impl From<DbSession> for v1::DbSession {
    fn from(session: DbSession) -> Self {
        let DbSession { pid, role, client, application } = session;
        Self { pid, role, client, application }
    }
}

impl TryFrom<v1::DbSession> for DbSession {
    type Error = FieldError;
    fn try_from(session: v1::DbSession) -> Result<Self, FieldError> {
        let v1::DbSession { pid, role, client, application } = session;
        Ok(Self { pid, role: text(role), client: text(client), application: text(application) })
    }
}

impl From<(TaskKey, TaskPhase, TaskResult)> for v1::TaskOutcome {
    fn from((key, phase, result): (TaskKey, TaskPhase, TaskResult)) -> Self {
        use v1::task_outcome::Kind;
        let (kind, reason) = match result {
            TaskResult::Done => (Kind::Done, String::new()),
            TaskResult::Failed(why) => (Kind::Failed, why),
            TaskResult::Interrupted => (Kind::Interrupted, String::new()),
        };
        let phase = v1::TaskPhase::from(phase).into();
        Self { key: Some(key.into()), phase, kind: kind.into(), reason }
    }
}

impl TryFrom<v1::TaskOutcome> for (TaskKey, TaskPhase, TaskResult) {
    type Error = FieldError;
    fn try_from(outcome: v1::TaskOutcome) -> Result<Self, FieldError> {
        use v1::task_outcome::Kind;
        let phase = outcome.phase().try_into()?;
        let kind = outcome.kind();
        let result = match kind {
            Kind::Unspecified => return Err(unknown("kind")),
            Kind::Done => TaskResult::Done,
            Kind::Failed => TaskResult::Failed(text(outcome.reason)),
            Kind::Interrupted => TaskResult::Interrupted,
        };
        Ok((nested("key", outcome.key)?, phase, result))
    }
}

impl From<Observed> for v1::Observed {
    fn from(observed: Observed) -> Self {
        Self {
            applied: observed.applied.0,
            boot: observed.boot.0,
            app: Some(observed.app.into()),
            launched: observed.launched.map(|generation| generation.0),
            processes: observed.processes,
            by_hand: observed.by_hand,
            code: observed.code.map(|version| version.0),
            database: observed.database.map(Into::into),
            foreign: observed.foreign.into_iter().map(Into::into).collect(),
            sessions: observed.sessions.into_iter().map(Into::into).collect(),
            holders: observed.holders.into_iter().map(|token| token.0).collect(),
            task: observed.task.map(Into::into),
            proved: observed.proved.map(Into::into),
            unproved: observed.unproved,
            output: parameters(observed.output),
            away: observed.away,
            servers: servers(observed.servers),
            unsteered: observed.unsteered,
            stale: observed.stale,
            under_way: observed.under_way.map(|works| v1::Works { works }),
            cut_off: observed.cut,
            fences: observed.fences.into_iter().map(Into::into).collect(),
            fenced: observed.fenced.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::Observed> for Observed {
    type Error = FieldError;
    fn try_from(observed: v1::Observed) -> Result<Self, FieldError> {
        Ok(Self {
            applied: Generation(observed.applied),
            boot: BootId(word("boot", observed.boot)?),
            app: nested("app", observed.app)?,
            launched: observed.launched.map(Generation),
            processes: observed.processes,
            by_hand: observed.by_hand.map(text),
            code: version("code", observed.code)?,
            database: maybe("database", observed.database)?,
            foreign: each("foreign", at_most(LIST_MAX, "foreign", observed.foreign)?)?,
            sessions: each("sessions", at_most(LIST_MAX, "sessions", observed.sessions)?)?,
            holders: at_most(LIST_MAX, "holders", observed.holders)?.into_iter().map(Token).collect(),
            task: maybe("task", observed.task)?,
            proved: maybe("proved", observed.proved)?,
            unproved: observed.unproved.map(text),
            output: named("output", output(observed.output)?)?,
            away: observed.away,
            servers: seen(at_most(2 * NODES_MAX, "servers", observed.servers)?)?,
            unsteered: observed.unsteered.map(text),
            stale: observed.stale.into_iter().take(STALE_MAX).map(short).collect(),
            under_way: observed.under_way.map(|under_way| bounded(under_way.works)),
            cut: bounded(observed.cut_off),
            fences: each("fences", few(observed.fences))?,
            fenced: each("fenced", few(observed.fenced))?,
        })
    }
}

fn version(field: &str, version: Option<String>) -> Result<Option<Version>, FieldError> {
    Ok(version.map(|version| word(field, version)).transpose()?.map(Version))
}

fn short(text: String) -> String {
    cut(text, OUTPUT_TEXT_MAX)
}

fn output(output: Vec<v1::Parameter>) -> Result<Vec<v1::Parameter>, FieldError> {
    let output = at_most(LIST_MAX, "output", output)?.into_iter();
    Ok(output
        .map(|v1::Parameter { name, value }| v1::Parameter { name: short(name), value: short(value) })
        .collect())
}
