//! `DATE_FORMAT(time, pattern)`: text by Flink's patterns (`yyyy-MM-dd HH:mm`) or by those of `TO_CHAR` (`%Y-%m-%d %H:%M`).
//!
//! It becomes `TO_CHAR` while the query is planned; a pattern with a `%` is one of `TO_CHAR`'s.

use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::functions::datetime::to_char;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDFImpl, Signature, lit};
use tidemill_core::Error;

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct DateFormat {
    signature: Signature,
}

impl Default for DateFormat {
    fn default() -> Self {
        Self { signature: to_char().signature().clone() }
    }
}

impl ScalarUDFImpl for DateFormat {
    fn name(&self) -> &str {
        "date_format"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        to_char().return_type(arg_types)
    }

    fn simplify(&self, args: Vec<Expr>, _info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let [time, pattern] =
            <[Expr; 2]>::try_from(args).map_err(|_| refuse("DATE_FORMAT takes a time and a pattern"))?;
        let Expr::Literal(text, _) = &pattern else {
            return Err(refuse("the pattern of DATE_FORMAT is not a literal"));
        };
        let pattern = match text {
            ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)) => {
                lit(if text.contains('%') { text.clone() } else { strftime(text)? })
            }
            _ => pattern,
        };
        Ok(ExprSimplifyResult::Simplified(to_char().call(vec![time, pattern])))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(refuse("the pattern of DATE_FORMAT is not a literal"))
    }
}

/// A pattern of letters, whose number says how wide, as one of `strftime`.
fn strftime(pattern: &str) -> Result<String> {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(letter) = rest.chars().next() {
        let run = rest.chars().take_while(|other| *other == letter).count();
        let mut taken = run * letter.len_utf8();
        match letter {
            '\'' if run % 2 == 0 => out.extend(std::iter::repeat_n('\'', run / 2)),
            '\'' => {
                let quoted = rest[1..].split('\'').next().unwrap_or_default();
                out.push_str(quoted);
                taken = (quoted.len() + 2).min(rest.len());
            }
            'a'..='z' | 'A'..='Z' => {
                let known = PATTERNS.iter().find(|(known, count, _)| *known == letter && *count == run);
                let (_, _, text) = known
                    .ok_or_else(|| refuse(format!("DATE_FORMAT knows no '{}'", letter.to_string().repeat(run))))?;
                out.push_str(text);
            }
            _ => out.extend(std::iter::repeat_n(letter, run)),
        }
        rest = &rest[taken..];
    }
    Ok(out)
}

/// Letters, how many, and what they are to `strftime`.
const PATTERNS: [(char, usize, &str); 28] = [
    ('y', 4, "%Y"),
    ('y', 2, "%y"),
    ('u', 4, "%Y"),
    ('M', 1, "%-m"),
    ('M', 2, "%m"),
    ('M', 3, "%b"),
    ('M', 4, "%B"),
    ('d', 1, "%-d"),
    ('d', 2, "%d"),
    ('D', 3, "%j"),
    ('E', 1, "%a"),
    ('E', 2, "%a"),
    ('E', 3, "%a"),
    ('E', 4, "%A"),
    ('a', 1, "%p"),
    ('H', 1, "%-H"),
    ('H', 2, "%H"),
    ('h', 1, "%-I"),
    ('h', 2, "%I"),
    ('m', 1, "%-M"),
    ('m', 2, "%M"),
    ('s', 1, "%-S"),
    ('s', 2, "%S"),
    ('S', 3, "%3f"),
    ('S', 6, "%6f"),
    ('S', 9, "%9f"),
    ('X', 3, "%:z"),
    ('Z', 1, "%z"),
];

fn refuse(message: impl Into<String>) -> DataFusionError {
    let error = Error::request(message.into()).with_hint("write DATE_FORMAT(time, 'yyyy-MM-dd HH:mm:ss')");
    DataFusionError::External(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_become_percent_signs() {
        assert_eq!(strftime("yyyy-MM-dd HH:mm:ss.SSS").unwrap(), "%Y-%m-%d %H:%M:%S.%3f");
        assert_eq!(strftime("d.M.yy 'um' H 'o''clock'").unwrap(), "%-d.%-m.%y um %-H oclock");
        assert_eq!(strftime("''yyyy''").unwrap(), "'%Y'");
        assert_eq!(strftime("'unclosed").unwrap(), "unclosed");
        let error = strftime("yyyy-QQ").unwrap_err().to_string();
        assert!(error.contains("DATE_FORMAT knows no 'QQ'"), "{error}");
    }
}
