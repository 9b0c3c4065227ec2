//! Machines that are gone: what a person says of them, and nodes that leave the fleet.

use soloist_core::assignment::{AppState, Run};
use soloist_core::command::{Role, Timer};
use soloist_core::condition::standing;
use soloist_core::due::{Contact, due};
use soloist_core::operation::{HoldMode, Request, Status, Step};
use soloist_core::time::Time;
use soloist_core::{Command, Rejection, Reply};

use super::log::{Log, fleet, name, running};

fn assume(log: &mut Log, node: &str, heard: bool) -> Result<Reply, Rejection> {
    let (by, reason) = ("kim".to_owned(), "it burned".to_owned());
    log.push(Command::AssumeStopped { fleet: fleet(), node: name(node), heard, by, reason })
}

/// Two nodes that run, of which node-2 falls silent while a holder asks for the lock.
fn waiting_for_node_2() -> (Log, soloist_core::ids::OperationId) {
    let mut log = running();
    let hold = log.submit("hold", Request::Hold { mode: HoldMode::Solo, on: Some(name("node-1")) });
    log.report("node-1", AppState::Serving);
    log.report("node-1", AppState::Serving);
    assert!(matches!(log.operation(&hold).step(), Some(Step::Reachable { .. })));
    (log, hold)
}

#[test]
fn a_machine_that_is_said_to_be_off_is_left_out() {
    let (mut log, hold) = waiting_for_node_2();
    assert!(matches!(assume(&mut log, "node-2", true), Err(Rejection::StillHeard { .. })));
    let silent = Command::AssumeStopped {
        fleet: fleet(),
        node: name("node-2"),
        heard: false,
        by: "kim".into(),
        reason: " ".into(),
    };
    assert_eq!(log.push(silent), Err(Rejection::NoReason));
    assert_eq!(assume(&mut log, "node-2", false), Ok(Reply::Done));
    assert_eq!(assume(&mut log, "node-2", false), Ok(Reply::Unchanged), "said twice is said once");
    log.report("node-1", AppState::Serving);
    let operation = log.operation(&hold);
    assert!(operation.granted.is_some(), "{operation:?}");
    let why = operation.left_out.get(&name("node-2")).expect("it is named");
    assert!(why.contains("kim") && why.contains("it burned"), "{why}");
}

#[test]
fn whoever_is_heard_again_proves_its_stop_itself() {
    let (mut log, hold) = waiting_for_node_2();
    assert_eq!(assume(&mut log, "node-2", false), Ok(Reply::Done));
    log.report("node-1", AppState::Serving);
    // The machine is switched on after all, and its agent remembers that the app is to run.
    assert!(log.register("node-2", 3, &[2, 3], "node-2", false).is_ok());
    let node = &log.state.fleets[&fleet()].nodes[&name("node-2")];
    assert_eq!((node.stop_evidence, node.assignment.spec.run), (None, Run::Stop));
    // The holder works already, and is judged by its end; what would come next is blocked.
    let breached = |log: &Log| log.operation(&hold).breached.clone();
    assert_eq!(breached(&log).map(|(node, _)| node), Some(name("node-2")));
    assert!(standing(&log.state.fleets[&fleet()], log.operation(&hold)).is_some());
    log.report("node-2", AppState::Stopped);
    assert_eq!(standing(&log.state.fleets[&fleet()], log.operation(&hold)), None);
}

#[test]
fn the_node_that_an_operation_runs_on_is_not_given_up_under_it() {
    let (mut log, hold) = waiting_for_node_2();
    let refused = assume(&mut log, "node-1", false);
    assert!(
        matches!(&refused, Err(Rejection::NeededBy { operation, .. }) if *operation == hold),
        "{refused:?}"
    );
    let node = &log.state.fleets[&fleet()].nodes[&name("node-1")];
    assert!(node.admitted && node.assumed.is_none(), "nothing has changed");
}

#[test]
fn a_removed_node_is_stopped_first_and_does_not_come_back_by_itself() {
    let mut log = running();
    let remove = log.submit("rm", Request::Remove { node: name("node-2") });
    log.report("node-2", AppState::Serving);
    assert!(!log.operation(&remove).status.ended(), "it is not stopped yet");
    for _ in 0..2 {
        log.report("node-2", AppState::Stopped);
    }
    assert_eq!(log.operation(&remove).status, Status::Succeeded);
    assert!(!log.state.fleets[&fleet()].nodes.contains_key(&name("node-2")));
    let again = log.register("node-2", 3, &[2, 3], "node-2", false);
    assert!(matches!(again, Err(Rejection::Removed { .. })), "{again:?}");
    // With an empty data folder it is a new node.
    assert!(log.register("node-2", 4, &[4], "other", false).is_ok());
    assert_eq!(log.state.fleets[&fleet()].nodes[&name("node-2")].assignment.spec.run, Run::Stop);
}

