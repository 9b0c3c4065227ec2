//! Which executions and async tasks are unfinished, of the whole fleet.

use std::collections::BTreeSet;

use super::Kind;
use crate::profile::nocobase::environment::Environment;
use crate::work::{AsyncTask, Execution, Stage};

/// Most rows of each kind that are read: more than a fleet works on at once.
const ROWS_MAX: u32 = 500;

/// Node types whose pending job waits in a process's memory: lost with it.
const MEMORY: &str = "'request', 'mailer', 'llm', 'ai-employee'";
/// Node types whose pending job is a frame around a branch.
const FRAMES: &str = "'loop', 'parallel', 'condition', 'multi-conditions'";

/// A row of an answer: id, title, start in milliseconds since 1970, and the number of jobs in memory.
pub(super) type Row = (String, String, Option<i64>, i64);

/// Names of tables and columns as the app's settings have them.
pub(super) struct Names<'a> {
    environment: &'a Environment,
    kind: Kind,
    /// What there is: `table.column`.
    there: BTreeSet<String>,
}

/// The tables that are read.
pub(super) fn tables(environment: &Environment) -> [String; 5] {
    ["executions", "workflows", "jobs", "flow_nodes", "asyncTasks"]
        .map(|table| table_name(environment, table))
}

fn table_name(environment: &Environment, table: &str) -> String {
    super::table_name(environment, table, &underscored(table))
}

fn underscored(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

impl<'a> Names<'a> {
    /// With the tables and columns that there are.
    pub(super) fn new(
        environment: &'a Environment,
        kind: Kind,
        there: impl Iterator<Item = (String, String)>,
    ) -> Self {
        Self { environment, kind, there: there.map(|(table, column)| format!("{table}.{column}")).collect() }
    }

    fn plain(&self, name: &str) -> String {
        if self.environment.get("DB_UNDERSCORED") == "true" { underscored(name) } else { name.to_owned() }
    }

    fn has(&self, table: &str, column: &str) -> bool {
        self.there.contains(&format!("{}.{}", table_name(self.environment, table), self.plain(column)))
    }

    fn column(&self, name: &str) -> String {
        self.quote(&self.plain(name))
    }

    fn quote(&self, name: &str) -> String {
        match self.kind {
            Kind::Postgres => super::postgres::quote(name),
            Kind::Mysql => super::mysql::quote(name),
        }
    }

    fn table(&self, table: &str) -> String {
        let name = self.quote(&table_name(self.environment, table));
        match self.kind {
            Kind::Postgres => {
                format!("{}.{name}", super::postgres::quote(super::postgres::schema(self.environment)))
            }
            Kind::Mysql => name,
        }
    }

    fn text(&self, what: &str) -> String {
        match self.kind {
            Kind::Postgres => format!("{what}::text"),
            Kind::Mysql => format!("cast({what} as char)"),
        }
    }

    /// When something began: older releases do not say.
    fn began(&self, table: &str, alias: &str) -> String {
        let found = ["startedAt", "createdAt"].into_iter().find(|column| self.has(table, column));
        match (found.map(|column| format!("{alias}.{}", self.column(column))), self.kind) {
            (Some(at), Kind::Postgres) => format!("(extract(epoch from max({at})) * 1000)::int8"),
            // The app's driver writes UTC.
            (Some(at), Kind::Mysql) => {
                format!("timestampdiff(microsecond, '1970-01-01 00:00:00', max({at})) div 1000")
            }
            (None, Kind::Postgres) => "null::int8".into(),
            (None, Kind::Mysql) => "cast(null as signed)".into(),
        }
    }

    /// The query for executions, the newest first; `None` where there are no such tables.
    pub(super) fn executions(&self) -> Option<String> {
        let there = self.has("executions", "status")
            && self.has("jobs", "nodeId")
            && self.has("flow_nodes", "type")
            && self.has("workflows", "title");
        there.then(|| {
            let claimed = match self.has("jobs", "startedAt") {
                true => format!("or n.type = 'script' and j.{} is not null", self.column("startedAt")),
                false => String::new(),
            };
            let memory = format!("count(case when n.type in ({MEMORY}) {claimed} then 1 end)");
            format!(
                "select {id}, coalesce(max(w.title), ''), {began}, {memory} from {executions} e \
                 left join {workflows} w on w.id = e.{workflow} \
                 left join {jobs} j on j.{execution} = e.id and j.status = 0 \
                 left join {nodes} n on n.id = j.{node} where e.status = 0 group by e.id \
                 having count(j.id) = 0 or {memory} > 0 \
                 or count(case when n.type in ({FRAMES}) then 1 end) = count(j.id) \
                 order by e.id desc limit {ROWS_MAX}",
                id = self.text("e.id"),
                began = self.began("executions", "e"),
                executions = self.table("executions"),
                workflows = self.table("workflows"),
                jobs = self.table("jobs"),
                nodes = self.table("flow_nodes"),
                workflow = self.column("workflowId"),
                execution = self.column("executionId"),
                node = self.column("nodeId"),
            )
        })
    }

    /// The query for async tasks; `None` where there is no such table.
    pub(super) fn tasks(&self) -> Option<String> {
        let there = self.has("asyncTasks", "status") && self.has("asyncTasks", "type");
        there.then(|| {
            let title = match self.has("asyncTasks", "title") {
                true => "coalesce(nullif(max(a.title), ''), max(a.type), '')",
                false => "coalesce(max(a.type), '')",
            };
            format!(
                "select {id}, {title}, {began}, count(*) from {tasks} a where a.status = 0 group by a.id limit {ROWS_MAX}",
                id = self.text("a.id"),
                began = self.began("asyncTasks", "a"),
                tasks = self.table("asyncTasks"),
            )
        })
    }
}

impl From<Row> for Execution {
    fn from((id, title, started_ms, memory): Row) -> Self {
        let stage = if memory > 0 { Stage::Memory } else { Stage::Inside };
        Self { id, title, started_ms, stage }
    }
}

impl From<Row> for AsyncTask {
    fn from((id, title, started_ms, _): Row) -> Self {
        Self { id, title, started_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_underscores() {
        assert_eq!(underscored("asyncTasks"), "async_tasks");
        assert_eq!(underscored("workflowId"), "workflow_id");
        assert_eq!(underscored("flow_nodes"), "flow_nodes");
    }
}
