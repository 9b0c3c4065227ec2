//! Every message that is parsed at the edge: the first byte says which, the rest is the message.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use prost::Message;
use soloist_core::{
    assignment::{Assignment, Observed},
    command::{Decision, Submission},
    operation::Request,
    policy::Policy,
    preflight::{Finding, NodeFacts},
    view::FleetView,
};
use soloist_proto::{
    convert::{FieldError, Greeting},
    v1,
};

fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 10 {
        0 => survives::<Assignment, v1::Assignment>(bytes),
        1 => survives::<Observed, v1::Observed>(bytes),
        2 => survives::<Greeting, v1::Hello>(bytes),
        3 => survives::<Request, v1::Request>(bytes),
        4 => survives::<Submission, v1::Submission>(bytes),
        5 => survives::<Policy, v1::Policy>(bytes),
        6 => survives::<Decision, v1::Decision>(bytes),
        7 => survives::<NodeFacts, v1::NodeFacts>(bytes),
        8 => survives::<Finding, v1::Finding>(bytes),
        _ => survives::<FleetView, v1::FleetView>(bytes),
    }
});

/// What can be read survives another way over the wire.
fn survives<T, M>(bytes: &[u8])
where
    T: Clone + PartialEq + Debug + TryFrom<M, Error = FieldError>,
    M: Message + Default + From<T>,
{
    let Some(value) = M::decode(bytes).ok().and_then(|message| T::try_from(message).ok()) else { return };
    let again = M::from(value.clone()).encode_to_vec();
    let back = M::decode(again.as_slice()).expect("what was encoded can be decoded");
    assert_eq!(T::try_from(back).expect("what was read once can be read again"), value);
}
