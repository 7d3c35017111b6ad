//! What stands in the journal, one JSON object per line, `event` = `start`, `row`, `system`, `end`.
//!
//! Times are seconds since 1970. A number that is not finite stands as the text `NaN`, `Infinity`
//! or `-Infinity`, which W&B and MLflow read too.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Figures by name, such as `train/loss`.
pub(super) type Figures = BTreeMap<String, Number>;

/// A number, finite or not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Number(pub(super) f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            v if v.is_finite() => to.serialize_f64(v),
            v if v.is_nan() => to.serialize_str("NaN"),
            v if v > 0.0 => to.serialize_str("Infinity"),
            _ => to.serialize_str("-Infinity"),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(NumberVisitor).map(Self)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, NaN, Infinity or -Infinity")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        match text {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            other => Err(E::custom(format!("`{other}` is no number"))),
        }
    }
}

/// What is known of a run before its first step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// What it is called where nothing else says so.
    pub name: String,
    /// The subcommand.
    pub command: String,
    /// Its settings, model and data: a JSON object.
    pub config: Value,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It came to its end.
    Finished,
    /// It was asked to stop and may be resumed.
    Interrupted,
    /// It ended with an error.
    Failed,
}

/// The beginning of a run, or of a part of it that was resumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) time: f64,
    /// Names the run among all runs; the same in every part of it.
    pub(super) id: String,
    pub(super) host: String,
    pub(super) num_cpus: u64,
    #[serde(flatten)]
    pub(super) about: About,
}

/// Figures of one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) time: f64,
    pub(super) step: u64,
    pub(super) figures: Figures,
}

/// Figures of the machine and the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct System {
    pub(super) time: f64,
    pub(super) figures: Figures,
}

/// The end of a run, or of a part of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) time: f64,
    pub(super) step: u64,
    pub(super) state: State,
    /// Files to keep with the run, by their paths in the run folder.
    pub(super) files: Vec<String>,
    /// Time that the run itself spent on reporting, its end not counted.
    #[serde(default)]
    pub(super) spent_seconds: f64,
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Entry {
    Start(Start),
    Row(Row),
    System(System),
    End(End),
}

/// Seconds since 1970.
pub(super) fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_that_are_not_finite_survive() {
        let figures = [("a", f64::NAN), ("b", f64::NEG_INFINITY), ("c", 0.1)];
        let figures = figures.map(|(name, value)| (name.to_owned(), Number(value)));
        let row = Entry::Row(Row {
            time: 1.5,
            step: 3,
            figures: figures.into(),
        });
        let text = serde_json::to_string(&row).unwrap();
        assert!(
            text.contains(r#""a":"NaN","b":"-Infinity","c":0.1"#),
            "{text}"
        );
        let Entry::Row(again) = serde_json::from_str(&text).unwrap() else {
            unreachable!()
        };
        assert!(again.figures["a"].0.is_nan());
        assert_eq!(again.figures["b"].0, f64::NEG_INFINITY);
        assert_eq!((again.step, again.figures["c"].0), (3, 0.1));
    }
}
