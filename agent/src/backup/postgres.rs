//! PostgreSQL: `pg_dump`, `pg_restore`, `psql`.
//!
//! A restore empties the schemas in place: it drops whatever lies in them and is not part of an extension, and leaves the
//! schemas with their rights, and the extensions. Dropping a schema would take the extensions in it along, and needs
//! rights that an app's role seldom has.

use std::collections::BTreeMap;
use std::path::Path;

use super::database::Database;
use super::error::BackupError;
use super::manifest::Manifest;
use super::program::{Call, Input, Outcome, Sink, Tools, run};
use super::progress::Meter;

/// Debian's package with the programs.
pub(super) const PACKAGE: &str = "postgresql-client";
/// Between the columns of an answer: no name has it.
pub(super) const SEPARATOR: char = '\u{1f}';
/// How many objects are dropped in one transaction: each takes locks, of which a server has few thousands.
const DROPS_MAX: usize = 50;
/// How long connecting may take, in seconds.
const CONNECT_SECS: u32 = 10;
/// How long a dump may wait for a table that somebody has locked.
const LOCK_WAIT: &str = "60s";
/// Kinds of entries of a dump that are not restored: they lie outside the schemas and are still there, or belong to the
/// schema itself, whose owner another role may be.
const LEFT_OUT: [&str; 10] = [
    "SCHEMA",
    "COMMENT - SCHEMA",
    "COMMENT - EXTENSION",
    "ACL - SCHEMA",
    "EVENT TRIGGER",
    "FOREIGN DATA WRAPPER",
    "SERVER",
    "USER MAPPING",
    "PUBLICATION",
    "SUBSCRIPTION",
];

