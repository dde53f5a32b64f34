//! Files as tables without a statement: `FROM 'flights-*.csv.gz'`.

use tidemill_connectors::formats::Format;
use tidemill_connectors::store::Stores;
use tidemill_core::Result;

use super::create::definition_of_schema;
use super::table::TableDefinition;

/// Whether a name that no table has may be a path: it has a known ending, a directory, or a pattern, or is that of a file.
pub fn looks_like_file(name: &str) -> bool {
    Format::of_file_name(name).is_some()
        || name.contains(['/', '*', '?', '['])
        || (name.contains('.') && std::path::Path::new(name).is_file())
}

/// The table that the files at `path` make; its columns are inferred.
pub async fn file_table(stores: &Stores, path: &str) -> Result<TableDefinition> {
    let inferred = tidemill_connectors::infer_schema(stores, path, None).await?;
    Ok(definition_of_schema(path, &inferred.schema, inferred.options.into_iter().collect()))
}
