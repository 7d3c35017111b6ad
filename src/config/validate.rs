//! All that can be wrong with settings before anything is opened.
//!
//! Each check pushes a [`Problem`]: the setting, what is wrong, what to set instead. Cross-checks
//! that need data (a phenotype that no file has, an edge file of the wrong length) belong to those
//! who read the data.

use std::fmt;

use super::choices::{Dtype, GeneStart};
use super::jobs::Job;
use super::settings::RunConfig;
use super::spelling::nearest;
use crate::model::GeneBertConfig;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting (or settings) concerned.
    pub key: &'static str,
    /// What is wrong.
    pub what: String,
    /// What to set instead.
    pub remedy: String,
}

/// Everything that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(pub Vec<Problem>);

impl std::error::Error for Invalid {}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "setting {}: {}\nhint: {}", one.key, one.what, one.remedy),
            all => {
                write!(f, "{} settings cannot work:", all.len())?;
                for Problem { key, what, remedy } in all {
                    write!(f, "\n  {key}: {what}; {remedy}")?;
                }
                Ok(())
            }
        }
    }
}

/// Problems found so far.
pub(super) struct Checks(Vec<Problem>);

impl Checks {
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    pub(super) fn result(self) -> Result<(), Invalid> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Invalid(self.0))
        }
    }

    pub(super) fn push(
        &mut self,
        key: &'static str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.0.push(Problem {
            key,
            what: what.into(),
            remedy: remedy.into(),
        });
    }

    pub(super) fn unless(
        &mut self,
        fine: bool,
        key: &'static str,
        what: impl fmt::Display,
        remedy: &str,
    ) {
        if !fine {
            self.push(key, what.to_string(), remedy);
        }
    }

    /// A share or probability.
    fn share(&mut self, key: &'static str, value: f64) {
        let fine = (0.0..=1.0).contains(&value);
        self.unless(fine, key, format!("is {value}"), "set a number from 0 to 1");
    }

    pub(super) fn at_least_one(&mut self, key: &'static str, value: impl Into<Option<u64>>) {
        let fine = value.into().is_none_or(|v| v > 0);
        self.unless(fine, key, "is 0", "set 1 or more, or leave it out");
    }

    fn not_negative(&mut self, key: &'static str, value: f64) {
        let fine = value >= 0.0 && value.is_finite();
        self.unless(
            fine,
            key,
            format!("is {value}"),
            "set 0 or a positive number",
        );
    }
}

