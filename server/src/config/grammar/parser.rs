//! Arrays, maps, variables and includes (CONF-001, CONF-002).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lexer::{Lexer, Scalar};
use super::value::{Entry, Map, Position, Value, ValueKind};
use super::{Source, SyntaxError, SyntaxErrorKind};

/// Arrays and maps inside each other. Deeper input is refused: parsing recurses per level.
const NESTING_MAX: usize = 64;
/// Files including files.
const INCLUDE_DEPTH_MAX: usize = 16;
/// An environment variable may refer to another one.
const VARIABLE_DEPTH_MAX: usize = 16;
/// Values of a whole configuration. Variables copy what they refer to, so a short file could
/// otherwise describe an endless one.
const VALUES_MAX: usize = 1_000_000;

/// What ends the map being read.
#[derive(Clone, Copy, PartialEq)]
enum MapEnd {
    EndOfFile,
    Brace,
}

pub(super) struct Parser<'s> {
    source: &'s dyn Source,
    /// Maps being read, the outermost first: where variables are looked up.
    scopes: Vec<Map>,
    /// Files being read, the outermost first.
    files: Vec<PathBuf>,
    nesting: usize,
    values_count: usize,
}

impl<'s> Parser<'s> {
    pub(super) fn new(source: &'s dyn Source) -> Self {
        Self {
            source,
            scopes: vec![Map::default()],
            files: Vec::new(),
            nesting: 0,
            values_count: 0,
        }
    }

    /// Reads the main file.
    pub(super) fn parse(mut self, path: &Path) -> Result<Map, SyntaxError> {
        let start = Position {
            file: path.display().to_string().into(),
            line: 1,
            column: 1,
        };
        self.file(path, &start)?;
        let map = self.scopes.pop().unwrap_or_default();
        if map.is_empty() {
            return Err(SyntaxError {
                kind: SyntaxErrorKind::Empty,
                position: start,
            });
        }
        Ok(map)
    }

    /// Reads `path` into the innermost scope.
    fn file(&mut self, path: &Path, referred_at: &Position) -> Result<(), SyntaxError> {
        let error = |kind| SyntaxError {
            kind,
            position: referred_at.clone(),
        };
        if self.files.len() >= INCLUDE_DEPTH_MAX {
            return Err(error(SyntaxErrorKind::IncludeTooDeep {
                depth_max: INCLUDE_DEPTH_MAX,
            }));
        }
        let (identity, text) = self.source.read(path).map_err(|reason| {
            error(SyntaxErrorKind::Unreadable {
                path: path.to_owned(),
                reason,
            })
        })?;
        if self.files.contains(&identity) {
            return Err(error(SyntaxErrorKind::IncludeCycle(path.to_owned())));
        }
        self.files.push(identity);
        let name: Arc<str> = path.display().to_string().into();
        let mut lexer = Lexer::new(name, &text);
        lexer.skip_to_content(&[]);
        if lexer.peek() == Some('{') {
            lexer.next();
            self.entries(&mut lexer, path, MapEnd::Brace)?;
        }
        self.entries(&mut lexer, path, MapEnd::EndOfFile)?;
        self.files.pop();
        Ok(())
    }

    /// Keys and values up to `end`, into the innermost scope.
    fn entries(
        &mut self,
        lexer: &mut Lexer<'_>,
        path: &Path,
        end: MapEnd,
    ) -> Result<(), SyntaxError> {
        loop {
            lexer.skip_to_content(&[',', ';']);
            match (lexer.peek(), end) {
                (None, MapEnd::EndOfFile) => return Ok(()),
                (None, MapEnd::Brace) => return Err(lexer.error(SyntaxErrorKind::UnclosedMap)),
                (Some('}'), MapEnd::Brace) => {
                    lexer.next();
                    return Ok(());
                }
                _ => {}
            }
            let position = lexer.position();
            let key = lexer.key()?;
            if key == "include" && self.include(lexer, path)? {
                continue;
            }
            self.separator(lexer, &key)?;
            let value = self.value(lexer, path)?;
            self.end_of_entry(lexer, end)?;
            let entry = Entry {
                key,
                position,
                value,
                is_variable: false,
            };
            if let Some(scope) = self.scopes.last_mut() {
                scope.insert(entry);
            }
        }
    }

    /// Between a key and its value: blanks, or `:` or `=` on the key's line. Without a separator
    /// the value may start on a later line, as in `authorization` followed by a line with `{`.
    fn separator(&self, lexer: &mut Lexer<'_>, key: &str) -> Result<(), SyntaxError> {
        let missing =
            |lexer: &Lexer<'_>| Err(lexer.error(SyntaxErrorKind::KeyWithoutValue(key.to_owned())));
        lexer.skip_blanks();
        if matches!(lexer.peek(), Some(':' | '=')) {
            lexer.next();
            lexer.skip_blanks();
            if matches!(lexer.peek(), None | Some('\n')) {
                return missing(lexer);
            }
            return Ok(());
        }
        lexer.skip_to_content(&[]);
        if lexer.peek().is_none() {
            return missing(lexer);
        }
        Ok(())
    }

    /// After a value: the line ends, or `,`, `;` or the closing brace follows.
    fn end_of_entry(&self, lexer: &mut Lexer<'_>, end: MapEnd) -> Result<(), SyntaxError> {
        if lexer.skip_to_line_end() {
            return Ok(());
        }
        match lexer.peek() {
            Some(',' | ';') => Ok(()),
            Some('}') if end == MapEnd::Brace => Ok(()),
            found => Err(lexer.error(SyntaxErrorKind::EndOfValueExpected(found))),
        }
    }

