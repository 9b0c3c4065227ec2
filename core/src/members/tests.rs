use super::*;
use crate::command::{Command, Entry, FEATURE_LEVEL};
use crate::time::Time;
use crate::{Reply, apply};

fn members(count: u64, silent: &[u64]) -> Vec<MemberSeen> {
    let member = |id| MemberSeen {
        id,
        address: format!("h{id}:1"),
        voter: true,
        answers: !silent.contains(&id),
        leads: id == 1,
        last_log: 1_000,
        level_max: 2,
        version: "1.0".into(),
    };
    (1..=count).map(member).collect()
}

fn cluster<'a>(members: &'a [MemberSeen], used: &'a UsedIds) -> ClusterSeen<'a> {
    ClusterSeen { members, leader: 1, level: 2, used }
}

fn newcomer(id: u64, last_log: u64) -> Found {
    let member = members(1, &[]).remove(0);
    Found::Member(MemberSeen { id, last_log, leads: false, ..member })
}

#[test]
fn a_newcomer_is_new() {
    let (members, mut used) = (members(3, &[]), UsedIds::default());
    used.add(4);
    let cluster = cluster(&members, &used);
    let reason = |id, address: &str, found: &Found| {
        cluster.may_join(id, address, found).map_err(|refusal| refusal.reason())
    };
    assert_eq!(reason(5, "h5:1", &newcomer(5, 0)), Ok(true));
    assert_eq!(reason(4, "h4:1", &newcomer(4, 0)), Err("id_used"));
    assert_eq!(reason(5, "h3:1", &newcomer(5, 0)), Err("address_taken"));
    assert_eq!(reason(3, "h9:1", &newcomer(3, 0)), Err("id_taken"));
    assert_eq!(reason(3, "h3:1", &newcomer(3, 0)), Err("lost_log"));
    assert_eq!(reason(3, "h3:1", &newcomer(3, 900)), Ok(false));
    assert_eq!(reason(5, "h5:1", &newcomer(5, 7)), Err("not_empty"));
    assert_eq!(reason(5, "h5:1", &Found::Nobody("refused".into())), Err("not_running"));
    let other = Found::Other { cluster: "b".into(), member: 5 };
    assert_eq!(reason(5, "h5:1", &other), Err("stranger"));
    let Found::Member(old) = newcomer(5, 0) else { panic!() };
    let old = Found::Member(MemberSeen { level_max: 1, ..old });
    assert_eq!(reason(5, "h5:1", &old), Err("too_old"));
    assert!(matches!(cluster.may_join(4, "h4:1", &newcomer(4, 0)), Err(Refusal::IdUsed { free: 5, .. })));
}

#[test]
fn the_dead_go_before_the_new_vote() {
    let used = UsedIds::default();
    let mut whole = members(4, &[]);
    whole[3].voter = false;
    assert_eq!(cluster(&whole, &used).may_vote(4, 0), Ok(false));
    assert_eq!(cluster(&whole, &used).may_vote(4, 700), Ok(false));
    assert_eq!(cluster(&whole, &used).may_vote(4, 900), Ok(true));
    whole[1].answers = false;
    assert_eq!(cluster(&whole, &used).may_vote(4, 900), Err(Refusal::DeadFirst { id: 4, silent: vec![2] }));
}

#[test]
fn a_removal_leaves_a_quorum_of_those_that_answer() {
    let used = UsedIds::default();
    let reason = |count, silent: &[u64], id| {
        cluster(&members(count, silent), &used).may_leave(id).map_err(|refusal| refusal.reason())
    };
    assert_eq!(reason(3, &[], 2), Ok(()));
    assert_eq!(reason(3, &[2], 2), Ok(()), "the dead one may go");
    assert_eq!(reason(3, &[2], 3), Err("no_quorum"), "a living one may not");
    assert_eq!(reason(5, &[4, 5], 3), Err("no_quorum"));
    assert_eq!(reason(5, &[4, 5], 5), Ok(()));
    assert_eq!(reason(1, &[], 1), Err("last_voter"));
    assert_eq!(reason(3, &[], 9), Err("unknown_member"));
}

#[test]
fn the_level_rises_when_everybody_can_follow() {
    let used = UsedIds::default();
    let mut members = members(3, &[]);
    let at_1 =
        |members: &[MemberSeen]| ClusterSeen { members, leader: 1, level: 1, used: &used }.may_finalize();
    assert_eq!(at_1(&members), Ok(Some(2)));
    assert_eq!(cluster(&members, &used).may_finalize(), Ok(None));
    members[2].level_max = 1;
    assert!(matches!(at_1(&members), Err(Refusal::CannotFollow { level: 2, .. })));
    members[2].answers = false;
    assert_eq!(at_1(&members), Err(Refusal::Unheard { silent: vec![3] }));
}

#[test]
fn used_ids_are_bounded_and_none_becomes_free() {
    let mut used = UsedIds::default();
    (1..=REMOVED_MEMBERS_MAX as u64 + 10).for_each(|id| used.add(id));
    assert_eq!(used.removed.len(), REMOVED_MEMBERS_MAX);
    assert!((1..=REMOVED_MEMBERS_MAX as u64 + 10).all(|id| used.contains(id)));
    assert!(!used.contains(REMOVED_MEMBERS_MAX as u64 + 11));
}

#[test]
fn ids_are_remembered_from_the_level_on_at_which_all_know_it() {
    let (before, after) = (BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 3]));
    let mut state = State::default();
    changed(&mut state, &before, &after);
    assert!(state.used_ids.is_empty());
    state.level = MEMBERS_LEVEL;
    changed(&mut state, &before, &after);
    assert!(state.used_ids.contains(2) && !state.used_ids.contains(3));
}

#[test]
fn dangers_are_named() {
    let texts = |count, silent: &[u64]| {
        dangers(&members(count, silent), 2).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(texts(3, &[]), "");
    assert!(texts(3, &[2]).contains("AT THE EDGE"));
    assert!(texts(3, &[2, 3]).contains("NO QUORUM"));
    assert!(texts(4, &[]).contains("4 voters survive no more failures than 3 do"));
    assert!(texts(1, &[]).contains("one voter"));
}

#[test]
fn the_level_rises_once_and_never_falls() {
    let mut state = State::default();
    let mut raise = |level| {
        let command = Command::Raise { level, by: "root@host".into() };
        let feature_level = state.stamp_level(&command);
        let reply = apply(&mut state, 1, &Entry { time: Time(1), wall_ms: 0, feature_level, command }).reply;
        (reply, feature_level, state.level)
    };
    let promote = Command::Promote { member: 1 };
    assert_eq!(
        State::default().stamp_level(&promote),
        1,
        "stamped with the level of the state, not of the release"
    );
    // Stamped with the level itself, so that whoever does not know it stops there.
    assert_eq!(raise(2), (Ok(Reply::Done), 2, 2));
    assert_eq!(raise(2), (Ok(Reply::Unchanged), 2, 2));
    assert_eq!(raise(1), (Ok(Reply::Unchanged), 2, 2));
    assert_eq!(raise(FEATURE_LEVEL + 1).2, 2, "what this release does not know it does not take for granted");
}
