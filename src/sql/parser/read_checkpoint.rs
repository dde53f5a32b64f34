//! The table function that shows the state of a job: `read_checkpoint('URL', operator => '…', state => '…', checkpoint => 7)`.

use datafusion::sql::sqlparser::ast::{Expr, TableFactor, Value, ValueWithSpan};
use datafusion::sql::sqlparser::tokenizer::Location;
use tidemill_core::Result;

use super::fault::{Fault, Parse};
use super::window::{Signature, call};

/// What is to be shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadCheckpoint {
    /// The folder of a savepoint, or of a job's checkpoints.
    pub url: String,
    /// Id, uid or name of an operator; without it all states are listed.
    pub operator: Option<String>,
    /// The name of a state of it; may be left out where it has one.
    pub state: Option<String>,
    /// The number of a checkpoint that is not the newest.
    pub checkpoint: Option<u64>,
}

const SIGNATURE: Signature = Signature {
    name: "READ_CHECKPOINT",
    parameters: &["URL", "OPERATOR", "STATE", "CHECKPOINT"],
    example: "read_checkpoint('folder', operator => 'name, id or uid', state => 'name')",
};

/// The call of `read_checkpoint` that `factor` is, and where it stands; an error says what is wrong with its arguments.
pub fn read_checkpoint(factor: &TableFactor) -> Option<Result<(ReadCheckpoint, Location)>> {
    let (name, args) = call(factor)?;
    let [name] = name.0.as_slice() else { return None };
    let name = name.as_ident().filter(|name| name.value.eq_ignore_ascii_case(SIGNATURE.name))?;
    let at = name.span.start;
    let bound = SIGNATURE.values(args, at).and_then(|values| bind(values, at));
    Some(bound.map(|call| (call, at)).map_err(Fault::into_error))
}

fn bind(values: Vec<Option<Expr>>, at: Location) -> Parse<ReadCheckpoint> {
    let mut values = values.into_iter();
    let mut text = |parameter: &str| match values.next().flatten() {
        None => Ok(None),
        Some(Expr::Value(ValueWithSpan { value, span })) => match value {
            Value::SingleQuotedString(text) | Value::Number(text, _) => Ok(Some(text)),
            Value::Null => Ok(None),
            other => Err(Fault::new(format!("{parameter} is a text, not {other}"), span.start).hint(SIGNATURE.usage())),
        },
        Some(other) => Err(Fault::new(format!("{parameter} is a constant, not {other}"), at).hint(SIGNATURE.usage())),
    };
    let url = text("URL")?;
    let (operator, state, checkpoint) = (text("OPERATOR")?, text("STATE")?, text("CHECKPOINT")?);
    let url = url.filter(|url| !url.trim().is_empty());
    let url = url.ok_or_else(|| Fault::new("READ_CHECKPOINT has no URL", at).hint(SIGNATURE.usage()))?;
    if let (None, Some(state)) = (&operator, &state) {
        let hint = "name the operator as well; without one all states are listed";
        return Err(Fault::new(format!("state '{state}' of which operator?"), at).hint(hint));
    }
    let checkpoint = match checkpoint {
        None => None,
        Some(text) => match text.parse() {
            Ok(number) => Some(number),
            Err(_) => {
                return Err(Fault::new(format!("CHECKPOINT is a number, not '{text}'"), at).hint(SIGNATURE.usage()));
            }
        },
    };
    Ok(ReadCheckpoint { url, operator, state, checkpoint })
}
