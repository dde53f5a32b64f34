//! Reading a type from the tokens of a statement.

use std::ops::RangeInclusive;

use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Token};

use super::fault::{Fault, Parse, shorten};
use super::types::{Element, RowField, SqlType};
use super::words::Words;

/// How deep types may nest: reading, printing and dropping them recurse.
const DEPTH_MAX: usize = 50;

/// The longest bounded string, as in Flink.
const LENGTH_MAX: u64 = i32::MAX as u64;

const NAMES: &[&str] = &[
    "ARRAY",
    "BIGINT",
    "BINARY",
    "BOOLEAN",
    "BYTES",
    "CHAR",
    "DATE",
    "DEC",
    "DECIMAL",
    "DOUBLE",
    "FLOAT",
    "INT",
    "INTEGER",
    "INTERVAL",
    "LONG",
    "MAP",
    "MULTISET",
    "NUMERIC",
    "ROW",
    "SMALLINT",
    "STRING",
    "TIME",
    "TIMESTAMP",
    "TIMESTAMP_LTZ",
    "TINYINT",
    "VARBINARY",
    "VARCHAR",
];

/// Takes a type.
pub(super) fn read_type(parser: &mut Parser) -> Parse<SqlType> {
    let mut reader = Reader { parser, closed: 0 };
    let sql_type = reader.sql_type(0)?;
    match reader.closed {
        0 => Ok(sql_type),
        _ => Err(Fault::new("one '>' too many after a type", parser.here())),
    }
}

/// `DECIMAL(precision, scale)`, if there is such a type.
pub(super) fn decimal(precision: u64, scale: u64) -> Option<SqlType> {
    let fits = (1..=38).contains(&precision) && scale <= precision;
    fits.then_some(SqlType::Decimal(precision as u8, scale as u8))
}

/// A parser inside a type.
///
/// The tokenizer makes one token of the `>>` that closes two brackets, so `closed` counts the brackets whose `>` was
/// taken together with the one before.
struct Reader<'r, 'p> {
    parser: &'r mut Parser<'p>,
    closed: usize,
}

impl Reader<'_, '_> {
    fn sql_type(&mut self, depth: usize) -> Parse<SqlType> {
        let at = self.parser.here();
        if depth > DEPTH_MAX {
            return Err(Fault::new(format!("a type nests more than {DEPTH_MAX} levels deep"), at));
        }
        let mut sql_type = self.unwrapped(depth, at)?;
        // The postfix form of the SQL standard: `INT ARRAY`.
        let mut wrapped = depth;
        while self.closed == 0 && wrapped < DEPTH_MAX {
            let element = || Box::new(Element { sql_type: sql_type.clone(), nullable: true });
            sql_type = match () {
                _ if self.parser.word("ARRAY") => SqlType::Array(element()),
                _ if self.parser.word("MULTISET") => SqlType::Multiset(element()),
                _ => break,
            };
            wrapped += 1;
        }
        Ok(sql_type)
    }

