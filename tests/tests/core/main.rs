//! Decisions of the core that no chance of the simulated world brings about, entry by entry.

mod fence;
mod gone;
mod holder;
mod log;
mod restored;
mod single;

use soloist_core::assignment::{AppState, Observed, Run, TaskPhase, TaskResult};
use soloist_core::command::{Decision, Role, Timer};
use soloist_core::condition::{Condition, condition};
use soloist_core::due::Contact;
use soloist_core::ids::{OperationId, Version};
use soloist_core::operation::{Blocked, Bring, HoldMode, PackageChange, Request, Status, Step};
use soloist_core::packages::PACKAGES_BACK;
use soloist_core::policy::{Heal, Policy, Traffic};
use soloist_core::state::Desired;
use soloist_core::time::{Millis, Time};
use soloist_core::{Command, Rejection, Reply};

use log::{Log, Obedient, fleet, name, running, set_policy};

#[test]
fn a_ledger_that_was_copied_to_another_machine_continues_nothing() {
    let mut log = Log::default();
    assert!(log.register("node-1", 1, &[1], "first", false).is_ok());
    log.report("node-1", AppState::Serving);
    // The copy knows the lineage. While the original is heard, and while it is not known to be stopped, it is refused.
    assert!(matches!(log.register("node-1", 2, &[1, 2], "second", true), Err(Rejection::OtherAgent { .. })));
    assert!(matches!(
        log.register("node-1", 2, &[1, 2], "second", false),
        Err(Rejection::OtherMachine { .. })
    ));
    // The original's own restart goes on at once, with a higher generation.
    let before = log.generation("node-1");
    assert!(log.register("node-1", 3, &[1, 3], "first", true).is_ok());
    assert!(log.generation("node-1") > before);
    // A machine that was stopped in order may be replaced.
    log.report("node-1", AppState::Stopped);
    assert!(log.register("node-1", 4, &[3, 4], "second", false).is_ok());
    let node = &log.state.fleets[&fleet()].nodes[&name("node-1")];
    assert_eq!(node.stop_evidence, None, "what the old machine acknowledged says nothing of the new one");
}

#[test]
fn an_abort_that_is_repeated_is_one_abort() {
    let mut log = Log::default();
    for (node, run) in [("node-1", 1), ("node-2", 2)] {
        assert!(log.register(node, run, &[run], node, false).is_ok());
    }
    let start = log.submit("start", Request::Start { install: false, nodes: None });
    for _ in 0..3 {
        log.report("node-1", AppState::Serving);
        log.report("node-2", AppState::Serving);
    }
    let ended = |log: &Log, id: &OperationId| {
        log.state.fleets[&fleet()].operation(id).expect("it is known").status.ended()
    };
    assert!(ended(&log, &start));

    let hold = log.submit("hold", Request::Hold { mode: HoldMode::Solo, on: Some(name("node-1")) });
    log.report("node-1", AppState::Serving);
    log.report("node-2", AppState::Serving);
    log.report("node-2", AppState::Stopped);
    let abort =
        Command::Abort { fleet: fleet(), operation: hold.clone(), by: "op".into(), reason: "no".into() };
    assert_eq!(log.push(abort.clone()), Ok(Reply::Done));
    // The answer was lost and the client asks again, while node-2 is being started.
    assert_eq!(log.push(abort), Ok(Reply::Unchanged));
    log.report("node-2", AppState::Starting);
    log.report("node-2", AppState::Serving);
    assert!(ended(&log, &hold));
    let node = &log.state.fleets[&fleet()].nodes[&name("node-2")];
    assert!(node.admitted, "the abort brought node-2 back");
}

