//! The ordered list of named weights, and safetensors files of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor, Var, bail};
use rand::Rng;
use rand_distr::StandardNormal;

use super::ParameterError;
use super::archive::{read_tensors, write_tensors};
use crate::buffers;
use crate::rng::{Stream, stream};

/// How a parameter begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// The same, but this row is zero.
    NormalExceptRow(f64, usize),
    /// All zero.
    Zeros,
    /// All one.
    Ones,
}

/// Name, shape and initial value of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterSpec {
    /// Name in the safetensors file.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Initial value.
    pub init: Init,
}

/// A handle on one parameter: what a layer holds.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Position in [`Parameters`] and [`super::Gradients`].
    pub index: usize,
    /// The weights; shares the memory of the variable, so optimizer steps are seen.
    pub tensor: Tensor,
}

/// The weights of a model: ordered, named candle variables of type f32.
#[derive(Debug, Clone)]
pub struct Parameters {
    names: Vec<String>,
    vars: Vec<Var>,
    index: HashMap<String, usize>,
}

/// What [`Parameters::load`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct LoadReport {
    /// The file read.
    pub path: PathBuf,
    /// Parameters that the file lacks: they keep their initial values.
    pub missing: Vec<String>,
    /// Tensors of the file that the model has no use for.
    pub unexpected: Vec<String>,
}

impl LoadReport {
    /// Refuses a file that lacked a parameter.
    ///
    /// # Errors
    /// Something was missing; the error names it.
    pub fn require_complete(self) -> Result<(), ParameterError> {
        if self.missing.is_empty() {
            return Ok(());
        }
        Err(ParameterError::Missing {
            path: self.path,
            names: self.missing,
        })
    }
}

impl Parameters {
    /// Fresh weights: each parameter draws from its own stream of the run seed.
    ///
    /// # Errors
    /// A tensor cannot be made.
    pub fn init(specs: &[ParameterSpec], seed: u64) -> candle_core::Result<Self> {
        let mut vars = Vec::with_capacity(specs.len());
        for (id, spec) in specs.iter().enumerate() {
            let values = initial_values(spec, seed, id as u64);
            vars.push(Var::from_vec(values, spec.shape.as_slice(), &Device::Cpu)?);
        }
        let names: Vec<String> = specs.iter().map(|s| s.name.clone()).collect();
        let index = names.iter().cloned().zip(0..).collect();
        Ok(Self { names, vars, index })
    }

    /// The same weights on `device`; those that are there already are shared, not copied.
    ///
    /// # Errors
    /// The device has not enough memory.
    pub fn to_device(self, device: &Device) -> candle_core::Result<Self> {
        let there = |var: &Var| var.device().same_device(device);
        if self.vars.iter().all(there) {
            return Ok(self);
        }
        let moved = |var: &Var| Var::from_tensor(&var.as_tensor().to_device(device)?);
        let vars = self
            .vars
            .iter()
            .map(moved)
            .collect::<candle_core::Result<_>>()?;
        Ok(Self { vars, ..self })
    }

    /// Where the weights live.
    pub fn device(&self) -> Device {
        self.vars
            .first()
            .map_or(Device::Cpu, |var| var.device().clone())
    }

    /// Number of parameters (tensors).
    pub fn len(&self) -> usize {
        self.vars.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.vars.is_empty()
    }

    /// Number of weights over all parameters.
    pub fn num_weights(&self) -> usize {
        self.vars.iter().map(|v| v.elem_count()).sum()
    }

    /// Names in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Names and variables in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.names.iter().map(String::as_str).zip(&self.vars)
    }

    /// The weights of parameter `index`.
    pub fn at(&self, index: usize) -> &Tensor {
        self.vars[index].as_tensor()
    }

    /// The variable called `name`.
    pub fn get(&self, name: &str) -> Option<&Var> {
        self.index.get(name).map(|&i| &self.vars[i])
    }

    /// A handle on the parameter called `name`, for a layer to hold.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn parameter(&self, name: &str) -> candle_core::Result<Parameter> {
        let Some(&index) = self.index.get(name) else {
            bail!("there is no parameter named {name}");
        };
        Ok(Parameter {
            index,
            tensor: self.vars[index].as_detached_tensor(),
        })
    }

    /// Reads weights from a safetensors file by name (any float type, converted to f32).
    /// Parameters that the file lacks keep their values and are reported.
    ///
    /// # Errors
    /// The file is unreadable, or a tensor has another shape; nothing has changed then.
    pub fn load(&self, path: &Path) -> Result<LoadReport, ParameterError> {
        self.load_where(path, |_| true)
    }

    /// As [`Parameters::load`], but of those names only that are `wanted`; the others count as
    /// missing from the file.
    ///
    /// # Errors
    /// As [`Parameters::load`].
    pub fn load_where(
        &self,
        path: &Path,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<LoadReport, ParameterError> {
        let (mut found, _) = read_tensors(path)?;
        let mut unexpected: Vec<String> = found.keys().filter(|n| !wanted(n)).cloned().collect();
        found.retain(|name, _| wanted(name));
        let mut mismatches = Vec::new();
        for (name, var) in self.iter() {
            if let Some(tensor) = found.get(name)
                && tensor.dims() != var.dims()
            {
                let (there, here) = (tensor.dims(), var.dims());
                mismatches.push(format!("{name}: found {there:?}, expected {here:?}"));
            }
        }
        if !mismatches.is_empty() {
            let path = path.to_owned();
            return Err(ParameterError::Shapes { path, mismatches });
        }
        let mut missing = Vec::new();
        for (name, var) in self.iter() {
            match found.remove(name) {
                Some(tensor) => copy_into(&tensor, var)?,
                None => missing.push(name.to_owned()),
            }
        }
        unexpected.extend(found.into_keys());
        Ok(LoadReport {
            path: path.to_owned(),
            missing,
            unexpected,
        })
    }

    /// Writes all weights to a safetensors file, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ParameterError> {
        let shapes = self.iter().map(|(name, var)| (name, var.dims()));
        let whole = |index: usize| Ok(self.at(index).clone());
        write_tensors(
            path,
            &shapes.collect::<Vec<_>>(),
            &[("format", "pt")],
            whole,
        )
    }
}

fn initial_values(spec: &ParameterSpec, seed: u64, id: u64) -> Vec<f32> {
    let count = spec.shape.iter().product();
    let normal = |deviation: f64| -> Vec<f32> {
        let draws = stream(seed, Stream::Init, 0, id).sample_iter::<f32, _>(StandardNormal);
        draws.take(count).map(|x| x * deviation as f32).collect()
    };
    match spec.init {
        Init::Zeros => vec![0.0; count],
        Init::Ones => vec![1.0; count],
        Init::Normal(deviation) => normal(deviation),
        Init::NormalExceptRow(deviation, row) => {
            let mut values = normal(deviation);
            let width = spec.shape.last().copied().unwrap_or(1);
            if let Some(row) = values.chunks_exact_mut(width.max(1)).nth(row) {
                row.fill(0.0);
            }
            values
        }
    }
}

fn copy_into(tensor: &Tensor, var: &Var) -> Result<(), ParameterError> {
    buffers::fill(var.as_tensor(), &buffers::read::<f32>(tensor)?)?;
    Ok(())
}
