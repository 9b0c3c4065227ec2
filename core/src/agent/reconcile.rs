//! From what is wanted and what is seen to what to do, and to what to report.
//!
//! | wanted \ seen | gone | ended by itself | launching | running | stopping |
//! |---|---|---|---|---|---|
//! | nothing in this boot | – | – | – | leave alone | – |
//! | `Stop` | acknowledge | acknowledge | stop | stop | wait |
//! | `Plain`, `Single` | launch, if allowed | launch again after a pause | wait | leave alone | wait |
//! | `Migrate(r)` | launch, if r is not spent | report | wait | leave alone | wait |

use std::collections::BTreeMap;

use crate::agent::hand::{Hand, hand};
use crate::agent::ledger::Ledger;
use crate::agent::seen::{AppSeen, Facts, Health, Seen};
use crate::agent::several;
use crate::assignment::{AppState, Assignment, Needs, Observed, Proof, Run, RunMode, Spec, Task, TaskPhase};
use crate::ids::{Generation, Version};
use crate::rule::Rule;

/// One thing to do. The ledger is written first where that is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Stop the app: take the ticket away (ledger first), then stop the whole process tree and prove it empty.
    Stop {
        /// Whether it may be killed after its grace: not while it migrates, unless a person says so.
        may_kill: bool,
    },
    /// Launch the app: write the ticket, and a used right as spent (ledger first), then start a keeper.
    Launch {
        /// How it is to run.
        mode: RunMode,
        /// The generation to note with it.
        generation: Generation,
    },
    /// Look whether the task could be done.
    Check(Task),
    /// Run the task: note it as begun (ledger first).
    RunTask(Task),
    /// Find out how a task ended that was begun by an earlier run of the agent.
    RecoverTask(Task),
    /// Try to prove what is loaded.
    Prove(Proof),
}

/// The assignment that counts: accepted in this boot. After a reboot the agent asks first.
pub(super) fn current<'a>(ledger: &'a Ledger, seen: &Seen) -> Option<&'a Assignment> {
    ledger.assignment.as_ref().filter(|_| ledger.boot == seen.boot)
}

/// What to do now, in order. Idempotent: what is under way or done is not asked for again.
pub fn reconcile(ledger: &Ledger, seen: &Seen) -> Vec<Action> {
    let assignment = current(ledger, seen);
    let spec = assignment.map(|assignment| &assignment.spec);
    let mut actions = Vec::new();
    let said = spec.and_then(|spec| spec.run.mode());
    match (hand(seen), said) {
        (Some(Hand::Stop), _) => actions.extend(stop(ledger, seen)),
        (Some(Hand::Start), None) => {
            if !seen.registered {
                actions.extend(launch(ledger, seen, RunMode::Plain, None));
            }
        }
        (_, Some(mode)) => actions.extend(launch(ledger, seen, mode, spec)),
        // Nothing in this boot: what runs is left alone.
        (None, None) if assignment.is_none() => {}
        (None, None) => actions.extend(stop(ledger, seen)),
    }
    let Some(spec) = spec else { return actions };
    if let Some(task) = &spec.task {
        actions.extend(for_task(ledger, seen, task));
    }
    if let Some(proof) = &spec.proof
        && seen.proved.as_ref() != Some(proof)
        && seen.serving()
        && launched_since(seen, proof.since)
    {
        actions.push(Action::Prove(proof.clone()));
    }
    actions
}

fn stop(ledger: &Ledger, seen: &Seen) -> Option<Action> {
    let may_run = !seen.gone() || ledger.launch.is_some();
    let migrates = matches!(&ledger.launch, Some(ticket) if matches!(ticket.mode, RunMode::Migrate(_)));
    let stop = Action::Stop { may_kill: !migrates || !is_starting(seen) };
    (may_run && seen.app != AppSeen::Stopping).then_some(stop)
}

/// Launches the app, unless it runs or something speaks against it.
fn launch(ledger: &Ledger, seen: &Seen, mode: RunMode, spec: Option<&Spec>) -> Option<Action> {
    let ended = matches!(seen.app, AppSeen::Ended(_));
    let blocked = match (mode, ended) {
        (RunMode::Plain | RunMode::Single, true) => !seen.may_restart,
        (RunMode::Plain | RunMode::Single, false) => false,
        (RunMode::Migrate(right), _) => ledger.is_spent(right),
    };
    // What a task changes that needs a stopped app, nothing is started on.
    let changing = seen.busy.as_ref().is_some_and(|task| task.needs == Needs::Stopped);
    let target = spec.and_then(|spec| spec.target.as_ref());
    let may = seen.gone() && !blocked && !changing && seen.facts.is_some();
    let generation = ledger.assignment.as_ref().map_or(Generation(0), |assignment| assignment.generation);
    (may && refusal(seen, mode, target).is_none()).then_some(Action::Launch { mode, generation })
}

fn is_starting(seen: &Seen) -> bool {
    matches!(seen.app, AppSeen::Launching | AppSeen::Running { health: Health::Starting, .. })
}

