//! The statements that the engine and its shell understand.
//!
//! Names, expressions and queries are sqlparser's, so that DataFusion plans them; the statements around them are ours.

use datafusion::sql::parser::Statement as DataFusionStatement;
use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName, Query};

use super::span::Span;
use super::types::SqlType;

/// One statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// `SELECT`, `WITH`, `VALUES`, `FROM`-first …
    Query(Box<Query>),
    /// `CREATE TABLE`
    CreateTable(Box<CreateTable>),
    /// `CREATE VIEW`
    CreateView(Box<CreateView>),
    /// `DROP TABLE` or `DROP VIEW`
    Drop(Drop),
    /// `INSERT INTO` or `INSERT OVERWRITE`
    Insert(Box<Insert>),
    /// `EXECUTE STATEMENT SET BEGIN … END`: several inserts, one job
    StatementSet(Vec<Insert>),
    /// `SET 'key' = 'value'`; without a setting, `SET` lists them all
    Set(Option<(String, String)>),
    /// `RESET 'key'`; without a key, `RESET` resets them all
    Reset(Option<String>),
    /// `EXPLAIN`
    Explain(Explain),
    /// `DESCRIBE t`
    Describe(ObjectName),
    /// `SHOW …`
    Show(Show),
    /// `STOP JOB 'id'`: with a savepoint, or until the sources are drained
    StopJob {
        /// The job.
        id: String,
        /// `WITH SAVEPOINT`
        savepoint: bool,
        /// `WITH DRAIN`
        drain: bool,
    },
    /// `CANCEL JOB 'id'`
    CancelJob {
        /// The job.
        id: String,
    },
    /// `HELP`
    Help,
    /// `QUIT` or `EXIT`
    Quit,
    /// `CLEAR`
    Clear,
    /// Whatever else DataFusion takes: `COPY`, `CREATE EXTERNAL TABLE`, `CREATE FUNCTION`, `DELETE` …
    Other(Box<DataFusionStatement>),
}

/// `CREATE TABLE`
#[derive(Clone, Debug, PartialEq)]
pub struct CreateTable {
    /// The table's name.
    pub name: ObjectName,
    /// `OR REPLACE`
    pub or_replace: bool,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// `TEMPORARY`
    pub temporary: bool,
    /// The columns, in order; none where a `LIKE` or a query brings them.
    pub columns: Vec<Column>,
    /// `WATERMARK FOR`
    pub watermark: Option<Watermark>,
    /// `PRIMARY KEY (…) NOT ENFORCED`, on the table or on one column
    pub primary_key: Option<Vec<Ident>>,
    /// `PARTITIONED BY (…)`
    pub partitioned_by: Vec<Ident>,
    /// `COMMENT '…'`
    pub comment: Option<String>,
    /// `WITH ('key' = 'value', …)`, in the order given, no key twice
    pub options: Vec<(String, String)>,
    /// `LIKE t (…)`
    pub like: Option<Like>,
    /// `AS query`
    pub as_query: Option<Box<Query>>,
}

/// One column of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The column's name.
    pub name: Ident,
    /// Where its values come from.
    pub kind: ColumnKind,
    /// `COMMENT '…'`
    pub comment: Option<String>,
}

/// Where a column's values come from.
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnKind {
    /// `name TYPE`: from the record
    Physical {
        /// The type.
        data_type: SqlType,
        /// False for `NOT NULL`.
        nullable: bool,
    },
    /// `name AS expr`: from other columns
    Computed {
        /// What to compute.
        expr: Box<Expr>,
    },
    /// `name TYPE METADATA [FROM 'key'] [VIRTUAL]`: from the connector
    Metadata {
        /// The type.
        data_type: SqlType,
        /// False for `NOT NULL`.
        nullable: bool,
        /// The connector's name for it, where it is not the column's.
        key: Option<String>,
        /// Read but never written.
        is_virtual: bool,
    },
}

/// `WATERMARK FOR column AS expr`
#[derive(Clone, Debug, PartialEq)]
pub struct Watermark {
    /// The event time column.
    pub column: Ident,
    /// The watermark that a row brings.
    pub expr: Expr,
    /// The clause's place in the script.
    pub span: Span,
}

/// `LIKE table (…)`
#[derive(Clone, Debug, PartialEq)]
pub struct Like {
    /// The table to take the definition from.
    pub table: ObjectName,
    /// What to take, in the order given.
    pub options: Vec<LikeOption>,
}

