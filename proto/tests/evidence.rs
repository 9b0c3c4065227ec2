//! An exported file is as good as its hashes: whatever is changed in it is noticed.

#![allow(clippy::unwrap_used)] // also in the helpers of a test, a panic is the answer

use std::collections::BTreeMap;

use serde_json::Value;
use soloist_core::evidence::{
    Case, Fact, Gather, Grant, Launching, Mark, Moment, Naming, Reading, Record, Run, Sessions, Stood,
    Verdict,
};
use soloist_core::ids::{BootId, FleetId, Generation, Launch, NodeId, OperationId, Token};
use soloist_proto::evidence::{Export, RECORD_MAX, RecordError, canonical, open, seal};

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

/// Writes a chain as an agent does.
struct Book {
    node: NodeId,
    last: String,
    records: Vec<Value>,
}

impl Book {
    fn new(name: &str) -> Book {
        Book { node: node(name), last: String::new(), records: Vec::new() }
    }

    fn add(&mut self, boot_ms: u64, fact: Fact) {
        let mut record = Record {
            node: self.node.clone(),
            chain: 17,
            seq: self.records.len() as u64 + 1,
            prev: self.last.clone(),
            boot: BootId("boot".into()),
            at: Moment { boot_ms, wall_ms: boot_ms },
            fact,
            hash: String::new(),
        };
        let text = seal(&mut record).unwrap();
        assert_eq!(open(&text).unwrap(), record);
        self.last = record.hash;
        self.records.push(serde_json::from_str(&text).unwrap());
    }

    fn runs(&mut self, boot_ms: u64, generation: u64) {
        let (launch, by) = (Launch(u64::MAX - generation), Generation(generation));
        self.add(boot_ms, Fact::Launching(Launching { launch, generation: by, token: Some(Token(35)) }));
        let (launch, generation, token) = (Some(launch), Some(by), Some(Token(35)));
        let run = Run { launch, generation, token, pid: 7, start_ticks: boot_ms / 10, began_ms: boot_ms };
        self.add(boot_ms, Fact::Began(run));
    }

    fn watches(&mut self) {
        let mut gather = Gather::new(OperationId::new("op").unwrap(), Token(35), 50, 1000);
        for at in (10_010..=20_020).step_by(500) {
            gather.look(at, &[]);
            let names = BTreeMap::from([("soloist-node-1".to_owned(), 3)]);
            gather.sample(at, Ok(Sessions { login: "noco".into(), naming: Naming::Application, names }));
        }
        gather.read(Reading { lo_ms: -3, hi_ms: 3 });
        self.add(20_020, Fact::Watched(Box::new(gather.take().unwrap())));
    }
}

fn export() -> Export {
    let mark = |index, wall_ms| Mark { index, wall_ms };
    let stood = [(node("node-1"), Stood::Solo), (node("node-2"), Stood::Stopped(Generation(40)))];
    let grant = Grant {
        granted: mark(50, 10_000),
        until: Some(mark(60, 20_000)),
        nodes: stood.into_iter().collect(),
    };
    let case = Case {
        fleet: FleetId::new("shop").unwrap(),
        operation: OperationId::new("op").unwrap(),
        request: "plugin enable".into(),
        token: Token(35),
        solo: Some(node("node-1")),
        holder: false,
        grants: vec![grant],
    };
    let mut one = Book::new("node-1");
    one.runs(1_000, 20);
    one.watches();
    let mut two = Book::new("node-2");
    two.add(9_000, Fact::Resting { generation: Generation(40) });
    two.watches();
    two.runs(20_500, 60);
    let chains = [(node("node-1"), one.records), (node("node-2"), two.records)];
    Export::new(serde_json::to_value(case).unwrap(), chains.into_iter().collect())
}

/// What a check says is wrong with the file; the file goes through text, as it does in life.
fn tampered(export: &Export) -> Vec<String> {
    let text = serde_json::to_string_pretty(export).unwrap();
    serde_json::from_str::<Export>(&text).unwrap().check().unwrap().tampered
}

fn change(name: &str, with: impl FnOnce(&mut Vec<Value>)) -> Vec<String> {
    let mut export = export();
    with(&mut export.chains.get_mut(&node(name)).unwrap().records);
    tampered(&export)
}

#[test]
fn a_file_as_it_was_exported_is_believed() {
    let export = export();
    let checked = export.check().unwrap();
    assert_eq!((checked.tampered.as_slice(), checked.proof.verdict), ([].as_slice(), Verdict::Proven));
    assert_eq!(tampered(&export), Vec::<String>::new());
}

