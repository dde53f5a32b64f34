//! The shell: statements typed one after the other, on as many lines as they need.

mod complete;
mod help;
mod highlight;
mod prompt;

use reedline::{
    ColumnarMenu, DefaultHinter, EditCommand, Emacs, FileBackedHistory, KeyCode, KeyModifiers, MenuBuilder, Reedline,
    ReedlineEvent, ReedlineMenu, Signal, default_emacs_keybindings,
};
use tidemill::sql::parser::parse_script;
use tidemill_core::{Error, Result};

use super::config::xdg;
use super::jobs::Jobs;
use super::report::Stop;
use super::runner::Runner;
use super::terminal::{counted, may_colour};
use complete::{Names, Words};
use highlight::Colours;
use prompt::{Complete, Line, STATEMENT};

pub use help::HELP;

const HISTORY_LINES: usize = 10_000;
const MENU: &str = "completion";

/// Reads and runs statements until someone leaves.
pub fn run(runner: &mut Runner) -> Result<(), Stop> {
    let names = Names::default();
    names.set_functions(functions(runner));
    let mut editor = editor(names.clone(), runner);
    runner.reporter().note(&format!("tidemill {}; HELP lists the statements, QUIT leaves", env!("CARGO_PKG_VERSION")));
    loop {
        runner.news();
        names.refresh(runner.session());
        let leaves = match editor.read_line(&STATEMENT) {
            Ok(Signal::Success(text)) => match statements(runner, &text) {
                Err(Stop::Quit) => true,
                Err(stop @ (Stop::Closed | Stop::Terminated)) => return Err(stop),
                _ => false,
            },
            Ok(Signal::CtrlD) => true,
            Ok(_) => false,
            Err(error) => return Err(Stop::Failed(Error::unavailable(format!("cannot read the terminal: {error}")))),
        };
        if leaves && may_leave(runner) {
            return Ok(());
        }
    }
}

/// Runs what was typed; what goes wrong is said, and the shell goes on.
fn statements(runner: &mut Runner, text: &str) -> Result<(), Stop> {
    let ended = parse_script(text)
        .map_err(Stop::from)
        .and_then(|statements| statements.iter().try_for_each(|statement| runner.statement(statement)));
    let ended = ended.map_err(|stop| stop.in_text(text));
    match &ended {
        Err(Stop::Failed(_) | Stop::FailedAt(..)) => {
            // The exit code is for when the shell itself ends.
            if let Err(stop) = &ended {
                let _ = runner.reporter().stopped(stop);
            }
        }
        Err(Stop::Interrupted) => runner.reporter().note("cancelled"),
        _ => {}
    }
    ended
}

/// Asks, if jobs would end with the shell.
fn may_leave(runner: &mut Runner) -> bool {
    let running = Jobs::running(runner.session());
    if running.is_empty() {
        return true;
    }
    let names: Vec<String> = running.iter().map(|job| format!("job {} ({})", job.id, job.handle.name())).collect();
    let text = format!("{} would end with the shell: {}", counted(names.len() as u64, "running job"), names.join(", "));
    runner.reporter().note(&text);
    let question = Line { first: "leave? [y/N] ", more: "" };
    match Reedline::create().read_line(&question) {
        Ok(Signal::Success(answer)) => ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()),
        // Ctrl-D once more is an answer; so is a terminal that went away.
        Ok(Signal::CtrlD) | Err(_) => true,
        Ok(_) => false,
    }
}

fn editor(names: Names, runner: &mut Runner) -> Reedline {
    let mut keys = default_emacs_keybindings();
    let menu = vec![ReedlineEvent::Menu(MENU.to_owned()), ReedlineEvent::MenuNext];
    keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, ReedlineEvent::UntilFound(menu));
    keys.add_binding(KeyModifiers::SHIFT, KeyCode::BackTab, ReedlineEvent::MenuPrevious);
    keys.add_binding(KeyModifiers::ALT, KeyCode::Enter, ReedlineEvent::Edit(vec![EditCommand::InsertNewline]));
    let menu = ColumnarMenu::default().with_name(MENU).with_marker("").with_columns(4).with_column_padding(2);
    let mut editor = Reedline::create()
        .with_edit_mode(Box::new(Emacs::new(keys)))
        .with_validator(Box::new(Complete))
        .with_completer(Box::new(Words::new(names)))
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
        .with_quick_completions(true)
        .with_partial_completions(true)
        .use_bracketed_paste(true)
        .with_ansi_colors(may_colour());
    if may_colour() {
        let hints = DefaultHinter::default().with_style(reedline::Color::DarkGray.normal());
        editor = editor.with_hinter(Box::new(hints)).with_highlighter(Box::new(Colours));
    }
    match history() {
        Ok(Some(history)) => editor = editor.with_history(Box::new(history)),
        Ok(None) => {}
        Err(error) => runner.reporter().warn(&error.to_string()),
    }
    editor
}

/// The history of earlier shells; none where there is no home for it.
fn history() -> Result<Option<FileBackedHistory>> {
    let Some(folder) = xdg("XDG_STATE_HOME", ".local/state").map(|state| state.join("tidemill")) else {
        return Ok(None);
    };
    let file = folder.join("history");
    let failed = |error: String| Error::unavailable(format!("no history: '{}': {error}", file.display()));
    std::fs::create_dir_all(&folder).map_err(|error| failed(error.to_string()))?;
    let history = FileBackedHistory::with_file(HISTORY_LINES, file.clone());
    history.map(Some).map_err(|error| failed(error.to_string()))
}

/// The names of all functions; completion does without them if they cannot be had.
fn functions(runner: &mut Runner) -> Vec<String> {
    use arrow::array::AsArray;
    let Ok(statements) = parse_script("SHOW FUNCTIONS") else { return Vec::new() };
    let rows = statements.first().and_then(|statement| runner.rows(statement).ok().flatten());
    let batches = rows.map(|rows| rows.batches).unwrap_or_default();
    let names = batches.iter().filter_map(|batch| batch.columns().first()?.as_string_opt::<i32>());
    names.flat_map(|names| names.iter().flatten().map(str::to_owned)).collect()
}
