//! Whole pages of text from fixed views.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;

use soloist::render::{Fresh, status, table};
use soloist_core::{
    condition::Wait,
    ids::{FleetId, MachineId, NodeId, OperationId, Token, Version},
    state::{DatabaseRecord, Desired},
    time::{Millis, Time},
    view::{FleetView, LockView, NodeView, OperationView, OutageView, StepView},
};

fn node(name: &str, app: &str) -> NodeView {
    NodeView {
        node: NodeId::new(name).unwrap(),
        machine: MachineId("m1".into()),
        address: "10.0.0.1:7411".into(),
        wanted: if app == "stopped" { "stop" } else { "plain" }.into(),
        app: app.into(),
        detail: String::new(),
        proven_stopped: app == "stopped",
        acknowledged: true,
        heard: Some(Millis(300)),
        lost: false,
        code: Some("2.2.15".into()),
        foreign: Vec::new(),
        drained: false,
        assumed: None,
        fences: Vec::new(),
        stale: Vec::new(),
        stale_wall_ms: None,
    }
}

fn step(text: &str, state: &str, took: Option<u64>) -> StepView {
    StepView {
        step: text.into(),
        state: state.into(),
        took: took.map(Millis),
        expected: None,
        found: BTreeMap::new(),
    }
}

fn operation() -> OperationView {
    OperationView {
        id: OperationId::new("plugin-1").unwrap(),
        request: "plugin enable @nocobase/plugin-map".into(),
        by: "root@host".into(),
        reason: "maps".into(),
        status: "blocked".into(),
        detail: "no contact with node-3".into(),
        cause: "unreachable".into(),
        choices: vec!["give up: soloist operation abort plugin-1".into()],
        waits: vec![Wait { node: Some(NodeId::new("node-3").unwrap()), what: "its stop".into() }],
        steps: vec![
            step("reach node-1, node-2, node-3", "done", Some(400)),
            step("stop node-2, node-3", "now", Some(12_400)),
            step("grant", "ahead", None),
        ],
        attempt: 1,
        token: Some(Token(42)),
        solo: Some(NodeId::new("node-1").unwrap()),
        granted: false,
        holder_lost: false,
        ended: false,
        left_out: BTreeMap::new(),
        submitted_wall_ms: 0,
        age: Millis(13_000),
        outage: None,
        writes_since_wall_ms: None,
    }
}

fn fleet() -> FleetView {
    let mut lost = node("node-3", "serving");
    (lost.lost, lost.heard, lost.acknowledged) = (true, Some(Millis(25_000)), false);
    lost.foreign = vec!["pid 7 of root: node app".into()];
    FleetView {
        fleet: FleetId::new("shop").unwrap(),
        active: true,
        desired: Desired::Run,
        policy_version: 2,
        database: Some(DatabaseRecord {
            identity: "7301/shop".into(),
            version: Some(Version("2.2.15".into())),
        }),
        now: Time(100_000),
        lock: LockView {
            held: true,
            operation: Some(OperationId::new("plugin-1").unwrap()),
            token: Some(Token(42)),
            age: Some(Millis(13_000)),
            since_wall_ms: Some(0),
            by: Some("root@host".into()),
            reason: Some("maps".into()),
        },
        nodes: vec![node("node-1", "serving"), node("node-2", "stopped"), lost],
        balancers: Vec::new(),
        freeze: None,
        restored: None,
        current: Some(operation()),
        queue: Vec::new(),
    }
}

fn fresh() -> Fresh {
    Fresh { member: 2, leader: Some(1), applied: 99, ..Fresh::default() }
}

