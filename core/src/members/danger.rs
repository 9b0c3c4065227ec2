//! What is dangerous about a cluster as it is.

use std::fmt;

use super::{CATCH_UP_LAG, MemberSeen};

/// Something about the cluster that a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Danger {
    /// Nothing can be decided.
    NoQuorum {
        /// How many voters answer.
        answering: usize,
        /// How many are needed.
        needed: usize,
    },
    /// One more lost voter, and nothing can be decided.
    AtTheEdge {
        /// How many voters there are.
        voters: usize,
        /// Who does not answer.
        silent: Vec<u64>,
    },
    /// One more voter than needed: it adds a machine that can fail and no failure that is survived.
    Even {
        /// How many voters there are.
        voters: usize,
    },
    /// No failure is survived.
    Alone,
    /// A member does not answer.
    Silent {
        /// Which.
        id: u64,
    },
    /// A voter is far behind: it does not count if others fail.
    Behind {
        /// Which.
        id: u64,
        /// By how many entries.
        entries: u64,
    },
    /// A member receives the log and does not vote.
    Learner {
        /// Which.
        id: u64,
    },
    /// Members run different releases.
    Mixed {
        /// Their versions.
        versions: Vec<String>,
    },
    /// Every member knows a higher level than the cluster's.
    NotFinalized {
        /// The level that could be.
        level: u32,
    },
}

impl fmt::Display for Danger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Danger::NoQuorum { answering, needed } => {
                write!(
                    f,
                    "NO QUORUM: {answering} of the voters answer and {needed} are needed; nothing can be decided"
                )
            }
            Danger::AtTheEdge { voters, silent } => {
                write!(f, "AT THE EDGE: if one more of the {voters} voters is lost, nothing can be decided")?;
                match silent.iter().map(u64::to_string).collect::<Vec<_>>().join(", ") {
                    none if none.is_empty() => Ok(()),
                    names => write!(f, " (silent already: {names})"),
                }
            }
            Danger::Even { voters } => {
                write!(
                    f,
                    "{voters} voters survive no more failures than {} do: add one or remove one",
                    voters - 1
                )
            }
            Danger::Alone => write!(f, "one voter survives no failure: its data folder is the cluster"),
            Danger::Silent { id } => write!(f, "member {id} does not answer"),
            Danger::Behind { id, entries } => write!(f, "member {id} is {entries} entries behind"),
            Danger::Learner { id } => {
                write!(f, "member {id} is a learner: it does not vote until soloist cluster add {id} ADDRESS")
            }
            Danger::Mixed { versions } => {
                write!(f, "members run different versions ({}): finish the upgrade", versions.join(", "))
            }
            Danger::NotFinalized { level } => write!(
                f,
                "every member knows feature level {level}: soloist cluster finalize raises it, and ends the way back to the \
                 version before"
            ),
        }
    }
}

/// What is dangerous, the worst first. `level` is the cluster's feature level.
pub fn dangers(members: &[MemberSeen], level: u32) -> Vec<Danger> {
    let voters: Vec<&MemberSeen> = members.iter().filter(|member| member.voter).collect();
    let (needed, answering) = (voters.len() / 2 + 1, voters.iter().filter(|member| member.answers).count());
    let silent: Vec<u64> = members.iter().filter(|member| !member.answers).map(|member| member.id).collect();
    let mut found = Vec::new();
    if answering < needed {
        found.push(Danger::NoQuorum { answering, needed });
    } else if answering == needed && voters.len() > 1 {
        let silent = voters.iter().filter(|member| !member.answers).map(|member| member.id).collect();
        found.push(Danger::AtTheEdge { voters: voters.len(), silent });
    }
    match voters.len() {
        1 => found.push(Danger::Alone),
        count if count > 0 && count.is_multiple_of(2) => found.push(Danger::Even { voters: count }),
        _ => {}
    }
    found.extend(silent.iter().map(|id| Danger::Silent { id: *id }));
    let last = members.iter().filter(|member| member.leads).map(|member| member.last_log).max().unwrap_or(0);
    for member in members.iter().filter(|member| member.answers) {
        let entries = last.saturating_sub(member.last_log);
        if member.voter && entries > CATCH_UP_LAG {
            found.push(Danger::Behind { id: member.id, entries });
        }
        if !member.voter {
            found.push(Danger::Learner { id: member.id });
        }
    }
    let mut versions: Vec<String> =
        members.iter().filter(|member| member.answers).map(|member| member.version.clone()).collect();
    versions.sort();
    versions.dedup();
    if versions.len() > 1 {
        found.push(Danger::Mixed { versions });
    }
    let common = members.iter().map(|member| member.level_max).min().unwrap_or(0);
    if silent.is_empty() && common > level {
        found.push(Danger::NotFinalized { level: common });
    }
    found
}