    fn unwrapped(&mut self, depth: usize, at: Location) -> Parse<SqlType> {
        let name = match &self.parser.peek().token {
            Token::Word(word) if word.quote_style.is_none() => word.value.clone(),
            _ => return Err(Fault::expected("a type", self.parser.peek())),
        };
        self.parser.advance_token();
        Ok(match name.to_ascii_uppercase().as_str() {
            "BOOLEAN" | "BOOL" => SqlType::Boolean,
            "TINYINT" => SqlType::TinyInt,
            "SMALLINT" => SqlType::SmallInt,
            "INT" | "INTEGER" => SqlType::Int,
            "BIGINT" | "LONG" => SqlType::BigInt,
            "FLOAT" | "REAL" => SqlType::Float,
            "DOUBLE" => {
                self.parser.word("PRECISION");
                SqlType::Double
            }
            "DECIMAL" | "DEC" | "NUMERIC" => self.decimal(at)?,
            "CHAR" | "CHARACTER" if self.parser.word("VARYING") => SqlType::Varchar(self.length()?),
            "CHAR" | "CHARACTER" => SqlType::Char(self.length()?),
            "VARCHAR" => SqlType::Varchar(self.length()?),
            "STRING" | "TEXT" => SqlType::String,
            "BINARY" if self.parser.word("VARYING") => SqlType::Varbinary(self.length()?),
            "BINARY" => SqlType::Binary(self.length()?),
            "VARBINARY" => SqlType::Varbinary(self.length()?),
            "BYTES" => SqlType::Bytes,
            "DATE" => SqlType::Date,
            "TIME" => {
                let digits = self.digits(0)?;
                self.without_zone("TIME has no form with a zone", "use TIMESTAMP_LTZ for an instant")?;
                SqlType::Time(digits)
            }
            "TIMESTAMP" => self.timestamp()?,
            "TIMESTAMP_LTZ" => SqlType::TimestampLtz(self.digits(6)?),
            "INTERVAL" => self.interval()?,
            "ARRAY" => SqlType::Array(self.bracketed_one(depth)?),
            "MULTISET" => SqlType::Multiset(self.bracketed_one(depth)?),
            "MAP" => self.map(depth)?,
            "ROW" => SqlType::Row(self.row(depth)?),
            _ => return Err(Fault::unknown("type", &name, NAMES.iter().copied(), at)),
        })
    }

    fn timestamp(&mut self) -> Parse<SqlType> {
        let digits = self.digits(6)?;
        if self.parser.words(&["WITH", "LOCAL", "TIME", "ZONE"]) {
            return Ok(SqlType::TimestampLtz(digits));
        }
        self.without_zone(
            "TIMESTAMP WITH TIME ZONE keeps a zone with every value, which no column does",
            "use TIMESTAMP_LTZ for an instant",
        )?;
        Ok(SqlType::Timestamp(digits))
    }

    fn without_zone(&mut self, refusal: &str, hint: &str) -> Parse<()> {
        self.parser.words(&["WITHOUT", "TIME", "ZONE"]);
        match self.parser.at_words(&["WITH", "TIME", "ZONE"]) {
            true => Err(Fault::new(refusal, self.parser.here()).hint(hint)),
            false => Ok(()),
        }
    }

    /// `INTERVAL YEAR [(p)] [TO MONTH]`, `INTERVAL MONTH`, or `DAY`, `HOUR`, `MINUTE`, `SECOND` and their ranges.
    fn interval(&mut self) -> Parse<SqlType> {
        let field = |reader: &mut Self| -> Parse<bool> {
            let months = ["YEAR", "QUARTER", "MONTH"].iter().any(|unit| reader.parser.word(unit));
            let found = months || ["DAY", "HOUR", "MINUTE", "SECOND"].iter().any(|unit| reader.parser.word(unit));
            if !found {
                return Err(Fault::expected("YEAR, MONTH, DAY, HOUR, MINUTE or SECOND", reader.parser.peek()));
            }
            reader.number("digits", 0..=9)?;
            Ok(months)
        };
        let months = field(self)?;
        if self.parser.word("TO") && field(self)? != months {
            return Err(Fault::new("an interval is in months or in seconds, not in both", self.parser.taken_to()));
        }
        Ok(if months { SqlType::IntervalYearMonth } else { SqlType::IntervalDaySecond })
    }

    fn decimal(&mut self, at: Location) -> Parse<SqlType> {
        if !self.parser.consume_token(&Token::LParen) {
            return Ok(SqlType::Decimal(10, 0));
        }
        let precision = self.parser.parse_literal_uint()?;
        let scale = if self.parser.consume_token(&Token::Comma) { self.parser.parse_literal_uint()? } else { 0 };
        self.parser.expect(&Token::RParen)?;
        decimal(precision, scale).ok_or_else(|| {
            Fault::new(format!("DECIMAL({precision}, {scale}) does not exist"), at)
                .hint("the precision is 1 to 38, the scale 0 to the precision")
        })
    }

