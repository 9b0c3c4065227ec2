//! The database server under a fleet: PostgreSQL or MariaDB, and all in which they differ for a test.

use std::process::Command;

use soloist_tests::witness::{Server as Watched, WitnessOptions};

/// The fleet's database.
pub(crate) const DATABASE: &str = "nocobase";

/// Which database server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    Mariadb,
}

/// A database server of a fleet's own, and what keeps that fleet apart from the others on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    /// Added to every port of the quick start. With 100 between two, one's coordinators would have the gRPC ports where the
    /// other's have HTTP.
    pub(crate) offset: u16,
    /// Name of the fleet, unlike that of a quick start on the same machine.
    pub(crate) fleet: &'static str,
    /// The folder of the quick start, in `.cache`.
    pub(crate) folder: &'static str,
}

impl Server {
    pub(crate) const POSTGRES: Self =
        Self { kind: Kind::Postgres, offset: 200, fleet: "real-test", folder: "lab-test" };
    pub(crate) const MARIADB: Self =
        Self { kind: Kind::Mariadb, offset: 400, fleet: "real-test-mariadb", folder: "lab-mariadb" };
    /// For a second fleet beside the first.
    pub(crate) const SECOND_POSTGRES: Self =
        Self { kind: Kind::Postgres, offset: 600, fleet: "real-test-second", folder: "lab-second" };

    /// As the quick start calls it, and NocoBase's `DB_DIALECT`.
    pub(crate) fn name(self) -> &'static str {
        self.either("postgres", "mariadb")
    }

    /// The server's port.
    pub(crate) fn port(self) -> u16 {
        self.either(15432, 14306) + self.offset
    }

    /// How to watch the sessions of the fleet's database.
    pub(crate) fn witness(self) -> WitnessOptions {
        WitnessOptions::new(self.either(Watched::Postgres, Watched::Mariadb), self.port(), DATABASE)
    }

    /// The answer to a query: one value, or lines. Names in double quotes are names, as in the standard.
    pub(crate) fn sql(self, database: &str, query: &str) -> String {
        let port = self.port().to_string();
        let mut command = match self.kind {
            Kind::Postgres => Command::new("psql"),
            Kind::Mariadb => Command::new("mariadb"),
        };
        match self.kind {
            Kind::Postgres => {
                command.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-At", "-d", database]);
                command.args(["-c", query]);
            }
            Kind::Mariadb => {
                let mode = "--init-command=set sql_mode = concat(@@sql_mode, ',ANSI_QUOTES')";
                command.args([
                    "--no-defaults",
                    "--protocol=tcp",
                    "-h127.0.0.1",
                    "-unoco",
                    "-pnoco",
                    "-P",
                    &port,
                ]);
                command.args([mode, "--default-character-set=utf8mb4", "-NB", "-e", query, database]);
            }
        }
        let output = command.output().expect("the server's client can be run");
        assert!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// All values of a column, in order, with commas.
    pub(crate) fn listed(self, column: &str) -> String {
        match self.kind {
            Kind::Postgres => format!("string_agg({column}, ',' order by {column})"),
            Kind::Mariadb => format!("group_concat({column} order by {column})"),
        }
    }

    /// The function that waits for some seconds.
    pub(crate) fn sleep(self) -> &'static str {
        self.either("pg_sleep", "sleep")
    }

    /// The schema that the app's tables are in, in a query.
    pub(crate) fn schema(self) -> &'static str {
        self.either("current_schema()", "database()")
    }

    /// The lab's command that makes an empty database.
    pub(crate) fn create(self, database: &str) -> String {
        match self.kind {
            Kind::Postgres => format!("lab_database_create {database} >/dev/null"),
            Kind::Mariadb => format!("lab_mariadb_database {} {database}", self.port()),
        }
    }

    /// The lab's command that removes it.
    pub(crate) fn remove(self, database: &str) -> String {
        match self.kind {
            Kind::Postgres => format!("lab_database_drop {database} >/dev/null"),
            Kind::Mariadb => format!("lab_mariadb_sql {} 'drop database {database}'", self.port()),
        }
    }

    fn either<T>(self, postgres: T, mariadb: T) -> T {
        match self.kind {
            Kind::Postgres => postgres,
            Kind::Mariadb => mariadb,
        }
    }
}
