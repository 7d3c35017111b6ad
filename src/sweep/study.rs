//! A study: what W&B's sweep file says, read and checked.
//!
//! Keys of W&B's documentation: `program`, `method`, `metric`, `parameters`, `early_terminate`,
//! `command`, `run_cap`, `name`, `description`, `project`, `entity`. Unknown ones are refused.

use std::path::Path;

use super::command::{Template, names_flag};
use super::error::{Fault, SweepError};
use super::hyperband::Hyperband;
use super::parameter::{self, Parameter};
use super::value::Value;
use super::yaml::{self, At, Fields};
use crate::file::read_string;

const KEYS: [&str; 11] = [
    "program",
    "method",
    "metric",
    "parameters",
    "early_terminate",
    "command",
    "run_cap",
    "name",
    "description",
    "project",
    "entity",
];

/// How the next trial is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Every combination of values, the last parameter of the file changing fastest.
    Grid,
    /// Independent draws.
    Random,
    /// By the results so far: a tree-structured Parzen estimator.
    Bayes,
}

/// What a trial is judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// A figure of the runs' evaluations, by the names that `--metric-for-best-model` takes, or
    /// `train_loss`.
    pub name: String,
    /// Whether higher is better.
    pub maximize: bool,
    /// No trial begins once one has reached it.
    pub target: Option<f64>,
}

impl Metric {
    /// Whether `a` is better than `b`.
    pub fn is_better(&self, a: f64, b: f64) -> bool {
        self.score(a) < self.score(b)
    }

    /// `value` so that lower is better; what is not a number is worst.
    pub fn score(&self, value: f64) -> f64 {
        match value {
            value if value.is_nan() => f64::INFINITY,
            value if self.maximize => -value,
            value => value,
        }
    }

    /// Whether `value` is as good as the target.
    pub fn reaches_target(&self, value: f64) -> bool {
        self.target
            .is_some_and(|target| self.score(value) <= self.score(target))
    }
}

/// A study.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    /// What it is called; by default the file's name without its ending.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// W&B's project, for the runs' trackers.
    pub project: Option<String>,
    /// W&B's entity, for the runs' trackers.
    pub entity: Option<String>,
    /// How trials are chosen.
    pub method: Method,
    /// What they are judged by.
    pub metric: Metric,
    /// What they vary, in the order of the file.
    pub parameters: Vec<Parameter>,
    /// When they end early.
    pub early_terminate: Option<Hyperband>,
    /// What is run.
    pub command: Template,
    /// The most trials.
    pub run_cap: Option<u64>,
}

impl Study {
    /// Reads a study file; `more` are words for every run.
    ///
    /// # Errors
    /// A file that cannot be read, is no YAML, or says what cannot be done, with key and line.
    pub fn read(path: &Path, more: &[String]) -> Result<Self, SweepError> {
        let name = path.file_stem().unwrap_or(path.as_os_str());
        Self::parse(&read_string(path)?, &name.to_string_lossy(), more).map_err(|fault| {
            SweepError::Study {
                path: path.to_owned(),
                fault,
            }
        })
    }

    /// Reads the text of a study file.
    ///
    /// # Errors
    /// As [`Study::read`].
    pub fn parse(text: &str, name: &str, more: &[String]) -> Result<Self, Fault> {
        let document = yaml::parse(text)?;
        let root = At::root(&document);
        let fields = root.table_of(&KEYS)?;
        let needed = |key: &str, hint: &str| {
            fields
                .get(key)
                .ok_or_else(|| root.fault(format!("`{key}` is not there"), hint))
        };
        let method = needed("method", "write `method: grid`, random or bayes")?.one_of(&[
            ("grid", Method::Grid),
            ("random", Method::Random),
            ("bayes", Method::Bayes),
        ])?;
        let parameters = needed("parameters", "name the settings to vary")?;
        let parameters = parameter::read_all(parameters)?;
        let text_of = |key: &str| fields.maybe(key, At::text);
        let command = Template::read(fields.get("program"), fields.get("command"), &root, more)?;
        let mut study = Self {
            name: text_of("name")?.unwrap_or_else(|| name.to_owned()),
            description: text_of("description")?,
            project: text_of("project")?,
            entity: text_of("entity")?,
            method,
            metric: metric(&fields, &root, method)?,
            early_terminate: fields.maybe("early_terminate", Hyperband::read)?,
            command,
            run_cap: fields
                .maybe("run_cap", |at| at.integer(1))?
                .map(i64::unsigned_abs),
            parameters,
        };
        study.give_way_to(more)?;
        study.check_grid()?;
        study.check_flags()?;
        Ok(study)
    }