    fn length(&mut self) -> Parse<Option<u32>> {
        Ok(self.number("length", 1..=LENGTH_MAX)?.map(|length| length as u32))
    }

    fn digits(&mut self, default: u8) -> Parse<u8> {
        Ok(self.number("precision", 0..=9)?.map_or(default, |digits| digits as u8))
    }

    /// `(n)`, if there is one.
    fn number(&mut self, what: &str, bounds: RangeInclusive<u64>) -> Parse<Option<u64>> {
        if !self.parser.consume_token(&Token::LParen) {
            return Ok(None);
        }
        let found = self.parser.peek().clone();
        let number = match &found.token {
            Token::Number(number, _) => number.parse::<u64>().ok().filter(|number| bounds.contains(number)),
            _ => None,
        };
        let Some(number) = number else {
            let found = shorten(&found.to_string());
            let message = format!("a {what} is a number from {} to {}, not '{found}'", bounds.start(), bounds.end());
            return Err(Fault::new(message, self.parser.here()));
        };
        self.parser.advance_token();
        self.parser.expect(&Token::RParen)?;
        Ok(Some(number))
    }

    fn bracketed_one(&mut self, depth: usize) -> Parse<Box<Element>> {
        self.parser.expect(&Token::Lt)?;
        let element = self.element(depth)?;
        self.close()?;
        Ok(Box::new(element))
    }

    fn map(&mut self, depth: usize) -> Parse<SqlType> {
        self.parser.expect(&Token::Lt)?;
        let key = self.element(depth)?;
        self.comma()?;
        let value = self.element(depth)?;
        self.close()?;
        Ok(SqlType::Map(Box::new(key), Box::new(value)))
    }

    /// `<a t 'comment', …>`, `(a t, …)`, or either without fields.
    fn row(&mut self, depth: usize) -> Parse<Vec<RowField>> {
        // `<>` is one token, the operator.
        if self.parser.consume_token(&Token::Neq) {
            return Ok(vec![]);
        }
        if self.parser.peek().token == Token::LParen {
            return self.parser.list(|parser| {
                let mut reader = Reader { parser, closed: 0 };
                let field = reader.row_field(depth)?;
                if reader.closed == 0 { Ok(field) } else { Err(Fault::expected("')'", reader.parser.peek())) }
            });
        }
        self.parser.expect(&Token::Lt)?;
        let mut fields = vec![self.row_field(depth)?];
        while self.closed == 0 && self.parser.consume_token(&Token::Comma) {
            fields.push(self.row_field(depth)?);
        }
        self.close()?;
        Ok(fields)
    }

    fn row_field(&mut self, depth: usize) -> Parse<RowField> {
        let name = self.parser.identifier("a field name")?.value;
        let element = self.element(depth)?;
        let commented = self.closed == 0 && matches!(self.parser.peek().token, Token::SingleQuotedString(_));
        let comment = if commented { Some(self.parser.string("a comment")?) } else { None };
        Ok(RowField { name, element, comment })
    }

    fn element(&mut self, depth: usize) -> Parse<Element> {
        let sql_type = self.sql_type(depth + 1)?;
        let nullable = self.closed > 0 || !self.parser.words(&["NOT", "NULL"]);
        if nullable && self.closed == 0 {
            self.parser.word("NULL");
        }
        Ok(Element { sql_type, nullable })
    }

    fn comma(&mut self) -> Parse<()> {
        if self.closed > 0 {
            return Err(Fault::new("a '>' closes a type that has a part to come", self.parser.here()));
        }
        self.parser.expect(&Token::Comma)
    }

    fn close(&mut self) -> Parse<()> {
        if self.closed > 0 {
            self.closed -= 1;
        } else if self.parser.consume_token(&Token::ShiftRight) {
            self.closed += 1;
        } else {
            self.parser.expect(&Token::Gt)?;
        }
        Ok(())
    }
}
