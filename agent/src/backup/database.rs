//! One database and the programs that dump, ask and load it. What differs between the dialects is in [`super::postgres`]
//! and [`super::mysql`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use soloist_core::ids::{BackupId, Version};

use super::error::BackupError;
use super::installation::{Dialect, Installation};
use super::manifest::{DUMP, FileEntry, Manifest};
use super::program::{Call, Input, Outcome, Sink, Tools, run, version};
use super::progress::{Meter, Stage};
use super::secret::Secret;
use super::{mysql, postgres};

/// Longest name of a session that PostgreSQL keeps, in bytes.
const SESSION_NAME_MAX: usize = 63;
/// How long other sessions may take to end after they were told.
const SESSIONS_PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether they have.
const SESSIONS_EVERY: Duration = Duration::from_millis(100);
/// How many sessions an error names.
const SESSIONS_SHOWN: usize = 4;
/// Longest name of a database's part in that of its scratch database, in bytes; both dialects keep 63 at least.
const SCRATCH_BASE_MAX: usize = 38;
/// Shortest password that is looked for in a program's words. A shorter one would be found in any text.
const SECRET_MIN: usize = 4;

/// A row of an answer.
pub(super) type Row = Vec<String>;

/// What the server says.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) server: String,
    pub(super) server_major: u32,
    pub(super) bytes: u64,
    pub(super) schemas: Vec<String>,
    pub(super) tables: u64,
    pub(super) version: Option<Version>,
}

/// The programs of a dialect.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    pub(super) dump: PathBuf,
    pub(super) load: PathBuf,
    pub(super) ask: PathBuf,
    /// Major version of the program for dumps.
    pub(super) dump_major: u32,
    /// What it says of itself.
    pub(super) dump_version: String,
}

/// A database with what is needed to work on it.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) installation: Installation,
    pub(super) tools: Tools,
    pub(super) programs: Programs,
    pub(super) meter: Meter,
    pub(super) secret: Secret,
    pub(super) session: String,
}

impl Database {
    /// Finds the programs and writes the password's file.
    pub(super) async fn open(
        installation: &Installation,
        tools: &Tools,
        node: &str,
        meter: &Meter,
    ) -> Result<Self, BackupError> {
        let find = |names: &[&str], package| tools.find(names, package);
        let (dump, load, ask) = match installation.dialect {
            Dialect::Postgres => {
                let find = |name| find(&[name], postgres::PACKAGE);
                (find("pg_dump")?, find("pg_restore")?, find("psql")?)
            }
            dialect => {
                let (dumps, clients, package) = mysql::programs(dialect);
                let client = find(clients, package)?;
                (find(dumps, package)?, client.clone(), client)
            }
        };
        let mut session = format!("soloist-backup-{node}");
        while session.len() > SESSION_NAME_MAX {
            session.pop();
        }
        let programs = Programs { dump, load, ask, dump_major: 0, dump_version: String::new() };
        let secret = Secret::new(&tools.temporary, installation)?;
        let (installation, tools, meter) = (installation.clone(), tools.clone(), meter.clone());
        let mut database = Self { installation, tools, programs, meter, secret, session };
        database.note_version().await?;
        Ok(database)
    }

    /// The same, with programs that fit the server.
    pub(super) async fn ready(
        installation: &Installation,
        tools: &Tools,
        node: &str,
        meter: &Meter,
    ) -> Result<(Self, Facts), BackupError> {
        let mut database = Self::open(installation, tools, node, meter).await?;
        let facts = database.facts().await?;
        database.fit(&facts).await?;
        Ok((database, facts))
    }

    /// Asks the program for dumps for its version.
    async fn note_version(&mut self) -> Result<(), BackupError> {
        let (what, args) = ("asking for its version", vec!["--version".to_owned()]);
        let said = self.text(what, &self.programs.dump, args, Input::Nothing).await?;
        let (_, line) = version(&said);
        // "mysqldump  Ver 10.13 Distrib 5.7.44": the second one counts.
        let (major, _) = version(line.split("Distrib ").last().unwrap_or(&line));
        (self.programs.dump_major, self.programs.dump_version) = (major, line);
        Ok(())
    }

    /// Whether it is PostgreSQL.
    pub(super) fn is_postgres(&self) -> bool {
        self.installation.dialect == Dialect::Postgres
    }

    /// The same with another database on the same server.
    fn on(&self, name: &str) -> Result<Self, BackupError> {
        let installation = self.installation.with_database(name);
        Ok(Self {
            secret: Secret::new(&self.tools.temporary, &installation)?,
            installation,
            tools: self.tools.clone(),
            programs: self.programs.clone(),
            meter: self.meter.clone(),
            session: self.session.clone(),
        })
    }

    // ---- running programs ----

