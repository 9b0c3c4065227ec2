//! Fences around nodes that nobody hears.

use soloist_core::assignment::{AppState, Observed, Run};
use soloist_core::command::Timer;
use soloist_core::due::{Contact, due};
use soloist_core::fence::{Covers, FenceOffer, FenceSeen};
use soloist_core::ids::NodeId;
use soloist_core::operation::{HoldMode, PluginChange, Request, Status, Step};
use soloist_core::policy::{Fencing, Policy};
use soloist_core::state::Node;
use soloist_core::time::{Millis, Time};
use soloist_core::{Command, Rejection, Reply};

use super::log::{Log, fleet, name, running, set_policy};

fn node<'a>(log: &'a Log, node: &str) -> &'a Node {
    &log.state.fleets[&fleet()].nodes[&name(node)]
}

fn offer(node: &str, covers: Covers) -> FenceOffer {
    FenceOffer { node: name(node), covers, unarmed: None }
}

/// node-1 acknowledges, and says how far it is with what it was told about fences.
fn carry(log: &mut Log, done: bool) {
    let orders = node(log, "node-1").assignment.spec.fences.clone();
    let seen = orders.into_iter().map(|order| FenceSeen {
        node: order.node,
        covers: order.covers,
        generation: order.generation,
        done,
        trouble: None,
    });
    let fences = Covers::ALL.map(|covers| offer("node-2", covers)).into();
    let fenced = seen.collect();
    log.report_seen("node-1", Observed { app: AppState::Serving, fences, fenced, ..Observed::default() });
}

/// Two nodes that run; node-1 could fence node-2, which falls silent while something is asked for.
fn waiting(request: Request) -> (Log, soloist_core::ids::OperationId) {
    let mut log = running();
    carry(&mut log, false);
    let operation = log.submit("op", request);
    carry(&mut log, false);
    assert!(matches!(log.operation(&operation).step(), Some(Step::Reachable { .. })));
    (log, operation)
}

fn plugin() -> Request {
    let (change, plugin) = (PluginChange::Enable, "@nocobase/plugin-map".to_owned());
    Request::Plugin { change, plugin, on: Some(name("node-1")) }
}

fn hold() -> Request {
    Request::Hold { mode: HoldMode::Solo, on: Some(name("node-1")) }
}

fn fence(log: &mut Log, target: &str, covers: Option<Covers>) -> Result<Reply, Rejection> {
    let (by, reason) = ("kim".to_owned(), "it hangs".to_owned());
    let heard = vec![name("node-1")];
    log.push(Command::Fence { fleet: fleet(), node: name(target), covers, heard, by, reason })
}

fn reached(log: &Log, operation: &soloist_core::ids::OperationId) -> bool {
    !matches!(log.operation(operation).step(), Some(Step::Reachable { .. }))
}

#[test]
fn a_fence_that_holds_lets_the_operation_go_on_and_is_lifted_after_a_stop() {
    let (mut log, operation) = waiting(plugin());
    assert_eq!(fence(&mut log, "node-2", None), Ok(Reply::Done));
    assert_eq!(fence(&mut log, "node-2", None), Ok(Reply::Unchanged), "asked twice is asked once");
    assert_eq!(node(&log, "node-2").fences.keys().collect::<Vec<_>>(), [&Covers::Database], "the gentlest");
    carry(&mut log, false);
    assert!(!reached(&log, &operation), "somebody may still be inside");
    carry(&mut log, true);
    assert!(reached(&log, &operation));
    let why = log.operation(&operation).left_out.get(&name("node-2")).expect("it is named").clone();
    assert!(why.contains("database") && why.contains("kim: it hangs"), "{why}");
    // Its agent is back, and its app still runs: it stays outside.
    log.report("node-2", AppState::Serving);
    assert!(node(&log, "node-2").fences[&Covers::Database].holds);
    let abort = Command::Abort {
        fleet: fleet(),
        operation: operation.clone(),
        by: "kim".into(),
        reason: String::new(),
    };
    assert!(log.push(abort).is_ok());
    for _ in 0..5 {
        carry(&mut log, true);
    }
    assert!(matches!(log.operation(&operation).status, Status::Aborted(_)));
    let unfence =
        Command::Unfence { fleet: fleet(), node: name("node-2"), heard: Vec::new(), by: "kim".into() };
    assert!(matches!(log.push(unfence), Err(Rejection::NotStopped { .. })));
    assert_eq!(node(&log, "node-2").assignment.spec.run, Run::Stop);
    let up = node(&log, "node-2").fences[&Covers::Database].generation;
    log.report("node-2", AppState::Stopped);
    let lifting = node(&log, "node-2").fences[&Covers::Database].clone();
    assert!(!lifting.up && lifting.generation > up, "{lifting:?}");
    carry(&mut log, true);
    let found = node(&log, "node-2");
    assert!(found.fences.is_empty() && found.returned, "it waits for a start");
}

