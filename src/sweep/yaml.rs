//! A YAML document as a tree whose every node knows its line, and the readers of its values that
//! say what they expected where.
//!
//! Numbers keep their spelling (`1e-4` is passed on as `1e-4`); which plain words are numbers,
//! booleans or null follows YAML 1.2's core schema. Anchors and aliases work; a key that stands
//! twice, and more than one document, are refused.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput};

use super::error::Fault;
use super::value::Value;
use crate::config::nearest;

/// Nodes of a document, aliases counted each time: more are refused.
const MAX_NODES: usize = 100_000;
/// Nesting that is still followed.
const MAX_DEPTH: usize = 32;

/// A node of the document.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Its line, from 1.
    pub(super) line: usize,
    pub(super) content: Content,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Scalar(Value),
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// `key: value`.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) node: Node,
}

/// The one document of `text`.
pub(super) fn parse(text: &str) -> Result<Node, Fault> {
    let mut builder = Builder {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        num_nodes: 0,
        line: 1,
    };
    let mut document = None;
    while let Some(event) = builder.next()? {
        match event {
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
            Event::StreamEnd => break,
            event if document.is_none() => document = Some(builder.node(event, 0)?),
            _ => {
                return Err(Fault::new(
                    builder.line,
                    "",
                    "a second document begins here, expected one",
                    "write one study to a file",
                ));
            }
        }
    }
    document.ok_or_else(|| Fault::new(1, "", "the file is empty", "write method: and parameters:"))
}

struct Builder<'t> {
    parser: Parser<'t, StrInput<'t>>,
    anchors: HashMap<usize, Node>,
    num_nodes: usize,
    line: usize,
}

impl<'t> Builder<'t> {
    fn next(&mut self) -> Result<Option<Event<'t>>, Fault> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok((event, span))) => {
                self.line = span.start.line();
                Ok(Some(event))
            }
            Some(Err(error)) => Err(not_yaml(&error)),
        }
    }

    fn inner(&mut self) -> Result<Event<'t>, Fault> {
        let ended = Fault::new(
            self.line,
            "",
            "the file ends in the middle",
            "finish the last key",
        );
        self.next()?.ok_or(ended)
    }

    fn node(&mut self, event: Event<'t>, depth: usize) -> Result<Node, Fault> {
        let line = self.line;
        self.num_nodes += 1;
        if self.num_nodes > MAX_NODES || depth > MAX_DEPTH {
            let what = "the file is nested too deeply, or far too large for a study";
            return Err(Fault::new(line, "", what, "write the study out plainly"));
        }
        let (content, anchor) = match event {
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let unknown = || Fault::new(line, "", "an unknown alias", "define its &anchor");
                let node = node.ok_or_else(unknown)?;
                self.num_nodes += node.size();
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, _) => {
                let value = match style {
                    ScalarStyle::Plain => Value::plain(&text),
                    _ => Value::Text(text.into_owned()),
                };
                (Content::Scalar(value), anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.inner()? {
                        Event::SequenceEnd => break,
                        event => items.push(self.node(event, depth + 1)?),
                    }
                }
                (Content::List(items), anchor)
            }
            Event::MappingStart(anchor, _) => (Content::Table(self.entries(depth)?), anchor),
            _ => return Err(Fault::new(line, "", "no YAML", "look at this line")),
        };
        let node = Node { line, content };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<Entry>, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let key = match self.inner()? {
                Event::MappingEnd => return Ok(entries),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => {
                    let what = "expected a plain word as key, found a list or table";
                    return Err(Fault::new(self.line, "", what, "write `name: value`"));
                }
            };
            let line = self.line;
            if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                let what = format!("stands twice, first in line {}", first.line);
                return Err(Fault::new(line, key, what, "leave one of them out"));
            }
            let event = self.inner()?;
            let node = self.node(event, depth + 1)?;
            entries.push(Entry { key, line, node });
        }
    }
}

fn not_yaml(error: &ScanError) -> Fault {
    Fault::new(
        error.marker().line(),
        "",
        format!("no YAML: {}", error.info()),
        "look at the indentation, colons and brackets of this line and the one above",
    )
}

impl Node {
    fn size(&self) -> usize {
        1 + match &self.content {
            Content::Scalar(_) => 0,
            Content::List(items) => items.iter().map(Self::size).sum(),
            Content::Table(entries) => entries.iter().map(|entry| entry.node.size()).sum(),
        }
    }
}

