//! What goes into a message comes out of it; what is malformed is named.

#![allow(clippy::unwrap_used)] // also in the helpers of a test, a panic is the answer

mod samples;

use std::fmt::Debug;

use prost::Message;
use soloist_core::{
    assignment::{AppState, Assignment, Observed, Run, TaskPhase, TaskResult},
    check::Check,
    command::{Decision, Submission},
    event::{Event, EventKind},
    ids::{Right, Token},
    notice::Notice,
    policy::Policy,
    preflight::NodeFacts,
    state::Desired,
    time::{Millis, Time},
    view::{FleetView, LockView},
};
use soloist_proto::{convert::FieldError, v1};

/// To a message, over the wire, and back.
fn same<T, M>(value: T)
where
    T: Clone + PartialEq + Debug + TryFrom<M, Error = FieldError>,
    M: Message + Default + From<T>,
{
    let bytes = M::from(value.clone()).encode_to_vec();
    let back = M::decode(bytes.as_slice()).unwrap();
    assert_eq!(T::try_from(back).unwrap(), value);
}

#[test]
fn assignments() {
    same::<_, v1::Assignment>(samples::assignment());
    for run in [Run::Stop, Run::Plain, Run::Single, Run::Migrate(Right(0))] {
        let mut assignment = Assignment { token: None, ..samples::assignment() };
        assignment.spec.run = run;
        assignment.spec.task = None;
        assignment.spec.proof = None;
        assignment.spec.target = None;
        assignment.spec.hold = false;
        assignment.spec.quiet = false;
        assignment.spec.grace = None;
        same::<_, v1::Assignment>(assignment);
    }
    let mut check = samples::assignment();
    check.spec.task.as_mut().unwrap().phase = TaskPhase::Check;
    same::<_, v1::Assignment>(check);
}

#[test]
fn reports() {
    same::<_, v1::Observed>(samples::observed());
    same::<_, v1::Observed>(Observed::default());
    let text = || "why".to_owned();
    for app in [
        AppState::Stopped,
        AppState::Refused(text()),
        AppState::Starting,
        AppState::Serving,
        AppState::Failed(text()),
        AppState::Stopping,
        AppState::Crashed(text()),
    ] {
        same::<_, v1::AppState>(app);
    }
    for result in [TaskResult::Done, TaskResult::Failed(text()), TaskResult::Interrupted] {
        same::<_, v1::TaskOutcome>((samples::key(), TaskPhase::Run, result));
    }
}

#[test]
fn greetings() {
    same::<_, v1::Hello>(samples::greeting());
    same::<_, v1::Registration>(samples::registration());
}

#[test]
fn requests() {
    for request in samples::requests() {
        same::<_, v1::Request>(request);
    }
    same::<_, v1::Submission>(samples::submission());
    same::<Submission, v1::Submission>(Submission::default());
}

#[test]
fn views() {
    same::<_, v1::FleetView>(samples::fleet_view());
    same::<_, v1::OperationView>(samples::operation_view());
    let free = LockView {
        held: false,
        operation: None,
        token: None,
        age: None,
        since_wall_ms: None,
        by: None,
        reason: None,
    };
    let (desired, lock) = (Desired::Stop, free);
    same::<_, v1::FleetView>(FleetView {
        desired,
        restored: Some(soloist_core::restore::Restored { index: 3, wall_ms: 4, resumed: true }),
        lock,
        database: None,
        current: None,
        nodes: Vec::new(),
        queue: Vec::new(),
        ..samples::fleet_view()
    });
    for step in samples::planned() {
        same::<_, v1::PlannedStep>(step);
    }
}

#[test]
fn policies() {
    same::<_, v1::Policy>(samples::policy());
    same::<_, v1::Policy>(Policy::default());
    for decision in samples::decisions() {
        same::<_, v1::Decision>(decision);
    }
}

