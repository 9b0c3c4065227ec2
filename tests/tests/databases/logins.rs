//! Login roles of nodes, and the login of their fence.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use soloist_tests::harness::until;

use super::server::{Kind, PATIENCE, Server};

/// Everybody's password but the fence's.
const PASSWORD: &str = "role-secret";

impl Server {
    /// Runs what `deploy/fences` has, on an empty database.
    pub(crate) fn set_up_fences(&self, app: &str, roles: &[&str]) {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("deploy/fences");
        match self.kind {
            Kind::Postgres => {
                for name in [app, "soloist"] {
                    self.root(&format!("drop database if exists {name} with (force)"));
                }
                for role in roles.iter().chain(&["soloist_fence", "fenced_owner"]) {
                    self.root(&format!("drop role if exists {role}"));
                }
                self.root(&format!("create database {app}"));
                let port = self.port.to_string();
                let nodes = format!("nodes={}", roles.join(" "));
                let app = format!("app={app}");
                let mut command = Command::new("psql");
                command.args([
                    "-X",
                    "-q",
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &port,
                    "-U",
                    "postgres",
                    "-d",
                    "postgres",
                    "-v",
                    &app,
                ]);
                command.args([
                    "-v",
                    "owner=fenced_owner",
                    "-v",
                    &nodes,
                    "-v",
                    "fence=soloist_fence",
                    "-v",
                    "own=soloist",
                ]);
                command.args(["-v", "previous=fenced_owner", "-f"]).arg(deploy.join("postgresql.sql"));
                // It may be run again.
                for _ in 0..2 {
                    let output = command.output().unwrap();
                    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                }
            }
            Kind::Mariadb => {
                self.root(&format!(
                    "drop database if exists {app}; drop database if exists soloist; create database {app}"
                ));
                for role in roles.iter().chain(&["soloist_fence"]) {
                    self.root(&format!("drop user if exists {role}"));
                }
                let text = fs::read_to_string(deploy.join("mysql.sql")).unwrap();
                let text = text.replace("noco_1", roles[0]).replace("noco_2", roles[1]);
                let text =
                    text.replace("nocobase.", &format!("{app}.")).replace("CHANGE-ME-FENCE", "fence-secret");
                let text = text.replace("CHANGE-ME-1", PASSWORD).replace("CHANGE-ME-2", PASSWORD);
                self.root(&text.replace("connection_admin", "connection admin"));
            }
        }
    }

    /// A file with a password.
    pub(crate) fn secret(&self, password: &str) -> PathBuf {
        let file = self.work.join(format!("{password}.secret"));
        fs::write(&file, format!("{password}\n")).unwrap();
        file
    }

    /// Where the fence signs in.
    pub(crate) fn fence_url(&self) -> String {
        let scheme = if self.kind == Kind::Postgres { "postgres" } else { "mysql" };
        format!("{scheme}://soloist_fence@127.0.0.1:{}/soloist", self.port)
    }

    fn client_as(&self, role: &str, app: &str, name: &str, sql: &str) -> Command {
        let port = self.port.to_string();
        let mut command = match self.kind {
            Kind::Postgres => {
                let mut command = Command::new("psql");
                command.args([
                    "-X",
                    "-q",
                    "-At",
                    "-v",
                    "ON_ERROR_STOP=1",
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &port,
                    "-U",
                    role,
                ]);
                command.args(["-d", app, "-c", sql]).env("PGAPPNAME", name);
                command
            }
            Kind::Mariadb => {
                let mut command = Command::new("mariadb");
                command.args([
                    "--no-defaults",
                    "--protocol=tcp",
                    "-h127.0.0.1",
                    "-P",
                    &port,
                    "-u",
                    role,
                    "-NB",
                ]);
                command.args(["-e", sql, app]).env("MYSQL_PWD", PASSWORD);
                command
            }
        };
        command.stdin(Stdio::null());
        command
    }

    /// Statements as a node's role; what the server says against them.
    pub(crate) fn as_role(&self, role: &str, app: &str, name: &str, sql: &str) -> Result<String, String> {
        let output = self.client_as(role, app, name, sql).output().unwrap();
        let said = if output.status.success() { &output.stdout } else { &output.stderr };
        let said = String::from_utf8_lossy(said).trim().to_owned();
        if output.status.success() { Ok(said) } else { Err(said) }
    }

    /// A session of a node's role that stays.
    pub(crate) fn stay(&self, role: &str, app: &str, name: &str) -> Child {
        let (sleep, seen) = match self.kind {
            Kind::Postgres => (
                "select pg_sleep(600)",
                format!("select count(*) from pg_stat_activity where usename = '{role}'"),
            ),
            Kind::Mariadb => (
                "select sleep(600)",
                format!("select count(*) from information_schema.processlist where user = '{role}'"),
            ),
        };
        let mut command = self.client_as(role, app, name, sleep);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("a session", PATIENCE, || "not seen".into(), || (self.root(&seen) != "0").then_some(()));
        child
    }

    /// Lets a role in behind the fence's back, as a server does that has fallen back to an older copy.
    pub(crate) fn unlock(&self, role: &str) {
        match self.kind {
            Kind::Postgres => self.root(&format!("alter role {role} login")),
            Kind::Mariadb => self.root(&format!("alter user {role} account unlock")),
        };
    }

    /// Gives a role more than a node needs.
    pub(crate) fn promote(&self, role: &str) {
        match self.kind {
            Kind::Postgres => self.root(&format!("alter role {role} createrole")),
            Kind::Mariadb => self.root(&format!("grant create user on *.* to {role}")),
        };
    }
}
