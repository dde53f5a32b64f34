//! One source of chance for a whole world.

use std::sync::{Arc, Mutex};

/// Draws numbers that follow from a seed. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Chance(Arc<Mutex<(u64, bool)>>);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new((seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, false))))
    }

    /// From now on [`Chance::strikes`] never does.
    pub fn be_kind(&self) {
        self.0.lock().unwrap().1 = true;
    }

    fn draw(&self) -> u64 {
        let mut state = self.0.lock().unwrap();
        state.0 ^= state.0 << 13;
        state.0 ^= state.0 >> 7;
        state.0 ^= state.0 << 17;
        state.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        (self.draw() >> 11) % bound.max(1)
    }

    /// Whether something goes wrong that does so once in `every` times; never if that is 0.
    pub fn strikes(&self, every: u64) -> bool {
        every > 0 && self.below(every) == 0 && !self.0.lock().unwrap().1
    }
}
