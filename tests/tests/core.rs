//! Decisions of the core that no chance of the simulated world brings about, entry by entry.

use soloist_core::assignment::{AppState, Observed};
use soloist_core::command::{FEATURE_LEVEL, Registration, Submission};
use soloist_core::ids::{BootId, FleetId, Generation, Incarnation, MachineId, NodeId, OperationId};
use soloist_core::operation::{HoldMode, Request};
use soloist_core::policy::Policy;
use soloist_core::time::Time;
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
        let registration = Registration {
            incarnation: Incarnation(run),
            lineage: lineage.iter().copied().map(Incarnation).collect(),
            fresh: lineage == [run],
            machine: MachineId(machine.into()),
            boot: BootId("boot".into()),
            address: String::new(),
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
        let (incarnation, sequence, applied) = {
            let known = &self.state.fleets[&fleet()].nodes[&name(node)];
            (known.incarnation, known.sequence + 1, known.assignment.generation)
        };
        let observed = Observed { applied, app, ..Observed::default() };
        let report = Command::Report { fleet: fleet(), node: name(node), incarnation, sequence, observed };
        assert!(self.push(report).is_ok());
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
    let submit = |log: &mut Log, id: &str, request| {
        let operation = OperationId::new(id).expect("a plain name");
        let submission = Submission::default();
        assert!(
            log.push(Command::Submit { fleet: fleet(), operation: operation.clone(), request, submission })
                .is_ok()
        );
        operation
    };
    let start = submit(&mut log, "start", Request::Start { install: false, nodes: None });
    for _ in 0..3 {
        log.report("node-1", AppState::Serving);
        log.report("node-2", AppState::Serving);
    }
    let ended = |log: &Log, id: &OperationId| {
        log.state.fleets[&fleet()].operation(id).expect("it is known").status.ended()
    };
    assert!(ended(&log, &start));

    let hold = submit(&mut log, "hold", Request::Hold { mode: HoldMode::Solo, on: Some(name("node-1")) });
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
