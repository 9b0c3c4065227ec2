//! A private database server, and databases in it that look a little like NocoBase's.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use soloist_agent::backup::{Backups, Folder, Installation, Limits, Progress, Tools};
use soloist_core::ids::BackupId;
use soloist_tests::harness::{free_ports, until};
use tokio::sync::watch;

/// No wait is longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The app's role.
const USER: &str = "nocoapp";
/// With everything that files and statements must quote.
pub(crate) const PASSWORD: &str = "p:a\\s\"w #d";

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    Mariadb,
}

impl Kind {
    fn name(self) -> &'static str {
        if self == Self::Postgres { "postgres" } else { "mariadb" }
    }

    /// How many tables [`Kind::seed`] makes.
    pub(crate) fn tables(self) -> u64 {
        if self == Self::Postgres { 4 } else { 3 }
    }

    /// Tables, rows, and other kinds of objects.
    fn seed(self) -> &'static str {
        match self {
            Self::Postgres => {
                "create table \"applicationVersion\" (id serial primary key, value varchar(255)); \
                 insert into \"applicationVersion\" (value) values ('2.2.15'); \
                 create type mood as enum ('good', 'bad'); create type pair as (a int, b mood); \
                 create table items (id bigserial primary key, name text not null, mood mood, data jsonb, code uuid default gen_random_uuid()); \
                 insert into items (name, mood, data) select 'row ' || i, 'good', jsonb_build_object('i', i) from generate_series(1, 5000) i; \
                 create index on items (name); create view good as select * from items where mood = 'good'; \
                 create materialized view counts as select mood, count(*) from items group by mood; \
                 create function touch() returns trigger language plpgsql as 'begin return new; end'; \
                 create trigger touched before update on items for each row execute function touch(); \
                 create table \"odd \"\" name\" (item bigint references items); \
                 create schema extra; create table extra.more (t text); insert into extra.more values (E'tab\\there'), ('\\.'), ('😀'); \
                 grant select on items to public"
            }
            Self::Mariadb => {
                "create table applicationVersion (id int auto_increment primary key, value varchar(255)); \
                 insert into applicationVersion (value) values ('2.2.15'); \
                 create table items (id int auto_increment primary key, name varchar(100), data blob); \
                 insert into items (name, data) select concat('😀 ', seq), unhex('00ff0a') from seq_1_to_5000; \
                 create table `odd `` name` (item int, foreign key (item) references items (id)); \
                 create view good as select * from items where id > 10; \
                 create function twice(a int) returns int deterministic return a * 2; \
                 create procedure nothing() select 1; \
                 create trigger touched before update on items for each row set new.name = concat(new.name, '!'); \
                 create event nightly on schedule every 1 day do delete from items where id = 1"
            }
        }
    }

    /// What an upgrade might leave; may be applied again after a restore.
    pub(crate) fn newer(self) -> &'static str {
        match self {
            Self::Postgres => {
                "update \"applicationVersion\" set value = '2.2.99'; alter table items add column later int; \
                 delete from items where id < 100; drop table \"odd \"\" name\"; drop view good; \
                 create table newer (id serial, item bigint references items); create view newest as select * from newer; \
                 create type newtype as enum ('x'); create domain newdomain as text; create sequence newseq; \
                 create function newfunction(a newtype, b int default 1) returns int language sql as 'select 1'; \
                 create aggregate newaggregate (int) (sfunc = int4pl, stype = int4); \
                 create schema if not exists later; create table later.table_there as select 1 as a"
            }
            Self::Mariadb => {
                "update applicationVersion set value = '2.2.99'; alter table items add column later int; \
                 delete from items where id < 100; drop view good; drop function twice; drop event if exists nightly; \
                 create table newer (item int, foreign key (item) references items (id)); \
                 create view newest as select * from newer; create function thrice(a int) returns int deterministic return a * 3; \
                 create sequence newseq; create event hourly on schedule every 1 hour do select 1"
            }
        }
    }

    /// A program that stands in front of the one that loads, lets it list and ask, and fails when it is to load.
    pub(crate) fn broken_load(self) -> (&'static str, &'static str) {
        match self {
            Self::Postgres => (
                "pg_restore",
                "case $1 in --list) exec /usr/bin/pg_restore \"$@\";; esac; head -c 10000 >/dev/null; echo boom >&2; exit 1",
            ),
            Self::Mariadb => (
                "mariadb",
                "case $* in *--batch*) exec /usr/bin/mariadb \"$@\";; esac; head -c 10000 | /usr/bin/mariadb \"$@\"; echo boom >&2; exit 1",
            ),
        }
    }
}

