//! Coordinators come, go, move, hand over and are exchanged while an operation is under way, and agents follow them.

use std::time::Duration;

use serde_json::Value;
use soloist_tests::harness::{Cli, Fleet, FleetOptions, Held, Output, free_ports, until};

/// An operation whose holder works until it is told to end: its lease is renewed all the time, through whoever is there.
fn work(fleet: &Fleet) -> Held {
    Held::begin(fleet, "solo", "true")
}

/// Lets it end: it must have had its grant all along.
fn end(work: Held, fleet: &Fleet) {
    let output = work.let_go();
    assert_eq!(output.code, 0, "{}\n{}", output.stderr, fleet.logs());
    fleet.until_whole();
    let list = fleet.cli().run(&["operation", "list", "-o", "json"]).expect(0).json();
    assert_eq!(list["operations"][0]["status"], "succeeded", "{list}");
}

fn cluster(cli: &Cli, args: &[&str]) -> Output {
    cli.run(&[&["cluster"], args].concat())
}

fn members(fleet: &Fleet, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let cli = fleet.cli();
    let state = || format!("{}\n{}", cluster(&cli, &["status"]).stdout, fleet.logs());
    until(what, Duration::from_secs(30), state, || {
        let output = cluster(&cli, &["status", "-o", "json"]);
        (output.code == 0).then(|| output.json()).filter(|status| condition(status))
    })
}

fn voters(status: &Value) -> Vec<u64> {
    let members = status["members"].as_array().cloned().unwrap_or_default();
    members
        .iter()
        .filter(|member| member["voter"] == true)
        .filter_map(|member| member["member"].as_u64())
        .collect()
}

fn at(fleet: &Fleet, member: usize) -> String {
    format!("127.0.0.1:{}", fleet.grpc[member - 1])
}

/// Whether a member did not answer within the second and a half that the leader gives it: on a busy machine one that has just begun may not.
fn is_slow(output: &Output) -> bool {
    output.code == 77 && output.stderr.contains("did not answer in time")
}

/// Starts a member and has it taken in.
fn add(fleet: &mut Fleet, member: usize) {
    fleet.start_member(member - 1);
    let (id, address) = (member.to_string(), at(fleet, member));
    let cli = fleet.cli();
    let listens = || std::net::TcpStream::connect(&address).ok();
    until("a new coordinator", Duration::from_secs(10), || fleet.logs(), listens);
    let added = || Some(cluster(&cli, &["add", &id, &address])).filter(|added| !is_slow(added));
    let added = until("an answer of the new one", Duration::from_secs(30), || fleet.logs(), added).expect(0);
    assert!(added.stdout.contains("is a voter"), "{added:?}");
}

fn remove(fleet: &mut Fleet, member: usize) {
    let id = member.to_string();
    let _ = cluster(&fleet.cli(), &["remove", &id, "--confirm", &id]).expect(0);
    if let Some(mut gone) = fleet.members[member - 1].take() {
        gone.stop();
    }
}

fn start(options: &FleetOptions) -> Fleet {
    let fleet = Fleet::start(options);
    let _ = fleet.cli().run(&["start", "--install"]).expect(0);
    fleet.until_whole();
    fleet
}

