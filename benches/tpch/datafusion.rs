//! One pass of plain DataFusion over TPC-H, for the benchmark `tpch`, which builds and runs it.
//!
//! The same version, profile and allocator as tidemill in a binary of its own, because who is compiled beside whom decides what
//! is inlined. It prints the seconds of each query, as every engine of that benchmark does.

#[path = "../common/mod.rs"]
mod common;

use std::process::ExitCode;

use common::measure::timed;
use common::process::root;
use common::sql::TPCH_TABLES;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use tidemill::stream::Parameters;
use tidemill::{Error, Result};
use tidemill_exec::error::from_datafusion;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    common::run(|given| match given.has("folder") {
        true => pass(given),
        false => {
            println!("This is a part of the benchmark 'tpch': cargo bench --bench tpch");
            Ok(())
        }
    })
}

fn pass(given: &Parameters) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    for table in TPCH_TABLES {
        let file = format!("{}/{table}.parquet", given.required("folder")?);
        let registered = session.register_parquet(table, file, ParquetReadOptions::default());
        runtime.block_on(registered).map_err(from_datafusion)?;
    }
    for query in given.required("queries")?.split(',') {
        let text = std::fs::read_to_string(root().join(format!("tests/tpch/q{query}.sql")))?;
        let (_, seconds) = timed(|| answer(&runtime, session.clone(), text))?;
        println!("{query} {seconds}");
    }
    Ok(())
}

/// The rows of a query, made by the runtime's own threads: this one only waits.
fn answer(
    runtime: &tokio::runtime::Runtime,
    session: SessionContext,
    text: String,
) -> Result<Vec<arrow::array::RecordBatch>> {
    let rows = runtime.spawn(async move { session.sql(&text).await?.collect().await });
    let rows = runtime.block_on(rows).map_err(|error| Error::internal(error.to_string()))?;
    rows.map_err(from_datafusion)
}