#[test]
fn an_upgrade_that_is_tried_again_and_then_ended_still_restores() {
    let mut fleet = Obedient::started(Some("1.0.0"));
    fleet.is_asked_for_ready();
    let again = fleet.log.push(set_policy(Policy::default()));
    assert!(matches!(again, Err(Rejection::PolicyMoved { version: 1, .. })));

    fleet.submit("up", Request::Upgrade { to: Version("1.1.0".into()), on: None, approve: false });
    // It begins to migrate and takes too long.
    fleet.obey(AppState::Starting);
    let operation = fleet.operation("up").clone();
    assert!(matches!(operation.step(), Some(Step::Serving { bring: Bring::Migrate, .. })), "{operation:?}");
    let timer = Timer::Step(operation.id.clone(), operation.cursor, operation.attempt);
    fleet.log.index += 100_000;
    assert_eq!(fleet.log.push(Command::Timer { fleet: self::fleet(), timer }), Ok(Reply::Done));
    assert_eq!(fleet.operation("up").status, Status::Blocked(Blocked::Overdue));
    // A person tries again, which stops it first, and gives up before it has a new right.
    let by = || "op".to_owned();
    let id = operation.id.clone();
    let retry =
        Command::Retry { fleet: self::fleet(), operation: id.clone(), attempt: operation.attempt, by: by() };
    assert_eq!(fleet.log.push(retry), Ok(Reply::Done));
    let abort = Command::Abort { fleet: self::fleet(), operation: id, by: by(), reason: "enough".into() };
    assert_eq!(fleet.log.push(abort), Ok(Reply::Done));
    let restores = |step: &Step| matches!(step, Step::Task { task, .. } if task.name == "restore");
    assert!(fleet.operation("up").plan.iter().any(restores), "what the first attempt did is undone");
    fleet.obey(AppState::Starting);
    let operation = fleet.operation("up");
    assert!(matches!(operation.status, Status::RolledBack(_)), "{operation:?}");
    assert_eq!(fleet.code, "1.0.0");
    let down = operation.down.expect("there was an outage");
    assert!(operation.up.is_some_and(|up| up > down));
}

#[test]
fn packages_go_back_where_the_version_is_not_known() {
    let mut fleet = Obedient::started(None);
    fleet.is_asked_for_ready();
    let plugin = "@a/x".to_owned();
    let put = PackageChange::Put { plugin, source: "npm".into(), version: None, sha256: None, enable: false };
    fleet.submit("put", Request::Packages { changes: vec![put], on: None });
    fleet.obey(AppState::Failed("it does not load".into()));
    let operation = fleet.operation("put");
    assert!(matches!(operation.status, Status::RolledBack(_)), "{operation:?}");
    let migrates = |step: &Step| matches!(step, Step::Serving { bring: Bring::Migrate, .. });
    let back = operation.plan.iter().skip_while(|step| !migrates(step)).skip(1);
    let back: Vec<String> = back.map(Step::kind).collect();
    assert_eq!(back, ["stop", "grant", "restore", "packages-back", "start"]);
    let node = &fleet.log.state.fleets[&self::fleet()].nodes[&name("node-1")];
    assert_eq!((node.admitted, node.assignment.spec.run), (true, Run::Plain), "it runs again");
}

#[test]
fn packages_go_back_on_a_node_that_was_left_out_since() {
    let mut log = running();
    let put = PackageChange::Remove { plugin: "@a/x".into() };
    let id = log.submit("put", Request::Packages { changes: vec![put], on: Some(name("node-1")) });
    // The agent of node-2 did not answer when it was to start, and was not waited for; then something else failed.
    let now = log.state.now;
    let state = log.state.fleets.get_mut(&fleet()).expect("it is known");
    let operation = state.operation_mut(&id).expect("it is known");
    let verify = operation.plan.iter().rposition(|step| step.kind() == "verify").expect("nodes are verified");
    operation.cursor = u32::try_from(verify).expect("a short plan");
    (operation.granted, operation.exclusive_until, operation.migrated) = (Some(now), Some(now), true);
    operation.left_out.insert(name("node-2"), "out of contact".into());
    operation.status = Status::Blocked(Blocked::TaskFailed(name("node-1"), "a check".into()));
    let (fleet, by, reason) = (fleet(), "op".to_owned(), String::new());
    let decision = Decision::Rollback { lose_writes: true };
    let decided = log.push(Command::Decide { fleet, operation: id.clone(), decision, by, reason });
    assert_eq!(decided, Ok(Reply::Done));
    let operation = log.operation(&id);
    let back = operation.plan.iter().skip(verify).find(|step| {
        matches!(step, Step::Task { nodes, task } if task.name == PACKAGES_BACK && nodes.contains(&name("node-2")))
    });
    assert!(back.is_some() && operation.takes_part(&name("node-2")), "{operation:?}");
}

