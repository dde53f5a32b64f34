//! Statements that change the catalog: `CREATE`, `DROP`, and what is left of DataFusion's.

use std::sync::Arc;

use datafusion::sql::parser::Statement as OtherStatement;
use tidemill_connectors::registry::Disposition;
use tidemill_core::{Error, Result};

use super::catalog::{Entry, TableBuilder, TableDefinition, ViewDefinition, definition_of_schema, simple_name};
use super::error::at;
use super::fingerprint::Fingerprint;
use super::parser::{CreateTable, CreateView, Drop, DropKind, Parsed, Statement};
use super::session::{Outcome, Session};

impl Session {
    /// `CREATE TABLE`, also `LIKE` and `AS`.
    pub(super) async fn create_table(&mut self, parsed: &Parsed) -> Result<Outcome> {
        let Statement::CreateTable(create) = &parsed.statement else {
            return Err(Error::internal("not a CREATE TABLE"));
        };
        let name = simple_name(&create.name)?;
        if !self.catalog.admits(&name, create.or_replace, create.if_not_exists)? {
            return Ok(Outcome::Done(format!("table {name} exists already")));
        }
        if create.as_query.is_some() {
            return self.create_table_as(parsed, create, name).await;
        }
        let like = match &create.like {
            Some(like) => Some(self.catalog.table(&simple_name(&like.table)?)?),
            None => None,
        };
        let state = self.state();
        let build = |planner: &super::planner::Planner<'_>, parsed: &Parsed| match &parsed.statement {
            Statement::CreateTable(create) => TableBuilder { planner }.build(create, like.as_deref()),
            _ => Err(datafusion::error::DataFusionError::Internal("not a CREATE TABLE".into())),
        };
        let (_, definition) = self.mended(&state, parsed, 0, build).await?;
        self.add_table(definition, parsed)?;
        Ok(Outcome::Done(format!("table {name} created")))
    }

    /// The table takes its columns from the query, and its rows from a job.
    async fn create_table_as(&mut self, parsed: &Parsed, create: &CreateTable, name: String) -> Result<Outcome> {
        if !create.columns.is_empty() || create.watermark.is_some() || create.like.is_some() {
            let error = Error::request("CREATE TABLE … AS takes its columns from the query");
            return Err(error.with_hint("create the table first, then INSERT INTO it"));
        }
        let state = self.state();
        let plan = self.plan(&state, parsed).await?;
        let plan = state.optimize(&plan).map_err(super::error::planning)?;
        let mut definition = definition_of_schema(&name, plan.schema().inner(), create.options.clone());
        definition.temporary = create.temporary;
        definition.comment = create.comment.clone();
        self.add_table(definition, parsed)?;
        match self.insert_plan(&name, plan, Fingerprint::of(&parsed.statement)).await {
            Ok(job) => Ok(Outcome::Job(job)),
            Err(error) => {
                self.catalog.remove(&name);
                Err(error)
            }
        }
    }

    fn add_table(&mut self, definition: TableDefinition, parsed: &Parsed) -> Result<()> {
        let start = (parsed.span.line, parsed.span.column).into();
        if definition.columns.is_empty() {
            return Err(at(Error::request(format!("table '{}' has no columns", definition.name)), start));
        }
        let named = |error: Error| error.context(format!("table '{}'", definition.name));
        definition.check_options(&self.table_context(None, Disposition::Append)).map_err(named)?;
        let name = definition.name.clone();
        self.catalog.insert(&name, Entry::Table(Arc::new(definition)));
        Ok(())
    }

    /// `CREATE VIEW`: planned once, so that what is wrong with it is said now.
    pub(super) async fn create_view(&mut self, parsed: &Parsed, create: &CreateView) -> Result<Outcome> {
        let name = simple_name(&create.name)?;
        if !self.catalog.admits(&name, create.or_replace, create.if_not_exists)? {
            return Ok(Outcome::Done(format!("view {name} exists already")));
        }
        let view = ViewDefinition {
            name: name.clone(),
            columns: create.columns.clone(),
            text: create.text.clone(),
            comment: create.comment.clone(),
            temporary: create.temporary,
        };
        let state = self.state();
        let plan = self.plan(&state, parsed).await?;
        let columns = plan.schema().fields().len();
        if !view.columns.is_empty() && view.columns.len() != columns {
            let message = format!("view '{name}' names {} columns, its query has {columns}", view.columns.len());
            return Err(Error::request(message));
        }
        self.catalog.insert(&name, Entry::View(Arc::new(view)));
        Ok(Outcome::Done(format!("view {name} created")))
    }

    /// `DROP TABLE`, `DROP VIEW`
    pub(super) fn drop_relation(&mut self, drop: &Drop) -> Result<Outcome> {
        let wanted = simple_name(&drop.name)?;
        let noun = match drop.kind {
            DropKind::Table => "table",
            DropKind::View => "view",
        };
        let name = match self.catalog.find(&wanted) {
            Ok((name, entry)) if entry.noun() == noun => name.to_owned(),
            Ok((name, entry)) => {
                let (found, keyword) = (entry.noun(), entry.noun().to_uppercase());
                return Err(Error::request(format!("'{name}' is a {found}, not a {noun}"))
                    .with_hint(format!("write DROP {keyword} {name}")));
            }
            Err(_) if drop.if_exists => return Ok(Outcome::Done(format!("{noun} {wanted} does not exist"))),
            Err(error) => return Err(error.context(format!("DROP {}", noun.to_uppercase()))),
        };
        self.catalog.remove(&name);
        Ok(Outcome::Done(format!("{noun} {name} dropped")))
    }

    /// What DataFusion parses beside queries.
    pub(super) async fn other(&mut self, parsed: &Parsed) -> Result<Outcome> {
        let Statement::Other(other) = &parsed.statement else { return Err(Error::internal("not another statement")) };
        if let OtherStatement::CopyTo(copy) = other.as_ref() {
            return Ok(Outcome::Job(self.copy(parsed, copy).await?));
        }
        let words: Vec<&str> = parsed.text.split_whitespace().take(2).collect();
        let start = (parsed.span.line, parsed.span.column).into();
        let error = Error::request(format!("{} is not supported", words.join(" ").to_uppercase()));
        Err(at(error.with_hint("`HELP` lists the statements there are"), start))
    }
}
