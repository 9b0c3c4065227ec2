//! Values with every field set, and every variant.

use std::collections::BTreeMap;

use soloist_core::{
    assignment::{
        AppState, Assignment, DatabaseFacts, DbSession, Foreign, Needs, Observed, Proof, Run, Spec, Task,
        TaskKey, TaskPhase, TaskResult,
    },
    check::{Check, Expected, What},
    command::{Decision, Registration, Role, Submission},
    condition::Wait,
    fence::{Covers, FenceOffer, FenceOrder, FenceSeen},
    ids::{
        BackupId, BootId, FleetId, Generation, Incarnation, MachineId, NodeId, OperationId, Right, Token,
        Version,
    },
    notice::Notice,
    operation::{HoldMode, PackageChange, PluginChange, Request},
    policy::{Fencing, Heal, Policy, Traffic, Uploads},
    preflight::{Finding, NodeFacts, Place, Release, Severity, Space, StorageFacts},
    preview::PlannedStep,
    state::{DatabaseRecord, Desired, Freeze},
    time::{Millis, Time},
    traffic::{ServerSeen, TrafficSpec},
    view::{BalancerView, FenceView, FleetView, LockView, NodeView, OperationView, OutageView, StepView},
};
use soloist_proto::convert::Greeting;

pub(crate) fn fleet() -> FleetId {
    FleetId::new("shop").unwrap()
}

pub(crate) fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

pub(crate) fn operation() -> OperationId {
    OperationId::new("op-1").unwrap()
}

pub(crate) fn key() -> TaskKey {
    TaskKey { operation: operation(), step: 3, attempt: 2 }
}

pub(crate) fn proof() -> Proof {
    Proof { plugin: "@nocobase/plugin-acl".into(), loaded: true, since: Some(Generation(40)) }
}

pub(crate) fn assignment() -> Assignment {
    let params =
        BTreeMap::from([("plugin".to_owned(), "acl".to_owned()), ("with".to_owned(), "care".to_owned())]);
    Assignment {
        generation: Generation(42),
        token: Some(Token(41)),
        spec: Spec {
            run: Run::Migrate(Right(39)),
            task: Some(Task {
                key: key(),
                phase: TaskPhase::Run,
                needs: Needs::Stopped,
                name: "plugin-enable".into(),
                params,
                checks: checks(),
            }),
            proof: Some(proof()),
            target: Some(Version("2.2.16".into())),
            hold: true,
            quiet: true,
            grace: Some(Millis(45_000)),
            fences: vec![FenceOrder {
                node: node("node-3"),
                covers: Covers::Database,
                generation: Generation(40),
                up: true,
            }],
            traffic: Some(traffic()),
        },
    }
}

pub(crate) fn traffic() -> TrafficSpec {
    TrafficSpec { servers: [(node("a"), true), (node("b"), false)].into(), within: Millis(30_000) }
}

pub(crate) fn servers() -> BTreeMap<NodeId, ServerSeen> {
    let out = ServerSeen::Out { cut: 3 };
    [(node("a"), ServerSeen::In), (node("b"), ServerSeen::Draining), (node("c"), out)].into()
}

pub(crate) fn notice() -> Notice {
    Notice { reason: "The new reports".into(), remaining: Some(Millis(90_000)) }
}

pub(crate) fn checks() -> Vec<Check> {
    let expected = |at: &str, is: &str| Some(Expected { at: at.into(), is: is.into() });
    let http = What::Http {
        path: "/api/app:getInfo".into(),
        status: 201,
        header: expected("content-type", "application/json"),
        json: expected("/data/version", "2.2.16"),
    };
    let plain = What::Http { path: "/".into(), status: 200, header: None, json: None };
    let command = What::Command { command: "smoke".into() };
    let plugin = What::Plugin { plugin: "@nocobase/plugin-acl".into() };
    let each = [("info", http), ("page", plain), ("smoke", command), ("acl", plugin)];
    each.map(|(name, what)| Check { name: name.into(), what, timeout: Millis(5_000), tries: 7 }).into()
}

pub(crate) fn policy() -> Policy {
    Policy {
        contact_timeout: Millis(1_001),
        pre_grant_timeout: Millis(1_002),
        confirm_timeout: Millis(1_003),
        accept_timeout: Millis(1_004),
        lease: Millis(1_005),
        restore_after: Millis(1_006),
        gather_timeout: Millis(1_007),
        start_timeout: Millis(1_008),
        stop_timeout: Millis(1_009),
        task_timeout: Millis(1_010),
        backup_timeout: Millis(1_011),
        keep_backups: 12,
        traffic: Traffic::Balancer,
        drain_timeout: Millis(1_012),
        heal: Heal::Automatic,
        fence: Fencing::Automatic,
        fence_after: Millis(1_015),
        quiet_timeout: Millis(1_014),
        grace: Some(Millis(1_013)),
        uploads: Some(Uploads::Presync),
        checks: checks(),
        max_parallel: 4,
        commercial_plugins: true,
        order: ["node-2", "node-1"].map(node).into(),
    }
}

