//! The only way to change the state.

mod acceptable;
mod decide;
mod fence;
pub(crate) mod gone;
mod holder;
mod node;
pub(crate) mod operation;
mod policy;
pub(crate) mod sign;
mod timer;

use crate::advance::{Now, advance};
use crate::command::{Command, Entry, FEATURE_LEVEL};
use crate::event::Event;
use crate::evidence;
use crate::ids::{FleetId, Generation, OperationId, Token};
use crate::journal::Journal;
use crate::policy::EVENTS_MAX;
use crate::reject::Rejection;
use crate::restore::{self, resume};
use crate::rule::Rule;
use crate::state::{Fleet, State};
use crate::time::Time;
use serde::{Deserialize, Serialize};

/// The answer to a command that was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done; there is nothing to say.
    #[default]
    Done,
    /// The agent is registered; assignments below this generation are void.
    Registered {
        /// Log index of the registration.
        floor: Generation,
    },
    /// The operation is known.
    Submitted {
        /// Its id.
        operation: OperationId,
    },
    /// The lease runs until then.
    Renewed {
        /// By the state's time.
        until: Time,
        /// How long that is from the moment of the renewal.
        lease: crate::time::Millis,
    },
    /// The lock was taken away; this is the token that fences the old holder off.
    Released {
        /// The new token.
        token: Token,
    },
    /// The policy has this version.
    Policy {
        /// Counted from 1; 0 is what the coordinators' configuration said when the fleet was made.
        version: u64,
    },
    /// The command came late or twice and changed nothing.
    Unchanged,
}

/// What an entry did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The answer for whoever proposed it.
    pub reply: Result<Reply, Rejection>,
    /// What happened, with the fleet concerned.
    pub events: Vec<(FleetId, Event)>,
}

/// Applies the entry at log index `index`. Deterministic: it depends on its arguments only.
pub fn apply(state: &mut State, index: u64, entry: &Entry) -> Outcome {
    state.now = state.now.max(entry.time);
    state.wall_ms = entry.wall_ms;
    let mut now =
        Now { index, time: state.now, wall_ms: entry.wall_ms, promoted: state.promoted, level: state.level };
    let outcome = match &entry.command {
        Command::Promote { .. } => {
            state.promoted = state.now;
            now.promoted = state.now;
            let mut events = Vec::new();
            for (id, fleet) in &mut state.fleets {
                let (_, happened) = on_fleet(id, fleet, now, |fleet, _| {
                    if Rule::PromoteExtends.holds() {
                        holder::promote(fleet, now);
                    }
                    Ok(Reply::Done)
                });
                events.extend(happened);
            }
            Outcome { reply: Ok(Reply::Done), events }
        }
        Command::Heard { nodes } => {
            for (fleet, node) in nodes {
                if let Some(node) = state.fleets.get_mut(fleet).and_then(|fleet| fleet.agent_mut(node)) {
                    node.heard = now.time;
                }
            }
            let mut events = Vec::new();
            let mut seen: Vec<&FleetId> = nodes.iter().map(|(fleet, _)| fleet).collect();
            seen.dedup();
            for id in seen {
                if let Some(fleet) = state.fleets.get_mut(id) {
                    events.extend(on_fleet(id, fleet, now, |_, _| Ok(Reply::Done)).1);
                }
            }
            Outcome { reply: Ok(Reply::Done), events }
        }
        Command::Register { fleet, node, registration, policy, rival } => {
            match node::enrol(state, fleet, policy) {
                Err(rejection) => refused(rejection),
                Ok(()) => in_fleet(state, fleet, now, |id, found, journal| {
                    node::register(id, found, node, registration, *rival, now, journal)
                }),
            }
        }
        Command::Report { fleet, node, incarnation, sequence, observed } => {
            in_fleet(state, fleet, now, |id, found, journal| {
                node::report(id, found, node, *incarnation, *sequence, observed, now, journal)
            })
        }
        Command::Submit { fleet, operation, request, submission } => {
            in_fleet(state, fleet, now, |id, found, journal| {
                operation::submit(id, found, operation, request, submission, now, journal)
            })
        }
        Command::Confirm { fleet, operation } => in_fleet(state, fleet, now, |id, found, journal| {
            operation::confirm(id, found, operation, now, journal)
        }),
        Command::Renew { fleet, operation, token } => in_fleet(state, fleet, now, |id, found, journal| {
            holder::renew(id, found, operation, *token, now, journal)
        }),
        Command::Release { fleet, operation, token, outcome } => {
            in_fleet(state, fleet, now, |id, found, journal| {
                holder::release(id, found, operation, *token, outcome, journal)
            })
        }
        Command::Abort { fleet, operation, by, reason } => {
            in_fleet(state, fleet, now, |id, found, journal| {
                operation::abort(id, found, operation, by, reason, now, journal)
            })
        }
        Command::Retry { fleet, operation, attempt, by } => {
            in_fleet(state, fleet, now, |id, found, journal| {
                operation::retry(id, found, operation, *attempt, by, now, journal)
            })
        }
        Command::Decide { fleet, operation, decision, by, reason } => {
            in_fleet(state, fleet, now, |id, found, journal| {
                decide::decide(id, found, operation, *decision, by, reason, now, journal)
            })
        }
        Command::ForceRelease { fleet, token, by, reason } => {
            in_fleet(state, fleet, now, |id, found, journal| {
                holder::force(id, found, *token, by, reason, now, journal)
            })
        }
        Command::SetPolicy { fleet, policy, seen, by, reason, changes } => {
            in_fleet(state, fleet, now, |id, found, journal| {
                policy::set(id, found, policy, *seen, (by, reason, changes), journal)
            })
        }
        Command::Freeze { fleet, length, by, reason } => in_fleet(state, fleet, now, |_, found, journal| {
            sign::freeze(found, *length, (by, reason), now, journal)
        }),
        Command::Drain { fleet, node, drained, by, reason } => {
            in_fleet(state, fleet, now, |id, found, journal| {
                sign::drain(id, found, node, *drained, (by, reason), journal)
            })
        }
        Command::AssumeStopped { fleet, node, heard, by, reason } => {
            in_fleet(state, fleet, now, |id, found, journal| {
                gone::assume_stopped(id, found, node, *heard, (by, reason), now, journal)
            })
        }
        Command::Fence { fleet, node, covers, heard, by, reason } => {
            in_fleet(state, fleet, now, |id, found, journal| {
                fence::fence(id, found, node, *covers, heard, (by, reason), now, journal)
            })
        }
        Command::Unfence { fleet, node, heard, by } => in_fleet(state, fleet, now, |id, found, journal| {
            fence::unfence(id, found, node, heard, by, now, journal)
        }),
        Command::Resume { fleet, by, reason } => {
            in_fleet(state, fleet, now, |id, found, journal| resume(id, found, by, reason, now, journal))
        }
        Command::Timer { fleet, timer } => {
            in_fleet(state, fleet, now, |_, found, journal| Ok(timer::ring(found, timer, now, journal)))
        }
        Command::Raise { level, .. } => {
            // What does not know the level does not get here: see `Entry::feature_level`.
            let raised = *level > state.level && *level <= FEATURE_LEVEL;
            if raised {
                state.level = *level;
            }
            Outcome { reply: Ok(if raised { Reply::Done } else { Reply::Unchanged }), events: Vec::new() }
        }
    };
    #[cfg(all(debug_assertions, not(feature = "mutations")))]
    check(state, index, entry);
    outcome
}

