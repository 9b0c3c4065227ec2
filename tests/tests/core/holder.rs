//! A lock that is taken away from a holder whose work may go on.

use soloist_core::assignment::{AppState, Observed};
use soloist_core::command::{FIRST_LEVEL, HOLDER_LEVEL, Timer};
use soloist_core::due::Contact;
use soloist_core::fence::{Covers, FenceOffer, FenceSeen};
use soloist_core::ids::{OperationId, Token};
use soloist_core::operation::{Blocked, Course, HoldMode, Operation, Request, Status, Step};
use soloist_core::state::Lock;
use soloist_core::view::view;
use soloist_core::{Command, Rejection, Reply};

use super::log::{Log, fleet, name, running};

/// Two nodes, of which node-2 rests, and a holder that works under the token.
fn held(level: u32) -> (Log, OperationId, Token) {
    let mut log = running();
    if level > FIRST_LEVEL {
        assert_eq!(log.push(Command::Raise { level, by: "kim".into() }), Ok(Reply::Done));
    }
    let hold = log.submit("hold", Request::Hold { mode: HoldMode::Solo, on: Some(name("node-1")) });
    for app in [AppState::Serving, AppState::Stopped] {
        log.report("node-1", AppState::Serving);
        log.report("node-2", AppState::Serving);
        log.report("node-2", app);
    }
    let token = log.operation(&hold).token.expect("it has the lock");
    assert_eq!(log.operation(&hold).step(), Some(&Step::Released));
    let renew = Command::Renew { fleet: fleet(), operation: hold.clone(), token };
    assert!(matches!(log.push(renew), Ok(Reply::Renewed { .. })));
    (log, hold, token)
}

fn force(log: &mut Log, token: Token) {
    let (by, reason) = ("kim".to_owned(), "its machine is gone".to_owned());
    let forced = log.push(Command::ForceRelease { fleet: fleet(), token, by, reason });
    assert!(matches!(forced, Ok(Reply::Released { .. })), "{forced:?}");
}

fn abort(log: &mut Log, operation: &OperationId) -> Result<Reply, Rejection> {
    let (by, reason) = ("kim".to_owned(), "enough".to_owned());
    log.push(Command::Abort { fleet: fleet(), operation: operation.clone(), by, reason })
}

fn assume(log: &mut Log, node: &str) -> Result<Reply, Rejection> {
    let (by, reason) = ("kim".to_owned(), "it burned".to_owned());
    log.push(Command::AssumeStopped { fleet: fleet(), node: name(node), heard: false, by, reason })
}

/// The leader has not heard these nodes for long.
fn silent(log: &mut Log, operation: &OperationId, nodes: &[&str]) {
    let cursor = log.operation(operation).cursor;
    let nodes = nodes.iter().map(|node| name(node)).collect();
    let timer = Timer::Absent(operation.clone(), cursor, nodes);
    assert_eq!(log.push(Command::Timer { fleet: fleet(), timer }), Ok(Reply::Done));
}

fn waits(operation: &Operation) -> bool {
    operation.step() == Some(&Step::HolderGone) && operation.exclusive()
}

fn works(app: AppState, token: Token) -> Observed {
    Observed { app, holders: vec![token], ..Observed::default() }
}

#[test]
fn a_lost_holder_is_gone_when_every_agent_has_looked_since() {
    let (mut log, hold, token) = held(HOLDER_LEVEL);
    // It works on node-2, whose last report is from before it began.
    let before = log.generation("node-2");
    force(&mut log, token);
    assert!(waits(log.operation(&hold)), "{:?}", log.operation(&hold));
    log.report("node-1", AppState::Serving);
    assert!(waits(log.operation(&hold)), "node-2 has not looked");
    // A report that was on its way says nothing of what is now.
    log.report_under(before, "node-2", Observed::default());
    assert!(waits(log.operation(&hold)), "node-2 has not looked since");
    log.report_seen("node-2", works(AppState::Stopped, token));
    assert!(waits(log.operation(&hold)), "it works there");
    let blocked = log.operation(&hold).status.clone();
    assert!(
        matches!(&blocked, Status::Blocked(Blocked::Breach(node, what))
            if *node == name("node-2") && what.contains(&format!("token {token}"))),
        "{blocked:?}"
    );
    let view = view(&log.state, &fleet(), &Contact::default()).expect("it is known");
    let choices = view.current.expect("it has the lock").choices.join("; ");
    let told = format!("on node-2, end the processes with SOLOIST_FENCING_TOKEN={token}");
    assert!(choices.contains(&told) && !choices.contains("abort"), "{choices}");
    log.report("node-2", AppState::Stopped);
    assert!(matches!(log.operation(&hold).step(), Some(Step::Stopped { .. })), "{:?}", log.operation(&hold));
}