    /// `include 'file'`: true when the key was a directive and has been carried out. With a
    /// separator (`include: x`) it is an ordinary key.
    fn include(&mut self, lexer: &mut Lexer<'_>, path: &Path) -> Result<bool, SyntaxError> {
        lexer.skip_blanks();
        if matches!(lexer.peek(), None | Some(':' | '=' | '\n')) {
            return Ok(false);
        }
        let position = lexer.position();
        let Scalar::Value(ValueKind::String(name)) = lexer.scalar()? else {
            return Err(SyntaxError {
                kind: SyntaxErrorKind::IncludeNeedsPath,
                position,
            });
        };
        if !lexer.skip_to_line_end() && !matches!(lexer.peek(), Some(',' | ';' | '}')) {
            return Err(lexer.error(SyntaxErrorKind::EndOfValueExpected(lexer.peek())));
        }
        let target = match path.parent() {
            Some(folder) => folder.join(&name),
            None => PathBuf::from(&name),
        };
        self.file(&target, &position)?;
        Ok(true)
    }

    fn count(&mut self, values_count: usize, position: &Position) -> Result<(), SyntaxError> {
        self.values_count = self.values_count.saturating_add(values_count);
        if self.values_count > VALUES_MAX {
            let kind = SyntaxErrorKind::TooManyValues {
                values_max: VALUES_MAX,
            };
            return Err(SyntaxError {
                kind,
                position: position.clone(),
            });
        }
        Ok(())
    }

    fn value(&mut self, lexer: &mut Lexer<'_>, path: &Path) -> Result<Value, SyntaxError> {
        let position = lexer.position();
        self.count(1, &position)?;
        let opening = lexer.peek();
        if !matches!(opening, Some('[' | '{')) {
            return match lexer.scalar()? {
                Scalar::Value(kind) => Ok(Value { kind, position }),
                Scalar::Variable(name) => self.variable(&name, position, 0),
            };
        }
        if self.nesting >= NESTING_MAX {
            let kind = SyntaxErrorKind::NestedTooDeep {
                depth_max: NESTING_MAX,
            };
            return Err(SyntaxError { kind, position });
        }
        lexer.next();
        self.nesting += 1;
        let kind = if opening == Some('[') {
            ValueKind::Array(self.array(lexer, path)?)
        } else {
            self.scopes.push(Map::default());
            self.entries(lexer, path, MapEnd::Brace)?;
            ValueKind::Map(self.scopes.pop().unwrap_or_default())
        };
        self.nesting -= 1;
        Ok(Value { kind, position })
    }

    /// Elements end with `,` or a new line.
    fn array(&mut self, lexer: &mut Lexer<'_>, path: &Path) -> Result<Vec<Value>, SyntaxError> {
        let mut values = Vec::new();
        loop {
            lexer.skip_to_content(&[',']);
            match lexer.peek() {
                None => return Err(lexer.error(SyntaxErrorKind::UnclosedArray)),
                Some(']') => {
                    lexer.next();
                    return Ok(values);
                }
                Some(_) => values.push(self.value(lexer, path)?),
            }
            if !lexer.skip_to_line_end() && !matches!(lexer.peek(), Some(',' | ']')) {
                return Err(lexer.error(SyntaxErrorKind::EndOfElementExpected(lexer.peek())));
            }
        }
    }

    /// The value of a key defined before in this or an enclosing block, else of the environment.
    fn variable(
        &mut self,
        name: &str,
        position: Position,
        depth: usize,
    ) -> Result<Value, SyntaxError> {
        let defined = self
            .scopes
            .iter_mut()
            .rev()
            .find_map(|scope| scope.get_mut(name));
        if let Some(entry) = defined {
            entry.is_variable = true;
            // What is defined is within the bound already, so this copy is at most as large.
            let value = Value {
                kind: entry.value.kind.clone(),
                position: position.clone(),
            };
            self.count(value.values_count(), &position)?;
            return Ok(value);
        }
        let error = |kind| {
            Err(SyntaxError {
                kind,
                position: position.clone(),
            })
        };
        if depth >= VARIABLE_DEPTH_MAX {
            return error(SyntaxErrorKind::VariableCycle(name.to_owned()));
        }
        let Some(text) = self.source.variable(name) else {
            return error(SyntaxErrorKind::UnknownVariable(name.to_owned()));
        };
        // The text of an environment variable is read like a value in the file.
        let file: Arc<str> = format!("${name}").into();
        let mut lexer = Lexer::new(file, &text);
        lexer.skip_blanks();
        let value = match lexer.peek() {
            None => Ok(Value {
                kind: ValueKind::String(String::new()),
                position: position.clone(),
            }),
            Some('[' | '{') => self.value(&mut lexer, Path::new("")),
            Some(_) => match lexer.scalar() {
                Ok(Scalar::Value(kind)) => Ok(Value {
                    kind,
                    position: position.clone(),
                }),
                Ok(Scalar::Variable(next)) => self.variable(&next, position.clone(), depth + 1),
                Err(reason) => Err(reason),
            },
        };
        let is_whole = lexer.skip_to_line_end() && {
            lexer.skip_to_content(&[]);
            lexer.peek().is_none()
        };
        match value {
            Ok(value) if is_whole => Ok(Value {
                kind: value.kind,
                position,
            }),
            Ok(_) => error(SyntaxErrorKind::BadVariable(name.to_owned())),
            Err(reason) if !matches!(reason.kind, SyntaxErrorKind::ValueExpected(_)) => Err(reason),
            Err(_) => error(SyntaxErrorKind::BadVariable(name.to_owned())),
        }
    }
}
