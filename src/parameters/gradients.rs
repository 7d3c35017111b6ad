//! Gradients, one per parameter, in the parameters' order.
//!
//! A layer's backward pass writes straight into the gradient of its parameter: [`Gradients::dense`]
//! hands out the [`Target`], which says whether it is fresh (write) or holds an earlier batch (add).
//!
//! A backward pass goes in stages (the head, each block, the embeddings); at the end of each it says
//! [`Gradients::settle`]. What was last touched in a stage is complete after it, and a [`Watcher`]
//! may take it away while the pass goes on.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, bail};

use super::Parameters;
use crate::buffers::{self, Target, from_vec};
use crate::kernels::lists::Numbers;
use crate::kernels::rows::add_rows;

/// The gradient of a table of which few rows were used; every other row is zero.
#[derive(Debug, Clone)]
pub struct RowGradient {
    /// The rows, ascending, none twice.
    pub rows: Numbers,
    /// Their gradients, [R, D].
    pub values: Tensor,
}

/// The gradient of one parameter.
#[derive(Debug, Clone)]
pub enum Gradient {
    /// A tensor of the parameter's shape.
    Dense(Tensor),
    /// Some rows of it.
    Rows(RowGradient),
}

/// The gradients of one or several batches, in the order of [`Parameters`]. A parameter that no
/// batch has touched has none.
#[derive(Debug, Clone)]
pub struct Gradients {
    names: Vec<String>,
    shapes: Vec<Vec<usize>>,
    device: Device,
    entries: Vec<Option<Gradient>>,
    /// Memory of forgotten dense gradients, to be used again.
    spare: Vec<Option<Tensor>>,
    /// The stage of the backward pass, and that in which each parameter was last touched.
    stage: u32,
    touched: Vec<u32>,
    watcher: Option<Watcher>,
    loss_scale: Option<Tensor>,
}

/// Told at the end of each stage of a backward pass: of the gradients, and which stage it was.
#[derive(Clone)]
pub struct Watcher(Arc<Act>);

type Act = dyn Fn(&Gradients, u32) -> Result<()>;

impl Watcher {
    /// Calls `act` at the end of each stage.
    pub fn new(act: impl Fn(&Gradients, u32) -> Result<()> + 'static) -> Self {
        Self(Arc::new(act))
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("watcher")
    }
}

impl Gradients {
    /// No gradient yet for any of `parameters`.
    pub fn new(parameters: &Parameters) -> Self {
        Self {
            names: parameters.names().to_vec(),
            shapes: parameters.iter().map(|(_, v)| v.dims().to_vec()).collect(),
            device: parameters.device(),
            entries: vec![None; parameters.len()],
            spare: vec![None; parameters.len()],
            stage: 0,
            touched: vec![0; parameters.len()],
            watcher: None,
            loss_scale: None,
        }
    }

    /// Gradients from now on are those of the loss times the first number of `scale`, on a GPU.
    pub fn scale_loss_by(&mut self, scale: Option<Tensor>) {
        self.loss_scale = scale;
    }

    /// What multiplies the loss; `None`: nothing.
    pub fn loss_scale(&self) -> Option<Tensor> {
        self.loss_scale.clone()
    }

    /// A backward pass begins, whose stages `watcher` is told of.
    pub fn begin(&mut self, watcher: Option<Watcher>) {
        self.stage = 0;
        self.watcher = watcher;
    }

    /// A stage of the backward pass has ended.
    ///
    /// # Errors
    /// The watcher's.
    pub fn settle(&mut self) -> Result<()> {
        let stage = self.stage;
        self.stage += 1;
        match self.watcher.clone() {
            Some(watcher) => (watcher.0)(self, stage),
            None => Ok(()),
        }
    }

    /// The stage of the last backward pass in which parameter `index` was last touched.
    pub fn last_touched(&self, index: usize) -> u32 {
        self.touched[index]
    }

    /// Number of weights of parameter `index`.
    pub fn num_weights(&self, index: usize) -> usize {
        self.shapes[index].iter().product()
    }

    /// Rows and width of parameter `index`: the last dimension and all before it.
    pub fn rows_and_width(&self, index: usize) -> (usize, usize) {
        let width = self.shapes[index].last().copied().unwrap_or(1);
        (self.num_weights(index) / width.max(1), width)
    }

    /// The gradient of parameter `index` as a tensor of one dimension; zeros where there is none.
    ///
    /// # Errors
    /// A tensor cannot be made.
    pub fn flat(&self, index: usize) -> Result<Tensor> {
        match &self.entries[index] {
            None => zeros(&[self.num_weights(index)], &self.device),
            Some(Gradient::Dense(tensor)) => tensor.flatten_all(),
            Some(Gradient::Rows(rows)) => {
                spread(rows, &self.shapes[index], &self.device)?.flatten_all()
            }
        }
    }