#[test]
fn an_abort_frees_nothing_while_a_lost_holder_works() {
    let (mut log, hold, token) = held(HOLDER_LEVEL);
    force(&mut log, token);
    log.report("node-1", AppState::Serving);
    log.report_seen("node-2", works(AppState::Stopped, token));
    let mut length = None;
    for _ in 0..3 {
        assert_eq!(abort(&mut log, &hold), Ok(Reply::Done));
        let operation = log.operation(&hold);
        assert!(waits(operation) && operation.course == Course::Settle, "{operation:?}");
        assert_eq!(*length.get_or_insert(operation.plan.len()), operation.plan.len(), "it does not grow");
    }
    let raised = log.operation(&hold).token.expect("it has the lock");
    force(&mut log, raised);
    assert!(waits(log.operation(&hold)), "taken away once more");
    log.report("node-2", AppState::Stopped);
    assert!(matches!(log.operation(&hold).status, Status::Aborted(_)), "{:?}", log.operation(&hold));
    assert_eq!(log.state.fleets[&fleet()].lock, Lock::Free);
}

#[test]
fn a_machine_that_does_not_come_back_holds_up_nobody_for_ever() {
    // Of node-2 it is known that it has stopped, but not that no holder works there.
    let (mut log, hold, token) = held(HOLDER_LEVEL);
    force(&mut log, token);
    log.report("node-1", AppState::Serving);
    silent(&mut log, &hold, &["node-2"]);
    let unreachable = Status::Blocked(Blocked::Unreachable(vec![name("node-2")]));
    assert_eq!(log.operation(&hold).status, unreachable);
    assert_eq!(abort(&mut log, &hold), Ok(Reply::Done));
    assert!(waits(log.operation(&hold)), "whoever gives up does not know more");
    assert_eq!(assume(&mut log, "node-2"), Ok(Reply::Done));
    assert!(matches!(log.operation(&hold).status, Status::Aborted(_)), "{:?}", log.operation(&hold));

    // The solo node is gone, perhaps with the holder: the other one serves.
    let (mut log, hold, token) = held(HOLDER_LEVEL);
    force(&mut log, token);
    log.report("node-2", AppState::Stopped);
    silent(&mut log, &hold, &["node-1"]);
    assert_eq!(assume(&mut log, "node-1"), Ok(Reply::Done));
    let operation = log.operation(&hold);
    assert!(operation.left_out.contains_key(&name("node-1")), "{operation:?}");
    log.report("node-2", AppState::Serving);
    assert!(matches!(log.operation(&hold).status, Status::Aborted(_)), "{:?}", log.operation(&hold));
    assert!(log.state.fleets[&fleet()].nodes[&name("node-2")].admitted);
}

#[test]
fn whoever_was_said_to_be_off_and_is_heard_has_to_look() {
    let (mut log, hold, token) = held(HOLDER_LEVEL);
    force(&mut log, token);
    silent(&mut log, &hold, &["node-2"]);
    assert_eq!(assume(&mut log, "node-2"), Ok(Reply::Done));
    assert!(waits(log.operation(&hold)), "node-1 has not looked");
    assert!(log.register("node-2", 3, &[2, 3], "node-2", false).is_ok());
    log.report("node-1", AppState::Serving);
    assert!(waits(log.operation(&hold)), "node-2 can look after all");
    log.report("node-2", AppState::Stopped);
    assert!(!waits(log.operation(&hold)));
}