#[test]
fn whatever_is_changed_is_noticed() {
    // A run that should not be known is taken out, in the middle and at the end.
    let removed = change("node-2", |records| drop(records.remove(2)));
    assert!(removed[0].contains("record 4 does not follow record 2"), "{removed:?}");
    let shortened = change("node-2", |records| drop(records.pop()));
    assert!(shortened[0].contains("does not end with the record that its head names"), "{shortened:?}");
    // It is moved to another time, with and without another place.
    let moved = change("node-2", |records| records[3]["fact"]["began"]["began_ms"] = 30_000.into());
    assert!(moved[0].contains("record 4 was changed"), "{moved:?}");
    let swapped = change("node-2", |records| records.swap(1, 2));
    assert!(swapped[0].contains("does not follow"), "{swapped:?}");
    // Another node's interval is put in, with a hash that is right in itself.
    let mut strange = Book::new("node-2");
    strange.runs(15_000, 41);
    let added = change("node-2", |records| records.insert(2, strange.records[1].clone()));
    assert!(added[0].contains("does not follow record 2"), "{added:?}");
    let foreign = export().chains[&node("node-1")].records[1].clone();
    let taken = change("node-2", |records| records.insert(2, foreign));
    assert!(taken[0].contains("record 2 is of node-1"), "{taken:?}");
    // The chain is written anew from there on: its head is another one, and so is the seal.
    let mut forged = export();
    let mut two = Book::new("node-2");
    two.add(9_000, Fact::Resting { generation: Generation(40) });
    let chain = forged.chains.get_mut(&node("node-2")).unwrap();
    chain.records = two.records;
    chain.head = two.last;
    assert!(tampered(&forged)[0].contains("the seal does not fit"));
    // And what the coordinators said.
    let mut case = export();
    case.case["grants"][0]["until"]["wall_ms"] = 11_000.into();
    assert!(tampered(&case)[0].contains("the seal does not fit"));
}

/// Even where everything but the records themselves is forged, what they say is judged anew.
#[test]
fn the_verdict_is_computed_from_the_records() {
    let mut two = Book::new("node-2");
    two.add(9_000, Fact::Resting { generation: Generation(40) });
    two.runs(15_000, 41);
    two.watches();
    let old = export();
    let chains =
        [(node("node-1"), old.chains[&node("node-1")].records.clone()), (node("node-2"), two.records)];
    let checked = Export::new(old.case, chains.into_iter().collect()).check().unwrap();
    assert!(checked.tampered.is_empty());
    assert_eq!(checked.proof.verdict, Verdict::Broken);
}

#[test]
fn hashes_do_not_depend_on_the_form_and_cover_what_is_not_known() {
    let value: Value =
        serde_json::from_str(r#"{ "b": [1, {"z": null, "a": "\u00e4"}], "a": true }"#).unwrap();
    assert_eq!(canonical(&value), r#"{"a":true,"b":[1,{"a":"ä","z":null}]}"#);
    let record = export().chains[&node("node-1")].records[0].clone();
    assert!(open(&serde_json::to_string_pretty(&record).unwrap()).is_ok());
    let mut more = record;
    more["added_later"] = 1.into();
    assert_eq!(open(&more.to_string()), Err(RecordError::Changed { seq: 1 }));
    assert!(matches!(open("[]"), Err(RecordError::Malformed(_))));
}

#[test]
fn the_largest_record_is_taken() {
    let foreign =
        |pid| soloist_core::assignment::Foreign { pid, owner: "o".repeat(32), command: "ä".repeat(120) };
    let foreign: Vec<_> = (0..100).map(foreign).collect();
    let names = (0..100).map(|at| (format!("{at:ä<70}"), 1)).collect();
    let mut gather = Gather::new(OperationId::new("o".repeat(63)).unwrap(), Token(u64::MAX), u64::MAX, 1000);
    gather.look(u64::MAX - 1, &foreign);
    gather.sample(u64::MAX - 1, Ok(Sessions { login: "l".repeat(63), naming: Naming::Login, names }));
    let mut book = Book::new(&"n".repeat(63));
    book.add(1, Fact::Watched(Box::new(gather.take().unwrap())));
    assert!(book.records[0].to_string().len() < RECORD_MAX, "{}", book.records[0].to_string().len());
}