/// A server that is stopped when this is dropped.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) work: PathBuf,
    /// Where it listens.
    pub(crate) port: u16,
}

impl Server {
    /// Installs what is missing and starts it.
    pub(crate) fn start(kind: Kind) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let work = root.join(".cache/databases-test").join(kind.name());
        let server = Self { kind, work, port: free_ports(1)[0] };
        fs::create_dir_all(&server.work).unwrap();
        server.lab(&["lab_down"]);
        match kind {
            Kind::Postgres => {
                server.need("lab_need_packages");
                server.up();
                let role = format!(
                    "drop role if exists {USER}; create role {USER} login createdb password '{PASSWORD}'"
                );
                for name in ["trip", "schema", "work", "tagged"] {
                    let drop = format!("drop database if exists {name} with (force)");
                    server.lab(&["lab_sql", "postgres", &drop]);
                }
                server.lab(&["lab_sql", "postgres", &role]);
                // The private cluster trusts everyone; the app's role must give its password.
                let file = server.work.join("db/data/pg_hba.conf");
                let line = format!("host all {USER} 127.0.0.1/32 scram-sha-256\n");
                let text = fs::read_to_string(&file).unwrap();
                if !text.starts_with(&line) {
                    fs::write(&file, line + &text).unwrap();
                }
                server.lab(&["lab_sql", "postgres", "select pg_reload_conf()"]);
            }
            Kind::Mariadb => {
                server.need("lab_need_mariadb");
                server.up();
                let password = PASSWORD.replace('\\', "\\\\");
                server.root(&format!(
                    "create or replace user {USER} identified by '{password}'; grant all on *.* to {USER}; \
                     drop database if exists trip; drop database if exists work"
                ));
            }
        }
        server
    }

    /// Installs packages; only one at a time can.
    fn need(&self, function: &str) {
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap();
        self.lab(&[function]);
    }

    fn up(&self) {
        let up = format!("lab_{}_up", self.kind.name());
        self.lab(&[&up, &self.work.join("db").display().to_string(), &self.port.to_string()]);
    }

    /// Calls a function of deploy/lab, and gives its output.
    fn lab(&self, call: &[&str]) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let script = "source deploy/lab/lab.sh; lab_init \"$1\"; shift; \"$@\"";
        let output = Command::new("bash")
            .args(["-c", script, "bash"])
            .arg(&self.work)
            .args(call)
            .current_dir(root)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "{call:?} failed");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// A statement as the superuser in one database of PostgreSQL's.
    pub(crate) fn superuser(&self, database: &str, sql: &str) {
        self.lab(&["lab_sql", database, sql]);
    }

    /// A statement as the superuser.
    pub(crate) fn root(&self, sql: &str) -> String {
        match self.kind {
            Kind::Postgres => self.lab(&["lab_sql", "postgres", sql]),
            Kind::Mariadb => self.lab(&["lab_mariadb_sql", &self.port.to_string(), sql]),
        }
    }

    /// The scratch databases that there are.
    pub(crate) fn scratch_databases(&self) -> String {
        self.root(match self.kind {
            Kind::Postgres => "select datname from pg_database where datname like '%soloist_check%'",
            Kind::Mariadb => "show databases like '%soloist_check%'",
        })
    }

    /// A database with rows, and a folder for its storage and its backups.
    pub(crate) fn database(&self, name: &'static str) -> Database<'_> {
        let root = self.work.join(name);
        if root.exists() {
            fs::remove_dir_all(&root).unwrap();
        }
        let storage = root.join("storage");
        fs::create_dir_all(&storage).unwrap();
        match self.kind {
            Kind::Postgres => {
                self.root(&format!("create database {name} owner {USER}"));
                // An extension of the superuser's, among the app's own tables.
                self.superuser(name, "create extension hstore");
            }
            Kind::Mariadb => {
                self.root(&format!("create database {name} character set utf8mb4"));
            }
        }
        let database = Database { server: self, name, root, storage };
        database.sql(self.kind.seed());
        database
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.lab(&["lab_down"]);
    }
}

/// One app's database.
pub(crate) struct Database<'a> {
    server: &'a Server,
    name: &'static str,
    pub(crate) root: PathBuf,
    pub(crate) storage: PathBuf,
}

