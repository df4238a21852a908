//! Tokens of SQL as PostgreSQL and MariaDB write it: just enough to tell words from what stands in quotes and comments. To
//! one `#` begins a comment, to the other an operator; a backslash in quotes keeps the quote behind it for one alone.

use super::Dialect;

/// A token. Literals have no text: nothing here asks for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Token {
    /// A word, folded to lower case, or a quoted identifier as it is.
    Word {
        text: String,
        quoted: bool,
    },
    Sign(char),
    Literal,
}

impl Token {
    /// Whether it is a keyword.
    pub fn is(&self, keyword: &str) -> bool {
        matches!(self, Token::Word { text, quoted: false } if text == keyword)
    }
}

/// The tokens of a text, and where its statements end: behind which token, and from which byte to which.
#[derive(Default)]
pub(super) struct Lexed {
    pub tokens: Vec<Token>,
    pub ends: Vec<(usize, usize, usize)>,
}

/// Takes a text apart. What begins and does not end goes to the end of the text.
pub(super) fn lex(dialect: Dialect, text: &str) -> Lexed {
    let mut lexed = Lexed::default();
    let mut begin = 0;
    let mut rest = text;
    let at = |rest: &str| text.len() - rest.len();
    while let Some(first) = rest.chars().next() {
        let (token, len) = one(dialect, rest, first);
        match token {
            Some(Token::Sign(';')) => {
                lexed.ends.push((lexed.tokens.len(), begin, at(rest)));
                begin = at(rest) + 1;
            }
            Some(token) => lexed.tokens.push(token),
            None => {}
        }
        rest = rest.get(len.max(first.len_utf8())..).unwrap_or("");
    }
    lexed.ends.push((lexed.tokens.len(), begin, text.len()));
    lexed
}

/// The token at the beginning, and its bytes; none for space and comments.
fn one(dialect: Dialect, rest: &str, first: char) -> (Option<Token>, usize) {
    let is_mariadb = dialect == Dialect::Mariadb;
    if first.is_whitespace() {
        return (None, first.len_utf8());
    }
    if rest.starts_with("--") || first == '#' && is_mariadb {
        return (None, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        // MySQL runs what stands in /*! ... */ and /*M! ... */.
        let run = ["/*!", "/*M!"].iter().find(|begin| rest.starts_with(**begin));
        return match run {
            Some(begin) => {
                let digits =
                    rest.get(begin.len()..).unwrap_or("").bytes().take_while(u8::is_ascii_digit).count();
                (None, begin.len() + digits)
            }
            None => (None, comment(rest)),
        };
    }
    if rest.starts_with("*/") {
        return (None, 2);
    }
    match first {
        '\'' => (Some(Token::Literal), quoted(rest, '\'', is_mariadb).1),
        // PostgreSQL's strings with escapes.
        'e' | 'E' if !is_mariadb && rest.get(1..).is_some_and(|rest| rest.starts_with('\'')) => {
            (Some(Token::Literal), 1 + quoted(rest.get(1..).unwrap_or(""), '\'', true).1)
        }
        '"' | '`' => {
            let (text, len) = quoted(rest, first, first == '"' && is_mariadb);
            (Some(Token::Word { text, quoted: true }), len)
        }
        '$' => dollar(rest).map_or((Some(Token::Sign('$')), 1), |len| (Some(Token::Literal), len)),
        c if c.is_ascii_digit() => {
            let len = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'.').count();
            (Some(Token::Literal), len)
        }
        c if c.is_alphabetic() || c == '_' => {
            let len =
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(rest.len());
            let text = rest.get(..len).unwrap_or("").to_lowercase();
            (Some(Token::Word { text, quoted: false }), len)
        }
        c => (Some(Token::Sign(c)), c.len_utf8()),
    }
}

/// Bytes of a comment, which may hold others.
fn comment(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let (mut depth, mut at) = (0usize, 0);
    while at < bytes.len() {
        match (bytes.get(at), bytes.get(at + 1)) {
            (Some(b'/'), Some(b'*')) => (depth, at) = (depth + 1, at + 2),
            (Some(b'*'), Some(b'/')) => (depth, at) = (depth.saturating_sub(1), at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// What stands in quotes, and the bytes with them. A doubled quote is one; a backslash keeps the next character.
fn quoted(rest: &str, quote: char, escapes: bool) -> (String, usize) {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && escapes {
            text.extend(chars.next().map(|(_, next)| next));
        } else if c != quote {
            text.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
            text.push(quote);
            chars.next();
        } else {
            return (text, at + quote.len_utf8());
        }
    }
    (text, rest.len())
}

/// Bytes of a dollar-quoted string.
fn dollar(rest: &str) -> Option<usize> {
    let inner = rest.get(1..)?;
    let len = inner.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(inner.len());
    if !inner.get(len..)?.starts_with('$') || inner.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mark = rest.get(..len + 2)?;
    let body = rest.get(mark.len()..)?;
    Some(body.find(mark).map_or(rest.len(), |end| mark.len() + end + mark.len()))
}