#[test]
fn a_cluster_grows_and_shrinks_under_an_operation_and_agents_follow() {
    let mut fleet = start(&FleetOptions { members: 1, joining: 4, nodes: 2, ..FleetOptions::default() });
    let work = work(&fleet);
    let cli = fleet.cli();
    let alone = cluster(&cli, &["remove", "1", "--confirm", "1"]).expect(77);
    assert!(alone.stderr.contains("last voter"), "{alone:?}");
    let nobody = cluster(&cli, &["add", "2", &at(&fleet, 2)]).expect(77);
    assert!(nobody.stderr.contains("does not answer") && nobody.stderr.contains("--join"), "{nobody:?}");

    add(&mut fleet, 2);
    let page = cluster(&cli, &["status"]).expect(0).stdout;
    assert!(page.contains("2 voters survive no more failures than 1 do"), "{page}");
    (3..=5).for_each(|member| add(&mut fleet, member));
    let whole =
        members(&fleet, "five voters", |status| voters(status).len() == 5 && status["leader"].is_u64());
    assert_eq!(whole["dangers"], serde_json::json!([]), "{whole}");
    let page = cluster(&cli, &["status"]).expect(0).stdout;
    assert!(page.contains("3 of 5 voters decide"), "{page}");

    // The agents' configuration names only the first member, which goes. It leads, and hands over before.
    let known = || {
        let text = std::fs::read_to_string(fleet.folder.join("agent-1/coordinators.json")).ok()?;
        text.contains(&at(&fleet, 5)).then_some(())
    };
    until("the agent to learn the members", Duration::from_secs(10), || fleet.logs(), known);
    let led = cluster(&cli, &["transfer", "1"]).expect(0);
    assert!(led.stdout.contains("member 1 leads"), "{led:?}");
    let wrong = cluster(&cli, &["remove", "1", "--confirm", "2"]).expect(64);
    assert!(wrong.stderr.contains("nothing was done"), "{wrong:?}");
    remove(&mut fleet, 1);
    remove(&mut fleet, 2);
    // An agent that starts again knows them from what it remembers.
    if let Some(mut agent) = fleet.agents[0].take() {
        agent.stop();
    }
    fleet.start_agent(0);
    end(work, &fleet);

    let used = cluster(&cli, &["add", "2", &at(&fleet, 2)]).expect(77);
    assert!(used.stderr.contains("never used again"), "{used:?}");
    remove(&mut fleet, 5);
    remove(&mut fleet, 4);
    let last = members(&fleet, "one voter", |status| voters(status) == [3]);
    assert!(last["dangers"].to_string().contains("one voter survives no failure"), "{last}");
    let _ = cli.run(&["restart"]).expect(0);
    fleet.until_whole();
}

#[test]
fn a_dead_member_is_replaced_and_a_living_one_moves_under_an_operation() {
    let mut fleet = start(&FleetOptions { members: 3, joining: 2, nodes: 2, ..FleetOptions::default() });
    let work = work(&fleet);
    let cli = fleet.cli();
    let dead = fleet.leader() + 1;
    let living: Vec<usize> = (1..=3).filter(|member| *member != dead).collect();
    if let Some(mut gone) = fleet.members[dead - 1].take() {
        gone.kill();
    }
    let edge = members(&fleet, "a new leader", |status| status["leader"].is_u64());
    let dangers = edge["dangers"].to_string();
    assert!(
        dangers.contains("AT THE EDGE") && dangers.contains(&format!("member {dead} does not answer")),
        "{edge}"
    );

    // The dead are removed before the new are added, and nobody whose loss would be the end.
    fleet.start_member(3);
    until(
        "a new coordinator",
        Duration::from_secs(10),
        || fleet.logs(),
        || std::net::TcpStream::connect(at(&fleet, 4)).ok(),
    );
    let early = cluster(&cli, &["add", "4", &at(&fleet, 4)]).expect(77);
    assert!(early.stderr.contains("while others do not answer"), "{early:?}");
    assert!(early.stderr.contains(&format!("soloist cluster remove {dead}")), "{early:?}");
    let id = living[0].to_string();
    let edge = cluster(&cli, &["remove", &id, "--confirm", &id]).expect(77);
    assert!(edge.stderr.contains("nothing could be decided any more"), "{edge:?}");
    let finalize = cluster(&cli, &["finalize", "--confirm", "soloist"]).expect(77);
    assert!(finalize.stderr.contains("not every member answers"), "{finalize:?}");
    remove(&mut fleet, dead);
    let added = cluster(&cli, &["add", "4", &at(&fleet, 4)]).expect(0);
    assert!(added.stdout.contains("member 4"), "{added:?}");

    let twice = cluster(&cli, &["add", "5", &at(&fleet, 4)]).expect(77);
    assert!(twice.stderr.contains("is the address of member 4"), "{twice:?}");

    // A follower moves to another port with its store.
    let mover = living.iter().copied().find(|member| *member != fleet.leader() + 1).expect("there are two");
    if let Some(mut moving) = fleet.members[mover - 1].take() {
        moving.stop();
    }
    let (old, new) = (fleet.grpc[mover - 1], free_ports(1)[0]);
    fleet.configure_member(mover - 1, |text| text.replace(&format!(":{old}\""), &format!(":{new}\"")));
    fleet.grpc[mover - 1] = new;
    fleet.start_member(mover - 1);
    let id = mover.to_string();
    let moved = at(&fleet, mover);
    let wrong = cluster(&fleet.cli(), &["move", &id, &at(&fleet, 4)]).expect(77);
    assert!(wrong.stderr.contains("is the address of member 4"), "{wrong:?}");
    let early = || (cluster(&fleet.cli(), &["move", &id, &moved]).code == 0).then_some(());
    until("the member at its new address", Duration::from_secs(10), || fleet.logs(), early);
    let whole = members(&fleet, "three that follow", |status| {
        let members = status["members"].as_array().cloned().unwrap_or_default();
        members.len() == 3
            && members.iter().all(|member| member["reachable"] == true && member["behind"] == 0)
    });
    assert!(whole.to_string().contains(&moved), "{whole}");
    let led = cluster(&fleet.cli(), &["transfer", &id]).expect(0);
    assert!(led.stdout.contains(&format!("member {mover} leads")), "{led:?}");
    let known = || {
        let text = std::fs::read_to_string(fleet.folder.join("agent-1/coordinators.json")).ok()?;
        (text.contains(&moved) && text.contains(&at(&fleet, 4))).then_some(())
    };
    until("the agent to learn the members", Duration::from_secs(10), || fleet.logs(), known);
    end(work, &fleet);
}