    /// Leaves out what the words behind the study set: those of the command line win over values of
    /// the file, but not over what it searches.
    fn give_way_to(&mut self, more: &[String]) -> Result<(), Fault> {
        if !self.command.takes_flags() {
            return Ok(());
        }
        let is_given = |name: &str| names_flag(more, &format!("--{}", name.replace('_', "-")));
        self.parameters
            .retain(|p| !p.distribution.is_constant() || !is_given(&p.name));
        let Some(both) = self.parameters.iter().find(|p| is_given(&p.name)) else {
            return Ok(());
        };
        Err(Fault::new(
            both.line,
            format!("parameters.{}", both.name),
            "the words behind -- set it, too, and it is searched",
            "leave it out of one of them",
        ))
    }

    fn check_grid(&self) -> Result<(), Fault> {
        if self.method != Method::Grid {
            return Ok(());
        }
        for parameter in &self.parameters {
            if parameter.distribution.num_values().is_none() {
                return Err(Fault::new(
                    parameter.line,
                    format!("parameters.{}", parameter.name),
                    "a grid cannot walk through this distribution, which has no end of values",
                    "list values, use int_uniform or q_uniform, or choose method random or bayes",
                ));
            }
        }
        Ok(())
    }

    /// Each value of each parameter, as the flag that it is.
    fn check_flags(&self) -> Result<(), Fault> {
        for parameter in &self.parameters {
            let distribution = &parameter.distribution;
            let places: Vec<f64> = match distribution.num_values() {
                Some(number) if number <= 1000 => {
                    (0..number).map(|n| distribution.place_of(n)).collect()
                }
                _ if distribution.is_bounded() => vec![0.0, 0.5, 1.0],
                // What has no bounds reaches everything, if hardly ever.
                _ => vec![0.05, 0.5, 0.95],
            };
            for place in places {
                let value = distribution.at(place);
                self.command
                    .check_flag(&parameter.name, &value)
                    .map_err(|(what, hint)| {
                        let key = format!("parameters.{}", parameter.name);
                        Fault::new(parameter.line, key, what, hint)
                    })?;
            }
        }
        Ok(())
    }

    /// The values of the trial at `point`, which has a place in 0..1 for each parameter.
    pub fn values(&self, point: &[f64]) -> Vec<(&str, Value)> {
        let both = self.parameters.iter().zip(point);
        both.map(|(parameter, &u)| (parameter.name.as_str(), parameter.distribution.at(u)))
            .collect()
    }

    /// Names of all parameters.
    pub fn names(&self) -> Vec<&str> {
        self.parameters.iter().map(|p| p.name.as_str()).collect()
    }

    /// Trials of the whole grid.
    pub fn grid_size(&self) -> u64 {
        let sizes = self.parameters.iter();
        let sizes = sizes.map(|p| p.distribution.num_values().unwrap_or(1) as u64);
        sizes.fold(1, u64::saturating_mul)
    }

    /// The most trials there will be; `None`: there is no end.
    pub fn max_trials(&self) -> Option<u64> {
        match self.method {
            Method::Grid => Some(
                self.run_cap
                    .map_or(self.grid_size(), |cap| cap.min(self.grid_size())),
            ),
            _ => self.run_cap,
        }
    }