/// A node and the keys that lead to it.
#[derive(Debug, Clone)]
pub(super) struct At<'n> {
    /// All keys that lead to it, with points between.
    pub(super) key: String,
    /// The last of them, which may have points itself.
    name: &'n str,
    pub(super) line: usize,
    pub(super) node: &'n Node,
}

impl<'n> At<'n> {
    /// The whole document.
    pub(super) fn root(node: &'n Node) -> Self {
        Self {
            key: String::new(),
            name: "",
            line: node.line,
            node,
        }
    }

    pub(super) fn fault(&self, what: impl Into<String>, hint: impl Into<String>) -> Fault {
        Fault::new(self.line, self.key.clone(), what, hint)
    }

    pub(super) fn expected(&self, what: &str, hint: &str) -> Fault {
        self.fault(format!("expected {what}, found {}", self.found()), hint)
    }

    fn found(&self) -> String {
        match &self.node.content {
            Content::Scalar(Value::Null) => "nothing".to_owned(),
            Content::Scalar(value) => format!("`{value}`"),
            Content::List(_) => "a list".to_owned(),
            Content::Table(_) => "a table of keys".to_owned(),
        }
    }

    /// The entries of a table.
    pub(super) fn table(&self) -> Result<Vec<At<'n>>, Fault> {
        match &self.node.content {
            Content::Table(entries) => Ok(entries
                .iter()
                .map(|entry| At {
                    key: match self.key.as_str() {
                        "" => entry.key.clone(),
                        above => format!("{above}.{}", entry.key),
                    },
                    name: &entry.key,
                    line: entry.line,
                    node: &entry.node,
                })
                .collect()),
            _ => Err(self.expected("a table of keys", "write the keys indented below it")),
        }
    }

    /// The entries of a table that has only `known` keys.
    pub(super) fn table_of(&self, known: &[&str]) -> Result<Fields<'n>, Fault> {
        let entries = self.table()?;
        for entry in &entries {
            let name = entry.name();
            if !known.contains(&name) {
                let meant = nearest(name, known.iter().copied());
                let hint = match meant {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("the keys are {}", known.join(", ")),
                };
                return Err(entry.fault("unknown key", hint));
            }
        }
        Ok(Fields(entries))
    }

    /// The last of the keys.
    pub(super) fn name(&self) -> &'n str {
        self.name
    }

    /// The items of a list.
    pub(super) fn list(&self) -> Result<Vec<At<'n>>, Fault> {
        match &self.node.content {
            Content::List(items) => Ok(items
                .iter()
                .map(|node| At {
                    key: self.key.clone(),
                    name: self.name,
                    line: node.line,
                    node,
                })
                .collect()),
            _ => Err(self.expected("a list", "write [a, b, c], or one `- item` to a line")),
        }
    }

    /// A scalar or a list of scalars.
    pub(super) fn value(&self) -> Result<Value, Fault> {
        match &self.node.content {
            Content::Scalar(value) => Ok(value.clone()),
            Content::List(_) => {
                let items = self.list()?;
                let scalar = |item: &At<'_>| match &item.node.content {
                    Content::Scalar(Value::Null) | Content::List(_) | Content::Table(_) => {
                        Err(item.expected("a number or word", "a list holds plain values"))
                    }
                    Content::Scalar(value) => Ok(value.clone()),
                };
                Ok(Value::List(
                    items.iter().map(scalar).collect::<Result<_, _>>()?,
                ))
            }
            Content::Table(_) => Err(self.expected(
                "a number, word or list",
                "settings of gene-bert are plain; nest parameters under `parameters:`",
            )),
        }
    }

    /// A word or text; a number is one, too.
    pub(super) fn text(&self) -> Result<String, Fault> {
        match &self.node.content {
            Content::Scalar(value) if *value != Value::Null => Ok(value.to_string()),
            _ => Err(self.expected("a text", "write it behind the colon")),
        }
    }

    /// A finite number.
    pub(super) fn number(&self) -> Result<f64, Fault> {
        match &self.node.content {
            Content::Scalar(Value::Number { value, .. }) => Ok(*value),
            _ => Err(self.expected("a number", "write it plainly, such as 0.5 or 1e-4")),
        }
    }

    /// Whether it has keys below it.
    pub(super) fn is_table(&self) -> bool {
        matches!(self.node.content, Content::Table(_))
    }

    /// Whether it is a list.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.content, Content::List(_))
    }

    /// Whether it is a whole number.
    pub(super) fn is_integer(&self) -> bool {
        let Content::Scalar(Value::Number { text, .. }) = &self.node.content else {
            return false;
        };
        text.parse::<i64>().is_ok()
    }

    /// A whole number, at least `least`.
    pub(super) fn integer(&self, least: i64) -> Result<i64, Fault> {
        let wanted = match least {
            i64::MIN => "a whole number".to_owned(),
            least => format!("a whole number from {least} up"),
        };
        let number = match &self.node.content {
            Content::Scalar(Value::Number { text, .. }) => text.parse().ok(),
            _ => None,
        };
        number
            .filter(|&number| number >= least)
            .ok_or_else(|| self.expected(&wanted, "write it without point or exponent"))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Result<bool, Fault> {
        match &self.node.content {
            Content::Scalar(Value::Bool(value)) => Ok(*value),
            _ => Err(self.expected("true or false", "write true or false")),
        }
    }

    /// One of `choices`.
    pub(super) fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, Fault> {
        let text = self.text()?;
        let found = choices.iter().find(|(name, _)| *name == text);
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let hint = match nearest(&text, names.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "write one of them".to_owned(),
            };
            self.expected(&format!("one of {}", names.join(", ")), &hint)
        })
    }
}

