//! How values become bytes: MessagePack with named fields, and a checksum around what is stored.
//!
//! Named fields cost some bytes and buy the right to add a field later: a member that is one release behind skips the
//! field, and one that is ahead fills in its default.

use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use soloist_core::command::FIRST_LEVEL;

/// Length of the checksum in front of a sealed value, in bytes.
const CHECKSUM_BYTES: usize = 4;

/// A value could not be turned into bytes, or bytes not into a value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    /// Encoding failed.
    #[error("cannot encode {what}")]
    Encode {
        /// The type's name.
        what: &'static str,
        #[source]
        source: rmp_serde::encode::Error,
    },
    /// Decoding failed.
    #[error("cannot decode {what} from {bytes} bytes")]
    Decode {
        /// The type's name.
        what: &'static str,
        /// How many bytes were given.
        bytes: usize,
        #[source]
        source: rmp_serde::decode::Error,
    },
}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// Encodes a value, for the disk or for another member.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    rmp_serde::to_vec_named(value)
        .map_err(|source| CodecError::Encode { what: std::any::type_name::<T>(), source })
}

/// Decodes what [`encode`] made, in this release or in another one.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    rmp_serde::from_slice(bytes).map_err(|source| CodecError::Decode {
        what: std::any::type_name::<T>(),
        bytes: bytes.len(),
        source,
    })
}

/// The feature level of a log entry that this release cannot read otherwise: a command that it does not know, of a later level.
pub(crate) fn entry_level(bytes: &[u8]) -> Option<u32> {
    decode::<EntryHead>(bytes).ok().map(|head| head.level())
}

/// The highest feature level among the entries of an append that this release cannot read otherwise.
pub(crate) fn append_level(bytes: &[u8]) -> Option<u32> {
    let head = decode::<AppendHead>(bytes).ok()?;
    head.entries.iter().map(EntryHead::level).max()
}

/// The feature level of a state that this release may not be able to read otherwise.
pub(crate) fn state_level(bytes: &[u8]) -> Option<u32> {
    decode::<StateHead>(bytes).ok().map(|head| head.level.unwrap_or(FIRST_LEVEL))
}

#[derive(Deserialize)]
struct AppendHead {
    entries: Vec<EntryHead>,
}

#[derive(Deserialize)]
struct EntryHead {
    payload: PayloadHead,
}

#[derive(Deserialize)]
enum PayloadHead {
    Blank,
    Normal(CommandHead),
    Membership(IgnoredAny),
}

#[derive(Deserialize)]
struct CommandHead {
    feature_level: u32,
}

#[derive(Deserialize)]
struct StateHead {
    level: Option<u32>,
}

impl EntryHead {
    fn level(&self) -> u32 {
        match &self.payload {
            PayloadHead::Normal(command) => command.feature_level,
            PayloadHead::Blank | PayloadHead::Membership(IgnoredAny) => FIRST_LEVEL,
        }
    }
}

/// Puts a checksum in front of a value. It covers the key too, so a value that turns up under another key is noticed.
pub(crate) fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(CHECKSUM_BYTES + value.len());
    sealed.extend_from_slice(&checksum(key, value).to_le_bytes());
    sealed.extend_from_slice(value);
    sealed
}

/// Takes the checksum off again. `None` if it does not fit the key and the value.
pub(crate) fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (found, value) = sealed.split_first_chunk::<CHECKSUM_BYTES>()?;
    (*found == checksum(key, value).to_le_bytes()).then_some(value)
}

/// CRC-32 over the key's length, the key and the value.
pub(crate) fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    // With the length, no key and value can be cut differently and still fit.
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_under_its_own_key_only() {
        let sealed = seal(b"key", b"value");
        assert_eq!(unseal(b"key", &sealed), Some(&b"value"[..]));
        assert_eq!(unseal(b"kez", &sealed), None);
        assert_eq!(unseal(b"ke", &sealed), None);
    }

    #[test]
    fn a_flipped_bit_is_noticed_wherever_it_is() {
        let sealed = seal(b"key", b"value");
        for bit in 0..sealed.len() * 8 {
            let mut torn = sealed.clone();
            torn[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(b"key", &torn), None, "bit {bit}");
        }
        assert_eq!(unseal(b"key", &sealed[..3]), None);
    }

    #[test]
    fn the_level_of_what_cannot_be_read_is_found() {
        // As a later release might write it: a command and fields that nobody knows here.
        #[derive(serde::Serialize)]
        enum Payload {
            Blank,
            Normal(Later),
        }
        #[derive(serde::Serialize)]
        struct Later {
            time: u64,
            feature_level: u32,
            command: std::collections::BTreeMap<String, Vec<u32>>,
        }
        #[derive(serde::Serialize)]
        struct Entry {
            log_id: u32,
            payload: Payload,
        }
        #[derive(serde::Serialize)]
        struct Append {
            vote: u32,
            entries: Vec<Entry>,
        }
        let command = std::collections::BTreeMap::from([("dance".to_owned(), vec![1, 2])]);
        let later =
            Entry { log_id: 7, payload: Payload::Normal(Later { time: 1, feature_level: 9, command }) };
        let bytes = encode(&later).unwrap();
        assert!(decode::<crate::raft::types::LogEntry>(&bytes).is_err());
        assert_eq!(entry_level(&bytes), Some(9));
        let blank = Entry { log_id: 8, payload: Payload::Blank };
        let append = encode(&Append { vote: 1, entries: vec![later, blank] }).unwrap();
        assert_eq!(append_level(&append), Some(9));
        assert_eq!(state_level(&encode(&std::collections::BTreeMap::from([("level", 3)])).unwrap()), Some(3));
        let first = encode(&soloist_core::State::default()).unwrap();
        assert_eq!(state_level(&first), Some(1), "the first release wrote no level");
    }

    #[test]
    fn a_field_may_be_added_and_removed() {
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Old {
            kept: u32,
        }
        #[derive(serde::Serialize, serde::Deserialize)]
        struct New {
            kept: u32,
            #[serde(default)]
            added: u32,
        }
        let old = encode(&Old { kept: 1 }).unwrap();
        let new = encode(&New { kept: 2, added: 3 }).unwrap();
        let read: New = decode(&old).unwrap();
        assert_eq!((read.kept, read.added), (1, 0));
        assert_eq!(decode::<Old>(&new).unwrap().kept, 2);
    }
}
