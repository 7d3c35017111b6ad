//! What a run learns. The loop knows batches, gradients and figures; which loss they are of, and
//! on what they are measured, is the task's: masked tokens ([`super::pretrain`]) or the
//! classes of cells ([`super::classify`]).

use anyhow::Result;

use super::figures::Evaluation;
use crate::kernels::lists::Lists;
use crate::model::{DropoutKey, Gradients, StepLoss};

/// A model with its loss and its measure.
pub trait Task {
    /// The loss summed over the labels of a batch, its gradients added to `gradients`.
    ///
    /// # Errors
    /// A batch that does not fit the model.
    fn loss_and_gradients(
        &self,
        lists: &Lists,
        dropout: DropoutKey,
        gradients: &mut Gradients,
    ) -> Result<StepLoss>;

    /// Whether there are held-out cells.
    fn evaluates(&self) -> bool;

    /// The figures of the held-out cells; `None` where there are none.
    ///
    /// # Errors
    /// Unreadable cells, or an error of the model.
    fn evaluate(&self, step: u64, epoch: f64) -> Result<Option<Evaluation>>;
}
