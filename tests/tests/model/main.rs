//! The model check: grant, evidence, lease, fence and lost contact, within the bounds that are stated in docs/model-check.md.
//!
//! The states hold the real core state, and the agents decide by the real `accept`, `reconcile` and `observe`; hosts, apps, clients
//! and the network are abstract.

mod canon;
mod configs;
mod host;
mod people;
mod steps;
mod truth;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use soloist_core::operation::{Blocked, Status};
use soloist_core::rule::Rule;
use stateright::report::{ReportData, ReportDiscovery, Reporter};
use stateright::{Checker, HasDiscoveries, Model, Property};

use steps::{Step, Steps, possible};
use world::{Client, Config, World, Wrong};

/// A configuration with the rule that is switched off in it.
struct Checked {
    config: Config,
    broken: Option<Rule>,
    /// Whether a broken promise was found: the first one is at the end of the shortest way.
    found: AtomicBool,
}

impl Checked {
    fn new(config: Config, broken: Option<Rule>) -> Self {
        Self { config, broken, found: AtomicBool::new(false) }
    }

    /// Whether this promise is kept. Only the first broken one counts.
    fn holds(&self, world: &World, wrong: Wrong) -> bool {
        world.wrong != Some(wrong) || self.found.swap(true, Ordering::Relaxed)
    }

    fn with<R>(&self, work: impl FnOnce() -> R) -> R {
        // A rule is switched off in a thread, and the checker has threads of its own.
        match self.broken {
            Some(rule) => rule.broken(work),
            None => work(),
        }
    }
}

impl Model for Checked {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![configs::initial(&self.config)]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Step>) {
        actions.extend(self.with(|| possible(&self.config, state)));
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        self.with(|| Steps { config: &self.config, world: last.clone() }.take(step))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let always: [fn(&Checked, &World) -> bool; 11] = [
            |model, world| model.holds(world, Wrong::Solo),
            |model, world| model.holds(world, Wrong::Twice),
            |model, world| model.holds(world, Wrong::Migrate),
            |model, world| model.holds(world, Wrong::First),
            |model, world| model.holds(world, Wrong::Token),
            |model, world| model.holds(world, Wrong::Foreign),
            |model, world| model.holds(world, Wrong::Lease),
            |model, world| model.holds(world, Wrong::Freed),
            |model, world| model.holds(world, Wrong::Attempt),
            |model, world| model.holds(world, Wrong::Successor),
            |model, world| model.holds(world, Wrong::Invariant),
        ];
        let names = Wrong::ALL.iter().map(|(_, name)| *name);
        let mut properties: Vec<_> =
            names.zip(always).map(|(name, holds)| Property::<Checked>::always(name, holds)).collect();
        if self.broken.is_none() {
            properties.extend(self.config.reached.iter().map(|reached| reached.property()));
        }
        properties
    }
}

/// What must be possible, so that a model in which nothing happens is noticed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reached {
    Succeeds,
    BothSucceed,
    Aborted,
    Unreachable,
    Breached,
    HolderLost,
    Sought,
    Fenced,
    FencedGrant,
    Installed,
}

impl Reached {
    fn property(self) -> Property<Checked> {
        fn blocked(world: &World, is: fn(&Blocked) -> bool) -> bool {
            let current = world.fleet().and_then(|fleet| fleet.current());
            current
                .is_some_and(|operation| matches!(&operation.status, Status::Blocked(blocked) if is(blocked)))
        }
        fn granted(world: &World, out: fn(&soloist_core::state::Node) -> bool) -> bool {
            world.fleet().is_some_and(|fleet| {
                fleet.current().is_some_and(|operation| operation.exclusive())
                    && fleet.nodes.values().any(out)
            })
        }
        match self {
            Reached::Succeeds => {
                Property::<Checked>::sometimes("an operation succeeds", |_, world: &World| {
                    world.clients.contains(&Client::Ended(true))
                })
            }
            Reached::BothSucceed => Property::<Checked>::sometimes("both operations succeed", |_, world| {
                world.clients.iter().all(|client| *client == Client::Ended(true))
            }),
            Reached::Aborted => {
                Property::<Checked>::sometimes("an operation is ended early", |_, world: &World| {
                    world.clients.contains(&Client::Ended(false))
                })
            }
            Reached::Unreachable => Property::<Checked>::sometimes("lost contact blocks", |_, world| {
                blocked(world, |blocked| matches!(blocked, Blocked::Unreachable(_)))
            }),
            Reached::Breached => Property::<Checked>::sometimes("a foreign process blocks", |_, world| {
                blocked(world, |blocked| matches!(blocked, Blocked::Breach(..)))
            }),
            Reached::HolderLost => Property::<Checked>::sometimes("a lost holder blocks", |_, world| {
                blocked(world, |blocked| *blocked == Blocked::HolderLost)
            }),
            Reached::Sought => Property::<Checked>::sometimes("a lost holder is looked for", |_, world| {
                let current = world.fleet().and_then(|fleet| fleet.current());
                current.is_some_and(|operation| operation.sought.is_some())
            }),
            Reached::Fenced => Property::<Checked>::sometimes("a fence holds", |_, world| {
                let fleet = world.fleet();
                fleet.is_some_and(|fleet| {
                    fleet.nodes.values().any(|node| node.fences.values().any(|fence| fence.holds))
                })
            }),
            Reached::FencedGrant => {
                Property::<Checked>::sometimes("a grant relies on a fence", |_, world| {
                    granted(world, |node| node.stop_evidence.is_none() && !node.fences.is_empty())
                })
            }
            Reached::Installed => Property::<Checked>::sometimes("a database is installed", |_, world| {
                world.database == world::Database::Installed
            }),
        }
    }
}

