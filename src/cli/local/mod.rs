//! Jobs that run in one process and keep what they need in one folder: `tidemill run --local` and its companions.
//!
//! ```text
//! D/job.json       who these jobs are, for ever, and which folder is whose  (in the store)
//! D/<sink>/…       checkpoints of one job                                   (in the store)
//! D/lock           held by the process that runs                            (on this machine)
//! D/control.json   where that process listens, with a token                 (on this machine)
//! ```
//!
//! Of a folder in a store, the last two lie beside the script's own folder, and a second lock where all processes of the user find
//! it.
//!
//! In reading order: [`folder`] (the files above), [`run`] (the process), [`control`] (what it answers), [`client`] (who asks).

mod client;
mod control;
mod folder;
mod run;

pub use client::{cancel, checkpoint, checkpoints, info, list, savepoint, stop};
pub use run::run;