pub(crate) fn decisions() -> Vec<Decision> {
    let rollback = |lose_writes| Decision::Rollback { lose_writes };
    vec![Decision::Approve, Decision::Reject, rollback(true), rollback(false)]
}

pub(crate) fn planned() -> Vec<PlannedStep> {
    vec![
        PlannedStep { step: "stop a, b".into(), waits_for: "each agent".into(), expected: Some(Millis(7)) },
        PlannedStep { step: "grant".into(), waits_for: "nothing else".into(), expected: None },
    ]
}

pub(crate) fn observed() -> Observed {
    Observed {
        applied: Generation(42),
        boot: BootId("boot".into()),
        app: AppState::Crashed("exit status 1".into()),
        launched: Some(Generation(40)),
        processes: Some(2),
        by_hand: Some("started by hand".into()),
        code: Some(Version("2.2.15".into())),
        database: Some(DatabaseFacts {
            identity: "7/shop".into(),
            version: Some(Version("2.2.14".into())),
            empty: true,
        }),
        foreign: vec![Foreign { pid: 7, owner: "root".into(), command: "node index.js".into() }],
        sessions: vec![DbSession {
            pid: 8,
            role: "nocobase".into(),
            client: "10.0.0.7".into(),
            application: "psql".into(),
        }],
        holders: vec![Token(41), Token(43)],
        task: Some((key(), TaskPhase::Check, TaskResult::Failed("no such plugin".into()))),
        output: [("size".to_owned(), "34 MB".to_owned())].into(),
        proved: Some(proof()),
        unproved: Some("the app does not answer".into()),
        away: true,
        servers: servers(),
        unsteered: Some("no such socket".into()),
        stale: vec!["@nocobase/plugin-map is not loaded".into()],
        under_way: Some(vec!["workflow \"Import\" (execution 7)".into()]),
        cut: vec!["async task \"export\" (7-8-9)".into()],
        fences: vec![FenceOffer {
            node: node("node-3"),
            covers: Covers::Machine,
            unarmed: Some("its check says nothing".into()),
        }],
        fenced: vec![FenceSeen {
            node: node("node-3"),
            covers: Covers::Database,
            generation: Generation(40),
            done: false,
            trouble: Some("the server does not answer".into()),
        }],
    }
}

pub(crate) fn node_facts() -> NodeFacts {
    let release = |product: &str| Release { product: product.into(), major: 15, text: "15.18".into() };
    let space = |place| Space { place, path: "/srv".into(), free: u64::MAX };
    NodeFacts {
        asked: Some(Millis(21)),
        came: Some(vec!["10.0.0.9".into()]),
        code: Some(Version("2.2.15".into())),
        settings: Some(BTreeMap::from([("TZ".to_owned(), "0123456789ab".to_owned())])),
        node: Some(release("node")),
        storage: Some(StorageFacts {
            nonce: "aa".into(),
            before: Some("bb".into()),
            age: Millis(7),
            seen: BTreeMap::from([(node("a"), vec!["aa".to_owned(), "bb".to_owned()])]),
        }),
        database: observed().database,
        server: Some(release("PostgreSQL")),
        dump: Some(release("pg_dump")),
        own_backups: true,
        spaces: [Place::Storage, Place::App, Place::Data].map(space).into(),
        upgrading: true,
        searched: true,
        commercial: vec!["a license".into()],
        sub_apps: Some(2),
        supervisors: vec!["systemd unit nocobase.service".into()],
        sessions: observed().sessions,
        failed: BTreeMap::from([("database".to_owned(), "it does not answer".to_owned())]),
    }
}

pub(crate) fn findings() -> Vec<Finding> {
    [Severity::Problem, Severity::Warning]
        .map(|severity| Finding {
            severity,
            check: "clock".into(),
            nodes: vec![node("a"), node("b")],
            text: "what".into(),
            remedy: "do".into(),
        })
        .into()
}

pub(crate) fn greeting() -> Greeting {
    // Without a cluster: an agent of the first release sends none, and the golden bytes are such an agent's.
    let (version, cluster) = ("0.1.0".into(), String::new());
    Greeting { fleet: fleet(), node: node("a"), registration: registration(), version, cluster }
}

pub(crate) fn registration() -> Registration {
    Registration {
        incarnation: Incarnation(u64::MAX),
        lineage: vec![Incarnation(1), Incarnation(u64::MAX)],
        fresh: true,
        machine: MachineId("machine".into()),
        boot: BootId("boot".into()),
        address: "127.0.0.1:7411".into(),
        role: Role::Balancer,
    }
}

pub(crate) fn submission() -> Submission {
    Submission {
        by: "root@host".into(),
        reason: "new plugin".into(),
        wait: Some(Millis(30_000)),
        machine: MachineId("machine".into()),
    }
}

