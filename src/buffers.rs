//! Read and write views of candle tensors: what lies between a tensor and the slices that a
//! kernel computes on.
//!
//! Tensors are the containers of weights, activations and gradients; kernels and the optimizer
//! work on flat, contiguous `f32` or `u32` slices of them. [`read`] gives such a slice for as long
//! as its guard lives, [`write()`] lends one mutably to a closure, [`from_vec`] makes a tensor of a
//! vector without copying it. A tensor on another device, of another type or with gaps is refused
//! by name. Knows nothing of models.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::{Deref, Range};

use candle_core::{
    CpuStorage, DType, Device, InplaceOp1, Layout, Result, Shape, Storage, StorageRef, Tensor,
    WithDType, bail,
};

/// A contiguous tensor's values, readable while this guard lives.
pub struct Slice<'a, T> {
    storage: StorageRef<'a>,
    range: Range<usize>,
    element: PhantomData<T>,
}

impl<T: WithDType> Deref for Slice<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &*self.storage {
            Storage::Cpu(values) => values
                .as_slice::<T>()
                .map_or(&[], |values| &values[self.range.clone()]),
            _ => &[],
        }
    }
}

/// The values of `tensor` in row-major order.
///
/// # Errors
/// The tensor is not on the CPU, not of type `T`, or not contiguous.
pub fn read<T: WithDType>(tensor: &Tensor) -> Result<Slice<'_, T>> {
    let (storage, layout) = tensor.storage_and_layout();
    let range = contiguous(layout)?;
    match &*storage {
        Storage::Cpu(values) => values.as_slice::<T>().map(|_| ())?,
        _ => bail!(
            "this operation has no implementation for {:?}",
            tensor.device()
        ),
    }
    Ok(Slice {
        storage,
        range,
        element: PhantomData,
    })
}

struct Write<F, R> {
    act: Cell<Option<F>>,
    answer: Cell<Option<R>>,
}

impl<R, F: FnOnce(&mut [f32]) -> R> InplaceOp1 for Write<F, R> {
    fn name(&self) -> &'static str {
        "write"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let range = contiguous(layout)?;
        let CpuStorage::F32(values) = storage else {
            bail!("expected a tensor of f32");
        };
        if let Some(act) = self.act.take() {
            self.answer.set(Some(act(&mut values[range])));
        }
        Ok(())
    }
}

/// Lends the values of `tensor` to `act`, to be changed in place. Every clone of the tensor sees
/// the change. While `act` runs, the same tensor must not be read.
///
/// # Errors
/// The tensor is not an `f32` tensor on the CPU, or not contiguous.
pub fn write<R>(tensor: &Tensor, act: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
    let op = Write {
        act: Cell::new(Some(act)),
        answer: Cell::new(None),
    };
    tensor.inplace_op1(&op)?;
    match op.answer.into_inner() {
        Some(answer) => Ok(answer),
        None => bail!("the tensor was not written"),
    }
}

/// As [`write()`], several tensors at once, none twice.
///
/// # Errors
/// As [`write()`].
pub fn write_all<R>(tensors: &[&Tensor], act: impl FnOnce(Vec<&mut [f32]>) -> R) -> Result<R> {
    type Act<'a, R> = Box<dyn FnOnce(Vec<&mut [f32]>) -> R + 'a>;
    fn rest<R>(tensors: &[&Tensor], lent: Vec<&mut [f32]>, act: Act<'_, R>) -> Result<R> {
        let Some((tensor, others)) = tensors.split_first() else {
            return Ok(act(lent));
        };
        write(tensor, move |values| {
            let mut lent: Vec<&mut [f32]> = lent;
            lent.push(values);
            rest(others, lent, act)
        })?
    }
    rest(tensors, Vec::with_capacity(tensors.len()), Box::new(act))
}

/// The values of `tensor` as f32 on the CPU: itself where it is that already.
///
/// # Errors
/// The device does not answer.
pub fn to_host(tensor: &Tensor) -> Result<Tensor> {
    match (tensor.device(), tensor.dtype()) {
        (Device::Cpu, DType::F32) => Ok(tensor.clone()),
        _ => tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu),
    }
}

/// Writes `values` over an f32 tensor on any device; every clone of it sees them.
///
/// # Errors
/// The number of values is not that of the tensor's.
pub fn fill(tensor: &Tensor, values: &[f32]) -> Result<()> {
    if tensor.elem_count() != values.len() {
        bail!("{} values for the shape {:?}", values.len(), tensor.shape());
    }
    if let Device::Cpu = tensor.device() {
        return write(tensor, |to| to.copy_from_slice(values));
    }
    let values = Tensor::from_slice(values, tensor.shape(), tensor.device())?;
    tensor.slice_set(&values, 0, 0)
}

/// A tensor on the CPU that owns `values`, without a copy.
///
/// # Errors
/// `shape` has another number of elements than `values`.
pub fn from_vec(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &Device::Cpu)
}

/// A number that may still be on its way from a device.
#[derive(Debug, Clone)]
pub enum Number {
    /// It is known.
    Here(f64),
    /// An f64 `[1]` on a device.
    There(Tensor),
}

impl Number {
    /// The number; waits for the device.
    ///
    /// # Errors
    /// The device fails.
    pub fn wait(&self) -> Result<f64> {
        match self {
            Self::Here(number) => Ok(*number),
            Self::There(tensor) => Ok(tensor.to_vec1::<f64>()?.into_iter().sum()),
        }
    }
}

/// Where a backward pass leaves the gradient of a parameter.
#[derive(Debug, Clone)]
pub struct Target {
    /// A tensor of the parameter's shape.
    pub tensor: Tensor,
    /// Whether to add to what it holds (an earlier batch) or to overwrite it.
    pub add: bool,
}

impl Target {
    /// Adds or writes `values`.
    ///
    /// # Errors
    /// The number of values is not that of the parameter's.
    pub fn put(&self, values: &[f32]) -> Result<()> {
        let count = self.tensor.elem_count();
        if values.len() != count {
            bail!("a gradient of {} values for {count} weights", values.len());
        }
        if !self.add {
            return fill(&self.tensor, values);
        }
        write(&self.tensor, |to| {
            for (to, from) in to.iter_mut().zip(values) {
                *to += from;
            }
        })
    }
}

fn contiguous(layout: &Layout) -> Result<Range<usize>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(start..end),
        None => bail!("expected a contiguous tensor, found the layout {layout:?}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_write_is_seen_by_every_clone_and_gaps_are_refused() {
        let tensor = from_vec(vec![1.0, 2.0, 3.0, 4.0], (2, 2)).unwrap();
        let clone = tensor.clone();
        assert_eq!(
            write(&tensor, |v| {
                v[3] = 9.0;
                v.len()
            })
            .unwrap(),
            4
        );
        assert_eq!(&*read::<f32>(&clone).unwrap(), &[1.0, 2.0, 3.0, 9.0]);
        assert!(read::<f32>(&tensor.t().unwrap()).is_err());
        assert!(read::<u32>(&tensor).is_err());
        assert_eq!(
            &*read::<f32>(&tensor.narrow(0, 1, 1).unwrap()).unwrap(),
            &[3.0, 9.0]
        );
    }
}
