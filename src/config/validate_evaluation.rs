//! Checks of when a run is evaluated and saved, and by which figure.

use super::jobs::Job;
use super::settings::RunConfig;
use super::validate::Checks;
use crate::metrics::Figures;

impl RunConfig {
    pub(super) fn check_evaluation(&self, checks: &mut Checks) {
        for (key, number) in [
            ("eval_steps", self.eval_steps),
            ("save_steps", self.save_steps),
            ("early_stopping_patience", self.early_stopping_patience),
            ("logging_steps", Some(self.logging_steps)),
            ("save_total_limit", Some(self.save_total_limit as u64)),
        ] {
            checks.at_least_one(key, number);
        }
        let evaluates = !self.eval_data_paths.is_empty()
            || self.split_file.is_some()
            || self.eval_fraction > 0.0;
        if self.early_stopping_patience.is_some() && !evaluates {
            let remedy = "set eval_data_paths or eval_fraction, or leave it out";
            checks.push(
                "early_stopping_patience",
                "there is no evaluation to judge by",
                remedy,
            );
        }
        if self.eval_steps.is_some() && !evaluates {
            let remedy = "set eval_data_paths or eval_fraction, or leave it out";
            checks.push("eval_steps", "there is nothing to evaluate on", remedy);
        }
        let wait = self.report_wait;
        let remedy = "set it to seconds, from 0 to 86400";
        let fine = (0.0..=86_400.0).contains(&wait);
        checks.unless(fine, "report_wait", format!("is {wait}"), remedy);
    }

    /// Whether evaluations have such a figure, whatever the cells: the loss, and those of
    /// [`Figures::NAMES`] of a classifier, of each phenotype and, but for the AUROC, of genes.
    pub(super) fn check_metric(&self, job: Job, checks: &mut Checks) {
        let metric = self.metric_for_best_model.as_str();
        let of = |prefix: &str| {
            let figure = metric.strip_prefix(prefix);
            figure.is_some_and(|figure| Figures::NAMES.contains(&figure))
        };
        let phenotypes = &self.included_phenotypes;
        let of_genes = of("gene_") && metric != "gene_auroc";
        let is_known = match job {
            Job::Cls | Job::Bincls => of(""),
            Job::Mlm => of_genes || phenotypes.iter().any(|name| of(&format!("{name}_"))),
        };
        let names = Figures::NAMES.join(", ");
        let remedy = match job {
            Job::Cls | Job::Bincls => format!("set loss, {names}"),
            Job::Mlm => {
                let prefixes = phenotypes.iter().map(|name| format!("{name}_"));
                let prefixes = prefixes.chain(["gene_".to_owned()]).collect::<Vec<_>>();
                let prefixes = prefixes.join(", ");
                format!("set loss, or one of {prefixes} followed by one of {names}")
            }
        };
        checks.unless(
            is_known || ["loss", "eval_loss"].contains(&metric),
            "metric_for_best_model",
            format!("is {metric}, which no evaluation of this run tells"),
            &remedy,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_checkpoint_is_told_by_a_figure_that_there_is() {
        let metric = |name: &str| {
            let config = RunConfig {
                metric_for_best_model: name.to_owned(),
                included_phenotypes: ["cell_type", "sex"].map(str::to_owned).to_vec(),
                ..RunConfig::default()
            };
            [Job::Mlm, Job::Cls].map(|job| {
                let mut checks = Checks::none();
                config.check_metric(job, &mut checks);
                checks.result().is_ok()
            })
        };
        assert_eq!([metric("loss"), metric("eval_loss")], [[true; 2]; 2]);
        for of_mlm in ["cell_type_macro_f1", "sex_auroc", "gene_accuracy"] {
            assert_eq!(metric(of_mlm), [true, false], "{of_mlm}");
        }
        assert_eq!(metric("auroc"), [false, true]);
        for wrong in ["", "gene_auroc", "cell_type", "tissue_accuracy", "log_loss"] {
            assert_eq!(metric(wrong), [false; 2], "{wrong}");
        }
    }
}
