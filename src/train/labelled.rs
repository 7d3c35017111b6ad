//! The training cells of a classifier: those that have a class, how many there are of each, and what
//! follows from it: balanced data, class weights, the majority class.

use anyhow::{Result, bail};

use super::classes::Classes;
use crate::loader::{NO_CLASS, Selection};
use crate::metrics::argmax;
use crate::rng::{Stream, stream};

/// Cells with a class, and how many there are of each.
pub(super) struct Labelled {
    pub(super) cells: Selection,
    counts: Vec<u64>,
    num_without: u64,
}

impl Labelled {
    /// Those of `cells` that have a class.
    pub(super) fn new(cells: &Selection, class_of: &[u32], classes: &Classes) -> Result<Self> {
        let num_cells = class_of.len() as u64;
        let mut counts = vec![0; classes.len()];
        let mut kept = Vec::new();
        for cell in cells.cells(num_cells) {
            let class = class_of[cell as usize];
            if class != NO_CLASS {
                counts[class as usize] += 1;
                kept.push(cell);
            }
        }
        let num_without = cells.len(num_cells) - kept.len() as u64;
        let labelled = Self {
            cells: Selection::Rows(kept.into()),
            counts,
            num_without,
        };
        labelled.check(classes)?;
        Ok(labelled)
    }

    fn check(&self, classes: &Classes) -> Result<()> {
        let category = &classes.category;
        let present: Vec<usize> = (0..classes.len()).filter(|&c| self.counts[c] > 0).collect();
        match present[..] {
            [] => bail!(
                "obs column `{category}`: no training cell has a class\nhint: look at the column \
                 with `gene-bert info`"
            ),
            [only] => bail!(
                "obs column `{category}`: all {} training cells are {:?}, so there is nothing to \
                 tell apart\nhint: add files with other values, or name another column",
                self.counts[only],
                classes.names[only]
            ),
            _ => Ok(()),
        }
    }

    /// The most common class, the first of equals.
    pub(super) fn majority(&self) -> usize {
        argmax(&self.counts)
    }

    /// Classes and cells, for the screen.
    pub(super) fn describe(&self, classes: &Classes) -> String {
        let mut order: Vec<usize> = (0..classes.len()).collect();
        order.sort_by_key(|&class| std::cmp::Reverse(self.counts[class]));
        let shown = order.iter().take(10);
        let shown: Vec<String> = shown
            .map(|&class| format!("{} {}", classes.names[class], self.counts[class]))
            .collect();
        let more = if order.len() > 10 { ", …" } else { "" };
        let mut text = format!(
            "Classes of `{}`: {} ({}{more})",
            classes.category,
            classes.len(),
            shown.join(", ")
        );
        let absent = self.counts.iter().filter(|&&n| n == 0).count();
        if absent > 0 {
            text += &format!("; {absent} of them have no training cell");
        }
        if self.num_without > 0 {
            text += &format!(
                "\nLeft out: {} training cells without a class",
                self.num_without
            );
        }
        text
    }

    /// As many cells of every class that has any, drawn at random.
    pub(super) fn balanced(self, class_of: &[u32], seed: u64) -> Self {
        let num_cells = class_of.len() as u64;
        let least = self.counts.iter().copied().filter(|&n| n > 0).min();
        let least = least.unwrap_or(0) as usize;
        let mut of_class = vec![Vec::new(); self.counts.len()];
        for cell in self.cells.cells(num_cells) {
            of_class[class_of[cell as usize] as usize].push(cell);
        }
        let mut kept = Vec::new();
        for (class, own) in (0..).zip(of_class).filter(|(_, own)| !own.is_empty()) {
            let mut rng = stream(seed, Stream::Balance, 0, class);
            let drawn = rand::seq::index::sample(&mut rng, own.len(), least);
            kept.extend(drawn.into_iter().map(|i| own[i]));
        }
        kept.sort_unstable();
        println!(
            "Balanced: {} training cells, {least} of each class",
            kept.len()
        );
        let counts = self.counts.iter().map(|&n| n.min(least as u64)).collect();
        Self {
            cells: Selection::Rows(kept.into()),
            counts,
            ..self
        }
    }

    /// 1 / frequency of each class, scaled so that the mean over cells is 1; 0 for absent ones.
    pub(super) fn weights(&self) -> Vec<f32> {
        let total: u64 = self.counts.iter().sum();
        let present = self.counts.iter().filter(|&&n| n > 0).count();
        let weight = |&n: &u64| match n {
            0 => 0.0,
            n => (total as f64 / (present as f64 * n as f64)) as f32,
        };
        self.counts.iter().map(weight).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn classes() -> Classes {
        Classes {
            category: "tissue".to_owned(),
            positive: None,
            names: ["lung", "liver", "skin"].map(str::to_owned).to_vec(),
        }
    }

    #[test]
    fn cells_without_a_class_are_left_out_and_counted() {
        let class_of = [0, NO_CLASS, 1, 0, 0, NO_CLASS, 1];
        let labelled = Labelled::new(&Selection::All, &class_of, &classes()).unwrap();
        assert_eq!(labelled.cells, Selection::Rows([0, 2, 3, 4, 6].into()));
        assert_eq!((labelled.majority(), labelled.num_without), (0, 2));
        let text = labelled.describe(&classes());
        assert!(text.contains("lung 3, liver 2") && text.contains("2 training cells without"));
        assert!(text.contains("1 of them have no training cell"), "{text}");
        // 5 cells, 2 classes: 5/(2·3), 5/(2·2).
        assert_eq!(labelled.weights(), [5.0 / 6.0, 1.25, 0.0]);
    }

    #[test]
    fn balancing_keeps_as_many_of_each_class_and_draws_the_same_again() {
        let class_of: Vec<u32> = (0..100).map(|cell| u32::from(cell % 10 == 0)).collect();
        let balanced = || {
            let labelled = Labelled::new(&Selection::All, &class_of, &classes()).unwrap();
            labelled.balanced(&class_of, 5)
        };
        let (a, b) = (balanced(), balanced());
        assert_eq!(
            (a.counts.as_slice(), &a.cells),
            (&[10, 10, 0][..], &b.cells)
        );
        assert_eq!(a.cells.len(100), 20);
        assert_eq!(a.weights(), [1.0, 1.0, 0.0]);
    }

    #[test]
    fn one_class_or_none_is_refused() {
        let refused = |class_of: &[u32]| {
            let refused = Labelled::new(&Selection::All, class_of, &classes());
            refused.err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert!(refused(&[1, 1]).contains("all 2 training cells are \"liver\""));
        assert!(refused(&[NO_CLASS; 3]).contains("no training cell has a class"));
    }
}
