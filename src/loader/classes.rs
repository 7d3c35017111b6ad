//! Cells labelled as a whole: the class of a cell is the label of its first token, `[CLS]`.

use std::sync::Arc;

use super::collator::{CollatedCell, Collator};
use crate::cell::{Label, TokenizedCell};

/// Stands for a cell without a class.
pub const NO_CLASS: u32 = u32::MAX;

/// Labels position 0 of each cell with its class, and hides nothing.
#[derive(Debug, Clone)]
pub struct ClassCollator {
    classes: Arc<[u32]>,
}

impl ClassCollator {
    /// `classes[c]` is the class of cell c of the data set, or [`NO_CLASS`].
    pub fn new(classes: Arc<[u32]>) -> Self {
        Self { classes }
    }
}

impl Collator for ClassCollator {
    fn collate(&self, cell: TokenizedCell, _: &[u32], _: u64, id: u64) -> CollatedCell {
        let class = self.classes.get(id as usize).copied();
        let label = class.filter(|&class| class != NO_CLASS).map(|class| Label {
            position: 0,
            token: class,
        });
        CollatedCell {
            input_ids: cell.input_ids,
            token_type_ids: cell.token_type_ids,
            labels: label.into_iter().collect(),
            id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_the_label_of_its_class_or_none() {
        let collator = ClassCollator::new([4, NO_CLASS].into());
        let collate = |id| {
            let cell = TokenizedCell {
                input_ids: vec![0, 7, 1],
                token_type_ids: vec![0, 2, 0],
                ..TokenizedCell::default()
            };
            collator.collate(cell, &[], 0, id)
        };
        let first = Label {
            position: 0,
            token: 4,
        };
        assert_eq!(collate(0).labels, [first]);
        assert!(collate(1).labels.is_empty() && collate(2).labels.is_empty());
        assert_eq!(collate(0).input_ids, [0, 7, 1]);
    }
}
