//! The tables and views of a session.
//!
//! A name is looked up as it stands; names in another case are mended before (see `planner::repair`).

mod create;
mod files;
mod like;
mod scan;
mod table;
mod type_name;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::ObjectName;
use tidemill_core::error::unknown;
use tidemill_core::{Error, Result};

pub use create::{TableBuilder, definition_of_schema};
pub use files::{file_table, looks_like_file};
pub use scan::{Scan, ScanTable, scan_table};
pub use table::{ColumnDefinition, ColumnOrigin, TableDefinition, ViewDefinition, WatermarkDefinition};
pub use type_name::{sql_type, type_name};

/// The name of the one database, which may stand before a table's.
pub const DEFAULT_DATABASE: &str = "default_database";

/// What a name stands for.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A table with a connector.
    Table(Arc<TableDefinition>),
    /// A named query.
    View(Arc<ViewDefinition>),
}

impl Entry {
    /// The word for it in messages.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Table(_) => "table",
            Self::View(_) => "view",
        }
    }
}

/// The tables and views of a session, by name.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    entries: BTreeMap<String, Entry>,
}

impl Catalog {
    /// What `name` stands for.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// What `name` stands for: an exact match, else the only one that differs in case alone, else an error with candidates.
    pub fn find(&self, name: &str) -> Result<(&str, &Entry)> {
        if let Some((name, entry)) = self.entries.get_key_value(name) {
            return Ok((name, entry));
        }
        let lower = name.to_lowercase();
        let similar: Vec<(&String, &Entry)> =
            self.entries.iter().filter(|(known, _)| known.to_lowercase() == lower).collect();
        match similar.as_slice() {
            [(name, entry)] => Ok((name, entry)),
            [] => Err(match self.entries.is_empty() {
                true => Error::request(format!("table '{name}' not found")).with_hint("there are no tables yet"),
                false => unknown("table", name, self.entries.keys().map(String::as_str)),
            }),
            several => {
                let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
                Err(Error::request(format!("table '{name}' not found"))
                    .with_hint(format!("it could be {}", names.join(" or "))))
            }
        }
    }

    /// The table that `name` stands for.
    pub fn table(&self, name: &str) -> Result<Arc<TableDefinition>> {
        match self.find(name)? {
            (_, Entry::Table(table)) => Ok(table.clone()),
            (name, Entry::View(_)) => Err(Error::request(format!("'{name}' is a view, not a table"))),
        }
    }

    /// All entries, by name.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// The names of all tables and views.
    pub fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    /// Whether `name` may be created: `Ok(false)` where it exists and may stay.
    pub fn admits(&self, name: &str, or_replace: bool, if_not_exists: bool) -> Result<bool> {
        match self.entries.get(name) {
            None => Ok(true),
            Some(_) if or_replace => Ok(true),
            Some(_) if if_not_exists => Ok(false),
            Some(entry) => Err(Error::request(format!("{} '{name}' exists already", entry.noun()))
                .with_hint("drop it first, or write CREATE OR REPLACE or IF NOT EXISTS")),
        }
    }

    /// Adds or replaces an entry.
    pub fn insert(&mut self, name: &str, entry: Entry) {
        self.entries.insert(name.to_owned(), entry);
    }

    /// Removes an entry.
    pub fn remove(&mut self, name: &str) {
        self.entries.remove(name);
    }
}

/// The name within the one catalog and database there is; Flink's names for those two may stand before it.
pub fn simple_name(name: &ObjectName) -> Result<String> {
    let parts: Option<Vec<&str>> =
        name.0.iter().map(|part| part.as_ident().map(|ident| ident.value.as_str())).collect();
    match parts.as_deref() {
        Some([name]) => Ok((*name).to_owned()),
        Some([DEFAULT_DATABASE, name]) | Some(["default_catalog", DEFAULT_DATABASE, name]) => Ok((*name).to_owned()),
        _ => Err(Error::request(format!("name '{name}' has a catalog or database"))
            .with_hint("there is one of each, default_catalog.default_database, which need not be written")),
    }
}
