//! Checkpoints on real stores: of many writers one wins, whoever is late is fenced, and nothing half written is ever read.

use std::sync::Arc;

use tidemill::sql::store_folder;
use tidemill_core::clock::Clock;
use tidemill_exec::checkpoint::conformance::check_store;
use tidemill_exec::runtime::TokioClock;

use super::hdfs::Hdfs;
use super::versitygw::Versitygw;
use super::{Server, block_on};

fn check(server: &impl Server) {
    block_on(async {
        let place = server.stores().resolve(&format!("{}/jobs", server.url())).unwrap();
        let folder = store_folder(&place);
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::system());
        check_store(&folder.store, &folder.root, &clock).await.unwrap();
    });
}

#[test]
fn s3_keeps_what_checkpoints_rely_on() {
    check(&Versitygw::start());
}

#[test]
fn hdfs_keeps_what_checkpoints_rely_on() {
    check(&Hdfs::shared());
}
