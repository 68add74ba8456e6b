//! Characters with positions, comments, and the scalar tokens of the language (CONF-001, CONF-003).

use std::sync::Arc;

use super::value::{Position, ValueKind};
use super::{SyntaxError, SyntaxErrorKind};

/// A cursor over the text of one configuration file.
pub(super) struct Lexer<'a> {
    rest: std::str::Chars<'a>,
    file: Arc<str>,
    line: u32,
    column: u32,
}

/// A scalar, or a reference that the parser has to look up.
#[derive(Debug, PartialEq)]
pub(super) enum Scalar {
    Value(ValueKind),
    /// `$NAME`, without the dollar sign.
    Variable(String),
}

impl<'a> Lexer<'a> {
    pub(super) fn new(file: Arc<str>, text: &'a str) -> Self {
        // A byte order mark is no part of the first key.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self {
            rest: text.chars(),
            file,
            line: 1,
            column: 1,
        }
    }

    pub(super) fn position(&self) -> Position {
        Position {
            file: self.file.clone(),
            line: self.line,
            column: self.column,
        }
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn peek_second(&self) -> Option<char> {
        let mut chars = self.rest.clone();
        chars.next();
        chars.next()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        if c == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        Some(c)
    }

    pub(super) fn error(&self, kind: SyntaxErrorKind) -> SyntaxError {
        SyntaxError {
            kind,
            position: self.position(),
        }
    }

    /// Skips spaces and tabs.
    pub(super) fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\r')) {
            self.next();
        }
    }

    fn at_comment(&self) -> bool {
        match self.peek() {
            Some('#') => true,
            Some('/') => self.peek_second() == Some('/'),
            _ => false,
        }
    }

    fn skip_comment(&mut self) {
        while !matches!(self.peek(), None | Some('\n')) {
            self.next();
        }
    }

    /// Skips white space, newlines, comments, and every character of `separators`.
    pub(super) fn skip_to_content(&mut self, separators: &[char]) {
        loop {
            match self.peek() {
                Some(c) if c.is_whitespace() || separators.contains(&c) => {
                    self.next();
                }
                Some(_) if self.at_comment() => self.skip_comment(),
                _ => return,
            }
        }
    }

    /// Skips blanks and a comment, and tells whether the line ends here.
    pub(super) fn skip_to_line_end(&mut self) -> bool {
        self.skip_blanks();
        if self.at_comment() {
            self.skip_comment();
        }
        matches!(self.peek(), None | Some('\n'))
    }

    /// A key: quoted, or everything up to white space, `:`, `=` or `{`.
    pub(super) fn key(&mut self) -> Result<String, SyntaxError> {
        if let Some(quote @ ('"' | '\'')) = self.peek() {
            return self.quoted(quote);
        }
        let mut key = String::new();
        while let Some(c) = self.peek() {
            if c.is_whitespace() || matches!(c, ':' | '=' | '{') {
                break;
            }
            if matches!(c, '}' | ']' | ',' | ';') {
                return Err(self.error(SyntaxErrorKind::KeyWithoutValue(key)));
            }
            key.push(c);
            self.next();
        }
        if key.is_empty() {
            return Err(self.error(SyntaxErrorKind::KeyExpected(self.peek())));
        }
        Ok(key)
    }

    /// A quoted string. Single quotes take everything as it
    /// is, double quotes know escapes; both may run over several lines.
    fn quoted(&mut self, quote: char) -> Result<String, SyntaxError> {
        let start = self.position();
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                None => {
                    return Err(SyntaxError {
                        kind: SyntaxErrorKind::UnclosedString,
                        position: start,
                    });
                }
                Some(c) if c == quote => return Ok(text),
                Some('\\') if quote == '"' => text.push(self.escape()?),
                Some(c) => text.push(c),
            }
        }
    }

    /// The character meant by an escape, after the backslash.
    fn escape(&mut self) -> Result<char, SyntaxError> {
        let found = self.peek();
        let error = self.error(SyntaxErrorKind::InvalidEscape(found));
        self.next();
        match found {
            Some('t') => Ok('\t'),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('"') => Ok('"'),
            Some('\\') => Ok('\\'),
            Some('x') => {
                let mut code = 0;
                for _ in 0..2 {
                    let digit = self
                        .next()
                        .and_then(|c| c.to_digit(16))
                        .ok_or(error.clone())?;
                    code = code * 16 + digit;
                }
                char::from_u32(code).ok_or(error)
            }
            _ => Err(error),
        }
    }

    /// Text in parentheses: everything up to a `)` that stands alone on its line.
    fn block(&mut self) -> Result<String, SyntaxError> {
        let start = self.position();
        self.next();
        let mut text = String::new();
        loop {
            let Some(c) = self.next() else {
                return Err(SyntaxError {
                    kind: SyntaxErrorKind::UnclosedBlock,
                    position: start,
                });
            };
            let is_last_on_line = matches!(self.peek(), None | Some('\n' | '\r'));
            if c == ')' && is_last_on_line && is_blank_line_start(&text) {
                return Ok(text);
            }
            text.push(c);
        }
    }

    /// A value that is neither an array nor a map.
    pub(super) fn scalar(&mut self) -> Result<Scalar, SyntaxError> {
        match self.peek() {
            Some(quote @ ('"' | '\'')) => Ok(Scalar::Value(ValueKind::String(self.quoted(quote)?))),
            Some('(') => Ok(Scalar::Value(ValueKind::String(self.block()?))),
            _ => self.bare(),
        }
    }

    fn bare(&mut self) -> Result<Scalar, SyntaxError> {
        let start = self.position();
        let mut word = String::new();
        while let Some(c) = self.peek() {
            if c.is_whitespace() || matches!(c, ',' | ';' | ']' | '}') {
                break;
            }
            self.next();
            match c {
                '\\' => word.push(self.escape()?),
                _ => word.push(c),
            }
        }
        if word.is_empty() {
            return Err(SyntaxError {
                kind: SyntaxErrorKind::ValueExpected(self.peek()),
                position: start,
            });
        }
        classify(word).map_err(|kind| SyntaxError {
            kind,
            position: start,
        })
    }
}

