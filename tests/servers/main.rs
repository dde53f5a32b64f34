//! What tidemill does on servers that its users have: the real ones, started here.
//!
//! Every server is a file: it is started in a fresh folder on free ports of this machine, waited for, asked for its address,
//! killed and started again, and gone when the test is. `scripts/servers.sh` fetches what is missing.
//!
//! [`process`] is what all servers share, [`versitygw`] (S3) and [`hdfs`] are the servers. [`checkpoints`] runs the laws of
//! stores on them, [`files`] those of sources and sinks, [`jobs`] whole processes that are killed, and servers that are.

#![allow(clippy::disallowed_methods, reason = "the tests wait in real time")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod checkpoints;
mod files;
mod hdfs;
mod jobs;
#[path = "../cli/kills.rs"]
mod kills;
mod process;
mod versitygw;

use tidemill_connectors::store::Stores;

/// A store that a server here gives.
trait Server {
    /// What URLs of it begin with.
    fn url(&self) -> String;

    /// The stores that lead there.
    fn stores(&self) -> Stores;

    /// What a process needs in its environment to reach it.
    fn environment(&self) -> Vec<(&'static str, String)>;
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future)
}