#[test]
fn a_balancer_blocks_until_it_can_be_steered_and_is_heard() {
    let mut log = Log::default();
    for (node, run) in [("node-1", 1), ("node-2", 2)] {
        assert!(log.register(node, run, &[run], node, false).is_ok());
    }
    let policy = Policy { traffic: Traffic::Balancer, ..Policy::default() };
    assert!(log.push(set_policy(policy)).is_ok());
    let none = log.submit("none", Request::Start { install: false, nodes: None });
    let Status::Aborted(why) = &log.operation(&none).status else { panic!("it cannot begin") };
    assert!(why.contains("no load balancer has an agent"), "{why}");

    let taken = log.register_as(Role::Balancer, "node-1", 3, &[3], "lb", false);
    assert!(matches!(taken, Err(Rejection::OtherRole { .. })), "{taken:?}");
    assert!(log.register_as(Role::Balancer, "lb", 3, &[3], "lb", false).is_ok());
    let start = log.submit("start", Request::Start { install: false, nodes: None });
    for _ in 0..3 {
        log.report("node-1", AppState::Serving);
        log.report("node-2", AppState::Serving);
    }
    assert_eq!(log.operation(&start).step(), Some(&Step::InService), "nodes serve before users come");
    log.steer("lb", None);
    assert_eq!(log.operation(&start).status, Status::Succeeded);

    let hold = log.submit("hold", Request::Hold { mode: HoldMode::Solo, on: Some(name("node-1")) });
    for _ in 0..2 {
        log.report("node-1", AppState::Serving);
        log.report("node-2", AppState::Serving);
    }
    let reach = log.operation(&hold).step().cloned();
    assert!(matches!(reach, Some(Step::Reachable { .. })), "the balancer was not heard: {reach:?}");
    log.steer("lb", Some("no such socket"));
    let blocked = Status::Blocked(Blocked::Traffic(name("lb"), "no such socket".into()));
    assert_eq!(log.operation(&hold).status, blocked);
    let node = |log: &Log| log.state.fleets[&fleet()].nodes[&name("node-2")].assignment.spec.clone();
    assert!(node(&log).run == Run::Plain && node(&log).hold, "it is not stopped before users are away");
    log.steer("lb", None);
    assert_eq!(log.operation(&hold).status, Status::Running);
    assert!(node(&log).quiet && node(&log).hold, "it is held while it is asked what is under way");
    log.report("node-2", AppState::Serving);
    assert_eq!(node(&log).run, Run::Stop);

    // At the end it has to bring them back, and whoever does not want to wait for that need not.
    log.report("node-2", AppState::Stopped);
    let by = || "op".to_owned();
    let abort = Command::Abort { fleet: fleet(), operation: hold.clone(), by: by(), reason: "no".into() };
    assert_eq!(log.push(abort.clone()), Ok(Reply::Done));
    for _ in 0..3 {
        log.report("node-1", AppState::Serving);
        log.report("node-2", AppState::Serving);
    }
    assert_eq!(log.operation(&hold).step(), Some(&Step::InService));
    log.steer("lb", Some("no such socket"));
    assert_eq!(log.operation(&hold).status, blocked);
    assert_eq!(log.push(abort), Ok(Reply::Done));
    assert!(matches!(log.operation(&hold).status, Status::Aborted(_)), "{:?}", log.operation(&hold));
}

