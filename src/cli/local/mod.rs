//! Jobs that run in one process and keep what they need in one folder: `tidemill run --local` and its companions.
//!
//! ```text
//! D/job.json       who these jobs are, for ever              (in the store)
//! D/<sink>/…       checkpoints of one job                    (in the store)
//! D/lock           held by the process that runs             (on this machine)
//! D/control.json   where that process listens, with a token  (on this machine)
//! ```
//!
//! In reading order: [`folder`] (the files above), [`run`] (the process), [`control`] (what it answers), [`client`] (who asks).

mod client;
mod control;
mod folder;
mod run;

pub use client::{cancel, checkpoint, checkpoints, info, list, savepoint, stop};
pub use run::run;