/// What the programs need to know, but for the password.
pub(super) fn env(database: &Database) -> BTreeMap<String, String> {
    let installation = &database.installation;
    let pairs = [
        ("PGHOST", installation.host.clone()),
        ("PGPORT", installation.port.to_string()),
        ("PGUSER", installation.user.clone()),
        ("PGDATABASE", installation.database.clone()),
        ("PGPASSFILE", database.secret.path()),
        ("PGAPPNAME", database.session.clone()),
        ("PGCONNECT_TIMEOUT", CONNECT_SECS.to_string()),
        ("PGCLIENTENCODING", "UTF8".to_owned()),
        // Notices are no complaints.
        ("PGOPTIONS", "-c client_min_messages=warning".to_owned()),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

pub(super) fn ask_args() -> Vec<String> {
    let separator = SEPARATOR.to_string();
    ["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-F", &separator, "-f", "-"]
        .map(str::to_owned)
        .into()
}

/// Whether programs of this version load with a setting that the server refuses: `transaction_timeout`, new in 17.
pub(super) fn too_new(client: u32, server: u32) -> bool {
    client >= 17 && server < 17
}

/// Without large objects: NocoBase has none, and they belong to no schema.
pub(super) fn dump_args(database: &Database) -> Vec<String> {
    let wait = format!("--lock-wait-timeout={LOCK_WAIT}");
    let mut args = ["-Fc", "-w", "--no-blobs", &wait].map(str::to_owned).to_vec();
    if let Some(schema) = &database.installation.schema {
        args.extend(["-n".to_owned(), quote(schema)]);
    }
    args
}

/// A condition for the schemas that are dumped and restored.
fn ours(database: &Database) -> String {
    match &database.installation.schema {
        Some(schema) => format!("n.nspname = {}", literal(schema)),
        None => "n.nspname !~ '^pg_' and n.nspname <> 'information_schema'".to_owned(),
    }
}

/// Tables of extensions are not counted: a dump has only their extension.
pub(super) fn facts(database: &Database) -> String {
    let ours = ours(database);
    let bytes = match database.installation.schema {
        None => "select pg_database_size(current_database())".to_owned(),
        Some(_) => format!(
            "select sum(pg_total_relation_size(c.oid)) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where {ours} and c.relkind in ('r', 'm')"
        ),
    };
    format!(
        "select 'server', current_setting('server_version_num'), 'PostgreSQL ' || current_setting('server_version');\n\
         select 'bytes', coalesce(({bytes}), 0)::bigint;\n\
         select 'schema', n.nspname from pg_namespace n where {ours} order by 2;\n\
         select 'table', n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where {ours} and c.relkind in ('r', 'p') and not {member};\n",
        member = member("'pg_class'::regclass", "c.oid")
    )
}

/// Whether an object is part of an extension.
fn member(class: &str, object: &str) -> String {
    format!(
        "exists (select 1 from pg_depend e where e.classid = {class} and e.objid = {object} and e.deptype = 'e')"
    )
}

pub(super) fn version(schema: &str, table: &str) -> String {
    format!("select value::text from {}.{} limit 1;\n", quote(schema), quote(table))
}

/// Ends the sessions and tells which there were.
pub(super) fn end_sessions(name: &str) -> String {
    format!(
        "select pid, usename, coalesce(application_name, ''), pg_terminate_backend(pid) from pg_stat_activity \
         where datname = {} and pid <> pg_backend_pid() and backend_type = 'client backend';\n",
        literal(name)
    )
}

/// Drops everything in the schemas; the schemas stay.
pub(super) async fn clear(database: &Database) -> Result<(), BackupError> {
    const WHAT: &str = "emptying the database";
    let list = format!(
        "select i.type, i.identity from pg_depend d join pg_namespace n on n.oid = d.refobjid \
         cross join lateral pg_identify_object(d.classid, d.objid, 0) i \
         where d.refclassid = 'pg_namespace'::regclass and d.deptype = 'n' and {ours} and not {member} \
         and i.type not in ('extension', 'default acl', 'publication namespace') order by i.type = 'table' desc, d.objid;\n",
        ours = ours(database),
        member = member("d.classid", "d.objid")
    );
    let drops: Vec<String> = database
        .ask(WHAT, list)
        .await?
        .iter()
        .filter_map(|row| match row.as_slice() {
            [kind, identity] => Some(drop_object(kind, identity)),
            _ => None,
        })
        .collect();
    // What this role may not drop is found before anything is gone.
    for end in ["rollback", "commit"] {
        for some in drops.chunks(DROPS_MAX) {
            database.ask(WHAT, format!("begin;\n{}{end};\n", some.concat())).await?;
        }
    }
    Ok(())
}

fn drop_object(kind: &str, identity: &str) -> String {
    let kind = match kind {
        "composite type" => "type",
        "statistics object" => "statistics",
        kind => kind,
    };
    format!("drop {kind} if exists {identity} cascade;\n")
}

/// What a dump lists.
pub(super) async fn entries(
    tools: &Tools,
    program: &Path,
    dump: &Path,
    meter: &Meter,
) -> Result<Result<Vec<String>, String>, BackupError> {
    let text = offline(tools, program, "--list", dump, meter).await?;
    Ok(text.map(|text| {
        let entries = text.lines().filter(|line| !line.starts_with(';') && !line.trim().is_empty());
        entries.map(str::to_owned).collect()
    }))
}

/// Reads a dump to its end, with all rows: the list at its beginning says nothing about the rest.
pub(super) async fn whole(
    tools: &Tools,
    program: &Path,
    dump: &Path,
    meter: &Meter,
) -> Result<Result<(), String>, BackupError> {
    let read = offline(tools, program, "--file=/dev/null", dump, meter).await?;
    Ok(read.map(|_| ()))
}

/// Runs `pg_restore` on a dump without a database; what it printed, or what is wrong with the dump.
async fn offline(
    tools: &Tools,
    program: &Path,
    option: &str,
    dump: &Path,
    meter: &Meter,
) -> Result<Result<String, String>, BackupError> {
    let call = Call {
        program,
        args: vec![option.to_owned(), dump.to_string_lossy().into_owned()],
        env: BTreeMap::new(),
        input: Input::Nothing,
        sink: Sink::Text,
    };
    match run(tools, call, meter).await? {
        Outcome::Text(text) => Ok(Ok(text)),
        // That says something about the program, and nothing about the dump.
        Outcome::Failed(why) if why.contains("unsupported version") => {
            let (what, program) = ("reading the dump", program.display().to_string());
            Err(BackupError::Program { what, program, why })
        }
        Outcome::Failed(why) => Ok(Err(why)),
        Outcome::File(_) => Ok(Ok(String::new())),
    }
}

/// An entry without its numbers: "TABLE DATA public applicationVersion noco".
pub(super) fn entry(line: &str) -> &str {
    let rest = line.split_once("; ").map_or(line, |(_, rest)| rest);
    rest.splitn(3, ' ').nth(2).unwrap_or_default()
}

fn left_out(line: &str) -> bool {
    let entry = entry(line);
    LEFT_OUT.iter().any(|kind| entry.strip_prefix(kind).is_some_and(|rest| rest.starts_with(' ')))
}

/// Loads the dump in one transaction. Should this process die, the dump is cut off and the transaction with it.
pub(super) async fn load(database: &Database, dump: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    const WHAT: &str = "loading the dump";
    let known = database.facts().await?.schemas;
    let missing = manifest.schemas.iter().filter(|schema| !known.contains(schema));
    let create: String = missing.map(|schema| format!("create schema {};\n", quote(schema))).collect();
    if !create.is_empty() {
        database.ask("creating schemas", create).await?;
    }
    let list = entries(&database.tools, &database.programs.load, dump, &database.meter).await?;
    let mut list = list.map_err(|why| database.failed(WHAT, &database.programs.load, &why))?;
    list.retain(|line| !left_out(line));
    let file = database.secret.beside("entries");
    let written = std::fs::write(&file, list.join("\n") + "\n");
    written.map_err(BackupError::io("write", &file))?;
    let name = database.installation.database.replace('\\', "\\\\").replace('\'', "\\'");
    let args = ["--no-owner", "--exit-on-error", "--single-transaction", "-w", "-L"].map(str::to_owned);
    let mut args = args.to_vec();
    args.extend([file.to_string_lossy().into_owned(), "-d".into(), format!("dbname='{name}'")]);
    let input = Input::File(dump.to_owned());
    database.text(WHAT, &database.programs.load, args, input).await.map(|_| ())
}

/// A database with the settings of this one.
pub(super) async fn create(database: &Database, name: &str) -> Result<String, BackupError> {
    let sql = "select pg_encoding_to_char(encoding), datcollate, datctype from pg_database \
               where datname = current_database();\n";
    let rows = database.ask("looking at the database", sql.to_owned()).await?;
    let with = match rows.first().map(Vec::as_slice) {
        Some([encoding, collate, ctype]) => format!(
            " encoding {} lc_collate {} lc_ctype {}",
            literal(encoding),
            literal(collate),
            literal(ctype)
        ),
        _ => String::new(),
    };
    Ok(format!("create database {} template template0{with};\n", quote(name)))
}

pub(super) fn drop(name: &str) -> String {
    format!("drop database if exists {};\n", quote(name))
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_a_dump() {
        assert_eq!(
            entry("3300; 0 16400 TABLE DATA public applicationVersion noco"),
            "TABLE DATA public applicationVersion noco"
        );
        for (line, out) in [
            ("6; 2615 16386 SCHEMA - noco noco", true),
            ("2; 3079 16385 EXTENSION - pgcrypto ", false),
            ("3311; 0 0 COMMENT - EXTENSION pgcrypto ", true),
            ("3312; 0 0 ACL - SCHEMA public pg_database_owner", true),
            ("218; 1259 16400 TABLE public SCHEMA noco", false),
            ("219; 0 0 ACL public TABLE a noco", false),
        ] {
            assert_eq!(left_out(line), out, "{line}");
        }
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quote("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("a'b"), "'a''b'");
        assert_eq!(drop_object("composite type", "public.a"), "drop type if exists public.a cascade;\n");
    }
}
