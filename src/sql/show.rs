//! `SHOW`, `DESCRIBE` and `SET;`: what the session knows, as tables.

use datafusion::sql::sqlparser::ast::ObjectName;
use tidemill_core::{Error, Result};

use super::catalog::{ColumnOrigin, Entry, TableDefinition, ViewDefinition, simple_name, type_name};
use super::parser::Show;
use super::rows::Rows;
use super::session::Session;

impl Session {
    /// `SET;`
    pub(super) fn all_settings(&self) -> Result<Rows> {
        let settings = self.settings.all();
        let rows = settings
            .into_iter()
            .map(|(key, value, origin)| [Some(key.to_owned()), Some(value.to_owned()), Some(origin.name().to_owned())]);
        Rows::of_text(["key", "value", "origin"], rows.collect())
    }

    /// `SHOW …`
    pub(super) async fn show(&self, show: &Show) -> Result<Rows> {
        let names = |title, names: Vec<String>, like: &Option<String>| {
            let shown = names.into_iter().filter(|name| like.as_ref().is_none_or(|pattern| is_like(name, pattern)));
            Rows::of_text([title], shown.map(|name| [Some(name)]).collect())
        };
        let of_kind = |is_view: bool| {
            let entries = self.catalog.entries().filter(|(_, entry)| matches!(entry, Entry::View(_)) == is_view);
            entries.map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        match show {
            // As in Flink, views are tables, too.
            Show::Tables { like } => names("table name", self.catalog.names(), like),
            Show::Views { like } => names("view name", of_kind(true), like),
            Show::Functions { like } => names("function name", self.function_names(), like),
            Show::Columns { table, like } => self.columns(table, like.as_deref()).await,
            Show::CreateTable(name) => {
                let table = self.catalog.table(&simple_name(name)?)?;
                Rows::of_text(["create table"], vec![[Some(table.to_sql())]])
            }
            Show::CreateView(name) => match self.catalog.find(&simple_name(name)?)? {
                (_, Entry::View(view)) => Rows::of_text(["create view"], vec![[Some(view.to_sql())]]),
                (name, Entry::Table(_)) => Err(Error::request(format!("'{name}' is a table, not a view"))),
            },
            Show::Jobs => self.show_jobs(),
        }
    }

    /// `DESCRIBE t`
    pub(super) async fn describe(&self, name: &ObjectName) -> Result<Rows> {
        self.columns(name, None).await
    }

    async fn columns(&self, name: &ObjectName, like: Option<&str>) -> Result<Rows> {
        let (_, entry) = self.catalog.find(&simple_name(name)?)?;
        let mut rows = match entry {
            Entry::Table(table) => table_columns(table),
            Entry::View(view) => self.view_columns(view).await?,
        };
        rows.retain(|row| like.is_none_or(|pattern| row[0].as_ref().is_some_and(|name| is_like(name, pattern))));
        Rows::of_text(["name", "type", "null", "key", "extras", "watermark"], rows)
    }

    async fn view_columns(&self, view: &ViewDefinition) -> Result<Vec<[Option<String>; 6]>> {
        let state = self.state();
        let plan = self.view(&state, view, 0).await?;
        let plan = state.optimize(&plan).map_err(super::error::planning)?;
        let columns = plan.schema().fields().iter().map(|field| {
            let null = field.is_nullable().to_string();
            [Some(field.name().clone()), Some(type_name(field.data_type())), Some(null), None, None, None]
        });
        Ok(columns.collect())
    }

    fn function_names(&self) -> Vec<String> {
        let state = &self.base;
        let mut names: Vec<String> = state.scalar_functions().keys().cloned().collect();
        names.extend(state.aggregate_functions().keys().cloned());
        names.extend(state.window_functions().keys().cloned());
        names.extend(state.table_functions().keys().cloned());
        names.extend(super::planner::window::WindowName::ALL.map(|window| window.name().to_lowercase()));
        names.sort();
        names.dedup();
        names
    }

    fn show_jobs(&self) -> Result<Rows> {
        let rows = self.jobs.iter().map(|job| {
            let status = match job.handle.outcome() {
                None => "running".to_owned(),
                Some(Ok(_)) => "finished".to_owned(),
                Some(Err(error)) if error.kind() == tidemill_core::ErrorKind::Cancelled => "cancelled".to_owned(),
                Some(Err(error)) => format!("failed: {error}"),
            };
            [Some(job.id.clone()), Some(job.handle.name().to_owned()), Some(status)]
        });
        Rows::of_text(["job id", "job name", "status"], rows.collect())
    }
}

fn table_columns(table: &TableDefinition) -> Vec<[Option<String>; 6]> {
    let columns = table.columns.iter().map(|column| {
        let key = table.primary_key.contains(&column.name);
        let extras = match &column.origin {
            ColumnOrigin::Physical => None,
            ColumnOrigin::Computed { text, .. } => Some(format!("AS {text}")),
        };
        let watermark = table.watermark.as_ref().filter(|watermark| watermark.column == column.name);
        [
            Some(column.name.clone()),
            Some(column.type_text()),
            Some(column.nullable.to_string()),
            key.then(|| format!("PRI({})", table.primary_key.join(", "))),
            extras,
            watermark.map(|watermark| watermark.text.clone()),
        ]
    });
    columns.collect()
}

/// SQL's `LIKE`: `%` is any text, `_` any character; case does not count in names.
fn is_like(name: &str, pattern: &str) -> bool {
    fn matches(name: &[char], pattern: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('%', rest)) => (0..=name.len()).any(|skip| matches(&name[skip..], rest)),
            Some((expected, rest)) => match name.split_first() {
                Some((found, name)) => (*expected == '_' || expected == found) && matches(name, rest),
                None => false,
            },
        }
    }
    let characters = |text: &str| text.to_lowercase().chars().collect::<Vec<_>>();
    matches(&characters(name), &characters(pattern))
}

#[cfg(test)]
mod tests {
    use super::is_like;

    #[test]
    fn like_knows_two_wildcards() {
        for (name, pattern, expected) in [
            ("orders", "ord%", true),
            ("orders", "o_ders", true),
            ("orders", "order", false),
            ("A", "a", true),
            ("", "%", true),
        ] {
            assert_eq!(is_like(name, pattern), expected, "{name} like {pattern}");
        }
    }
}
