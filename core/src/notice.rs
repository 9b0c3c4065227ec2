//! What users are told while they are kept away from a fleet: why, and for how long.
//!
//! This is read by everybody, so it holds what a person wrote for it, or a plain sentence, and no word of nodes and steps.

use crate::advance::AUTOMATIC;
use crate::operation::{Bring, HoldMode, Operation, PluginChange, Request, Status, Step};
use crate::outage::{expected, is_there};
use crate::policy::Traffic;
use crate::state::{Desired, Fleet, State};
use crate::time::Millis;
use crate::traffic::ServerSeen;

/// What users are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Why, for people.
    pub reason: String,
    /// How long it may take until a node is there for them again; `None` if that is not known.
    pub remaining: Option<Millis>,
}

/// What users of a fleet are told; `None` if nothing keeps them away.
///
/// It is there while an operation drains or stops nodes, until users have a node again; while a start has brought none up
/// yet; and while the fleet should be stopped.
pub fn notice(state: &State, fleet: &Fleet) -> Option<Notice> {
    if let Some(operation) = fleet.current().filter(|operation| keeps_away(fleet, operation)) {
        let reason = said(operation).unwrap_or_else(|| sentence(&operation.request)).to_owned();
        return Some(Notice { reason, remaining: remaining(state, fleet, operation) });
    }
    if fleet.desired == Desired::Run {
        return None;
    }
    let stop = fleet.operations.iter().rev().find(|operation| operation.request == Request::Stop);
    let why = match (fleet.active, stop.and_then(said)) {
        (true, Some(why)) => why,
        (true, None) => sentence(&Request::Stop),
        (false, _) => "The system is not in use yet",
    };
    Some(Notice { reason: why.to_owned(), remaining: None })
}

/// Whether there is something to tell users; as [`notice`], and cheaper.
#[must_use]
pub fn is_closed(fleet: &Fleet) -> bool {
    fleet.desired != Desired::Run || fleet.current().is_some_and(|operation| keeps_away(fleet, operation))
}

/// Whether an operation keeps users away at this moment, or may at any later one.
fn keeps_away(fleet: &Fleet, operation: &Operation) -> bool {
    if matches!(operation.request, Request::Start { .. }) && !is_there(fleet, operation) {
        return true;
    }
    let stops = |step: &Step| matches!(step, Step::Drained { .. } | Step::Stopped { .. });
    operation.plan.iter().any(stops) && !(operation.up.is_some() && is_given(fleet))
}

/// Whether every load balancer gives users some node, where Soloist steers them.
fn is_given(fleet: &Fleet) -> bool {
    fleet.policy.traffic != Traffic::Balancer
        || fleet.balancers.values().all(|balancer| {
            let seen = balancer.observed.as_ref();
            seen.is_some_and(|seen| seen.servers.values().any(|server| *server == ServerSeen::In))
        })
}

/// What the person who asked wrote.
fn said(operation: &Operation) -> Option<&str> {
    let reason = operation.reason.trim();
    (operation.by != AUTOMATIC && !reason.is_empty()).then_some(reason)
}

/// The same where nobody wrote anything.
fn sentence(request: &Request) -> &'static str {
    match request {
        Request::Start { install: true, .. } => "The system is being set up",
        Request::Start { install: false, .. } => "The system is starting",
        Request::Stop => "The system is stopped for maintenance",
        Request::Upgrade { .. } | Request::Migrate { .. } => "The system is being upgraded",
        Request::Packages { .. } => "The system is being extended",
        Request::Restore { .. } => "The system is being restored",
        Request::Backup { .. } => "The system is being backed up",
        Request::Restart { .. } | Request::Heal | Request::Remove { .. } => "The system is being restarted",
        Request::Plugin { change: PluginChange::Enable | PluginChange::Disable, .. } => {
            "The system is being changed"
        }
        Request::Hold { mode: HoldMode::Solo | HoldMode::AllStopped, .. }
        | Request::RemoveBackup { .. }
        | Request::Prepare { .. }
        | Request::Verify
        | Request::AcceptDatabase => "The system is under maintenance",
    }
}

/// What the steps from here until the first node is there for users are expected to take, by the median of earlier times.
///
/// Nothing is said rather than something wrong: while a person is needed, when a long step was never seen in this fleet,
/// and when the time that was expected is used up.
fn remaining(state: &State, fleet: &Fleet, operation: &Operation) -> Option<Millis> {
    if operation.status != Status::Running || is_there(fleet, operation) {
        return None;
    }
    let mut ahead = operation.clone();
    let mut left = 0_u64;
    for (at, step) in (operation.cursor..).zip(operation.plan.iter().skip(position(operation))) {
        let took = expected(fleet, step);
        if took.is_none() && is_long(step) {
            return None;
        }
        let spent = if at == operation.cursor { state.now.since(operation.entered) } else { Millis(0) };
        left = left.saturating_add(took.unwrap_or_default().0.saturating_sub(spent.0));
        ahead.cursor = at.saturating_add(1);
        if is_there(fleet, &ahead) {
            return (left > 0).then_some(Millis(left));
        }
    }
    None
}