    /// Runs a program for its output.
    pub(super) async fn text(
        &self,
        what: &'static str,
        program: &Path,
        args: Vec<String>,
        input: Input,
    ) -> Result<String, BackupError> {
        match self.call(what, program, args, input, Sink::Text).await? {
            Outcome::Text(text) => Ok(text),
            Outcome::File(_) | Outcome::Failed(_) => Err(self.failed(what, program, "it gave no text")),
        }
    }

    /// Runs a program that writes a dump into the folder.
    pub(super) async fn dump_into(&self, folder: &Path, args: Vec<String>) -> Result<FileEntry, BackupError> {
        let (what, sink) = ("the dump of the database", Sink::File(folder.to_owned(), DUMP));
        match self.call(what, &self.programs.dump, args, Input::Nothing, sink).await? {
            Outcome::File(entry) => Ok(entry),
            Outcome::Text(_) | Outcome::Failed(_) => {
                Err(self.failed(what, &self.programs.dump, "it gave no dump"))
            }
        }
    }

    async fn call(
        &self,
        what: &'static str,
        program: &Path,
        args: Vec<String>,
        input: Input,
        sink: Sink,
    ) -> Result<Outcome, BackupError> {
        let env = if self.is_postgres() { postgres::env(self) } else { BTreeMap::new() };
        let call = Call { program, args, env, input, sink };
        match run(&self.tools, call, &self.meter).await? {
            Outcome::Failed(why) => Err(self.failed(what, program, &why)),
            outcome => Ok(outcome),
        }
    }

    /// A program's failure as an error, without the password.
    pub(super) fn failed(&self, what: &'static str, program: &Path, why: &str) -> BackupError {
        let wrong =
            ["password authentication failed", "no password supplied", "ERROR 1045", "Got error: 1045"];
        if wrong.iter().any(|text| why.contains(text)) {
            return BackupError::Password {
                place: self.installation.place(),
                user: self.installation.user.clone(),
            };
        }
        let password = &self.installation.password;
        let why =
            if password.len() >= SECRET_MIN { why.replace(password.as_str(), "…") } else { why.to_owned() };
        let program = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        BackupError::Program { what, program, why }
    }

    /// Asks in SQL. Statements go in over a pipe, never as arguments.
    pub(super) async fn ask(&self, what: &'static str, sql: String) -> Result<Vec<Row>, BackupError> {
        let (args, separator) = if self.is_postgres() {
            (postgres::ask_args(), postgres::SEPARATOR)
        } else {
            (mysql::ask_args(self), '\t')
        };
        let text = self.text(what, &self.programs.ask, args, Input::Text(sql)).await?;
        Ok(text.lines().map(|line| line.split(separator).map(str::to_owned).collect()).collect())
    }

    // ---- what is done with a database ----

    /// Looks at the server and the database.
    pub(super) async fn facts(&self) -> Result<Facts, BackupError> {
        const WHAT: &str = "looking at the database";
        let sql = if self.is_postgres() { postgres::facts(self) } else { mysql::facts(self) };
        let (mut facts, mut installed) = (Facts::default(), None);
        let table = self.installation.version_table();
        for row in self.ask(WHAT, sql).await? {
            let cell = |at: usize| row.get(at).cloned().unwrap_or_default();
            match cell(0).as_str() {
                "server" => {
                    facts.server = cell(2);
                    let number = version(&cell(1)).0;
                    facts.server_major = if self.is_postgres() { number / 10_000 } else { number };
                }
                "bytes" => facts.bytes = cell(1).parse().unwrap_or(0),
                "schema" => facts.schemas.push(cell(1)),
                "table" => {
                    facts.tables += 1;
                    if cell(2) == table {
                        let schema = self.installation.schema.as_deref().unwrap_or("public");
                        let here = !self.is_postgres() || cell(1) == schema;
                        installed = here.then(|| cell(1)).or(installed);
                    }
                }
                _ => {}
            }
        }
        if let Some(schema) = installed {
            let sql = if self.is_postgres() {
                postgres::version(&schema, &table)
            } else {
                mysql::version(self, &table)
            };
            let rows = self.ask(WHAT, sql).await?;
            facts.version = rows.into_iter().flatten().next().filter(|text| !text.is_empty()).map(Version);
        }
        Ok(facts)
    }