#[test]
fn a_fleet_is_stopped_when_its_nodes_are_quiet() {
    let mut log = running();
    let stop = log.submit("stop", Request::Stop);
    let runs = |log: &Log| {
        let fleet = &log.state.fleets[&fleet()];
        fleet.nodes.values().map(|node| node.assignment.spec.run == Run::Plain).collect::<Vec<_>>()
    };
    assert_eq!((runs(&log), log.state.fleets[&fleet()].desired), (vec![true, true], Desired::Run));
    let waits = |log: &Log| {
        let operation = log.operation(&stop);
        match condition(&log.state.fleets[&fleet()], operation, true) {
            Condition::Wait(waits) => waits.into_iter().map(|wait| wait.what).collect::<Vec<_>>(),
            other => panic!("{other:?} at {:?}", operation.step()),
        }
    };
    assert_eq!(waits(&log), ["its agent to look what is under way"; 2]);
    log.report_work("node-1", AppState::Serving, None, &[]);
    assert_eq!(waits(&log)[0], "its agent to say what is under way");
    log.report_work("node-1", AppState::Serving, Some(&["a", "b", "c", "d"]), &[]);
    log.report_work("node-2", AppState::Crashed("exit status 1".into()), None, &[]);
    assert_eq!(waits(&log), ["a, b, c and 1 more to end"], "what does not run has nothing under way");
    log.report("node-1", AppState::Serving);
    assert_eq!((runs(&log), log.state.fleets[&fleet()].desired), (vec![false, false], Desired::Stop));
    assert_eq!(log.operation(&stop).step().map(Step::kind).as_deref(), Some("stop"));
    log.report_work("node-2", AppState::Stopped, None, &[]);
    log.report_work("node-1", AppState::Stopped, None, &["workflow \"Import\" (execution 7)"]);
    let operation = log.operation(&stop);
    assert_eq!(operation.status, Status::Succeeded);
    let found = &operation.records.last().expect("it was stopped").found;
    let cut = "cut off: workflow \"Import\" (execution 7)";
    assert_eq!(*found, [(name("node-1"), cut.to_owned())].into());
    let told = |log: &Log| {
        let events = log.state.fleets[&fleet()].events.iter();
        events.filter(|event| event.kind.to_string().starts_with("the stop cut off: workflow")).count()
    };
    assert_eq!(told(&log), 1);
    // The same again is nothing new, and nothing of a later operation.
    let hold = log.submit("again", Request::Stop);
    log.report_work("node-1", AppState::Stopped, None, &["workflow \"Import\" (execution 7)"]);
    let records = &log.operation(&hold).records;
    assert!(records.iter().all(|record| record.found.is_empty() && record.kind != "quiet"), "{records:?}");
    assert_eq!(told(&log), 1);
}

#[test]
fn a_node_that_does_not_become_quiet_is_stopped_all_the_same() {
    let mut log = running();
    let hold = log.submit("hold", Request::Hold { mode: HoldMode::Solo, on: Some(name("node-1")) });
    for _ in 0..2 {
        log.report("node-1", AppState::Serving);
        log.report_work("node-2", AppState::Serving, Some(&["workflow \"Endless\""]), &[]);
    }
    let operation = log.operation(&hold).clone();
    assert_eq!(operation.step(), Some(&Step::Quiet { nodes: vec![name("node-2")] }));
    let now = |log: &Log| Time((log.index + 1) * 10);
    let due = |log: &Log, at| soloist_core::due::due(&log.state, &Contact::default(), at);
    let timer = Timer::Step(operation.id.clone(), operation.cursor, operation.attempt);
    let timer = Command::Timer { fleet: fleet(), timer };
    assert!(!due(&log, now(&log)).contains(&timer));
    let passed = operation.entered + Policy::default().quiet_timeout;
    assert!(due(&log, passed).contains(&timer), "the leader proposes that it has passed");
    assert_eq!(log.push(timer.clone()), Ok(Reply::Unchanged), "not yet");
    log.index += passed.0 / 10;
    assert_eq!(log.push(timer), Ok(Reply::Done));
    let operation = log.operation(&hold);
    assert_eq!(operation.step().map(Step::kind).as_deref(), Some("stop"), "no block");
    assert_eq!(operation.status, Status::Running);
    let found = &operation.records.last().expect("a step was done").found;
    assert_eq!(*found, [(name("node-2"), "still under way: workflow \"Endless\"".to_owned())].into());
}