#[test]
fn a_machine_that_is_off_is_replaced_by_another() {
    let mut log = running();
    // A copy of its data folder on another machine is refused until somebody says that the first one is off.
    let copy = |log: &mut Log, run| log.register("node-2", run, &[2, run], "other", false);
    assert!(matches!(copy(&mut log, 7), Err(Rejection::OtherMachine { .. })));
    assert_eq!(assume(&mut log, "node-2", false), Ok(Reply::Done));
    assert!(copy(&mut log, 8).is_ok());
    let node = &log.state.fleets[&fleet()].nodes[&name("node-2")];
    assert_eq!((node.stop_evidence, &node.assumed), (None, &None), "what was said holds for the first one");
}

#[test]
fn a_load_balancer_is_forgotten_when_it_is_said_to_be_off() {
    let mut log = running();
    assert!(log.register_as(Role::Balancer, "lb", 9, &[9], "lb", false).is_ok());
    let early = log.submit("early", Request::Remove { node: name("lb") });
    let Status::Aborted(why) = &log.operation(&early).status else { panic!("it may still send users") };
    assert!(why.contains("soloist node assume-stopped lb"), "{why}");
    assert_eq!(assume(&mut log, "lb", false), Ok(Reply::Done));
    let remove = log.submit("rm", Request::Remove { node: name("lb") });
    assert_eq!(log.operation(&remove).status, Status::Succeeded);
    assert!(log.state.fleets[&fleet()].balancers.is_empty());
}

/// An operation would bring node-2 back, and leaves it out, as it is out of contact.
fn left_out_at_the_end() -> Log {
    let mut log = running();
    log.state.fleets.get_mut(&fleet()).expect("it is there").active = true;
    let hold = log.submit("hold", Request::Hold { mode: HoldMode::Solo, on: Some(name("node-1")) });
    for _ in 0..6 {
        if log.operation(&hold).step() != Some(&Step::Released) {
            log.report("node-1", AppState::Serving);
            let stops = log.state.fleets[&fleet()].nodes[&name("node-2")].assignment.spec.run == Run::Stop;
            log.report("node-2", if stops { AppState::Stopped } else { AppState::Serving });
        }
    }
    let token = log.operation(&hold).token.expect("it has the lock");
    let (id, operation) = (fleet(), hold.clone());
    assert!(log.push(Command::Renew { fleet: id, operation, token }).is_ok());
    let (id, operation, outcome) = (fleet(), hold.clone(), "done".to_owned());
    assert!(log.push(Command::Release { fleet: id, operation, token, outcome }).is_ok());
    let waits_for_it = |log: &Log| matches!(log.operation(&hold).step(), Some(Step::Serving { nodes, .. }) if nodes.contains(&name("node-2")));
    for _ in 0..6 {
        if !waits_for_it(&log) {
            log.report("node-1", AppState::Serving);
        }
    }
    assert!(waits_for_it(&log), "{:?}", log.operation(&hold));
    let timer = Timer::Absent(hold.clone(), log.operation(&hold).cursor, vec![name("node-2")]);
    assert!(log.push(Command::Timer { fleet: fleet(), timer }).is_ok());
    log.report("node-1", AppState::Serving);
    assert_eq!(log.operation(&hold).status, Status::Succeeded, "{:?}", log.operation(&hold));
    assert!(log.operation(&hold).left_out.contains_key(&name("node-2")));
    log
}

#[test]
fn a_node_that_was_out_of_contact_at_the_end_of_an_operation_is_started_when_it_is_heard() {
    let mut log = left_out_at_the_end();
    let now = Time(log.index * 10);
    let starts = |log: &Log, contact: &Contact| {
        due(&log.state, contact, now)
            .iter()
            .any(|command| matches!(command, Command::Timer { timer: Timer::AutoStart, .. }))
    };
    let mut contact = Contact::default();
    contact.hear(&fleet(), &name("node-1"), now);
    assert!(
        !starts(&log, &contact),
        "nobody is started who does not answer: that would begin again and again"
    );
    contact.hear(&fleet(), &name("node-2"), now);
    assert!(starts(&log, &contact));
    assert!(log.push(Command::Timer { fleet: fleet(), timer: Timer::AutoStart }).is_ok());
    for _ in 0..3 {
        log.report("node-1", AppState::Serving);
        log.report("node-2", AppState::Serving);
    }
    let node = &log.state.fleets[&fleet()].nodes[&name("node-2")];
    assert!(node.admitted && node.assignment.spec.run == Run::Plain, "{node:?}");
    assert!(!starts(&log, &contact), "once is enough");
}
