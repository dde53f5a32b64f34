//! A savepoint is a folder that stands for itself.

use object_store::local::LocalFileSystem;
use tidemill_core::ErrorKind;

use super::*;

async fn savepoint(store: &Arc<dyn ObjectStore>, nonce: u64) -> tidemill_core::Result<Manifest> {
    let content = checkpoint(store, savepoint_segment_path(0), 4, vec![], vec![]).await;
    write_savepoint(store.clone(), &root(), clock(), nonce, content).await
}

#[test]
fn a_savepoint_can_be_moved() {
    run(async {
        let scratch = tempfile::tempdir().unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(scratch.path()).unwrap());
        let written = savepoint(&store, 1).await.unwrap();
        assert_eq!(written.content.kind, CheckpointKind::Savepoint);
        assert_eq!(files(store.as_ref()).await, ["jobs/one/_metadata", "jobs/one/segments/0"]);

        std::fs::rename(scratch.path().join("jobs/one"), scratch.path().join("elsewhere")).unwrap();
        let (place, operator) = (Path::from("elsewhere"), &written.content.operators[0]);
        let found = open_savepoint(store.clone(), &place, clock()).await.unwrap();
        assert_eq!(found, written);
        let state = restored_state(store.as_ref(), &place, operator, 0, 1, 8).await.unwrap();
        assert_eq!(state.states[0].1[0].batches().iter().map(RecordBatch::num_rows).sum::<usize>(), 5);

        dispose_savepoint(store.clone(), &place, clock()).await.unwrap();
        assert!(files(store.as_ref()).await.is_empty());
        let error = open_savepoint(store.clone(), &place, clock()).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::Unavailable, "'elsewhere/_metadata' is missing")
        );
    });
}

#[test]
fn a_savepoint_is_never_written_over() {
    run(async {
        let store = memory();
        let written = savepoint(&store, 1).await.unwrap();
        // The same writer again: its first reply was lost.
        assert_eq!(savepoint(&store, 1).await.unwrap(), written);
        assert_eq!(savepoint(&store, 2).await.unwrap_err().kind(), ErrorKind::Request);
        assert_eq!(open_savepoint(store, &root(), clock()).await.unwrap(), written);
    });
}