#[test]
fn the_word_for_a_machine_from_before_does_not_count() {
    // node-2 was off when the lock was granted. It came back, and the holder on it, before its agent was heard.
    let mut log = running();
    assert_eq!(log.push(Command::Raise { level: HOLDER_LEVEL, by: "kim".into() }), Ok(Reply::Done));
    let hold = log.submit("hold", Request::Hold { mode: HoldMode::Solo, on: Some(name("node-1")) });
    log.report("node-1", AppState::Serving);
    assert_eq!(assume(&mut log, "node-2"), Ok(Reply::Done));
    log.report("node-1", AppState::Serving);
    let token = log.operation(&hold).token.expect("it has the lock");
    let renew = Command::Renew { fleet: fleet(), operation: hold.clone(), token };
    assert!(matches!(log.push(renew), Ok(Reply::Renewed { .. })));
    assert_eq!(assume(&mut log, "node-2"), Ok(Reply::Unchanged), "nothing asks for it now");
    force(&mut log, token);
    log.report("node-1", AppState::Serving);
    assert!(waits(log.operation(&hold)), "{:?}", log.operation(&hold));
    assert_eq!(assume(&mut log, "node-2"), Ok(Reply::Done));
    assert!(!waits(log.operation(&hold)));
}

#[test]
fn a_machine_whose_power_is_off_has_no_holder() {
    let (mut log, hold, token) = held(HOLDER_LEVEL);
    force(&mut log, token);
    let offer = FenceOffer { node: name("node-2"), covers: Covers::Machine, unarmed: None };
    let seen = Observed { app: AppState::Serving, fences: vec![offer], ..Observed::default() };
    log.report_seen("node-1", seen.clone());
    silent(&mut log, &hold, &["node-2"]);
    let (by, reason, heard) = ("kim".to_owned(), "it is silent".to_owned(), vec![name("node-1")]);
    let fence = Command::Fence { fleet: fleet(), node: name("node-2"), covers: None, heard, by, reason };
    assert_eq!(log.push(fence.clone()), Ok(Reply::Done));
    assert_eq!(log.push(fence), Ok(Reply::Unchanged), "asked twice is asked once");
    assert!(waits(log.operation(&hold)), "nobody has said that it holds");
    let generation = log.state.fleets[&fleet()].nodes[&name("node-2")].fences[&Covers::Machine].generation;
    let node = name("node-2");
    let held = FenceSeen { node, covers: Covers::Machine, generation, done: true, trouble: None };
    log.report_seen("node-1", Observed { fenced: vec![held], ..seen });
    assert!(!waits(log.operation(&hold)), "{:?}", log.operation(&hold));
}

#[test]
fn what_an_agent_saw_end_long_ago_is_not_looked_for() {
    let (mut log, hold, token) = held(HOLDER_LEVEL);
    let operation = log.state.fleets.get_mut(&fleet()).and_then(|fleet| fleet.operation_mut(&hold));
    operation.expect("it is known").host_node = Some(name("node-2"));
    log.report_seen("node-2", works(AppState::Stopped, token));
    let ring = |log: &mut Log, timer| {
        log.index += 100_000;
        log.push(Command::Timer { fleet: fleet(), timer })
    };
    assert_eq!(ring(&mut log, Timer::Lease(hold.clone(), token)), Ok(Reply::Done));
    log.report("node-2", AppState::Stopped);
    assert_eq!(ring(&mut log, Timer::Restore(hold.clone(), token)), Ok(Reply::Done));
    assert!(!waits(log.operation(&hold)), "the service comes back without a person");
}

#[test]
fn a_grant_that_nobody_accepted_is_taken_away_at_once() {
    let mut log = running();
    assert_eq!(log.push(Command::Raise { level: HOLDER_LEVEL, by: "kim".into() }), Ok(Reply::Done));
    let hold = log.submit("hold", Request::Hold { mode: HoldMode::Solo, on: Some(name("node-1")) });
    for app in [AppState::Serving, AppState::Stopped] {
        log.report("node-1", AppState::Serving);
        log.report("node-2", AppState::Serving);
        log.report("node-2", app);
    }
    let token = log.operation(&hold).token.expect("it has the lock");
    force(&mut log, token);
    assert!(!waits(log.operation(&hold)), "from now on it is refused");
}

#[test]
fn before_the_level_is_raised_the_last_reports_count() {
    let (mut log, hold, token) = held(FIRST_LEVEL);
    let before = log.generation("node-2");
    force(&mut log, token);
    assert!(matches!(log.operation(&hold).step(), Some(Step::Stopped { .. })), "{:?}", log.operation(&hold));
    assert_eq!(log.generation("node-2"), before);
    let (mut log, hold, token) = held(FIRST_LEVEL);
    log.report_seen("node-2", works(AppState::Stopped, token));
    force(&mut log, token);
    assert!(waits(log.operation(&hold)));
    assert_eq!(abort(&mut log, &hold), Ok(Reply::Done));
    assert!(!waits(log.operation(&hold)));
}
