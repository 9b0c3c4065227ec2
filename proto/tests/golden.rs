//! Messages have the bytes that they had: an older agent must understand a newer coordinator, and the other way round.
//!
//! After a change that is meant and compatible (a new field in the samples), write the files again with
//! `SOLOIST_WRITE_GOLDEN=1 cargo test -p soloist-proto --test golden`, and look at the difference.

#![allow(clippy::unwrap_used)] // also in the helpers of a test, a panic is the answer

mod samples;

use std::{env, fs, path::Path};

use prost::Message;
use soloist_proto::v1::{self, AgentMessage, CoordinatorMessage};

fn check(name: &str, message: &(impl Message + Default + PartialEq)) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/v1").join(format!("{name}.bin"));
    let bytes = message.encode_to_vec();
    if env::var_os("SOLOIST_WRITE_GOLDEN").is_some() {
        fs::write(&path, &bytes).unwrap();
    }
    let golden = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(bytes, golden, "{name} has other bytes than before");
    fn decode<M: Message + Default>(_: &M, bytes: &[u8]) -> M {
        M::decode(bytes).unwrap()
    }
    assert!(decode(message, &golden) == *message, "{name} says something else than before");
}

#[test]
fn hello() {
    check("hello", &AgentMessage::from(samples::greeting()));
}

#[test]
fn report() {
    check("report", &AgentMessage::report(12, samples::observed()));
}

#[test]
fn assignment() {
    check("assignment", &CoordinatorMessage::from(samples::assignment()));
}

#[test]
fn contact() {
    let contact = v1::Contact {
        member: 2,
        has_leader: true,
        leader_generation: Some(41),
        leader_address: Some("10.0.0.2:7401".into()),
        facts_wanted: 3,
        notice: Some(samples::notice().into()),
        coordinators: Vec::new(),
        witness: Some(v1::Witness { operation: "op-1".into(), token: 40, grant: 44 }),
    };
    check("contact", &CoordinatorMessage::from(v1::coordinator_message::Message::Contact(contact)));
}

#[test]
fn submit() {
    check(
        "submit",
        &v1::SubmitRequest {
            fleet: "shop".into(),
            operation: "op-1".into(),
            request: Some(samples::requests().swap_remove(4).into()),
            submission: Some(samples::submission().into()),
            skip_preflight: true,
        },
    );
}

#[test]
fn status() {
    let freshness = v1::Freshness {
        stale: true,
        reason: "no leader is known".into(),
        member: 1,
        leader: Some(2),
        applied: 44,
        last_contact_ms: Some(1500),
    };
    let view = Some(samples::fleet_view().into());
    check("status", &v1::StatusReply { view, freshness: Some(freshness) });
}

#[test]
fn policy() {
    check(
        "policy",
        &v1::SetPolicyRequest {
            fleet: "shop".into(),
            policy: Some(samples::policy().into()),
            seen: 3,
            by: "root@host".into(),
            reason: "slower".into(),
            changes: vec!["start_timeout: 10 min -> 20 min".into()],
        },
    );
}

#[test]
fn decide() {
    check(
        "decide",
        &v1::DecideRequest {
            fleet: "shop".into(),
            operation: "op-1".into(),
            decision: Some(samples::decisions().swap_remove(2).into()),
            by: "root@host".into(),
            reason: "it fails".into(),
        },
    );
}

#[test]
fn plan() {
    let steps = samples::planned().into_iter().map(Into::into).collect();
    check("plan", &v1::PlanReply { steps, freshness: None });
}

#[test]
fn facts() {
    let facts = v1::FactsNews {
        facts: Some(samples::node_facts().into()),
        answers: 41,
        age_ms: 7,
        wall_ms: 1_700_000_000_000,
    };
    let beat = v1::Beat {
        progress: "load plugin 9/77".into(),
        inventory: None,
        facts: Some(facts),
        ping_ms: Some(7000),
    };
    check("facts", &AgentMessage::from(beat));
}

#[test]
fn preflight() {
    let told = v1::ToldFacts {
        facts: Some(samples::node_facts().into()),
        age_ms: 7,
        sent_wall_ms: 1_700_000_000_000,
        heard_wall_ms: 1_700_000_000_001,
        answers: 41,
    };
    let reply = v1::PreflightReply {
        findings: samples::findings().into_iter().map(Into::into).collect(),
        checks: vec!["clock".into()],
        nodes: vec![v1::NodePreflight { node: "a".into(), told: Some(told) }],
        freshness: None,
    };
    check("preflight", &reply);
}
