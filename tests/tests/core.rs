//! Decisions of the core that no chance of the simulated world brings about, entry by entry.

use soloist_core::assignment::{AppState, Assignment, DatabaseFacts, Observed, Run, TaskPhase, TaskResult};
use soloist_core::command::{FEATURE_LEVEL, Registration, Role, Submission, Timer};
use soloist_core::condition::{Condition, condition};
use soloist_core::due::Contact;
use soloist_core::ids::{BootId, FleetId, Generation, Incarnation, MachineId, NodeId, OperationId, Version};
use soloist_core::operation::{Blocked, Bring, HoldMode, Operation, Request, Status, Step};
use soloist_core::policy::{Policy, Traffic};
use soloist_core::state::Desired;
use soloist_core::time::{Millis, Time};
use soloist_core::traffic::ServerSeen;
use soloist_core::upgrade::RELEASE;
use soloist_core::{Command, Entry, Rejection, Reply, State, apply};

/// A state with a log of its own.
#[derive(Default)]
struct Log {
    state: State,
    index: u64,
}

impl Log {
    fn push(&mut self, command: Command) -> Result<Reply, Rejection> {
        self.index += 1;
        let entry = Entry { time: Time(self.index * 10), wall_ms: 0, feature_level: FEATURE_LEVEL, command };
        apply(&mut self.state, self.index, &entry).reply
    }

    fn register(
        &mut self,
        node: &str,
        run: u64,
        lineage: &[u64],
        machine: &str,
        rival: bool,
    ) -> Result<Reply, Rejection> {
        self.register_as(Role::App, node, run, lineage, machine, rival)
    }

    fn register_as(
        &mut self,
        role: Role,
        node: &str,
        run: u64,
        lineage: &[u64],
        machine: &str,
        rival: bool,
    ) -> Result<Reply, Rejection> {
        let registration = Registration {
            incarnation: Incarnation(run),
            lineage: lineage.iter().copied().map(Incarnation).collect(),
            fresh: lineage == [run],
            machine: MachineId(machine.into()),
            boot: BootId("boot".into()),
            address: String::new(),
            role,
        };
        self.push(Command::Register {
            fleet: fleet(),
            node: name(node),
            registration,
            policy: Policy::default(),
            rival,
        })
    }

    /// The node's agent acknowledges what it is assigned, with the app in this state.
    fn report(&mut self, node: &str, app: AppState) {
        self.report_work(node, app, Some(&[]), &[]);
    }

    /// The same with what is under way inside the app, and what its stop has cut off.
    fn report_work(&mut self, node: &str, app: AppState, under_way: Option<&[&str]>, cut: &[&str]) {
        let (incarnation, sequence, applied) = {
            let known = &self.state.fleets[&fleet()].nodes[&name(node)];
            (known.incarnation, known.sequence + 1, known.assignment.generation)
        };
        let words = |words: &[&str]| words.iter().copied().map(str::to_owned).collect::<Vec<_>>();
        let (under_way, cut) = (under_way.map(words), words(cut));
        let observed = Box::new(Observed { applied, app, under_way, cut, ..Observed::default() });
        let report = Command::Report { fleet: fleet(), node: name(node), incarnation, sequence, observed };
        assert!(self.push(report).is_ok());
    }

    /// The balancer's agent acknowledges what it is assigned; it does that, or says why it cannot.
    fn steer(&mut self, balancer: &str, unsteered: Option<&str>) {
        let known = &self.state.fleets[&fleet()].balancers[&name(balancer)];
        let (incarnation, sequence) = (known.incarnation, known.sequence + 1);
        let Assignment { generation: applied, spec, .. } = known.assignment.clone();
        let servers = spec.traffic.expect("a balancer is told what to do").servers.into_iter();
        let seen = |given| if given { ServerSeen::In } else { ServerSeen::Out { cut: 0 } };
        let servers = servers.filter(|_| unsteered.is_none()).map(|(node, given)| (node, seen(given)));
        let (servers, unsteered) = (servers.collect(), unsteered.map(str::to_owned));
        let observed = Box::new(Observed { applied, servers, unsteered, ..Observed::default() });
        let (fleet, node) = (fleet(), name(balancer));
        let report = Command::Report { fleet, node, incarnation, sequence, observed };
        assert!(self.push(report).is_ok());
    }

    fn submit(&mut self, id: &str, request: Request) -> OperationId {
        let operation = OperationId::new(id).expect("a plain name");
        let (fleet, submission) = (fleet(), Submission::default());
        let submit = Command::Submit { fleet, operation: operation.clone(), request, submission };
        assert!(self.push(submit).is_ok());
        operation
    }

    fn operation(&self, id: &OperationId) -> &Operation {
        self.state.fleets[&fleet()].operation(id).expect("it is known")
    }

    fn generation(&self, node: &str) -> Generation {
        self.state.fleets[&fleet()].nodes[&name(node)].assignment.generation
    }
}

fn fleet() -> FleetId {
    FleetId::new("main").expect("a plain name")
}