/// What a member says when it is started and must not go on.
fn stops(fleet: &mut Fleet, member: usize) -> String {
    fleet.start_member(member - 1);
    let mut started = fleet.members[member - 1].take().expect("it was just started");
    let status = started.wait(Duration::from_secs(20));
    assert!(!status.success(), "{}", started.log());
    started.log()
}

fn restart(fleet: &mut Fleet, member: usize, capped: bool) {
    let change = |text: String| match capped {
        true => format!("{CAPPED}{text}"),
        false => text.replace(CAPPED, ""),
    };
    if let Some(mut running) = fleet.members[member - 1].take() {
        running.stop();
    }
    fleet.configure_member(member - 1, change);
    fleet.start_member(member - 1);
    members(fleet, "the member to follow", |status| {
        let found =
            status["members"].as_array().into_iter().flatten().find(|found| found["member"] == member);
        let level = if capped { 1 } else { 2 };
        status["leader"].is_u64()
            && found.is_some_and(|found| found["level_max"] == level && found["behind"] == 0)
    });
}

/// The release before is this one, held back: it proposes nothing of level 2, and stops at it.
const CAPPED: &str = "max_feature_level = 1\n";

#[test]
fn coordinators_are_upgraded_one_by_one_and_one_goes_back_until_it_is_final() {
    let options =
        FleetOptions { nodes: 2, joining: 1, member_keys: CAPPED.into(), ..FleetOptions::default() };
    let mut fleet = start(&options);
    let work = work(&fleet);
    let cli = fleet.cli();
    let finalize = ["finalize", "--confirm", "soloist"];
    let already = cluster(&cli, &finalize).expect(0);
    assert!(already.stdout.contains("feature level 1 already"), "{already:?}");

    restart(&mut fleet, 1, false);
    let mixed = cluster(&cli, &finalize).expect(77);
    assert!(mixed.stderr.contains("member 2") && mixed.stderr.contains("goes up to 1"), "{mixed:?}");
    restart(&mut fleet, 2, false);
    // Whoever leads, one goes back to the release before, and forward again.
    let id = "1";
    let _ = cluster(&cli, &["transfer", id]).expect(0);
    restart(&mut fleet, 1, true);
    restart(&mut fleet, 1, false);
    restart(&mut fleet, 3, false);
    let ready = members(&fleet, "three of the new release", |status| {
        status["dangers"].to_string().contains("soloist cluster finalize")
    });
    assert_eq!(ready["level"], 1, "{ready}");

    let unsure = cluster(&cli, &["finalize"]).expect(64);
    assert!(unsure.stderr.contains("can go back"), "{unsure:?}");
    let done = cluster(&cli, &finalize).expect(0);
    assert!(done.stdout.contains("at feature level 2"), "{done:?}");
    end(work, &fleet);

    // There is no way back any more, and what would go back says what to do. Its data is as good as before.
    if let Some(mut running) = fleet.members[2].take() {
        running.stop();
    }
    fleet.configure_member(2, |text| format!("{CAPPED}{text}"));
    let said = stops(&mut fleet, 3);
    assert!(said.contains("is of feature level 2, and this member goes up to 1"), "{said}");
    assert!(said.contains("raise max_feature_level") && said.contains("nothing has to be deleted"), "{said}");
    restart(&mut fleet, 3, false);

    // A new member of the old release is not taken in.
    fleet.start_member(3);
    until(
        "a new coordinator",
        Duration::from_secs(10),
        || fleet.logs(),
        || std::net::TcpStream::connect(at(&fleet, 4)).ok(),
    );
    let old = cluster(&cli, &["add", "4", &at(&fleet, 4)]).expect(77);
    assert!(old.stderr.contains("goes up to feature level 1, and the cluster is at 2"), "{old:?}");
}
