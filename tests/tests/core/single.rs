//! A node whose app runs in several processes, as the solo node.

use soloist_core::Command;
use soloist_core::assignment::{AppState, Observed, Run, TaskResult};
use soloist_core::ids::{OperationId, Version};
use soloist_core::operation::{Bring, PluginChange, Request, Status, Step};
use soloist_core::state::DatabaseRecord;

use super::log::{Log, fleet, name, running};

/// What both nodes are to do until nothing new is; node-1 runs in `processes`. Ends early when node-1 is to run so.
fn obey(log: &mut Log, processes: u32, until: Option<Run>) {
    let mut last = None;
    while last != Some((log.generation("node-1"), log.generation("node-2"))) {
        last = Some((log.generation("node-1"), log.generation("node-2")));
        for (node, processes) in [("node-1", processes), ("node-2", 1)] {
            let spec = log.state.fleets[&fleet()].nodes[&name(node)].assignment.spec.clone();
            if node == "node-1" && until == Some(spec.run) {
                return;
            }
            let app = if spec.run == Run::Stop { AppState::Stopped } else { AppState::Serving };
            log.report_seen(
                node,
                Observed {
                    app,
                    processes: Some(processes),
                    // It was launched after whatever is asked about.
                    proved: spec.proof,
                    task: spec.task.map(|task| (task.key, task.phase, TaskResult::Done)),
                    under_way: Some(Vec::new()),
                    ..Observed::default()
                },
            );
        }
    }
}

fn enable(log: &mut Log, id: &str) -> OperationId {
    let plugin = "@a/x".to_owned();
    log.submit(id, Request::Plugin { change: PluginChange::Enable, plugin, on: Some(name("node-1")) })
}

/// The steps that bear on whether and how node-1 runs, in words.
fn ways(log: &Log, id: &OperationId) -> Vec<String> {
    let bears = |step: &&Step| match step {
        Step::Stopped { nodes } => nodes.contains(&name("node-1")),
        Step::Serving { nodes, .. } => nodes.contains(&name("node-1")),
        Step::Granted | Step::Converted { .. } => true,
        _ => false,
    };
    log.operation(id).plan.iter().filter(bears).map(ToString::to_string).collect()
}

#[test]
fn it_is_one_process_before_the_others_stop_and_several_at_the_end() {
    let mut log = running();
    obey(&mut log, 2, None);
    let id = enable(&mut log, "on");
    let steps: Vec<String> = log.operation(&id).plan.iter().map(ToString::to_string).collect();
    let expected = [
        "reach node-1, node-2",
        "start node-1",
        "check plugin-enable on node-1",
        "wait for work on node-1",
        "stop node-1",
        "start node-1 as one process",
        "wait for work on node-2",
        "stop node-2",
        "grant",
        "plugin-enable on node-1",
        "start node-1 as one process",
        "prove @a/x loaded on node-1",
        "start node-2",
        "prove @a/x loaded on node-2",
        "wait for work on node-1",
        "stop node-1",
        "start node-1",
        "prove @a/x loaded on node-1",
    ];
    assert_eq!(steps, expected);
    obey(&mut log, 2, None);
    assert_eq!(log.operation(&id).status, Status::Succeeded);
    assert_eq!(log.state.fleets[&fleet()].nodes[&name("node-1")].assignment.spec.run, Run::Plain);
}

#[test]
fn what_is_learned_of_it_when_it_answers_is_planned_then() {
    let mut log = running();
    obey(&mut log, 1, None);
    let id = enable(&mut log, "on");
    assert!(!ways(&log, &id).contains(&"start node-1 as one process".to_owned()));
    obey(&mut log, 2, None);
    assert!(ways(&log, &id).contains(&"start node-1 as one process".to_owned()), "{:?}", ways(&log, &id));
    assert_eq!(log.operation(&id).status, Status::Succeeded);
}

#[test]
fn an_upgrade_leaves_it_as_one_process_until_the_others_serve() {
    let mut log = running();
    obey(&mut log, 2, None);
    let database = DatabaseRecord { identity: "db".into(), version: Some(Version("1.0.0".into())) };
    log.state.fleets.get_mut(&fleet()).expect("it is there").database = Some(database);
    let (to, on) = (Version("1.1.0".into()), Some(name("node-1")));
    let id = log.submit("up", Request::Upgrade { to, on, approve: false });
    let ways = ways(&log, &id);
    assert_eq!(
        ways,
        [
            "stop node-1, node-2",
            "grant",
            "start node-1 with the right to install or upgrade",
            "turn the right of node-1 into a plain run",
            "stop node-1",
            "start node-1",
        ]
    );
    let converted = Step::Converted { node: name("node-1"), single: true };
    assert!(log.operation(&id).plan.contains(&converted), "it is not started in several after a crash");
}

#[test]
fn settings_that_change_before_the_grant_end_it() {
    let mut log = running();
    obey(&mut log, 1, None);
    let id = enable(&mut log, "on");
    // It answers, and is checked, as one process; then somebody sets it to two.
    for _ in 0..3 {
        let spec = log.state.fleets[&fleet()].nodes[&name("node-1")].assignment.spec.clone();
        let task = spec.task.map(|task| (task.key, task.phase, TaskResult::Done));
        let app = AppState::Serving;
        log.report_seen("node-1", Observed { app, task, processes: Some(1), ..Observed::default() });
        log.report("node-2", AppState::Serving);
    }
    assert!(
        matches!(log.operation(&id).step(), Some(Step::Stopped { .. })),
        "{:?}",
        log.operation(&id).step()
    );
    obey(&mut log, 2, None);
    let Status::Aborted(why) = &log.operation(&id).status else { panic!("{:?}", log.operation(&id)) };
    assert_eq!(why, "node-1 was set to several processes meanwhile: try again");
    assert!(log.state.fleets[&fleet()].nodes.values().all(|node| node.assignment.spec.run == Run::Plain));
}

#[test]
fn an_operation_that_is_given_up_brings_it_back_to_several() {
    let mut log = running();
    obey(&mut log, 2, None);
    let id = enable(&mut log, "on");
    obey(&mut log, 2, Some(Run::Single));
    let abort =
        Command::Abort { fleet: fleet(), operation: id.clone(), by: "op".into(), reason: "no".into() };
    assert!(log.push(abort).is_ok());
    let last = log.operation(&id).plan.last().cloned();
    assert_eq!(last, Some(Step::Serving { nodes: vec![name("node-1")], bring: Bring::Plain }));
    obey(&mut log, 2, None);
    assert!(matches!(log.operation(&id).status, Status::Aborted(_)));
    let node = &log.state.fleets[&fleet()].nodes[&name("node-1")];
    assert_eq!((node.admitted, node.assignment.spec.run), (true, Run::Plain));
}
