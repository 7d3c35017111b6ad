//! AdamW over all parameters: two moments each, decay on matrices and tables only.
//!
//! State on disk: a safetensors file with `NAME.exp_avg` and `NAME.exp_avg_sq` for every parameter
//! and, in its metadata, the number of steps taken and, where the loss is scaled, its scale and the
//! steps since that changed; reading it back is exact. An optimizer may hold and move only the rows
//! of its rank ([`Division`]); the file is that of all together.

use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use super::Division;
use super::guard::{Outcome, State, StepRule};
#[cfg(feature = "cuda")]
use super::norm::all_of;
use super::norm::global_norm;
use crate::buffers::{self, Number};
use crate::kernels::adamw::{self, Moved, Settings};
use crate::parameters::{
    Archive, Gradient, Gradients, ParameterError, Parameters, RowGradient, write_tensors,
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
    /// Of the whole parameter.
    shape: Vec<usize>,
    /// Those that are moved here; all that follows is of them.
    rows: Range<usize>,
    weights: Tensor,
    first: Tensor,
    second: Tensor,
    decays: bool,
    /// Of each row of a table, whether it ever had a gradient.
    seen: Vec<bool>,
}

impl Entry {
    /// What there is of `gradient` for the rows here.
    fn part(&self, gradient: &Gradient) -> Result<Gradient> {
        Ok(match gradient {
            Gradient::Dense(tensor) => Gradient::Dense(self.part_of(tensor)?),
            Gradient::Rows(of) => {
                let place = |row: usize| of.rows.partition_point(|r| (*r as usize) < row);
                let (from, to) = (place(self.rows.start), place(self.rows.end));
                if self.rows.start == 0 && to == of.rows.len() {
                    return Ok(gradient.clone());
                }
                let rows = of.rows[from..to].iter();
                Gradient::Rows(RowGradient {
                    rows: rows.map(|row| row - self.rows.start as u32).collect(),
                    values: of.values.narrow(0, from, to - from)?,
                })
            }
        })
    }

    fn part_of(&self, tensor: &Tensor) -> Result<Tensor> {
        tensor.narrow(0, self.rows.start, self.rows.len())
    }

    fn see(&mut self, gradient: &Gradient) {
        match gradient {
            Gradient::Dense(_) => self.seen.fill(true),
            Gradient::Rows(of) => of.rows.iter().for_each(|row| {
                if let Some(seen) = self.seen.get_mut(*row as usize) {
                    *seen = true;
                }
            }),
        }
    }
}

impl AdamW {
    /// An optimizer that has taken no step.
    ///
    /// # Errors
    /// A tensor cannot be made.
    pub fn new(parameters: &Parameters, config: AdamWConfig) -> Result<Self> {
        let whole = Division::new(parameters.iter().map(|(_, var)| var.dims()), 1);
        Self::of_rank(parameters, config, &whole, 0)
    }

    /// As [`AdamW::new`], but only for the weights that belong to `rank`.
    ///
    /// # Errors
    /// A tensor cannot be made.
    pub fn of_rank(
        parameters: &Parameters,
        config: AdamWConfig,
        division: &Division,
        rank: usize,
    ) -> Result<Self> {
        let entry = |(index, (name, var)): (usize, (&str, &candle_core::Var))| {
            let rows = division.rows(index, rank);
            let weights = var.as_detached_tensor().narrow(0, rows.start, rows.len())?;
            let zeros = || match rows.is_empty() {
                // A GPU has no memory of no bytes.
                true => Ok(weights.clone()),
                false => Tensor::zeros(weights.dims(), DType::F32, var.device()),
            };
            Ok(Entry {
                name: name.to_owned(),
                shape: var.dims().to_vec(),
                first: zeros()?,
                second: zeros()?,
                weights,
                decays: var.dims().len() >= 2,
                seen: vec![false; rows.len()],
                rows,
            })
        };
        let entries = parameters.iter().enumerate().map(entry);
        let mut adamw = Self {
            config,
            entries: entries.collect::<Result<_>>()?,
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
            let parts = self.parts(gradients)?;
            let moved = self.moved(&parts, rule.lr, 1.0);
            let verdict = adamw::guarded_step(&moved, &all_of(gradients), losses, numbers, &state)?;
            return Ok(Outcome::OnDevice(verdict));
        }
        let losses = losses.iter().map(Number::wait);
        let loss: f64 = losses.collect::<Result<Vec<f64>>>()?.iter().sum();
        let sums = (loss, global_norm(gradients)?);
        let (verdict, factor) = self.state.decide(self.scales_loss, rule, sums);
        if let Some(factor) = factor {
            let parts = self.parts(gradients)?;
            adamw::step(&self.moved(&parts, rule.lr, factor))?;
        }
        Ok(Outcome::Known(verdict))
    }

