//! Checks of what is read: the split, the order of cells, the steps of transforms.

use super::settings::RunConfig;
use super::validate::Checks;
use crate::h5ad::MatrixKey;
use crate::loader::{OrderBy, Shuffle};
use crate::tokenize::Needs;

impl RunConfig {
    pub(super) fn check_split(&self, checks: &mut Checks) {
        checks.unless(
            self.split_file.is_none() || self.eval_data_paths.is_empty(),
            "split_file, eval_data_paths",
            "both say which cells are evaluated",
            "leave one of them out; a split is of all files, those of training and evaluation",
        );
        checks.unless(
            self.fold.is_none() || self.split_file.is_some(),
            "fold",
            "has no meaning without a split",
            "name one with --split_file, or leave it out",
        );
    }

    pub(super) fn check_order(&self, checks: &mut Checks) {
        let key = "balance_by, weight_by, group_by";
        let given = [&self.balance_by, &self.weight_by, &self.group_by];
        if given.into_iter().flatten().count() > 1 {
            checks.push(key, "more than one is set", "keep one of them");
        }
        let Some(shuffle) = self.shuffle else { return };
        let needs = match shuffle {
            Shuffle::Weighted => Some("balance_by or weight_by"),
            Shuffle::Grouped => Some("group_by"),
            Shuffle::Sequential | Shuffle::Block | Shuffle::Full => None,
        };
        let has = match self.order_by() {
            Some(OrderBy::Balance(_) | OrderBy::Weight(_)) => Some("balance_by or weight_by"),
            Some(OrderBy::Group(_)) => Some("group_by"),
            None => None,
        };
        if needs == has {
            return;
        }
        let what = format!("{shuffle:?}").to_lowercase();
        let (what, remedy) = match needs {
            Some(needs) => (
                format!("is {what}"),
                format!("name an obs column with {needs}"),
            ),
            None => (
                format!(
                    "is {what}, which does not go by {}",
                    has.unwrap_or_default()
                ),
                "leave one of the two out".to_owned(),
            ),
        };
        checks.push("shuffle", what, remedy);
    }

    /// What is read must be genes.
    pub(super) fn check_matrix(&self, checks: &mut Checks) {
        let is_obsm = matches!(self.matrix, MatrixKey::Obsm(_));
        let what = format!("is {}, whose columns are no genes", self.matrix);
        checks.unless(!is_obsm, "matrix", what, "name X, layers.NAME or raw.X");
    }

    /// Steps of transforms that cannot stand in a run.
    pub(super) fn check_steps(&self, checks: &mut Checks) {
        for (key, steps, most) in [
            ("transform", &self.transform, Needs::Values),
            ("augment", &self.augment, Needs::Draws),
        ] {
            if let Some((step, needs)) = steps.beyond(most) {
                let (what, remedy) = match needs {
                    Needs::Table => (
                        "reads a table of genes, which a checkpoint does not hold",
                        "leave it out; num_top_genes and gene_ranking choose genes",
                    ),
                    _ => (
                        "draws at random, in evaluation too",
                        "give it to augment, which is for training cells only",
                    ),
                };
                checks.push(key, format!("step {step} {what}"), remedy);
            }
        }
    }
}
