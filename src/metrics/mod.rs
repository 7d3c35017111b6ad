//! How good predictions and clusters are: numbers in, figures out.
//!
//! [`Predictions`] collects (true class, probability of each class) cell by cell and sums them up
//! as [`Figures`]; [`Confusion`] is the part of it that needs no probabilities, [`ClassFigures`] a
//! row of the table by class. The majority-class baseline is the same matrix as if one class had
//! always been answered ([`Confusion::always`]). [`Resampler`] gives the figures of a bootstrap,
//! [`Reliability`] asks whether probabilities can be believed. [`clustering`] compares clusters with labels and
//! asks how far apart labels lie in an embedding.
//!
//! Definitions are scikit-learn's with `zero_division=0` (SPEC §5); the classes counted in macro
//! averages are those present in truth or prediction. A figure that does not exist (an AUROC of a
//! class that no cell or every cell has) is `None`, never NaN.
//!
//! Knows no cell, no model and no name of a class: classes are 0..C. Probabilities of many
//! predictions are kept in a temporary file.

pub mod clustering;
mod confusion;
mod predictions;
mod ranking;
mod reliability;
mod resample;
mod scores;

pub use confusion::{ClassFigures, Confusion};
pub use predictions::{Figures, Predictions, argmax, softmax};
pub use reliability::{Reliability, ReliabilityBin};
pub use resample::Resampler;
