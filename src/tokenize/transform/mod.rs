//! What is done to the values of a cell: named steps joined by `+`, such as
//! `normalize_total:1e4+log1p`.
//!
//! A cell is a [`Row`]: the columns that are not zero, and their values. A [`Transform`] is the
//! list of steps as it stands in a configuration; [`Transform::bind`] makes it ready for the genes
//! of one source. What a step needs beyond the values ([`Needs`]) decides where it may stand: steps
//! that draw are for training (`--augment`), steps that read a table of genes for those who keep
//! that table.
//!
//! To add a step: a file with its [`Kind`], and a line in [`KINDS`].

mod clip;
mod filter_genes;
mod gene_dropout;
mod log1p;
mod normalize_total;
mod scale;
mod scale_genes;
#[cfg(test)]
mod tests;
mod thin;
mod z_score;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::TokenizeError;
use super::row::Draw;
use crate::rng::{self, ChaCha8Rng, Stream};

/// All steps.
const KINDS: [&Kind; 9] = [
    &clip::KIND,
    &filter_genes::KIND,
    &gene_dropout::KIND,
    &log1p::KIND,
    &normalize_total::KIND,
    &scale::KIND,
    &scale_genes::KIND,
    &thin::KIND,
    &z_score::KIND,
];

/// A kind of step.
struct Kind {
    name: &'static str,
    /// What stands after the name and a colon, in capitals; empty: nothing.
    argument: &'static str,
    needs: Needs,
    /// Whether an argument can work.
    takes: fn(&str) -> bool,
    /// The step with an argument that it takes, for the columns of a source.
    make: Make,
}

type Make = fn(&str, &[String]) -> Result<Arc<dyn Apply>, TokenizeError>;

/// What a step needs besides the values of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Nothing.
    Values,
    /// Random draws, other ones for each cell and epoch.
    Draws,
    /// A table of genes.
    Table,
}

/// A step, ready for the columns of one source.
trait Apply: fmt::Debug + Send + Sync {
    fn apply(&self, row: &mut Row, rng: &mut ChaCha8Rng);
}

/// The values of one cell that are not zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    /// Columns of the source, ascending.
    pub columns: Vec<u32>,
    /// Their values.
    pub values: Vec<f32>,
}

impl Row {
    /// Leaves out the values of which `keep` (column, value) says no.
    fn retain(&mut self, mut keep: impl FnMut(u32, f32) -> bool) {
        let mut kept = 0;
        for at in 0..self.values.len() {
            let (column, value) = (self.columns[at], self.values[at]);
            if keep(column, value) {
                (self.columns[kept], self.values[kept]) = (column, value);
                kept += 1;
            }
        }
        self.columns.truncate(kept);
        self.values.truncate(kept);
    }

    /// All of `num_columns` columns, zeros included.
    pub fn dense(&self, num_columns: usize) -> Vec<f32> {
        let mut dense = vec![0.0; num_columns];
        for (column, value) in self.columns.iter().zip(&self.values) {
            if let Some(place) = dense.get_mut(*column as usize) {
                *place = *value;
            }
        }
        dense
    }
}

/// One step as a configuration has it.
#[derive(Clone)]
struct Step {
    kind: &'static Kind,
    argument: String,
}

/// Steps in the order in which they are done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Transform(Vec<Step>);

/// Steps, ready for the columns of one source.
#[derive(Debug, Clone, Default)]
pub struct BoundTransform(Vec<Arc<dyn Apply>>);

impl Transform {
    /// Whether values stay as they are.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a step takes logarithms, which is meant for counts.
    pub fn takes_logarithms(&self) -> bool {
        self.0.iter().any(|step| step.kind.name == log1p::KIND.name)
    }

    /// The first step that needs more than `most`, and what it needs.
    pub fn beyond(&self, most: Needs) -> Option<(String, Needs)> {
        let step = self.0.iter().find(|step| step.kind.needs > most)?;
        Some((step.to_string(), step.kind.needs))
    }

