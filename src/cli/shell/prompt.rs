//! What stands before the line that is typed.

use std::borrow::Cow;

use reedline::{Prompt, PromptEditMode, PromptHistorySearch, PromptHistorySearchStatus, ValidationResult, Validator};
use tidemill::sql::parser::{is_complete, parse_script};

/// The prompt of the shell, or a question.
#[derive(Debug)]
pub struct Line {
    /// Before the first line.
    pub first: &'static str,
    /// Before the lines that go on with a statement.
    pub more: &'static str,
}

/// The prompt of the shell.
pub const STATEMENT: Line = Line { first: "tidemill> ", more: "       -> " };

impl Prompt for Line {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.first)
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.more)
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        let found = match search.status {
            PromptHistorySearchStatus::Passing => "history",
            PromptHistorySearchStatus::Failing => "not in the history",
        };
        Cow::Owned(format!("({found}: {}) ", search.term))
    }
}

/// Enter runs complete statements and nothing; it begins a new line in an incomplete one.
#[derive(Debug)]
pub struct Complete;

impl Validator for Complete {
    fn validate(&self, line: &str) -> ValidationResult {
        // Text without a statement, such as a comment, has nothing to wait for.
        let is_empty = || parse_script(line).is_ok_and(|statements| statements.is_empty());
        match is_complete(line) || is_empty() {
            true => ValidationResult::Complete,
            false => ValidationResult::Incomplete,
        }
    }
}
