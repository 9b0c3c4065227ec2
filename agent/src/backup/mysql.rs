//! MySQL and MariaDB: `mysqldump` or `mariadb-dump`, `mysql` or `mariadb`.
//!
//! Their statements about tables are not transactional: a restore that is cut off leaves half a database, and is done
//! again from the beginning.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use super::database::Database;
use super::error::BackupError;
use super::installation::Dialect;
use super::program::Input;
use super::stream::Ticket;

/// Most of a dump's line that is looked at, in bytes. Lines with rows are far longer.
const LINE_MAX: u64 = 512;
/// How a dump's last line begins. A dump that was cut off has none.
const COMPLETED: &str = "-- Dump completed";

/// Names of the programs for dumps and for the rest, best first, and the Debian package with them.
pub(super) fn programs(dialect: Dialect) -> (&'static [&'static str], &'static [&'static str], &'static str) {
    if dialect == Dialect::Mysql {
        (&["mysqldump", "mariadb-dump"], &["mysql", "mariadb"], "default-mysql-client")
    } else {
        (&["mariadb-dump", "mysqldump"], &["mariadb", "mysql"], "mariadb-client")
    }
}

/// Only our file is read: it must come first, and nobody's own settings count.
fn place(database: &Database) -> String {
    format!("--defaults-file={}", database.secret.path())
}

pub(super) fn ask_args(database: &Database) -> Vec<String> {
    let mut args = vec![place(database)];
    args.extend(
        ["--batch", "--skip-column-names", "--raw", "--default-character-set=utf8mb4"].map(str::to_owned),
    );
    // In a server's scope, because the database may be the one that is created.
    args
}

pub(super) async fn dump_args(database: &Database) -> Result<Vec<String>, BackupError> {
    let name = literal(&database.installation.database);
    let events =
        format!("select 'event' from information_schema.events where event_schema = {name} limit 1;\n");
    let found = database.ask("looking for events", events).await?;
    let mut args = vec![place(database)];
    let all = [
        "--single-transaction",
        "--routines",
        "--triggers",
        "--no-tablespaces",
        "--hex-blob",
        // Older ones would lose what takes four bytes.
        "--default-character-set=utf8mb4",
    ];
    args.extend(all.map(str::to_owned));
    if found.iter().flatten().any(|cell| cell == "event") {
        // Only with events: who may not see any may not ask for them either, and a restore leaves what it does not see.
        args.push("--events".to_owned());
    }
    if !database.programs.dump_version.contains("MariaDB") {
        // What other servers do not know, and what only a superuser could load.
        args.extend(["--set-gtid-purged=OFF", "--column-statistics=0"].map(str::to_owned));
    }
    args.extend(["--".to_owned(), database.installation.database.clone()]);
    Ok(args)
}

pub(super) fn facts(database: &Database) -> String {
    let name = literal(&database.installation.database);
    format!(
        "select 'server', version(), concat('{kind}', version());\n\
         select 'bytes', cast(coalesce(sum(data_length + index_length), 0) as unsigned) \
         from information_schema.tables where table_schema = {name};\n\
         select 'table', table_schema, table_name from information_schema.tables \
         where table_schema = {name} and table_type in ('BASE TABLE', 'SYSTEM VERSIONED');\n\
         use {quoted};\n",
        kind = if database.installation.dialect == Dialect::Mysql { "MySQL " } else { "" },
        quoted = quote(&database.installation.database)
    )
}

pub(super) fn version(database: &Database, table: &str) -> String {
    format!("select value from {}.{} limit 1;\n", quote(&database.installation.database), quote(table))
}

/// The other sessions on the database.
pub(super) fn sessions(name: &str) -> String {
    format!(
        "select id, user, host from information_schema.processlist where db = {} and id <> connection_id();\n",
        literal(name)
    )
}

/// Drops tables, views and routines; triggers go with their tables.
pub(super) async fn clear(database: &Database) -> Result<(), BackupError> {
    const WHAT: &str = "emptying the database";
    let name = literal(&database.installation.database);
    let list = format!(
        "select table_type, table_name from information_schema.tables where table_schema = {name};\n\
         select routine_type, routine_name from information_schema.routines where routine_schema = {name};\n\
         select 'EVENT', event_name from information_schema.events where event_schema = {name};\n"
    );
    let rows = database.ask(WHAT, list).await?;
    let database_name = quote(&database.installation.database);
    let drops = rows.iter().filter_map(|row| match row.as_slice() {
        [kind, name] => {
            let kind = match kind.as_str() {
                "VIEW" | "SYSTEM VIEW" => "view",
                "SEQUENCE" => "sequence",
                "PROCEDURE" => "procedure",
                "FUNCTION" => "function",
                "EVENT" => "event",
                _ => "table",
            };
            Some(format!("drop {kind} if exists {database_name}.{};\n", quote(name)))
        }
        _ => None,
    });
    let sql: String = drops.collect();
    database.ask(WHAT, format!("set foreign_key_checks = 0;\n{sql}")).await.map(|_| ())
}

pub(super) async fn load(database: &Database, dump: &Path) -> Result<(), BackupError> {
    let args = vec![
        place(database),
        "--default-character-set=utf8mb4".to_owned(),
        "--".to_owned(),
        database.installation.database.clone(),
    ];
    let input = Input::File(dump.to_owned());
    database.text("loading the dump", &database.programs.load, args, input).await.map(|_| ())
}

/// A database with the settings of this one.
pub(super) async fn create(database: &Database, name: &str) -> Result<String, BackupError> {
    let sql = format!(
        "select default_character_set_name, default_collation_name from information_schema.schemata where schema_name = {};\n",
        literal(&database.installation.database)
    );
    let rows = database.ask("looking at the database", sql).await?;
    let with = match rows.first().map(Vec::as_slice) {
        Some([set, collation]) => format!(" character set {set} collate {collation}"),
        _ => String::new(),
    };
    Ok(format!("create database {}{with};\n", quote(name)))
}

pub(super) fn drop(name: &str) -> String {
    format!("drop database if exists {};\n", quote(name))
}

/// Reads a dump: the names of its tables, and why it is not whole.
pub(super) fn tables(dump: &Path, ticket: &Ticket) -> io::Result<Result<Vec<String>, String>> {
    let (mut names, mut last) = (Vec::new(), String::new());
    let mut from = BufReader::with_capacity(256 * 1024, File::open(dump)?);
    loop {
        ticket.go_on()?;
        let mut line = Vec::new();
        if (&mut from).take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.last() != Some(&b'\n') {
            skip_line(&mut from)?;
        }
        let line = String::from_utf8_lossy(&line);
        if let Some(rest) = line.strip_prefix("CREATE TABLE `") {
            // A name ends at a backtick that is not doubled.
            let name = rest.replace("``", "\0");
            names.push(name.split('`').next().unwrap_or_default().replace('\0', "`"));
        }
        if !line.trim().is_empty() {
            last = line.trim().to_owned();
        }
    }
    Ok(if last.starts_with(COMPLETED) {
        Ok(names)
    } else {
        Err(format!("it does not end with \"{COMPLETED}\": it was cut off"))
    })
}

/// Goes to the next line without keeping this one.
fn skip_line(from: &mut impl io::BufRead) -> io::Result<()> {
    loop {
        let bytes = from.fill_buf()?;
        if bytes.is_empty() {
            return Ok(());
        }
        match bytes.iter().position(|byte| *byte == b'\n') {
            Some(at) => {
                from.consume(at + 1);
                return Ok(());
            }
            None => {
                let length = bytes.len();
                from.consume(length);
            }
        }
    }
}

fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
