//! The grammar, which computes as it reads: sums of products of signed powers.
//!
//! Invariants: `**` binds tighter than a sign on its left and looser than one on its right (`-2**-1` is `-(2**(-1))`), and groups from the
//! right; all others group from the left. Recursion is bounded by the length of the text, and parentheses by their own limit.

use super::number::{Division, Number};
use super::token::{Token, tokens};
use super::{Invalid, PARENTHESES_MAX};

/// A text that is being read.
pub(super) struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    open: usize,
    end: usize,
    division: Division,
}

impl Parser {
    pub(super) fn new(text: &str, division: Division) -> Result<Self, Invalid> {
        Ok(Self {
            tokens: tokens(text)?,
            next: 0,
            open: 0,
            end: text.len(),
            division,
        })
    }

    /// The value of the whole text.
    pub(super) fn whole(mut self) -> Result<Number, Invalid> {
        let value = self.sum()?;
        match self.tokens.get(self.next) {
            None => Ok(value),
            Some((at, _)) => Err(Invalid::Syntax { at: *at }),
        }
    }

    fn sum(&mut self) -> Result<Number, Invalid> {
        let mut sum = self.product()?;
        loop {
            sum = if self.take(&Token::Plus) {
                sum.plus(self.product()?)?
            } else if self.take(&Token::Minus) {
                sum.minus(self.product()?)?
            } else {
                return Ok(sum);
            };
        }
    }

    fn product(&mut self) -> Result<Number, Invalid> {
        let mut product = self.signed()?;
        loop {
            product = if self.take(&Token::Times) {
                product.times(self.signed()?)?
            } else if self.take(&Token::Over) {
                product.over(self.signed()?, self.division)?
            } else if self.take(&Token::FloorOver) {
                product.floor_over(self.signed()?)?
            } else if self.take(&Token::Modulo) {
                product.modulo(self.signed()?)?
            } else {
                return Ok(product);
            };
        }
    }

    fn signed(&mut self) -> Result<Number, Invalid> {
        let mut negative = false;
        loop {
            if self.take(&Token::Minus) {
                negative = !negative;
            } else if !self.take(&Token::Plus) {
                break;
            }
        }
        let value = self.power()?;
        Ok(if negative { value.negated() } else { value })
    }

    fn power(&mut self) -> Result<Number, Invalid> {
        let base = self.atom()?;
        if self.take(&Token::Power) {
            base.power(self.signed()?)
        } else {
            Ok(base)
        }
    }

    fn atom(&mut self) -> Result<Number, Invalid> {
        let Some((at, token)) = self.tokens.get(self.next).cloned() else {
            return Err(Invalid::Syntax { at: self.end });
        };
        self.next += 1;
        match token {
            Token::Integer(value) => Ok(Number::Integer(value)),
            Token::Float(value) => Ok(Number::Float(value)),
            Token::Open => {
                if self.open == PARENTHESES_MAX {
                    return Err(Invalid::TooDeep);
                }
                self.open += 1;
                let value = self.sum()?;
                self.open -= 1;
                if self.take(&Token::Close) {
                    Ok(value)
                } else {
                    let at = self.tokens.get(self.next).map_or(self.end, |(at, _)| *at);
                    Err(Invalid::Syntax { at })
                }
            }
            Token::Plus
            | Token::Minus
            | Token::Times
            | Token::Over
            | Token::FloorOver
            | Token::Modulo
            | Token::Power
            | Token::Close => Err(Invalid::Syntax { at }),
        }
    }

    fn take(&mut self, wanted: &Token) -> bool {
        let found = self
            .tokens
            .get(self.next)
            .is_some_and(|(_, token)| token == wanted);
        self.next += usize::from(found);
        found
    }
}
