//! Records as they are written, sent, kept and exported: JSON with a hash over everything else in them, and over the hash of
//! the record before.
//!
//! The hash is the SHA-256 of the record's JSON without its hash, with the keys of every object in order and no space between.
//! So it does not matter who formats a file anew, and a field that a later version adds is covered too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use soloist_core::evidence::{Case, Proof, Record, breaks, prove};
use soloist_core::ids::NodeId;

/// Longest record that is taken, in bytes: with the most foreign processes and the most names it stays below this.
pub const RECORD_MAX: usize = 32 * 1024;
/// Version of the exported file.
pub const FORMAT: u32 = 1;

/// A text is no record, or not the one that its hash says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It is not JSON, or says something else.
    #[error("it is not a record: {0}")]
    Malformed(String),
    /// It was changed.
    #[error("record {seq} was changed: its hash is not that of its content")]
    Changed {
        /// Its place in the chain.
        seq: u64,
    },
}

/// JSON with the keys of every object in order and no space between.
#[must_use]
pub fn canonical(value: &Value) -> String {
    let text = |text: &str| Value::from(text).to_string();
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            let fields = sorted.into_iter().map(|(key, value)| format!("{}:{}", text(key), canonical(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

/// The hash of a record without regard to the one that it may have.
fn digest(value: &Value) -> String {
    let mut bare = value.clone();
    if let Some(map) = bare.as_object_mut() {
        map.remove("hash");
    }
    hex(canonical(&bare).as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Gives a record its hash, and writes it.
///
/// # Errors
/// If it cannot be written as JSON.
pub fn seal(record: &mut Record) -> Result<String, RecordError> {
    let broken = |error: serde_json::Error| RecordError::Malformed(error.to_string());
    record.hash = digest(&serde_json::to_value(&*record).map_err(broken)?);
    Ok(canonical(&serde_json::to_value(&*record).map_err(broken)?))
}

/// Reads a record, and sees whether its hash is right.
///
/// # Errors
/// If it is not.
pub fn open(text: &str) -> Result<Record, RecordError> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| RecordError::Malformed(error.to_string()))?;
    open_value(&value)
}

/// Whose record it is, and its place, if its hash is right: also of one that says something which this version does not know.
///
/// # Errors
/// If its hash is not right.
pub fn place(text: &str) -> Result<Place, RecordError> {
    let malformed = |error: serde_json::Error| RecordError::Malformed(error.to_string());
    let value: Value = serde_json::from_str(text).map_err(malformed)?;
    let place = Place::deserialize(&value).map_err(malformed)?;
    if digest(&value) == place.hash { Ok(place) } else { Err(RecordError::Changed { seq: place.seq }) }
}

/// A record's place.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// The chain.
    pub chain: u64,
    /// Its number in that.
    pub seq: u64,
    hash: String,
}

fn open_value(value: &Value) -> Result<Record, RecordError> {
    let record: Record =
        Record::deserialize(value).map_err(|error| RecordError::Malformed(error.to_string()))?;
    if digest(value) == record.hash { Ok(record) } else { Err(RecordError::Changed { seq: record.seq }) }
}

/// The records of one node in an exported file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chain {
    /// The hash of the last of them, which names them all.
    pub head: String,
    /// The records, as they were written.
    pub records: Vec<Value>,
}

/// An exported file: everything that the proof of one operation rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Export {
    /// Version of the file.
    pub format: u32,
    /// What the coordinators know of the operation.
    pub case: Value,
    /// What each agent recorded.
    pub chains: BTreeMap<NodeId, Chain>,
    /// The hash over the case and the heads of the chains.
    pub seal: String,
}

/// What a file turns out to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The operation.
    pub case: Case,
    /// What was changed or is missing; empty for a file that is as it was exported.
    pub tampered: Vec<String>,
    /// What follows from the records that are right.
    pub proof: Proof,
}

impl Export {
    /// Puts a file together.
    #[must_use]
    pub fn new(case: Value, records: BTreeMap<NodeId, Vec<Value>>) -> Export {
        let chain = |records: Vec<Value>| {
            let last = records.last().and_then(|last| last.get("hash")).and_then(Value::as_str);
            Chain { head: last.unwrap_or_default().to_owned(), records }
        };
        let chains = records.into_iter().map(|(node, records)| (node, chain(records))).collect();
        let mut export = Export { format: FORMAT, case, chains, seal: String::new() };
        export.seal = export.digest();
        export
    }

    fn digest(&self) -> String {
        let heads =
            self.chains.iter().map(|(node, chain)| (node.to_string(), Value::from(chain.head.clone())));
        let whole = serde_json::json!({
            "format": self.format, "case": self.case, "heads": Value::Object(heads.collect()),
        });
        hex(canonical(&whole).as_bytes())
    }

    /// Recomputes everything: hashes, links, and from the raw records the proof. Nothing that the file says of itself is believed.
    ///
    /// # Errors
    /// If it is no such file.
    pub fn check(&self) -> Result<Checked, RecordError> {
        let case =
            Case::deserialize(&self.case).map_err(|error| RecordError::Malformed(error.to_string()))?;
        let mut tampered = Vec::new();
        if self.format != FORMAT {
            return Err(RecordError::Malformed(format!("its format {} is not known", self.format)));
        }
        if self.seal != self.digest() {
            tampered
                .push("the operation, or the head of a chain, was changed: the seal does not fit".to_owned());
        }
        let mut chains = BTreeMap::new();
        for (node, chain) in &self.chains {
            let mut records = Vec::new();
            for value in &chain.records {
                match open_value(value) {
                    Ok(record) if record.node == *node => records.push(record),
                    Ok(record) => {
                        tampered.push(format!("{node}: record {} is of {}", record.seq, record.node))
                    }
                    Err(error) => tampered.push(format!("{node}: {error}")),
                }
            }
            for at in breaks(&records) {
                let seq = |at: usize| records.get(at).map_or(0, |record| record.seq);
                let (before, after) = (seq(at.saturating_sub(1)), seq(at));
                tampered.push(format!(
                    "{node}: record {after} does not follow record {before}: one is missing, or was put in"
                ));
            }
            if records.last().is_some_and(|last| last.hash != chain.head) {
                tampered.push(format!("{node}: the chain does not end with the record that its head names"));
            }
            chains.insert(node.clone(), records);
        }
        let proof = prove(&case, &chains);
        Ok(Checked { case, tampered, proof })
    }
}
