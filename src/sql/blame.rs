//! Where in the text an error of planning comes from, when it does not say so itself.
//!
//! Type errors name types and seldom a place. So a statement that fails is planned again with one expression after the other
//! replaced by NULL, which has every type: the fault lies in the smallest one without which all is well, or, where each of two
//! parts alone would mend it, in the whole that they are parts of.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Spanned, Value, Visitor, VisitorMut};
use datafusion::sql::sqlparser::tokenizer::Location;
use tidemill_core::{Error, ErrorKind, Result};

use super::error::{at, has_place};
use super::parser::{Parsed, walk, walk_mut};
use super::planner::Planner;
use super::planner::repair::queries;
use super::session::Session;

/// How often a failing statement is planned again at most.
const ATTEMPTS_MAX: usize = 100;

impl Session {
    /// The error that `parsed` gave, with its place where it has none and one can be found.
    pub(super) async fn placed(&self, parsed: &Parsed, error: Error) -> Error {
        match error.kind() == ErrorKind::Request && !has_place(&error) {
            true => self.blamed(parsed, &error).await.map_or(error.clone(), |place| at(error, place)),
            false => error,
        }
    }

    async fn blamed(&self, parsed: &Parsed, error: &Error) -> Option<Location> {
        // What other steps found wrong, planning knows nothing of.
        let again = self.plan_without(parsed, usize::MAX).await;
        if !again.is_err_and(|again| again.message() == error.message()) {
            return None;
        }
        let tree = ExprTree::of(parsed);
        let (mut found, mut attempts) = (None, 0);
        loop {
            let mut mends = Vec::new();
            for node in tree.children(found) {
                if attempts == ATTEMPTS_MAX {
                    break;
                }
                attempts += 1;
                if self.plan_without(parsed, node).await.is_ok() {
                    mends.push(node);
                }
            }
            found = match (found, mends.as_slice()) {
                (_, [only]) => Some(*only),
                (None, [first, ..]) => Some(*first),
                _ => break,
            };
        }
        tree.place(found?)
    }

    /// Plans the statement's queries with the expression number `node` replaced by NULL.
    async fn plan_without(&self, parsed: &Parsed, node: usize) -> Result<()> {
        let state = self.state();
        let plan = |planner: &Planner<'_>, parsed: &Parsed| {
            let mut eraser = Eraser { node, next: 0 };
            for mut query in queries(&parsed.statement) {
                walk_mut(&mut query, &mut eraser);
                state.optimize(&planner.query(&query)?)?;
            }
            Ok(())
        };
        self.mended(&state, parsed, 0, plan).await.map(drop)
    }
}

/// The expressions of a statement, numbered as they are visited.
struct ExprTree {
    nodes: Vec<Node>,
}

struct Node {
    parent: Option<usize>,
    place: Location,
}

impl ExprTree {
    fn of(parsed: &Parsed) -> Self {
        let mut collector = Collector { tree: Self { nodes: Vec::new() }, path: Vec::new() };
        for query in queries(&parsed.statement) {
            walk(&query, &mut collector);
        }
        collector.tree
    }

    fn children(&self, parent: Option<usize>) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(move |node| self.nodes[*node].parent == parent)
    }

    /// Where an expression begins: its own place, else that of the first part which has one.
    fn place(&self, node: usize) -> Option<Location> {
        let place = self.nodes[node].place;
        if place.line > 0 {
            return Some(place);
        }
        self.children(Some(node)).find_map(|part| self.place(part))
    }
}

struct Collector {
    tree: ExprTree,
    path: Vec<usize>,
}

impl Visitor for Collector {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.path.push(self.tree.nodes.len());
        let parent = self.path.len().checked_sub(2).map(|above| self.path[above]);
        self.tree.nodes.push(Node { parent, place: expr.span().start });
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<()> {
        self.path.pop();
        ControlFlow::Continue(())
    }
}

/// Replaces one expression.
struct Eraser {
    node: usize,
    next: usize,
}

impl VisitorMut for Eraser {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let number = self.next;
        self.next += 1;
        if number == self.node {
            *expr = Expr::Value(Value::Null.into());
            // Those that come behind keep their numbers no longer, and are not asked for.
        }
        ControlFlow::Continue(())
    }
}