impl RunConfig {
    /// Checks everything that can be checked without opening a file, for this kind of run. Where
    /// it `resumes`, bins need not be set: the checkpoint has them.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self, job: Job, resumes: bool) -> Result<(), Invalid> {
        let mut checks = Checks::none();
        self.check_data(&mut checks);
        self.check_bins(resumes, &mut checks);
        self.check_tokens(&mut checks);
        self.check_job(job, &mut checks);
        self.check_model(&mut checks);
        self.check_dropout(&mut checks);
        self.check_length(&mut checks);
        self.check_optimizer(&mut checks);
        self.check_evaluation(&mut checks);
        self.check_metric(job, &mut checks);
        self.check_machine(&mut checks);
        checks.result()
    }

    /// [`RunConfig::validate`] for jobs that make tokens but do not train.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate_tokens(&self) -> Result<(), Invalid> {
        let mut checks = Checks::none();
        checks.share("min_gene_overlap", self.min_gene_overlap);
        self.check_bins(false, &mut checks);
        self.check_tokens(&mut checks);
        checks.result()
    }

    /// What a user should know although nothing is wrong.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.use_flash_attn {
            notes.push(
                "use_flash_attn: the fused attention over packed cells is always used on the CPU"
                    .to_owned(),
            );
        }
        let masks = self.job() == Job::Mlm;
        if masks && self.gene_mask_prob == 0.0 && self.phenotype_mask_prob > 0.0 {
            notes.push("gene_mask_prob is 0: the model learns phenotypes only".to_owned());
        }
        notes
    }

    fn check_data(&self, checks: &mut Checks) {
        if self.train_data_paths.is_empty() {
            checks.push("train_data_paths", "is empty", "name one h5ad file or more");
        }
        if self.output_dir.is_none() {
            checks.push(
                "output_dir",
                "is not set",
                "name the folder for the results of the run",
            );
        }
        let fine = (0.0..1.0).contains(&self.eval_fraction);
        let what = format!("is {}", self.eval_fraction);
        checks.unless(
            fine,
            "eval_fraction",
            what,
            "set a number from 0 to below 1, such as 0.1",
        );
        self.check_split(checks);
        self.check_matrix(checks);
        checks.share("min_gene_overlap", self.min_gene_overlap);
        checks.at_least_one("eval_max_cells", self.eval_max_cells);
        checks.at_least_one("shard_size", self.shard_size);
        checks.at_least_one("block_cells", self.block_cells as u64);
        checks.at_least_one("buffer_cells", self.buffer_cells as u64);
        self.check_order(checks);
    }

    fn check_bins(&self, resumes: bool, checks: &mut Checks) {
        let given = [
            self.bin_edges.is_some(),
            self.bin_edges_path.is_some(),
            self.quantile_bins.is_some(),
        ];
        let number = given.iter().filter(|&&g| g).count();
        let key = "bin_edges, bin_edges_path, quantile_bins";
        let path = self.pretrained_model_path.as_ref();
        let from_checkpoint = resumes || path.is_some_and(|path| path.is_dir());
        if number != 1 && !(number == 0 && from_checkpoint) {
            let what = if number == 0 {
                "none is set"
            } else {
                "more than one is set"
            };
            checks.push(key, what, "set exactly one, such as --bin_edges 0.1");
        }
        if let Some(edges) = &self.bin_edges {
            let ascending = edges.windows(2).all(|pair| pair[0] < pair[1]);
            let fine = !edges.is_empty() && ascending && edges.iter().all(|e| e.is_finite());
            let what = format!("{edges:?} do not ascend");
            checks.unless(
                fine,
                "bin_edges",
                what,
                "give finite numbers, each above the one before",
            );
        }
        checks.at_least_one("quantile_bins", self.quantile_bins.map(|n| n as u64));
    }

    fn check_tokens(&self, checks: &mut Checks) {
        let phenotypes = self.included_phenotypes.len();
        let least = phenotypes + 3;
        if self.max_length < least {
            let what = format!("{} has no room for genes", self.max_length);
            let remedy =
                format!("set {least} or more: [CLS], {phenotypes} phenotypes, one gene and [EOS]");
            checks.push("max_length", what, remedy);
        }
        for (at, phenotype) in self.included_phenotypes.iter().enumerate() {
            if self.included_phenotypes[..at].contains(phenotype) {
                let what = format!("`{phenotype}` is given twice");
                checks.push("included_phenotypes", what, "name each column once");
            }
        }
        checks.at_least_one("num_top_genes", self.num_top_genes.map(|n| n as u64));
        self.check_steps(checks);
    }

    pub(super) fn check_masks(&self, checks: &mut Checks) {
        checks.share("gene_mask_prob", self.gene_mask_prob);
        checks.share("phenotype_mask_prob", self.phenotype_mask_prob);
        let no_phenotypes = self.included_phenotypes.is_empty();
        if self.gene_mask_prob == 0.0 && (no_phenotypes || self.phenotype_mask_prob == 0.0) {
            let what = "nothing is ever masked, so there is nothing to learn";
            let remedy = "set gene_mask_prob above 0, or include phenotypes and set \
                          phenotype_mask_prob above 0";
            checks.push("gene_mask_prob, phenotype_mask_prob", what, remedy);
        }
    }

    fn check_model(&self, checks: &mut Checks) {
        let key = "pretrained_model_path, model_arch";
        match (&self.pretrained_model_path, &self.model_arch) {
            (None, None) => {
                let names = GeneBertConfig::built_in_names().join(", ");
                let remedy =
                    format!("set one, such as --model_arch quickstart (built in: {names})");
                checks.push(key, "neither is set", remedy);
            }
            (Some(_), Some(_)) => {
                checks.push(key, "both are set", "keep one of them");
            }
            (None, Some(name)) => {
                let names = GeneBertConfig::built_in_names();
                if !names.contains(&name.as_str()) {
                    let what = format!("no built-in model is called `{name}`");
                    let remedy = match nearest(name, names.iter().copied()) {
                        Some(name) => format!("did you mean {name}?"),
                        None => format!("there are {}", names.join(", ")),
                    };
                    checks.push("model_arch", what, remedy);
                }
            }
            (Some(_), None) => {}
        }
        let from_checkpoint = || {
            self.pretrained_model_path
                .as_ref()
                .is_some_and(|p| p.is_dir())
        };
        checks.unless(
            self.init_gene_embeddings == GeneStart::Random || !from_checkpoint(),
            "init_gene_embeddings",
            "is for new models, and the model's weights come from a checkpoint",
            "leave it out, or start from a model config",
        );
        checks.at_least_one(
            "num_hidden_layers",
            self.num_hidden_layers.map(|n| n as u64),
        );
        checks.at_least_one(
            "num_attention_heads",
            self.num_attention_heads.map(|n| n as u64),
        );
    }

    fn check_dropout(&self, checks: &mut Checks) {
        for (key, dropout) in [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            (
                "attention_probs_dropout_prob",
                self.attention_probs_dropout_prob,
            ),
        ] {
            let fine = dropout.is_none_or(|p| (0.0..1.0).contains(&p));
            let what = format!("is {}", dropout.unwrap_or_default());
            checks.unless(fine, key, what, "set a number from 0 to below 1");
        }
    }

    fn check_length(&self, checks: &mut Checks) {
        if self.num_train_epochs.is_some() && self.max_steps.is_some() {
            checks.push(
                "num_train_epochs, max_steps",
                "both are set",
                "keep one of them",
            );
        }
        if let Some(epochs) = self.num_train_epochs {
            let fine = epochs > 0.0 && epochs.is_finite();
            let what = format!("is {epochs}");
            checks.unless(fine, "num_train_epochs", what, "set a positive number");
        }
        checks.at_least_one("max_steps", self.max_steps);
        let tokens = self.tokens_per_batch.map(|tokens| tokens as u64);
        checks.at_least_one("tokens_per_batch", tokens);
        for (key, cells) in [
            (
                "per_device_train_batch_size",
                self.per_device_train_batch_size,
            ),
            (
                "per_device_eval_batch_size",
                self.per_device_eval_batch_size,
            ),
            (
                "gradient_accumulation_steps",
                self.gradient_accumulation_steps,
            ),
        ] {
            checks.at_least_one(key, cells as u64);
        }
        let fine = i64::try_from(self.seed).is_ok();
        checks.unless(
            fine,
            "seed",
            format!("{} is too large", self.seed),
            "set one below 2^63",
        );
    }

    fn check_optimizer(&self, checks: &mut Checks) {
        let fine = self.learning_rate > 0.0 && self.learning_rate.is_finite();
        let what = format!("is {}", self.learning_rate);
        checks.unless(
            fine,
            "learning_rate",
            what,
            "set a positive number, such as 1e-4",
        );
        checks.not_negative("weight_decay", self.weight_decay);
        checks.not_negative("max_grad_norm", self.max_grad_norm);
        let (epsilon, positive) = (self.adam_epsilon, "set a positive number, such as 1e-8");
        checks.unless(
            epsilon > 0.0,
            "adam_epsilon",
            format!("is {epsilon}"),
            positive,
        );
        for (key, beta) in [
            ("adam_beta1", self.adam_beta1),
            ("adam_beta2", self.adam_beta2),
        ] {
            let fine = (0.0..1.0).contains(&beta);
            checks.unless(
                fine,
                key,
                format!("is {beta}"),
                "set a number from 0 to below 1",
            );
        }
        let smoothing = self.label_smoothing;
        let fine = (0.0..1.0).contains(&smoothing);
        let remedy = "set a number from 0 to below 1";
        checks.unless(fine, "label_smoothing", format!("is {smoothing}"), remedy);
        checks.share("warmup_ratio", self.warmup_ratio);
        if self.warmup_steps.is_some() && self.warmup_ratio > 0.0 {
            checks.push(
                "warmup_ratio, warmup_steps",
                "both are set",
                "keep one of them",
            );
        }
    }

    fn check_machine(&self, checks: &mut Checks) {
        checks.at_least_one("threads", self.threads.map(|n| n as u64));
        checks.at_least_one("reduce_bucket_mib", self.reduce_bucket_mib as u64);
        checks.at_least_one("rank_timeout", self.rank_timeout);
        if let Err(error) = self.device.check() {
            checks.push("device", error.to_string(), error.hint());
        }
        let only_on_gpu = [
            ("dtype", self.dtype == Some(Dtype::F16), "f16", "set bf16"),
            ("tf32", self.tf32, "tf32", "leave it out"),
        ];
        for (key, is_asked, what, hint) in only_on_gpu {
            if is_asked && self.device.gpu().is_none() {
                let wrong = format!("the CPU computes nothing in {what}");
                checks.push(
                    key,
                    wrong,
                    format!("{hint}, or --device cuda:0 where there is one"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::config::Settings;
    use crate::loader::Shuffle;

    fn sound() -> RunConfig {
        Settings {
            train_data_paths: Some(vec!["a.h5ad".into()]),
            output_dir: Some("out".into()),
            bin_edges: Some(vec![0.1, 1.0]),
            model_arch: Some("quickstart".into()),
            included_phenotypes: Some(vec!["cell_type".into(), "sex".into()]),
            ..Settings::default()
        }
        .with_defaults()
    }

    fn problems(change: impl Fn(&mut RunConfig)) -> Vec<&'static str> {
        let mut config = sound();
        change(&mut config);
        config
            .validate(Job::Mlm, false)
            .map_or_else(|e| e.0.iter().map(|p| p.key).collect(), |()| Vec::new())
    }

    #[test]
    fn a_sound_run_has_no_problems() {
        assert_eq!(problems(|_| {}), Vec::<&str>::new());
    }

    #[test]
    fn each_problem_is_found() {
        let bins = "bin_edges, bin_edges_path, quantile_bins";
        assert_eq!(problems(|c| c.bin_edges = None), [bins]);
        assert_eq!(problems(|c| c.quantile_bins = Some(4)), [bins]);
        assert_eq!(
            problems(|c| c.bin_edges = Some(vec![1.0, 1.0])),
            ["bin_edges"]
        );
        assert_eq!(problems(|c| c.bin_edges = Some(vec![])), ["bin_edges"]);
        assert_eq!(
            problems(|c| c.bin_edges = Some(vec![f64::NAN])),
            ["bin_edges"]
        );
        assert_eq!(problems(|c| c.max_length = 4), ["max_length"]);
        assert_eq!(
            problems(|c| c.included_phenotypes.push("sex".into())),
            ["included_phenotypes"]
        );
        assert_eq!(problems(|c| c.gene_mask_prob = 1.5), ["gene_mask_prob"]);
        assert_eq!(
            problems(|c| c.phenotype_mask_prob = f64::NAN),
            ["phenotype_mask_prob"]
        );
        let both = "gene_mask_prob, phenotype_mask_prob";
        assert_eq!(
            problems(|c| (c.gene_mask_prob, c.phenotype_mask_prob) = (0.0, 0.0)),
            [both]
        );
        assert_eq!(
            problems(|c| c.model_arch = None),
            ["pretrained_model_path, model_arch"]
        );
        assert_eq!(
            problems(|c| c.model_arch = Some("x".into())),
            ["model_arch"]
        );
        let length = "num_train_epochs, max_steps";
        assert_eq!(
            problems(|c| (c.num_train_epochs, c.max_steps) = (Some(1.0), Some(5))),
            [length]
        );
        assert_eq!(problems(|c| c.learning_rate = 0.0), ["learning_rate"]);
        assert_eq!(problems(|c| c.adam_beta2 = 1.0), ["adam_beta2"]);
        assert_eq!(
            problems(|c| c.device = crate::config::Device::Cuda(0)),
            ["device"]
        );
        assert_eq!(problems(|c| c.seed = u64::MAX), ["seed"]);
        let donor = || Some("donor_id".to_owned());
        let by = "balance_by, weight_by, group_by";
        assert_eq!(
            problems(|c| (c.balance_by, c.group_by) = (donor(), donor())),
            [by]
        );
        for shuffle in [Shuffle::Weighted, Shuffle::Grouped] {
            assert_eq!(problems(|c| c.shuffle = Some(shuffle)), ["shuffle"]);
        }
        let full_by_group = |c: &mut RunConfig| {
            (c.group_by, c.shuffle) = (donor(), Some(Shuffle::Full));
        };
        assert_eq!(problems(full_by_group), ["shuffle"]);
        assert!(problems(|c| c.group_by = donor()).is_empty());
        assert_eq!(problems(|c| c.eval_fraction = 1.0), ["eval_fraction"]);
        assert_eq!(
            problems(|c| (c.eval_fraction, c.eval_steps) = (0.0, Some(5))),
            ["eval_steps"]
        );
        let by_split = |c: &mut RunConfig| {
            (c.eval_fraction, c.split_file) = (0.0, Some("split.tsv".into()));
            (c.eval_steps, c.early_stopping_patience) = (Some(5), Some(2));
        };
        assert!(problems(by_split).is_empty());
    }

    #[test]
    fn all_problems_are_said_at_once() {
        let text = crate::config::RunFlags::default()
            .resolve()
            .unwrap()
            .validate(Job::Mlm, false)
            .unwrap_err();
        let text = text.to_string();
        for key in ["train_data_paths", "output_dir", "bin_edges", "model_arch"] {
            assert!(text.contains(key), "{text}");
        }
        let mut config = sound();
        config.max_length = 3;
        let text = config.validate(Job::Mlm, false).unwrap_err().to_string();
        assert!(
            text.contains("setting max_length") && text.contains("\nhint: set 5"),
            "{text}"
        );
    }
}