    /// Replaces the gradient of parameter `index` by `values`, of any shape with as many numbers,
    /// which may be a part of a larger tensor; nothing may be added to it afterwards.
    ///
    /// # Errors
    /// The number of values is not that of the weights.
    pub fn set_dense(&mut self, index: usize, values: &Tensor) -> Result<()> {
        let values = values.reshape(self.shapes[index].as_slice())?;
        self.entries[index] = Some(Gradient::Dense(values));
        Ok(())
    }

    /// Replaces the gradient of parameter `index` by one of some rows.
    pub fn set_rows(&mut self, index: usize, rows: RowGradient) {
        self.entries[index] = Some(Gradient::Rows(rows));
    }

    /// Forgets every gradient; the memory of dense ones is kept for the next batch, so no handle
    /// on one should outlive this.
    pub fn clear(&mut self) {
        for (entry, spare) in self.entries.iter_mut().zip(&mut self.spare) {
            if let Some(Gradient::Dense(tensor)) = entry.take() {
                *spare = Some(tensor);
            }
        }
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no parameter has a gradient.
    pub fn is_empty(&self) -> bool {
        self.entries.iter().all(Option::is_none)
    }

    /// Where they are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Names and gradients in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&Gradient>)> {
        let entries = self.entries.iter().map(Option::as_ref);
        self.names.iter().map(String::as_str).zip(entries)
    }

    /// The gradient of parameter `index`.
    pub fn get(&self, index: usize) -> Option<&Gradient> {
        self.entries.get(index)?.as_ref()
    }

    /// The gradient of the parameter called `name` as a tensor of its shape.
    ///
    /// # Errors
    /// There is no such parameter, or it has no gradient.
    pub fn to_dense(&self, name: &str) -> Result<Tensor> {
        let Some(index) = self.names.iter().position(|n| n == name) else {
            bail!("there is no parameter named {name}");
        };
        match &self.entries[index] {
            Some(Gradient::Dense(tensor)) => Ok(tensor.clone()),
            Some(Gradient::Rows(rows)) => spread(rows, &self.shapes[index], &self.device),
            None => bail!("{name} has no gradient"),
        }
    }

    /// Where to leave the gradient of parameter `index`; fresh memory is not to be added to.
    ///
    /// # Errors
    /// A tensor cannot be made.
    pub fn dense(&mut self, index: usize) -> Result<Target> {
        self.touched[index] = self.stage;
        let shape = &self.shapes[index];
        let (tensor, add) = match self.entries[index].take() {
            Some(Gradient::Dense(tensor)) => (tensor, true),
            Some(Gradient::Rows(rows)) => (spread(&rows, shape, &self.device)?, true),
            None => match self.spare[index].take() {
                Some(tensor) => (tensor, false),
                None => (zeros(shape, &self.device)?, false),
            },
        };
        self.entries[index] = Some(Gradient::Dense(tensor.clone()));
        Ok(Target { tensor, add })
    }

    /// Adds to some rows of the gradient of parameter `index`.
    ///
    /// # Errors
    /// A row is beyond the parameter, or widths differ.
    pub fn add_rows(&mut self, index: usize, rows: RowGradient) -> Result<()> {
        self.touched[index] = self.stage;
        let sum = match self.entries[index].take() {
            None => Gradient::Rows(rows),
            Some(Gradient::Rows(old)) if self.device.is_cpu() => {
                Gradient::Rows(merge(&old, &rows)?)
            }
            Some(Gradient::Rows(old)) => {
                let table = spread(&old, &self.shapes[index], &self.device)?;
                add_rows(&table, &rows.rows, &rows.values)?;
                Gradient::Dense(table)
            }
            Some(Gradient::Dense(table)) => {
                add_rows(&table, &rows.rows, &rows.values)?;
                Gradient::Dense(table)
            }
        };
        self.entries[index] = Some(sum);
        Ok(())
    }

    /// Adds the gradients of another batch of the same model.
    ///
    /// # Errors
    /// The gradients are of another model.
    pub fn add(&mut self, other: &Gradients) -> Result<()> {
        if self.shapes != other.shapes {
            bail!("these gradients are of different models");
        }
        for (index, gradient) in other.entries.iter().enumerate() {
            match gradient {
                None => {}
                Some(Gradient::Rows(rows)) => self.add_rows(index, rows.clone())?,
                Some(Gradient::Dense(from)) => {
                    let from = buffers::read::<f32>(from)?;
                    self.dense(index)?.put(&from)?;
                }
            }
        }
        Ok(())
    }