/// The entries of a table by name.
#[derive(Debug)]
pub(super) struct Fields<'n>(Vec<At<'n>>);

impl<'n> Fields<'n> {
    pub(super) fn get(&self, name: &str) -> Option<&At<'n>> {
        self.0.iter().find(|entry| entry.name() == name)
    }

    /// Reads an entry if it is there.
    pub(super) fn maybe<T>(
        &self,
        name: &str,
        read: impl FnOnce(&At<'n>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        self.get(name).map(read).transpose()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(At::name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fault(text: &str) -> Fault {
        parse(text).unwrap_err()
    }

    #[test]
    fn nodes_know_their_lines_and_numbers_their_spelling() {
        let text =
            "# a study\nmethod: grid\nparameters:\n  a:\n    values: [1e-4, true, x, '7', ~]\n";
        let document = parse(text).unwrap();
        let root = At::root(&document);
        let fields = root.table_of(&["method", "parameters"]).unwrap();
        assert_eq!(fields.get("method").unwrap().text().unwrap(), "grid");
        let a = &fields.get("parameters").unwrap().table().unwrap()[0];
        assert_eq!((a.key.as_str(), a.line, a.name()), ("parameters.a", 4, "a"));
        let values = a.table().unwrap()[0].list().unwrap();
        let values: Vec<Value> = values.iter().map(|v| v.value().unwrap()).collect();
        assert_eq!(values[0].to_string(), "1e-4");
        assert_eq!(values[0].number(), Some(1e-4));
        assert_eq!(values[1], Value::Bool(true));
        assert_eq!(
            values[2..],
            [
                Value::Text("x".into()),
                Value::Text("7".into()),
                Value::Null
            ]
        );
    }

    #[test]
    fn aliases_are_copies_and_bombs_are_refused() {
        let document = parse("a: &x [1, 2]\nb: *x\n").unwrap();
        let entries = At::root(&document).table().unwrap();
        assert_eq!(entries[1].list().unwrap().len(), 2);
        let mut bomb = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_owned();
        for n in 1..9 {
            let before = format!("*a{}", n - 1);
            bomb += &format!("a{n}: &a{n} [{}]\n", [before.as_str(); 10].join(", "));
        }
        assert!(fault(&bomb).what.contains("far too large"));
        let deep = "[".repeat(2000) + &"]".repeat(2000);
        assert!(parse(&deep).is_err());
    }

    #[test]
    fn what_is_no_document_is_refused_with_the_line() {
        assert_eq!(fault("a: 1\nb: 2\na: 3\n").line, 3);
        assert!(fault("a: 1\nb: [1, 2\nc: 3\n").what.contains("no YAML"));
        assert!(fault("").what.contains("empty"));
        assert!(fault("a: 1\n---\nb: 2\n").what.contains("second document"));
        let document = parse("metod: grid\n").unwrap();
        let wrong = At::root(&document).table_of(&["method"]).unwrap_err();
        assert_eq!((wrong.line, wrong.key.as_str()), (1, "metod"));
        assert!(wrong.hint.contains("`method`"), "{wrong}");
    }
}