/// One of a [`Like`]'s options: what to do about one part of the source table's definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LikeOption {
    /// What to do.
    pub merge: LikeMerge,
    /// About which part.
    pub part: LikePart,
}

/// What a [`LikeOption`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LikeMerge {
    /// Take the part; a clash is an error.
    Including,
    /// Leave the part.
    Excluding,
    /// Take the part; the new table's own definition wins a clash.
    Overwriting,
}

/// A part of a table's definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LikePart {
    /// Every part.
    All,
    /// Primary and unique keys.
    Constraints,
    /// The distribution.
    Distribution,
    /// Computed columns.
    Generated,
    /// Metadata columns.
    Metadata,
    /// The options of `WITH`.
    Options,
    /// The partition columns.
    Partitions,
    /// The watermark.
    Watermarks,
}

/// `CREATE VIEW`
#[derive(Clone, Debug, PartialEq)]
pub struct CreateView {
    /// The view's name.
    pub name: ObjectName,
    /// `OR REPLACE`
    pub or_replace: bool,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// `TEMPORARY`
    pub temporary: bool,
    /// New names for the query's columns; none keeps them.
    pub columns: Vec<Ident>,
    /// `COMMENT '…'`
    pub comment: Option<String>,
    /// The query.
    pub query: Box<Query>,
    /// The query as it was written.
    pub text: String,
}

/// `DROP TABLE` or `DROP VIEW`
#[derive(Clone, Debug, PartialEq)]
pub struct Drop {
    /// What is dropped.
    pub kind: DropKind,
    /// `IF EXISTS`
    pub if_exists: bool,
    /// Its name.
    pub name: ObjectName,
}

/// What a [`Drop`] drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropKind {
    /// A table.
    Table,
    /// A view.
    View,
}

/// `INSERT INTO` or `INSERT OVERWRITE`
#[derive(Clone, Debug, PartialEq)]
pub struct Insert {
    /// The sink.
    pub table: ObjectName,
    /// The columns that the query fills; none means all, in order.
    pub columns: Vec<Ident>,
    /// `OVERWRITE`: the rows replace what is there.
    pub overwrite: bool,
    /// `PARTITION (column = value, …)`
    pub partition: Vec<(Ident, Expr)>,
    /// The rows: a query or `VALUES`.
    pub query: Box<Query>,
}

/// `EXPLAIN`
#[derive(Clone, Debug, PartialEq)]
pub struct Explain {
    /// Plan it, or run it too.
    pub mode: ExplainMode,
    /// What to show beside the plan, in the order given.
    pub details: Vec<ExplainDetail>,
    /// The statement: a query, an insert or a statement set.
    pub statement: Box<Statement>,
}

/// Whether [`Explain`] runs the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExplainMode {
    /// `EXPLAIN` and `EXPLAIN PLAN FOR`: shows the plan.
    Plan,
    /// `EXPLAIN ANALYZE`: runs the statement and shows what each operator did.
    Analyze,
}

/// What [`Explain`] shows beside the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExplainDetail {
    /// `VERBOSE`
    Verbose,
    /// `CHANGELOG_MODE`: which kinds of change flow along each edge
    ChangelogMode,
    /// `ESTIMATED_COST`
    EstimatedCost,
    /// `JSON_EXECUTION_PLAN`
    JsonExecutionPlan,
    /// `PLAN_ADVICE`
    PlanAdvice,
    /// `FORMAT name`
    Format(String),
}

/// `SHOW …`; `like` holds the pattern of a `LIKE`.
#[derive(Clone, Debug, PartialEq)]
pub enum Show {
    /// `SHOW TABLES`
    Tables {
        /// Only names that match.
        like: Option<String>,
    },
    /// `SHOW VIEWS`
    Views {
        /// Only names that match.
        like: Option<String>,
    },
    /// `SHOW COLUMNS FROM t`
    Columns {
        /// The table or view.
        table: ObjectName,
        /// Only names that match.
        like: Option<String>,
    },
    /// `SHOW FUNCTIONS`
    Functions {
        /// Only names that match.
        like: Option<String>,
    },
    /// `SHOW CREATE TABLE t`
    CreateTable(ObjectName),
    /// `SHOW CREATE VIEW v`
    CreateView(ObjectName),
    /// `SHOW JOBS`
    Jobs,
}
