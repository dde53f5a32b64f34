//! Chance that tells processes apart: in names of files that several of them may write side by side, and in what fences one off.
//!
//! The one place where anything differs from run to run, and nothing that a job computes follows from it: what does is drawn from
//! a seed that is passed in.

use std::sync::OnceLock;

/// What tells this process from all others, also from those that begin in the same moment under the same process id.
pub fn process_chance() -> u64 {
    static CHANCE: OnceLock<u64> = OnceLock::new();
    *CHANCE.get_or_init(chance)
}

/// A number that nobody else draws, also no other process that begins in the same moment under the same process id.
#[expect(clippy::disallowed_types, reason = "the one place where real chance comes from")]
pub fn chance() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_one_chance_and_every_draw_is_another() {
        assert_eq!(process_chance(), process_chance());
        assert_ne!(chance(), chance());
    }
}
