//! The coordinators' own cluster, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;
use soloist_core::{
    command::FIRST_LEVEL,
    members::{MemberSeen, dangers},
};
use soloist_proto::v1;

use super::table::columns;

/// The cluster as one member sees it.
#[derive(Debug, Serialize)]
pub struct Cluster {
    /// Its name.
    pub cluster: String,
    /// The member that answered.
    pub member: u64,
    /// The leader, if one is known and answers.
    pub leader: Option<u64>,
    /// How many voters must answer for anything to be decided.
    pub quorum: u32,
    /// The feature level.
    pub level: u32,
    /// The members, by id.
    pub members: Vec<Member>,
    /// What is dangerous, the worst first.
    pub dangers: Vec<String>,
}

/// One member.
#[derive(Debug, Serialize)]
pub struct Member {
    /// Its id.
    pub member: u64,
    /// Where the others reach it.
    pub address: String,
    /// `leader`, `follower`, `candidate`, `learner`, `stopped`, or `unknown` if it does not answer.
    pub role: String,
    /// Whether it votes.
    pub voter: bool,
    /// Whether it answers.
    pub reachable: bool,
    /// How many entries its log is behind the leader's; `None` while that is not known.
    pub behind: Option<u64>,
    /// Its version; empty if it does not answer.
    pub version: String,
    /// The highest feature level that it can follow; `None` if it does not answer.
    pub level_max: Option<u32>,
    /// The version of the interface that it speaks; `None` if it does not answer.
    pub wire_version: Option<u32>,
    /// Open sessions of agents.
    pub sessions: u32,
    /// Where it serves HTTP; may be empty.
    pub http: String,
}

impl From<v1::MembersReply> for Cluster {
    fn from(reply: v1::MembersReply) -> Cluster {
        let leads = |info: &v1::MemberInfo| info.reachable && info.role == "leader";
        // For a moment, a deposed leader may not know of its successor.
        let leader = reply.members.iter().filter(|info| leads(info)).max_by_key(|info| info.term).cloned();
        let answering = reply.members.iter().filter(|info| info.reachable);
        let level = answering.map(|info| info.feature_level).max().unwrap_or(0).max(FIRST_LEVEL);
        let seen = |info: &v1::MemberInfo| MemberSeen {
            id: info.member,
            address: info.address.clone(),
            voter: info.voter,
            answers: info.reachable,
            leads: leads(info),
            last_log: info.last_log,
            level_max: info.feature_level_max.max(FIRST_LEVEL),
            version: info.version.clone(),
        };
        let seen: Vec<MemberSeen> = reply.members.iter().map(seen).collect();
        let last = leader.as_ref().map(|leader| leader.last_log);
        let member = |info: v1::MemberInfo| Member {
            member: info.member,
            behind: last.filter(|_| info.reachable).map(|last| last.saturating_sub(info.last_log)),
            level_max: info.reachable.then_some(info.feature_level_max.max(FIRST_LEVEL)),
            // The first release does not tell.
            wire_version: info.reachable.then_some(info.wire_version.max(1)),
            address: info.address,
            role: info.role,
            voter: info.voter,
            reachable: info.reachable,
            version: info.version,
            sessions: info.sessions,
            http: info.http,
        };
        Cluster {
            cluster: reply.cluster,
            member: reply.member,
            leader: leader.map(|leader| leader.member),
            quorum: reply.quorum,
            level,
            members: reply.members.into_iter().map(member).collect(),
            dangers: dangers(&seen, level).iter().map(ToString::to_string).collect(),
        }
    }
}

/// The cluster as a table, with what is dangerous below.
pub fn table(cluster: &Cluster) -> String {
    let voters = cluster.members.iter().filter(|member| member.voter).count();
    let leader = cluster.leader.map_or("NO LEADER".to_owned(), |id| format!("member {id} leads"));
    let mut text = format!(
        "cluster {}: {leader}; {} of {voters} voters decide; feature level {}\n",
        cluster.cluster, cluster.quorum, cluster.level
    );
    let row = |member: &Member| {
        let role = match (member.reachable, cluster.leader == Some(member.member), member.voter) {
            (false, _, true) => "voter, DOES NOT ANSWER",
            (false, _, false) => "learner, DOES NOT ANSWER",
            (true, true, _) => "leader",
            (true, false, true) => "voter",
            (true, false, false) => "learner",
        };
        let number = |number: Option<u32>| number.map_or("?".to_owned(), |number| number.to_string());
        let version = if member.version.is_empty() { "?".to_owned() } else { member.version.clone() };
        [
            member.member.to_string(),
            member.address.clone(),
            role.to_owned(),
            member.behind.map_or("?".to_owned(), |entries| entries.to_string()),
            version,
            number(member.level_max),
            number(member.wire_version),
            member.sessions.to_string(),
        ]
    };
    text += &columns(
        ["ID", "ADDRESS", "ROLE", "BEHIND", "VERSION", "LEVEL UP TO", "WIRE", "AGENTS"],
        cluster.members.iter().map(row),
    );
    for danger in &cluster.dangers {
        let _ = writeln!(text, "! {danger}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(member: u64, role: &str, last_log: u64) -> v1::MemberInfo {
        v1::MemberInfo {
            member,
            address: format!("10.0.0.{member}:7401"),
            role: role.into(),
            term: 3,
            last_log,
            voter: true,
            reachable: role != "unknown",
            version: if role == "unknown" { String::new() } else { "0.1.0".into() },
            feature_level: 1,
            feature_level_max: 2,
            ..v1::MemberInfo::default()
        }
    }

    #[test]
    fn a_cluster_with_a_silent_member_is_told_as_it_is() {
        let members = vec![info(1, "leader", 100), info(2, "follower", 97), info(3, "unknown", 0)];
        let reply =
            v1::MembersReply { cluster: "soloist".into(), member: 2, leader: Some(1), members, quorum: 2 };
        let cluster = Cluster::from(reply);
        assert_eq!(
            (cluster.leader, cluster.members[1].behind, cluster.members[2].behind),
            (Some(1), Some(3), None)
        );
        let text = table(&cluster);
        assert!(
            text.starts_with("cluster soloist: member 1 leads; 2 of 3 voters decide; feature level 1\n"),
            "{text}"
        );
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[2], ["1", "10.0.0.1:7401", "leader", "0", "0.1.0", "2", "1", "0"], "{text}");
        assert_eq!(
            lines[4],
            ["3", "10.0.0.3:7401", "voter,", "DOES", "NOT", "ANSWER", "?", "?", "?", "?", "0"],
            "{text}"
        );
        assert!(text.contains("! AT THE EDGE"), "{text}");
        assert!(!text.contains("finalize"), "nobody knows what the silent one can follow: {text}");
    }
}
