//! A state with a log of its own, and agents whose reports are written by hand.

use soloist_core::assignment::{AppState, Assignment, DatabaseFacts, Observed, Run, TaskPhase, TaskResult};
use soloist_core::command::{FEATURE_LEVEL, Registration, Role, Submission};
use soloist_core::ids::{BootId, FleetId, Generation, Incarnation, MachineId, NodeId, OperationId, Version};
use soloist_core::operation::{Operation, Request, Status};
use soloist_core::policy::{Policy, Traffic};
use soloist_core::time::Time;
use soloist_core::traffic::ServerSeen;
use soloist_core::upgrade::RELEASE;
use soloist_core::{Command, Entry, Rejection, Reply, State, apply};

/// A state with a log of its own.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) state: State,
    pub(crate) index: u64,
}

impl Log {
    pub(crate) fn push(&mut self, command: Command) -> Result<Reply, Rejection> {
        self.index += 1;
        let entry = Entry { time: Time(self.index * 10), wall_ms: 0, feature_level: FEATURE_LEVEL, command };
        apply(&mut self.state, self.index, &entry).reply
    }

    pub(crate) fn register(
        &mut self,
        node: &str,
        run: u64,
        lineage: &[u64],
        machine: &str,
        rival: bool,
    ) -> Result<Reply, Rejection> {
        self.register_as(Role::App, node, run, lineage, machine, rival)
    }

    pub(crate) fn register_as(
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
    pub(crate) fn report(&mut self, node: &str, app: AppState) {
        self.report_work(node, app, Some(&[]), &[]);
    }

    /// The same with what is under way inside the app, and what its stop has cut off.
    pub(crate) fn report_work(
        &mut self,
        node: &str,
        app: AppState,
        under_way: Option<&[&str]>,
        cut: &[&str],
    ) {
        let words = |words: &[&str]| words.iter().copied().map(str::to_owned).collect::<Vec<_>>();
        let (under_way, cut) = (under_way.map(words), words(cut));
        self.report_seen(node, Observed { app, under_way, cut, ..Observed::default() });
    }

    /// The same with all that it sees.
    pub(crate) fn report_seen(&mut self, node: &str, seen: Observed) {
        self.report_under(self.generation(node), node, seen);
    }

    /// The same under an earlier assignment.
    pub(crate) fn report_under(&mut self, applied: Generation, node: &str, seen: Observed) {
        let known = &self.state.fleets[&fleet()].nodes[&name(node)];
        let (incarnation, sequence) = (known.incarnation, known.sequence + 1);
        let observed = Box::new(Observed { applied, ..seen });
        let report = Command::Report { fleet: fleet(), node: name(node), incarnation, sequence, observed };
        assert!(self.push(report).is_ok());
    }

    /// The node's agent tells what it sees, and has not been given its assignment yet.
    pub(crate) fn report_seen_late(&mut self, node: &str, app: AppState) {
        let known = &self.state.fleets[&fleet()].nodes[&name(node)];
        let (incarnation, sequence) = (known.incarnation, known.sequence + 1);
        let observed = Box::new(Observed { app, ..Observed::default() });
        let report = Command::Report { fleet: fleet(), node: name(node), incarnation, sequence, observed };
        assert!(self.push(report).is_ok());
    }

    /// The balancer's agent acknowledges what it is assigned; it does that, or says why it cannot.
    pub(crate) fn steer(&mut self, balancer: &str, unsteered: Option<&str>) {
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

    pub(crate) fn submit(&mut self, id: &str, request: Request) -> OperationId {
        let operation = OperationId::new(id).expect("a plain name");
        let (fleet, submission) = (fleet(), Submission::default());
        let submit = Command::Submit { fleet, operation: operation.clone(), request, submission };
        assert!(self.push(submit).is_ok());
        operation
    }

    pub(crate) fn operation(&self, id: &OperationId) -> &Operation {
        self.state.fleets[&fleet()].operation(id).expect("it is known")
    }

    pub(crate) fn generation(&self, node: &str) -> Generation {
        self.state.fleets[&fleet()].nodes[&name(node)].assignment.generation
    }
}

/// The first change of the policy.
pub(crate) fn set_policy(policy: Policy) -> Command {
    let (by, reason, changes) = ("op".to_owned(), String::new(), Vec::new());
    Command::SetPolicy { fleet: fleet(), policy, seen: 0, by, reason, changes }
}

pub(crate) fn fleet() -> FleetId {
    FleetId::new("main").expect("a plain name")
}

pub(crate) fn name(node: &str) -> NodeId {
    NodeId::new(node).expect("a plain name")
}

/// Two nodes that run, without a load balancer.
pub(crate) fn running() -> Log {
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

/// A fleet of one node that obeys at once, with a database at a version, or with an app that tells nothing of that.
pub(crate) struct Obedient {
    pub(crate) log: Log,
    version: Option<&'static str>,
    pub(crate) code: String,
}

impl Obedient {
    /// The fleet after its first plain start.
    pub(crate) fn started(version: Option<&'static str>) -> Self {
        let mut fleet = Self { log: Log::default(), version, code: "1.0.0".into() };
        assert!(fleet.log.register("node-1", 1, &[1], "machine", false).is_ok());
        fleet.submit("start", Request::Start { install: false, nodes: None });
        fleet.obey(AppState::Serving);
        assert_eq!(fleet.operation("start").status, Status::Succeeded);
        fleet
    }

    /// From now on users come while its agent says that it is ready.
    pub(crate) fn is_asked_for_ready(&mut self) {
        let ready = Policy { traffic: Traffic::Ready, ..Policy::default() };
        assert_eq!(self.log.push(set_policy(ready)), Ok(Reply::Policy { version: 1 }));
    }

    pub(crate) fn submit(&mut self, id: &str, request: Request) {
        let operation = OperationId::new(id).expect("a plain name");
        let submission = Submission::default();
        let submit = Command::Submit { fleet: fleet(), operation, request, submission };
        assert!(self.log.push(submit).is_ok());
    }

    pub(crate) fn operation(&self, id: &str) -> &Operation {
        let id = OperationId::new(id).expect("a plain name");
        self.log.state.fleets[&fleet()].operation(&id).expect("it is known")
    }

    /// Does what is assigned until nothing new is; an app with the right to migrate comes to `migrated`.
    pub(crate) fn obey(&mut self, migrated: AppState) {
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
            Run::Plain | Run::Single => AppState::Serving,
            Run::Migrate(_) => migrated.clone(),
        };
        let task = spec.task.map(|task| {
            if (task.name.as_str(), task.phase) == (RELEASE, TaskPhase::Run) {
                self.code.clone_from(&task.params["version"]);
            }
            (task.key, task.phase, TaskResult::Done)
        });
        let database = self.version.map(|version| DatabaseFacts {
            identity: "db".into(),
            version: Some(Version(version.into())),
            empty: false,
        });
        let code = self.version.map(|_| Version(self.code.clone()));
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
