//! Classical methods on plain numbers: what a transformer is compared with, and looked at by.
//!
//! [`Moments`] sums rows up, dense or sparse, for principal components ([`Components`]);
//! [`nearest`] finds neighbours exactly; [`cluster`] is k-means; [`layout()`] puts neighbours
//! close together in the plane, as UMAP does; [`Logistic`] is multinomial logistic regression.
//!
//! Rows are `&[f32]` of `[N, width]`, sums are f64. Every result follows from its input and seed
//! alone, whatever the number of threads. Knows no cell, no file and no model.

mod eigen;
mod kmeans;
mod layout;
mod logistic;
mod neighbours;
mod pca;

pub use kmeans::cluster;
pub use layout::layout;
pub use logistic::Logistic;
pub use neighbours::{Neighbours, nearest};
pub use pca::{Components, Moments};