impl Database<'_> {
    /// What the app's settings say of it.
    pub(crate) fn installation(&self, more: &[(&str, &str)]) -> Installation {
        Installation::from_vars(&self.settings(more)).unwrap()
    }

    /// The same as variables.
    pub(crate) fn settings(&self, more: &[(&str, &str)]) -> BTreeMap<String, String> {
        let (storage, port) = (self.storage.display().to_string(), self.server.port.to_string());
        let base = [
            ("DB_DIALECT", self.server.kind.name()),
            ("DB_HOST", "127.0.0.1"),
            ("DB_PORT", &port),
            ("DB_DATABASE", self.name),
            ("DB_USER", USER),
            ("DB_PASSWORD", PASSWORD),
            ("STORAGE_PATH", &storage),
        ];
        let vars = base.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        vars.collect()
    }

    /// Its backups, with these programs in front of the real ones.
    pub(crate) fn backups(&self, programs: &[(&str, &str)]) -> Backups {
        let bin = self.root.join("bin");
        fs::create_dir_all(&bin).unwrap();
        for (name, script) in programs {
            fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut tools = Tools::of_process("databases/node-1".into());
        if !programs.is_empty() {
            tools.path = format!("{}:{}", bin.display(), tools.path);
        }
        let folder = Folder::open(&self.root.join("backups")).unwrap();
        let limits = Limits { deadline: 4 * PATIENCE, reserve_bytes: 0 };
        Backups::new(folder, tools, "n1", limits)
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let port = self.server.port.to_string();
        match self.server.kind {
            Kind::Postgres => {
                command.env("PGPASSWORD", PASSWORD).env("PGHOST", "127.0.0.1").env("PGPORT", port);
                command.env("PGUSER", USER).env("PGDATABASE", self.name);
            }
            Kind::Mariadb => {
                command.env("MYSQL_PWD", PASSWORD).args(["--no-defaults", "--protocol=tcp", "-h127.0.0.1"]);
                command
                    .arg(format!("-P{port}"))
                    .arg(format!("-u{USER}"))
                    .arg("--default-character-set=utf8mb4");
            }
        }
        command.stdin(Stdio::null()).stderr(Stdio::inherit());
        command
    }

    fn asking(&self, sql: &str) -> Command {
        match self.server.kind {
            Kind::Postgres => {
                let mut command = self.client("psql");
                command.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql]);
                command
            }
            Kind::Mariadb => {
                let mut command = self.client("mariadb");
                command.args(["-N", "-B", "-e", sql, self.name]);
                command
            }
        }
    }

    /// Statements of the app's role.
    pub(crate) fn sql(&self, sql: &str) -> String {
        output(self.asking(sql))
    }

    /// Everything in it, as text; without the empty schema that an upgrade left.
    pub(crate) fn dump(&self) -> String {
        match self.server.kind {
            Kind::Postgres => {
                let mut command = self.client("pg_dump");
                command.args(["-N", "later"]);
                // Newer ones draw a word at random for each dump.
                let text = output(command);
                text.lines().filter(|line| !line.contains("restrict ")).collect::<Vec<_>>().join("\n")
            }
            Kind::Mariadb => {
                let mut command = self.client("mariadb-dump");
                command.args([
                    "--routines",
                    "--triggers",
                    "--events",
                    "--hex-blob",
                    "--skip-dump-date",
                    self.name,
                ]);
                output(command)
            }
        }
    }

    /// A session of PostgreSQL with a name, which stays.
    pub(crate) fn named_session(&self, name: &str) -> Child {
        let mut command = self.asking("select pg_sleep(600)");
        command.env("PGAPPNAME", name);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let seen = format!("select count(*) from pg_stat_activity where application_name = '{name}'");
        until("a session", PATIENCE, || "not seen".into(), || (self.server.root(&seen) == "1").then_some(()));
        child
    }

    /// Somebody who stays connected.
    pub(crate) fn session(&self) -> Child {
        let sleep =
            if self.server.kind == Kind::Postgres { "select pg_sleep(600)" } else { "select sleep(600)" };
        let mut command = self.asking(sleep);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let seen = match self.server.kind {
            Kind::Postgres => "select count(*) from pg_stat_activity where query = 'select pg_sleep(600)'",
            Kind::Mariadb => {
                "select count(*) from information_schema.processlist where info = 'select sleep(600)'"
            }
        };
        until("a session", PATIENCE, || "not seen".into(), || (self.server.root(seen) == "1").then_some(()));
        child
    }
}

fn output(mut command: Command) -> String {
    let output = command.stdout(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?} failed");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Compares two dumps, and shows the first line that differs.
pub(crate) fn same(now: &str, before: &str, what: &str) {
    let differs = now.lines().zip(before.lines()).find(|(now, before)| now != before);
    assert!(now == before, "{what}: {differs:?}, {} and {} bytes", now.len(), before.len());
}

/// A backup's id.
pub(crate) fn id(text: &str) -> BackupId {
    text.parse().unwrap()
}

/// Where nobody looks at the progress.
pub(crate) fn quiet() -> watch::Sender<Progress> {
    watch::channel(Progress::default()).0
}
