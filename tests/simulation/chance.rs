//! One source of chance for a whole world, which also remembers what it did to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What happened in some worlds, and how often.
pub type Tally = BTreeMap<&'static str, u64>;

/// Draws numbers that follow from a seed. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Chance(Arc<Mutex<Drawn>>);

#[derive(Debug)]
struct Drawn {
    state: u64,
    is_kind: bool,
    tally: Tally,
}

impl Chance {
    pub fn new(seed: u64) -> Self {
        let state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        Self(Arc::new(Mutex::new(Drawn { state, is_kind: false, tally: Tally::new() })))
    }

    /// From now on [`Chance::strikes`] never does.
    pub fn be_kind(&self) {
        self.0.lock().unwrap().is_kind = true;
    }

    fn draw(&self) -> u64 {
        let state = &mut self.0.lock().unwrap().state;
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        (self.draw() >> 11) % bound.max(1)
    }

    /// Whether something goes wrong that does so once in `every` times; never if that is 0.
    pub fn strikes(&self, what: &'static str, every: u64) -> bool {
        let strikes = every > 0 && self.below(every) == 0 && !self.0.lock().unwrap().is_kind;
        self.count(what, u64::from(strikes));
        strikes
    }

    /// Something happened.
    pub fn count(&self, what: &'static str, times: u64) {
        *self.0.lock().unwrap().tally.entry(what).or_default() += times;
    }

    /// What happened so far.
    pub fn tally(&self) -> Tally {
        self.0.lock().unwrap().tally.clone()
    }
}
