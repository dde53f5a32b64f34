//! How deep a statement may nest: each level of its tree takes its share of the stack in whoever walks it.
//!
//! sqlparser counts brackets. What it does not count are chains: `a + b + c` is a tree as deep as the chain is long, and so is
//! `q UNION q UNION q`.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::fault::{Fault, Parse};

/// The most operators in one chain.
const CHAIN_MAX: usize = 1_000;

/// The most brackets and `CASE`s within each other: sqlparser gives up a little later, in other words.
const NESTED_MAX: usize = 45;

/// How many operators a `NOT` or a subscript counts for: parser and planner take more of the stack, and of time, for them.
const HEAVY: usize = 25;

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
    let mut is_behind_word = false;
    for token in tokens {
        let is_word = matches!(&token.token, Token::Word(word) if word.quote_style.is_none());
        // `INTERVAL INTERVAL`, `COLLATE c COLLATE d`: words that are operators.
        open.operators += usize::from(is_word && is_behind_word);
        is_behind_word = is_word || is_behind_word && matches!(token.token, Token::Whitespace(_));
        match &token.token {
            Token::LParen => outer.push(std::mem::take(&mut open)),
            Token::LBracket => {
                open.operators += HEAVY;
                outer.push(std::mem::take(&mut open));
            }
            Token::RParen | Token::RBracket => open = outer.pop().unwrap_or_default(),
            Token::Comma | Token::SemiColon => (open.conditions, open.operators) = (0, 0),
            Token::Word(word) => match word.keyword {
                Keyword::CASE => outer.push(std::mem::take(&mut open)),
                Keyword::END => open = outer.pop().unwrap_or_default(),
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::JOIN => {
                    open = Chains { queries: open.queries + 1, ..Chains::default() };
                }
                Keyword::AND | Keyword::OR => open = Chains { operators: 0, conditions: open.conditions + 1, ..open },
                Keyword::NOT => open.operators += HEAVY,
                Keyword::LIKE | Keyword::IN | Keyword::IS => open.operators += 1,
                _ if BEGIN_A_TREE.contains(&word.keyword) => (open.conditions, open.operators) = (0, 0),
                _ => {}
            },
            Token::Whitespace(_) | Token::Number(..) | Token::SingleQuotedString(_) | Token::Period | Token::EOF => {}
            // Whatever else may stand between two operands.
            _ => open.operators += 1,
        }
        if outer.len() > NESTED_MAX {
            let fault = format!("more than {NESTED_MAX} brackets or CASEs within each other");
            return Err(Fault::new(fault, token.span.start).hint("use views or WITH for parts of a deep query"));
        }
        if open.longest() > CHAIN_MAX {
            let fault = Fault::new(format!("a chain of more than {CHAIN_MAX} operators"), token.span.start);
            return Err(fault.hint("use IN or VALUES for many values, and views for parts of a long query"));
        }
    }
    Ok(())
}
