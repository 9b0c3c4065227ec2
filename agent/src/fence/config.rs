//! The `[fences]` table of the agent's configuration: the fences around other nodes that this agent can put up.
//!
//! ```toml
//! [fences.database]
//! server = "postgres://soloist_fence@db.example:5432/soloist"
//! password_file = "/etc/soloist/fence.password"
//! app_database = "nocobase"
//! roles = { node-1 = "noco_1", node-2 = "noco_2" }
//!
//! [fences.machine.node-2]
//! off = ["ipmitool", "-H", "10.0.0.12", "-f", "/etc/soloist/ipmi", "power", "off"]
//! check = ["ipmitool", "-H", "10.0.0.12", "-f", "/etc/soloist/ipmi", "power", "status"]
//! off_says = "is off"
//! timeout_secs = 60
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use soloist_core::ids::NodeId;
use soloist_core::policy::NODES_MAX;

/// Longest time that a program may take, in seconds.
const TIMEOUT_MAX_SECS: u64 = 600;
/// Longest name of a login role, in bytes: PostgreSQL cuts longer ones off.
const ROLE_MAX: usize = 63;

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FencesConfig {
    /// Login roles in the fleet's database server.
    #[serde(default)]
    pub database: Option<DatabaseFenceConfig>,
    /// Machines.
    #[serde(default)]
    pub machine: BTreeMap<NodeId, MachineFenceConfig>,
}

/// How nodes are kept from the database.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseFenceConfig {
    /// Where the fence's own login signs in, and its own database: `postgres://user@host:port/database` or `mysql://…`.
    pub server: String,
    /// File with its password, and nothing else.
    pub password_file: PathBuf,
    /// The database that the app uses.
    pub app_database: String,
    /// The login role of each node: its `DB_USER`.
    pub roles: BTreeMap<NodeId, String>,
}

/// How a machine is switched off.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineFenceConfig {
    /// The program that switches it off, with its arguments.
    pub off: Vec<String>,
    /// The program that says whether it is off, with its arguments. It ends with 0.
    pub check: Vec<String>,
    /// What the check prints when the machine is off, and only then.
    pub off_says: String,
    /// How long each of the two may take.
    #[serde(default = "timeout_secs")]
    pub timeout_secs: u64,
}

fn timeout_secs() -> u64 {
    60
}

impl FencesConfig {
    /// What is wrong with it, for people.
    #[must_use]
    pub fn problem(&self, own: &NodeId) -> Option<String> {
        let machines = self.machine.keys().filter(|node| *node == own).map(|node| {
            format!("[fences.machine.{node}] is this agent's own node: another agent must carry its fence")
        });
        let programs = self.machine.iter().filter_map(|(node, machine)| {
            let what = machine.problem()?;
            Some(format!("[fences.machine.{node}] {what}"))
        });
        let too_many = (self.machine.len() > NODES_MAX).then(|| {
            format!("[fences.machine] names {} nodes, and {NODES_MAX} are the most", self.machine.len())
        });
        let database = self.database.as_ref().and_then(DatabaseFenceConfig::problem);
        machines.chain(programs).next().or(too_many).or(database)
    }
}

impl DatabaseFenceConfig {
    fn problem(&self) -> Option<String> {
        let known = ["postgres://", "postgresql://", "mysql://"];
        if !known.iter().any(|scheme| self.server.starts_with(scheme)) {
            return Some("server in [fences.database] must begin with postgres:// or mysql://".into());
        }
        if !self.password_file.is_absolute() {
            return Some(format!(
                "password_file in [fences.database] must be an absolute path, not {}",
                self.password_file.display()
            ));
        }
        if self.roles.is_empty() || self.roles.len() > NODES_MAX {
            return Some(format!(
                "roles in [fences.database] must name 1 to {NODES_MAX} nodes, each with its login role"
            ));
        }
        let bad = |role: &&String| {
            role.is_empty() || role.len() > ROLE_MAX || role.contains(['\0', '\'', '`', '\\'])
        };
        if let Some(role) = self.roles.values().find(bad) {
            return Some(format!("\"{role}\" in [fences.database] cannot be a login role"));
        }
        for (node, role) in &self.roles {
            if let Some((other, _)) = self.roles.iter().find(|(other, same)| other < &node && *same == role) {
                return Some(format!(
                    "{other} and {node} have the same role {role} in [fences.database]: each node needs its own"
                ));
            }
        }
        None
    }
}

impl MachineFenceConfig {
    fn problem(&self) -> Option<String> {
        if self.off.is_empty() || self.check.is_empty() {
            return Some("needs a program under off and one under check".into());
        }
        if self.off_says.trim().is_empty() {
            return Some("needs off_says: what the check prints when the machine is off".into());
        }
        let known = 1..=TIMEOUT_MAX_SECS;
        (!known.contains(&self.timeout_secs)).then(|| format!("timeout_secs must be 1 to {TIMEOUT_MAX_SECS}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> Option<String> {
        let config: FencesConfig = toml::from_str(text).unwrap();
        config.problem(&NodeId::new("node-1").unwrap())
    }

    const DATABASE: &str =
        "[database]\nserver = \"postgres://f@h/soloist\"\npassword_file = \"/p\"\napp_database = \"n\"\n";

    #[test]
    fn what_would_not_keep_anybody_out_is_named() {
        assert_eq!(problem(&format!("{DATABASE}roles = {{ node-1 = \"a\", node-2 = \"b\" }}")), None);
        let same = problem(&format!("{DATABASE}roles = {{ node-1 = \"a\", node-2 = \"a\" }}")).unwrap();
        assert!(same.contains("node-1 and node-2 have the same role a"), "{same}");
        let none = problem(&format!("{DATABASE}roles = {{}}")).unwrap();
        assert!(none.contains("must name 1 to 32 nodes"), "{none}");
        let machine = "off = [\"off\"]\ncheck = [\"check\"]\noff_says = \"is off\"\n";
        assert_eq!(problem(&format!("[machine.node-2]\n{machine}")), None);
        let own = problem(&format!("[machine.node-1]\n{machine}")).unwrap();
        assert!(own.contains("this agent's own node"), "{own}");
        let silent =
            problem("[machine.node-2]\noff = [\"off\"]\ncheck = [\"check\"]\noff_says = \"\"").unwrap();
        assert!(silent.contains("off_says"), "{silent}");
    }
}
