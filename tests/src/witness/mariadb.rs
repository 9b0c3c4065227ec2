//! Sessions in MariaDB, where the app's have no names.
//!
//! Each node signs in with a login of its own (deploy/lab): `noco_1` is that of `node-1`. Its agent and the programs for
//! dumps use the same login; they say what they are in their sessions' attributes, and the app says nothing there. So names
//! come out like those in PostgreSQL: `soloist-node-1`, `soloist-agent-node-1`, `soloist-backup-node-1`.

use std::collections::BTreeMap;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder};

use super::{ANSWER_WITHIN, Counts, Shared, WitnessOptions, sample};

/// The account that deploy/lab makes.
const ACCOUNT: &str = "noco";
/// How a node's login begins; the node's number follows.
const LOGIN_PREFIX: &str = "noco_";
/// How the attribute of an agent begins.
const AGENT_PREFIX: &str = "soloist-agent-";

const QUESTION: &str = "select p.id, p.user, a.attr_value from information_schema.processlist p \
     left join performance_schema.session_connect_attrs a on a.processlist_id = p.id and a.attr_name = 'program_name' \
     where p.db = ?";

/// Looks until told to stop, or until the connection breaks.
pub(super) async fn look(shared: &Shared, options: &WitnessOptions) -> anyhow::Result<()> {
    let account = OptsBuilder::default().user(Some(ACCOUNT)).pass(Some(ACCOUNT)).prefer_socket(false);
    let account = account.ip_or_hostname("127.0.0.1").tcp_port(options.port);
    let mut session = tokio::time::timeout(ANSWER_WITHIN, Conn::new(account)).await??;
    let mut names = Names::default();
    let ask = async || Ok(names.count(session.exec(QUESTION, (&options.database,)).await?));
    let result = sample(shared, options.period, ask).await;
    tokio::time::timeout(ANSWER_WITHIN, session.disconnect()).await??;
    result
}

/// A session: its number, its login, and the program's name if it gave one.
type Row = (u64, String, Option<String>);

/// Remembers what the sessions of the last look are. The server does not look at sessions and attributes at one moment, so
/// a session that begins or ends just then may show without its attributes: only who shows so twice has none.
#[derive(Debug, Default)]
struct Names(BTreeMap<u64, Option<String>>);

impl Names {
    fn count(&mut self, rows: Vec<Row>) -> Counts {
        let mut seen = Counts::new();
        let mut now = BTreeMap::new();
        for (id, login, program) in rows {
            let name = match (program, self.0.remove(&id)) {
                (Some(program), _) => Some(named(&login, &program)),
                (None, Some(Some(name))) => Some(name),
                (None, Some(None)) => Some(app(&login)),
                (None, None) => None,
            };
            if let Some(name) = &name {
                *seen.entry(name.clone()).or_default() += 1;
            }
            now.insert(id, name);
        }
        self.0 = now;
        seen
    }
}

/// The node of a login.
fn node(login: &str) -> Option<String> {
    login.strip_prefix(LOGIN_PREFIX).map(|number| format!("node-{number}"))
}

/// The name of a session without attributes.
fn app(login: &str) -> String {
    node(login).map_or_else(|| login.to_owned(), |node| format!("soloist-{node}"))
}

/// The name of a session of this program.
fn named(login: &str, program: &str) -> String {
    match node(login) {
        _ if program.starts_with(AGENT_PREFIX) => program.to_owned(),
        Some(node) => format!("soloist-backup-{node}"),
        None => login.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_and_attributes_become_names() {
        let row = |id, login: &str, program: Option<&str>| (id, login.to_owned(), program.map(str::to_owned));
        let agent = Some("soloist-agent-node-1");
        let mut names = Names::default();
        let first = vec![
            row(1, "noco_1", None),
            row(2, "noco_1", agent),
            row(3, "noco_2", Some("mysqldump")),
            row(4, "noco", Some("mysql")),
        ];
        let seen = names.count(first);
        let told: Vec<_> = seen.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(told, [("noco", 1), ("soloist-agent-node-1", 1), ("soloist-backup-node-2", 1)]);

        // The agent's session is about to end, and another one has just begun.
        let second = vec![
            row(1, "noco_1", None),
            row(2, "noco_1", None),
            row(5, "noco_1", None),
            row(6, "noco", None),
        ];
        let seen = names.count(second);
        let told: Vec<_> = seen.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(told, [("soloist-agent-node-1", 1), ("soloist-node-1", 1)]);
        let third = names.count(vec![row(5, "noco_1", agent), row(6, "noco", None)]);
        assert_eq!(third.keys().collect::<Vec<_>>(), ["noco", "soloist-agent-node-1"]);
    }
}
