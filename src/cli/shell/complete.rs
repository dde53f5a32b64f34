//! Completion: keywords, names of tables, columns and functions; within quotes after `SET`, keys of settings.

use std::sync::{Arc, Mutex, PoisonError};

use reedline::{Completer, CompletionResult, Span, Suggestion};
use tidemill::sql::Session;
use tidemill::sql::catalog::Entry;
use tidemill_core::settings::KEYS;

/// The most suggestions that are worth looking through.
const SUGGESTIONS_MAX: usize = 60;

#[rustfmt::skip]
pub(super) const KEYWORDS: &[&str] = &[
    "ALL", "ANALYZE", "AND", "AS", "ASC", "BEGIN", "BETWEEN", "BIGINT", "BOOLEAN", "BY", "BYTES", "CANCEL JOB", "CASE",
    "CAST", "CLEAR", "COPY", "CREATE TABLE", "CREATE VIEW", "CROSS JOIN", "CUMULATE", "DATE", "DECIMAL", "DESC",
    "DESCRIBE", "DESCRIPTOR", "DISTINCT", "DOUBLE", "DROP TABLE", "DROP VIEW", "ELSE", "END", "EXCEPT",
    "EXECUTE STATEMENT SET", "EXISTS", "EXIT", "EXPLAIN", "FALSE", "FLOAT", "FOR SYSTEM_TIME AS OF", "FROM", "FULL JOIN",
    "GROUP BY", "HAVING", "HELP", "HOP", "IF EXISTS", "IF NOT EXISTS", "IN", "INNER JOIN", "INSERT INTO",
    "INSERT OVERWRITE", "INT", "INTERSECT", "INTERVAL", "IS NOT NULL", "IS NULL", "JOIN", "LEFT JOIN", "LIKE", "LIMIT",
    "MATCH_RECOGNIZE", "NOT", "NULL", "OFFSET", "ON", "OR", "ORDER BY", "OVER", "PARTITION BY", "PRIMARY KEY", "QUIT",
    "RESET", "RIGHT JOIN", "ROWS", "SELECT", "SESSION", "SET", "SHOW COLUMNS FROM", "SHOW CREATE TABLE",
    "SHOW FUNCTIONS", "SHOW JOBS", "SHOW TABLES", "SHOW VIEWS", "SMALLINT", "STOP JOB", "STRING", "TABLE", "THEN",
    "TIME", "TIMESTAMP", "TIMESTAMP_LTZ", "TINYINT", "TO", "TRUE", "TUMBLE", "UNION ALL", "USING", "VALUES",
    "VARCHAR", "WATERMARK FOR", "WHEN", "WHERE", "WITH",
];

/// The names that a session knows, shared between the shell and its line editor.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    relations: Vec<String>,
    columns: Vec<String>,
    functions: Vec<String>,
}

impl Names {
    /// Looks up the tables and their columns anew.
    pub fn refresh(&self, session: &Session) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.relations = session.catalog().names();
        let tables = session.catalog().entries().filter_map(|(_, entry)| match entry {
            Entry::Table(table) => Some(table),
            Entry::View(_) => None,
        });
        known.columns = tables.flat_map(|table| table.columns.iter().map(|column| column.name.clone())).collect();
        known.columns.sort();
        known.columns.dedup();
    }

    /// The functions there are.
    pub fn set_functions(&self, functions: Vec<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).functions = functions;
    }
}

/// Completes the word before the cursor.
#[derive(Debug)]
pub struct Words {
    names: Names,
}

impl Words {
    /// A completer that knows `names`.
    pub fn new(names: Names) -> Self {
        Self { names }
    }

