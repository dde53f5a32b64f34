//! Window table functions: `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' SECOND))` and its kin.
//!
//! sqlparser reads them as `TableFactor::TableFunction` over a function call whose table argument is a subquery (see
//! `expressions.rs`). [`window_tvf`] turns that back into what was meant, whether the arguments were named or in order.

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Query, SetExpr, TableFactor,
};
use datafusion::sql::sqlparser::tokenizer::Location;
use tidemill_core::Result;

use super::expressions::{derived, plain_table, select_all};
use super::fault::{Fault, Parse};

/// A window table function: its input, with the window of each row as further columns.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowTvf {
    /// How time is cut, and by what lengths.
    pub kind: WindowKind,
    /// The rows.
    pub input: WindowInput,
    /// `PARTITION BY` after the input: sessions are found in each partition on its own.
    pub partition_by: Vec<Expr>,
    /// The column in `DESCRIPTOR`.
    pub time_column: Ident,
    /// How far windows are shifted from the epoch.
    pub offset: Option<Expr>,
}

/// How a [`WindowTvf`] cuts time; the lengths are intervals.
#[derive(Clone, Debug, PartialEq)]
pub enum WindowKind {
    /// Windows of `size`, end to end.
    Tumble {
        /// The length of a window.
        size: Expr,
    },
    /// Windows of `size`, one beginning every `slide`.
    Hop {
        /// From one window's begin to the next's.
        slide: Expr,
        /// The length of a window.
        size: Expr,
    },
    /// Windows of `size`, each shown as it grows by `step`.
    Cumulate {
        /// By how much a window grows.
        step: Expr,
        /// The length of a full window.
        size: Expr,
    },
    /// Windows that end where no row came for `gap`.
    Session {
        /// The silence that ends a window.
        gap: Expr,
    },
}

/// The rows that go into a [`WindowTvf`].
#[derive(Clone, Debug, PartialEq)]
pub enum WindowInput {
    /// `TABLE t`
    Table(ObjectName),
    /// `TABLE (query)` or `(query)`
    Query(Box<Query>),
}

impl WindowInput {
    /// The input as a relation, for a planner to plan.
    pub fn to_relation(&self) -> Result<TableFactor> {
        match self {
            Self::Table(name) => plain_table(name.clone()).map_err(|error| Fault::from(error).into_error()),
            Self::Query(query) => Ok(derived(query.clone())),
        }
    }
}

/// The window table function that `factor` is, if it is one; an error says what is wrong with its arguments.
pub fn window_tvf(factor: &TableFactor) -> Option<Result<WindowTvf>> {
    let (name, args) = call(factor)?;
    let [name] = name.0.as_slice() else { return None };
    let name = name.as_ident()?;
    let signature = SIGNATURES.iter().find(|signature| name.value.eq_ignore_ascii_case(signature.name))?;
    Some(signature.bind(args, name.span.start).map_err(Fault::into_error))
}

/// The function call of a table factor.
pub(super) fn call(factor: &TableFactor) -> Option<(&ObjectName, &[FunctionArg])> {
    match factor {
        TableFactor::TableFunction { expr: Expr::Function(function), .. } => match &function.args {
            FunctionArguments::List(list) => Some((&function.name, &list.args)),
            FunctionArguments::None | FunctionArguments::Subquery(_) => Some((&function.name, &[])),
        },
        TableFactor::Table { name, args: Some(args), .. } => Some((name, &args.args)),
        TableFactor::Function { name, args, .. } => Some((name, args)),
        _ => None,
    }
}

/// The parameters of a table function, in order; the last ones may be left out.
pub(super) struct Signature {
    pub name: &'static str,
    pub parameters: &'static [&'static str],
    pub example: &'static str,
}

const SIGNATURES: [Signature; 4] = [
    Signature {
        name: "TUMBLE",
        parameters: &["DATA", "TIMECOL", "SIZE", "OFFSET"],
        example: "TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)",
    },
    Signature {
        name: "HOP",
        parameters: &["DATA", "TIMECOL", "SLIDE", "SIZE", "OFFSET"],
        example: "HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE)",
    },
    Signature {
        name: "CUMULATE",
        parameters: &["DATA", "TIMECOL", "STEP", "SIZE", "OFFSET"],
        example: "CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '1' HOUR)",
    },
    Signature {
        name: "SESSION",
        parameters: &["DATA", "TIMECOL", "GAP"],
        example: "SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '1' MINUTE)",
    },
];