#[test]
fn what_is_wrong_with_a_policy_is_named() {
    let message = || v1::Policy::from(samples::policy());
    let field = |message: v1::Policy| Policy::try_from(message).unwrap_err().field;
    assert_eq!(field(v1::Policy { traffic: 99, ..message() }), "traffic");
    assert_eq!(field(v1::Policy { uploads: Some(99), ..message() }), "uploads");
    let mut nothing = message();
    nothing.checks[1].what = None;
    assert_eq!(field(nothing), "checks[1].what");
    let mut status = message();
    let Some(v1::check::What::Http(http)) = &mut status.checks[0].what else { panic!("another check") };
    http.status = 70_000;
    assert_eq!(field(status), "checks[0].what.http.status");
    let check = v1::Check { tries: 0, ..v1::Check::from(samples::checks().swap_remove(0)) };
    assert!(Check::try_from(check).unwrap_err().problem.contains("tries"));
    assert_eq!(Decision::try_from(v1::Decision::default()).unwrap_err().field, "kind");
}

#[test]
fn events_have_a_word_and_a_text() {
    let event = Event {
        index: 7,
        time: Time(8),
        wall_ms: 9,
        operation: Some(samples::operation()),
        node: Some(samples::node("a")),
        kind: EventKind::Granted(Token(41)),
    };
    let message = v1::Event::from(event);
    assert_eq!((message.index, message.time_ms, message.wall_ms), (7, 8, 9));
    assert_eq!((message.operation.as_deref(), message.node.as_deref()), (Some("op-1"), Some("a")));
    assert_eq!((message.kind.as_str(), message.text.as_str()), ("granted", "granted, token 41"));
}

#[test]
fn what_is_malformed_is_named() {
    let mut message = v1::Assignment::from(samples::assignment());
    let task = message.spec.as_mut().unwrap().task.as_mut().unwrap();
    task.key.as_mut().unwrap().operation = "Not A Name".into();
    let error = Assignment::try_from(message.clone()).unwrap_err();
    assert_eq!(error.field, "spec.task.key.operation");
    assert!(error.problem.contains("Not A Name"), "{error}");

    message.spec.as_mut().unwrap().task = None;
    message.spec.as_mut().unwrap().run = None;
    assert_eq!(Assignment::try_from(message.clone()).unwrap_err().field, "spec.run");
    // A value from the future must not be taken for one of today's.
    message.spec.as_mut().unwrap().run = Some(v1::Run { kind: 99, right: None });
    assert_eq!(Assignment::try_from(message).unwrap_err().field, "spec.run.kind");

    let mut view = v1::FleetView::from(samples::fleet_view());
    view.nodes[0].node = String::new();
    assert_eq!(FleetView::try_from(view).unwrap_err().field, "nodes[0].node");
    let repeated = v1::Parameter { name: "a".into(), value: "b".into() };
    let mut message = v1::Assignment::from(samples::assignment());
    message.spec.as_mut().unwrap().task.as_mut().unwrap().params = vec![repeated.clone(), repeated];
    assert_eq!(Assignment::try_from(message).unwrap_err().field, "spec.task.params");
}

#[test]
fn notices() {
    // Every notice is one: there is nothing to refuse in it.
    for remaining in [None, Some(Millis(90_000))] {
        let notice = Notice { remaining, ..samples::notice() };
        let bytes = v1::Notice::from(notice.clone()).encode_to_vec();
        assert_eq!(Notice::from(v1::Notice::decode(bytes.as_slice()).unwrap()), notice);
    }
}

#[test]
fn preflights() {
    same::<_, v1::NodeFacts>(samples::node_facts());
    same::<_, v1::NodeFacts>(NodeFacts::default());
    for finding in samples::findings() {
        same::<_, v1::Finding>(finding);
    }
    let twice = v1::Fingerprint { name: "TZ".into(), print: "a".into() };
    let facts = v1::NodeFacts {
        settings: Some(v1::Settings { settings: vec![twice.clone(), twice] }),
        ..v1::NodeFacts::default()
    };
    assert_eq!(NodeFacts::try_from(facts).unwrap_err().field, "settings.settings");
}