pub(crate) fn requests() -> Vec<Request> {
    vec![
        Request::Start { install: true, nodes: Some(vec![node("a"), node("b")]) },
        Request::Start { install: false, nodes: Some(Vec::new()) },
        Request::Start { install: false, nodes: None },
        Request::Stop,
        Request::Hold { mode: HoldMode::Solo, on: Some(node("a")) },
        Request::Hold { mode: HoldMode::AllStopped, on: None },
        Request::Plugin { change: PluginChange::Enable, plugin: "acl".into(), on: Some(node("b")) },
        Request::Plugin { change: PluginChange::Disable, plugin: "acl".into(), on: None },
        Request::Backup { on: Some(node("a")) },
        Request::Backup { on: None },
        Request::AcceptDatabase,
        Request::Restore { backup: BackupId::new("b-1").unwrap(), code: false },
        Request::Restore { backup: BackupId::new("b-1").unwrap(), code: true },
        Request::RemoveBackup { backup: BackupId::new("b-1").unwrap() },
        Request::Upgrade { to: Version("2.2.16".into()), on: Some(node("a")), approve: true },
        Request::Upgrade { to: Version("2.2.16".into()), on: None, approve: false },
        Request::Prepare { to: Version("2.2.16".into()) },
        Request::Verify,
        Request::Heal,
        Request::Remove { node: node("node-2") },
        Request::Migrate { on: Some(node("node-1")) },
        Request::Migrate { on: None },
        Request::Packages {
            changes: vec![
                PackageChange::Put {
                    plugin: "@a/x".into(),
                    source: "/tmp/x.tgz".into(),
                    version: Some(Version("1.0.0".into())),
                    sha256: Some("ab".repeat(32)),
                    enable: true,
                },
                PackageChange::Remove { plugin: "@a/y".into() },
            ],
            on: Some(node("a")),
        },
        Request::Restart { nodes: None },
        Request::Restart { nodes: Some(vec![node("a")]) },
    ]
}

pub(crate) fn operation_view() -> OperationView {
    OperationView {
        id: operation(),
        request: "stop".into(),
        by: "root@host".into(),
        reason: "work".into(),
        status: "blocked".into(),
        detail: "no contact with b".into(),
        cause: "unreachable".into(),
        choices: vec!["give up: soloist operation abort op-1".into()],
        waits: vec![
            Wait { node: Some(node("b")), what: "the app to stop".into() },
            Wait { node: None, what: "x".into() },
        ],
        steps: vec![
            StepView {
                step: "stop a, b".into(),
                state: "now".into(),
                took: Some(Millis(7)),
                expected: Some(Millis(8)),
                found: BTreeMap::from([(NodeId::new("node-1").unwrap(), "smoke: ok".to_owned())]),
            },
            StepView {
                step: "grant".into(),
                state: "ahead".into(),
                took: None,
                expected: None,
                found: BTreeMap::new(),
            },
        ],
        outage: Some(OutageView {
            took: Millis(70),
            over: true,
            parts: vec![("stop a, b".into(), Millis(30)), ("backup on a".into(), Millis(40))],
            users_saw: "an error page".into(),
        }),
        writes_since_wall_ms: Some(1_700_000_000_070),
        attempt: 2,
        token: Some(Token(41)),
        solo: Some(node("a")),
        granted: true,
        holder_lost: true,
        ended: true,
        left_out: BTreeMap::from([(node("b"), "does not answer".to_owned())]),
        submitted_wall_ms: 1_700_000_000_000,
        age: Millis(90_000),
    }
}

pub(crate) fn fleet_view() -> FleetView {
    FleetView {
        fleet: fleet(),
        active: true,
        desired: Desired::Run,
        database: Some(DatabaseRecord { identity: "7/shop".into(), version: Some(Version("2.2.15".into())) }),
        policy_version: 3,
        now: Time(123_456),
        lock: LockView {
            held: true,
            operation: Some(operation()),
            token: Some(Token(41)),
            age: Some(Millis(7)),
            since_wall_ms: Some(1_700_000_000_000),
            by: Some("root@host".into()),
            reason: Some("work".into()),
        },
        nodes: vec![NodeView {
            node: node("a"),
            machine: MachineId("machine".into()),
            address: "127.0.0.1:7411".into(),
            wanted: "plain".into(),
            app: "starting".into(),
            detail: "load plugin 9/77".into(),
            proven_stopped: true,
            acknowledged: true,
            heard: Some(Millis(100)),
            lost: true,
            code: Some("2.2.15".into()),
            foreign: vec!["pid 7".into()],
            drained: true,
            assumed: Some("kim: it burned".into()),
            fences: vec![FenceView {
                covers: Covers::Machine,
                state: "holds".into(),
                carrier: node("node-2"),
                detail: "by kim: it hangs".into(),
            }],
            stale: vec!["@nocobase/plugin-map is not loaded".into()],
            stale_wall_ms: Some(13),
        }],
        restored: None,
        freeze: Some(Freeze { by: "kim".into(), reason: "fair".into(), until: Time(7), until_wall_ms: 8 }),
        balancers: vec![BalancerView {
            node: node("lb"),
            address: "127.0.0.1:7412".into(),
            acknowledged: true,
            heard: Some(Millis(101)),
            lost: true,
            servers: servers(),
            unsteered: Some("no such socket".into()),
            assumed: Some("kim: sold".into()),
        }],
        current: Some(operation_view()),
        queue: vec![operation_view()],
    }
}