    /// Takes the programs of the server's version where they are installed beside others, and refuses those that cannot
    /// dump this server or load into it.
    pub(super) async fn fit(&mut self, facts: &Facts) -> Result<(), BackupError> {
        let server = facts.server_major;
        if self.is_postgres() && self.programs.dump_major != server {
            let find = |name| self.tools.postgres_of(server, name);
            if let (Some(dump), Some(load)) = (find("pg_dump"), find("pg_restore")) {
                (self.programs.dump, self.programs.load) = (dump, load);
                self.note_version().await?;
            }
        }
        let client = self.programs.dump_major;
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let same_kind = self.is_postgres()
            || self.programs.dump_version.contains("MariaDB") == facts.server.contains("MariaDB");
        let package = if self.is_postgres() {
            format!("{}-{server}", postgres::PACKAGE)
        } else {
            format!("{} of version {server}", mysql::programs(self.installation.dialect).2)
        };
        if same_kind && client < server {
            let program = name(&self.programs.dump);
            return Err(BackupError::ClientTooOld { program, client, server, package });
        }
        if self.is_postgres() && postgres::too_new(client, server) {
            let program = name(&self.programs.load);
            return Err(BackupError::ClientTooNew { program, client, server, package });
        }
        Ok(())
    }

    /// Writes the dump.
    pub(super) async fn dump(&self, folder: &Path) -> Result<FileEntry, BackupError> {
        let args =
            if self.is_postgres() { postgres::dump_args(self) } else { mysql::dump_args(self).await? };
        self.dump_into(folder, args).await
    }

    /// Ends all other sessions and waits until there are none.
    pub(super) async fn alone(&self) -> Result<(), BackupError> {
        self.meter.stage(Stage::Sessions);
        let began = Instant::now();
        loop {
            let sql = if self.is_postgres() {
                postgres::end_sessions(&self.installation.database)
            } else {
                mysql::sessions(&self.installation.database)
            };
            let rows = self.ask("ending other sessions", sql).await?;
            if rows.is_empty() {
                return Ok(());
            }
            if !self.is_postgres() {
                // One that has ended by itself is no error.
                let kill = |row: &Row| row.first().map(|id| format!("kill {id};\n"));
                let sql: String = rows.iter().filter_map(kill).collect();
                if let Err(error) = self.ask("ending other sessions", sql).await {
                    tracing::debug!("ending a session: {error}");
                }
            }
            if began.elapsed() >= SESSIONS_PATIENCE {
                let shown: Vec<String> = rows.iter().take(SESSIONS_SHOWN).map(|row| row.join(" ")).collect();
                return Err(BackupError::Sessions {
                    place: self.installation.place(),
                    secs: SESSIONS_PATIENCE.as_secs(),
                    who: shown.join(", "),
                });
            }
            tokio::time::sleep(SESSIONS_EVERY).await;
        }
    }

    /// Removes all that a restore brings back, and all that came after it.
    pub(super) async fn clear(&self) -> Result<(), BackupError> {
        self.meter.stage(Stage::Clearing);
        if self.is_postgres() { postgres::clear(self).await } else { mysql::clear(self).await }
    }

    /// Loads a dump into a cleared database.
    pub(super) async fn load(&self, dump: &Path, manifest: &Manifest) -> Result<(), BackupError> {
        self.meter.stage(Stage::Load);
        if self.is_postgres() {
            postgres::load(self, dump, manifest).await
        } else {
            mysql::load(self, dump).await
        }
    }

    /// Compares what is there now with what a backup holds.
    pub(super) async fn compare(&self, manifest: &Manifest) -> Result<(), BackupError> {
        let facts = self.facts().await?;
        let differs = |why| Err(BackupError::Differs { id: manifest.id.clone(), why });
        if facts.tables != manifest.tables {
            return differs(format!("{} tables instead of {}", facts.tables, manifest.tables));
        }
        if facts.version != manifest.version {
            let show =
                |version: &Option<Version>| version.as_ref().map_or("none".to_owned(), |v| v.0.clone());
            return differs(format!(
                "version {} instead of {}",
                show(&facts.version),
                show(&manifest.version)
            ));
        }
        Ok(())
    }

    /// An empty database beside this one, with the same settings. One of the same name is removed first: only an earlier
    /// check of this backup can have left it.
    pub(super) async fn scratch(&self, id: &BackupId) -> Result<Self, BackupError> {
        let hash = Sha256::digest(id.to_string().as_bytes());
        let short: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let mut base = self.installation.database.clone();
        while base.len() > SCRATCH_BASE_MAX {
            base.pop();
        }
        let scratch = self.on(&format!("{base}_soloist_check_{short}"))?;
        self.drop_scratch(&scratch).await?;
        let name = &scratch.installation.database;
        let sql = if self.is_postgres() {
            postgres::create(self, name).await?
        } else {
            mysql::create(self, name).await?
        };
        self.ask("creating the scratch database", sql).await?;
        Ok(scratch)
    }

    /// Removes a scratch database with whatever is connected to it.
    pub(super) async fn drop_scratch(&self, scratch: &Self) -> Result<(), BackupError> {
        let name = &scratch.installation.database;
        if self.is_postgres() {
            let end = format!("{}\n{}", postgres::end_sessions(name), postgres::drop(name));
            return self.ask("dropping the scratch database", end).await.map(|_| ());
        }
        self.ask("dropping the scratch database", mysql::drop(name)).await.map(|_| ())
    }
}
