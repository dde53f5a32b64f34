//! How deep a statement may nest: each level of its tree takes its share of the stack in whoever walks it.
//!
//! sqlparser counts brackets. What it does not count are chains: `a + b + c` is a tree as deep as the chain is long, and so is
//! `q UNION q UNION q`.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::fault::{Fault, Parse};

/// The most operators in one chain.
const CHAIN_MAX: usize = 1_000;

/// Behind these words begins another tree.
const BEGIN_A_TREE: [Keyword; 9] = [
    Keyword::FROM,
    Keyword::WHERE,
    Keyword::GROUP,
    Keyword::HAVING,
    Keyword::ORDER,
    Keyword::ON,
    Keyword::WHEN,
    Keyword::THEN,
    Keyword::ELSE,
];

/// The operators of the chains that are open at one level of brackets.
#[derive(Clone, Copy, Default)]
struct Chains {
    /// `UNION`, `EXCEPT`, `INTERSECT`, `JOIN`.
    queries: usize,
    /// `AND`, `OR`.
    conditions: usize,
    /// All others, between two of those.
    operators: usize,
}

impl Chains {
    fn longest(self) -> usize {
        self.queries.max(self.conditions + self.operators)
    }
}

/// Refuses a statement with a chain that is too long.
pub(super) fn check(tokens: &[TokenWithSpan]) -> Parse<()> {
    let mut outer: Vec<Chains> = Vec::new();
    let mut open = Chains::default();
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket => outer.push(std::mem::take(&mut open)),
            Token::RParen | Token::RBracket => open = outer.pop().unwrap_or_default(),
            Token::Comma | Token::SemiColon => (open.conditions, open.operators) = (0, 0),
            Token::Word(word) => match word.keyword {
                Keyword::CASE => outer.push(std::mem::take(&mut open)),
                Keyword::END => open = outer.pop().unwrap_or_default(),
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::JOIN => {
                    open = Chains { queries: open.queries + 1, ..Chains::default() };
                }
                Keyword::AND | Keyword::OR => open = Chains { operators: 0, conditions: open.conditions + 1, ..open },
                Keyword::NOT | Keyword::LIKE | Keyword::IN | Keyword::IS => open.operators += 1,
                _ if BEGIN_A_TREE.contains(&word.keyword) => (open.conditions, open.operators) = (0, 0),
                _ => {}
            },
            Token::Whitespace(_) | Token::Number(..) | Token::SingleQuotedString(_) | Token::Period | Token::EOF => {}
            // Whatever else may stand between two operands.
            _ => open.operators += 1,
        }
        if open.longest() > CHAIN_MAX {
            let fault = Fault::new(format!("a chain of more than {CHAIN_MAX} operators"), token.span.start);
            return Err(fault.hint("use IN or VALUES for many values, and views for parts of a long query"));
        }
    }
    Ok(())
}
