//! The two layers that everything is built of: a linear map and a LayerNorm, as handles on their
//! weights and a place for their gradients.

use candle_core::{Result, Tensor};

use crate::buffers::Target;
use crate::kernels::activation::Activation;
use crate::kernels::dropout::Dropout;
use crate::kernels::factor::Factor;
use crate::kernels::layer_norm;
use crate::kernels::linear::{self, InputGradient, Map, MapGradient, OutputGradient};
use crate::kernels::products::Precision;
use crate::parameters::{Gradients, Init, Parameter, ParameterSpec, Parameters};

/// y = x Wᵀ + b.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    weight: Parameter,
    bias: Parameter,
    precision: Precision,
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

    pub(super) fn new(parameters: &Parameters, name: &str, precision: Precision) -> Result<Self> {
        Self::with_weight(parameters, &format!("{name}.weight"), name, precision)
    }

    /// A linear map that borrows its weight from another layer.
    pub(super) fn with_weight(
        parameters: &Parameters,
        weight: &str,
        name: &str,
        precision: Precision,
    ) -> Result<Self> {
        Ok(Self {
            weight: parameters.parameter(weight)?,
            bias: parameters.parameter(&format!("{name}.bias"))?,
            precision,
        })
    }

    fn map(&self) -> Map<'_> {
        Map {
            weight: &self.weight.tensor,
            bias: &self.bias.tensor,
        }
    }

    /// [N, in] → [N, out]
    pub(super) fn forward(&self, x: &Factor) -> Result<Tensor> {
        let [y] = linear::forward(self.precision, x, [self.map()])?;
        Ok(y)
    }

    /// [N, in] through each of `layers` → [N, out] each.
    pub(super) fn forward_all<const N: usize>(
        layers: [&Self; N],
        x: &Factor,
    ) -> Result<[Tensor; N]> {
        let precision = layers
            .first()
            .map_or(Precision::F32, |layer| layer.precision);
        linear::forward(precision, x, layers.map(Self::map))
    }

    /// [N, in] → [N, out] before and after an activation.
    pub(super) fn forward_activated(
        &self,
        x: &Factor,
        activation: Activation,
    ) -> Result<(Tensor, Tensor)> {
        linear::forward_activated(self.precision, x, self.map(), activation)
    }

    /// As [`Linear::forward_activated`], for another linear map.
    pub(super) fn forward_activated_factor(
        &self,
        x: &Factor,
        activation: Activation,
    ) -> Result<(Tensor, Factor)> {
        linear::forward_activated_factor(self.precision, x, self.map(), activation)
    }

    /// The gradient of x; those of weight and bias are left in `gradients`.
    pub(super) fn backward(
        &self,
        x: &Factor,
        dy: impl Into<OutputGradient>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        self.backward_to(x, dy, InputGradient::New, gradients)
    }

    /// As [`Linear::backward`], with a say in what the gradient of x becomes.
    pub(super) fn backward_to(
        &self,
        x: &Factor,
        dy: impl Into<OutputGradient>,
        to: InputGradient<'_>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        Self::backward_all([self], x, [dy], to, gradients)
    }

    /// As [`Linear::backward`], where x came out of `activation` at `pre`: the gradient of `pre`.
    pub(super) fn backward_through(
        &self,
        x: &Factor,
        dy: impl Into<OutputGradient>,
        through: (Activation, &Tensor),
        gradients: &mut Gradients,
    ) -> Result<OutputGradient> {
        let (dy, targets) = (dy.into(), self.targets(gradients)?);
        let map = self.map_gradient(&dy, &targets);
        linear::backward_through(self.precision, x, map, through)
    }

    /// As [`Linear::backward_to`], of layers that had the same input.
    pub(super) fn backward_all<const N: usize>(
        layers: [&Self; N],
        x: &Factor,
        dys: [impl Into<OutputGradient>; N],
        to: InputGradient<'_>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let dys = dys.map(Into::into);
        let targets = layers.iter().map(|layer| layer.targets(gradients));
        let targets: Vec<[Target; 2]> = targets.collect::<Result<_>>()?;
        let maps = layers.iter().zip(&dys).zip(&targets);
        let maps = maps.map(|((layer, dy), targets)| layer.map_gradient(dy, targets));
        let precision = layers
            .first()
            .map_or(Precision::F32, |layer| layer.precision);
        linear::backward(precision, x, &maps.collect::<Vec<_>>(), to)
    }

    /// Where the gradients of weight and bias go.
    fn targets(&self, gradients: &mut Gradients) -> Result<[Target; 2]> {
        let weight = gradients.dense(self.weight.index)?;
        Ok([weight, gradients.dense(self.bias.index)?])
    }

    fn map_gradient<'a>(
        &'a self,
        dy: &'a OutputGradient,
        [dweight, dbias]: &'a [Target; 2],
    ) -> MapGradient<'a> {
        MapGradient {
            weight: &self.weight.tensor,
            dy,
            dweight,
            dbias,
        }
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
        layer_norm::forward(self.norm(), x, residual, dropout)
    }

    pub(super) fn norm(&self) -> layer_norm::Norm<'_> {
        layer_norm::Norm {
            weight: &self.weight.tensor,
            bias: &self.bias.tensor,
            eps: self.eps,
        }
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

    /// As [`LayerNorm::backward`], where x came out of a linear map.
    pub(super) fn backward_to_map(
        &self,
        precision: Precision,
        saved: &layer_norm::Saved,
        dy: Tensor,
        dropout: Option<&Dropout>,
        gradients: &mut Gradients,
    ) -> Result<(Tensor, OutputGradient)> {
        let dweight = gradients.dense(self.weight.index)?;
        let dbias = gradients.dense(self.bias.index)?;
        let targets = [&dweight, &dbias];
        let norm = (&self.weight.tensor, precision);
        layer_norm::backward_to_map(norm, saved, dy, dropout, targets)
    }
}

pub(super) fn spec(name: String, shape: &[usize], init: Init) -> ParameterSpec {
    ParameterSpec {
        name,
        shape: shape.to_vec(),
        init,
    }
}
