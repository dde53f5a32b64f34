//! What a statement said about a table or view.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::Expr;
use datafusion::sql::sqlparser::ast::Ident;
use tidemill_connectors::TableContext;

use super::type_name::type_name;
use crate::sql::parser::SqlType;

/// A table: columns, time, key, and the options of its connector.
#[derive(Clone, Debug)]
pub struct TableDefinition {
    /// Its name.
    pub name: String,
    /// Its columns, in the order of the statement.
    pub columns: Vec<ColumnDefinition>,
    /// Its event time.
    pub watermark: Option<WatermarkDefinition>,
    /// The columns of `PRIMARY KEY … NOT ENFORCED`.
    pub primary_key: Vec<String>,
    /// The columns of `PARTITIONED BY`.
    pub partitioned_by: Vec<String>,
    /// `COMMENT`
    pub comment: Option<String>,
    /// `WITH`, in the order given.
    pub options: Vec<(String, String)>,
    /// `TEMPORARY`
    pub temporary: bool,
}

/// A column of a table.
#[derive(Clone, Debug)]
pub struct ColumnDefinition {
    /// Its name.
    pub name: String,
    /// Its type in batches.
    pub data_type: DataType,
    /// Its type as declared, with the bounds that Arrow has no place for.
    pub declared: Option<SqlType>,
    /// False for `NOT NULL`.
    pub nullable: bool,
    /// Where its values come from.
    pub origin: ColumnOrigin,
    /// `COMMENT`
    pub comment: Option<String>,
}

/// Where the values of a column come from.
#[derive(Clone, Debug)]
pub enum ColumnOrigin {
    /// The record.
    Physical,
    /// An expression over the physical columns.
    Computed {
        /// What to compute.
        expr: Box<Expr>,
        /// How the user wrote it.
        text: String,
    },
}

/// `WATERMARK FOR column AS expr`
#[derive(Clone, Debug)]
pub struct WatermarkDefinition {
    /// The event time column.
    pub column: String,
    /// The watermark that a row brings, over all columns of the table.
    pub expr: Expr,
    /// How the user wrote it.
    pub text: String,
}

/// A view: a query by name.
#[derive(Clone, Debug)]
pub struct ViewDefinition {
    /// Its name.
    pub name: String,
    /// New names for the query's columns; none keeps them.
    pub columns: Vec<Ident>,
    /// The query as it was written.
    pub text: String,
    /// `COMMENT`
    pub comment: Option<String>,
    /// `TEMPORARY`
    pub temporary: bool,
}

impl TableDefinition {
    /// All columns.
    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(ColumnDefinition::field).collect::<Vec<_>>()))
    }

    /// The columns that the connector reads and writes.
    pub fn physical_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.physical().map(ColumnDefinition::field).collect::<Vec<_>>()))
    }

    /// The columns that the connector reads and writes.
    pub fn physical(&self) -> impl Iterator<Item = &ColumnDefinition> {
        self.columns.iter().filter(|column| matches!(column.origin, ColumnOrigin::Physical))
    }

    /// What the connector may know, with what only the table tells.
    pub fn context(&self, context: &TableContext) -> TableContext {
        TableContext { partitioned_by: self.partitioned_by.as_slice().into(), ..context.clone() }
    }

    /// The value of an option.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// The statement that creates the table again.
    pub fn to_sql(&self) -> String {
        let mut lines: Vec<String> = self.columns.iter().map(ColumnDefinition::to_sql).collect();
        lines.extend(
            self.watermark
                .iter()
                .map(|watermark| format!("WATERMARK FOR {} AS {}", quoted(&watermark.column), watermark.text)),
        );
        if !self.primary_key.is_empty() {
            let columns: Vec<String> = self.primary_key.iter().map(|column| quoted(column)).collect();
            lines.push(format!("PRIMARY KEY ({}) NOT ENFORCED", columns.join(", ")));
        }
        let temporary = if self.temporary { "TEMPORARY " } else { "" };
        let comment = self.comment.iter().map(|comment| format!(" COMMENT {}", literal(comment))).collect::<String>();
        let columns: Vec<String> = self.partitioned_by.iter().map(|column| quoted(column)).collect();
        let partitions =
            if columns.is_empty() { String::new() } else { format!(" PARTITIONED BY ({})", columns.join(", ")) };
        let options: Vec<String> =
            self.options.iter().map(|(key, value)| format!("  {} = {}", literal(key), literal(value))).collect();
        format!(
            "CREATE {temporary}TABLE {} (\n  {}\n){comment}{partitions} WITH (\n{}\n)",
            quoted(&self.name),
            lines.join(",\n  "),
            options.join(",\n")
        )
    }
}

impl ColumnDefinition {
    /// The Arrow field.
    pub fn field(&self) -> Field {
        Field::new(&self.name, self.data_type.clone(), self.nullable)
    }

    /// The SQL text of the type.
    pub fn type_text(&self) -> String {
        self.declared.as_ref().map_or_else(|| type_name(&self.data_type), ToString::to_string)
    }

    fn to_sql(&self) -> String {
        let not_null = if self.nullable { "" } else { " NOT NULL" };
        let text = match &self.origin {
            ColumnOrigin::Physical => format!("{} {}{not_null}", quoted(&self.name), self.type_text()),
            ColumnOrigin::Computed { text, .. } => format!("{} AS {text}", quoted(&self.name)),
        };
        self.comment.iter().fold(text, |text, comment| format!("{text} COMMENT {}", literal(comment)))
    }
}

impl ViewDefinition {
    /// The statement that creates the view again.
    pub fn to_sql(&self) -> String {
        let temporary = if self.temporary { "TEMPORARY " } else { "" };
        let columns: Vec<String> = self.columns.iter().map(|column| quoted(&column.value)).collect();
        let columns = if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
        let comment = self.comment.iter().map(|comment| format!(" COMMENT {}", literal(comment))).collect::<String>();
        format!("CREATE {temporary}VIEW {}{columns}{comment} AS {}", quoted(&self.name), self.text)
    }
}

/// A name in backticks.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A string literal.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