    fn candidates(&self, before: &str) -> (usize, Vec<(String, bool)>) {
        if let Some(start) = setting_start(before) {
            let typed = &before[start..];
            let keys = KEYS.iter().map(|spec| spec.name).filter(|name| begins(name, typed));
            return (start, keys.map(|name| (name.to_owned(), false)).collect());
        }
        let start = word_start(before);
        let typed = &before[start..];
        if typed.is_empty() {
            return (start, Vec::new());
        }
        let lower = !typed.chars().any(char::is_uppercase);
        let known = self.names.0.lock().unwrap_or_else(PoisonError::into_inner);
        let names = known.relations.iter().chain(&known.columns).filter(|name| begins(name, typed));
        let mut found: Vec<(String, bool)> = names.map(|name| (quoted(name), true)).collect();
        let keywords = KEYWORDS.iter().filter(|word| begins(word, typed));
        found.extend(keywords.map(|word| (if lower { word.to_lowercase() } else { (*word).to_owned() }, true)));
        let functions = known.functions.iter().filter(|name| begins(name, typed));
        found.extend(
            functions.map(|name| (format!("{}(", if lower { name.clone() } else { name.to_uppercase() }), false)),
        );
        (start, found)
    }
}

impl Completer for Words {
    fn complete(&mut self, line: &str, position: usize) -> CompletionResult {
        let before = line.get(..position).unwrap_or(line);
        let (start, candidates) = self.candidates(before);
        let suggestion = |(value, append_whitespace)| Suggestion {
            value,
            append_whitespace,
            span: Span::new(start, before.len()),
            ..Suggestion::default()
        };
        CompletionResult::fresh(candidates.into_iter().take(SUGGESTIONS_MAX).map(suggestion).collect::<Vec<_>>())
    }
}

fn begins(name: &str, typed: &str) -> bool {
    name.get(..typed.len()).is_some_and(|start| start.eq_ignore_ascii_case(typed))
}

/// Where the word before the cursor begins.
fn word_start(before: &str) -> usize {
    let not_of_word = |character: char| !(character.is_alphanumeric() || character == '_');
    before.rfind(not_of_word).map_or(0, |at| at + before[at..].chars().next().map_or(0, char::len_utf8))
}

/// Where a setting's key begins, if the cursor is in one: `SET 'par`, `RESET par`.
fn setting_start(before: &str) -> Option<usize> {
    let statement = before.rfind(';').map_or(0, |at| at + 1);
    let text = &before[statement..];
    let (word, rest) = text.trim_start().split_once(char::is_whitespace)?;
    let key = rest.trim_start();
    let key = key.strip_prefix('\'').unwrap_or(key);
    let is_key = key.chars().all(|character| character.is_alphanumeric() || ".-".contains(character));
    let is_set = ["SET", "RESET"].iter().any(|name| word.eq_ignore_ascii_case(name));
    (is_set && is_key).then(|| before.len() - key.len())
}

/// A name as it has to be written.
fn quoted(name: &str) -> String {
    let is_word = name.chars().all(|character| character.is_alphanumeric() || character == '_');
    match is_word && !name.starts_with(|character: char| character.is_numeric()) {
        true => name.to_owned(),
        false => format!("`{}`", name.replace('`', "``")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(before: &str) -> Vec<String> {
        let names = Names::default();
        {
            let mut known = names.0.lock().unwrap();
            known.relations = vec!["flights".into(), "from here".into()];
            known.functions = vec!["floor".into()];
        }
        let (start, found) = Words::new(names).candidates(before);
        found.into_iter().map(|(text, _)| format!("{}{text}", &before[..start])).collect()
    }

    #[test]
    fn words_follow_the_case_that_is_typed() {
        assert_eq!(completed("select * fro"), ["select * `from here`", "select * from"]);
        assert_eq!(completed("SELECT FLO"), ["SELECT FLOAT", "SELECT FLOOR("]);
        assert_eq!(completed("DESCRIBE fl"), ["DESCRIBE flights", "DESCRIBE float", "DESCRIBE floor("]);
        assert_eq!(completed("é, sel"), ["é, select"]);
        assert!(completed("SELECT ").is_empty());
    }

    #[test]
    fn keys_of_settings_complete_after_set() {
        assert_eq!(completed("SET 'table.dml"), ["SET 'table.dml-sync"]);
        assert_eq!(completed("SELECT 1; reset pipeline.n"), ["SELECT 1; reset pipeline.name"]);
        assert!(completed("SET 'table.dml-sync' = 'tr").contains(&"SET 'table.dml-sync' = 'true".to_owned()));
    }
}