impl Signature {
    fn bind(&self, args: &[FunctionArg], at: Location) -> Parse<WindowTvf> {
        let mut values = self.values(args, at)?;
        let mut take = |parameter: &str| {
            let index = self.parameters.iter().position(|known| *known == parameter);
            index.and_then(|index| values[index].take())
        };
        let mut required = |parameter: &str| {
            take(parameter)
                .ok_or_else(|| Fault::new(format!("{} has no {parameter}", self.name), at).hint(self.usage()))
        };
        let (data, time) = (required("DATA")?, required("TIMECOL")?);
        let kind = match self.name {
            "TUMBLE" => WindowKind::Tumble { size: required("SIZE")? },
            "HOP" => WindowKind::Hop { slide: required("SLIDE")?, size: required("SIZE")? },
            "CUMULATE" => WindowKind::Cumulate { step: required("STEP")?, size: required("SIZE")? },
            _ => WindowKind::Session { gap: required("GAP")? },
        };
        let (input, partition_by) = self.input(data, at)?;
        Ok(WindowTvf { kind, input, partition_by, time_column: self.time_column(time, at)?, offset: take("OFFSET") })
    }

    /// The argument of each parameter.
    pub fn values(&self, args: &[FunctionArg], at: Location) -> Parse<Vec<Option<Expr>>> {
        let mut values = vec![None; self.parameters.len()];
        for (position, arg) in args.iter().enumerate() {
            let (index, value) = match arg {
                FunctionArg::Unnamed(value) => (position, value),
                FunctionArg::Named { name, arg, .. } => {
                    let is_name = |known: &&str| name.value.eq_ignore_ascii_case(known);
                    let index = self.parameters.iter().position(is_name).ok_or_else(|| {
                        let thing = format!("parameter of {}", self.name);
                        Fault::unknown(&thing, &name.value, self.parameters.iter().copied(), name.span.start)
                    })?;
                    (index, arg)
                }
                FunctionArg::ExprNamed { .. } => return Err(self.refuse("a parameter's name is a word", at)),
            };
            let FunctionArgExpr::Expr(value) = value else {
                return Err(self.refuse("'*' is no argument", at));
            };
            match values.get_mut(index) {
                Some(slot @ None) => *slot = Some(value.clone()),
                Some(Some(_)) => return Err(self.refuse(&format!("{} is given twice", self.parameters[index]), at)),
                None => return Err(self.refuse(&format!("{} arguments are too many", args.len()), at)),
            }
        }
        Ok(values)
    }

    /// `TABLE t`, `TABLE (query)` or `(query)`, and how it is partitioned.
    fn input(&self, data: Expr, at: Location) -> Parse<(WindowInput, Vec<Expr>)> {
        let Expr::Subquery(query) = data else {
            return Err(self.refuse("the input is not a table", at));
        };
        Ok(match table_argument(&query)? {
            Some((relation, partition_by)) => (relation, partition_by),
            None => (WindowInput::Query(query), vec![]),
        })
    }

    fn time_column(&self, time: Expr, at: Location) -> Parse<Ident> {
        if let Expr::Function(function) = &time
            && function.name.to_string().eq_ignore_ascii_case("DESCRIPTOR")
            && let FunctionArguments::List(list) = &function.args
            && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(column)))] = list.args.as_slice()
        {
            return Ok(column.clone());
        }
        Err(self.refuse("the time column is not DESCRIPTOR of one column", at))
    }

    fn refuse(&self, why: &str, at: Location) -> Fault {
        Fault::new(format!("{}: {why}", self.name), at).hint(self.usage())
    }

    pub fn usage(&self) -> String {
        format!("write {}", self.example)
    }
}

/// What `TABLE … PARTITION BY …` was, if `query` is exactly what that becomes.
fn table_argument(query: &Query) -> Parse<Option<(WindowInput, Vec<Expr>)>> {
    let SetExpr::Select(select) = query.body.as_ref() else { return Ok(None) };
    let [from] = select.from.as_slice() else { return Ok(None) };
    if *query != select_all(from.relation.clone(), select.distribute_by.clone())? {
        return Ok(None);
    }
    let input = match &from.relation {
        TableFactor::Table { name, .. } if from.relation == plain_table(name.clone())? => {
            WindowInput::Table(name.clone())
        }
        TableFactor::Derived { lateral: false, subquery, alias: None, sample: None } => {
            WindowInput::Query(subquery.clone())
        }
        _ => return Ok(None),
    };
    Ok(Some((input, select.distribute_by.clone())))
}
