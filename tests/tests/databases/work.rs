//! What is found to be unfinished, in tables as NocoBase 2.2 makes them.

use std::collections::BTreeMap;

use soloist_agent::let_go::Sessions;
use soloist_agent::profile;
use soloist_agent::work::{Stage, Unfinished};

use crate::server::{Database, Kind, Server};

/// Pending jobs: the node of each, and whether it was claimed.
type Pending = &'static [(u64, bool)];

/// How an app's settings name its tables.
struct Names {
    kind: Kind,
    schema: &'static str,
    prefix: &'static str,
    underscored: bool,
}

impl Names {
    fn settings(&self) -> Vec<(&'static str, &'static str)> {
        let underscored = if self.underscored { "true" } else { "" };
        vec![("DB_TABLE_PREFIX", self.prefix), ("DB_SCHEMA", self.schema), ("DB_UNDERSCORED", underscored)]
    }

    /// The name of a column or, without its prefix, of a table.
    fn plain(&self, name: &str) -> String {
        let split = |letter: char| match letter.is_ascii_uppercase() && self.underscored {
            true => vec!['_', letter.to_ascii_lowercase()],
            false => vec![letter],
        };
        name.chars().flat_map(split).collect()
    }

    fn quote(&self, name: &str) -> String {
        if self.kind == Kind::Postgres { format!("\"{name}\"") } else { format!("`{name}`") }
    }

    /// A statement in which `[table]` and `{column}` stand for the names.
    fn sql(&self, text: &str) -> String {
        let mut sql = String::new();
        for part in text.split_inclusive(['[', ']', '{', '}']) {
            let (body, end) = part.split_at(part.len() - 1);
            match end {
                "]" => {
                    let schema = format!("{}.", self.quote(self.schema));
                    sql.push_str(if self.schema.is_empty() { "" } else { &schema });
                    sql.push_str(&self.quote(&format!("{}{}", self.prefix, self.plain(body))));
                }
                "}" => sql.push_str(&self.quote(&self.plain(body))),
                "[" | "{" => sql.push_str(body),
                _ => sql.push_str(part),
            }
        }
        sql
    }

    fn tables(&self) -> String {
        let (time, uuid) = match self.kind {
            Kind::Postgres => ("timestamptz", "uuid"),
            Kind::Mariadb => ("datetime(3)", "char(36)"),
        };
        self.sql(&format!(
            "create table [workflows] (id bigint primary key, title varchar(255)); \
             create table [flow_nodes] (id bigint primary key, type varchar(255)); \
             create table [executions] (id bigint primary key, {{workflowId}} bigint, status int, {{startedAt}} {time}); \
             create table [jobs] (id bigint primary key, {{executionId}} bigint, {{nodeId}} bigint, status int, {{startedAt}} {time}); \
             create table [asyncTasks] (id {uuid} primary key, type varchar(255), title varchar(255), status int, {{startedAt}} {time}); \
             insert into [workflows] values (1, 'Nightly import'), (2, null); "
        ))
    }

    fn rows(&self) -> String {
        const TYPES: [&str; 9] =
            ["sql", "request", "script", "manual", "delay", "approval", "loop", "mailer", "something-else"];
        let mut sql = String::new();
        for (at, kind) in (1..).zip(TYPES) {
            sql.push_str(&format!("insert into [flow_nodes] values ({at}, '{kind}'); "));
        }
        let began = match self.kind {
            Kind::Postgres => "'2026-11-23 12:00:00+00'",
            Kind::Mariadb => "'2026-11-23 12:00:00.000'",
        };
        // Of each execution its pending jobs: node and whether claimed.
        let executions: [(u64, &str, Pending); 14] = [
            (100, "0", &[]),
            (101, "0", &[(2, false)]),
            (102, "0", &[(3, true)]),
            (103, "0", &[(3, false)]),
            (104, "0", &[(4, false)]),
            (105, "0", &[(5, false)]),
            (106, "0", &[(6, false)]),
            (107, "0", &[(7, false)]),
            (108, "0", &[(7, false), (4, false)]),
            (109, "0", &[(7, false), (2, false), (4, false)]),
            (110, "1", &[]),
            (111, "null", &[]),
            (112, "0", &[(8, false)]),
            (113, "0", &[(9, false)]),
        ];
        let mut job = 0;
        for (id, status, pending) in executions {
            let workflow = if id == 101 { 2 } else { 1 };
            sql.push_str(&format!(
                "insert into [executions] values ({id}, {workflow}, {status}, {began}); \
                 insert into [jobs] values ({}, {id}, 1, 1, {began}); ",
                id * 1000
            ));
            for (node, claimed) in pending {
                job += 1;
                let claimed = if *claimed { began } else { "null" };
                sql.push_str(&format!("insert into [jobs] values ({job}, {id}, {node}, 0, {claimed}); "));
            }
        }
        for (number, title, status) in
            [(1, "'Orders'", "0"), (2, "null", "0"), (3, "null", "1"), (4, "null", "null"), (5, "null", "-1")]
        {
            sql.push_str(&format!(
                "insert into [asyncTasks] values ('0d9f3a52-4a2e-4d0c-9a7c-00000000000{number}', 'export', {title}, {status}, {began}); "
            ));
        }
        self.sql(&sql)
    }
}