fn launched_since(seen: &Seen, since: Option<Generation>) -> bool {
    let AppSeen::Running { launched, .. } = &seen.app else { return false };
    since.is_none_or(|since| launched.is_some_and(|launched| launched >= since))
}

fn for_task(ledger: &Ledger, seen: &Seen, task: &Task) -> Option<Action> {
    if seen.busy.is_some() {
        return None;
    }
    match task.phase {
        TaskPhase::Check => {
            let done = seen.checked.as_ref().is_some_and(|checked| checked.key == task.key);
            let ready = seen.serving() || task.needs != Needs::Serving;
            (!done && ready).then(|| Action::Check(task.clone()))
        }
        TaskPhase::Run => match &ledger.task {
            Some(record) if record.key == task.key => {
                record.result.is_none().then(|| Action::RecoverTask(task.clone()))
            }
            Some(_) | None => ready(ledger, seen, task).then(|| Action::RunTask(task.clone())),
        },
    }
}

fn ready(ledger: &Ledger, seen: &Seen, task: &Task) -> bool {
    let stops = ledger.assignment.as_ref().is_some_and(|assignment| assignment.spec.run == Run::Stop);
    match task.needs {
        // In an app that has failed it fails too: it must come to an end.
        Needs::Serving => seen.serving() || seen.failed(),
        // A keeper that still has a ticket could yet execute the app.
        Needs::Stopped => stops && seen.gone() && ledger.launch.is_none(),
        Needs::Nothing => true,
    }
}

/// Why the app must not be started in this mode, for people; read from facts, so none while they are not known.
fn refusal(seen: &Seen, mode: RunMode, target: Option<&Version>) -> Option<String> {
    if let Some(by) = seen.by_hand.as_ref().filter(|by| by.hand == Hand::Stop) {
        return Some(by.text.clone());
    }
    if let Some(found) = seen.foreign.first() {
        return Some(format!(
            "process {} of {} runs the app and was not started by Soloist ({}); stop it",
            found.pid, found.owner, found.command
        ));
    }
    let facts = seen.facts.as_ref()?;
    if let Some(problem) = &facts.problem {
        return Some(problem.clone());
    }
    let Some(database) = &facts.database else {
        return Some("the database does not answer".to_owned());
    };
    match mode {
        RunMode::Plain | RunMode::Single => plain_refusal(facts, database.empty, database.version.as_ref()),
        RunMode::Migrate(_) if target.is_some() => upgrade_refusal(facts, database.version.as_ref(), target?),
        RunMode::Migrate(_) if !database.empty => {
            let version = database.version.as_ref().map_or("unknown".to_owned(), ToString::to_string);
            Some(format!("the database is not empty (version {version}), so there is nothing to install"))
        }
        RunMode::Migrate(_) => None,
    }
}

fn upgrade_refusal(facts: &Facts, version: Option<&Version>, target: &Version) -> Option<String> {
    match (&facts.code, version) {
        (_, None) => Some("the database holds no installed app, so there is nothing to upgrade".to_owned()),
        (Some(code), Some(_)) if code == target => None,
        (Some(code), Some(_)) => {
            Some(format!("the code has version {code}, and the database is to be upgraded to {target}"))
        }
        (None, Some(_)) => Some("the version of the code cannot be read".to_owned()),
    }
}

fn plain_refusal(facts: &Facts, empty: bool, version: Option<&Version>) -> Option<String> {
    if !Rule::PlainNeedsSameVersion.holds() {
        return None;
    }
    if empty {
        return Some(
            "the database is empty, and a plain start installs nothing: check DB_HOST and DB_DATABASE, or install with \
             soloist start --install"
                .to_owned(),
        );
    }
    if facts.upgrading {
        return Some(
            "the marker storage/.upgrading says that migrations are due: this start would run them; do it in order with \
             soloist migrate, or remove the file if nothing is to be upgraded"
                .to_owned(),
        );
    }
    match (&facts.code, version) {
        (Some(code), Some(version)) if code == version => None,
        (Some(code), Some(version)) => Some(format!(
            "the code has version {code}, the database {version}: bring the code to {version}, or upgrade the fleet"
        )),
        (None, _) => Some("the version of the code cannot be read".to_owned()),
        (_, None) => {
            Some("the database holds tables but no version: it was not installed completely".to_owned())
        }
    }
}