    /// Refuses steps that need more than `most`, for the setting `key`.
    ///
    /// # Errors
    /// The first such step.
    pub fn require(&self, most: Needs, key: &'static str) -> Result<(), TokenizeError> {
        let Some((step, needs)) = self.beyond(most) else {
            return Ok(());
        };
        let what = match needs {
            Needs::Table => format!("step {step} reads a table of genes, which has no place here"),
            _ => format!("step {step} draws at random, which has no place here"),
        };
        Err(TokenizeError::Setting { key, what })
    }

    /// The steps for a source with these genes as its columns; reads the tables of genes.
    ///
    /// # Errors
    /// A table that cannot be read or lacks a gene.
    pub fn bind(&self, gene_ids: &[String]) -> Result<BoundTransform, TokenizeError> {
        let make = |step: &Step| (step.kind.make)(&step.argument, gene_ids);
        let steps = self.0.iter().map(make).collect::<Result<_, _>>()?;
        Ok(BoundTransform(steps))
    }
}

impl BoundTransform {
    /// Whether values stay as they are.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Transforms the values of a cell by steps that need nothing else ([`Needs::Values`]).
    pub fn apply_values(&self, values: &mut [f32]) {
        let mut row = Row {
            columns: Vec::new(),
            values: values.to_vec(),
        };
        let nobody = Draw {
            seed: 0,
            epoch: 0,
            cell: 0,
            augments: false,
        };
        self.apply(&mut row, nobody);
        values
            .iter_mut()
            .zip(row.values)
            .for_each(|(old, new)| *old = new);
    }

    /// Transforms all values of one cell, every column of its source among them; `draw` names what
    /// is drawn.
    pub fn apply(&self, row: &mut Row, draw: Draw) {
        let mut rng = rng::stream(draw.seed, Stream::Transform, draw.epoch, draw.cell);
        self.0.iter().for_each(|step| step.apply(row, &mut rng));
    }
}

impl Step {
    fn parse(text: &str) -> Option<Self> {
        let (name, argument) = text.split_once(':').unwrap_or((text, ""));
        let kind = *KINDS.iter().find(|kind| kind.name == name)?;
        (kind.takes)(argument).then(|| Self {
            kind,
            argument: argument.to_owned(),
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.argument.as_str() {
            "" => f.write_str(self.kind.name),
            argument => write!(f, "{}:{argument}", self.kind.name),
        }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        let number = |step: &Self| step.argument.parse::<f64>().ok();
        let same_argument = match (number(self), number(other)) {
            (Some(own), Some(others)) => own == others,
            _ => self.argument == other.argument,
        };
        self.kind.name == other.kind.name && same_argument
    }
}

/// A number that is finite and above 0.
fn is_positive(argument: &str) -> bool {
    argument
        .parse()
        .is_ok_and(|n: f64| n > 0.0 && n.is_finite())
}

/// A probability above 0 and below 1.
fn is_probability(argument: &str) -> bool {
    argument.parse().is_ok_and(|n: f64| n > 0.0 && n < 1.0)
}

/// The number of an argument that was found to be one.
fn number(argument: &str) -> f64 {
    argument.parse().unwrap_or(f64::NAN)
}

fn unknown(found: &str) -> TokenizeError {
    let name = |kind: &&Kind| match kind.argument {
        "" => kind.name.to_owned(),
        argument => format!("{}:{argument}", kind.name),
    };
    let names: Vec<String> = KINDS.iter().map(name).collect();
    TokenizeError::Transform {
        found: found.to_owned(),
        expected: format!(
            "steps are {}, joined by +; `none` is no step",
            names.join(", ")
        ),
    }
}

impl FromStr for Transform {
    type Err = TokenizeError;

    fn from_str(text: &str) -> Result<Self, TokenizeError> {
        if text == "none" {
            return Ok(Self::default());
        }
        let step = |text: &str| Step::parse(text.trim()).ok_or_else(|| unknown(text.trim()));
        text.split('+')
            .map(step)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => f.write_str("none"),
            steps => {
                let steps: Vec<String> = steps.iter().map(Step::to_string).collect();
                f.write_str(&steps.join("+"))
            }
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
