//! What a trained model is used for: embeddings and predictions of the cells of h5ad files, put back
//! beside them.
//!
//! A checkpoint is opened once ([`Checkpoint`]); its vocabulary, genes, bins and settings say how
//! cells become tokens, so the files need nothing but the genes. Each file is read in the order of
//! its rows, a batch at a time, whatever the number of reader threads. Phenotypes that the model
//! was trained with stand in every cell as `[MASK]`, unless the user says that they are known and
//! may be seen ([`Reading::visible`]).
//!
//! Kept in memory are the names of one file's cells and its predictions, some ten bytes per predicted
//! value and cell; never its matrix, nor its embeddings, which go to the disk batch by batch. Where
//! several models vote, 4 bytes more per cell and value that they can predict.

mod cells;
mod checkpoint;
pub mod embed;
mod gather;
pub mod output;
pub mod predict;
mod vote;

pub use cells::{Reading, Rows};
pub use checkpoint::{Checkpoint, Model};
