//! Whether a history of a lock could have come from one lock that does one thing at a time.
//!
//! The search is that of Wing and Gong with Lowe's memory of what was tried: take one call after another, each not before a call
//! that had returned when it began, and see whether a lock would have answered so. A call whose outcome nobody knows may have taken
//! effect at any time after it began, or never.
//!
//! | call | a lock answers so if |
//! |---|---|
//! | take, token t | it is free, and t is higher than every token before; then it is held with t |
//! | give back t | it is held with t; then it is free |
//! | use t | it is held with t |
//! | use t, refused | it is not held with t |
//! | take away t | it is held with t; then it is free |

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

/// So many states are looked at, at most. A history of a working lock needs little more than one for each call.
const STATES_MAX: usize = 2_000_000;

/// What a client asks of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// To have it.
    Take,
    /// To give it back.
    GiveBack,
    /// To know that it still has it.
    Use,
    /// That whoever has it does not have it any more.
    TakeAway,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It took effect.
    Ok,
    /// It was refused, and changed nothing.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// One call of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Whose.
    pub client: String,
    /// What.
    pub ask: Ask,
    /// The token in question.
    pub token: u64,
    /// When it began, in microseconds of one clock.
    pub from_us: u64,
    /// When it ended; one whose outcome is unknown has no end.
    pub to_us: u64,
    /// How.
    pub end: End,
}

/// What the search found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// One lock could have answered so.
    Linearizable,
    /// No lock could have; up to where one could, and what cannot follow.
    Impossible {
        /// How many calls can be put in order at most.
        placed: usize,
        /// The calls of which none can be the next.
        stuck: Vec<Call>,
    },
    /// The search was given up.
    Undecided,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Lock {
    held: Option<u64>,
    last: u64,
}

impl Lock {
    /// The lock after a call, if it could answer so.
    fn after(self, call: &Call) -> Option<Lock> {
        let holds = self.held == Some(call.token);
        match (call.ask, call.end) {
            (Ask::Use, End::Refused) => (!holds).then_some(self),
            // A refusal of the others says nothing about the lock: there are many reasons for one.
            (_, End::Refused) => Some(self),
            (Ask::Take, _) => (self.held.is_none() && call.token > self.last)
                .then_some(Lock { held: Some(call.token), last: call.token }),
            (Ask::Use, _) => holds.then_some(self),
            (Ask::GiveBack | Ask::TakeAway, _) => holds.then_some(Lock { held: None, ..self }),
        }
    }
}

impl Lock {
    /// Whether a call of unknown outcome can have no effect any more, so that it does not matter.
    fn is_past(self, call: &Call) -> bool {
        let held = self.held == Some(call.token) && call.ask != Ask::Take;
        call.end == End::Unknown && call.token <= self.last && !held
    }
}

/// One way that is looked at: the first call that is not placed, those after it that are, and the lock.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Way {
    first: usize,
    ahead: Vec<usize>,
    lock: Lock,
}

impl Way {
    fn placed(&self, at: usize) -> bool {
        at < self.first || self.ahead.binary_search(&at).is_ok()
    }

    fn with(&self, at: usize, lock: Lock, calls: &[Call]) -> Way {
        let mut next = Way { lock, ..self.clone() };
        let place = next.ahead.binary_search(&at).unwrap_or_else(|place| place);
        next.ahead.insert(place, at);
        loop {
            if next.ahead.first() == Some(&next.first) {
                next.ahead.remove(0);
            } else if !calls.get(next.first).is_some_and(|call| lock.is_past(call)) {
                return next;
            }
            next.first += 1;
        }
    }

    /// The calls that can come next: whatever began after the earliest end among those that are left cannot.
    fn next(&self, calls: &[Call]) -> Vec<usize> {
        let (mut next, mut earliest) = (Vec::new(), u64::MAX);
        for (at, call) in calls.iter().enumerate().skip(self.first).filter(|(at, _)| !self.placed(*at)) {
            if call.from_us > earliest {
                break;
            }
            earliest = earliest.min(if call.end == End::Unknown { u64::MAX } else { call.to_us });
            next.push(at);
        }
        next
    }
}

