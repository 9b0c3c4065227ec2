//! Whatever bytes come in, they are read or refused: nothing panics, what is read keeps to its limits and survives the way
//! back to the wire, and what is too much is refused by name and limit.

#![allow(clippy::unwrap_used)] // also in the helpers of a test, a panic is the answer

mod hell;
mod samples;

use std::{fmt::Debug, fs, path::Path};

use prost::Message;
use soloist_core::{
    assignment::{Assignment, Observed},
    check::CHECKS_MAX,
    command::{Decision, Registration, Submission},
    ids::{BadName, FleetId},
    notice::Notice,
    operation::Request,
    policy::{NODES_MAX, Policy},
    preflight::{Finding, NodeFacts},
    view::FleetView,
};
use soloist_proto::{
    convert::{FieldError, Greeting, LIST_MAX, REPORT_TEXT_MAX, WORD_MAX},
    errors::Problem,
    v1,
};
use tonic::{Code, Status};

/// What a value of the core may have in bytes, seen from the bytes on the wire: a byte becomes an entry of a list at the worst.
const GROWTH_MAX: usize = 512;

/// The bytes of this version, and of messages inside them.
fn seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/v1");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut seeds: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(seeds.len() > 5);
    seeds.push(v1::Observed::from(samples::observed()).encode_to_vec());
    seeds.push(v1::Assignment::from(samples::assignment()).encode_to_vec());
    seeds.push(v1::Policy::from(samples::policy()).encode_to_vec());
    seeds.push(v1::FleetView::from(samples::fleet_view()).encode_to_vec());
    seeds.push(v1::NodeFacts::from(samples::node_facts()).encode_to_vec());
    seeds.push(v1::Hello::from(samples::greeting()).encode_to_vec());
    seeds.push(v1::Submission::from(samples::submission()).encode_to_vec());
    seeds.push(v1::Notice::from(samples::notice()).encode_to_vec());
    seeds.extend(samples::decisions().into_iter().map(|one| v1::Decision::from(one).encode_to_vec()));
    seeds.extend(samples::planned().into_iter().map(|one| v1::PlannedStep::from(one).encode_to_vec()));
    seeds.extend(samples::findings().into_iter().map(|one| v1::Finding::from(one).encode_to_vec()));
    seeds.extend(samples::requests().into_iter().map(|request| v1::Request::from(request).encode_to_vec()));
    seeds
}

/// Reads bytes as a message, and that as a value; if both can be done, the value survives another way over the wire.
fn survives<T, M>(bytes: &[u8])
where
    T: Clone + PartialEq + Debug + TryFrom<M, Error = FieldError>,
    M: Message + Default + From<T>,
{
    let Ok(message) = M::decode(bytes) else { return };
    let value = match T::try_from(message) {
        Ok(value) => value,
        Err(error) => {
            assert!(!error.field.is_empty() && !error.problem.is_empty(), "{error:?}");
            assert!(error.problem.chars().count() < 3000, "an error of {} bytes", error.problem.len());
            return;
        }
    };
    let again = M::from(value.clone()).encode_to_vec();
    assert!(again.len() <= GROWTH_MAX * (bytes.len() + 1), "{} bytes became {}", bytes.len(), again.len());
    assert_eq!(T::try_from(M::decode(again.as_slice()).unwrap()).unwrap(), value);
}

#[test]
fn whatever_comes_in_is_read_or_refused() {
    hell::harm_all(&seeds(), |bytes| {
        survives::<Assignment, v1::Assignment>(bytes);
        survives::<Observed, v1::Observed>(bytes);
        survives::<Greeting, v1::Hello>(bytes);
        survives::<Registration, v1::Registration>(bytes);
        survives::<Request, v1::Request>(bytes);
        survives::<Submission, v1::Submission>(bytes);
        survives::<Policy, v1::Policy>(bytes);
        survives::<Decision, v1::Decision>(bytes);
        survives::<NodeFacts, v1::NodeFacts>(bytes);
        survives::<Finding, v1::Finding>(bytes);
        survives::<FleetView, v1::FleetView>(bytes);
        if let Ok(notice) = v1::Notice::decode(bytes) {
            assert_eq!(Notice::from(v1::Notice::from(Notice::from(notice.clone()))), Notice::from(notice));
        }
    });
}

#[test]
fn whole_messages_are_read_or_refused() {
    hell::harm_all(&seeds(), |bytes| {
        use v1::{agent_message::Message as FromAgent, coordinator_message::Message as ToAgent};
        match v1::AgentMessage::decode(bytes).ok().and_then(|message| message.message) {
            Some(FromAgent::Hello(hello)) => drop(Greeting::try_from(hello)),
            Some(FromAgent::Report(report)) => drop(report.observed.map(Observed::try_from)),
            Some(FromAgent::Beat(beat)) => {
                drop(beat.facts.and_then(|news| news.facts).map(NodeFacts::try_from));
            }
            Some(FromAgent::Evidence(evidence)) => {
                evidence.records.iter().for_each(|record| drop(soloist_proto::evidence::open(record)));
            }
            None => {}
        }
        if let Ok(v1::CoordinatorMessage { message: Some(ToAgent::Assignment(assignment)) }) =
            v1::CoordinatorMessage::decode(bytes)
        {
            let _ = Assignment::try_from(assignment);
        }
        if let Ok(submit) = v1::SubmitRequest::decode(bytes) {
            let _: Result<FleetId, BadName> = FleetId::new(submit.fleet);
            let _ = submit.request.map(Request::try_from);
        }
        // Details of an error come from servers, which may be anything that listens on that port.
        let status =
            Status::with_details(Code::Unknown, String::from_utf8_lossy(bytes), bytes.to_vec().into());
        let _ = Problem::from(&status);
    });
}