/// Most states that a configuration of the standard tests may have.
const STATES_MAX: usize = 100_000;
/// Most states of the large configuration.
const LARGE_MAX: usize = 20_000_000;

/// Tells how far an exploration of minutes or hours is.
struct Progress;

impl Reporter<Checked> for Progress {
    #[expect(clippy::print_stdout, reason = "whoever waits wants to see it")]
    fn report_checking(&mut self, data: ReportData) {
        let ReportData { total_states, unique_states, max_depth, duration, .. } = data;
        println!(
            "{unique_states} states, {total_states} transitions, depth {max_depth}, {} s",
            duration.as_secs()
        );
    }

    fn report_discoveries(
        &mut self,
        _model: &Checked,
        _discoveries: BTreeMap<&'static str, ReportDiscovery<Checked>>,
    ) {
    }

    fn delay(&self) -> Duration {
        Duration::from_secs(10)
    }
}

#[expect(clippy::print_stdout, reason = "the size of what was explored belongs into the document")]
fn explore(config: Config, most: usize) {
    let began = Instant::now();
    let (name, nodes) = (config.name, config.nodes);
    let wanted = config.reached.len();
    let checker = Checked::new(config, None)
        .checker()
        .target_state_count(most.saturating_mul(8))
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs();
    let checker = if most == LARGE_MAX { checker.join_and_report(&mut Progress) } else { checker.join() };
    let states = checker.unique_state_count();
    println!(
        "{name}: {nodes} nodes, {states} states, {} transitions, depth {}, {} s",
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs()
    );
    for (property, path) in checker.discoveries() {
        if Wrong::ALL.iter().any(|(_, name)| *name == property) {
            let steps = path.into_actions();
            panic!("{name}: \"{property}\" is broken after {} steps: {steps:#?}", steps.len());
        }
    }
    let reached: Vec<&str> = checker.discoveries().keys().copied().collect();
    assert_eq!(reached.len(), wanted, "{name}: only this was reached: {reached:?}");
    assert!(states <= most, "{name}: {states} states are more than {most}");
    assert!(checker.state_count() < most.saturating_mul(8), "{name}: the exploration is not complete");
}

/// Explores with the rule switched off until a promise is broken.
#[expect(clippy::print_stdout, reason = "the way to the broken promise, for whoever wants to see it")]
fn is_noticed(rule: Rule, config: Config, expected: &[Wrong]) {
    let checker = Checked::new(config, Some(rule))
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let names: Vec<&str> =
        Wrong::ALL.iter().filter(|(wrong, _)| expected.contains(wrong)).map(|(_, name)| *name).collect();
    let found = checker.discoveries().into_iter().min_by_key(|(_, path)| path.clone().into_actions().len());
    let Some((name, path)) = found else {
        panic!("{} states keep every promise although {rule:?} is switched off", checker.unique_state_count())
    };
    let steps = path.into_actions();
    println!(
        "{rule:?}: \"{name}\" is broken after {} steps, {} states",
        steps.len(),
        checker.unique_state_count()
    );
    if std::env::var_os("MODEL_TRACE").is_some() {
        println!("{steps:#?}");
    }
    assert!(names.contains(&name), "{rule:?} is noticed for another reason: {name}");
}