#[test]
fn a_policy_may_say_not_to_wait() {
    let mut log = running();
    let policy = Policy { quiet_timeout: Millis(0), ..Policy::default() };
    assert_eq!(policy.problem(), None);
    assert!(log.push(set_policy(policy)).is_ok());
    let stop = log.submit("stop", Request::Stop);
    assert!(log.operation(&stop).plan.iter().all(|step| step.kind() != "quiet"));
}

#[test]
fn a_fleet_heals_by_itself_once_in_ten_minutes() {
    let mut log = running();
    let policy = Policy { heal: Heal::Automatic, quiet_timeout: Millis(0), ..Policy::default() };
    assert!(log.push(set_policy(policy)).is_ok());
    let stale = || Observed { app: AppState::Serving, stale: vec!["old".into()], ..Observed::default() };
    let timer = Command::Timer { fleet: fleet(), timer: Timer::AutoHeal };
    let due = |log: &Log, at| soloist_core::due::due(&log.state, &Contact::default(), at).contains(&timer);
    log.report_seen("node-1", stale());
    assert!(due(&log, log.state.now));
    assert!(matches!(log.push(timer.clone()), Ok(Reply::Submitted { .. })));
    for app in [AppState::Serving, AppState::Stopped, AppState::Serving] {
        log.report("node-1", app);
    }
    let healed = log.state.fleets[&fleet()].operations.last().and_then(|operation| operation.ended);
    let again = healed.expect("it was restarted") + Millis::from_secs(600);
    // It did not help.
    log.report_seen("node-1", stale());
    assert!(!due(&log, Time(again.0 - 1)));
    log.index = again.0 / 10 - 2;
    assert_eq!(log.push(timer.clone()), Ok(Reply::Unchanged), "a leader is not believed");
    assert!(due(&log, again));
    assert!(matches!(log.push(timer.clone()), Ok(Reply::Submitted { .. })));
}

#[test]
fn migrations_that_are_given_up_leave_no_marker_where_something_was_stopped() {
    let kinds =
        |log: &Log, id: &OperationId| log.operation(id).plan.iter().map(Step::kind).collect::<Vec<_>>();
    let abort = |operation: &OperationId| {
        let (by, reason) = ("op".to_owned(), "no".to_owned());
        Command::Abort { fleet: fleet(), operation: operation.clone(), by, reason }
    };
    let mut log = running();
    assert!(log.push(set_policy(Policy { quiet_timeout: Millis(0), ..Policy::default() })).is_ok());
    let early = log.submit("early", Request::Migrate { on: Some(name("node-1")) });
    let plan = ["reach", "check backup", "stop", "grant", "backup", "migrate", "convert", "verify"];
    assert_eq!(kinds(&log, &early)[..plan.len()], plan);
    assert!(log.push(abort(&early)).is_ok());
    assert!(!kinds(&log, &early).contains(&"marker-off".to_owned()), "it is still due");
    log.report("node-1", AppState::Serving);
    log.report("node-2", AppState::Serving);
    assert!(log.operation(&early).status.ended());

    let late = log.submit("late", Request::Migrate { on: Some(name("node-1")) });
    log.report("node-1", AppState::Serving);
    log.report("node-2", AppState::Serving);
    let operation = log.operation(&late);
    let task = soloist_core::assign::task_key(operation);
    let node = &log.state.fleets[&fleet()].nodes[&name("node-1")];
    let seen = Observed {
        applied: node.assignment.generation,
        app: AppState::Serving,
        task: Some((task, TaskPhase::Check, TaskResult::Done)),
        ..Observed::default()
    };
    log.report_seen("node-1", seen);
    assert_eq!(log.operation(&late).step().map(Step::kind).as_deref(), Some("stop"));
    assert!(log.push(abort(&late)).is_ok());
    let after = kinds(&log, &late);
    let at = |kind: &str| after.iter().position(|found| found == kind);
    assert!(at("marker-off").is_some() && at("marker-off") < at("start"), "{after:?}");
}