    /// Whether the choice of trials, or of those that end early, depends on others' results.
    pub fn needs_results(&self) -> bool {
        self.method == Method::Bayes
            || self.early_terminate.is_some()
            || self.metric.target.is_some()
    }

    /// What of the study differs from `other`, apart from what may differ when it is continued.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        let lines = |study: &Self| -> Vec<(String, super::distribution::Distribution)> {
            let all = study.parameters.iter();
            all.map(|p| (p.name.clone(), p.distribution.clone()))
                .collect()
        };
        if self.method != other.method {
            Some("method")
        } else if self.metric != other.metric {
            Some("metric")
        } else if self.command != other.command {
            Some("program, command or the words behind --")
        } else if lines(self) != lines(other) {
            Some("parameters")
        } else if self.early_terminate != other.early_terminate {
            Some("early_terminate")
        } else {
            None
        }
    }
}

fn metric(fields: &Fields<'_>, root: &At<'_>, method: Method) -> Result<Metric, Fault> {
    let Some(at) = fields.get("metric") else {
        let needs = match method {
            Method::Bayes => "method bayes",
            _ if fields.get("early_terminate").is_some() => "early_terminate",
            _ => {
                return Ok(Metric {
                    name: "eval_loss".to_owned(),
                    maximize: false,
                    target: None,
                });
            }
        };
        let what = format!("`metric` is not there, and {needs} needs it");
        return Err(root.fault(what, "write `metric: {name: eval_loss, goal: minimize}`"));
    };
    if !at.is_table() {
        let hint = "write `metric: {name: eval_loss, goal: minimize}`";
        return Err(at.expected("a table of name and goal", hint));
    }
    let fields = at.table_of(&["name", "goal", "target"])?;
    let Some(name) = fields.get("name") else {
        return Err(at.fault("`name` is not there", "name a figure, such as eval_loss"));
    };
    let name = name.text()?;
    let goals = [("minimize", false), ("maximize", true)];
    let goal = fields.maybe("goal", |at| at.one_of(&goals))?;
    let Some(maximize) = goal.or(name.ends_with("loss").then_some(false)) else {
        let what = format!("`goal` is not there, and {name} is no loss");
        return Err(at.fault(what, "write goal: maximize or goal: minimize"));
    };
    Ok(Metric {
        name: if name == "loss" {
            "eval_loss".to_owned()
        } else {
            name
        },
        maximize,
        target: fields.maybe("target", At::number)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SOUND: &str = "program: mlm\nmethod: grid\nmetric: {name: accuracy, goal: maximize}\n\
                         parameters:\n  seed: {values: [1, 2, 3]}\n  max_length: {value: 64}\n  \
                         learning_rate: {values: [1e-4, 1e-3]}\n";

    fn refused(text: &str) -> String {
        let fault = Study::parse(text, "s", &[]).unwrap_err();
        format!("{}: {fault}", fault.line)
    }

    #[test]
    fn a_study_is_read() {
        let study = Study::parse(SOUND, "lr", &[]).unwrap();
        assert_eq!((study.name.as_str(), study.grid_size()), ("lr", 6));
        assert_eq!(study.max_trials(), Some(6));
        assert!(study.metric.is_better(0.5, 0.4) && study.metric.is_better(0.1, f64::NAN));
        let capped = format!("{SOUND}run_cap: 4\n");
        let capped = Study::parse(&capped, "lr", &[]).unwrap();
        assert_eq!(capped.max_trials(), Some(4));
        assert_eq!(study.difference(&capped), None);
        let commented = Study::parse(&format!("# new\n{SOUND}"), "other", &[]).unwrap();
        assert_eq!(study.difference(&commented), None);
        let other = SOUND.replace("1e-4", "2e-4");
        let other = Study::parse(&other, "lr", &[]).unwrap();
        assert_eq!(study.difference(&other), Some("parameters"));
    }

    #[test]
    fn words_behind_the_study_win_over_its_values() {
        let more = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let study = Study::parse(SOUND, "lr", &more("--max-length 32 --threads 1")).unwrap();
        assert_eq!(study.names(), ["seed", "learning_rate"]);
        let said = Study::parse(SOUND, "lr", &more("--seed=3")).unwrap_err();
        assert_eq!((said.line, said.key.as_str()), (5, "parameters.seed"));
        assert!(said.what.contains("behind --"), "{said}");
    }

    #[test]
    fn names_may_have_points_and_tails_may_be_no_values() {
        let text = "method: grid\ncommand: [run.sh, '${output_dir}']\nparameters:\n  \
                    model.dim: {values: [1, 2]}\n  model: {parameters: {depth: {value: 3}}}\n";
        let study = Study::parse(text, "s", &[]).unwrap();
        assert_eq!(study.names(), ["model.dim", "model.depth"]);
        let normal = "program: mlm\nmethod: random\nparameters: {max_length: {distribution: \
                      q_normal, mu: 100, sigma: 30, q: 10}}\n";
        assert!(
            Study::parse(normal, "s", &[]).is_ok(),
            "hardly ever below 0"
        );
        assert!(refused(&normal.replace("30", "300")).contains("max-length"));
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_key_and_line() {
        let with = |from: &str, to: &str| refused(&SOUND.replace(from, to));
        for (said, parts) in [
            (with("grid", "gird"), ["2: method", "did you mean `grid`?"]),
            (
                with("method", "metod"),
                ["2: metod", "did you mean `method`?"],
            ),
            (
                with("method: grid\n", ""),
                ["`method` is not there", "grid"],
            ),
            (with("mlm", "train.py"), ["1: program", "mlm, cls, bincls"]),
            (
                with("program: mlm\n", ""),
                ["`program` is not there", "mlm"],
            ),
            (with(", goal: maximize", ""), ["3: metric", "goal"]),
            (
                with("{name: accuracy, goal: maximize}", "accuracy"),
                ["3: metric", "{name: eval_loss, goal"],
            ),
            (
                with("{values: [1, 2, 3]}", "[1, 2, 3]"),
                ["5: parameters.seed", "seed: {values: …}"],
            ),
            (
                with("{value: 64}", "64"),
                ["6: parameters.max_length", "max_length: {value: …}"],
            ),
            (with("mlm", "train.py"), ["1: program", "into `command`"]),
            (
                with("seed", "sede"),
                ["5: parameters.sede", "did you mean `seed`?"],
            ),
            (
                with("seed", "output_dir"),
                ["5: parameters.output_dir", "the sweep"],
            ),
            (
                with("value: 64", "value: many"),
                ["6: parameters.max_length", "many"],
            ),
            (
                with("1e-3]", "fast]"),
                ["7: parameters.learning_rate", "fast"],
            ),
            (
                with("seed", "binary_label"),
                ["5: parameters.binary_label", "cls"],
            ),
            (
                with("values: [1, 2, 3]", "min: 0.0, max: 1.0"),
                ["5: parameters.seed", "grid"],
            ),
        ] {
            for part in parts.iter().chain(&["hint: "]) {
                assert!(said.contains(part), "no `{part}` in {said}");
            }
        }
        let bayes = "program: mlm\nmethod: bayes\nparameters: {seed: {min: 1, max: 9}}\n";
        assert!(refused(bayes).contains("bayes needs it"));
        let early = format!("{bayes}early_terminate: {{type: hyperband, min_iter: 3}}\n");
        assert!(refused(&early.replace("bayes", "random")).contains("early_terminate needs it"));
        let loss = format!("{bayes}metric: {{name: loss}}\n");
        assert_eq!(
            Study::parse(&loss, "s", &[]).unwrap().metric.name,
            "eval_loss"
        );
        let float = loss.replace("min: 1, max: 9", "min: 1.0, max: 9.5");
        assert!(
            refused(&float).contains("int_uniform"),
            "a float is no seed"
        );
    }
}