fn position(operation: &Operation) -> usize {
    usize::try_from(operation.cursor).unwrap_or(usize::MAX)
}

/// Whether a step may take long enough that an estimate without it is worth nothing.
fn is_long(step: &Step) -> bool {
    match step {
        Step::Task { .. }
        | Step::Released
        | Step::Serving { bring: Bring::Plain | Bring::Single | Bring::Migrate, .. }
        | Step::Approved
        | Step::HolderGone => true,
        Step::Reachable { .. }
        | Step::Checked { .. }
        | Step::Empty { .. }
        | Step::Drained { .. }
        | Step::Quiet { .. }
        | Step::Stopped { .. }
        | Step::Granted
        | Step::Converted { .. }
        | Step::Proved { .. }
        | Step::InService => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assignment::{AppState, Observed};
    use crate::command::{Command, Entry, FEATURE_LEVEL, Registration, Role, Submission};
    use crate::ids::{BootId, FleetId, Incarnation, MachineId, NodeId, OperationId, Version};
    use crate::operation::{Blocked, StepRecord};
    use crate::policy::Policy;
    use crate::state::{DatabaseRecord, Lock};
    use crate::time::Time;

    /// A fleet of two nodes that serve and a load balancer, and its log.
    struct Log {
        state: State,
        index: u64,
    }

    fn id() -> FleetId {
        FleetId::new("main").unwrap()
    }

    fn name(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    impl Log {
        fn new() -> Self {
            let mut log = Self { state: State::default(), index: 0 };
            let policy = Policy { traffic: Traffic::Balancer, ..Policy::default() };
            let agents = [("a", Role::App), ("b", Role::App), ("lb", Role::Balancer)];
            for (run, (agent, role)) in (1..).zip(agents) {
                let registration = Registration {
                    incarnation: Incarnation(run),
                    lineage: vec![Incarnation(run)],
                    fresh: true,
                    machine: MachineId(agent.into()),
                    boot: BootId("boot".into()),
                    address: String::new(),
                    role,
                };
                let policy = policy.clone();
                let (fleet, node) = (id(), name(agent));
                log.push(Command::Register { fleet, node, registration, policy, rival: false });
            }
            log
        }

        fn push(&mut self, command: Command) {
            self.index += 1;
            let time = Time(self.index * 1000);
            let entry = Entry { time, wall_ms: 0, feature_level: FEATURE_LEVEL, command };
            crate::apply::apply(&mut self.state, self.index, &entry).reply.unwrap();
        }

        fn submit(&mut self, request: Request, by: &str, reason: &str) {
            let operation = OperationId::new(format!("op-{}", self.index)).unwrap();
            let submission = Submission {
                by: by.into(),
                reason: reason.into(),
                wait: None,
                machine: MachineId::default(),
            };
            self.push(Command::Submit { fleet: id(), operation, request, submission });
        }

        fn fleet(&mut self) -> &mut Fleet {
            self.state.fleets.get_mut(&id()).unwrap()
        }

        fn current(&mut self) -> &mut Operation {
            self.fleet().current_mut().unwrap()
        }

        fn notice(&self) -> Option<Notice> {
            notice(&self.state, &self.state.fleets[&id()])
        }

        /// The lock is free, and both nodes should run.
        fn rest(&mut self) {
            let fleet = self.fleet();
            (fleet.lock, fleet.active, fleet.desired) = (Lock::Free, true, Desired::Run);
            fleet.queue.clear();
            fleet.operations.clear();
            fleet.database =
                Some(DatabaseRecord { identity: "1".into(), version: Some(Version("2.2.15".into())) });
            fleet.nodes.values_mut().for_each(|node| node.admitted = true);
        }

        fn upgrade(&mut self, reason: &str) {
            let request = Request::Upgrade { to: Version("2.3.0".into()), on: None, approve: false };
            self.submit(request, "ann", reason);
        }

        /// The current operation comes to its first step of a kind.
        fn at(&mut self, kind: &str) {
            let now = self.state.now;
            let operation = self.current();
            let at = operation.plan.iter().position(|step| step.kind() == kind).unwrap();
            (operation.cursor, operation.entered) = (u32::try_from(at).unwrap(), now);
        }

        /// An earlier operation, whose steps of these kinds took so many seconds.
        fn remembers(&mut self, took: &[(&str, u64)]) {
            let mut earlier = self.current().clone();
            earlier.id = OperationId::new("earlier").unwrap();
            earlier.records = Vec::new();
            for (kind, secs) in took {
                let ended = Time(secs * 1000);
                let (step, kind, found) = (String::new(), (*kind).to_owned(), Default::default());
                let record = StepRecord { step, kind, began: Time(0), ended, done: true, attempts: 1, found };
                earlier.records.push(record);
            }
            self.fleet().operations.insert(0, earlier);
        }
    }

    fn words(notice: Option<Notice>) -> String {
        notice.map(|notice| notice.reason).unwrap_or_default()
    }

    #[test]
    fn a_fleet_that_should_be_stopped_says_so() {
        let mut log = Log::new();
        assert_eq!(words(log.notice()), "The system is not in use yet");
        log.rest();
        assert_eq!(log.notice(), None);
        log.submit(Request::Stop, "ann", "");
        assert_eq!(words(log.notice()), "The system is stopped for maintenance");
        log.rest();
        log.submit(Request::Stop, "ann", " We move to another building. ");
        (log.fleet().lock, log.fleet().desired) = (Lock::Free, Desired::Stop);
        let moved = Notice { reason: "We move to another building.".into(), remaining: None };
        assert_eq!(log.notice(), Some(moved), "also when the stop has ended");
    }

    #[test]
    fn a_start_is_told_until_a_node_is_there() {
        let mut log = Log::new();
        log.rest();
        log.submit(Request::Start { install: false, nodes: None }, AUTOMATIC, "nodes are not running");
        assert_eq!(
            words(log.notice()),
            "The system is starting",
            "what Soloist says to itself is not for users"
        );
        let operation = log.current();
        operation.cursor = u32::try_from(operation.plan.len()).unwrap();
        assert_eq!(log.notice(), None);
    }

    #[test]
    fn what_stops_nothing_is_not_told() {
        let mut log = Log::new();
        log.rest();
        log.submit(Request::Prepare { to: Version("2.3.0".into()) }, "ann", "before the weekend");
        assert!(log.fleet().current().is_some());
        assert_eq!(log.notice(), None);
    }

    #[test]
    fn an_upgrade_is_told_until_users_have_a_node() {
        let mut log = Log::new();
        log.rest();
        log.upgrade("");
        assert_eq!(words(log.notice()), "The system is being upgraded");
        log.current().reason = "New reports".into();
        assert_eq!(words(log.notice()), "New reports");
        let operation = log.current();
        (operation.down, operation.up) = (Some(Time(1)), Some(Time(2)));
        assert!(log.notice().is_some(), "no load balancer gives it to users yet");
        let seen = |server| Observed {
            app: AppState::Stopped,
            servers: [(name("a"), server), (name("b"), ServerSeen::Draining)].into(),
            ..Observed::default()
        };
        log.fleet().balancers.get_mut(&name("lb")).unwrap().observed = Some(seen(ServerSeen::Draining));
        assert!(log.notice().is_some());
        log.fleet().balancers.get_mut(&name("lb")).unwrap().observed = Some(seen(ServerSeen::In));
        assert_eq!(log.notice(), None);
    }

    #[test]
    fn what_remains_is_counted_until_the_first_node_is_there() {
        let mut log = Log::new();
        log.rest();
        log.upgrade("");
        let took =
            [("stop", 5), ("backup", 60), ("release", 10), ("migrate", 40), ("verify", 3), ("start", 900)];
        log.remembers(&took[..3]);
        assert_eq!(log.notice().unwrap().remaining, None, "nobody knows how long upgrading takes");
        log.remembers(&took);
        // The other nodes start after the first one serves: nobody waits for them.
        assert_eq!(log.notice().unwrap().remaining, Some(Millis::from_secs(118)));
        log.at("backup");
        log.state.now = log.state.now + Millis::from_secs(20);
        assert_eq!(log.notice().unwrap().remaining, Some(Millis::from_secs(93)));
        log.state.now = log.state.now + Millis::from_secs(60);
        assert_eq!(
            log.notice().unwrap().remaining,
            Some(Millis::from_secs(53)),
            "a late step costs what follows"
        );
        log.at("verify");
        assert_eq!(log.notice().unwrap().remaining, Some(Millis::from_secs(3)));
        log.state.now = log.state.now + Millis::from_secs(3);
        assert_eq!(log.notice().unwrap().remaining, None, "the time is used up");
    }

    #[test]
    fn nobody_knows_when_a_person_comes() {
        let mut log = Log::new();
        log.rest();
        log.upgrade("");
        log.remembers(&[("backup", 60), ("release", 10), ("migrate", 40), ("verify", 3)]);
        assert!(log.notice().unwrap().remaining.is_some());
        log.current().status = Status::Blocked(Blocked::Overdue);
        assert_eq!(log.notice().unwrap().remaining, None);
    }
}
