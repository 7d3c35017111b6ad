//! From a cell's tokens to what a batch holds of it: the inputs and the labels.

use crate::cell::{Label, TokenizedCell};

/// One cell, ready to be packed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollatedCell {
    /// Token ids, length L.
    pub input_ids: Vec<u32>,
    /// Token type ids, length L.
    pub token_type_ids: Vec<u32>,
    /// Labelled positions of this cell, ascending in 0..L.
    pub labels: Vec<Label>,
    /// The cell of the data set.
    pub id: u64,
}

/// Decides what of a cell is hidden and asked for. Pure: the same arguments, the same result, so
/// that it may run in any thread at any time.
pub trait Collator: Send + Sync {
    /// Inputs and labels of `cell`, which is cell `id` of the data set, in `epoch`.
    /// `measured` are the genes that its source measures, ascending.
    fn collate(&self, cell: TokenizedCell, measured: &[u32], epoch: u64, id: u64) -> CollatedCell;
}

/// Hides nothing and asks for nothing: inference, throughput, classifiers that label by cell.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlainCollator;

impl Collator for PlainCollator {
    fn collate(&self, cell: TokenizedCell, _: &[u32], _: u64, id: u64) -> CollatedCell {
        let TokenizedCell {
            input_ids,
            token_type_ids,
            ..
        } = cell;
        CollatedCell {
            input_ids,
            token_type_ids,
            labels: Vec::new(),
            id,
        }
    }
}
