//! AdamW over all parameters: two moments each, decay on matrices and tables only.
//!
//! State on disk: a safetensors file with `NAME.exp_avg` and `NAME.exp_avg_sq` for every parameter
//! and, in its metadata, the number of steps taken and, where the loss is scaled, its scale and the
//! steps since that changed; reading it back is exact.

use std::path::Path;

use candle_core::{DType, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use super::guard::{Outcome, State, StepRule};
#[cfg(feature = "cuda")]
use super::norm::all_of;
use super::norm::global_norm;
use crate::buffers::{self, Number};
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
    state: State,
    /// The state on a GPU, where that decides about steps: then `state` is that of the last load.
    on_gpu: Option<Tensor>,
    scales_loss: bool,
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
        let entries = parameters.iter().map(entry).collect::<Result<_>>()?;
        let mut adamw = Self {
            config,
            entries,
            state: State::new(false),
            on_gpu: None,
            scales_loss: false,
        };
        adamw.restart(State::new(false))?;
        Ok(adamw)
    }

    /// The same, with gradients of the loss times a scale that finds its size by itself; on a GPU.
    ///
    /// # Errors
    /// The parameters are on the CPU.
    pub fn scaling_loss(mut self) -> Result<Self> {
        self.scales_loss = true;
        self.restart(State::new(true))?;
        match self.on_gpu {
            Some(_) => Ok(self),
            None => bail!("losses are scaled on a GPU only"),
        }
    }

    fn restart(&mut self, state: State) -> Result<()> {
        self.state = state;
        #[cfg(feature = "cuda")]
        if let Some(device) = self.entries.first().map(|entry| entry.weights.device())
            && device.is_cuda()
        {
            self.on_gpu = Some(Tensor::new(&state.to_numbers(), device)?);
        }
        Ok(())
    }

    /// What multiplies the loss, for [`Gradients::scale_loss_by`].
    pub fn loss_scale(&self) -> Option<Tensor> {
        self.on_gpu.clone().filter(|_| self.scales_loss)
    }

    /// Steps taken; those left out are not counted. Waits for a GPU.
    ///
    /// # Errors
    /// The device fails.
    pub fn num_steps(&self) -> Result<u64> {
        Ok(self.now()?.applied)
    }

    fn now(&self) -> Result<State> {
        let Some(tensor) = &self.on_gpu else {
            return Ok(self.state);
        };
        match State::from_numbers(&tensor.to_vec1::<f64>()?) {
            Some(state) => Ok(state),
            None => bail!("the state of AdamW has {} numbers", tensor.elem_count()),
        }
    }

    /// One step, unless it is not finite: `losses`, summed over labels, are those that the
    /// `gradients` are of. A parameter without a gradient stays as it is. On a GPU nothing is waited
    /// for.
    ///
    /// # Errors
    /// The gradients are of another model.
    pub fn guarded_step(
        &mut self,
        gradients: &Gradients,
        losses: &[Number],
        rule: StepRule,
    ) -> Result<Outcome> {
        #[cfg(feature = "cuda")]
        if let Some(state) = self.on_gpu.clone() {
            let numbers = [
                rule.mean,
                rule.max_norm,
                rule.lr,
                self.config.beta1,
                self.config.beta2,
                self.config.eps,
                f64::from(u8::from(self.scales_loss)),
            ];
            let moved = self.moved(gradients, rule.lr, 1.0)?;
            let verdict = adamw::guarded_step(&moved, &all_of(gradients), losses, numbers, &state)?;
            return Ok(Outcome::OnDevice(verdict));
        }
        let losses = losses.iter().map(Number::wait);
        let loss: f64 = losses.collect::<Result<Vec<f64>>>()?.iter().sum();
        let sums = (loss, global_norm(gradients)?);
        let (verdict, factor) = self.state.decide(self.scales_loss, rule, sums);
        if let Some(factor) = factor {
            adamw::step(&self.moved(gradients, rule.lr, factor)?)?;
        }
        Ok(Outcome::Known(verdict))
    }

    /// What a step at `lr` moves, by gradients times `scale`.
    fn moved<'a>(
        &'a mut self,
        gradients: &'a Gradients,
        lr: f64,
        scale: f64,
    ) -> Result<Vec<Moved<'a>>> {
        if gradients.len() != self.entries.len() {
            bail!("these gradients are of another model");
        }
        let (config, step) = (self.config, self.state.applied);
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
            let entry = &*entry;
            let gradient = match gradient {
                None => continue,
                Some(Gradient::Dense(tensor)) => adamw::Gradient::Dense(tensor),
                Some(Gradient::Rows(of)) => adamw::Gradient::Rows {
                    rows: &of.rows,
                    values: &of.values,
                    seen: &entry.seen,
                },
            };
            let weight_decay = if entry.decays {
                config.weight_decay
            } else {
                0.0
            };
            let settings = Settings {
                lr,
                beta1: config.beta1,
                beta2: config.beta2,
                eps: config.eps,
                weight_decay,
                step,
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
        Ok(all)
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
        let state = self.now()?;
        let [steps, scale, good] = [
            state.applied.to_string(),
            state.loss_scale.to_string(),
            state.good_steps.to_string(),
        ];
        let metadata = [
            ("steps", &steps[..]),
            ("loss_scale", &scale),
            ("good_steps", &good),
        ];
        let kept = if self.scales_loss { 3 } else { 1 };
        write_tensors(path, &moments.collect::<Vec<_>>(), &metadata[..kept])
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
        let fresh = State::new(self.scales_loss);
        let number = |key: &str| metadata.get(key).and_then(|text| text.parse().ok());
        let scale = metadata
            .get("loss_scale")
            .and_then(|text| text.parse().ok());
        Ok(self.restart(State {
            applied: steps,
            loss_scale: scale
                .filter(|_| self.scales_loss)
                .unwrap_or(fresh.loss_scale),
            good_steps: number("good_steps").unwrap_or(0),
            ..fresh
        })?)
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
