//! What a run is to learn, and which settings belong to one kind of run only.

use super::resolve::RunFlags;
use super::settings::RunConfig;
use super::validate::{Checks, Invalid};

/// The kinds of training run, by their subcommands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Masked pretraining.
    Mlm,
    /// Classifying cells.
    Cls,
    /// Classifying cells, one class against all others.
    Bincls,
}

/// Settings that only `mlm` has a use for.
const OF_MLM: [&str; 3] = [
    "gene_mask_prob",
    "phenotype_mask_prob",
    "absent_gene_sampling",
];
/// Settings that only `cls` and `bincls` have a use for.
const OF_CLS: [&str; 5] = [
    "phenotype_category",
    "binary_label",
    "balanced_dataset",
    "class_weights",
    "freeze_encoder",
];

impl RunFlags {
    /// Refuses flags that belong to another kind of run. (In a settings file they are let pass, as
    /// every saved file has them.)
    ///
    /// # Errors
    /// All such flags at once.
    pub fn validate_for(&self, job: Job) -> Result<(), Invalid> {
        let (foreign, owner): (&[&str], _) = match job {
            Job::Mlm => (&OF_CLS, "cls"),
            Job::Cls | Job::Bincls => (&OF_MLM, "mlm"),
        };
        let mut checks = Checks::none();
        for name in self.settings.given() {
            if foreign.contains(&name) {
                let what = format!("has no meaning here: it is a flag of `gene-bert {owner}`");
                checks.push(name, what, "leave it out");
            }
        }
        checks.result()
    }
}

impl RunFlags {
    /// Refuses what only a run can be asked to do, for jobs that take its settings but are none.
    ///
    /// # Errors
    /// All such flags at once.
    pub fn refuse_actions(&self) -> Result<(), Invalid> {
        let mut checks = Checks::none();
        for (name, given) in [
            ("resume", self.resume.is_some()),
            ("overwrite_output_dir", self.overwrite_output_dir),
        ] {
            let what = "has no meaning here: this is no training run";
            checks.unless(!given, name, what, "leave it out");
        }
        checks.result()
    }
}

impl RunConfig {
    /// The kind of run that these settings are for.
    pub fn job(&self) -> Job {
        match (&self.phenotype_category, &self.binary_label) {
            (None, _) => Job::Mlm,
            (Some(_), None) => Job::Cls,
            (Some(_), Some(_)) => Job::Bincls,
        }
    }

    pub(super) fn check_job(&self, job: Job, checks: &mut Checks) {
        match job {
            Job::Mlm => {
                self.check_masks(checks);
                checks.unless(
                    self.phenotype_category.is_none(),
                    "phenotype_category",
                    "is set, so these are the settings of a classifier",
                    "use `gene-bert cls`, or leave it out",
                );
            }
            Job::Cls | Job::Bincls => self.check_classes(job, checks),
        }
    }

    fn check_classes(&self, job: Job, checks: &mut Checks) {
        match &self.phenotype_category {
            None => checks.push(
                "phenotype_category",
                "is not set",
                "name the obs column whose values are to be predicted",
            ),
            Some(category) if self.included_phenotypes.contains(category) => {
                let what = format!(
                    "`{category}` is also among the included phenotypes, where the \
                                    model would read the answer"
                );
                let remedy = "take it out of included_phenotypes";
                checks.push("phenotype_category", what, remedy);
            }
            Some(_) => {}
        }
        checks.unless(
            job != Job::Bincls || self.binary_label.is_some(),
            "binary_label",
            "is not set",
            "name the value to tell from all others, such as '[lung]', or use `gene-bert cls`",
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Settings;
    use crate::config::settings::KEYS;

    fn cls(category: Option<&str>, included: &[&str], label: Option<&str>) -> RunConfig {
        let owned = |text: &str| text.to_owned();
        RunConfig {
            phenotype_category: category.map(owned),
            included_phenotypes: included.iter().map(|c| owned(c)).collect(),
            binary_label: label.map(owned),
            ..RunConfig::default()
        }
    }

    fn problems(config: &RunConfig, job: Job) -> Vec<&'static str> {
        let mut checks = Checks::none();
        config.check_job(job, &mut checks);
        let invalid = checks.result().err();
        invalid.map_or_else(Vec::new, |e| e.0.iter().map(|p| p.key).collect())
    }

    #[test]
    fn each_kind_of_run_needs_its_settings() {
        let fine = cls(Some("tissue"), &["sex"], None);
        assert_eq!(problems(&fine, Job::Cls), Vec::<&str>::new());
        assert_eq!(problems(&fine, Job::Bincls), ["binary_label"]);
        assert_eq!(problems(&fine, Job::Mlm), ["phenotype_category"]);
        let category = ["phenotype_category"];
        assert_eq!(problems(&cls(None, &[], None), Job::Cls), category);
        let leaked = cls(Some("tissue"), &["tissue"], Some("[lung]"));
        assert_eq!(problems(&leaked, Job::Bincls), category);
        assert_eq!((fine.job(), leaked.job()), (Job::Cls, Job::Bincls));
    }

    #[test]
    fn flags_of_another_kind_of_run_are_refused() {
        let settings = Settings {
            gene_mask_prob: Some(0.15),
            balanced_dataset: Some(true),
            ..Settings::default()
        };
        let flags = RunFlags {
            settings,
            ..RunFlags::default()
        };
        let refused = |job| flags.validate_for(job).unwrap_err().0[0].key;
        assert_eq!(refused(Job::Cls), "gene_mask_prob");
        assert_eq!(refused(Job::Mlm), "balanced_dataset");
        for name in OF_MLM.iter().chain(&OF_CLS) {
            assert!(KEYS.contains(name), "{name}");
        }
    }
}
