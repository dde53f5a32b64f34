//! Type errors in our words: SQL's names of types, and what to do.

use tidemill_core::Error;
use tidemill_exec::error::sql_types;

/// The most signatures of a function that a hint lists.
const SIGNATURES_MAX: usize = 8;

/// What DataFusion's planner says of types, reworded; `None` if `text` speaks of something else.
pub fn type_error(text: &str) -> Option<Error> {
    if let Some((_, rest)) = text.split_once("No function matches the given name and argument types '") {
        return no_function(rest);
    }
    let hint = match text {
        _ if text.contains("non-boolean") => "compare it with something, or CAST it to BOOLEAN",
        _ if text.contains("coerce") || text.contains(" common ") => "CAST one of them to the type of the other",
        _ if text.starts_with("Incompatible inputs") => "CAST the columns of one query to the types of the other's",
        _ => return None,
    };
    Some(Error::request(sql_types(&super::error::sentence(text))).with_hint(hint))
}

/// `name(Utf8)'. … Candidate functions:\n\tname(Int64)\n`
fn no_function(rest: &str) -> Option<Error> {
    let (call, rest) = rest.split_once('\'')?;
    let error = Error::request(format!("there is no {}", sql_types(call)));
    let (_, list) = rest.split_once("Candidate functions:")?;
    let known: Vec<String> =
        list.lines().map(str::trim).filter(|line| !line.is_empty()).take(SIGNATURES_MAX).map(sql_types).collect();
    Some(error.with_hint(format!("CAST its arguments to those of {}", known.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(type_error(text).map(|error| error.to_string()).as_deref(), Some(expected));
    }

    #[test]
    fn types_have_the_names_of_sql() {
        check(
            "Cannot infer common argument type for comparison operation Boolean < Int64",
            "cannot infer common argument type for comparison operation BOOLEAN < BIGINT; CAST one of them to the type of the \
             other",
        );
        check(
            "Function 'upper' expects 1 arguments but received 2. No function matches the given name and argument types \
             'upper(Int64, Utf8)'. You might need to add explicit type casts.\n\tCandidate functions:\n\tupper(String)\n\t",
            "there is no upper(BIGINT, STRING); CAST its arguments to those of upper(STRING)",
        );
        assert!(type_error("table 'x' not found").is_none());
    }
}