/// Builds for developers look after every entry at what it can have changed.
#[cfg(all(debug_assertions, not(feature = "mutations")))]
fn check(state: &State, index: u64, entry: &Entry) {
    use crate::invariants::{invariants, invariants_of};
    let checked = match entry.command.fleet() {
        Some(id) => state.fleets.get(id).map_or(Ok(()), |fleet| invariants_of(id, fleet)),
        None => invariants(state),
    };
    if let Err(violation) = checked {
        panic!("after entry {index} ({entry}): {violation}");
    }
}

fn refused(rejection: Rejection) -> Outcome {
    Outcome { reply: Err(rejection), events: Vec::new() }
}

fn in_fleet(
    state: &mut State,
    id: &FleetId,
    now: Now,
    work: impl FnOnce(&FleetId, &mut Fleet, &mut Journal) -> Result<Reply, Rejection>,
) -> Outcome {
    let Some(fleet) = state.fleets.get_mut(id) else {
        return refused(Rejection::UnknownFleet {
            fleet: id.clone(),
            known: state.fleets.keys().cloned().collect(),
        });
    };
    let (reply, events) = on_fleet(id, fleet, now, |fleet, journal| work(id, fleet, journal));
    Outcome { reply, events }
}

fn on_fleet(
    id: &FleetId,
    fleet: &mut Fleet,
    now: Now,
    work: impl FnOnce(&mut Fleet, &mut Journal) -> Result<Reply, Rejection>,
) -> (Result<Reply, Rejection>, Vec<(FleetId, Event)>) {
    let mut journal = Journal::new(now.index, now.time, now.wall_ms);
    let reply = work(fleet, &mut journal);
    fence::settle(fleet, now, &mut journal);
    restore::settle(fleet, &mut journal);
    advance(fleet, now, &mut journal);
    evidence::note(fleet, now);
    let events = journal.into_events();
    for event in &events {
        fleet.events.push_back(event.clone());
    }
    while fleet.events.len() > EVENTS_MAX {
        fleet.events.pop_front();
    }
    (reply, events.into_iter().map(|event| (id.clone(), event)).collect())
}
