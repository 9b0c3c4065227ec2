//! Soloist's gRPC interface: the generated code for every file under `soloist/v1`, and what both sides of it share.
//!
//! - [`v1`]: messages, clients and servers.
//! - [`convert`]: the core's types to messages and back. Everything is parsed here, at the edge; nothing behind it sees an
//!   unchecked name or a missing field.
//! - [`evidence`]: agents' records, their hashes, and the file that is exported.
//! - [`errors`]: how a refusal travels as a gRPC error.
//! - [`door`]: how many may be connected to a port.

pub mod convert;
pub mod door;
pub mod errors;
pub mod evidence;

/// The messages, clients and servers of the package `soloist.v1`.
#[allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all)]
pub mod v1 {
    tonic::include_proto!("soloist.v1");
}

/// The version of this interface. It rises only with a change that older programs cannot live with.
pub const WIRE_VERSION: u32 = 1;

/// The encoded descriptor set of all files, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/soloist_v1.bin"));
