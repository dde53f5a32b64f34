//! Names of operators that survive a restart and a new version of the planner (NCK-08).

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

/// Identity of an operator: what its state is filed under.
///
/// A `uid` given by the user decides alone. Otherwise the identity follows from what the operator is called and from those of
/// its inputs: not from its place in the plan, so that a new operator elsewhere changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperatorId(pub u64);

impl OperatorId {
    /// The identity that a user chose.
    pub fn from_uid(uid: &str) -> Self {
        Self(xxh3_64(format!("uid:{uid}").as_bytes()))
    }

    /// The identity of an operator called `name` that reads `inputs`; `twin` tells apart operators that agree in both.
    pub fn derived(name: &str, inputs: &[OperatorId], twin: usize) -> Self {
        let mut bytes = format!("name:{name}:{twin}:").into_bytes();
        for input in inputs {
            bytes.extend_from_slice(&input.0.to_le_bytes());
        }
        Self(xxh3_64(&bytes))
    }
}

impl fmt::Display for OperatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for OperatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperatorId({self})")
    }
}
