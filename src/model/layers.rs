//! The two layers that everything is built of: a linear map and a LayerNorm, as handles on their
//! weights and a place for their gradients.

use candle_core::{Result, Tensor};

use crate::buffers::Target;
use crate::kernels::dropout::Dropout;
use crate::kernels::{layer_norm, linear};
use crate::parameters::{Gradients, Init, Parameter, ParameterSpec, Parameters};

/// y = x Wᵀ + b.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    weight: Parameter,
    bias: Parameter,
}

impl Linear {
    pub(super) fn specs(
        name: &str,
        inner: usize,
        outer: usize,
        deviation: f64,
    ) -> [ParameterSpec; 2] {
        [
            spec(
                format!("{name}.weight"),
                &[outer, inner],
                Init::Normal(deviation),
            ),
            spec(format!("{name}.bias"), &[outer], Init::Zeros),
        ]
    }

    pub(super) fn new(parameters: &Parameters, name: &str) -> Result<Self> {
        Self::with_weight(parameters, &format!("{name}.weight"), name)
    }

    /// A linear map that borrows its weight from another layer.
    pub(super) fn with_weight(parameters: &Parameters, weight: &str, name: &str) -> Result<Self> {
        Ok(Self {
            weight: parameters.parameter(weight)?,
            bias: parameters.parameter(&format!("{name}.bias"))?,
        })
    }

    /// [N, in] → [N, out]
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        linear::forward(x, &self.weight.tensor, Some(&self.bias.tensor))
    }

    /// The gradient of x; those of weight and bias are left in `gradients`.
    pub(super) fn backward(
        &self,
        x: &Tensor,
        dy: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        self.backward_weights(x, dy, gradients)?;
        linear::backward_input(dy, &self.weight.tensor)
    }

    /// As [`Linear::backward`], with the gradient of x added to `dx`.
    pub(super) fn backward_onto(
        &self,
        x: &Tensor,
        dy: &Tensor,
        dx: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<()> {
        self.backward_weights(x, dy, gradients)?;
        let dx = Target {
            tensor: dx.clone(),
            add: true,
        };
        linear::backward_input_to(dy, &self.weight.tensor, &dx)
    }

    fn backward_weights(&self, x: &Tensor, dy: &Tensor, gradients: &mut Gradients) -> Result<()> {
        linear::backward_weight(dy, x, &gradients.dense(self.weight.index)?)?;
        linear::backward_bias(dy, &gradients.dense(self.bias.index)?)
    }
}

/// LayerNorm with weight and bias.
#[derive(Debug, Clone)]
pub(super) struct LayerNorm {
    weight: Parameter,
    bias: Parameter,
    eps: f64,
}

impl LayerNorm {
    pub(super) fn specs(name: &str, width: usize) -> [ParameterSpec; 2] {
        [
            spec(format!("{name}.weight"), &[width], Init::Ones),
            spec(format!("{name}.bias"), &[width], Init::Zeros),
        ]
    }

    pub(super) fn new(parameters: &Parameters, name: &str, eps: f64) -> Result<Self> {
        Ok(Self {
            weight: parameters.parameter(&format!("{name}.weight"))?,
            bias: parameters.parameter(&format!("{name}.bias"))?,
            eps,
        })
    }

    /// LayerNorm(residual + dropout(x)); uses up x.
    pub(super) fn forward(
        &self,
        x: Tensor,
        residual: Option<&Tensor>,
        dropout: Option<&Dropout>,
    ) -> Result<(Tensor, layer_norm::Saved)> {
        let norm = layer_norm::Norm {
            weight: &self.weight.tensor,
            bias: &self.bias.tensor,
            eps: self.eps,
        };
        layer_norm::forward(norm, x, residual, dropout)
    }

    /// The gradients of residual and x; uses up dy.
    pub(super) fn backward(
        &self,
        saved: &layer_norm::Saved,
        dy: Tensor,
        dropout: Option<&Dropout>,
        gradients: &mut Gradients,
    ) -> Result<layer_norm::InputGradients> {
        let dweight = gradients.dense(self.weight.index)?;
        let dbias = gradients.dense(self.bias.index)?;
        layer_norm::backward(&self.weight.tensor, saved, dy, dropout, &dweight, &dbias)
    }
}

pub(super) fn spec(name: String, shape: &[usize], init: Init) -> ParameterSpec {
    ParameterSpec {
        name,
        shape: shape.to_vec(),
        init,
    }
}