#[test]
fn a_database_fence_is_not_enough_for_what_changes_files() {
    let (mut log, operation) = waiting(hold());
    assert_eq!(fence(&mut log, "node-2", Some(Covers::Database)), Ok(Reply::Done));
    carry(&mut log, true);
    assert!(node(&log, "node-2").fences[&Covers::Database].holds);
    assert!(!reached(&log, &operation), "nobody knows what a holder changes");
    assert_eq!(fence(&mut log, "node-2", None), Ok(Reply::Done));
    carry(&mut log, true);
    assert!(reached(&log, &operation), "its machine is off");
    let orders = &node(&log, "node-1").assignment.spec.fences;
    assert!(
        orders.iter().all(|order| order.covers == Covers::Database),
        "what is off may be switched on again"
    );
    // It was switched on: whatever the fence said, it is not off.
    assert!(log.register("node-2", 9, &[2, 9], "node-2", false).is_ok());
    assert!(!node(&log, "node-2").fences.contains_key(&Covers::Machine));
}

#[test]
fn a_fence_that_is_lost_counts_no_longer() {
    let (mut log, operation) = waiting(plugin());
    assert_eq!(fence(&mut log, "node-2", None), Ok(Reply::Done));
    carry(&mut log, true);
    assert!(log.operation(&operation).granted.is_none());
    // The database has fallen back to a copy that knows nothing of it.
    carry(&mut log, false);
    let found = log.state.fleets[&fleet()].clone();
    let breach = soloist_core::condition::breach(&found, log.operation(&operation));
    assert_eq!(breach.map(|(node, _)| node), Some(name("node-2")));
}

#[test]
fn who_cannot_be_fenced_is_refused_with_the_reason() {
    let (mut log, operation) = waiting(plugin());
    assert!(
        matches!(fence(&mut log, "node-1", None), Err(Rejection::NoFence { .. })),
        "it offers none for itself"
    );
    let unarmed = FenceOffer {
        unarmed: Some("role noco_2 is a superuser".into()),
        ..offer("node-2", Covers::Database)
    };
    let seen = Observed { app: AppState::Serving, fences: vec![unarmed], ..Observed::default() };
    log.report_seen("node-1", seen);
    let refused = fence(&mut log, "node-2", None).expect_err("it would not hold").to_string();
    assert!(refused.contains("role noco_2 is a superuser"), "{refused}");
    assert!(!reached(&log, &operation));
    assert!(matches!(fence(&mut log, "node-3", None), Err(Rejection::UnknownNode { .. })));
}

#[test]
fn a_fleet_fences_by_itself_where_its_policy_says_so() {
    let (mut log, operation) = waiting(plugin());
    let mut contact = Contact::default();
    let fences = |log: &Log, contact: &Contact, now: Time| {
        let commands = due(&log.state, contact, now);
        commands.into_iter().filter(|command| matches!(command, Command::Fence { .. })).collect::<Vec<_>>()
    };
    let policy = Policy { fence_after: Millis::from_secs(30), ..Policy::default() };
    let absent = Timer::Absent(operation.clone(), 0, vec![name("node-2")]);
    assert!(log.push(Command::Timer { fleet: fleet(), timer: absent }).is_ok());
    let soon = Time(policy.contact_timeout.0 + 20_000);
    let late = Time(policy.contact_timeout.0 + 40_000);
    contact.hear(&fleet(), &name("node-1"), late);
    assert_eq!(fences(&log, &contact, late), [], "by hand unless the policy says otherwise");
    let automatic = Policy { fence: Fencing::Automatic, ..policy };
    assert!(log.push(set_policy(automatic)).is_ok());
    assert_eq!(fences(&log, &contact, soon), [], "it is waited for");
    let [command] = fences(&log, &contact, late).try_into().expect("one fence");
    assert!(log.push(command).is_ok());
    assert_eq!(fences(&log, &contact, late), [], "once");
    carry(&mut log, true);
    assert!(reached(&log, &operation));
}

#[test]
fn a_fence_goes_to_another_agent_when_its_carrier_falls_silent() {
    let mut log = running();
    assert!(log.register("node-3", 3, &[3], "node-3", false).is_ok());
    carry(&mut log, false);
    log.report_seen(
        "node-3",
        Observed { fences: vec![offer("node-2", Covers::Database)], ..Observed::default() },
    );
    assert_eq!(fence(&mut log, "node-2", None), Ok(Reply::Done));
    let first = node(&log, "node-2").fences[&Covers::Database].clone();
    assert_eq!(first.carrier, name("node-1"));
    let mut contact = Contact::default();
    let late = Time(Policy::default().contact_timeout.0 + 10_000);
    contact.hear(&fleet(), &name("node-3"), late);
    let carried = due(&log.state, &contact, late)
        .into_iter()
        .find(|command| matches!(command, Command::Timer { timer: Timer::Carry(..), .. }));
    assert!(log.push(carried.expect("somebody else carries it")).is_ok());
    let second = &node(&log, "node-2").fences[&Covers::Database];
    assert_eq!(second.carrier, name("node-3"));
    assert!(second.generation > first.generation, "what the first one still does is refused");
    let orders = |carrier: &str| -> Vec<NodeId> {
        node(&log, carrier).assignment.spec.fences.iter().map(|order| order.node.clone()).collect()
    };
    assert_eq!((orders("node-1"), orders("node-3")), (vec![], vec![name("node-2")]));
}