/// What to report.
pub fn observe(ledger: &Ledger, seen: &Seen) -> Observed {
    let assignment = current(ledger, seen);
    let run = assignment.map_or(Run::Stop, |assignment| assignment.spec.run);
    let target = assignment.and_then(|assignment| assignment.spec.target.as_ref());
    let launched = match &seen.app {
        AppSeen::Running { launched, .. } => *launched,
        AppSeen::Gone | AppSeen::Ended(_) | AppSeen::Launching | AppSeen::Stopping => None,
    };
    let facts = seen.facts.as_ref();
    Observed {
        applied: assignment.map_or(Generation(0), |assignment| assignment.generation),
        boot: seen.boot.clone(),
        app: app(ledger, seen, run, target, assignment.is_some()),
        launched,
        processes: several::processes(ledger, seen),
        code: facts.and_then(|facts| facts.code.clone()),
        database: facts.and_then(|facts| facts.database.clone()),
        foreign: seen.foreign.clone(),
        sessions: facts.map(|facts| facts.sessions.clone()).unwrap_or_default(),
        holders: seen.holders.clone(),
        output: output(ledger, seen, assignment),
        task: task(ledger, seen, assignment),
        proved: seen.proved.clone(),
        unproved: seen.unproved.clone(),
        away: seen.away,
        under_way: seen
            .under_way
            .clone()
            .filter(|_| assignment.is_some_and(|assignment| assignment.spec.quiet)),
        cut: ledger.cut.clone(),
        servers: BTreeMap::new(),
        unsteered: seen.let_in.clone(),
        by_hand: seen.by_hand.as_ref().map(|by| by.text.clone()),
        fences: seen.fences.offers.clone(),
        fenced: seen.fences.seen.clone(),
        stale: if seen.serving() { several::stale(ledger, seen, run) } else { Vec::new() },
    }
}

fn app(ledger: &Ledger, seen: &Seen, run: Run, target: Option<&Version>, assigned: bool) -> AppState {
    match (&seen.app, run) {
        (AppSeen::Stopping, _) => AppState::Stopping,
        (AppSeen::Launching, _) => AppState::Starting,
        (AppSeen::Running { health, .. }, _) => match health {
            Health::Starting => AppState::Starting,
            Health::Serving => AppState::Serving,
            Health::Failed(why) => AppState::Failed(why.clone()),
        },
        // The ticket is still out: a keeper may yet use it.
        (AppSeen::Gone | AppSeen::Ended(_), Run::Stop) if assigned && ledger.launch.is_some() => {
            AppState::Stopping
        }
        (AppSeen::Gone | AppSeen::Ended(_), Run::Stop) => AppState::Stopped,
        (AppSeen::Gone, Run::Plain | Run::Single) => {
            refusal(seen, RunMode::Plain, None).map_or(AppState::Stopped, AppState::Refused)
        }
        (AppSeen::Gone, Run::Migrate(right)) if ledger.is_spent(right) => {
            AppState::Crashed("the right to install was used, and nothing runs".to_owned())
        }
        (AppSeen::Gone, Run::Migrate(right)) => {
            refusal(seen, RunMode::Migrate(right), target).map_or(AppState::Stopped, AppState::Refused)
        }
        (AppSeen::Ended(how), Run::Plain | Run::Single | Run::Migrate(_)) => AppState::Crashed(how.clone()),
    }
}

fn task(
    ledger: &Ledger,
    seen: &Seen,
    assignment: Option<&Assignment>,
) -> Option<(crate::assignment::TaskKey, TaskPhase, crate::assignment::TaskResult)> {
    let asked = assignment?.spec.task.as_ref()?;
    match asked.phase {
        TaskPhase::Check => {
            let checked = seen.checked.as_ref().filter(|checked| checked.key == asked.key)?;
            Some((checked.key.clone(), TaskPhase::Check, checked.result.clone()))
        }
        TaskPhase::Run => {
            let record = ledger.task.as_ref().filter(|record| record.key == asked.key)?;
            Some((record.key.clone(), TaskPhase::Run, record.result.clone()?))
        }
    }
}

fn output(ledger: &Ledger, seen: &Seen, assignment: Option<&Assignment>) -> BTreeMap<String, String> {
    let Some(asked) = assignment.and_then(|assignment| assignment.spec.task.as_ref()) else {
        return BTreeMap::new();
    };
    let output = match asked.phase {
        TaskPhase::Check => {
            seen.checked.as_ref().filter(|checked| checked.key == asked.key).map(|checked| &checked.output)
        }
        TaskPhase::Run => {
            ledger.task.as_ref().filter(|record| record.key == asked.key).map(|record| &record.output)
        }
    };
    output.cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assignment::TaskKey;
    use crate::ids::{BootId, OperationId};

    #[test]
    fn a_task_inside_an_app_begins_when_that_serves_or_has_failed() {
        let operation = OperationId::new("op").expect("a plain name");
        let task = Task {
            key: TaskKey { operation, step: 1, attempt: 2 },
            phase: TaskPhase::Run,
            needs: Needs::Serving,
            name: "plugin-enable".into(),
            params: BTreeMap::new(),
            checks: Vec::new(),
        };
        let spec = Spec { run: Run::Plain, task: Some(task.clone()), ..Spec::default() };
        let assignment = Assignment { generation: Generation(7), token: None, spec };
        let boot = BootId::default();
        let ledger = Ledger { assignment: Some(assignment), boot: boot.clone(), ..Ledger::default() };
        let begins = |health: Health| {
            let app = AppSeen::Running { launched: Some(Generation(3)), health };
            let seen = Seen { boot: boot.clone(), app, ..Seen::default() };
            reconcile(&ledger, &seen) == [Action::RunTask(task.clone())]
        };
        assert!(!begins(Health::Starting));
        assert!(begins(Health::Serving));
        assert!(begins(Health::Failed("a plugin cannot be loaded".into())), "nothing else would ever end it");
    }
}