async fn find(database: &Database<'_>, names: &Names) -> Unfinished {
    let vars: BTreeMap<String, String> = database.settings(&names.settings());
    profile::unfinished(vars, "soloist-agent-n1").await.unwrap()
}

/// Everything that is unfinished is found, under every way to name tables.
pub(crate) async fn is_found(server: &Server) {
    let database = server.database("work");
    let kind = server.kind;
    let schema = if kind == Kind::Postgres { "No co" } else { "" };
    if kind == Kind::Postgres {
        database.sql("create schema \"No co\"");
    }
    let variants = [
        Names { kind, schema: "", prefix: "", underscored: false },
        Names { kind, schema, prefix: "nb_", underscored: false },
        Names { kind, schema, prefix: "nu_", underscored: true },
    ];
    for names in &variants {
        assert_eq!(find(&database, names).await, Unfinished::default(), "no table is nothing");
        database.sql(&names.tables());
        assert_eq!(find(&database, names).await, Unfinished::default());
        database.sql(&names.rows());
        let found = find(&database, names).await;
        let executions: Vec<_> = found.executions.iter().map(|one| (one.id.as_str(), one.stage)).collect();
        let wanted = [
            ("112", Stage::Memory),
            ("109", Stage::Memory),
            ("107", Stage::Inside),
            ("102", Stage::Memory),
            ("101", Stage::Memory),
            ("100", Stage::Inside),
        ];
        assert_eq!(executions, wanted, "{kind:?}");
        assert_eq!(found.executions[0].title, "Nightly import");
        assert_eq!(found.executions[4].title, "");
        let mut tasks: Vec<_> = found.tasks.iter().map(|task| task.title.as_str()).collect();
        tasks.sort_unstable();
        assert_eq!(tasks, ["Orders", "export"]);
        assert!(found.tasks.iter().any(|task| task.id == "0d9f3a52-4a2e-4d0c-9a7c-000000000001"));
        assert_eq!(found.executions[0].started_ms, Some(1_795_435_200_000));
    }
    // An older release, without the later columns.
    let old = &variants[0];
    database.sql(&old.sql(
        "alter table [executions] drop column {startedAt}; alter table [jobs] drop column {startedAt}; \
         alter table [asyncTasks] drop column {startedAt}; alter table [asyncTasks] drop column title",
    ));
    let found = find(&database, old).await;
    assert_eq!((found.executions.len(), found.tasks.len()), (5, 2), "no script is known to be claimed");
    assert_eq!(found.executions[0].started_ms, None);
}

/// The sessions of a node are told apart from other nodes' and from known ones.
pub(crate) async fn sessions(server: &Server) {
    let database = server.database("tagged");
    let count = async |known: &[String]| {
        let vars = database.settings(&[]);
        profile::sessions(vars, "soloist-agent-n1", "soloist-n1", known).await.unwrap()
    };
    assert_eq!(count(&[]).await, Sessions::Count(0));
    let mut other = database.named_session("soloist-n2");
    assert_eq!(count(&[]).await, Sessions::Count(0));
    let mut own = database.named_session("soloist-n1");
    let mut nameless = database.named_session("reports");
    assert_eq!(count(&[]).await, Sessions::Count(2));
    assert_eq!(count(&["reports".to_owned()]).await, Sessions::Count(1));
    for session in [&mut other, &mut own, &mut nameless] {
        session.kill().unwrap();
        session.wait().unwrap();
    }
    let gone = database.settings(&[("DB_PORT", "1")]);
    let unknown = profile::sessions(gone, "soloist-agent-n1", "soloist-n1", &[]).await;
    assert_eq!(unknown, Ok(Sessions::Unknown));
}