fn name(node: &str) -> NodeId {
    NodeId::new(node).expect("a plain name")
}

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

/// A fleet of one node that obeys at once, with a database at a version.
struct Obedient {
    log: Log,
    version: &'static str,
    code: String,
}

impl Obedient {
    /// The fleet after its first plain start.
    fn started() -> Self {
        let mut fleet = Self { log: Log::default(), version: "1.0.0", code: "1.0.0".into() };
        assert!(fleet.log.register("node-1", 1, &[1], "machine", false).is_ok());
        fleet.submit("start", Request::Start { install: false, nodes: None });
        fleet.obey(AppState::Serving);
        assert_eq!(fleet.operation("start").status, Status::Succeeded);
        fleet
    }

    fn submit(&mut self, id: &str, request: Request) {
        let operation = OperationId::new(id).expect("a plain name");
        let submission = Submission::default();
        let submit = Command::Submit { fleet: fleet(), operation, request, submission };
        assert!(self.log.push(submit).is_ok());
    }

    fn operation(&self, id: &str) -> &Operation {
        let id = OperationId::new(id).expect("a plain name");
        self.log.state.fleets[&fleet()].operation(&id).expect("it is known")
    }

    /// Does what is assigned until nothing new is; an app with the right to migrate comes to `migrated`.
    fn obey(&mut self, migrated: AppState) {
        let mut last = None;
        while last != Some(self.log.generation("node-1")) {
            last = Some(self.log.generation("node-1"));
            self.step(&migrated);
            self.step(&migrated);
        }
    }

    fn step(&mut self, migrated: &AppState) {
        let node = &self.log.state.fleets[&fleet()].nodes[&name("node-1")];
        let (incarnation, sequence) = (node.incarnation, node.sequence + 1);
        let Assignment { generation: applied, spec, .. } = node.assignment.clone();
        let app = match spec.run {
            Run::Stop => AppState::Stopped,
            Run::Plain => AppState::Serving,
            Run::Migrate(_) => migrated.clone(),
        };
        let task = spec.task.map(|task| {
            if (task.name.as_str(), task.phase) == (RELEASE, TaskPhase::Run) {
                self.code.clone_from(&task.params["version"]);
            }
            (task.key, task.phase, TaskResult::Done)
        });
        let database = DatabaseFacts {
            identity: "db".into(),
            version: Some(Version(self.version.into())),
            empty: false,
        };
        let (code, database) = (Some(Version(self.code.clone())), Some(database));
        // Its load balancer asks, and hears whatever it is told.
        let (away, under_way) = (true, Some(Vec::new()));
        let observed =
            Observed { applied, app, task, code, database, away, under_way, ..Observed::default() };
        let report = Command::Report {
            fleet: fleet(),
            node: name("node-1"),
            incarnation,
            sequence,
            observed: Box::new(observed),
        };
        assert!(self.log.push(report).is_ok());
    }
}

#[test]
fn an_upgrade_that_is_tried_again_and_then_ended_still_restores() {
    let mut fleet = Obedient::started();
    let ready = Policy { traffic: Traffic::Ready, ..Policy::default() };
    let set = |policy| Command::SetPolicy {
        fleet: self::fleet(),
        policy,
        seen: 0,
        by: "op".into(),
        reason: String::new(),
        changes: Vec::new(),
    };
    assert_eq!(fleet.log.push(set(ready)), Ok(Reply::Policy { version: 1 }));
    assert!(matches!(fleet.log.push(set(Policy::default())), Err(Rejection::PolicyMoved { version: 1, .. })));

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
fn a_balancer_blocks_until_it_can_be_steered_and_is_heard() {
    let mut log = Log::default();
    for (node, run) in [("node-1", 1), ("node-2", 2)] {
        assert!(log.register(node, run, &[run], node, false).is_ok());
    }
    let policy = Policy { traffic: Traffic::Balancer, ..Policy::default() };
    let (by, reason, changes) = ("op".to_owned(), String::new(), Vec::new());
    assert!(log.push(Command::SetPolicy { fleet: fleet(), policy, seen: 0, by, reason, changes }).is_ok());
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

/// Two nodes that run, without a load balancer.
fn running() -> Log {
    let mut log = Log::default();
    for (node, run) in [("node-1", 1), ("node-2", 2)] {
        assert!(log.register(node, run, &[run], node, false).is_ok());
    }
    let start = log.submit("start", Request::Start { install: false, nodes: None });
    for _ in 0..3 {
        log.report("node-1", AppState::Serving);
        log.report("node-2", AppState::Serving);
    }
    assert_eq!(log.operation(&start).status, Status::Succeeded);
    log
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
    let (by, reason, changes) = ("op".to_owned(), String::new(), Vec::new());
    assert!(log.push(Command::SetPolicy { fleet: fleet(), policy, seen: 0, by, reason, changes }).is_ok());
    let stop = log.submit("stop", Request::Stop);
    assert!(log.operation(&stop).plan.iter().all(|step| step.kind() != "quiet"));
}
