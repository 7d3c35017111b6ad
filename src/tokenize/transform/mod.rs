//! What is done to a cell's values before binning: named steps joined by `+`, such as
//! `normalize_total:1e4+log1p`. To add one: a file here, and a line in [`Step`] and its matches.

mod log1p;
mod normalize_total;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::TokenizeError;

const EXPECTED: &str = "steps are log1p and normalize_total:TARGET (such as normalize_total:1e4), \
                        joined by +; `none` is no step";

/// One step.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Log1p,
    NormalizeTotal(f64),
}

/// Steps in the order in which they are done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Transform(Vec<Step>);

impl Transform {
    /// Whether values stay as they are.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a step takes logarithms, which is meant for counts.
    pub fn takes_logarithms(&self) -> bool {
        self.0.contains(&Step::Log1p)
    }

    /// Transforms all non-zero values of one cell, every column of its source among them.
    pub fn apply(&self, values: &mut [f32]) {
        for step in &self.0 {
            match step {
                Step::Log1p => log1p::apply(values),
                Step::NormalizeTotal(target) => normalize_total::apply(values, *target),
            }
        }
    }
}

impl FromStr for Transform {
    type Err = TokenizeError;

    fn from_str(text: &str) -> Result<Self, TokenizeError> {
        if text == "none" {
            return Ok(Self::default());
        }
        let unknown = |found: &str| TokenizeError::Transform {
            found: found.to_owned(),
            expected: EXPECTED.to_owned(),
        };
        let step = |text: &str| match text.split_once(':').unwrap_or((text, "")) {
            ("log1p", "") => Ok(Step::Log1p),
            ("normalize_total", target) => match target.parse::<f64>() {
                Ok(target) if target > 0.0 && target.is_finite() => {
                    Ok(Step::NormalizeTotal(target))
                }
                _ => Err(unknown(text)),
            },
            _ => Err(unknown(text)),
        };
        text.split('+')
            .map(|text| step(text.trim()))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |step: &Step| match step {
            Step::Log1p => "log1p".to_owned(),
            Step::NormalizeTotal(target) => format!("normalize_total:{target}"),
        };
        match self.0.as_slice() {
            [] => f.write_str("none"),
            steps => f.write_str(&steps.iter().map(name).collect::<Vec<_>>().join("+")),
        }
    }
}

impl TryFrom<String> for Transform {
    type Error = TokenizeError;

    fn try_from(text: String) -> Result<Self, TokenizeError> {
        text.parse()
    }
}

impl From<Transform> for String {
    fn from(transform: Transform) -> Self {
        transform.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn steps_are_done_in_order() {
        let transform: Transform = "normalize_total:10+log1p".parse().unwrap();
        let mut values = [1.0, 3.0];
        transform.apply(&mut values);
        assert!(
            (values[0] - 2.5f32.ln_1p()).abs() < 1e-6 && (values[1] - 7.5f32.ln_1p()).abs() < 1e-6
        );
        assert_eq!(
            transform.to_string().parse::<Transform>().unwrap(),
            transform
        );
        assert_eq!("none".parse::<Transform>().unwrap().to_string(), "none");
    }

    #[test]
    fn unknown_steps_are_refused() {
        for bad in [
            "",
            "log2",
            "log1p:3",
            "normalize_total",
            "normalize_total:-1",
            "log1p+",
        ] {
            assert!(bad.parse::<Transform>().is_err(), "{bad}");
        }
    }
}