    /// Multiplies every gradient by `factor`.
    ///
    /// # Errors
    /// A tensor cannot be written.
    pub fn scale(&mut self, factor: f32) -> Result<()> {
        for gradient in self.entries.iter().flatten() {
            let tensor = match gradient {
                Gradient::Dense(tensor) => tensor,
                Gradient::Rows(rows) => &rows.values,
            };
            buffers::write(tensor, |values| {
                for value in values {
                    *value *= factor;
                }
            })?;
        }
        Ok(())
    }
}

fn width(rows: &RowGradient) -> usize {
    rows.values.dims().last().copied().unwrap_or(0)
}

fn zeros(shape: &[usize], device: &Device) -> Result<Tensor> {
    Tensor::zeros(shape, DType::F32, device)
}

fn spread(rows: &RowGradient, shape: &[usize], device: &Device) -> Result<Tensor> {
    let table = zeros(shape, device)?;
    add_rows(&table, &rows.rows, &rows.values)?;
    Ok(table)
}

fn merge(left: &RowGradient, right: &RowGradient) -> Result<RowGradient> {
    let width = width(left);
    let (a, b) = (
        buffers::read::<f32>(&left.values)?,
        buffers::read::<f32>(&right.values)?,
    );
    let (mut i, mut j) = (0, 0);
    let mut rows = Vec::with_capacity(left.rows.len() + right.rows.len());
    let mut values = Vec::with_capacity(rows.capacity() * width);
    while i < left.rows.len() || j < right.rows.len() {
        let row_a = left.rows.get(i).copied().unwrap_or(u32::MAX);
        let row_b = right.rows.get(j).copied().unwrap_or(u32::MAX);
        let row = row_a.min(row_b);
        rows.push(row);
        let start = values.len();
        if row_a == row {
            values.extend_from_slice(&a[i * width..(i + 1) * width]);
            i += 1;
        }
        if row_b == row {
            let from = &b[j * width..(j + 1) * width];
            j += 1;
            if values.len() == start {
                values.extend_from_slice(from);
            } else {
                for (to, from) in values[start..].iter_mut().zip(from) {
                    *to += from;
                }
            }
        }
    }
    let values = from_vec(values, (rows.len(), width))?;
    let rows = rows.into();
    Ok(RowGradient { rows, values })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::parameters::{Init, ParameterSpec};

    fn table() -> Parameters {
        let spec = ParameterSpec {
            name: "table".into(),
            shape: vec![5, 2],
            init: Init::Zeros,
        };
        Parameters::init(&[spec], 1).unwrap()
    }

    fn rows(rows: &[u32], values: &[f32]) -> RowGradient {
        RowGradient {
            rows: rows.into(),
            values: from_vec(values.to_vec(), (rows.len(), 2)).unwrap(),
        }
    }

    #[test]
    fn rows_merge_and_agree_with_the_dense_sum() {
        let parameters = table();
        let mut sparse = Gradients::new(&parameters);
        assert!(sparse.is_empty() && sparse.to_dense("table").is_err());
        sparse
            .add_rows(0, rows(&[1, 3], &[1.0, 2.0, 3.0, 4.0]))
            .unwrap();
        let mut other = Gradients::new(&parameters);
        other
            .add_rows(0, rows(&[0, 3], &[5.0, 6.0, 7.0, 8.0]))
            .unwrap();
        sparse.add(&other).unwrap();
        let mut dense = Gradients::new(&parameters);
        dense.dense(0).unwrap();
        dense.add(&other).unwrap();
        dense
            .add_rows(0, rows(&[1, 3], &[1.0, 2.0, 3.0, 4.0]))
            .unwrap();
        let values = |g: &Gradients| {
            let tensor = g.to_dense("table").unwrap();
            tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let expected = [5.0, 6.0, 1.0, 2.0, 0.0, 0.0, 10.0, 12.0, 0.0, 0.0];
        assert_eq!(values(&sparse), expected);
        assert_eq!(values(&dense), expected);
        sparse.scale(0.5).unwrap();
        assert_eq!(values(&sparse), expected.map(|x| x / 2.0));
        assert!(sparse.add_rows(0, rows(&[9], &[0.0, 0.0])).is_ok());
        assert!(sparse.to_dense("table").is_err(), "row 9 of 5");
        dense.clear();
        assert!(dense.is_empty());
        dense.add(&other).unwrap();
        assert_eq!(values(&dense), values(&other));
        dense.clear();
        dense.dense(0).unwrap().put(&[1.0; 10]).unwrap();
        assert_eq!(values(&dense), [1.0; 10]);
    }
}