#[test]
fn a_fleet_is_one_page() {
    let expected = "\
fleet     shop, should run
database  2.2.15 (7301/shop)
lock      held by plugin-1 (plugin enable @nocobase/plugin-map), token 42, for 13.0 s, by root@host: maps
answer    by member 2, leader 1, entry 99

NODE    APP      WANTED  CODE    HEARD   REMARKS
node-1  serving  plain   2.2.15  0.3 s
node-2  stopped  stop    2.2.15  0.3 s   proven stopped
node-3  serving  plain   2.2.15  25.0 s  OUT OF CONTACT; FOREIGN pid 7 of root: node app; not acknowledged yet

operation plugin-1: plugin enable @nocobase/plugin-map
  status     blocked: no contact with node-3
  asked      by root@host, 13.0 s ago: maps
  solo node  node-1
  token      42
  steps
    [x]  0.4 s  reach node-1, node-2, node-3
    [>] 12.4 s  stop node-2, node-3
    [ ]         grant
  waits for
    node-3: its stop
  choices
    give up: soloist operation abort plugin-1
";
    assert_eq!(status::fleet(&fleet(), &fresh()), expected);
}

#[test]
fn an_upgrade_that_went_back_tells_its_outage() {
    let mut upgrade = OperationView {
        id: OperationId::new("upgrade-1").unwrap(),
        request: "upgrade --to 2.2.16".into(),
        status: "rolled_back".into(),
        detail: "the app on node-1 failed: no".into(),
        reason: String::new(),
        choices: Vec::new(),
        waits: Vec::new(),
        steps: vec![
            step("stop node-1, node-2", "done", Some(12_400)),
            step("start node-1 with the right to install or upgrade", "left", Some(61_000)),
        ],
        ended: true,
        outage: Some(OutageView {
            took: Millis(73_400),
            over: true,
            parts: vec![
                ("stop node-1, node-2".into(), Millis(12_400)),
                ("start node-1".into(), Millis(61_000)),
            ],
            users_saw: "nothing answered".into(),
        }),
        ..operation()
    };
    let expected = "\
operation upgrade-1: upgrade --to 2.2.16
  status     rolled_back: the app on node-1 failed: no
  asked      by root@host, took 13.0 s
  solo node  node-1
  token      42
  steps
    [x]     12.4 s  stop node-1, node-2
    [-] 1 min 01 s  start node-1 with the right to install or upgrade
  outage: no node for users for 1 min 13 s
        12.4 s  stop node-1, node-2
    1 min 01 s  start node-1
    users saw: nothing answered
";
    assert_eq!(status::operation(&upgrade), expected);

    upgrade.outage.as_mut().unwrap().over = false;
    upgrade.writes_since_wall_ms = Some(1_700_000_000_000);
    upgrade.steps = vec![StepView { expected: Some(Millis(2_000)), ..step("grant", "ahead", None) }];
    let text = status::operation(&upgrade);
    assert!(text.contains("for 1 min 13 s so far\n"), "{text}");
    assert!(text.contains("users may have written since 2023-11-1"), "{text}");
    assert!(text.contains("[ ]   grant (about 2.0 s)\n"), "{text}");
}

#[test]
fn what_may_be_out_of_date_says_so_first() {
    let stale =
        Fresh { stale: true, reason: "no leader is known".into(), last_contact_ms: Some(4_200), ..fresh() };
    let text = status::fleet(&fleet(), &stale);
    assert!(text.starts_with(
        "STALE: this may be out of date. Member 2 heard a leader 4.2 s ago: no leader is known\n\nfleet     shop"
    ));
}

#[test]
fn a_node_is_shown_in_full() {
    let mut node = node("node-1", "starting");
    node.detail = "load plugin [ai], 48/77".into();
    let expected = "\
node            node-1
machine         m1
agent           10.0.0.1:7411
heard           0.3 s ago
wanted          plain
acknowledged    yes
app             starting: load plugin [ai], 48/77
proven stopped  no
code            2.2.15
";
    assert_eq!(table::node(&node), expected);
}

#[test]
fn a_free_lock_is_one_word() {
    let free = LockView {
        held: false,
        operation: None,
        token: None,
        age: None,
        since_wall_ms: None,
        by: None,
        reason: None,
    };
    assert_eq!(table::lock(&free, None), "free");
}