/// Looks for an order of the calls in which one lock would have answered as it did.
#[must_use]
pub fn check(calls: &[Call]) -> Finding {
    let mut calls: Vec<Call> = calls.to_vec();
    calls.sort_by_key(|call| (call.from_us, call.to_us));
    let mut seen = HashSet::new();
    let mut ways = vec![Way { first: 0, ahead: Vec::new(), lock: Lock::default() }];
    let (mut best, mut stuck) = (0, Vec::new());
    while let Some(way) = ways.pop() {
        let next = way.next(&calls);
        // Only those of which nobody knows whether they ever took effect.
        if next.iter().all(|at| calls[*at].end == End::Unknown) {
            return Finding::Linearizable;
        }
        if seen.len() >= STATES_MAX {
            return Finding::Undecided;
        }
        let count = way.first + way.ahead.len();
        if count >= best {
            best = count;
            stuck = next.iter().map(|at| calls[*at].clone()).collect();
        }
        for at in next.into_iter().rev() {
            let Some(lock) = way.lock.after(&calls[at]) else { continue };
            let next = way.with(at, lock, &calls);
            if seen.insert(next.clone()) {
                ways.push(next);
            }
        }
    }
    Finding::Impossible { placed: best, stuck }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls by hand: client, ask, token, from, to, end.
    fn calls(list: &[(&str, Ask, u64, u64, u64, End)]) -> Vec<Call> {
        let call = |(client, ask, token, from, to, end): &(&str, Ask, u64, u64, u64, End)| Call {
            client: (*client).to_owned(),
            ask: *ask,
            token: *token,
            from_us: *from,
            to_us: *to,
            end: *end,
        };
        list.iter().map(call).collect()
    }

    fn good(list: &[(&str, Ask, u64, u64, u64, End)]) -> bool {
        check(&calls(list)) == Finding::Linearizable
    }

    use Ask::{GiveBack, Take, TakeAway, Use};
    use End::{Ok, Refused, Unknown};

    #[test]
    fn what_one_lock_would_do_is_good() {
        assert!(good(&[]));
        assert!(good(&[("a", Take, 1, 0, 1, Ok), ("a", GiveBack, 1, 2, 3, Ok), ("b", Take, 5, 2, 9, Ok)]));
        // The second was asked for first, and waited.
        assert!(good(&[("b", Take, 7, 0, 20, Ok), ("a", Take, 3, 1, 2, Ok), ("a", GiveBack, 3, 10, 12, Ok)]));
        assert!(good(&[
            ("a", Take, 1, 0, 1, Ok),
            ("a", Use, 1, 2, 3, Ok),
            ("p", TakeAway, 1, 4, 5, Ok),
            ("a", Use, 1, 6, 7, Refused),
            ("a", GiveBack, 1, 6, 7, Refused),
            ("b", Take, 2, 6, 8, Ok),
        ]));
    }

    #[test]
    fn an_unknown_outcome_may_be_either() {
        // It took effect late, or never.
        assert!(good(&[
            ("a", Take, 1, 0, 1, Ok),
            ("a", GiveBack, 1, 2, 3, Unknown),
            ("b", Take, 4, 8, 9, Ok)
        ]));
        assert!(good(&[
            ("a", Take, 1, 0, 1, Ok),
            ("a", GiveBack, 1, 2, 3, Unknown),
            ("a", Use, 1, 8, 9, Ok)
        ]));
        assert!(good(&[("a", Take, 1, 0, 1, Unknown), ("b", Take, 2, 2, 3, Ok)]));
        assert!(good(&[("a", Take, 1, 0, 1, Unknown), ("a", Use, 1, 5, 6, Ok)]));
        // But not both.
        let both = [
            ("a", Take, 1, 0, 1, Ok),
            ("a", GiveBack, 1, 2, 3, Unknown),
            ("b", Take, 4, 8, 9, Ok),
            ("a", Use, 1, 10, 11, Ok),
        ];
        assert!(!good(&both));
    }

    #[test]
    fn planted_violations_are_found() {
        let twice = [("a", Take, 1, 0, 1, Ok), ("b", Take, 2, 2, 3, Ok)];
        assert!(!good(&twice), "granted twice");
        let stale = [
            ("a", Take, 1, 0, 1, Ok),
            ("p", TakeAway, 1, 2, 3, Ok),
            ("b", Take, 4, 4, 5, Ok),
            ("a", Use, 1, 6, 7, Ok),
        ];
        assert!(!good(&stale), "a stale token is accepted");
        let back = [("a", Take, 9, 0, 1, Ok), ("a", GiveBack, 9, 2, 3, Ok), ("b", Take, 4, 4, 5, Ok)];
        assert!(!good(&back), "a token goes back");
        let same = [("a", Take, 9, 0, 1, Ok), ("a", GiveBack, 9, 2, 3, Ok), ("b", Take, 9, 4, 5, Ok)];
        assert!(!good(&same), "a token is given twice");
        let lost = [("a", Take, 1, 0, 1, Ok), ("a", GiveBack, 1, 2, 3, Ok), ("a", Use, 1, 4, 5, Ok)];
        assert!(!good(&lost), "what was given back is still held");
        let gone = [("a", Take, 1, 0, 1, Ok), ("a", Use, 1, 4, 5, Refused)];
        assert!(!good(&gone), "a holder lost its lock without anybody taking it");
    }

    #[test]
    fn a_long_history_is_decided_and_one_wrong_answer_in_it_is_found() {
        // Ten clients that always wait for the lock at the same time, in an order of which the history says little.
        let mut list = Vec::new();
        for round in 0..400_u64 {
            let at = round * 100;
            list.push(("w", Take, round * 3 + 1, at.saturating_sub(900), at + 10, Ok));
            list.push(("w", Use, round * 3 + 1, at + 20, at + 30, Ok));
            let end = if round % 7 == 0 { Unknown } else { Ok };
            list.push(("w", GiveBack, round * 3 + 1, at + 40, at + 60, end));
        }
        assert!(good(&list));
        list.push(("x", Use, 301, 30_000, 30_001, Ok));
        let Finding::Impossible { placed, stuck } = check(&calls(&list)) else { panic!("it is not seen") };
        assert!(placed > 0 && stuck.iter().any(|call| call.client == "x"), "{stuck:?}");
    }
}