/// The field and the problem of what is refused.
fn refused<T, M>(message: M) -> String
where
    T: TryFrom<M, Error = FieldError> + Debug,
{
    T::try_from(message).unwrap_err().to_string()
}

#[test]
fn a_report_of_a_million_foreign_processes_is_refused() {
    let report = || v1::Observed::from(samples::observed());
    let many = |count| vec![v1::Foreign { pid: 1, owner: "root".into(), command: "node".into() }; count];
    let said = refused::<Observed, _>(v1::Observed { foreign: many(1_000_000), ..report() });
    assert_eq!(said, format!("field foreign: has 1000000 entries, and {LIST_MAX} are the most"));
    Observed::try_from(v1::Observed { foreign: many(LIST_MAX), ..report() }).unwrap();

    let said = refused::<Observed, _>(v1::Observed { holders: vec![1; 100_000], ..report() });
    assert!(said.starts_with("field holders: has 100000 entries"), "{said}");
    let server = v1::ServerSeen { node: "a".into(), kind: v1::server_seen::Kind::In.into(), cut: 0 };
    let said = refused::<Observed, _>(v1::Observed { servers: vec![server; 1000], ..report() });
    assert!(said.starts_with("field servers: has 1000 entries"), "{said}");
    let said = refused::<Observed, _>(v1::Observed { boot: "b".repeat(WORD_MAX + 1), ..report() });
    assert!(said.contains("257 bytes, and 256 are the most"), "{said}");
}

#[test]
fn text_for_people_is_cut() {
    let long = || "ä".repeat(10 << 20);
    let app = v1::AppState { kind: v1::app_state::Kind::Failed.into(), detail: long() };
    let report = v1::Observed {
        app: Some(app),
        unsteered: Some(long()),
        by_hand: Some(long()),
        stale: vec![long(); 20],
        foreign: vec![v1::Foreign { pid: 1, owner: long(), command: long() }],
        ..v1::Observed::from(samples::observed())
    };
    let observed = Observed::try_from(report).unwrap();
    assert_eq!(observed.unsteered.as_ref().unwrap().chars().count(), REPORT_TEXT_MAX);
    assert!(v1::Observed::from(observed).encoded_len() < 32 * 1024);
}

#[test]
fn a_hello_with_a_huge_lineage_is_refused() {
    let hello = || v1::Hello::from(samples::greeting());
    let mut long = hello();
    long.registration.as_mut().unwrap().lineage = vec![1; 1_000_000];
    let said = refused::<Greeting, _>(long);
    assert!(said.starts_with("field registration.lineage: has 1000000 entries"), "{said}");
    for field in ["machine", "boot", "address"] {
        let mut long = hello();
        let registration = long.registration.as_mut().unwrap();
        let place = match field {
            "machine" => &mut registration.machine,
            "boot" => &mut registration.boot,
            _ => &mut registration.address,
        };
        *place = "x".repeat(1 << 20);
        let said = refused::<Greeting, _>(long);
        assert_eq!(
            said,
            format!("field registration.{field}: has 1048576 bytes, and {WORD_MAX} are the most")
        );
    }
    // What is refused is quoted, and not as a whole.
    let said = refused::<Greeting, _>(v1::Hello { fleet: "X".repeat(1 << 20), ..hello() });
    assert!(said.len() < 400, "{} bytes", said.len());
}

#[test]
fn requests_and_policies_name_their_limits() {
    let policy = || v1::Policy::from(samples::policy());
    let check = policy().checks.swap_remove(0);
    let said = refused::<Policy, _>(v1::Policy { checks: vec![check; 100_000], ..policy() });
    assert_eq!(said, format!("field checks: has 100000 entries, and {CHECKS_MAX} are the most"));
    let said = refused::<Policy, _>(v1::Policy { order: vec!["a".into(); 1000], ..policy() });
    assert_eq!(said, format!("field order: has 1000 entries, and {NODES_MAX} are the most"));
    let nodes = Some(v1::NodeList { nodes: vec!["a".into(); 100_000] });
    let restart = v1::request::Request::Restart(v1::Restart { nodes });
    let said = refused::<Request, _>(v1::Request { request: Some(restart) });
    assert_eq!(said, format!("field restart.nodes: has 100000 entries, and {NODES_MAX} are the most"));
    let submission = v1::Submission { machine: "m".repeat(1000), ..v1::Submission::default() };
    assert!(refused::<Submission, _>(submission).starts_with("field machine: has 1000 bytes"));
}
