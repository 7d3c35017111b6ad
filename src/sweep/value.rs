//! A value of a parameter: what a study lists or a distribution gives, as it is passed to a run.

use std::fmt;

use serde_json::json;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// None: the flag is left out.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, with its spelling.
    Number {
        /// The number, finite.
        value: f64,
        /// How it is written and passed on.
        text: String,
    },
    /// A word or text.
    Text(String),
    /// Several values of one flag; no lists in it.
    List(Vec<Value>),
}

impl Value {
    /// A plain word of YAML.
    pub(super) fn plain(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Self::Null,
            "true" | "True" | "TRUE" => return Self::Bool(true),
            "false" | "False" | "FALSE" => return Self::Bool(false),
            _ => {}
        }
        let numeric = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
        match text.parse::<f64>() {
            Ok(value) if numeric && value.is_finite() && !text.contains(['i', 'n']) => {
                Self::Number {
                    value,
                    text: text.to_owned(),
                }
            }
            _ => Self::Text(text.to_owned()),
        }
    }

    /// A computed number, spelled as briefly as it can be.
    pub(super) fn computed(value: f64) -> Self {
        let size = value.abs();
        let text = if value != 0.0 && !(1e-4..1e15).contains(&size) {
            format!("{value:e}")
        } else {
            format!("{value}")
        };
        Self::Number { value, text }
    }

    /// The number, if it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number { value, .. } => Some(*value),
            _ => None,
        }
    }

    /// As JSON.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => json!(value),
            Self::Number { value, text } => match text.parse::<i64>() {
                Ok(whole) => json!(whole),
                Err(_) => json!(value),
            },
            Self::Text(text) => json!(text),
            Self::List(items) => items.iter().map(Self::json).collect(),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => out.write_str("null"),
            Self::Bool(value) => write!(out, "{value}"),
            Self::Number { text, .. } | Self::Text(text) => out.write_str(text),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                write!(out, "{}", items.join(" "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_and_computed_numbers() {
        for (text, number) in [("1e-4", 1e-4), ("-3", -3.0), (".5", 0.5), ("+2.", 2.0)] {
            assert_eq!(Value::plain(text).number(), Some(number), "{text}");
            assert_eq!(Value::plain(text).to_string(), text);
        }
        for text in ["nan", "inf", "-inf", ".inf", "1e999", "log1p", "1-2", "yes"] {
            assert_eq!(Value::plain(text), Value::Text(text.into()));
        }
        assert_eq!(Value::computed(3e-5).to_string(), "3e-5");
        assert_eq!(Value::computed(0.1).to_string(), "0.1");
        assert_eq!(Value::computed(32.0).to_string(), "32");
        assert_eq!(Value::plain("7").json(), json!(7));
    }
}