/// Whether nothing but blanks stands behind the last new line of `text`.
fn is_blank_line_start(text: &str) -> bool {
    text.rsplit('\n')
        .next()
        .unwrap_or_default()
        .trim()
        .is_empty()
}

/// What a word without quotes means.
fn classify(word: String) -> Result<Scalar, SyntaxErrorKind> {
    if let Some(name) = word.strip_prefix('$') {
        // A bcrypt hash starts like a variable (`$2a$11$...`) but is a value.
        let is_bcrypt = ["2a$", "2b$", "2x$", "2y$"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if !is_bcrypt && !name.is_empty() {
            return Ok(Scalar::Variable(name.to_owned()));
        }
        return Ok(Scalar::Value(ValueKind::String(word)));
    }
    let kind = match word.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => ValueKind::Bool(true),
        "false" | "no" | "off" => ValueKind::Bool(false),
        _ => match number(&word)? {
            Some(number) => number,
            None => ValueKind::String(word),
        },
    };
    Ok(Scalar::Value(kind))
}

/// A number with an optional size suffix, `None` when the word is something else such as `1.2.3.4`.
fn number(word: &str) -> Result<Option<ValueKind>, SyntaxErrorKind> {
    let unsigned = word.strip_prefix('-').unwrap_or(word);
    let digits_len = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    if digits_len == 0 {
        return Ok(None);
    }
    let sign_len = word.len() - unsigned.len();
    let (digits, suffix) = word.split_at(sign_len + digits_len);
    if let Some(fraction) = suffix.strip_prefix('.') {
        let is_float = !fraction.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit());
        return Ok(is_float
            .then(|| word.parse().ok().map(ValueKind::Float))
            .flatten());
    }
    let Some(unit) = size_unit(suffix) else {
        return Ok(None);
    };
    digits
        .parse::<i64>()
        .ok()
        .and_then(|count| count.checked_mul(unit))
        .map(|value| Some(ValueKind::Int(value)))
        .ok_or_else(|| SyntaxErrorKind::NumberOutOfRange(word.to_owned()))
}

/// Bytes per unit: `K` counts in thousands, `KB`, `Ki` and `KiB` in 1,024s (CONF-003).
fn size_unit(suffix: &str) -> Option<i64> {
    if suffix.is_empty() {
        return Some(1);
    }
    let lower = suffix.to_ascii_lowercase();
    let letter = lower.chars().next()?;
    let power = "kmgtpe".find(letter)? as u32 + 1;
    match &lower[1..] {
        "" => Some(1000_i64.pow(power)),
        "b" | "i" | "ib" => Some(1024_i64.pow(power)),
        _ => None,
    }
}
