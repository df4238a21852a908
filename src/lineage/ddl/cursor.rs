//! Tokens, read one after the other.

use super::lex::Token;
use super::{NAMES_MAX, Table};

/// Reads tokens one after the other.
pub(super) struct Cursor<'a> {
    pub rest: &'a [Token],
}

impl<'a> Cursor<'a> {
    pub fn next(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// Takes a keyword if it is the next.
    pub fn eat(&mut self, keyword: &str) -> bool {
        let found = self.rest.first().is_some_and(|token| token.is(keyword));
        if found {
            self.next();
        }
        found
    }

    pub fn eat_all(&mut self, keywords: &[&str]) -> bool {
        let found = keywords
            .iter()
            .zip(0..)
            .all(|(keyword, at)| self.rest.get(at).is_some_and(|token: &Token| token.is(keyword)));
        if found {
            self.rest = self.rest.get(keywords.len()..).unwrap_or(&[]);
        }
        found
    }

    pub fn eat_sign(&mut self, sign: char) -> bool {
        let found = self.rest.first() == Some(&Token::Sign(sign));
        if found {
            self.next();
        }
        found
    }

    pub fn word(&mut self) -> Option<String> {
        match self.rest.first()? {
            Token::Word { text, .. } => {
                self.next();
                Some(text.clone())
            }
            _ => None,
        }
    }

    /// `name` or `schema.name`; of three parts the last two.
    pub fn table(&mut self) -> Option<Table> {
        let mut table = Table { schema: None, name: self.word()? };
        while self.eat_sign('.') {
            let name = self.word()?;
            table = Table { schema: Some(table.name), name };
        }
        Some(table)
    }

    /// Tables between commas; at least one.
    pub fn tables(&mut self) -> Option<Vec<Table>> {
        let mut tables = vec![self.table()?];
        while self.eat_sign(',') && tables.len() < NAMES_MAX {
            self.eat("only");
            tables.push(self.table()?);
        }
        Some(tables)
    }

    /// `(PARTITION a ..., PARTITION b ...)`: the names.
    pub fn definitions(&mut self) -> Option<Vec<Table>> {
        if !self.eat_sign('(') {
            return None;
        }
        let mut names = Vec::new();
        let (mut depth, mut at_start) = (1usize, true);
        while depth > 0 && names.len() < NAMES_MAX {
            if at_start && depth == 1 && self.eat("partition") {
                names.push(self.table()?);
                at_start = false;
                continue;
            }
            at_start = false;
            match self.next()? {
                Token::Sign('(') => depth += 1,
                Token::Sign(')') => depth -= 1,
                Token::Sign(',') => at_start = depth == 1,
                _ => {}
            }
        }
        Some(names).filter(|names| !names.is_empty())
    }
}
