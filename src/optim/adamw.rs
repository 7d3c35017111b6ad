//! AdamW over all parameters: two moments each, decay on matrices and tables only.
//!
//! State on disk: a safetensors file with `NAME.exp_avg` and `NAME.exp_avg_sq` for every parameter
//! and the number of steps taken in its metadata; reading it back is exact.

use std::path::Path;

use candle_core::{DType, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use crate::buffers;
use crate::kernels::adamw::{self, Moved, Settings};
use crate::parameters::{
    Gradient, Gradients, ParameterError, Parameters, read_tensors, write_tensors,
};

/// AdamW's numbers (SPEC §4).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Fading of the first moment. Default 0.9.
    pub beta1: f64,
    /// Fading of the second moment. Default 0.999.
    pub beta2: f64,
    /// Added to the root of the second moment. Default 1e-8.
    pub eps: f64,
    /// Decoupled decay of matrices and embeddings; biases and LayerNorm have none. Default 0.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
        }
    }
}

/// The optimizer and its state.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    entries: Vec<Entry>,
    steps: u64,
}

#[derive(Debug)]
struct Entry {
    name: String,
    weights: Tensor,
    first: Tensor,
    second: Tensor,
    decays: bool,
    /// Of each row of a table, whether it ever had a gradient.
    seen: Vec<bool>,
}

impl AdamW {
    /// An optimizer that has taken no step.
    ///
    /// # Errors
    /// A tensor cannot be made.
    pub fn new(parameters: &Parameters, config: AdamWConfig) -> Result<Self> {
        let entry = |(name, var): (&str, &candle_core::Var)| {
            let zeros = || Tensor::zeros(var.dims(), DType::F32, var.device());
            Ok(Entry {
                name: name.to_owned(),
                weights: var.as_detached_tensor(),
                first: zeros()?,
                second: zeros()?,
                decays: var.dims().len() >= 2,
                seen: vec![false; var.dims().first().copied().unwrap_or(0)],
            })
        };
        Ok(Self {
            config,
            entries: parameters.iter().map(entry).collect::<Result<_>>()?,
            steps: 0,
        })
    }

    /// Steps taken.
    pub fn num_steps(&self) -> u64 {
        self.steps
    }

    /// One step at learning rate `lr` with gradients multiplied by `scale` (clipping, mean over
    /// labels). A parameter without a gradient stays as it is.
    ///
    /// # Errors
    /// The gradients are of another model.
    pub fn step(&mut self, gradients: &Gradients, lr: f64, scale: f64) -> Result<()> {
        if gradients.len() != self.entries.len() {
            bail!("these gradients are of another model");
        }
        self.steps += 1;
        let mut all = Vec::with_capacity(self.entries.len());
        for (entry, (_, gradient)) in self.entries.iter_mut().zip(gradients.iter()) {
            match gradient {
                None => continue,
                Some(Gradient::Dense(_)) => entry.seen.fill(true),
                Some(Gradient::Rows(of)) => {
                    let rows = of.rows.iter();
                    rows.for_each(|row| {
                        if let Some(seen) = entry.seen.get_mut(*row as usize) {
                            *seen = true;
                        }
                    });
                }
            }
            let gradient = match gradient {
                None => continue,
                Some(Gradient::Dense(tensor)) => adamw::Gradient::Dense(tensor),
                Some(Gradient::Rows(of)) => adamw::Gradient::Rows {
                    rows: &of.rows,
                    values: &of.values,
                    seen: &entry.seen,
                },
            };
            let settings = Settings {
                lr,
                beta1: self.config.beta1,
                beta2: self.config.beta2,
                eps: self.config.eps,
                weight_decay: if entry.decays {
                    self.config.weight_decay
                } else {
                    0.0
                },
                step: self.steps,
                scale,
            };
            all.push(Moved {
                weights: &entry.weights,
                gradient,
                first: &entry.first,
                second: &entry.second,
                settings,
            });
        }
        adamw::step(&all)
    }

    /// Writes moments and step count, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> std::result::Result<(), ParameterError> {
        let moments = self.entries.iter().flat_map(|entry| {
            [
                (format!("{}.exp_avg", entry.name), &entry.first),
                (format!("{}.exp_avg_sq", entry.name), &entry.second),
            ]
        });
        let steps = self.steps.to_string();
        write_tensors(path, &moments.collect::<Vec<_>>(), &[("steps", &steps)])
    }

    /// Reads moments and step count.
    ///
    /// # Errors
    /// The file is unreadable, or of another model; nothing has changed then.
    pub fn load(&mut self, path: &Path) -> std::result::Result<(), ParameterError> {
        let (tensors, metadata) = read_tensors(path)?;
        let steps = metadata.get("steps").and_then(|steps| steps.parse().ok());
        let (mut missing, mut mismatches) = (Vec::new(), Vec::new());
        if steps.is_none() {
            missing.push("the number of steps (metadata `steps`)".to_owned());
        }
        let mut moments = Vec::new();
        for entry in &self.entries {
            for (kind, to) in [("exp_avg", &entry.first), ("exp_avg_sq", &entry.second)] {
                let name = format!("{}.{kind}", entry.name);
                match tensors.get(&name) {
                    None => missing.push(name),
                    Some(from) if from.dims() != to.dims() => {
                        let (there, here) = (from.dims(), to.dims());
                        mismatches.push(format!("{name}: found {there:?}, expected {here:?}"));
                    }
                    Some(from) => moments.push((from, to)),
                }
            }
        }
        let path = path.to_owned();
        if !mismatches.is_empty() {
            return Err(ParameterError::Shapes { path, mismatches });
        }
        let (Some(steps), true) = (steps, missing.is_empty()) else {
            return Err(ParameterError::Missing {
                path,
                names: missing,
            });
        };
        for (from, to) in moments {
            buffers::fill(to, &buffers::read::<f32>(from)?)?;
        }
        for entry in &mut self.entries {
            let (first, second) = (read_rows(&entry.first)?, read_rows(&entry.second)?);
            entry.seen = first.iter().zip(&second).map(|(a, b)| *a || *b).collect();
        }
        self.steps = steps;
        Ok(())
    }
}

/// Of each row, whether anything in it is not 0.
fn read_rows(moment: &Tensor) -> Result<Vec<bool>> {
    let moment = buffers::to_host(moment)?;
    let values = buffers::read::<f32>(&moment)?;
    let height = moment.dims().first().copied().unwrap_or(0);
    let width = (values.len() / height.max(1)).max(1);
    let is_moved = |row: &[f32]| row.iter().any(|value| *value != 0.0);
    Ok(values.chunks(width).map(is_moved).collect())
}