#[test]
fn grants_beside_a_crash() {
    explore(configs::crash(), STATES_MAX);
}

#[test]
fn grants_beside_a_late_report() {
    explore(configs::report(), STATES_MAX);
}

#[test]
fn grants_beside_a_late_assignment() {
    explore(configs::assignment(), STATES_MAX);
}

#[test]
fn an_agent_that_starts_anew() {
    explore(configs::restart(), STATES_MAX);
}

#[test]
fn a_foreign_process() {
    explore(configs::foreign(), STATES_MAX);
}

#[test]
fn a_holder_that_dies() {
    explore(configs::lease(), STATES_MAX);
}

#[test]
fn a_lock_that_is_taken_away() {
    explore(configs::taken(), STATES_MAX);
}

#[test]
fn a_holder_whose_machine_is_gone() {
    explore(configs::gone(), STATES_MAX);
}

#[test]
fn a_copied_ledger() {
    explore(configs::successor(), STATES_MAX);
}

#[test]
fn an_agent_without_its_ledger() {
    explore(configs::ledger(), STATES_MAX);
}

#[test]
fn another_attempt() {
    explore(configs::retry(), STATES_MAX);
}

#[test]
fn an_abort() {
    explore(configs::abort(), STATES_MAX);
}

#[test]
fn a_fence_that_does_not_cover() {
    explore(configs::covers(), STATES_MAX);
}

#[test]
fn a_first_start() {
    explore(configs::install(), STATES_MAX);
}

#[test]
fn a_start() {
    explore(configs::start(), STATES_MAX);
}

#[test]
fn two_leader_changes() {
    explore(configs::leaders(), STATES_MAX);
}

#[test]
fn three_nodes() {
    explore(configs::three(), STATES_MAX);
}

/// With the name of a larger configuration in MODEL_LARGE, that one instead.
#[test]
fn two_operations() {
    match std::env::var("MODEL_LARGE").as_deref() {
        Err(_) => explore(configs::two(), STATES_MAX),
        Ok("fence") => explore(configs::fence(), LARGE_MAX),
        Ok("machine") => explore(configs::machine(), LARGE_MAX),
        Ok("large") => explore(configs::large(), LARGE_MAX),
        Ok(other) => panic!("MODEL_LARGE is fence, machine or large, not {other:?}"),
    }
}

#[test]
fn without_crash_is_no_evidence() {
    is_noticed(Rule::CrashIsNoEvidence, configs::crash(), &[Wrong::Solo]);
}

#[test]
fn without_generations_rise() {
    is_noticed(Rule::GenerationsRise, configs::assignment(), &[Wrong::Solo]);
}

#[test]
fn without_abort_keeps_lock() {
    is_noticed(Rule::AbortKeepsLock, configs::abort(), &[Wrong::Solo, Wrong::Freed]);
}

#[test]
fn without_promote_extends() {
    is_noticed(Rule::PromoteExtends, configs::lease(), &[Wrong::Lease]);
}

#[test]
fn without_end_is_proven() {
    is_noticed(Rule::EndIsProven, configs::taken(), &[Wrong::Freed, Wrong::Solo]);
}

#[test]
fn without_end_is_awaited() {
    is_noticed(Rule::EndIsAwaited, configs::taken(), &[Wrong::Freed]);
}

#[test]
fn without_foreign_blocks() {
    is_noticed(Rule::ForeignBlocks, configs::foreign(), &[Wrong::Foreign]);
}

#[test]
fn without_fence_is_proven() {
    is_noticed(Rule::FenceIsProven, configs::fence(), &[Wrong::Solo]);
}

#[test]
fn without_fenced_until_stopped() {
    is_noticed(Rule::FencedUntilStopped, configs::fence(), &[Wrong::Solo]);
}

#[test]
fn without_fence_covers() {
    is_noticed(Rule::FenceCovers, configs::covers(), &[Wrong::Solo]);
}

#[test]
fn without_one_migrate() {
    is_noticed(Rule::OneMigrate, configs::install(), &[Wrong::Migrate, Wrong::Invariant]);
}

#[test]
fn without_migrate_needs_intent() {
    is_noticed(Rule::MigrateNeedsIntent, configs::start(), &[Wrong::Migrate, Wrong::Invariant]);
}

#[test]
fn without_first_serves() {
    is_noticed(Rule::FirstServes, configs::start(), &[Wrong::First]);
}