    /// What there is of the gradients for the rows here.
    fn parts(&mut self, gradients: &Gradients) -> Result<Vec<Option<Gradient>>> {
        if gradients.len() != self.entries.len() {
            bail!("these gradients are of another model");
        }
        let pairs = self.entries.iter_mut().zip(gradients.iter());
        let part = |(entry, (_, gradient)): (&mut Entry, (_, Option<&Gradient>))| {
            let gradient = gradient.filter(|_| !entry.rows.is_empty());
            let part = gradient.map(|all| entry.part(all)).transpose()?;
            if let Some(part) = &part {
                entry.see(part);
            }
            Ok(part)
        };
        pairs.map(part).collect()
    }

    /// What a step at `lr` moves, by these parts of the gradients times `scale`.
    fn moved<'a>(&'a self, parts: &'a [Option<Gradient>], lr: f64, scale: f64) -> Vec<Moved<'a>> {
        let (config, step) = (self.config, self.state.applied);
        let one = |(entry, gradient): (&'a Entry, &'a Option<Gradient>)| {
            let gradient = match gradient.as_ref()? {
                Gradient::Dense(tensor) => adamw::Gradient::Dense(tensor),
                Gradient::Rows(of) => adamw::Gradient::Rows {
                    rows: &of.rows,
                    values: &of.values,
                    seen: &entry.seen,
                },
            };
            let weight_decay = match entry.decays {
                true => config.weight_decay,
                false => 0.0,
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
            Some(Moved {
                weights: &entry.weights,
                gradient,
                first: &entry.first,
                second: &entry.second,
                settings,
            })
        };
        self.entries.iter().zip(parts).filter_map(one).collect()
    }

    /// Writes moments and step count, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> std::result::Result<(), ParameterError> {
        self.save_all(path, |_, own| Ok(own.clone()))
    }

    /// As [`AdamW::save`], for an optimizer that has a part: `whole` makes of a parameter's number
    /// and the rows of a moment here the moment of all its rows. The ranks that do not write give
    /// theirs by [`AdamW::give`].
    ///
    /// # Errors
    /// The file cannot be written; what `whole` says.
    pub fn save_all(
        &self,
        path: &Path,
        mut whole: impl FnMut(usize, &Tensor) -> Result<Tensor>,
    ) -> std::result::Result<(), ParameterError> {
        let moments = self.moments();
        let shape = |(name, index, _): &(String, usize, _)| {
            (name.clone(), self.entries[*index].shape.as_slice())
        };
        let shapes: Vec<_> = moments.iter().map(shape).collect();
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
        write_tensors(path, &shapes, &metadata[..kept], |at| {
            let (_, index, own) = &moments[at];
            whole(*index, own)
        })
    }

    /// Calls `whole` as [`AdamW::save_all`] does, and writes nothing.
    ///
    /// # Errors
    /// What `whole` says.
    pub fn give(&self, mut whole: impl FnMut(usize, &Tensor) -> Result<Tensor>) -> Result<()> {
        let moments = self.moments().into_iter();
        { moments }.try_for_each(|(_, index, own)| whole(index, own).map(drop))
    }

    /// Names in the file, parameters, and what is here of the moments; in the order of the names,
    /// which is the file's.
    fn moments(&self) -> Vec<(String, usize, &Tensor)> {
        let of_entry = |(index, entry)| {
            let Entry {
                name,
                first,
                second,
                ..
            }: &Entry = entry;
            [
                (format!("{name}.exp_avg"), index, first),
                (format!("{name}.exp_avg_sq"), index, second),
            ]
        };
        let entries = self.entries.iter().enumerate();
        let mut moments: Vec<_> = entries.flat_map(of_entry).collect();
        moments.sort_by(|a, b| a.0.cmp(&b.0));
        moments
    }

    /// Reads moments and step count, whichever optimizers have written them.
    ///
    /// # Errors
    /// The file is unreadable, or of another model; nothing has changed then.
    pub fn load(&mut self, path: &Path) -> std::result::Result<(), ParameterError> {
        let archive = Archive::open(path)?;
        let steps = archive.words().get("steps").and_then(|s| s.parse().ok());
        let (mut missing, mut mismatches) = (Vec::new(), Vec::new());
        if steps.is_none() {
            missing.push("the number of steps (metadata `steps`)".to_owned());
        }
        for (name, index, _) in self.moments() {
            let here = &self.entries[index].shape;
            match archive.shape(&name) {
                None => missing.push(name),
                Some(there) if there != here => {
                    mismatches.push(format!("{name}: found {there:?}, expected {here:?}"));
                }
                Some(_) => {}
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
        for (name, index, to) in self.moments() {
            if to.elem_count() == 0 {
                continue;
            }
            if let Some(from) = archive.read(&name)? {
                let from = self.entries[index].part_of(&from)?;
                buffers::fill(to, &buffers::read::<f32>(&from)?)?;
            }
        }
        for entry in &mut self.entries {
            let (first, second) = (read_rows(&entry.first)?, read_rows(&entry.second)?);
            entry.seen = first.iter().zip(&second).map(|(a, b)| *a || *b).collect();
        }
        let fresh = State::new(self.scales_loss);
        let words = archive.words();
        let number = |key: &str| words.get(key).and_then(|text| text.parse().ok());
        let scale = words.get("loss_scale").and_then(|text| text.parse().ok());
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
