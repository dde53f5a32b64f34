//! Parquet files in bounded plans: DataFusion's own scan, with its statistics, pruning and dynamic filters.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::config::TableParquetOptions;
use datafusion::common::{Result as PlanResult, Statistics};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_plan::ExecutionPlan;
use object_store::{ObjectMeta, ObjectStore};

/// Files of one store.
#[derive(Clone, Debug)]
pub struct ParquetFiles {
    /// Where URLs of the store begin: `file://`, `s3://bucket`.
    pub prefix: String,
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The files, in the order in which they are read.
    pub files: Vec<ObjectMeta>,
}

/// A scan of the columns `projection` of files whose columns are those of `schema`.
///
/// `None` where that cannot be said of them: one cannot be read, lacks a column or has it in another type. Whoever reads these
/// files in an unbounded plan knows what to make of it, and says so in its own words.
pub async fn parquet_scan(
    session: &dyn Session,
    ParquetFiles { prefix, store, files }: ParquetFiles,
    schema: &SchemaRef,
    projection: Vec<usize>,
    limit: Option<usize>,
) -> PlanResult<Option<Arc<dyn ExecutionPlan>>> {
    if files.is_empty() {
        return Ok(None);
    }
    let url = ObjectStoreUrl::parse(&prefix)?;
    session.runtime_env().register_object_store(url.as_ref(), store.clone());
    let global = session.config_options().execution.parquet.clone();
    let options = TableParquetOptions { global, ..TableParquetOptions::default() };
    let format = ParquetFormat::default().with_options(options).with_force_view_types(false);
    let mut group = Vec::with_capacity(files.len());
    let mut statistics = Vec::with_capacity(files.len());
    for file in files {
        let Ok(found) = format.infer_schema(session, &store, std::slice::from_ref(&file)).await else {
            return Ok(None);
        };
        if !holds(&found, schema) {
            return Ok(None);
        }
        let known = Arc::new(format.infer_stats(session, &store, schema.clone(), &file).await?);
        group.push(PartitionedFile::new_from_meta(file).with_statistics(known.clone()));
        statistics.push(known);
    }
    let groups = FileGroup::new(group).split_files(session.config().target_partitions());
    let statistics = Statistics::try_merge_iter(statistics.iter().map(|known| &**known), schema)?;
    let source = format.file_source(TableSchema::from(schema));
    let scan = FileScanConfigBuilder::new(url, source)
        .with_file_groups(groups)
        .with_statistics(statistics)
        .with_projection_indices(Some(projection))?
        .with_limit(limit)
        .build();
    format.create_physical_plan(session, scan).await.map(Some)
}

/// Whether a file has every column of a table, in its type, and NULL only where the table may have it.
fn holds(file: &Schema, table: &Schema) -> bool {
    table.fields().iter().all(|column| {
        file.field_with_name(column.name()).is_ok_and(|found| {
            found.data_type() == column.data_type() && (column.is_nullable() || !found.is_nullable())
        })
    })
}
